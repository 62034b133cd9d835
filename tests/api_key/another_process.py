"""Verify keys in another process: a line of standard input is a key, or the seconds by which its clock moves."""

import asyncio
import sys
import time

from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import AuthError
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth

MOVE = "move "


class Clock:
    """The time when the process started, and what it was moved by."""

    def __init__(self) -> None:
        """Start now."""
        self.now = time.time()

    def __call__(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self.now


async def main(url: str, cache_ttl: float) -> None:
    """Print a line for each line that is read: `accepted`, the reason of a refusal, or `moved`."""
    clock = Clock()
    # As long as this process lives, it reads the changes of others once.
    options = {"cache_ttl": cache_ttl, "fresh_within": cache_ttl or None}
    if make_url(url).get_dialect().is_async:
        factory = async_sessionmaker(create_async_engine(url))
        keys = DatabaseAPIKeyAuth(factory, clock=clock, **options)
    else:
        keys = DatabaseAPIKeyAuth(sessionmaker(create_engine(url)), clock=clock, **options)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line.startswith(MOVE):
            clock.now += float(line.removeprefix(MOVE))
            outcome = "moved"
        else:
            try:
                await keys.verify(line)
                outcome = "accepted"
            except AuthError as error:
                outcome = error.reason
        print(outcome, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
