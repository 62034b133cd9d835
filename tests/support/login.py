"""Helpers for tests of logins: a store as another process sees it, users, requests."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from fastapi_guard.stores import Record, Store

PASSWORD = "wonderland tea party"


class CountingStore:
    """A store that counts its round trips, and does something before one of them.

    Another object than the store, as the store of another process is.
    """

    def __init__(self, store: Store) -> None:
        """Delegate to `store`."""
        self.store = store
        self.trips: list[str] = []
        self.before: dict[str, Callable[[], Any]] = {}

    async def _trip(self, name: str, *arguments: Any) -> Any:
        self.trips.append(name)
        if name in self.before:
            await self.before.pop(name)()
        return await getattr(self.store, name)(*arguments)

    async def get(self, *keys: str) -> list[Record | None]:
        """Count."""
        found: list[Record | None] = await self._trip("get", *keys)
        return found

    async def add(self, record: Record) -> bool:
        """Count."""
        return bool(await self._trip("add", record))

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Count."""
        return bool(await self._trip("replace", key, expected, new))

    async def delete(self, key: str) -> bool:
        """Count."""
        return bool(await self._trip("delete", key))

    async def take(self, key: str) -> Record | None:
        """Count."""
        found: Record | None = await self._trip("take", key)
        return found

    async def find(self, owner: str) -> list[Record]:
        """Count."""
        found: list[Record] = await self._trip("find", owner)
        return found


def request(address: str = "192.0.2.1", *, agent: str = "Firefox", cookie: str | None = None, **fields: str) -> Request:
    """Return a request from an address, with a user agent, a cookie and other header fields."""
    headers = {"user-agent": agent, **({} if cookie is None else {"cookie": cookie})}
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "client": (address, 1), "headers": raw, "query_string": b""}
    return Request(scope)
