"""The part of check --deploy that calls the services of an application: stores, databases, issuers."""

from collections.abc import AsyncIterator, Callable
from time import time
from typing import Any, Final

from fastapi_guard.app.deploy import Deployment, Finding, Severity, found, in_order
from fastapi_guard.exceptions import GuardError, ServiceUnavailable

_LINK: Final = "how-to/production.md#state"
_NO_RECORD: Final = "fastapi-guard:check"
_MOST_SKEW_SECONDS: Final = 2.0
_DANGEROUS_SKEW_SECONDS: Final = 10.0
_STORES: Final = ("SQLAlchemyStore", "RedisStore", "RedisClusterStore")
_RESERVED_CONNECTIONS: Final = 10


async def service_findings(deployment: Deployment) -> list[Finding]:
    """Return what the services of an application show, the most severe first."""
    checks: tuple[Callable[[Deployment], AsyncIterator[Finding]], ...] = (
        _stores,
        _throttles,
        _redis,
        _databases,
        _issuers,
    )
    return in_order([finding for check in checks async for finding in check(deployment)])


async def _stores(deployment: Deployment) -> AsyncIterator[Finding]:
    for store in deployment.all(*_STORES):
        try:
            await store.get(_NO_RECORD)
        except ServiceUnavailable as error:
            text = f"a {type(store).__name__} cannot be reached: {error.__cause__}"
            yield found("store", "error", text, "start it, or correct its URL; create its tables by a migration", _LINK)


async def _throttles(deployment: Deployment) -> AsyncIterator[Finding]:
    for windows in deployment.all("StoredWindows"):
        is_reachable = await windows.is_reachable()
        await windows.aclose()
        if not is_reachable:
            text = "the storage of a Throttle cannot be reached"
            yield found("store", "error", text, "start it, or correct its URL", _LINK)


async def _redis(deployment: Deployment) -> AsyncIterator[Finding]:
    for store in deployment.all("RedisStore", "RedisClusterStore"):
        before = time()
        try:
            servers = await store.servers()
        except ServiceUnavailable:
            continue  # not reachable, which has its finding
        for name, now, policy in servers:
            for finding in _clock(name, now, before):
                yield finding
            if policy is None:
                text = f"the maxmemory-policy of {name} cannot be read"
                yield found("redis-eviction", "info", text, "make sure that it is noeviction", _LINK)
            elif policy != "noeviction":
                text = f"{name} evicts records (maxmemory-policy {policy}): an evicted revocation is undone"
                yield found("redis-eviction", "error", text, "set maxmemory-policy noeviction", _LINK)


async def _databases(deployment: Deployment) -> AsyncIterator[Finding]:
    engines: dict[int, Any] = {}
    for sessions in deployment.all("Sessions"):
        if sessions.engine is not None:
            engines.setdefault(id(sessions.engine), sessions)
    for sessions in engines.values():
        engine = sessions.engine
        for finding in _pool(deployment, engine):
            yield finding
        if engine.dialect.name != "postgresql":
            continue
        try:
            before = time()
            now, most = await sessions.transaction(_asked)
        except GuardError:
            continue  # not reachable, which has its finding where a store uses it
        for finding in _clock("PostgreSQL", float(now), before):
            yield finding
        wanted = _connections(engine) * (deployment.workers or 1)
        if wanted > int(most) - _RESERVED_CONNECTIONS:
            text = f"the pools of all workers may open {wanted} connections, and PostgreSQL allows {most}"
            remedy = "lower pool_size, or put PgBouncer in front"
            yield found("pool", "error", text, remedy, "explanation/scaling.md")


def _asked(session: Any) -> tuple[Any, Any]:
    connection = session.connection()
    now = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar()
    return now, connection.exec_driver_sql("SHOW max_connections").scalar()


def _pool(deployment: Deployment, engine: Any) -> list[Finding]:
    findings: list[Finding] = []
    if engine.dialect.name == "sqlite":
        severity: Severity = "info" if deployment.workers in (None, 1) else "warning"
        in_memory = engine.url.database in (None, "", ":memory:")
        if in_memory:
            text = "the database is SQLite in memory: lost at a restart, and another one in each worker"
            findings.append(found("sqlite", "error", text, "use a file or PostgreSQL", _LINK))
        else:
            text = "SQLite serves the workers of one host alone, and one of them writes at a time"
            findings.append(found("sqlite", severity, text, "use PostgreSQL for several hosts", _LINK))
    elif getattr(engine.pool, "_max_overflow", 0) != 0:
        text = "the pool opens and closes overflow connections in bursts"
        findings.append(found("pool", "warning", text, "create_engine(..., max_overflow=0)", _LINK))
    return findings


def _connections(engine: Any) -> int:
    size = engine.pool.size() if callable(getattr(engine.pool, "size", None)) else 0
    return int(size) + max(0, int(getattr(engine.pool, "_max_overflow", 0)))


async def _issuers(deployment: Deployment) -> AsyncIterator[Finding]:
    for keys in deployment.all("RemoteKeySet"):
        try:
            await keys.load()
        except ServiceUnavailable as error:
            text = f"the keys at {keys.url} cannot be fetched: {type(error.__cause__ or error).__name__}"
            remedy = "allow the connection, and fetch the keys in the lifespan"
            yield found("issuer", "error", text, remedy, "how-to/other-issuers.md#an-openid-provider")


def _clock(name: str, now: float, before: float) -> list[Finding]:
    # The server read its clock after ``before`` and until now: a slow response does not count as a difference.
    ahead = max(0.0, now - time()) or min(0.0, now - before)
    if abs(ahead) <= _MOST_SKEW_SECONDS:
        return []
    severity: Severity = "error" if abs(ahead) > _DANGEROUS_SKEW_SECONDS else "warning"
    text = f"the clock of {name} differs by {ahead:+.0f} s from this host"
    return [found("clock", severity, text, "synchronise the clocks of all hosts (NTP)", _LINK)]
