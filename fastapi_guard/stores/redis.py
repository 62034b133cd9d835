"""RedisStore: records in Redis or Valkey. Each operation is one command or one script, so each is atomic.

Needs the extra ``redis``.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from datetime import timedelta
from math import ceil
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from pydantic import AnyUrl, SecretStr

from fastapi_guard.exceptions import (
    ConfigurationError,
    GuardError,
    MissingExtraError,
    ServiceUnavailable,
    first_line,
    shown,
)
from fastapi_guard.stores.arguments import clock_of, function_of, instance_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.changes import changed_here
from fastapi_guard.stores.forks import reset_after_fork
from fastapi_guard.stores.hidden import plain
from fastapi_guard.stores.kinds import is_announced
from fastapi_guard.stores.names import decode_name, encode_name
from fastapi_guard.stores.places import place_of_redis
from fastapi_guard.stores.protocol import KEPT_AFTER_EXPIRY_SECONDS, Record
from fastapi_guard.stores.redis_changes import StreamChanges
from fastapi_guard.stores.redis_scripts import ADD, DELETE, FIND, REPLACE, Script, pack, read_record, record_to_end
from fastapi_guard.stores.shared import SharedReads

try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, RedisError
except ImportError:
    raise MissingExtraError("redis", "redis") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

_TIMEOUT_SECONDS: Final = 10.0
# What a parent process had open: it is not even to be closed here.
_inherited: Final[list[object]] = []


class StoreFailure(GuardError):
    """The cause of a ServiceUnavailable: the first line of what Redis or the connection reported."""


def failed(error: Exception) -> ServiceUnavailable:
    """Log that a request to Redis failed; return the 503, with the first line of the report as its cause."""
    cause, line = type(error).__name__, first_line(error)
    logger.warning("a request to Redis failed: %s: %r", cause, line)
    failure = ServiceUnavailable(reason="store_unreachable")
    failure.__cause__ = StoreFailure(line or cause)
    return failure


class RedisStore:
    """Records in one Redis, or in one primary with replicas, also behind Sentinel; Valkey is the same.

    Redis deletes expired records by itself. Set its ``maxmemory-policy`` to ``noeviction``: an evicted revocation is a
    revocation undone.
    """

    def __init__(
        self,
        client: "Redis | Callable[[], Redis]",
        *,
        prefix: str = "fastapi-guard:",
        replicas: int = 0,
        timeout: timedelta | float = _TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Work through ``client``, which the application closes.

        Args:
            client: A ``redis.asyncio.Redis`` that returns bytes, such as ``Sentinel(...).master_for(...)``; or a
                callable that returns a new one, called once in each event loop. Its pool is best a
                BlockingConnectionPool: others refuse what they have no connection for, which is a 503.
            prefix: Put before each key: several applications can share one Redis.
            replicas: The number of replicas that have to confirm a change (WAIT) before it counts. Without, a
                revocation that the primary confirmed is lost where the primary fails before it was replicated.
            timeout: The longest time that a method waits, a timedelta or seconds; then it raises ServiceUnavailable.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: The client decodes what it reads, or an argument is out of its range.
        """
        instance_of("prefix", prefix, str, 'text, such as "shop:"')
        what = "that returns a redis.asyncio.Redis, or one itself; RedisStore.from_url(url) makes one"
        self._connect = None if isinstance(client, Redis) else function_of("client", client, what)
        self._client = client if isinstance(client, Redis) else None
        self._server: Hashable = self._connect
        if isinstance(client, Redis):
            _check(client)
        if type(replicas) is not int or replicas < 0:
            msg = f"replicas is the number of replicas that confirm a change, 0 or more, not {shown(replicas)}"
            raise ConfigurationError(msg)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Redis] = WeakKeyDictionary()
        self._prefix = f"{prefix}record:".encode()
        self._owners = f"{prefix}owner:".encode()
        self._changes = f"{prefix}changes".encode()
        self._replicas = replicas
        self._timeout_seconds = seconds_of("timeout", timeout, positive=True)
        self._clock = clock_of(clock)
        self._reads = SharedReads(self._read, timeout_seconds=self._timeout_seconds)
        reset_after_fork(self)

    @classmethod
    def from_url(
        cls, url: str | AnyUrl | SecretStr, *, prefix: str = "fastapi-guard:", replicas: int = 0
    ) -> "RedisStore":
        """Return a store with clients of its own, one in each event loop; see ``aclose``.

        A connection, and each answer of Redis, may take two seconds. At most 100 connections are open in an event loop;
        ``?max_connections=`` in the URL is another number.

        Args:
            url: Such as ``redis://user:password@host:6379/0``; ``rediss://`` for TLS.
            prefix: Put before each key: several applications can share one Redis.
            replicas: The number of replicas that have to confirm a change (WAIT) before it counts.

        Raises:
            ConfigurationError: The URL is not that of a Redis, or an argument is out of its range.
        """
        text: str = instance_of("url", plain(url), str, "the URL of a Redis, such as redis://host:6379/0")

        def connect() -> Redis:
            # A connection that was closed while it was idle is opened again, once and at once. Where all are in use, a
            # request waits for one; the timeout of the store ends that.
            again = Retry(NoBackoff(), 1)
            settings: dict[str, Any] = {"retry": again, "socket_timeout": 2, "socket_connect_timeout": 2}
            pool = BlockingConnectionPool.from_url(text, timeout=None, **{"max_connections": 100, **settings})
            return Redis.from_pool(pool)

        try:
            server: Hashable = place_of_redis(connect())
        except ValueError:
            server = None
        if server is None:
            # Not within the except clause: the text of the error may quote the password.
            msg = (
                "not the URL of a Redis: write redis://user:password@host:6379/0, or rediss:// for TLS, and characters"
                " such as / and # in the password as %2F and %23"
            )
            raise ConfigurationError(msg)
        store = cls(connect, prefix=prefix, replicas=replicas)
        store._server = server
        return store

    @property
    def place(self) -> Hashable:
        """The server, database and prefix, without a password: two stores of one place hold the same records."""
        return (self._server if self._client is None else place_of_redis(self._client), self._prefix)

    async def aclose(self) -> None:
        """Close the client of this event loop."""
        client = self._client or self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        names = [self._prefix + encode_name(key) for key in keys]
        found = await self._reads.get(names)
        now = self._clock()
        return [read_record(key, found[name], now) for key, name in zip(keys, names, strict=True)]

    async def add(self, record: Record) -> bool:
        """Add ``record`` unless its key is taken; return whether it was added."""
        return bool(await self._change(ADD, record.key, *self._arguments(record)))

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace the record under ``key`` by ``new`` if its value is still that of ``expected``."""
        return bool(await self._change(REPLACE, key, *self._arguments(new), expected.value))

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one gets ``True``."""
        return await self.take(key) is not None

    async def take(self, key: str) -> Record | None:
        """Remove the record under ``key``, and return it; of several callers one gets it."""
        return record_to_end(key, await self._change(DELETE, key), self._clock())

    async def replace_all(self, changes: Sequence[tuple[Record, Record]]) -> None:
        """Replace each first record by the second, where the value under the key is still that of the first."""
        await self._in_time(self._replaced(changes))
        changed_here(*(expected.key for expected, _ in changes))

    def changes(self) -> StreamChanges:
        """Return a position in the changes that any process makes: records that ended, and revocations."""
        return StreamChanges(self._execute, self._changes, lambda name: decode_name(name[len(self._prefix) :]))

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in any order."""
        index = self._owners + encode_name(owner)
        found = await self._in_time(self._evaluated(FIND, index))
        now = self._clock()
        pairs = zip(found[::2], found[1::2], strict=True)
        records = [record_to_end(decode_name(key[len(self._prefix) :]), raw, now, owner) for key, raw in pairs]
        return [record for record in records if record is not None]

    async def servers(self) -> list[tuple[str, float, str | None]]:
        """Return the name, the time in seconds since the epoch, and the ``maxmemory-policy`` where it may be read."""
        seconds, micros = await self._execute("TIME")
        try:
            settings = await self._execute("CONFIG GET", "maxmemory-policy")
        except ServiceUnavailable:
            settings = {}
        return [("Redis", int(seconds) + int(micros) / 1e6, settings.get("maxmemory-policy"))]

    def after_fork(self) -> None:
        """Leave the connections of the parent process to it."""
        _inherited.append(list(self._clients.values()))
        self._clients = WeakKeyDictionary()
        if self._client is not None:
            pool = cast("Any", self._client.connection_pool)
            _inherited.append([*pool._available_connections, *pool._in_use_connections])  # noqa: SLF001 - see there
            pool.reset()

    async def _read(self, names: list[bytes]) -> dict[bytes, bytes | None]:
        found = await self._in_time(cast("Awaitable[list[Any]]", self._loop_client().mget(names)))
        return dict(zip(names, found, strict=True))

    async def _change(self, script: Script, key: str, *arguments: bytes | str) -> Any:
        stream = self._changes if is_announced(key, added=script is ADD) else b""
        name = self._prefix + encode_name(key)
        evaluated = self._evaluated(script, name, *self._common(stream), *arguments, confirm=True)
        changed = await self._in_time(evaluated)
        changed_here(key)
        return changed

    def _common(self, stream: bytes = b"") -> Sequence[bytes | str]:
        return str(KEPT_AFTER_EXPIRY_SECONDS * 1000), repr(self._clock()), self._owners, stream

    async def _evaluated(self, script: Script, name: bytes, *arguments: bytes | str, confirm: bool = False) -> Any:
        client = self._loop_client()
        if confirm and self._replicas:
            return await self._confirmed(client, script, name, arguments)
        try:
            return await client.evalsha(script.digest, 1, name, *arguments)
        except NoScriptError:
            return await client.eval(script.text, 1, name, *arguments)

    async def _execute(self, *command: bytes | str | int) -> Any:
        return await self._in_time(cast("Any", self._loop_client()).execute_command(*command))

    async def _replaced(self, changes: Sequence[tuple[Record, Record]]) -> None:
        client = self._loop_client()
        await client.script_load(REPLACE.text)
        pipeline = client.pipeline(transaction=False)
        for expected, new in changes:
            name, arguments = self._prefix + encode_name(new.key), self._arguments(new)
            pipeline.evalsha(REPLACE.digest, 1, name, *self._common(), *arguments, expected.value)
        for outcome in await pipeline.execute(raise_on_error=False):
            if isinstance(outcome, Exception):
                raise outcome

    async def _confirmed(self, client: Redis, script: Script, name: bytes, arguments: Sequence[bytes | str]) -> Any:
        changed, confirmed = await self._and_wait(client, "EVALSHA", script.digest, name, arguments)
        if isinstance(changed, NoScriptError):
            changed, confirmed = await self._and_wait(client, "EVAL", script.text, name, arguments)
        for outcome in (changed, confirmed):
            if isinstance(outcome, Exception):
                raise outcome
        if changed and confirmed < self._replicas:
            logger.warning("a change was confirmed by %d replicas, not by %d", confirmed, self._replicas)
            raise ServiceUnavailable(reason="not_replicated")
        return changed

    async def _and_wait(
        self, client: Redis, command: str, script: str, name: bytes, arguments: Sequence[bytes | str]
    ) -> list[Any]:
        # WAIT counts the replicas that have what was written on its own connection: a pipeline uses one.
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command(command, script, 1, name, *arguments)
        # Twice at most, and within the timeout.
        pipeline.execute_command("WAIT", self._replicas, int(self._timeout_seconds * 1000 / 4))
        # An error that the pipeline raises by itself quotes the arguments.
        return await pipeline.execute(raise_on_error=False)

    async def _in_time(self, response: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await response
        except (RedisError, OSError) as error:
            failure = failed(error)
        raise failure

    def _loop_client(self) -> Redis:
        if self._connect is None:
            return cast("Redis", self._client)
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = _check(self._connect())
        return client

    def _arguments(self, record: Record) -> Sequence[bytes | str]:
        owner = b"" if record.owner is None else b"=" + encode_name(record.owner)
        if record.expires_at is None:
            return pack(record), "", owner, "+inf"
        remaining = max(1, ceil((record.expires_at - self._clock() + KEPT_AFTER_EXPIRY_SECONDS) * 1000))
        return pack(record), str(remaining), owner, repr(record.expires_at)


def _check(client: Redis) -> Redis:
    if cast("Any", client).get_encoder().decode_responses:
        msg = "a record is bytes: pass a client made with decode_responses=False"
        raise ConfigurationError(msg)
    return client
