"""What a store of records has to do. One contract suite holds every store to it."""

from dataclasses import dataclass, field
from typing import Final, Protocol

# An expired record is gone for whoever asks, and stays where it is a little longer: a clock that is set back by less
# than this loses nothing.
KEPT_AFTER_EXPIRY_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Record:
    """One record. It is replaced as a whole, never changed.

    Attributes:
        key: What it is found by; unique in its store. Text of at most 255 characters without NUL.
        value: What it holds; only who wrote it knows the form. It is not in the repr.
        owner: Whom it belongs to, a subject for most; ``None`` where nobody looks for it.
        expires_at: Seconds since the epoch, from which on it is as if it were not there; ``None`` for never.
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
        """Put ``record`` in unless its key is taken; return whether it was put in."""
        ...  # pragma: no cover

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Put ``new`` in place of the record under ``key`` if that still holds the value of ``expected``.

        Return whether it did: of several callers with the same ``expected`` one is told ``True``. The key of ``new`` is
        ``key`` too.
        """
        ...  # pragma: no cover

    async def delete(self, key: str) -> bool:
        """Remove the record under ``key``; of several callers one is told ``True``."""
        ...  # pragma: no cover

    async def find(self, owner: str) -> list[Record]:
        """Return the records of ``owner`` that have not expired, in no order."""
        ...  # pragma: no cover
