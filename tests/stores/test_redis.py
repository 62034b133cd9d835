"""RedisStore: how long Redis keeps a key, replicas, TLS, event loops, and what happens while it is unavailable."""

import asyncio
import socket
import struct
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from math import inf, nan
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.stores import Record
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.values import UnreadableRecord
from support.clock import Clock
from support.redis import running_redis, until


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
async def test_a_redis_that_is_unavailable(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each method of a store that cannot be reached is a 503 with Retry-After, and the log names the cause."""
    record = Record("k", b"")
    arguments: dict[str, tuple[Any, ...]] = {"add": (record,), "replace": ("k", record, record)}
    async with Redis(port=1, retry=None) as client:  # type: ignore[arg-type]
        with pytest.raises(ServiceUnavailable) as refused:
            await getattr(RedisStore(client), method)(*arguments.get(method, ("k",)))
    assert (refused.value.status_code, refused.value.detail) == (503, "Service temporarily unavailable")
    assert refused.value.headers == {"Retry-After": "5"}
    assert refused.value.reason == "store_unreachable"
    assert caplog.messages[0].startswith('a request to Redis failed: ConnectionError: "Error 111 connecting to ')


@pytest.mark.parametrize("disabled", ["EVALSHA", "EVAL"])
async def test_a_command_that_is_disabled(disabled: str, caplog: pytest.LogCaptureFixture) -> None:
    """Redis quotes the arguments of a command that it does not know: none of them is in the log or in a cause."""
    # A traceback quotes lines of this file.
    record = Record("a-record", b"a-value")
    with running_redis(None, "--rename-command", disabled, "") as url:
        async with aclosing(RedisStore.from_url(url)) as store:
            with pytest.raises(ServiceUnavailable) as refused:
                await store.add(record)
    cause = refused.value.__cause__
    assert cause is not None
    for text in (caplog.text, str(cause), repr(cause), "".join(traceback.format_exception(refused.value))):
        assert f"unknown command '{disabled}'" in text
        assert record.key not in text
        assert record.value.decode() not in text


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


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2hunter2@host:port/0",
        "redis://user:hunter2/hunter2@host:6379/0",
        "http://:hunter2hunter2@host",
        "redis://:hunter2hunter2@host?socket_timeout=soon",
    ],
)
def test_an_invalid_url_shows_no_password(url: str) -> None:
    """An invalid URL is rejected when the store is constructed, without the password that it contains."""
    with pytest.raises(ConfigurationError, match=r"^not the URL of a Redis: write redis://user:password@host") as error:
        RedisStore.from_url(url)
    assert "hunter2" not in "".join(traceback.format_exception(error.value))
    assert error.value.__context__ is None


async def test_no_password_in_a_repr(redis_url: str) -> None:
    """Neither the store nor what it consists of shows the password of its URL, nor does an error."""
    store = RedisStore.from_url("redis://:hunter2hunter2@127.0.0.1:1/0")
    with pytest.raises(ServiceUnavailable) as error:
        await store.get("k")
    clients = repr([*store._clients.values()])
    await store.aclose()
    await store.aclose()
    shown = repr(store) + repr(vars(store)) + clients
    assert "hunter2" not in shown + "".join(traceback.format_exception(error.value))


async def test_clients_of_the_wrong_kind() -> None:
    """Arguments are checked by the constructor."""
    with pytest.raises(ConfigurationError, match="replicas is the number of replicas"):
        RedisStore(Redis(), replicas=-1)
    with pytest.raises(ConfigurationError, match="timeout is"):
        RedisStore(Redis(), timeout=0)
    decoding = RedisStore(lambda: Redis(decode_responses=True))
    with pytest.raises(ConfigurationError, match="decode_responses=False"):
        await decoding.get("k")


# Not of a record: too short, without an expiry, with an owner that is not UTF-8.
FOREIGN = {
    "short": b"hello",
    "nan": struct.pack(">dH", nan, 0) + b"x",
    "owner": struct.pack(">dH", inf, 3) + b"\xff\xff{}",
}


async def test_a_foreign_value(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are not a record, or another type, fail their own request; others of the same read succeed."""
    async with Redis.from_url(redis_url) as client:
        store = RedisStore(client, prefix="foreign:")
        await store.add(good := Record("good", b"1", "ada"))
        for name, value in FOREIGN.items():
            await client.set(f"foreign:record:{name}", value)
            await client.zadd("foreign:owner:ada", {f"foreign:record:{name}": "inf"})
        await client.rpush("foreign:record:list", "a")
        await client.zadd("foreign:owner:ada", {"foreign:record:list": "inf"})
        for name in FOREIGN:
            found = await asyncio.gather(*(store.get(key) for key in ("good", name, "list")), return_exceptions=True)
            assert found[0] == [good]
            assert isinstance(found[1], UnreadableRecord)
            assert found[1].reason == "unreadable_record"
            assert found[2] == [None]
        listed = await store.find("ada")
        assert {record.key for record in listed} == {"good", *FOREIGN}
        assert {record.owner for record in listed} == {"ada"}
        await store.replace_all([(Record("list", b"1"), Record("list", b"2"))])
        assert await store.get("list") == [None]
        assert [await store.delete(name) for name in FOREIGN] == [True] * 3
        assert await store.find("ada") == [good]
    assert "another application uses the same prefix" in caplog.text


async def test_several_changes_that_are_rejected() -> None:
    """Of changes that are sent together, one that Redis rejects fails them: none is taken for stored."""
    with running_redis() as url:
        async with Redis.from_url(url) as client:
            store = RedisStore(client)
            await store.add(old := Record("k", b"1"))
            await client.execute_command("ACL", "SETUSER", "default", "-evalsha")
            with pytest.raises(ServiceUnavailable) as refused:
                await store.replace_all([(old, Record("k", b"2"))])
            assert refused.value.reason == "store_unreachable"
            assert await store.get("k") == [old]


async def test_a_revocation_of_foreign_bytes(redis_url: str) -> None:
    """A revocation takes the place of bytes that are not a record, and revokes all that these can have been about."""
    async with Redis.from_url(redis_url) as client:
        store = RedisStore(client, prefix="revoked:")
        revocations = Revocations(store)
        await revocations.revoke_id("jti", issuer="other")
        [key] = await client.keys("revoked:record:*")
        for value in FOREIGN.values():
            await client.set(key, value)
            with pytest.raises(UnreadableRecord):
                await revocations.is_revoked({"jti": "jti"})
            await revocations.revoke_id("jti", issuer="other")
            assert await revocations.is_revoked({"jti": "jti", "iss": "any"})
        await client.delete(key)
        await client.rpush(key, "a")
        await revocations.revoke_id("jti", issuer="other")
        assert await revocations.is_revoked({"jti": "jti", "iss": "other"})


async def test_another_error_of_a_script(redis_url: str) -> None:
    """A value that Redis does not return, for another reason than its type, is not taken for absent."""
    async with Redis.from_url(redis_url) as client:
        await client.acl_setuser("blind", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-get"])
    async with Redis.from_url(redis_url, username="blind", password="pw") as client:
        store = RedisStore(client, prefix="blind:")
        for call in (store.add(Record("k", b"1", "ada")), store.delete("k")):
            with pytest.raises(ServiceUnavailable):
                await call
    async with Redis.from_url(redis_url) as client:
        await client.acl_deluser("blind")


async def test_reads_at_the_same_time_are_one_command(redis_url: str) -> None:
    """A hundred look-ups at the same time are two MGET at most, on one connection."""
    async with Redis.from_url(redis_url) as client:
        store = RedisStore(client, prefix="shared:")
        await store.add(Record("k", b"1"))
        await client.config_resetstat()
        found = await asyncio.gather(*(store.get("k", str(number)) for number in range(60)))
        assert found == [[Record("k", b"1"), None]] * 60
        info = await client.info("commandstats")
        assert info["cmdstat_mget"]["calls"] <= 2
        assert len(client.connection_pool._available_connections) == 1


def test_two_event_loops(redis_url: str) -> None:
    """A store from a URL serves several event loops, each through a client of its own."""
    store = RedisStore.from_url(redis_url, prefix="loops:")

    async def use(name: str) -> int:
        for turn in range(20):
            assert await store.add(Record(f"{name}{turn}", b"", name))
            assert await asyncio.gather(*(store.get(f"{name}{turn}") for _ in range(3)))
        found = len(await store.find(name))
        await store.aclose()
        return found

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda name: asyncio.run(use(name)), ["one", "two"])) == [20, 20]


async def test_a_redis_that_does_not_respond() -> None:
    """A server that accepts connections and never responds is a 503 in time, for reads and for changes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Redis(port=silent.getsockname()[1]) as client:
            store = RedisStore(client, timeout=0.05)
            for call in (store.get("k"), store.add(Record("k", b"")), store.find("ada")):
                with pytest.raises(ServiceUnavailable):
                    await call


async def test_a_restart_between_two_reads() -> None:
    """Connections that were closed by a restart of Redis are replaced within the request."""
    with running_redis() as first:
        port = int(first.rpartition(":")[2].partition("/")[0])
        store = RedisStore.from_url(first)
        await store.add(Record("k", b"1"))
        assert await store.get("k") == [Record("k", b"1")]
    with running_redis(port):
        assert await store.get("k") == [None]
        assert await store.add(Record("k", b"2"))
        assert await store.get("k") == [Record("k", b"2")]
    with pytest.raises(ServiceUnavailable):
        await store.get("k")
    await store.aclose()


async def test_confirmed_by_a_replica(caplog: pytest.LogCaptureFixture) -> None:
    """With `replicas=1` a change counts when a replica has it; without a replica that responds it is a 503."""
    with running_redis() as url:
        async with Redis.from_url(url) as client:
            store = RedisStore(client, replicas=1, timeout=4)
            plain = RedisStore(client)
            with pytest.raises(ServiceUnavailable) as refused:
                await store.add(Record("k", b"1", "ada"))
            assert refused.value.reason == "not_replicated"
            assert await plain.get("k") == [Record("k", b"1", "ada")]
            assert not await store.add(Record("k", b"1", "ada"))
            with running_redis(None, "--replicaof", "127.0.0.1", url.rpartition(":")[2].partition("/")[0]) as other:
                async with Redis.from_url(other) as replica:

                    async def linked() -> bool:
                        return bool((await replica.info("replication"))["master_link_status"] == "up")

                    await until(linked)
                    patient = RedisStore(client, replicas=1)
                    old, new = Record("k", b"1", "ada"), Record("k", b"2", "ada")
                    assert await patient.replace("k", old, new)
                    assert await RedisStore(replica).get("k") == [new]
                    assert await patient.delete("k")
                    assert await RedisStore(replica).get("k") == [None]
                    assert not await patient.delete("k")
    assert "confirmed by 0 replicas, not by 1" in caplog.text
    with running_redis() as url:
        async with Redis.from_url(url) as client:
            await client.config_set("maxmemory", "1")
            with pytest.raises(ServiceUnavailable) as refused:
                await RedisStore(client, replicas=1).add(Record("k", b"1"))
            assert refused.value.reason == "store_unreachable"


def test_a_store_without_a_client_after_a_fork() -> None:
    """A store of a URL that has not sent anything yet has no connections to leave to the parent."""
    store = RedisStore.from_url("redis://127.0.0.1:1")
    store.after_fork()
    assert len(store._clients) == 0


@pytest.mark.parametrize("query", ["", "?max_connections=3"])
async def test_more_changes_at_once_than_connections(redis_url: str, query: str) -> None:
    """Each of 500 changes at once waits for a connection; before, those beyond 100 were a 503."""
    store = RedisStore.from_url(redis_url + query, prefix=f"crowd{len(query)}:")
    records = [Record(f"k{number}", b"v", None, time.time() + 60) for number in range(500)]
    assert await asyncio.gather(*map(store.add, records)) == [True] * 500
    assert await asyncio.gather(*(store.delete(record.key) for record in records)) == [True] * 500
    await store.aclose()
