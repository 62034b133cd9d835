"""Check whether a password is in a published breach, without disclosing it (k-anonymity).

The server receives the first five digits of the SHA-1 of the password, and returns what follows them in the SHA-1 of
every breached password that begins with these. Needs the extra ``http``.
"""

import logging
from hashlib import sha1
from typing import TYPE_CHECKING, Final, Literal

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, shown
from fastapi_guard.jwt.http import FetchError, check_client, fetch_text
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.stores.bounds import seconds_of

if TYPE_CHECKING:
    import httpx2

logger: logging.Logger = logging.getLogger("fastapi_guard")

BREACHED: Final = "the password is in a list of passwords that were stolen elsewhere"
_PREFIX: Final = 5
_MOST_BYTES: Final = 1024 * 1024
# Padding makes every response about as long, so that its length does not disclose the prefix.
_HEADERS: Final = {"Add-Padding": "true", "User-Agent": "fastapi-guard-auth", "Accept": "text/plain"}


class BreachedPasswords:
    """The range API of Have I Been Pwned, or of a server with the same API."""

    def __init__(
        self,
        url: str = "https://api.pwnedpasswords.com/range/",
        *,
        unreachable: Literal["allow", "refuse"] = "allow",
        timeout_seconds: float = 2.0,
        client: "httpx2.AsyncClient | None" = None,
    ) -> None:
        """Send requests to ``url``.

        Args:
            url: An https URL, to which five hexadecimal digits are appended.
            unreachable: Whether a password may be set while the server is unreachable: ``"allow"`` logs a warning,
                ``"refuse"`` is a 503.
            timeout_seconds: The time for the whole answer.
            client: The client to use; it stays open.

        Raises:
            ConfigurationError: The URL is not https, or a setting is unknown.
            MissingExtraError: The extra ``http`` is not installed.
        """
        if unreachable not in ("allow", "refuse"):
            msg = f'unreachable is "allow" or "refuse", not {shown(unreachable)}'
            raise ConfigurationError(msg)
        self._url = check_url(url)
        self._refuses = unreachable == "refuse"
        self._timeout_seconds = seconds_of("timeout_seconds", timeout_seconds, positive=True)
        self._client = check_client(client)

    async def check(self, password: str) -> None:
        """Refuse a password that is in a breach.

        Raises:
            ValueError: With a text that may be shown to the user.
            ServiceUnavailable: The server is unreachable, with ``unreachable="refuse"``.
        """
        digest = sha1(password.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest().upper()
        try:
            text = await fetch_text(
                self._url + digest[:_PREFIX],
                headers=_HEADERS,
                client=self._client,
                timeout_seconds=self._timeout_seconds,
                max_bytes=_MOST_BYTES,
            )
        except FetchError:
            # Its text has the prefix in the URL.
            if self._refuses:
                raise ServiceUnavailable(reason="breaches_unreachable") from None
            logger.warning("the list of breached passwords is unreachable: a password was not checked against it")
            return
        if _count(text, digest[_PREFIX:]):
            raise ValueError(BREACHED)


def _count(text: str, suffix: str) -> int:
    for line in text.splitlines():
        name, _, count = line.strip().partition(":")
        # An entry of padding has the count 0.
        if name.upper() == suffix and count.isascii() and count.isdigit():
            return int(count[:9])
    return 0
