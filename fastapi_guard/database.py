"""A piece of work in a database session, whether the application's sessions are synchronous or asynchronous."""

from collections.abc import Callable
from typing import Any, TypeVar

from anyio.to_thread import run_sync

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable

try:
    from sqlalchemy import Engine
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import SingletonThreadPool
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

ResultT = TypeVar("ResultT")

# What a sessionmaker and an async_sessionmaker have in common: called without arguments, each gives a session.
SessionFactory = Callable[[], Any]

# Transactions of a stricter isolation that met (PostgreSQL, appendix A): what to do is to do it again.
_MET = frozenset({"40001", "40P01"})
_ATTEMPTS = 5


def check_factory(sessions: SessionFactory) -> None:
    """Refuse what is no factory of sessions, or is one of a database that is another in each thread.

    Raises:
        ConfigurationError: It is an engine or a URL, or is bound to SQLite in memory without a pool that shares it.
    """
    if not callable(sessions):
        msg = f"pass a factory, sessionmaker(engine) or async_sessionmaker(engine), not {type(sessions).__name__}"
        raise ConfigurationError(msg)
    bind = getattr(sessions, "kw", {}).get("bind")
    if isinstance(bind, Engine) and isinstance(bind.pool, SingletonThreadPool):
        msg = (
            "this SQLite database is in memory, and another one in each thread: use a file, or create_engine("
            '"sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})'
        )
        raise ConfigurationError(msg)


async def in_session(sessions: SessionFactory, work: Callable[[Session], ResultT]) -> ResultT:
    """Do ``work`` in a session of its own and commit it; a synchronous session works in a thread.

    Work that met another transaction is done again, so it must be free of effects outside of the database.

    Raises:
        ServiceUnavailable: The database cannot be reached, or cannot do it.
        ConfigurationError: ``sessions`` gives no session.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _attempt(sessions, work)
        except DBAPIError as error:
            if attempt == _ATTEMPTS or getattr(error.orig, "sqlstate", None) not in _MET:
                raise ServiceUnavailable(reason="database_unreachable") from error
        except (SQLAlchemyError, OSError) as error:
            raise ServiceUnavailable(reason="database_unreachable") from error
    raise AssertionError  # pragma: no cover - the last attempt returns or raises


async def _attempt(sessions: SessionFactory, work: Callable[[Session], ResultT]) -> ResultT:
    session = sessions()
    if isinstance(session, AsyncSession):
        async with session:
            result = await session.run_sync(work)
            await session.commit()
            return result
    if isinstance(session, Session):
        return await run_sync(_in_thread, session, work)
    msg = f"pass a sessionmaker or an async_sessionmaker, which gives a session, not a {type(session).__name__}"
    raise ConfigurationError(msg)


def _in_thread(session: Session, work: Callable[[Session], ResultT]) -> ResultT:
    with session:
        result = work(session)
        session.commit()
        return result
