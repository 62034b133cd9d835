"""Applications that are served under load, by name: routes of the benchmarks, and the demo."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from starlette.types import ASGIApp

from benchmarks import core
from benchmarks.harness import PATH, application
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.cli import database
from fastapi_guard.cli import demo as command
from fastapi_guard.stores.database import SessionFactory

demo = command.load_example()
CONNECTIONS = 10
ALGORITHMS = ("HS256", "RS256")
LIBRARIES = ("fastapi_guard", "fastapi-views", "authx", "PyJWT")
KEYS = "API keys, PostgreSQL"
DEMO, DEMO_KEY, DEMO_DATABASE = "demo: JWT, SQLite", "demo: one API key", "demo: API keys, PostgreSQL"
COMPARED = (
    core.BARE,
    *(f"{algorithm} {library}" for algorithm in ALGORITHMS for library in LIBRARIES),
    KEYS,
    DEMO,
    DEMO_KEY,
    DEMO_DATABASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """An application, and the request that it is loaded with.

    Attributes:
        app: What is served.
        path: What is asked for.
        credential: The Authorization value; empty: none is sent.
        login: The form that gets one at `/token`, where it takes a login.
    """

    app: ASGIApp
    path: str = PATH
    credential: str = ""
    login: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """Servers and folders that an application may need.

    Attributes:
        postgres: The URL of a PostgreSQL database.
        folder: For files.
    """

    postgres: str
    folder: Path


def create(name: str, around: Surroundings) -> Application:
    """Return the application of this name, one of COMPARED."""
    if name in _OWN:
        return _OWN[name](around)
    algorithm = name.partition(" ")[0]
    key = core.new_key(algorithm)
    variants = {variant.name: variant for variant in (*core.ours(algorithm, key), *core.theirs(algorithm, key))}
    return Application(app=variants[name].app, credential=variants[name].credential or "")


def _bare(_: Surroundings) -> Application:
    return Application(app=application())


def _form(username: str) -> dict[str, str]:
    return {"username": username, "password": demo.PASSWORDS[username]}


def _api_keys(around: Surroundings) -> Application:
    async def new_key(sessions: SessionFactory) -> str:
        return (await DatabaseAPIKeyAuth(sessions).create(user_id="user-1", scopes=["items:read"])).raw

    key = database.run(around.postgres, new_key, create_tables=True)
    auth = DatabaseAPIKeyAuth(async_sessionmaker(create_async_engine(around.postgres)))
    return Application(app=application(auth.requires("items:read")), credential=f"Bearer {key}")


def _demo(around: Surroundings) -> Application:
    app = command.behind_a_login(f"sqlite+aiosqlite:///{around.folder / 'demo.db'}")[0]
    return Application(app=app, path="/me", login=_form("grace"))


def _demo_key(_: Surroundings) -> Application:
    app = command.behind_a_key("sk-demo-0123456789abcdef")[0]
    return Application(app=app, path="/me", credential="Bearer sk-demo-0123456789abcdef")


def _demo_database(around: Surroundings) -> Application:
    app = command.behind_a_database(around.postgres, "")[0]
    return Application(app=app, path="/me", credential=f"Bearer {database.run(around.postgres, demo.create_key)}")


_OWN: dict[str, Callable[[Surroundings], Application]] = {
    core.BARE: _bare,
    KEYS: _api_keys,
    DEMO: _demo,
    DEMO_KEY: _demo_key,
    DEMO_DATABASE: _demo_database,
}
