"""Serve one route behind one guard, of this version or of 0.1.0, in the Python that this file is run with.

It imports nothing of the tests, so that an environment with an older version can run it. It prints a line of JSON: the
URL, and the header fields that are accepted.
"""

import argparse
import asyncio
import gc
import importlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request, Response, params
from joserfc import jwk
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from fastapi_guard import JWTAuth, JWTConfig, StaticAPIKeyAuth
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base
from fastapi_guard.stores import MemoryStore

PATH, SCOPE = "/items", "items:read"
CACHE = {"cache_ttl": 300, "cache_size": 100_000}
# How many different credentials are sent, so that requests in flight are not for the same one.
CREDENTIALS = 200
NOWHERE = Request({"type": "http", "method": "POST", "headers": []})
# Modules that moved since 0.1.0.
MOVED = {
    "fastapi_guard.login.session": "fastapi_guard.session",
    "fastapi_guard.login.revocation": "fastapi_guard.revocation",
}

Headers = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The guard to serve, and its state.

    Attributes:
        kind: `bare`, `jwt`, `key`, `session` or `revocable`.
        place: `none`, `memory`, `postgres`, `redis` or `sqlite`.
        cached: Whether with `cache_ttl`.
        tuned: Whether with `tune_gc`.
        credentials: How many different ones are sent.
        rows: How many API keys there are beside them.
        pool: The connections of the pool, without overflow; 0 for the defaults of SQLAlchemy.
        url: Of the database or the Redis.
    """

    kind: str
    place: str
    cached: bool
    tuned: bool
    credentials: int
    rows: int
    pool: int
    url: str


def module(name: str) -> Any:
    """Return a module by its name of today."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return importlib.import_module(MOVED[name])


def application(guard: params.Depends | None, lifespan: Callable[[FastAPI], Any]) -> FastAPI:
    """Return an application with one route."""
    app = FastAPI(lifespan=lifespan)

    async def bare() -> list[str]:
        return ["hammer", "nail"]

    async def guarded(claims: Annotated[Any, guard]) -> list[str]:
        return ["hammer", "nail"]

    app.get(PATH)(bare if guard is None else guarded)
    return app


class Place:
    """The place of the state; it is opened again in each event loop."""

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        """Open nothing yet."""
        self._wanted, self._folder = wanted, folder
        self._memory = MemoryStore()
        self._engines: list[AsyncEngine] = []
        self._closing: list[Callable[[], Any]] = []

    def sessions(self) -> Any:
        """Return a session factory."""
        url = (
            self._wanted.url if self._wanted.place == "postgres" else f"sqlite+aiosqlite:///{self._folder / 'state.db'}"
        )
        pool: dict[str, Any] = {"pool_size": self._wanted.pool, "max_overflow": 0} if self._wanted.pool else {}
        self._engines.append(create_async_engine(url, **pool))
        return async_sessionmaker(self._engines[-1])

    @property
    def engine(self) -> AsyncEngine:
        """The engine that was opened last."""
        return self._engines[-1]

    def store(self) -> Any:
        """Return a store."""
        if self._wanted.place == "memory":
            return self._memory
        # A process has records of its own.
        prefix = f"load-{os.getpid()}:"
        if self._wanted.place == "redis":
            kind = importlib.import_module("fastapi_guard.stores.redis").RedisStore
            store = kind.from_url(self._wanted.url, prefix=prefix)
            self._closing.append(store.aclose)
            return store
        kind = importlib.import_module("fastapi_guard.stores.sqlalchemy").SQLAlchemyStore
        return kind(self.sessions(), prefix=prefix)

    async def close(self) -> None:
        """Close what was opened."""
        for engine in self._engines:
            await engine.dispose()
        for close in self._closing:
            await close()
        self._engines, self._closing = [], []


def signing() -> JWTConfig:
    """Return the configuration of our tokens."""
    key = jwk.OctKey.import_key("load-" + "0123456789abcdef" * 4)
    return JWTConfig(key=key, issuer_url="https://id.example", audience="https://api.example")


def tokens(auth: JWTAuth, count: int) -> Headers:
    """Return tokens of different users."""
    issued = [auth.encode({"sub": f"user-{number}", "scope": SCOPE}) for number in range(count)]
    return [("Authorization", f"Bearer {token}") for token in issued]


async def credentials(wanted: Wanted, place: Place) -> Headers:
    """Return the header fields that are sent, and write down what they need."""
    count = wanted.credentials
    if wanted.kind == "revocable":
        await create_table(place.store())
    if wanted.kind in ("jwt", "revocable"):
        return tokens(JWTAuth(signing()), count)
    if wanted.kind == "session":
        store = place.store()
        await create_table(store)
        sessions = module("fastapi_guard.login.session").SessionAuth(store)
        found = []
        for number in range(count):
            response = Response()
            await sessions.login(response, {"sub": f"user-{number}", "scope": SCOPE}, connection=NOWHERE)
            found.append(("Cookie", response.headers["set-cookie"].partition(";")[0]))
        return found
    if wanted.place == "memory":
        return [("Authorization", f"Bearer {static_key(number)}") for number in range(count)]
    keys = DatabaseAPIKeyAuth(place.sessions())
    if wanted.place == "sqlite":
        # As create_table of a store does.
        async with place.engine.connect() as connection:
            await connection.execute(text("PRAGMA journal_mode = WAL"))
    async with place.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if wanted.rows:
            await connection.execute(text(_MANY_ROWS), {"rows": wanted.rows})
    if wanted.rows:
        async with place.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM ANALYZE api_keys"))
    made = [await keys.create(user_id=f"user-{number}", scopes=[SCOPE]) for number in range(count)]
    return [("Authorization", f"Bearer {key.raw}") for key in made]


async def create_table(store: Any) -> None:
    """Create the table of a store that has one."""
    if hasattr(store, "create_table"):
        await store.create_table()


# Keys that no client has, so that the index is as large as with so many keys.
_MANY_ROWS = """
INSERT INTO api_keys (
  key_id, name, subject_type, user_id, is_admin, scopes, metadata, outlives_maker, salt, digest, created_at
)
SELECT md5(number::text), '', 'user', 'user-' || number, false, '["items:read"]', '{}', false,
       decode(md5(number::text), 'hex'), decode(md5('a' || number) || md5('b' || number), 'hex'), now()
FROM generate_series(1, :rows) AS number
"""


def static_key(number: int) -> str:
    """Return a key of a mapping."""
    return f"sk-load-{number:04d}-0123456789abcdef0123456789abcdef"


def guard_of(wanted: Wanted, place: Place) -> params.Depends | None:
    """Return what guards the route."""
    cache: dict[str, Any] = CACHE if wanted.cached else {}
    if wanted.kind == "bare":
        return None
    if wanted.kind == "jwt":
        return JWTAuth(signing()).requires(SCOPE)
    if wanted.kind == "key" and wanted.place == "memory":
        users = {
            static_key(number): {"user_id": f"user-{number}", "scopes": [SCOPE]} for number in range(wanted.credentials)
        }
        return StaticAPIKeyAuth(users).requires(SCOPE)
    if wanted.kind == "key":
        return DatabaseAPIKeyAuth(place.sessions(), **cache).requires(SCOPE)
    store = place.store()
    if wanted.kind == "session":
        auth = module("fastapi_guard.login.session").SessionAuth(store, **cache)
        guard: params.Depends = auth.requires(SCOPE)
        return guard
    revocations = module("fastapi_guard.login.revocation").Revocations(store, **cache)
    return JWTAuth(signing(), revocations=revocations).requires(SCOPE)


def serve(wanted: Wanted, listening: socket.socket, folder: Path) -> None:
    """Serve until the process is terminated."""
    place = Place(wanted, folder)

    async def prepared() -> Headers:
        sent = [("", "")] if wanted.kind == "bare" else await credentials(wanted, place)
        await place.close()
        return sent

    # In another event loop than that of the server, and so on other connections.
    sent = asyncio.run(prepared())
    guard = guard_of(wanted, place)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if wanted.tuned:
            importlib.import_module("fastapi_guard.app").tune_gc()
        else:
            gc.collect()
        yield

    app = application(guard, lifespan)
    if wanted.pool:
        count_statements(app, place.engine)
    print(json.dumps({"url": f"http://127.0.0.1:{listening.getsockname()[1]}", "sent": sent}), flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


def count_statements(app: FastAPI, engine: AsyncEngine) -> None:
    """Serve the number of SELECTs and of other statements at `/statements`."""
    counted = {"select": 0, "other": 0}

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        counted["select" if statement.startswith("SELECT") else "other"] += 1

    event.listen(engine.sync_engine, "before_cursor_execute", note)

    @app.get("/statements")
    async def statements() -> dict[str, int]:
        return counted


def main() -> None:
    """Serve what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("place")
    parser.add_argument("--url", default="")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--credentials", type=int, default=CREDENTIALS)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--pool", type=int, default=0)
    parser.add_argument("--core", type=int)
    options = vars(parser.parse_args())
    core = options.pop("core")
    if core is not None:
        os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        serve(Wanted(**options), listening, Path(folder))


if __name__ == "__main__":
    main()
