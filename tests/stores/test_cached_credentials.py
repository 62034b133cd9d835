"""Cached credentials of every kind end with a change that another process makes, whose clock is 5 s ahead."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Request, Response
from joserfc import jwk

from api_key.databases import Database
from fastapi_guard import Auth, ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.api_key.models import Base
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore, Store
from fastapi_guard.stores.kinds import SESSION
from support.login import CountingStore
from support.other_process import Call, Counting, keys_of, other_process, shared
from support.redis import until

__all__ = ["other_process", "shared"]

# So long that nothing ends by itself.
CACHE: dict[str, Any] = {"cache_ttl": timedelta(hours=1), "fresh_within": 0.2}
DATABASES = ["sqlite+aiosqlite", "postgresql+asyncpg"]
KEY = jwk.OctKey.generate_key(256)


@dataclass(frozen=True)
class Cached:
    """A credential, the Auth that caches it, and the call that ends it in another process."""

    auth: Auth[Any]
    raw: str
    end: tuple[str, ...]


async def session(store: Store) -> Cached:
    """Return a session, and its logout."""
    sessions, response = SessionAuth(store, **CACHE), Response()
    begun = await sessions.login(response, {"sub": "ada"}, connection=Request({"type": "http", "headers": []}))
    raw = response.headers["set-cookie"].partition("=")[2].partition(";")[0]
    return Cached(sessions, raw, ("delete", SESSION + begun.id))


async def token(store: Store, kind: str, claim: str) -> Cached:
    """Return a token, and the revocation by one of its claims: a record that the other process adds."""
    revocations = Revocations(store, **CACHE)
    auth = JWTAuth(JWTConfig(key=KEY), revocations=revocations)
    raw = auth.encode({"sub": "ada", "jti": "1", "sid": "2"})
    # Of any issuer.
    return Cached(auth, raw, ("add", revocations._key(kind, claim), '{"*":null}', None))


async def by_jti(store: Store) -> Cached:
    """Return a token that is revoked alone."""
    return await token(store, "jti", "1")


async def by_sid(store: Store) -> Cached:
    """Return a token that is revoked with its device."""
    return await token(store, "sid", "2")


async def is_refused(cached: Cached) -> bool:
    """Return whether the credential is refused."""
    return not await cached.auth.validate_token(cached.raw)


async def used_and_ended(cached: Cached, other: Call) -> None:
    """Use a credential, end it elsewhere, and wait until it is refused, once and for all."""
    for _ in range(20):
        assert not await is_refused(cached)
    assert other(*cached.end)

    async def condition() -> bool:
        return await is_refused(cached)

    await until(condition)
    assert [await is_refused(cached) for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("shared", [*DATABASES, "redis"], indirect=True)
@pytest.mark.parametrize("make", [session, by_jti, by_sid])
async def test_what_is_in_a_store(shared: tuple[Any, Call], make: Callable[[Store], Awaitable[Cached]]) -> None:
    """A cached session or token needs no read, and is refused within `fresh_within` of its end elsewhere."""
    store, other = shared
    counting = Counting(store)
    await used_and_ended(await make(counting), other)


@pytest.fixture
async def tables(shared: tuple[Any, Call]) -> tuple[Any, Call]:
    """Return a database with the tables of API keys, and a function that calls methods in another process."""
    store, other = shared
    engine = store._sessions._factory.kw["bind"]
    database = Database(engine, store._sessions._factory)
    await database.within(lambda session: Base.metadata.create_all(session.connection()))
    return store, other


@pytest.mark.parametrize("shared", DATABASES, indirect=True)
@pytest.mark.parametrize("method", ["revoke", "pause"])
async def test_api_keys(tables: tuple[Any, Call], method: str) -> None:
    """A cached API key is refused within `fresh_within` of its revocation, or its pause, elsewhere."""
    store, other = tables
    keys = keys_of(store, **CACHE)
    key_id, raw = await keys.create(user_id="ada")
    await used_and_ended(Cached(keys, raw, (method, key_id)), other)
    await keys.aclose()


@pytest.mark.parametrize("make", [SessionAuth, Revocations])
def test_a_store_without_changes(make: Callable[..., object]) -> None:
    """A cache needs a store whose changes can be read, and its settings need a cache."""
    with pytest.raises(ConfigurationError, match="whose changes can be read"):
        make(CountingStore(MemoryStore()), cache_ttl=60)
    with pytest.raises(ConfigurationError, match="belong to a cache"):
        make(MemoryStore(), fresh_within=1)
