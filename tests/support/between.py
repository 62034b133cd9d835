"""A server between a client and a real server, which holds answers back or breaks connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL


class Between:
    """Passes on what is sent and answered, with the faults that the test sets.

    Attributes:
        port: Where it listens.
        halves: How many of the next answers to cut in half, with the end of their connection.
        passes: Whether what clients send is passed on; until then it is held back.
        held: How many messages of clients are held back.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        """Open a connection to the real server with `connect` for each that is accepted."""
        self.port = 0
        self.halves = self.held = 0
        self.passes = asyncio.Event()
        self.passes.set()
        self._connect = connect
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Between"]:
        """Listen while the block runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            self.passes.set()
            remaining = asyncio.gather(*self._connections, return_exceptions=True)
            remaining.cancel()
            await asyncio.wait([remaining])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._passed_on(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _passed_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, sending = await self._connect()
        asking = asyncio.create_task(self._pass_on(reader, sending))
        try:
            await self._answer(upstream, writer)
        finally:
            asking.cancel()
            for stream in (sending, writer):
                stream.close()

    async def _answer(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer := await upstream.read(65536):
            if self.halves:
                self.halves -= 1
                writer.write(answer[: len(answer) // 2])
                await writer.drain()
                break
            writer.write(answer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.held += 1
            await self.passes.wait()
            self.held -= 1
            writer.write(data)
        writer.close()


def before_redis(url: str) -> Between:
    """Return one before the Redis at `url`."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    return Between(lambda: asyncio.open_connection("127.0.0.1", port))


def before_postgres(url: URL) -> Between:
    """Return one before the PostgreSQL at `url`, on a Unix socket."""
    return Between(lambda: asyncio.open_unix_connection(f"{url.query['host']}/.s.PGSQL.{url.port or 5432}"))
