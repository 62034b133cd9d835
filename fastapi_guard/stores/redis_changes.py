"""Changes of records in Redis, read from a stream. Needs the extra ``redis``."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

# More entries than these are not read: then anything may have changed.
MOST_ENTRIES: Final = 1000
_BEGIN: Final = b"0-0"

Command = Callable[..., Awaitable[Any]]


class StreamChanges:
    """A position in the stream of changes of a store.

    The entry at the position is read again each time. If it is missing, the stream was trimmed, has expired, or is that
    of another primary: then anything may have changed.
    """

    def __init__(self, execute: Command, stream: bytes, decode: Callable[[bytes], str]) -> None:
        """Read ``stream``.

        Args:
            execute: Executes a command of Redis; raises ServiceUnavailable.
            stream: Its key.
            decode: Returns the key of a record, from that in Redis.
        """
        self._execute = execute
        self._stream = stream
        self._decode = decode
        self._last: bytes | None = None

    async def read(self) -> Collection[str] | None:
        """Return the keys in the entries since the last call; see ``stores.changes.Changes``.

        Raises:
            ServiceUnavailable: Redis is unreachable.
        """
        last = self._last
        if last is None:
            await self._restart()
            return None
        entries = await self._execute("XRANGE", self._stream, last, "+", "COUNT", MOST_ENTRIES + 2)
        is_there = last == _BEGIN or (bool(entries) and entries[0][0] == last)
        new = entries if last == _BEGIN else entries[1:]
        if not is_there or len(new) > MOST_ENTRIES:
            await self._restart()
            return None
        if new:
            self._last = new[-1][0]
        return {self._decode(fields[b"key"]) for _, fields in new}

    async def _restart(self) -> None:
        newest = await self._execute("XREVRANGE", self._stream, "+", "-", "COUNT", 1)
        self._last = newest[0][0] if newest else _BEGIN
