"""Sign-ins that have begun: a record for each, found by the ``state`` and bound to the browser."""

import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from fastapi_guard.claims import Claims
from fastapi_guard.login.state import digest_of
from fastapi_guard.stores.kinds import SIGN_IN
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import RecordForm

LIFETIME_SECONDS: Final = 600
_SECRET_BYTES: Final = 32
_STATE_CHARACTERS: Final = 43


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A sign-in that has begun.

    Attributes:
        provider: The name of the provider.
        browser: The digest of the cookie of the browser that began it.
        nonce: What the ID token has to have.
        verifier: The PKCE verifier.
        next: A path of the application, where the browser goes afterwards.
        subject: The user who links an identity, ``None`` for a login.
        version: The ``credentials_version`` of that user.
        login: Claims of the login of that user, by which it is found again; ``None`` where they are not known.
    """

    provider: str
    browser: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    next: str | None = None
    subject: str | None = None
    version: int = 0
    login: Claims | None = None

    @property
    def challenge(self) -> str:
        """The PKCE challenge, S256 (RFC 7636 4.2)."""
        digest = sha256(self.verifier.encode()).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


_ATTEMPT: Final = RecordForm(Attempt, "a sign-in with a provider")


def new_secret() -> str:
    """Return 256 random bits as 43 characters, which are also a PKCE verifier (RFC 7636 4.1)."""
    return secrets.token_urlsafe(_SECRET_BYTES)


class Attempts:
    """The attempts of one ProviderLogin."""

    def __init__(self, store: Store, name: str) -> None:
        """Keep them in ``store``; those under another ``name`` are unknown here."""
        self._store = store
        self._name = name

    async def add(self, attempt: Attempt, now: float) -> str:
        """Store an attempt, and return its ``state``.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        state = new_secret()
        await self._store.add(Record(self._key(state), _ATTEMPT.encoded(attempt), None, now + LIFETIME_SECONDS))
        return state

    async def use(self, state: object, *, provider: str, browser: str | None) -> Attempt | None:
        """Return an attempt and end it; of several callers one receives it.

        Returns:
            ``None`` where there is none, or where it was begun with another provider or in another browser; then it
            is still there.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if not isinstance(state, str) or len(state) != _STATE_CHARACTERS or browser is None:
            return None
        key = self._key(state)
        [record] = await self._store.get(key)
        attempt = _ATTEMPT.read_or_none(record)
        if attempt is None or attempt.provider != provider or attempt.browser != digest_of(browser):
            return None
        return attempt if await self._store.delete(key) else None

    def _key(self, state: str) -> str:
        return f"{SIGN_IN}{digest_of(f'{self._name}|{state}')}"
