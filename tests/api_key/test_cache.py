import asyncio
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from api_key.databases import Database
from fastapi_guard import ConfigurationError, Unauthorized
from fastapi_guard.api_key.cache import KeyCache, VerifiedKey, forget
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from support.clock import Clock

NOW = 1_800_000_000.0


@pytest.fixture
def clock() -> Clock:
    """Give a clock of its own."""
    return Clock(NOW)


def key(key_id: str, loaded_at: float = NOW) -> VerifiedKey:
    """Return a key that held."""
    return VerifiedKey(key_id, {"sub": "alice"}, None, loaded_at)


def test_for_a_while() -> None:
    """A key stays for its time to live, and not at all where the clock was set back."""
    cache = KeyCache(10, 4)
    cache.put("raw", key("a"))
    assert cache.get("raw", NOW + 9.9) == key("a")
    assert cache.get("raw", NOW + 10) is None
    assert cache.get("raw", NOW - 0.1) is None
    assert cache.get("other", NOW) is None


def test_within_bounds() -> None:
    """Of more keys than there is room for the oldest goes, and so does what is known of revoked ones."""
    cache = KeyCache(10, 2)
    for each in "abc":
        cache.put(f"raw-{each}", key(each))
    assert [cache.get(f"raw-{each}", NOW) is not None for each in "abc"] == [False, True, True]
    cache.put("raw-b", key("b", NOW + 1))
    cache.put("raw-d", key("d"))
    assert [cache.get(f"raw-{each}", NOW + 1) is not None for each in "bcd"] == [True, False, True]
    for number in range(10):
        forget([str(number)])
    assert len(cache._barred) == 2
    with pytest.raises(ConfigurationError, match="at least 1"):
        KeyCache(10, 0)


def test_what_is_forgotten_stays_forgotten() -> None:
    """A key that was revoked goes from every cache of the process, and a look-up under way does not bring it back."""
    first, second = KeyCache(10, 4), KeyCache(10, 4)
    for cache in (first, second):
        cache.put("raw", key("a"))
        cache.put("other", key("b"))
    forget(["a", "unknown"])
    for cache in (first, second):
        assert cache.get("raw", NOW) is None
        cache.put("raw", key("a"))
        assert cache.get("raw", NOW) is None
        assert cache.get("other", NOW) == key("b")


def test_from_several_threads() -> None:
    """Threads that put, get and forget do not disturb each other."""
    cache = KeyCache(10, 50)

    def work(name: str) -> None:
        for number in range(500):
            cache.put(f"{name}{number}", key(f"{name}{number}"))
            cache.get(f"{name}{number - 1}", NOW)
            forget([f"{name}{number - 2}"])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache._keys) == len(cache._digests) <= 50


async def test_a_cached_key_costs_no_query(database: Database, clock: Clock) -> None:
    """Within the time to live there is one SELECT, then another; a wrong key is never kept."""
    keys = database.auth(cache_ttl=30, clock=clock)
    _, raw = await keys.create(user_id="alice", metadata={"teams": ["red"]})
    with database.statements() as statements:
        for _ in range(3):
            claims = await keys.verify(raw)
            claims["metadata"]["teams"].append("blue")
            claims["scope"] = "*"
    assert [statement.split()[0] for statement in statements] == ["SELECT", "UPDATE"]
    assert await keys.verify(raw) == {**claims, "scope": "", "metadata": {"teams": ["red"]}}
    clock.move(30)
    with database.statements() as statements:
        await keys.verify(raw)
    assert [statement.split()[0] for statement in statements] == ["SELECT"]
    wrong = (await database.auth(peppers={"1": "another-deployments-pepper"}).create(user_id="eve")).raw
    with database.statements() as statements:
        for _ in range(2):
            assert not await keys.validate_token(wrong)
    assert len(statements) == 2


async def test_the_use_of_a_cached_key_is_written(database: Database, clock: Clock) -> None:
    """A key that is answered from the cache has its use written once a minute all the same."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    for _ in range(130):
        await keys.verify(raw)
        clock.move(1)
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.last_used_at is not None
    assert stored.last_used_at.timestamp() == NOW + 120


async def test_a_cached_key_expires(database: Database, clock: Clock) -> None:
    """The expiry is asked on every hit."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    _, raw = await keys.create(user_id="alice", expires_at=datetime.fromtimestamp(NOW + 60, UTC))
    assert (await keys.verify(raw))["exp"] == NOW + 60
    clock.move(60)
    with pytest.raises(Unauthorized) as refusal:
        await keys.verify(raw)
    assert refusal.value.reason == "expired"


def revoke_on_the_auth(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Revoke on the Auth's own session."""
    return keys.revoke(key_id)


def revoke_on_another_auth(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Revoke by another Auth of this process."""
    return database.auth().revoke(key_id)


def revoke_on_the_class(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Revoke in a session, by the method of the class."""
    return database.within(lambda session: DatabaseAPIKeyAuth.revoke_key(session, key_id))


def rotate(keys: DatabaseAPIKeyAuth, database: Database, key_id: str) -> Any:
    """Rotate without an overlap."""
    return keys.rotate(key_id)


@pytest.mark.parametrize("end", [revoke_on_the_auth, revoke_on_another_auth, revoke_on_the_class, rotate])
async def test_an_end_in_this_process_is_immediate(database: Database, clock: Clock, end: Any) -> None:
    """However a key ends in this process, no cache of it answers for the key any more."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    assert (await keys.verify(raw))["sub"] == "alice"
    await end(keys, database, key_id)
    assert not await keys.validate_token(raw)
    clock.move(1)
    assert not await keys.validate_token(raw)


async def test_a_look_up_under_way_while_the_key_is_revoked(database: Database, clock: Clock) -> None:
    """What a look-up read before the revocation is not kept after it."""
    keys = database.auth(cache_ttl=3600, clock=clock)
    for _ in range(10):
        key_id, raw = await keys.create(user_id="alice")
        await asyncio.gather(*(keys.validate_token(raw) for _ in range(5)), keys.revoke(key_id))
        assert not await keys.validate_token(raw)
