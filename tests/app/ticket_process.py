"""One of two processes of a test: sends a ticket to an application of its own when it is told to."""

import asyncio
import sys

from fastapi import FastAPI
from joserfc import jwk

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.app.tickets import TicketAuth
from support.asgi import exchange
from support.other_process import store_at


async def main(prefix: str, urls: list[str]) -> None:  # pragma: no cover - another process, where nothing is measured
    """Send each ticket on standard input to the application on the store of its line, and print the status."""
    maker = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), name="maker")
    apps = []
    for url in urls:
        app = FastAPI()
        app.get("/file", dependencies=[TicketAuth(store_at(url, prefix), maker).requires("a")])(lambda: None)
        apps.append(app)
        await exchange(app, "/file", query=b"ticket=" + b"a" * 43 + b".e30")
    print("ready", flush=True)  # noqa: T201 - to the parent
    while line := await asyncio.to_thread(sys.stdin.readline):
        number, ticket = line.split()
        answer = await exchange(apps[int(number)], "/file", query=b"ticket=" + ticket.encode())
        print(answer.status, flush=True)  # noqa: T201 - to the parent


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
