"""Verify keys in another process: what is sent to it is a key, or the seconds by which its clock moves."""

import asyncio
import time
from multiprocessing.connection import Connection

from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import AuthError
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth


class Clock:
    """The time when the process started, and what it was moved by."""

    def __init__(self) -> None:
        """Start now."""
        self.now = time.time()

    def __call__(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self.now


async def verify_keys(connection: Connection, url: str, cache_ttl: float) -> None:
    """Send back for each key ``accepted`` or the reason of the refusal, and for seconds ``moved``; None is the end."""
    clock = Clock()
    # As long as this process lives, it reads the changes of others once.
    options = {"cache_ttl": cache_ttl, "fresh_within": cache_ttl or None}
    if make_url(url).get_dialect().is_async:
        factory = async_sessionmaker(create_async_engine(url))
        keys = DatabaseAPIKeyAuth(factory, clock=clock, **options)
    else:
        keys = DatabaseAPIKeyAuth(sessionmaker(create_engine(url)), clock=clock, **options)
    while (sent := await asyncio.to_thread(connection.recv)) is not None:
        if isinstance(sent, str):
            try:
                await keys.verify(sent)
                outcome = "accepted"
            except AuthError as error:
                outcome = error.reason
        else:
            clock.now += sent
            outcome = "moved"
        connection.send(outcome)


def main(connection: Connection, url: str, cache_ttl: float) -> None:
    """Verify keys until None is sent."""
    asyncio.run(verify_keys(connection, url, cache_ttl))
