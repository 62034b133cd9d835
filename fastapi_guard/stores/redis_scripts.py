"""The scripts that change records in Redis, and the bytes of a record there.

A value in Redis is the expiry (seconds since the epoch, infinity for never), the length of the owner plus one (0 for no
owner), the owner, the value of the record. An owner has an index, a sorted set of the keys of its records by expiry.
Times are arguments: the clock of Redis may differ from that of the application.
"""

import logging
import struct
from dataclasses import replace
from hashlib import sha1
from math import inf, isnan, nan
from typing import Final, cast

from fastapi_guard.stores.names import decode_name, encode_name
from fastapi_guard.stores.protocol import Record
from fastapi_guard.stores.values import UnreadableRecord

logger: logging.Logger = logging.getLogger("fastapi_guard")

_HEAD: Final = struct.Struct(">dH")

# Arguments of every script: how long expired records are kept (milliseconds), the moment (seconds since the epoch), the
# prefix of the indexes of owners, the stream for changes (empty for none). Then, where a record is put in: its bytes,
# its lifetime (milliseconds, empty for no end), "=" and the owner (empty for no owner), its expiry (seconds). Then the
# value that is to be replaced.
# A value of another type is absent, as it is for MGET. Bytes that are not of a record are one that never expires.
_GET: Final = """
local function get(key)
  local raw = redis.pcall('GET', key)
  if type(raw) ~= 'table' then return raw end
  if string.find(raw.err, 'WRONGTYPE', 1, true) then return false end
  error(raw.err)
end
"""
_RECORDS: Final = (
    _GET
    + """
local function read(key)
  local raw = get(key)
  if not raw then return nil end
  local unreadable = {raw = raw, expires = math.huge, value = raw}
  if #raw < 10 then return unreadable end
  local expires, length = struct.unpack('>dH', raw)
  if expires ~= expires then return unreadable end
  local owner = nil
  if length > 0 then owner = string.sub(raw, 11, 9 + length) end
  return {raw = raw, expires = expires, owner = owner, value = string.sub(raw, 10 + math.max(length, 1))}
end
local function alive(record, now) return record and record.expires > tonumber(now) end
local function put(key, raw, lifetime)
  if lifetime == '' then redis.call('SET', key, raw) else redis.call('SET', key, raw, 'PX', lifetime) end
end
"""
)
_INDEXES: Final = """
local function index(set, key, expires)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', tonumber(ARGV[2]) - tonumber(ARGV[1]) / 1000)
  redis.call('ZADD', set, expires, key)
  local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
  if last == 'inf' then redis.call('PERSIST', set) else
    redis.call('PEXPIRE', set, math.ceil((tonumber(last) - tonumber(ARGV[2])) * 1000) + tonumber(ARGV[1]))
  end
end
"""
# One Redis has the record, the index and the stream: a script changes all of them at once.
_TOGETHER: Final = (
    _RECORDS
    + _INDEXES
    + """
local function drop(key, record)
  redis.call('DEL', key)
  if record.owner then redis.call('ZREM', ARGV[3] .. record.owner, key) end
end
local function put_indexed(key)
  put(key, ARGV[5], ARGV[6])
  if ARGV[7] ~= '' then index(ARGV[3] .. string.sub(ARGV[7], 2), key, ARGV[8]) end
end
local function announce(key)
  if ARGV[4] == '' then return end
  redis.call('XADD', ARGV[4], 'MAXLEN', '~', 10000, '*', 'key', key)
  redis.call('EXPIRE', ARGV[4], 86400)
end
"""
)


class Script:
    """A script, and the SHA-1 by which Redis finds it after it was sent once."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        """Keep its text."""
        self.text: str = text
        self.digest: str = sha1(text.encode("ascii"), usedforsecurity=False).hexdigest()


ADD: Final = Script(
    _TOGETHER
    + """
local record = read(KEYS[1])
if alive(record, ARGV[2]) then return 0 end
if record then drop(KEYS[1], record) end
put_indexed(KEYS[1])
announce(KEYS[1])
return 1
"""
)
REPLACE: Final = Script(
    _TOGETHER
    + """
local record = read(KEYS[1])
if not alive(record, ARGV[2]) or record.value ~= ARGV[9] then return 0 end
drop(KEYS[1], record)
put_indexed(KEYS[1])
announce(KEYS[1])
return 1
"""
)
DELETE: Final = Script(
    _TOGETHER
    + """
local record = read(KEYS[1])
if not record then return false end
drop(KEYS[1], record)
announce(KEYS[1])
return alive(record, ARGV[2]) and record.raw
"""
)
FIND: Final = Script(
    _GET
    + """
local found = {}
for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local raw = get(key)
  if raw then found[#found + 1] = key; found[#found + 1] = raw end
end
return found
"""
)

# In a cluster a script sees one slot: that of a record, or that of an index.
ADD_ALONE: Final = Script(
    _RECORDS
    + """
if alive(read(KEYS[1]), ARGV[2]) then return 0 end
put(KEYS[1], ARGV[5], ARGV[6])
return 1
"""
)
REPLACE_ALONE: Final = Script(
    _RECORDS
    + """
local record = read(KEYS[1])
if not alive(record, ARGV[2]) or record.value ~= ARGV[9] then return 0 end
put(KEYS[1], ARGV[5], ARGV[6])
return 1
"""
)
# Returns the owner too, in whose index the key is left.
DELETE_ALONE: Final = Script(
    _RECORDS
    + """
local record = read(KEYS[1])
if not record then return {false, false} end
redis.call('DEL', KEYS[1])
return {alive(record, ARGV[2]) and record.raw, record.owner or false}
"""
)
# Arguments: as above, but 3 is the key of the record and 4 its expiry.
INDEX_ALONE: Final = Script(
    _INDEXES
    + """
index(KEYS[1], ARGV[3], ARGV[4])
return 1
"""
)


def pack(record: Record) -> bytes:
    """Return the bytes of a record in Redis."""
    owner = None if record.owner is None else encode_name(record.owner)
    expires_at = inf if record.expires_at is None else record.expires_at
    return _HEAD.pack(expires_at, 0 if owner is None else len(owner) + 1) + (owner or b"") + record.value


def read_record(key: str, raw: bytes | None, now: float) -> Record | None:
    """Return the record under ``key``, ``None`` where it has expired.

    Raises:
        UnreadableRecord: The bytes are not those of a record.
    """
    if raw is None:
        return None
    expires_at, length = _HEAD.unpack_from(raw) if len(raw) >= _HEAD.size else (nan, 0)
    if isnan(expires_at):
        raise _unreadable(Record(key, raw))
    if expires_at <= now:
        return None
    start = _HEAD.size + max(0, length - 1)
    record = Record(key, raw[start:], None, None if expires_at == inf else expires_at)
    try:
        return replace(record, owner=decode_name(raw[_HEAD.size : start])) if length else record
    except ValueError:
        pass
    raise _unreadable(record)


def record_to_end(key: str, raw: bytes | None, now: float, owner: str | None = None) -> Record | None:
    """Return the record under ``key`` as ``read_record`` does, also one that cannot be read, as it can be replaced.

    So nothing keeps it, and the others of its ``owner``, from ending.
    """
    try:
        return read_record(key, raw, now)
    except UnreadableRecord as error:
        return replace(cast("Record", error.record), owner=owner)


def _unreadable(record: Record) -> UnreadableRecord:
    logger.warning("a record in Redis cannot be read: another application uses the same prefix")
    error = UnreadableRecord()
    error.record = record
    return error
