"""Name the place where a store keeps its records, so that two objects for one place count as one store.

A place has the server, the database and the table or prefix; never a user, a password or another part of a URL.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

_THIS_HOST: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def place_of(store: object) -> object:
    """Return the place of a store: its ``place``, or the object itself where it has none, as in memory."""
    place = getattr(store, "place", None)
    return store if place is None else place


def place_of_engine(engine: Any) -> Hashable:
    """Return the place that an engine of SQLAlchemy connects to; its pool where the URL does not name a database."""
    url, name = engine.url, engine.url.get_backend_name()
    schemas = tuple(sorted((engine.get_execution_options().get("schema_translate_map") or {}).items(), key=str))
    database: str = url.database or ""
    in_memory = ":memory:" in database or url.query.get("mode") == "memory" or "mode=memory" in database
    if not database or in_memory:
        return (name, engine.pool, schemas)
    if name == "sqlite":
        return (name, str(Path(database.removeprefix("file:").partition("?")[0]).resolve()), schemas)
    host = url.host or str(url.query.get("host") or "")
    port = url.port or str(url.query.get("port") or _PORTS.get(name, ""))
    return (name, _host(host), str(port), database, str(url.query.get("options") or ""), schemas)


def place_of_redis(client: Any) -> Hashable:
    """Return the place that a client of redis-py connects to, behind Sentinel and in a cluster too."""
    if hasattr(client, "nodes_manager"):
        nodes = client.nodes_manager.startup_nodes.values()
        return ("cluster", frozenset((_host(node.host), node.port) for node in nodes))
    pool = client.connection_pool
    settings = pool.connection_kwargs
    database = settings.get("db") or 0
    if hasattr(pool, "sentinel_manager"):
        sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        watched = frozenset((_host(one.get("host")), one.get("port")) for one in sentinels)
        return ("sentinel", pool.service_name, watched, database)
    if "path" in settings:
        return ("socket", str(Path(settings["path"]).resolve()), database)
    return ("redis", _host(settings.get("host")), settings.get("port") or 6379, database)


def _host(host: str | None) -> str:
    # The directory of a socket is on this host too.
    named = (host or "").lower().rstrip(".")
    return "localhost" if named in _THIS_HOST or named.startswith("/") else named
