"""The databases of the contract: SQLite and PostgreSQL, through sync and async SQLAlchemy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base

ResultT = TypeVar("ResultT")

DRIVERS = {
    "sqlite-sync": "sqlite",
    "sqlite-async": "sqlite+aiosqlite",
    "postgres-sync": "postgresql+psycopg",
    "postgres-async": "postgresql+asyncpg",
}


@dataclass(frozen=True)
class Database:
    """A database with the tables of the keys, and the factory of its sessions."""

    engine: Engine | AsyncEngine
    factory: Any
    auths: list[DatabaseAPIKeyAuth] = field(default_factory=list)

    @classmethod
    def of(cls, url: URL, **options: Any) -> "Database":
        """Return the database at a URL, sync or async as its driver is."""
        if url.get_dialect().is_async:
            engine = create_async_engine(url, **options)
            return cls(engine, async_sessionmaker(engine))
        sync = create_engine(url, **options)
        return cls(sync, sessionmaker(sync))

    @property
    def sync_engine(self) -> Engine:
        """The sync engine, on which events are listened for."""
        return self.engine.sync_engine if isinstance(self.engine, AsyncEngine) else self.engine

    def auth(self, **options: Any) -> DatabaseAPIKeyAuth:
        """Return an Auth on this database, with a deadline that no busy machine reaches."""
        self.auths.append(DatabaseAPIKeyAuth(self.factory, **{"timeout": 60, **options}))
        return self.auths[-1]

    async def within(self, work: Callable[[Session], ResultT]) -> ResultT:
        """Return what `work` returns, in a session that is committed."""

        def committed(session: Session) -> ResultT:
            with session:
                result = work(session)
                session.commit()
                return result

        if isinstance(self.engine, AsyncEngine):
            async with AsyncSession(self.engine) as session:
                return await session.run_sync(committed)
        return await run_in_threadpool(committed, Session(self.engine))

    async def create_tables(self) -> None:
        """Drop and create the tables."""
        await self.within(lambda session: Base.metadata.drop_all(session.connection()))
        await self.within(lambda session: Base.metadata.create_all(session.connection()))

    async def dispose(self) -> None:
        """Close every connection, also that of a use that is still written."""
        for keys in self.auths:
            await keys.aclose()
        if isinstance(self.engine, AsyncEngine):
            await self.engine.dispose()
        else:
            self.engine.dispose()

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Collect the statements that are executed meanwhile, also those on an engine beside an async one of SQLite."""
        seen: list[str] = []

        def note(connection: object, cursor: object, statement: str, *_: object) -> None:
            if not statement.startswith("PRAGMA"):
                seen.append(statement)

        event.listen(Engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(Engine, "before_cursor_execute", note)
