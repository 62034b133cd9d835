"""A process that rotates a refresh token, and is killed at a step of it."""

import asyncio
import os
import signal
from collections.abc import Awaitable
from multiprocessing.connection import Connection
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore


class DyingStore(SQLAlchemyStore):
    """A store whose process is killed before or after a call, such as ``before replace``."""

    moment = ""

    async def get(self, *keys: str) -> Any:
        """Get records."""
        return await self._step("get", super().get(*keys))

    async def replace(self, *arguments: Any) -> Any:
        """Replace a record."""
        return await self._step("replace", super().replace(*arguments))

    async def _step(self, name: str, call: Awaitable[Any]) -> Any:
        self._die_at(f"before {name}")
        result = await call
        self._die_at(f"after {name}")
        return result

    def _die_at(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def main(_: Connection, path: str, token: str, moment: str) -> None:
    """Rotate a token in the database at ``path``."""
    store = DyingStore(async_sessionmaker(create_async_engine(f"sqlite+aiosqlite:///{path}")))
    store.moment = moment
    asyncio.run(RefreshTokens(store).rotate(token))
