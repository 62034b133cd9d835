"""One of two processes of a test: it sends tickets to applications of its own when it is told to."""

import asyncio
from collections.abc import Sequence
from multiprocessing.connection import Connection

from fastapi import FastAPI
from joserfc import jwk

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.app.tickets import TicketAuth
from support.asgi import endpoint, exchange
from support.other_process import store_at


async def send_tickets(
    connection: Connection, prefix: str, urls: Sequence[str]
) -> None:  # pragma: no cover - another process, where nothing is measured
    """Send each ticket to the application on the store of its number, and report the status."""
    maker = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), name="maker")
    apps = []
    for url in urls:
        app = FastAPI()
        tickets = TicketAuth(store_at(url, prefix), maker)
        app.get("/file", dependencies=[tickets.requires("a")])(endpoint)
        apps.append(app)
        # A ticket that is unknown, so that the store is connected.
        await exchange(app, "/file", query=b"ticket=" + b"a" * 43 + b".e30")
    connection.send("ready")
    while received := await asyncio.to_thread(connection.recv):
        number, ticket = received
        answer = await exchange(apps[number], "/file", query=b"ticket=" + ticket.encode())
        connection.send(answer.status)


def main(connection: Connection, prefix: str, urls: Sequence[str]) -> None:  # pragma: no cover - as above
    """Send the tickets."""
    asyncio.run(send_tickets(connection, prefix, urls))
