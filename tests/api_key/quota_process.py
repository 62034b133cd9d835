"""One of several processes of a test: it sends requests with a key at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection

from fastapi import FastAPI
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.stores import Store
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.asgi import endpoint, exchange


@asynccontextmanager
async def auth_on(url: str, store_url: str | None) -> AsyncIterator[DatabaseAPIKeyAuth]:
    """Yield an Auth on a database, with its counts in Redis or in that database."""
    if make_url(url).get_dialect().is_async:
        engine = create_async_engine(url)
        factory = async_sessionmaker(engine)
    else:
        sync = create_engine(url)
        factory = sessionmaker(sync)  # type: ignore[assignment]
    store: Store = SQLAlchemyStore(factory) if store_url is None else RedisStore.from_url(store_url)
    keys = DatabaseAPIKeyAuth(factory, usage=store)
    yield keys
    await keys.aclose()


async def send_at_once(connection: Connection, url: str, store_url: str | None, raw: str, number: int) -> None:
    """Report that it is ready, wait for a word, send so many requests at once, and report the statuses."""
    async with auth_on(url, store_url) as keys:
        app = FastAPI()
        app.get("/", dependencies=[keys.authenticated()])(endpoint)
        headers = [(b"authorization", b"Bearer " + raw.encode())]
        connection.send("ready")
        await asyncio.to_thread(connection.recv)
        answers = await asyncio.gather(*(exchange(app, "/", headers) for _ in range(number)))
        connection.send([answer.status for answer in answers])


def main(connection: Connection, url: str, store_url: str | None, raw: str, number: int) -> None:
    """Send the requests."""
    asyncio.run(send_at_once(connection, url, store_url, raw, number))
