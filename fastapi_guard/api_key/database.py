"""DatabaseAPIKeyAuth: API keys in a database, through sync or async SQLAlchemy.

Needs the extra ``sqlalchemy``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Unpack

from fastapi.security.base import SecurityBase
from pydantic import SecretBytes, SecretStr
from starlette.requests import HTTPConnection

from fastapi_guard.api_key.cache import KeyCache, revision
from fastapi_guard.api_key.digest import Peppers
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.api_key.keys import DatabaseKeys
from fastapi_guard.api_key.last_use import LastUses, Use
from fastapi_guard.api_key.lookup import KeyLookup, key_changes, refusal
from fastapi_guard.api_key.models import APIKey, APIKeyEvent, APIKeyEventMixin, APIKeyMixin
from fastapi_guard.api_key.restrictions import Restrictions
from fastapi_guard.api_key.rows import KeyRows
from fastapi_guard.api_key.transaction import Publisher
from fastapi_guard.api_key.usage import KeyUsage
from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import INVALID_API_KEY, ConfigurationError
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.schemes.address import check_proxies
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores import Store
from fastapi_guard.stores.arguments import check_flags, clock_of, instance_of, store_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.cached import CacheLimits
from fastapi_guard.stores.columns import model_of
from fastapi_guard.stores.database import SessionFactory, Sessions
from fastapi_guard.stores.replica import Replica


class DatabaseAPIKeyAuth(DatabaseKeys, ScopesAuth):
    """API keys whose digests are in a database, each found by its id with one SELECT.

    The key comes in ``Authorization: Bearer`` unless another scheme is given. The claims are those of
    ``StoredKey.claims``. A subclass that adds rules overrides ``verify_request``.
    """

    name = "api-key"
    _missing_detail = INVALID_API_KEY
    _invalid_detail = INVALID_API_KEY
    _trusts_everything = True

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        session_factory: SessionFactory,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        model: type[APIKeyMixin] = APIKey,
        event_model: type[APIKeyEventMixin] = APIKeyEvent,
        prefix: str = "sk",
        environments: Sequence[str] = (),
        peppers: Mapping[str, str | bytes | SecretStr | SecretBytes] | Peppers | None = None,
        require_pepper: bool = False,
        require_expiry: bool = False,
        cache_ttl: timedelta | float | None = None,
        cache_size: int | None = None,
        fresh_within: timedelta | float | None = None,
        timeout: timedelta | float = 10,
        replica: Replica | None = None,
        trusted_proxies: int = 0,
        usage: Store | None = None,
        clock: Callable[[], float] = time.time,
        **options: Unpack[ScopesOptions],
    ) -> None:
        """Verify keys by the rows that ``session_factory`` reaches, a sessionmaker or an async_sessionmaker.

        Args:
            session_factory: Bound to an engine, for the fastest look-ups, or to anything that a session can use.
            scheme: Where the key comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            model: The mapped class of the keys, where they are on a declarative base of the application.
            event_model: The mapped class of their events, likewise.
            prefix: The start of each key.
            environments: The environments that keys are made for, such as ``("live", "test")``: keys begin with
                ``sk_live_`` or ``sk_test_``, and their claims have ``environment``. Keys of others are rejected.
            peppers: Secrets that go into the digests, by version: the highest number, else the first, for new keys.
                The others still verify.
            require_pepper: Whether keys that were made without a pepper are rejected.
            require_expiry: Whether keys without an expiry are rejected, at creation and at verification.
            cache_ttl: How long a valid key is cached, at most an hour. Off by default. A row that is edited by hand,
                without an event, is read again after this time.
            cache_size: How many keys are cached, by default 10,000.
            fresh_within: How soon the revocation of a cached key in another process counts, by default a second.
            timeout: How long a look-up, and the counting of a request, may take before the answer is 503.
            replica: Where keys are looked up while it is fresh enough. A new key, and a revocation, counts within its
                ``lag``; it does not go together with ``cache_ttl``.
            trusted_proxies: How many proxies of yours stand before the application, each of which appends the address
                that it sees to ``X-Forwarded-For``; for ``allowed_networks`` and the last address of a key.
            usage: Where requests are counted for the rate and the quota of a key. Several workers share a store.
            clock: Seconds since the epoch.
            options: See ScopesOptions.

        Raises:
            ConfigurationError: A setting cannot work.
        """
        peppers = peppers if isinstance(peppers, Peppers) else Peppers(peppers)
        if require_pepper and not peppers:
            msg = "require_pepper rejects every key without peppers: pass peppers={...}"
            raise ConfigurationError(msg)
        check_proxies(trusted_proxies)
        model_of("model", model, APIKeyMixin)
        model_of("event_model", event_model, APIKeyEventMixin)
        check_flags(require_pepper=require_pepper, require_expiry=require_expiry)
        instance_of("replica", replica, (Replica, type(None)), "Replica(sessions, lag=...)")
        if usage is not None:
            store_of("usage", usage)
        limits = CacheLimits.of(cache_ttl, cache_size, fresh_within)
        if limits is not None and replica is not None:
            msg = "a cache would keep what the replica has not learned of yet: pass cache_ttl or replica"
            raise ConfigurationError(msg)
        self._clock = clock_of(clock)
        rows = KeyRows(
            model=model,
            event_model=event_model,
            format=KeyFormat(prefix, environments=environments),
            peppers=peppers,
            require_expiry=require_expiry,
            counts_usage=usage is not None,
            clock=clock,
        )
        sessions, timeout_seconds = Sessions(session_factory), seconds_of("timeout", timeout, positive=True)
        self._cache = None if limits is None else KeyCache(limits, key_changes(sessions, event_model))
        counted = None if usage is None else KeyUsage(usage, clock, timeout_seconds=timeout_seconds)
        ScopesAuth.__init__(self, scheme, scope_validator, **options)
        publisher = Publisher(name=self.name, on_event=self._on_event)
        DatabaseKeys.__init__(self, sessions, rows, usage=counted, publisher=publisher)
        self._lookup = KeyLookup(
            sessions, rows, require_pepper=require_pepper, timeout_seconds=timeout_seconds, replica=replica
        )
        self._uses = LastUses(sessions, model)
        self._restrictions = Restrictions(trusted_proxies=trusted_proxies, usage=counted)
        _check_overriding(type(self))

    @property
    def counts_usage(self) -> bool:
        """Whether requests are counted, so that a key may have a rate and a quota, and a request may be a 429."""
        return self._usage is not None

    def recognises(self, raw: str) -> bool:
        """Return whether it begins as these keys do; ``verify`` rejects one with a typo without a query too."""
        return raw.startswith(self.format.marks)

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Return the claims of a key that came on ``connection``, and note its use.

        Raises:
            Unauthorized: It is not valid; whatever the cause, the answer and the work are the same.
            Forbidden: It may not be used from there.
            TooManyRequests: Its rate or its quota is reached.
            ServiceUnavailable: The database or the store of the usage cannot be reached.
        """
        key, now = await self._verified(raw)
        address = await self._restrictions.check(connection, key)
        self._uses.note(key, Use(now, address))
        return key.claims()

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a key outside of a request.

        A key with networks or origins is rejected, since they cannot be checked. Rate and quota count.

        Raises:
            Unauthorized: It is not valid, or valid for requests alone.
            TooManyRequests: Its rate or its quota is reached.
            ServiceUnavailable: The database or the store of the usage cannot be reached.
        """
        key, now = await self._verified(raw)
        if key.allowed_networks or key.allowed_origins:
            raise refusal("needs_request")
        if key.is_limited:
            await self._restrictions.spend(key)
        self._uses.note(key, Use(now, None))
        return key.claims()

    async def aclose(self) -> None:
        """Write the last uses that were noted."""
        await self._uses.flush()

    async def _current(self, principal: Claims, connection: HTTPConnection | None) -> Claims:
        key, now = await self.get(str(principal.get("key_id"))), self._rows.clock()
        status = "unknown_key" if key is None else key.status(self._rows.now())
        if key is None or status != "active":
            raise refusal(status)
        if connection is not None:
            address = await self._restrictions.check(connection, key)
            self._uses.note(key, Use(now, address))
        return key.claims()

    async def _verified(self, raw: str) -> tuple[StoredKey, float]:
        key_id = self.format.parse(raw)
        if key_id is None:
            raise refusal("malformed")
        now = self._rows.clock()
        cache = self._cache
        found = cache.get(raw, key_id, now) if cache is not None and await cache.is_usable() else None
        if found is None:
            before = revision()
            found = await self._lookup.verified(raw, key_id, now)
            if cache is not None:
                cache.put(raw, found, loaded_at=now, revision=before)
        elif found.expires_at is not None and found.expires_at.timestamp() <= now:
            raise refusal("expired")
        return found, now


def _check_overriding(kind: type[DatabaseAPIKeyAuth]) -> None:
    # A request is verified by verify_request: a verify() alone would be passed over.
    if kind.verify is not DatabaseAPIKeyAuth.verify and kind.verify_request is DatabaseAPIKeyAuth.verify_request:
        msg = f"{kind.__name__} overrides verify(raw), which no request calls: override verify_request(connection, raw)"
        raise ConfigurationError(msg)
