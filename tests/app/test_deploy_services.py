"""The stores, databases and issuers of an application, checked on real ones."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from fastapi import Depends, FastAPI
from limits.aio.storage import MemoryStorage
from redis.asyncio import RedisCluster
from sqlalchemy import URL, Engine, StaticPool, create_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard.app import deploy_services
from fastapi_guard.app.deploy import Deployment
from fastapi_guard.app.deploy_services import service_findings
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.stores import Store
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.redis_cluster import RedisClusterStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.asgi import endpoint
from support.redis import free_port, running_redis


def app_on(store: Store) -> FastAPI:
    """Return an application with sessions in a store."""
    app = FastAPI(openapi_url=None)
    app.get("/", dependencies=[SessionAuth(store).authenticated()])(endpoint)
    return app


async def found(app: FastAPI, workers: int | None = 1) -> list[tuple[str, str, str]]:
    """Return the findings of an application's services in short."""
    findings = await service_findings(Deployment.of(app, workers))
    return [(finding.check, finding.severity, finding.message) for finding in findings]


def assert_unreachable(findings: list[tuple[str, str, str]], text: str) -> None:
    """Check that a store that cannot be reached is the one finding."""
    ((check, severity, message),) = findings
    assert (check, severity, message.startswith(text)) == ("store", "error", True)


OnDatabase = Callable[..., SQLAlchemyStore]


@pytest.fixture
def on_sqlite() -> Iterator[OnDatabase]:
    """Return a function that opens a store on SQLite."""
    engines: list[Engine] = []

    def opened(url: str, **options: Any) -> SQLAlchemyStore:
        engines.append(create_engine(url, **options))
        return SQLAlchemyStore(sessionmaker(engines[-1]))

    yield opened
    for engine in engines:
        engine.dispose()


ONE_HOST = "SQLite serves the workers of one host alone, and one of them writes at a time"


async def test_sqlite(tmp_path: Path, on_sqlite: OnDatabase) -> None:
    """A file is for one host, a missing table an error, and a database in memory an error too."""
    store = on_sqlite(f"sqlite:///{tmp_path}/records.db")
    missing = ("store", "error", "a SQLAlchemyStore cannot be reached: no such table: fastapi_guard_records")
    assert await found(app_on(store)) == [missing, ("sqlite", "info", ONE_HOST)]
    await store.create_table()
    assert await found(app_on(on_sqlite(f"sqlite:///{tmp_path}/records.db")), 2) == [("sqlite", "warning", ONE_HOST)]
    memory = on_sqlite("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    await memory.create_table()
    text = "the database is SQLite in memory: lost at a restart, and another one in each worker"
    assert await found(app_on(memory)) == [("sqlite", "error", text)]


@pytest.fixture
def on_postgres() -> Iterator[OnDatabase]:
    """Return a function that makes a store on PostgreSQL, whose connections are closed in the end."""
    engines: list[Engine] = []

    def made(url: URL, **options: Any) -> SQLAlchemyStore:
        engines.append(create_engine(url.set(drivername="postgresql+psycopg"), **options))
        return SQLAlchemyStore(sessionmaker(engines[-1]))

    yield made
    for engine in engines:
        engine.dispose()


async def test_postgresql(postgres_url: URL, on_postgres: OnDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools are compared with the connections that PostgreSQL allows, and its clock with that of this host."""
    store = on_postgres(postgres_url, pool_size=2, max_overflow=0)
    await store.create_table()
    assert await found(app_on(store), 2) == []
    ((check, severity, text),) = await found(app_on(on_postgres(postgres_url, pool_size=2, max_overflow=0)), 1000)
    assert (check, severity) == ("pool", "error")
    assert text.startswith("the pools of all workers may open 2000 connections, and PostgreSQL allows ")
    burst = "the pool opens and closes overflow connections in bursts"
    assert await found(app_on(on_postgres(postgres_url, pool_size=2))) == [("pool", "warning", burst)]
    for ahead, severity, sign in ((600, "error", "-"), (-600, "error", "+"), (8, "warning", "-")):
        moment = time.time() + ahead
        monkeypatch.setattr(deploy_services, "time", lambda moment=moment: moment)
        (finding,) = await found(app_on(on_postgres(postgres_url, pool_size=2, max_overflow=0)))
        assert finding[:2] == ("clock", severity)
        assert finding[2].startswith(f"the clock of PostgreSQL differs by {sign}")
    moments = iter((time.time() - 600, time.time() + 600))  # before the request and after it
    monkeypatch.setattr(deploy_services, "time", lambda: next(moments))
    assert await found(app_on(on_postgres(postgres_url, pool_size=2, max_overflow=0))) == []


async def test_a_database_that_is_not_there(postgres_url: URL, on_postgres: OnDatabase) -> None:
    """A database that cannot be reached is one finding, that of its store."""
    store = on_postgres(postgres_url.set(database="no_such_database"), max_overflow=0)
    assert_unreachable(await found(app_on(store)), "a SQLAlchemyStore cannot be reached: ")


async def test_a_factory_without_an_engine() -> None:
    """A session factory that is not bound yet has nothing to check but its store, which is not reachable."""
    assert [check for check, _, _ in await found(app_on(SQLAlchemyStore(sessionmaker())))] == ["store"]


async def test_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may not evict records; where its configuration may not be read, that is for a decision."""
    with running_redis(None, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as url:
        store = RedisStore.from_url(url)
        app = app_on(store)
        text = "Redis evicts records (maxmemory-policy allkeys-lru): an evicted revocation is undone"
        assert await found(app) == [("redis-eviction", "error", text)]
        await store._execute("CONFIG SET", "maxmemory-policy", "noeviction")
        assert await found(app) == []
        now = deploy_services.time()
        with monkeypatch.context() as patched:
            patched.setattr(deploy_services, "time", lambda: now - 60)
            ((check, severity, _),) = await found(app)
            assert (check, severity) == ("clock", "error")
        await store._execute("ACL SETUSER", "default", "-config")
        text = "the maxmemory-policy of Redis cannot be read"
        assert await found(app) == [("redis-eviction", "info", text)]
        await store.aclose()


async def test_a_redis_cluster(cluster_ports: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy and the clock of each primary of a cluster are read: a record is on any of them."""
    async with RedisCluster(host="127.0.0.1", port=cluster_ports[0]) as client, AsyncExitStack() as stack:
        app = app_on(RedisClusterStore(client, prefix="deploy:"))
        assert await found(app) == []
        odd = stack.enter_context(redis.Redis(port=cluster_ports[2]))
        stack.callback(odd.config_set, "maxmemory-policy", "noeviction")
        odd.config_set("maxmemory-policy", "volatile-ttl")
        name = f"Redis 127.0.0.1:{cluster_ports[2]}"
        text = f"{name} evicts records (maxmemory-policy volatile-ttl): an evicted revocation is undone"
        assert await found(app) == [("redis-eviction", "error", text)]
        now = deploy_services.time()
        with monkeypatch.context() as patched:
            patched.setattr(deploy_services, "time", lambda: now - 60)
            assert sorted(check for check, _, _ in await found(app)) == [*["clock"] * 3, "redis-eviction"]


async def test_a_redis_cluster_with_little_rights(cluster_ports: list[int]) -> None:
    """Primaries whose configuration may not be read are listed, and none that cannot be reached."""
    async with AsyncExitStack() as stack:
        for port in cluster_ports:
            node = stack.enter_context(redis.Redis(port=port))
            node.acl_setuser("limited", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
            stack.callback(node.acl_deluser, "limited")
        limited = {"host": "127.0.0.1", "port": cluster_ports[0], "username": "limited", "password": "any"}
        client = await stack.enter_async_context(RedisCluster(**limited))
        names = sorted(f"Redis 127.0.0.1:{port}" for port in cluster_ports)
        findings = await found(app_on(RedisClusterStore(client, prefix="limited:")))
        assert sorted(findings) == [
            ("redis-eviction", "info", f"the maxmemory-policy of {name} cannot be read") for name in names
        ]
    gone = RedisCluster(host="127.0.0.1", port=free_port())
    assert_unreachable(await found(app_on(RedisClusterStore(gone))), "a RedisClusterStore cannot be reached: ")
    await gone.aclose()


async def test_a_redis_that_is_not_there() -> None:
    """A Redis that cannot be reached is one finding."""
    async with AsyncExitStack() as stack:
        store = RedisStore.from_url(f"redis://127.0.0.1:{free_port()}")
        stack.push_async_callback(store.aclose)
        assert_unreachable(await found(app_on(store)), "a RedisStore cannot be reached: ")


class SilentStorage(MemoryStorage):
    """A storage that accepts a request and never responds."""

    async def check(self) -> bool:
        """Wait indefinitely."""
        return await asyncio.Event().wait()


async def test_the_storage_of_a_throttle(redis_url: str) -> None:
    """A storage that cannot be reached is one finding, for however many Throttles."""

    def limited(storage: str | MemoryStorage) -> FastAPI:
        app = FastAPI(openapi_url=None)
        for path in ("/a", "/b"):
            throttle = Throttle("5/minute", storage=storage, timeout=0.01 if isinstance(storage, MemoryStorage) else 60)
            app.get(path, dependencies=[Depends(throttle)])(endpoint)
        return app

    unreachable = ("store", "error", "the storage of a Throttle cannot be reached")
    assert await found(limited(redis_url)) == []
    assert await found(limited(f"redis://127.0.0.1:{free_port()}")) == [unreachable]
    assert await found(limited(SilentStorage())) == [unreachable]


async def test_an_issuer() -> None:
    """The keys of an issuer that cannot be fetched are an error."""
    url = f"http://127.0.0.1:{free_port()}/jwks"
    auth = OIDCAuth(issuer="https://issuer.example", audience="api", jwks_uri=url)
    app = FastAPI(openapi_url=None)
    app.get("/", dependencies=[auth.authenticated()])(endpoint)
    ((check, severity, text),) = await found(app)
    assert (check, severity) == ("issuer", "error")
    assert text.startswith(f"the keys at {url} cannot be fetched: ")
    await auth.aclose()


async def test_a_pool_without_a_size() -> None:
    """A pool that keeps no connections counts as none."""
    assert deploy_services._connections(SimpleNamespace(pool=object())) == 0
