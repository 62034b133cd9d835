"""DatabaseAPIKeyAuth: API keys in a database, through sync or async SQLAlchemy.

Needs the extra ``sqlalchemy``.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar, Unpack, cast

from fastapi.security.base import SecurityBase

from fastapi_guard.api_key.cache import KeyCache, forget
from fastapi_guard.api_key.digest import Peppers
from fastapi_guard.api_key.fields import KeyFields, KeyQuery, KeyQueryFields, StoredKey
from fastapi_guard.api_key.format import KeyFormat, NewKey
from fastapi_guard.api_key.lookup import KeyLookup, refusal
from fastapi_guard.api_key.models import APIKey, APIKeyEvent, APIKeyEventMixin, APIKeyMixin
from fastapi_guard.api_key.rows import KeyRows
from fastapi_guard.api_key.uses import KeyUses
from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims, copied
from fastapi_guard.events import Event, EventName, publish
from fastapi_guard.exceptions import INVALID_API_KEY, ConfigurationError, KeyConflict
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.database import SessionFactory, Sessions
from fastapi_guard.stores.failures import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
Keys = list[StoredKey]


class DatabaseKeyOptions(ScopesOptions, total=False):
    """The keyword arguments of DatabaseAPIKeyAuth, beside those of every ScopesAuth.

    Attributes:
        model: The mapped class of the keys, where they are on a base of the application's own.
        event_model: The mapped class of their events, likewise.
        prefix: What each key begins with, ``sk`` by default.
        peppers: Secrets that go into the digests, by version: the highest number, else the first, for new keys, the
            others still verify.
        require_pepper: Whether keys that were made without a pepper are refused.
        require_expiry: Whether keys without an expiry are refused, at creation and at verification.
        cache_ttl: How long a key that held is taken for good without asking, so long may a revocation elsewhere take;
            a timedelta or seconds. Not at all by default.
        cache_size: How many keys are kept so, at most.
        timeout: How long a look-up through an async engine may take before the answer is 503, likewise.
        clock: Seconds since the epoch.
    """

    model: type[APIKeyMixin]
    event_model: type[APIKeyEventMixin]
    prefix: str
    peppers: Mapping[str, str | bytes] | Peppers | None
    require_pepper: bool
    require_expiry: bool
    cache_ttl: timedelta | float | None
    cache_size: int
    timeout: timedelta | float
    clock: Callable[[], float]


class _OnClassOrInstance(Generic[P, ResultT]):
    """A method for a session of the caller: on the class with defaults and no pepper, on an Auth with its settings."""

    def __init__(self, call: "Callable[Concatenate[_Issuer, P], ResultT]") -> None:
        self._call = call
        self.__doc__ = call.__doc__

    def __get__(self, auth: "DatabaseAPIKeyAuth | None", owner: type) -> Callable[P, ResultT]:
        issuer = _Issuer() if auth is None else auth._issuer  # noqa: SLF001 - of this module

        @wraps(self._call)
        def bound(*args: P.args, **kwargs: P.kwargs) -> ResultT:
            return self._call(issuer, *args, **kwargs)

        return bound


@dataclass(frozen=True, slots=True)
class _Issuer:
    """Who creates and revokes keys, and what is told of it."""

    rows: KeyRows = field(default_factory=KeyRows)
    name: str = "api-key"
    on_event: Callable[[Event], None] | None = None

    def publish(self, name: EventName, key_id: str, *, subject: str | None = None, actor: str | None = None) -> None:
        publish(Event(name, self.name, key_id=key_id, subject=subject, actor=actor), self.on_event)


class DatabaseAPIKeyAuth(ScopesAuth):
    """API keys whose digests are in a database, each found by its id with one SELECT.

    The key comes in ``Authorization: Bearer`` unless another scheme is given. Its claims are ``sub``, ``subject_type``,
    ``key_id``, ``name``, ``scope``, ``tenant_id``, ``is_admin``, ``iat``, ``metadata``, and ``exp`` where it expires.

    Attributes:
        format: How the keys look; ``format.pattern`` is the regular expression for secret scanners.
        create_key: Create a key in a session of the caller; also on the class.
        revoke_key: Revoke a key in a session of the caller; also on the class.
    """

    name = "api-key"
    _missing_detail = INVALID_API_KEY
    _invalid_detail = INVALID_API_KEY
    _trusts_everything = True

    @_OnClassOrInstance
    @staticmethod
    def create_key(issuer: _Issuer, session: "Session | AsyncSession", **key: Unpack[KeyFields]) -> NewKey:
        """Put a new key into a session of the caller, who commits; return its id and its text, which exists only here.

        Args:
            issuer: Bound already.
            session: A sync session, or an async one.
            key: See KeyFields.

        Raises:
            ValueError: A field is not what KeyFields says.
        """
        new = issuer.rows.add(session, issuer.rows.draft(**key))
        issuer.publish("key_created", new.key_id, subject=key["user_id"], actor=key.get("by"))
        return new

    @_OnClassOrInstance
    @staticmethod
    def revoke_key(issuer: _Issuer, session: "Session", key_id: str, *, by: str | None = None) -> bool:
        """End a key for good, in a session of the caller, who commits; return whether it was this call that ended it.

        Args:
            issuer: Bound already.
            session: A sync session; from an async one call ``await session.run_sync(keys.revoke_key, key_id)``.
            key_id: The id of the key.
            by: Who revokes it, for the event table.

        Raises:
            KeyNotFound: There is no such key.
            TypeError: The session is an async one.
        """
        ended = issuer.rows.revoke(session, key_id, by=by)
        forget([key_id])
        if ended:
            issuer.publish("key_revoked", key_id, actor=by)
        return ended

    def __init__(
        self,
        session_factory: SessionFactory,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        **options: Unpack[DatabaseKeyOptions],
    ) -> None:
        """Verify by the rows that ``session_factory`` reaches, a sessionmaker or an async_sessionmaker.

        Args:
            session_factory: Bound to an engine, for the fastest look-ups, or to anything that a session can use.
            scheme: Where the key comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            options: See DatabaseKeyOptions.

        Raises:
            ConfigurationError: A setting could not work.
        """
        peppers = options.pop("peppers", None)
        peppers = peppers if isinstance(peppers, Peppers) else Peppers(peppers)
        rows = KeyRows(
            model=options.pop("model", APIKey),
            event_model=options.pop("event_model", APIKeyEvent),
            format=KeyFormat(options.pop("prefix", "sk")),
            peppers=peppers,
            require_expiry=options.pop("require_expiry", False),
            clock=options.pop("clock", time.time),
        )
        require_pepper = options.pop("require_pepper", False)
        if require_pepper and not peppers:
            msg = "require_pepper refuses every key where there are no peppers: pass peppers={...}"
            raise ConfigurationError(msg)
        ttl_seconds = _seconds("cache_ttl", options.pop("cache_ttl", None) or 0)
        cache_size = options.pop("cache_size", 1024)
        self._cache = KeyCache(ttl_seconds, cache_size) if ttl_seconds else None
        self._sessions = Sessions(session_factory)
        timeout_seconds = _seconds("timeout", options.pop("timeout", 10))
        self._lookup = KeyLookup(self._sessions, rows, require_pepper=require_pepper, timeout_seconds=timeout_seconds)
        self._uses = KeyUses(self._sessions, rows.model)
        super().__init__(scheme, scope_validator, **cast("ScopesOptions", options))
        self._rows = rows
        self._issuer = _Issuer(rows, self.name, self._on_event)
        self.format: KeyFormat = rows.format

    def recognises(self, raw: str) -> bool:
        """Return whether it begins as these keys do; one with a typo is refused by ``verify``, without a query too."""
        return raw.startswith(f"{self.format.prefix}-")

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a key.

        Raises:
            Unauthorized: It does not hold; whatever the cause, the answer and the work are the same.
            ServiceUnavailable: The database cannot be asked.
        """
        key_id = self.format.parse(raw)
        if key_id is None:
            raise refusal("malformed")
        now = self._rows.clock()
        key = None if self._cache is None else self._cache.get(raw, now)
        if key is None:
            key = await self._lookup.verified(raw, key_id, now)
            if self._cache is not None:
                self._cache.put(raw, key)
        elif key.expires_at is not None and key.expires_at <= now:
            raise refusal("expired")
        if self._uses.is_due(key, now):
            await self._uses.write(key_id, now)
        return key.claims if self._cache is None else copied(key.claims)

    async def create(self, **key: Unpack[KeyFields]) -> NewKey:
        """Create a key and commit; return its id and its text, which exists only here.

        Raises:
            ValueError: A field is not what KeyFields says.
            KeyConflict: A constraint of the application's own tables does not hold.
            ServiceUnavailable: The database cannot be asked.
        """
        draft = self._rows.draft(**key)
        new = await self._written(lambda session: self._rows.add(session, draft))
        self._issuer.publish("key_created", new.key_id, subject=key["user_id"], actor=key.get("by"))
        return new

    async def rotate(
        self,
        key_id: str,
        *,
        overlap: timedelta = timedelta(0),
        expires_at: datetime | None = None,
        by: str | None = None,
    ) -> NewKey:
        """Put a new key in the place of another, which holds for ``overlap`` more, or until its own expiry.

        The new one is like the old one, and lives as long as that was to live, unless ``expires_at`` says otherwise.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It has expired, was revoked or was rotated before; nothing was changed.
            ValueError: A moment is naive, or the overlap negative.
            ServiceUnavailable: The database cannot be asked.
        """
        new = await self._written(
            lambda session: self._rows.rotate(session, key_id, overlap=overlap, expires_at=expires_at, by=by)
        )
        forget([key_id])
        self._issuer.publish("key_rotated", key_id, actor=by)
        self._issuer.publish("key_created", new.key_id, actor=by)
        return new

    async def revoke(self, key_id: str, *, by: str | None = None) -> bool:
        """End a key for good; return whether it was this call that ended it.

        Raises:
            KeyNotFound: There is no such key.
            ServiceUnavailable: The database cannot be asked.
        """
        ended = await self._written(lambda session: self._rows.revoke(session, key_id, by=by))
        forget([key_id])
        if ended:
            self._issuer.publish("key_revoked", key_id, actor=by)
        return ended

    async def get(self, key_id: str) -> StoredKey | None:
        """Return what is stored of a key, ``None`` where there is none of that id.

        Raises:
            ServiceUnavailable: The database cannot be asked.
        """
        return await self._sessions.transaction(lambda session: self._rows.get(session, key_id))

    async def list(self, **query: Unpack[KeyQueryFields]) -> Keys:
        """Return the keys that the query asks for, oldest first.

        Args:
            query: See KeyQueryFields; nothing: all of them.

        Raises:
            ValueError: A field is not what KeyQueryFields says.
            ServiceUnavailable: The database cannot be asked.
        """
        asked = KeyQuery(**query)
        return await self._sessions.transaction(lambda session: self._rows.find(session, asked))

    async def prune(self, *, ended_for: timedelta) -> int:
        """Delete the keys that were revoked or have expired at least so long ago; return how many.

        Raises:
            ValueError: The duration is negative.
            ServiceUnavailable: The database cannot be asked.
        """
        return await self._sessions.transaction(lambda session: self._rows.prune(session, ended_for=ended_for))

    async def _written(self, work: "Callable[[Session], ResultT]") -> ResultT:
        try:
            return await self._sessions.transaction(work)
        except Refused as error:
            msg = f"the database refused the API key: {error}"
            raise KeyConflict(msg) from error


def _seconds(name: str, duration: timedelta | float) -> float:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if not 0 <= seconds < float("inf"):
        msg = f"{name} is a duration, such as timedelta(seconds=30), not {duration!r}"
        raise ConfigurationError(msg)
    return seconds
