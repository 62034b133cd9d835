"""Store, the protocol of all stores, and its records. One contract suite tests every store."""

from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

# An expired record is not returned, and is kept for a little longer: a clock that is set back by less than this loses
# nothing.
KEPT_AFTER_EXPIRY_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Record:
    """One record. It is replaced as a whole, never changed.

    A key or an owner of more than 1,024 bytes is stored as its hash (``stores.names``).

    Attributes:
        key: Unique in its store; any text.
        value: Bytes in a form of the writer's choice; not in the repr.
        owner: A text to find several records by, such as a subject; ``None`` for no owner.
        expires_at: Seconds since the epoch; from then on no method returns the record. ``None`` for never.
    """

    key: str
    value: bytes = field(repr=False)
    owner: str | None = None
    expires_at: float | None = None

    def is_alive(self, now: float) -> bool:
        """Return whether the record has not expired at ``now``, in seconds since the epoch."""
        return self.expires_at is None or self.expires_at > now


class Store(Protocol):
    """Records by key. Each method is atomic, and one round trip.

    A store that cannot be reached raises ServiceUnavailable from each of them.
    """

    async def get(self, *keys: str) -> list[Record | None]:
        """Return the records under ``keys``, in that order, ``None`` where there is none or it has expired."""
        ...  # pragma: no cover

    async def add(self, record: Record) -> bool:
        """Add ``record`` unless its key is taken; return whether it was added."""
        ...  # pragma: no cover

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Replace the record under ``key`` by ``new`` if its value is still that of ``expected``.

        Return whether it was replaced: of several callers with the same ``expected`` one gets ``True``. The key of
        ``new`` is ``key`` too.
        """
        ...  # pragma: no cover

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one gets ``True``."""
        ...  # pragma: no cover

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in any order."""
        ...  # pragma: no cover


@runtime_checkable
class TakesRecords(Protocol):
    """A store that removes a record and returns it in one round trip."""

    async def take(self, key: str) -> Record | None:
        """Remove the record under ``key``, and return it; of several callers one gets it, the others ``None``."""
        ...  # pragma: no cover


async def take(store: Store, key: str) -> Record | None:
    """Remove the record under ``key`` from any store, and return it; of several callers one gets it.

    One round trip where the store takes records, else two.
    """
    if isinstance(store, TakesRecords):
        return await store.take(key)
    [record] = await store.get(key)
    # Over at the epoch is over by the clock of every worker.
    if record is not None and await store.replace(key, record, replace(record, expires_at=0.0)):
        return record
    return None
