"""What is the Redis store's own: how long Redis keeps a key, and what happens while it is away."""

from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.stores import Record
from fastapi_guard.stores.redis import RedisStore
from support.clock import Clock


async def test_redis_deletes_by_itself(redis_url: str, clock: Clock) -> None:
    """Keys and the index of an owner live some minutes longer than the last record, whatever clock Redis has."""
    async with Redis.from_url(redis_url) as client:
        store = RedisStore(client, prefix="ttl:", clock=clock)
        await store.add(Record("a", b"", "ada", clock() + 60))
        await store.add(Record("b", b"", "ada", clock() + 10))
        assert 359_000 < await client.pttl("ttl:record:a") <= 360_000
        assert 309_000 < await client.pttl("ttl:record:b") <= 310_000
        assert 359_000 < await client.pttl("ttl:owner:ada") <= 360_001
        await store.add(Record("c", b"", "ada", None))
        assert await client.pttl("ttl:record:c") == await client.pttl("ttl:owner:ada") == -1
        await store.delete("c")
        clock.move(400)
        await store.add(Record("d", b"", "ada", clock() + 60))
        assert await client.zrange("ttl:owner:ada", 0, -1) == [b"ttl:record:d"]
        assert 359_000 < await client.pttl("ttl:owner:ada") <= 360_001


async def test_prefixes_keep_applications_apart(redis_url: str, clock: Clock) -> None:
    """Two stores on one Redis see nothing of each other."""
    async with Redis.from_url(redis_url) as client:
        one, other = (RedisStore(client, prefix=prefix, clock=clock) for prefix in ("one:", "other:"))
        await one.add(Record("k", b"1", "ada"))
        assert await other.get("k") == [None]
        assert await other.find("ada") == []


async def test_one_round_trip(redis_url: str, clock: Clock) -> None:
    """Each method is one command to Redis."""
    async with Redis.from_url(redis_url) as client:
        store = RedisStore(client, prefix="trips:", clock=clock)
        old, new = Record("k", b"1", "ada"), Record("k", b"2", "ada")
        calls: dict[str, Any] = {
            "add": lambda: store.add(old),
            "get": lambda: store.get("k", "other"),
            "replace": lambda: store.replace("k", old, new),
            "find": lambda: store.find("ada"),
            "delete": lambda: store.delete("k"),
        }
        for call in calls.values():  # Redis learns the scripts
            await call()
        for name, call in calls.items():
            await client.config_resetstat()
            await call()
            info = await client.info("commandstats")
            # What a script does inside of Redis is counted too; the client sent one.
            sent = set(info) & {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_mget"}
            assert len(sent) == 1, name
            assert info[sent.pop()]["calls"] == 1, name


@pytest.mark.parametrize("method", ["get", "add", "replace", "delete", "find"])
async def test_a_redis_that_is_away(method: str) -> None:
    """Each method of a store that cannot be reached is a 503 with Retry-After."""
    record = Record("k", b"")
    arguments: dict[str, tuple[Any, ...]] = {"add": (record,), "replace": ("k", record, record)}
    async with Redis(port=1, retry=None) as client:  # type: ignore[arg-type]
        with pytest.raises(ServiceUnavailable) as refused:
            await getattr(RedisStore(client), method)(*arguments.get(method, ("k",)))
    assert (refused.value.status_code, refused.value.detail) == (503, "Service temporarily unavailable")
    assert refused.value.headers == {"Retry-After": "5"}
    assert refused.value.reason == "store_unreachable"


async def test_a_client_that_decodes() -> None:
    """A client that turns bytes into text is refused with the remedy."""
    with pytest.raises(ConfigurationError, match="decode_responses=False"):
        RedisStore(Redis(decode_responses=True))


async def test_from_url(redis_url: str) -> None:
    """A store can have a client of its own."""
    store = RedisStore.from_url(redis_url, prefix="own:")
    assert await store.add(Record("k", b"1"))
    assert await store.get("k") == [Record("k", b"1")]
    await store.aclose()
