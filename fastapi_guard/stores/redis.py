"""Records in Redis: each operation is one command or one script, so each is atomic and one round trip."""

import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable
from fastapi_guard.stores.protocol import KEPT_AFTER_EXPIRY_SECONDS, Record

try:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError:
    raise MissingExtraError("redis", "redis") from None

if TYPE_CHECKING:
    from redis.commands.core import AsyncScript

ResultT = TypeVar("ResultT")

# A value in Redis: when it expires (seconds since the epoch, infinity for never), the length of the owner plus one (0
# for none), the owner, the value of the record.
_HEAD: Final = struct.Struct(">dH")

# Times come in as arguments: Redis may live by another clock. An owner has a sorted set of the keys that are its own,
# by the time of their expiry.
_LUA: Final = """
local function read(key)
  local raw = redis.call('GET', key)
  if not raw then return nil end
  local expires, length = struct.unpack('>dH', raw)
  local owner = nil
  if length > 0 then owner = string.sub(raw, 11, 9 + length) end
  return {expires = expires, owner = owner, value = string.sub(raw, 10 + math.max(length, 1))}
end
local function alive(record, now) return record and record.expires > tonumber(now) end
local function drop(key, record, owners)
  redis.call('DEL', key)
  if record.owner then redis.call('ZREM', owners .. record.owner, key) end
end
local function put(key, raw, lifetime, owner, expires, now, owners)
  if lifetime == '' then redis.call('SET', key, raw) else redis.call('SET', key, raw, 'PX', lifetime) end
  if owner == '' then return end
  local index = owners .. string.sub(owner, 2)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', tonumber(now) - tonumber(ARGV[1]) / 1000)
  redis.call('ZADD', index, expires, key)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
  if last == 'inf' then redis.call('PERSIST', index) else
    redis.call('PEXPIRE', index, math.ceil((tonumber(last) - tonumber(now)) * 1000) + tonumber(ARGV[1]))
  end
end
"""
_ADD: Final = """
local record = read(KEYS[1])
if alive(record, ARGV[2]) then return 0 end
if record then drop(KEYS[1], record, ARGV[3]) end
put(KEYS[1], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[2], ARGV[3])
return 1
"""
_REPLACE: Final = """
local record = read(KEYS[1])
if not alive(record, ARGV[2]) or record.value ~= ARGV[8] then return 0 end
drop(KEYS[1], record, ARGV[3])
put(KEYS[1], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[2], ARGV[3])
return 1
"""
_DELETE: Final = """
local record = read(KEYS[1])
if not record then return 0 end
drop(KEYS[1], record, ARGV[3])
if alive(record, ARGV[2]) then return 1 else return 0 end
"""
_FIND: Final = """
local keys = redis.call('ZRANGE', KEYS[1], 0, -1)
local found = {}
for _, key in ipairs(keys) do
  local raw = redis.call('GET', key)
  if raw then found[#found + 1] = key; found[#found + 1] = raw end
end
return found
"""


class RedisStore:
    """Records in one Redis, or in one primary with replicas; a cluster would have to split what is one script.

    Redis deletes expired records by itself. Give it a ``maxmemory-policy`` that evicts nothing (``noeviction``): an
    evicted revocation is a revocation undone.
    """

    def __init__(
        self, client: Redis, *, prefix: str = "fastapi-guard:", clock: Callable[[], float] = time.time
    ) -> None:
        """Work through ``client``, which stays the application's to close.

        Args:
            client: A ``redis.asyncio.Redis`` that answers with bytes.
            prefix: Put before each key: several applications can share one Redis.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: The client decodes what it reads.
        """
        if cast("Any", client).get_encoder().decode_responses:
            msg = "a record is bytes: pass a client made with decode_responses=False"
            raise ConfigurationError(msg)
        self._client = client
        self._prefix = f"{prefix}record:".encode()
        self._owners = f"{prefix}owner:".encode()
        self._clock = clock
        self._add, self._replace, self._delete, self._find = (
            client.register_script(_LUA + script) for script in (_ADD, _REPLACE, _DELETE, _FIND)
        )

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "fastapi-guard:") -> "RedisStore":
        """Return a store on a client of its own, such as ``redis://localhost:6379/0``; see ``aclose``."""
        # A connection that was closed while idle is opened again, once and at once.
        client = Redis.from_url(url, retry=Retry(NoBackoff(), 1), socket_timeout=2, socket_connect_timeout=2)
        return cls(client, prefix=prefix)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        if not keys:
            return []  # MGET takes at least one
        found = await _reached(self._client.mget([self._prefix + _bytes(key) for key in keys]))
        now = self._clock()
        return [_read(key, raw, now) for key, raw in zip(keys, found, strict=True)]

    async def add(self, record: Record) -> bool:
        """Put ``record`` in unless its key is taken; return whether it was put in."""
        return await self._run(self._add, record.key, *self._arguments(record))

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Put ``new`` in place of the record under ``key`` if that still holds the value of ``expected``."""
        return await self._run(self._replace, key, *self._arguments(new), expected.value)

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one is told ``True``."""
        return await self._run(self._delete, key)

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in no order."""
        found = await _reached(self._find(keys=[self._owners + _bytes(owner)]))
        now = self._clock()
        pairs = zip(found[::2], found[1::2], strict=True)
        records = [_read(_text(key[len(self._prefix) :]), raw, now) for key, raw in pairs]
        return [record for record in records if record is not None]

    async def _run(self, script: "AsyncScript", key: str, *arguments: bytes | str) -> bool:
        kept = str(KEPT_AFTER_EXPIRY_SECONDS * 1000)
        common = (kept, repr(self._clock()), self._owners)
        return bool(await _reached(script(keys=[self._prefix + _bytes(key)], args=[*common, *arguments])))

    def _arguments(self, record: Record) -> Sequence[bytes | str]:
        owner = b"" if record.owner is None else b"=" + _bytes(record.owner)
        expires_at = inf if record.expires_at is None else record.expires_at
        raw = _HEAD.pack(expires_at, len(owner)) + owner[1:] + record.value
        if record.expires_at is None:
            return raw, "", owner, "+inf"
        remaining = max(0, ceil((record.expires_at - self._clock() + KEPT_AFTER_EXPIRY_SECONDS) * 1000))
        return raw, str(max(1, remaining)), owner, repr(record.expires_at)


def _read(key: str, raw: bytes | None, now: float) -> Record | None:
    if raw is None:
        return None
    expires_at, length = _HEAD.unpack_from(raw)
    if expires_at <= now:
        return None
    start = _HEAD.size + max(0, length - 1)
    owner = _text(raw[_HEAD.size : start]) if length else None
    return Record(key, raw[start:], owner, None if expires_at == inf else expires_at)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


async def _reached(answer: object) -> Any:
    try:
        return await cast("Awaitable[Any]", answer)
    except (RedisError, OSError) as error:
        raise ServiceUnavailable(reason="store_unreachable") from error
