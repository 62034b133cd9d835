"""Changes of records, as the caches of this process and of others learn of them."""

from collections.abc import Collection, Iterable
from typing import Protocol, runtime_checkable
from weakref import WeakSet


class Changes(Protocol):
    """A position in the changes of a store; each cache has its own."""

    async def read(self) -> Collection[str] | None:
        """Return the keys of the records that changed since the last call.

        ``None`` where that is not known, as at the first call: any record may have changed. The position is right then
        all the same.

        Raises:
            ServiceUnavailable: The changes cannot be read; the position is what it was.
        """
        ...  # pragma: no cover


@runtime_checkable
class AnnouncesChanges(Protocol):
    """A store whose changes can be read by every process that uses it."""

    def changes(self) -> Changes:
        """Return a position in the changes of the store."""
        ...  # pragma: no cover


class Forgets(Protocol):
    """A cache of records."""

    def forget(self, keys: Iterable[str] | None) -> None:
        """Drop these keys, or all where ``None``, also from reads that are in flight."""
        ...  # pragma: no cover


_caches: "WeakSet[Forgets]" = WeakSet()


def forget_when_changed(cache: Forgets) -> None:
    """Let ``cache`` forget what changes in this process, at once."""
    _caches.add(cache)


def changed_here(*keys: str) -> None:
    """Drop records from every cache of this process. A key in a store with another prefix is dropped too."""
    for cache in list(_caches):
        cache.forget(keys)


class NoOtherProcess:
    """The changes of a store that no other process can change."""

    async def read(self) -> Collection[str]:
        """Return nothing."""
        return ()
