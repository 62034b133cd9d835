"""Cookies that a login sets: their attributes, checked by the rules of browsers."""

import logging
import re
import secrets
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import Response
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.state import digest_of
from fastapi_guard.schemes.api_key import cookies_named
from fastapi_guard.stores.arguments import check_flags, check_texts

logger: logging.Logger = logging.getLogger("fastapi_guard")

_MAX_NAME_CHARACTERS: Final = 128
_DOMAIN: Final = re.compile(r"[A-Za-z0-9._-]+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BROWSER_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class CookieSettings:
    """The attributes of a cookie (RFC 6265bis 4.1). It is always HttpOnly.

    Attributes:
        name: With the prefix ``__Host-`` no other host, and no page over http, can plant the cookie.
        path: The path below which the browser sends it.
        domain: Another host below which the browser sends it; ``None`` for this host alone.
        secure: Whether the browser sends it over https alone.
        samesite: From which sites' pages the browser sends it.
    """

    name: str = "__Host-session"
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    samesite: Literal["lax", "strict", "none"] = "lax"

    def __post_init__(self) -> None:
        """Check the attributes: a browser silently drops a cookie that breaks the rules of its prefix.

        Raises:
            ConfigurationError: A browser would not accept such a cookie.
        """
        check_texts(name=self.name, path=self.path, domain=self.domain)
        check_flags(secure=self.secure)
        prefix = next((known for known in ("__host-", "__secure-") if self.name.lower().startswith(known)), None)
        if prefix is not None and not self.secure:
            msg = (
                f"a browser accepts {self.name!r} only as a Secure cookie, over https: serve https and leave "
                'secure=True (tests: TestClient(app, base_url="https://testserver")), or name it without the prefix'
            )
            raise ConfigurationError(msg)
        if prefix == "__host-" and (self.path != "/" or self.domain is not None):
            msg = (
                f'a browser accepts {self.name!r} only with path="/" and domain=None: leave them, or use the prefix'
                " __Secure-"
            )
            raise ConfigurationError(msg)
        if self.samesite not in ("lax", "strict", "none") or (self.samesite == "none" and not self.secure):
            msg = 'samesite is "lax", "strict", or with secure=True "none"'
            raise ConfigurationError(msg)
        if not self.path.startswith("/") or ";" in self.path:
            msg = f'path starts with "/" and has no ";", unlike {self.path!r}'
            raise ConfigurationError(msg)
        if self.domain is not None and not _DOMAIN.fullmatch(self.domain):
            msg = f'domain is a host such as "example.com", without https:// and port, not {self.domain!r}'
            raise ConfigurationError(msg)
        if len(self.name) > _MAX_NAME_CHARACTERS:
            msg = f"the name of a cookie has at most {_MAX_NAME_CHARACTERS} characters"
            raise ConfigurationError(msg)
        if not self.secure:
            logger.warning("CookieSettings(secure=False): %s is sent over http, readable on the network", self.name)

    def set(self, response: Response, value: str, *, max_age: int) -> None:
        """Set the cookie on ``response``, which no cache stores then, for ``max_age`` seconds."""
        response.set_cookie(value=value, max_age=max_age, **self._attributes())
        response.headers["Cache-Control"] = "no-store"

    def delete(self, response: Response) -> None:
        """Delete the cookie by ``response``, which no cache stores then."""
        response.delete_cookie(**self._attributes())
        response.headers["Cache-Control"] = "no-store"

    def _attributes(self) -> dict[str, Any]:
        return {
            "key": self.name,
            "path": self.path,
            "domain": self.domain,
            "secure": self.secure,
            "httponly": True,
            "samesite": self.samesite,
        }


def cookie_in(connection: HTTPConnection, cookie: CookieSettings) -> str | None:
    """Return the value of a cookie; ``None`` where it was not sent, or twice: one of the two is from another site."""
    values = list(cookies_named(cookie.name, connection))
    return values[0] if len(values) == 1 else None


def browser_in(connection: HTTPConnection, cookie: CookieSettings) -> str:
    """Return the random text by which a browser is recognised: that of its cookie, or a new one.

    What cannot be ours, such as a text with a control character, is not set again.
    """
    presented = cookie_in(connection, cookie) or ""
    return presented if _PLAIN.fullmatch(presented) else secrets.token_urlsafe(_BROWSER_BYTES)


def cookie_name(purpose: str, name: str) -> str:
    """Return the name of a cookie of the Login or Auth of this ``name``, with the prefix ``__Host-``."""
    own = name if _PLAIN.fullmatch(name) else digest_of(name)[:16]
    return f"__Host-{purpose}-{own}"
