"""Two objects for one database, table and prefix are one store: Auths of one name on them are refused."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel
from sqlalchemy import MetaData, create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login import RefreshTokens, SessionAuth
from fastapi_guard.login.login import Login
from fastapi_guard.stores import MemoryStore
from fastapi_guard.stores.places import place_of
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.redis_cluster import RedisClusterStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore, records_table

KEY = OctKey.generate_key(256)
HOLDERS: dict[str, Callable[[Any], object]] = {
    "sessions": SessionAuth,
    "refresh tokens": RefreshTokens,
    "logins": lambda store: Login({}, store),
    "tickets": lambda store: TicketAuth(store, JWTAuth(JWTConfig(key=KEY))),
}


def on_sql(url: str, **options: Any) -> SQLAlchemyStore:
    """Return a store on an engine of its own, which does not connect."""
    return SQLAlchemyStore(sessionmaker(create_engine(url)), **options)


def on_redis(url: str, **options: Any) -> RedisStore:
    """Return a store with a client of its own, which does not connect."""
    return RedisStore(Redis.from_url(url), **options)


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("kind", ["sql", "redis", "redis by URL"])
def test_two_stores_of_one_place(holder: str, kind: str, tmp_path: Path) -> None:
    """Two Auths of one name are refused while the first is in use; another prefix is another place."""
    url = f"sqlite:///{tmp_path}/a.db" if kind == "sql" else "redis://127.0.0.1:1/3"
    opened: Callable[..., Any] = {"sql": on_sql, "redis": on_redis, "redis by URL": RedisStore.from_url}[kind]
    first = HOLDERS[holder](opened(url))
    with pytest.raises(ConfigurationError, match=r"on one store would accept each other's records"):
        HOLDERS[holder](opened(url))
    assert HOLDERS[holder](opened(url, prefix="other:"))
    assert len([HOLDERS[holder](MemoryStore()) for _ in range(2)]) == 2
    del first
    gc.collect()
    assert HOLDERS[holder](opened(url))


def test_the_place_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server, database, table and prefix count; driver, user and password do not."""
    monkeypatch.chdir(tmp_path)
    file = on_sql(f"sqlite:///{tmp_path}/a.db")
    assert place_of(file) == place_of(on_sql("sqlite:///a.db")) == place_of(on_sql("sqlite:///file:a.db?uri=true"))
    by_aiosqlite = SQLAlchemyStore(async_sessionmaker(create_async_engine("sqlite+aiosqlite:///a.db")))
    assert place_of(by_aiosqlite) == place_of(file)
    assert place_of(on_sql("sqlite:///b.db")) != place_of(file)
    assert place_of(on_sql("sqlite:///a.db", table=records_table(MetaData(), "others"))) != place_of(file)
    server = on_sql("postgresql+psycopg://ada:hunter2-hunter2@localhost/shop")
    for url in (
        "postgresql+psycopg://eve@127.0.0.1:5432/shop",
        "postgresql+psycopg:///shop?host=/run/postgresql&port=5432",
        "postgresql+psycopg://[::1]/shop?sslmode=require",
    ):
        assert place_of(on_sql(url)) == place_of(server), url
    for url in (
        "postgresql+psycopg://localhost:5433/shop",
        "postgresql+psycopg://db.example/shop",
        "postgresql+psycopg://localhost/other",
        "postgresql+psycopg://localhost/shop?options=-csearch_path%3Dother",
    ):
        assert place_of(on_sql(url)) != place_of(server), url
    assert "hunter2" not in repr(place_of(server))
    assert "ada" not in repr(place_of(server))
    engine = create_engine("postgresql+psycopg://localhost/shop").execution_options(schema_translate_map={None: "a"})
    assert place_of(SQLAlchemyStore(sessionmaker(engine))) != place_of(server)


def test_the_place_of_a_database_without_a_name() -> None:
    """A database in memory is that of its engine; a factory without an engine is its own place until it has one."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    one, other = SQLAlchemyStore(sessionmaker(engine)), SQLAlchemyStore(sessionmaker(engine))
    assert place_of(one) == place_of(other)
    again = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    assert place_of(SQLAlchemyStore(sessionmaker(again))) != place_of(one)
    for url in ("sqlite:///file:a?mode=memory&cache=shared&uri=true", "sqlite:///file::memory:?cache=shared&uri=true"):
        one, other = (SQLAlchemyStore(sessionmaker(create_engine(url, poolclass=StaticPool))) for _ in range(2))
        assert place_of(one) != place_of(other)
    factory = sessionmaker()
    later = SQLAlchemyStore(factory)
    stored = SQLAlchemyStore(sessionmaker(engine))
    held, first = SessionAuth(later), SessionAuth(stored)
    factory.configure(bind=engine)
    assert place_of(later) == place_of(stored)
    with pytest.raises(ConfigurationError, match="one store"):
        SessionAuth(later)
    assert held is not first


async def test_the_place_of_a_redis(tmp_path: Path) -> None:
    """Server, database and prefix count; user and password do not. A callable is a place of its own."""
    server = on_redis("redis://:hunter2-hunter2@localhost:6379/0")
    assert "hunter2" not in repr(place_of(server))
    assert "hunter2" not in repr(place_of(RedisStore.from_url("redis://:hunter2-hunter2@db.example/0")))
    assert place_of(on_redis("redis://127.0.0.1")) == place_of(server)
    assert place_of(RedisStore.from_url("rediss://ada:secret@LOCALHOST")) == place_of(server)
    for url in ("redis://localhost/1", "redis://localhost:6380", "redis://db.example", f"unix://{tmp_path}/redis"):
        assert place_of(on_redis(url)) != place_of(server), url
    assert place_of(on_redis(f"unix://{tmp_path}/redis")) == place_of(on_redis(f"unix://{tmp_path}/./redis"))
    assert place_of(RedisStore(Redis)) == place_of(RedisStore(Redis)) != place_of(server)
    watched = [
        Sentinel([("a.example", 26379), ("b.example", 26379)]),
        Sentinel([("b.example", 26379), ("a.example", 26379)]),
    ]
    one, other = (RedisStore(sentinel.master_for("main", db=2)) for sentinel in watched)
    assert place_of(one) == place_of(other) != place_of(RedisStore(watched[0].master_for("other", db=2)))
    clusters = [RedisCluster(host=host, port=7000) for host in ("127.0.0.1", "localhost", "c.example")]
    here, same, elsewhere = (RedisClusterStore(cluster) for cluster in clusters)
    assert place_of(here) == place_of(same) != place_of(elsewhere)
    assert place_of(RedisClusterStore(clusters[0], prefix="other:")) != place_of(here)
