"""Sessions in a cookie: a random id in the browser, everything else behind a store.

The id is stored as its hash alone, it is new at each login, and it ends by itself: some time after it was last used,
and in any case some time after the login.
"""

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, Literal, Unpack

from fastapi import Response
from fastapi.openapi import models
from starlette.requests import HTTPConnection

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import (
    NOT_AUTHENTICATED,
    AuthError,
    ConfigurationError,
    Forbidden,
    Unauthorized,
    invalid_token,
)
from fastapi_guard.schemes import APIKeyScheme, Scheme
from fastapi_guard.schemes.origin import is_same_origin
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.protocol import Record, Store

logger: logging.Logger = logging.getLogger("fastapi_guard")

_KEY: Final = "session:"
_ID_BYTES: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_WRITTEN_EVERY_SECONDS: Final = 60

# The session that the current context was authenticated with, or has begun since, for `end_all(except_current=True)`.
_current: ContextVar[str | None] = ContextVar("fastapi_guard_session", default=None)


class SessionScheme(APIKeyScheme):
    """The id of a session in a cookie."""

    auth_scheme = "Session"

    def __init__(self, name: str, *, realm: str = "api", scheme_name: str = "Session") -> None:
        """Take the id from the cookie ``name``."""
        super().__init__(name, "cookie", realm=realm, scheme_name=scheme_name)


class StarletteSessionScheme(Scheme):
    """The user that the application put into the session of Starlette's SessionMiddleware.

    For an application that has one: ``request.session["user"] = user.id`` logs in, and an Auth with this scheme
    verifies that id. The middleware signs its cookie and stores nothing, so such a session cannot be ended from
    elsewhere.
    """

    auth_scheme = "Session"
    is_cookie = True

    def __init__(
        self,
        user_key: str = "user",
        *,
        cookie_name: str = "session",
        realm: str = "api",
        scheme_name: str = "StarletteSession",
    ) -> None:
        """Take the user from ``request.session[user_key]``.

        Args:
            user_key: Where the application puts the user's id, a text or a whole number.
            cookie_name: The ``session_cookie`` of the middleware, for OpenAPI.
            realm: The protection space in a challenge.
            scheme_name: The name in OpenAPI.
        """
        model = models.APIKey.model_validate({"in": models.APIKeyIn.cookie, "name": cookie_name})
        super().__init__(model, scheme_name, realm)
        self.user_key = user_key

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the user's id, ``None`` where nobody is logged in.

        Raises:
            ConfigurationError: There is no SessionMiddleware.
        """
        if "session" not in connection.scope:
            msg = "there is no request.session: app.add_middleware(SessionMiddleware, secret_key=...)"
            raise ConfigurationError(msg)
        user = connection.session.get(self.user_key)
        if isinstance(user, str) or type(user) is int:
            return str(user) or None
        if user is None:
            return None
        raise Unauthorized(reason="malformed")

    def refusal(self, error: str | None, description: str) -> str:  # noqa: ARG002 - the codes are Bearer's
        """Return the plain challenge: the error codes of RFC 6750 belong to its own scheme."""
        return self.plain_challenge


@dataclass(frozen=True, slots=True)
class Session:
    """A session that lives.

    Attributes:
        id: What ``end`` takes, and the claim ``sid``. Nobody can make a cookie of it.
        subject: The ``sub`` of its claims.
        claims: What was said at the login.
        created_at: When it began, in seconds since the epoch.
        seen_at: When it was last used, to the minute.
        expires_at: When it ends unless it is used before.
    """

    id: str
    subject: str
    claims: Claims
    created_at: float
    seen_at: float
    expires_at: float


Sessions = list[Session]  # SessionAuth has a method of the name list


class SessionAuth(ScopesAuth):
    """Sessions: ``login`` begins one, and from then on its claims are what the guards of this Auth give."""

    name = "session"
    _missing_detail = NOT_AUTHENTICATED
    _invalid_detail = NOT_AUTHENTICATED

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        store: Store,
        scope_validator: ScopeValidator | None = None,
        *,
        cookie_name: str = "__Host-session",
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        samesite: Literal["lax", "strict", "none"] = "lax",
        idle_lifetime: timedelta = timedelta(hours=1),
        absolute_lifetime: timedelta = timedelta(hours=12),
        realm: str = "api",
        clock: Callable[[], float] = time.time,
        **options: Unpack[ScopesOptions],
    ) -> None:
        """Keep sessions in ``store``, and their ids in a cookie.

        Args:
            store: Where the sessions are.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            cookie_name: With the prefix ``__Host-`` no other host, and no page over http, can plant the cookie.
            path: Where the browser sends it.
            domain: Another host below which the browser sends it; ``None`` for this host alone.
            secure: Whether the browser sends it over https alone.
            samesite: From which sites' pages the browser sends it.
            idle_lifetime: How long a session lives that nobody uses.
            absolute_lifetime: How long a session lives, however much it is used; the ``Max-Age`` of the cookie.
            realm: The protection space in a challenge.
            clock: Seconds since the epoch.
            options: See ScopesOptions.

        Raises:
            ConfigurationError: A browser would not take such a cookie, or a lifetime is not positive.
        """
        super().__init__(SessionScheme(cookie_name, realm=realm), scope_validator, **options)
        _check_cookie(cookie_name, path, domain, secure=secure, samesite=samesite)
        if not all(isinstance(each, timedelta) for each in (idle_lifetime, absolute_lifetime)):
            msg = "idle_lifetime and absolute_lifetime are timedeltas, such as timedelta(days=1)"
            raise ConfigurationError(msg)
        if not timedelta() < idle_lifetime <= absolute_lifetime:
            msg = "idle_lifetime is positive and no longer than absolute_lifetime"
            raise ConfigurationError(msg)
        self._store = store
        self._cookie: dict[str, Any] = {
            "key": cookie_name,
            "path": path,
            "domain": domain,
            "secure": secure,
            "httponly": True,
            "samesite": samesite,
        }
        self._idle = idle_lifetime.total_seconds()
        self._absolute = absolute_lifetime.total_seconds()
        # A session that would end within two minutes has to be written more often to slide at all.
        self._written_every = min(_WRITTEN_EVERY_SECONDS, self._idle / 2)
        self._clock = clock

    async def verify(self, raw: str) -> Claims:
        """Return the claims of the session with this id, and note that it was used, at most once a minute.

        Raises:
            Unauthorized: There is no such session, or it has ended.
            ServiceUnavailable: The store cannot be reached.
        """
        key = _key(raw)
        [record] = await self._store.get(key)
        now = self._clock()
        session = None if record is None else self._living(record, now)
        if record is None or session is None:
            raise invalid_token("unknown_session")
        if now - session.seen_at >= self._written_every:
            await self._see(record, session, now)
        _current.set(session.id)
        return session.claims

    async def login(self, response: Response, claims: Mapping[str, Any], *, connection: HTTPConnection) -> Session:
        """Begin a session with these claims, under a new id; the one that the connection came with ends.

        Log in again where somebody's rights change. The answer is not to be stored (``Cache-Control: no-store``).

        Args:
            response: Gets the cookie.
            claims: What the guards will give, JSON throughout. ``sub`` is whose session it is; ``sid``, ``iat`` and
                ``auth_time`` are added.
            connection: The request of the login.

        Raises:
            ValueError: There is no ``sub``, or a claim is nothing that JSON can hold.
            ServiceUnavailable: The store cannot be reached.
        """
        now = self._clock()
        raw = secrets.token_urlsafe(_ID_BYTES)
        key = _key(raw)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            msg = "the claims of a session need a sub, a non-empty string"
            raise ValueError(msg)
        moments = {"iat": int(now), "auth_time": int(now)}
        session = Session(
            key.removeprefix(_KEY),
            subject,
            {**moments, **claims, "sid": key.removeprefix(_KEY)},
            now,
            now,
            now + min(self._idle, self._absolute),
        )
        record = _record(session)
        await self._end_presented(connection)
        await self._store.add(record)
        _current.set(session.id)
        response.set_cookie(value=raw, max_age=int(self._absolute), **self._cookie)
        response.headers["Cache-Control"] = "no-store"
        return session

    async def logout(self, response: Response, *, connection: HTTPConnection) -> bool:
        """End the session that the connection came with, and take the cookie back; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached; the session goes on.
        """
        ended = await self._end_presented(connection)
        response.delete_cookie(**self._cookie)
        response.headers["Cache-Control"] = "no-store"
        return ended

    def check_origin(self, connection: HTTPConnection) -> None:
        """Refuse a request that another site's page sent: for a login and a logout, which no guard of this Auth sees.

        Raises:
            Forbidden: It does not come from the application's own pages, nor from a trusted origin.
        """
        if not is_same_origin(connection, self._trusted_origins):
            raise Forbidden(reason="cross_origin")

    async def list(self, subject: str) -> Sessions:
        """Return the sessions of ``subject`` that live, the oldest first.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        now = self._clock()
        found = [record for record in await self._store.find(subject) if record.key.startswith(_KEY)]
        living = [session for session in (self._living(record, now) for record in found) if session is not None]
        return sorted(living, key=lambda session: session.created_at)

    async def end(self, session_id: str) -> bool:
        """End a session by the ``id`` of its Session; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._store.delete(_KEY + session_id)

    async def end_all(self, subject: str, *, except_current: bool = False) -> int:
        """End the sessions of ``subject``; return how many there were.

        Args:
            subject: The ``sub`` of their claims.
            except_current: Let the one go on that this request was authenticated with, or that it began.

        Raises:
            ServiceUnavailable: The store cannot be reached; what was not reached has not ended.
        """
        kept = _current.get() if except_current else None
        return sum([await self.end(each.id) for each in await self.list(subject) if each.id != kept])

    async def revoke_subject(self, subject: str) -> int:
        """End the sessions of ``subject``: what Revocations asks for.

        Raises:
            ServiceUnavailable: The store cannot be reached; what was not reached has not ended.
        """
        return await self.end_all(subject)

    def _living(self, record: Record, now: float) -> Session | None:
        held = json.loads(record.value)
        expires_at = min(held["seen_at"] + self._idle, held["created_at"] + self._absolute)
        if now >= expires_at:
            return None
        claims = held["claims"]
        return Session(
            record.key.removeprefix(_KEY), claims["sub"], claims, held["created_at"], held["seen_at"], expires_at
        )

    async def _see(self, record: Record, session: Session, now: float) -> None:
        ends = session.created_at + self._absolute
        seen = _record(replace(session, seen_at=now, expires_at=min(now + self._idle, ends)))
        try:
            # Compared and swapped: a session that ends in this moment does not come back, and of several requests one
            # writes.
            await self._store.replace(record.key, record, seen)
        except AuthError:
            logger.warning("the use of a session could not be written down")

    async def _end_presented(self, connection: HTTPConnection) -> bool:
        try:
            raw = self.scheme.extract(connection)
        except Unauthorized:
            return False
        return raw is not None and bool(_ID.fullmatch(raw)) and await self._store.delete(_key(raw))


def _record(session: Session) -> Record:
    held = {"claims": session.claims, "created_at": session.created_at, "seen_at": session.seen_at}
    try:
        value = json.dumps(held, separators=(",", ":"), allow_nan=False).encode("ascii")
    except TypeError as error:
        msg = "the claims of a session are JSON: texts, numbers, lists, objects"
        raise ValueError(msg) from error
    return Record(_KEY + session.id, value, session.subject, session.expires_at)


def _key(raw: str) -> str:
    return _KEY + sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


def _check_cookie(name: str, path: str, domain: str | None, *, secure: bool, samesite: str) -> None:
    # RFC 6265bis 4.1.3: a browser silently drops a cookie that breaks the rules of its prefix.
    prefix = next((each for each in ("__Host-", "__Secure-") if name.lower().startswith(each.lower())), None)
    if prefix is not None and not secure:
        msg = (
            f"a browser takes {name!r} only as a Secure cookie, over https: serve https and leave secure=True (tests:"
            ' TestClient(app, base_url="https://testserver")), or name it without the prefix'
        )
        raise ConfigurationError(msg)
    if prefix == "__Host-" and (path != "/" or domain is not None):
        msg = f'a browser takes {name!r} only with path="/" and domain=None: leave them, or use the prefix __Secure-'
        raise ConfigurationError(msg)
    if samesite not in ("lax", "strict", "none") or (samesite == "none" and not secure):
        msg = 'samesite is "lax", "strict", or with secure=True "none"'
        raise ConfigurationError(msg)
    if not path.startswith("/"):
        msg = f'path starts with "/", which {path!r} does not'
        raise ConfigurationError(msg)
    if not secure:
        logger.warning("SessionAuth(secure=False): the cookie of a session is sent over http, to whoever listens")
