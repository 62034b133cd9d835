"""RedisClusterStore on a real cluster of three nodes; the contract of a store is tested elsewhere."""

import asyncio
import os
import signal
import sys
from importlib import util
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster

from fastapi_guard import ConfigurationError, MissingExtraError, ServiceUnavailable
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.stores import Record, redis_cluster
from fastapi_guard.stores.cached import CachedRecords, CacheLimits
from fastapi_guard.stores.redis_cluster import RedisClusterStore
from support.clock import Clock


async def test_records_are_spread(cluster_ports: list[int], clock: Clock) -> None:
    """Records of one owner are on all nodes, and are read together and found by their owner."""
    async with RedisCluster(host="127.0.0.1", port=cluster_ports[0]) as client:
        store = RedisClusterStore(client, prefix="spread:", clock=clock)
        records = [Record(f"k{number}", b"1", "ada", clock() + 60) for number in range(30)]
        assert all(await asyncio.gather(*(store.add(record) for record in records)))
        nodes = {client.get_node_from_key(f"spread:record:{record.key}").name for record in records}
        assert len(nodes) == 3
        found = await asyncio.gather(*(store.get(record.key) for record in records))
        assert [record for [record] in found] == records
        assert sorted(await store.find("ada"), key=lambda record: record.key) == sorted(
            records, key=lambda record: record.key
        )


async def test_a_foreign_value(cluster_ports: list[int]) -> None:
    """Bytes that are not a record are found and deleted as other records are, and a revocation takes their place."""
    async with RedisCluster(host="127.0.0.1", port=cluster_ports[0]) as client:
        store = RedisClusterStore(client, prefix="foreign:")
        revocations = Revocations(store)
        await store.add(good := Record("good", b"1", "ada"))
        await store.add(Record("bad", b"1", "ada"))
        await client.set("foreign:record:bad", b"hello")
        assert {record.key for record in await store.find("ada")} == {"good", "bad"}
        assert await store.delete("bad")
        assert await store.find("ada") == [good]
        await revocations.revoke_id("jti", issuer="other")
        [key] = [key async for key in client.scan_iter("foreign:record:revoked:*")]
        await client.set(key, b"hello")
        await revocations.revoke_id("jti", issuer="other")
        assert await revocations.is_revoked({"jti": "jti", "iss": "any"})


async def test_an_index_is_advice(cluster_ports: list[int], clock: Clock) -> None:
    """A key that is in the index of an owner, without a record or with one of another owner, is not found there."""
    async with RedisCluster(host="127.0.0.1", port=cluster_ports[0]) as client:
        store = RedisClusterStore(client, prefix="advice:", clock=clock)
        await store.add(old := Record("k", b"1", "ada"))
        assert await store.replace("k", old, new := Record("k", b"2", "bob"))
        await store.add(Record("without", b"1"))
        await client.zadd("advice:owner:ada", {"advice:record:gone": "inf", "advice:record:without": "inf"})
        assert await store.find("ada") == []
        assert await store.find("bob") == [new]
        assert await store.delete("k")
        assert await client.zrange("advice:owner:bob", 0, -1) == []


async def test_a_node_that_does_not_respond(cluster_ports: list[int]) -> None:
    """Records on the other nodes are read meanwhile, and those of the node when it responds again."""
    async with RedisCluster(host="127.0.0.1", port=cluster_ports[0]) as client, Redis(port=cluster_ports[2]) as node:
        store = RedisClusterStore(client, prefix="hung:", timeout=60)
        keys = [f"k{number}" for number in range(30)]
        await asyncio.gather(*(store.add(Record(key, b"1")) for key in keys))
        name = f"127.0.0.1:{cluster_ports[2]}"
        there = {key for key in keys if client.get_node_from_key(f"hung:record:{key}").name == name}
        process = (await node.info())["process_id"]
        os.kill(process, signal.SIGSTOP)
        try:
            hung = asyncio.gather(*(store.get(key) for key in there))
            await asyncio.sleep(0)
            found = await asyncio.gather(*(store.get(key) for key in keys if key not in there))
            assert [record.key for [record] in found if record is not None] == [key for key in keys if key not in there]
            assert not hung.done()
        finally:
            os.kill(process, signal.SIGCONT)
        assert {record.key for [record] in await hung if record is not None} == there
        assert await store.get(*keys) == [Record(key, b"1") for key in keys]


@pytest.mark.parametrize("method", ["get", "add", "replace", "delete", "find"])
async def test_a_cluster_that_is_unavailable(method: str) -> None:
    """Each method of a store that cannot be reached is a 503."""
    record = Record("k", b"")
    arguments: dict[str, tuple[Any, ...]] = {"add": (record,), "replace": ("k", record, record)}
    client = RedisCluster(host="127.0.0.1", port=1)
    with pytest.raises(ServiceUnavailable) as refused:
        await getattr(RedisClusterStore(client), method)(*arguments.get(method, ("k",)))
    assert refused.value.reason == "store_unreachable"
    await client.aclose()


async def test_what_cannot_work() -> None:
    """A client that decodes, a prefix with a brace, and a cache are rejected when they are constructed."""
    decoding = RedisCluster(host="127.0.0.1", port=1, decode_responses=True)
    with pytest.raises(ConfigurationError, match="decode_responses=False"):
        RedisClusterStore(decoding)
    client = RedisCluster(host="127.0.0.1", port=1)
    with pytest.raises(ConfigurationError, match="all records into one slot"):
        RedisClusterStore(client, prefix="{shop}:")
    with pytest.raises(ConfigurationError, match="needs a store whose changes can be read"):
        CachedRecords(RedisClusterStore(client), CacheLimits(ttl_seconds=60))
    for made in (decoding, client):
        await made.aclose()


def test_without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the library is missing, the error names the extra."""
    monkeypatch.setitem(sys.modules, "redis.asyncio.cluster", None)
    spec: Any = util.spec_from_file_location("again", redis_cluster.__file__)
    with pytest.raises(MissingExtraError, match=r"pip install 'fastapi-guard-auth\[redis\]'"):
        spec.loader.exec_module(util.module_from_spec(spec))
