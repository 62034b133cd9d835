"""RedisClusterStore: records in a Redis Cluster. Needs the extra ``redis``.

A record is in the slot of its key, the index of an owner in another one, so that no script changes both. The index is
written first, and is advice: what it lists is read and compared.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta
from math import ceil
from typing import Any, Final, cast

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.arguments import clock_of, instance_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.changes import changed_here
from fastapi_guard.stores.names import decode_name, encode_name
from fastapi_guard.stores.places import place_of_redis
from fastapi_guard.stores.protocol import KEPT_AFTER_EXPIRY_SECONDS, Record
from fastapi_guard.stores.redis import failed
from fastapi_guard.stores.redis_scripts import (
    ADD_ALONE,
    DELETE_ALONE,
    INDEX_ALONE,
    REPLACE_ALONE,
    Script,
    pack,
    read_record,
    record_to_end,
)
from fastapi_guard.stores.shared import SharedReads

try:
    from redis.asyncio.cluster import ClusterNode, RedisCluster
    from redis.exceptions import NoScriptError, RedisClusterException, RedisError, SlotNotCoveredError
except ImportError:
    raise MissingExtraError("redis", "redis") from None

_TIMEOUT_SECONDS: Final = 10.0


class RedisClusterStore:
    """Records in a Redis Cluster, or in one of Valkey.

    ``find`` may return a record that was added or deleted at the same time. The changes of records cannot be read from
    a cluster, so that a cache of records, which needs them, raises ConfigurationError. Set ``maxmemory-policy`` to
    ``noeviction`` on every node.
    """

    def __init__(
        self,
        client: RedisCluster,
        *,
        prefix: str = "fastapi-guard:",
        timeout: timedelta | float = _TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Work through ``client``, which the application closes.

        Args:
            client: A ``redis.asyncio.RedisCluster`` that returns bytes. It belongs to one event loop, and to one
                process: make it after a fork.
            prefix: Put before each key, without braces: several applications can share one cluster.
            timeout: The longest time that a method waits, a timedelta or seconds; then it raises ServiceUnavailable.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: The client decodes what it reads, or the prefix would put all records into one slot.
        """
        instance_of("client", client, RedisCluster, "a redis.asyncio.RedisCluster")
        instance_of("prefix", prefix, str, 'text, such as "shop:"')
        if cast("Any", client).get_encoder().decode_responses:
            msg = "a record is bytes: pass a client made with decode_responses=False"
            raise ConfigurationError(msg)
        if "{" in prefix:
            msg = "a prefix with a brace would put all records into one slot of the cluster: leave it out"
            raise ConfigurationError(msg)
        self._client = client
        self._server: Hashable = place_of_redis(client)  # before the client knows the other nodes
        self._prefix = f"{prefix}record:".encode()
        self._owners = f"{prefix}owner:".encode()
        self._timeout_seconds = seconds_of("timeout", timeout, positive=True)
        self._clock = clock_of(clock)
        self._reads: dict[str, SharedReads[bytes, bytes | None]] = {}

    @property
    def place(self) -> Hashable:
        """The cluster and the prefix, without a password: two stores of one place hold the same records."""
        return (self._server, self._prefix)

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        names = [self._prefix + encode_name(key) for key in keys]
        found = await self._found(names)
        now = self._clock()
        return [read_record(key, found[name], now) for key, name in zip(keys, names, strict=True)]

    async def add(self, record: Record) -> bool:
        """Add ``record`` unless its key is taken; return whether it was added."""
        return await self._put(ADD_ALONE, record.key, record)

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace the record under ``key`` by ``new`` if its value is still that of ``expected``."""
        return await self._put(REPLACE_ALONE, key, new, expected.value)

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one gets ``True``."""
        return await self.take(key) is not None

    async def take(self, key: str) -> Record | None:
        """Remove the record under ``key``, and return it; of several callers one gets it."""
        name = self._prefix + encode_name(key)
        raw, owner = await self._in_time(self._evaluated(DELETE_ALONE, name, *self._common()))
        changed_here(key)
        if owner is not None:
            await self._in_time(self._client.zrem(self._owners + owner, name))
        return record_to_end(key, raw, self._clock())

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in any order."""
        index = self._owners + encode_name(owner)
        names: list[bytes] = await self._in_time(self._client.zrange(index, 0, -1))
        found = await self._found(names)
        now = self._clock()
        records = [record_to_end(decode_name(name[len(self._prefix) :]), found[name], now, owner) for name in names]
        # The index may list a record that has another owner by now.
        wanted = encode_name(owner)
        return [
            record
            for record in records
            if record is not None and record.owner is not None and encode_name(record.owner) == wanted
        ]

    async def servers(self) -> list[tuple[str, float, str | None]]:
        """Return name, time and ``maxmemory-policy`` of each primary, as ``RedisStore.servers`` does."""
        await self._in_time(self._client.initialize())
        return await asyncio.gather(*map(self._answered, self._client.get_primaries()))

    async def _answered(self, node: ClusterNode) -> tuple[str, float, str | None]:
        client = cast("Any", self._client)
        seconds, micros = await self._in_time(client.execute_command("TIME", target_nodes=node))
        try:
            asked = client.execute_command("CONFIG GET", "maxmemory-policy", target_nodes=node)
            settings = await self._in_time(asked)
        except ServiceUnavailable:
            settings = {}
        return f"Redis {node.name}", int(seconds) + int(micros) / 1e6, settings.get("maxmemory-policy")

    async def _put(self, script: Script, key: str, record: Record, *expected: bytes) -> bool:
        name = self._prefix + encode_name(key)
        common, expires_at = self._common(), "+inf" if record.expires_at is None else repr(record.expires_at)
        if record.owner is not None:
            # First: a record that no index lists could not be ended with its owner.
            index = self._owners + encode_name(record.owner)
            await self._in_time(self._evaluated(INDEX_ALONE, index, *common[:2], name, expires_at))
        lifetime = ""
        if record.expires_at is not None:
            remaining = record.expires_at - self._clock() + KEPT_AFTER_EXPIRY_SECONDS
            lifetime = str(max(1, ceil(remaining * 1000)))
        arguments = (*common, pack(record), lifetime, "", expires_at, *expected)
        changed = bool(await self._in_time(self._evaluated(script, name, *arguments)))
        changed_here(key)
        return changed

    def _common(self) -> Sequence[bytes | str]:
        return str(KEPT_AFTER_EXPIRY_SECONDS * 1000), repr(self._clock()), b"", b""

    async def _found(self, names: list[bytes]) -> dict[bytes, bytes | None]:
        # Shared for each node apart: one that does not respond delays the reads of its own records alone.
        parts: dict[str, list[bytes]] = {}
        for name in names:
            parts.setdefault(self._node_of(name), []).append(name)
        found = await asyncio.gather(*(self._shared(node).get(part) for node, part in parts.items()))
        pairs = zip(parts.values(), found, strict=True)
        return {name: values[name] for part, values in pairs for name in part}

    def _node_of(self, name: bytes) -> str:
        try:
            node: ClusterNode = cast("Any", self._client).get_node_from_key(name)
        except SlotNotCoveredError:
            # Before the first command, or without a node that has the slot.
            return ""
        return node.name

    def _shared(self, node: str) -> SharedReads[bytes, bytes | None]:
        return self._reads.setdefault(node, SharedReads(self._read, timeout_seconds=self._timeout_seconds))

    async def _read(self, names: list[bytes]) -> dict[bytes, bytes | None]:
        found = await self._in_time(self._client.mget_nonatomic(names))
        return dict(zip(names, found, strict=True))

    async def _evaluated(self, script: Script, name: bytes, *arguments: bytes | str) -> Any:
        client = cast("Any", self._client)
        try:
            return await client.evalsha(script.digest, 1, name, *arguments)
        except NoScriptError:
            return await client.eval(script.text, 1, name, *arguments)

    async def _in_time(self, response: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await response
        except (RedisError, RedisClusterException, OSError) as error:
            failure = failed(error)
        raise failure
