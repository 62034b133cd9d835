"""The other process of a test: verifies the keys that come on its standard input, and answers with what it found."""

import asyncio
import sys

from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import AuthError
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth


async def main(url: str, cache_ttl: float) -> None:
    """Answer each line: `accepted`, or the reason of the refusal."""
    if make_url(url).get_dialect().is_async:
        keys = DatabaseAPIKeyAuth(async_sessionmaker(create_async_engine(url)), cache_ttl=cache_ttl)
    else:
        keys = DatabaseAPIKeyAuth(sessionmaker(create_engine(url)), cache_ttl=cache_ttl)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            await keys.verify(line.strip())
            print("accepted", flush=True)  # noqa: T201
        except AuthError as error:
            print(error.reason, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
