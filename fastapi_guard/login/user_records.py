"""Records of users in a store, such as factors and linked identities, each found by its id or by its user."""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from fastapi_guard.login.state import digest_of
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import RecordForm, readable


class Item(Protocol):
    """A dataclass of JSON values that belongs to a user."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str:
        """Unique among the items of all users."""
        ...  # pragma: no cover

    @property
    def subject(self) -> str:
        """The ``subject_id`` of the user."""
        ...  # pragma: no cover

    @property
    def created_at(self) -> float:
        """Seconds since the epoch."""
        ...  # pragma: no cover


ItemT = TypeVar("ItemT", bound=Item)


class UserRecords(Generic[ItemT]):
    """Items of users in a Store, without an expiry."""

    def __init__(self, store: Store, form: RecordForm[ItemT], prefix: str) -> None:
        """Keep items of a ``form`` in ``store``, under keys that begin with ``prefix``."""
        self._store = store
        self._form = form
        self._prefix = prefix

    async def of(self, subject: str) -> Sequence[ItemT]:
        """Return what the user ``subject`` has, the oldest first.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        records = await self._store.find(self._owner(subject))
        found = [self._item(record) for record in records if record.key.startswith(self._prefix)]
        return sorted(found, key=lambda item: (item.created_at, item.id))

    async def get(self, item_id: str) -> ItemT | None:
        """Return what has this id, of any user.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        [record] = await self._store.get(self._prefix + item_id)
        return None if record is None else self._item(record)

    async def add(self, item: ItemT) -> bool:
        """Store ``item`` unless its id is taken; return whether it was stored.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._store.add(self._record(item))

    async def replace(self, expected: ItemT, new: ItemT) -> bool:
        """Store ``new`` in place of ``expected``; return ``False`` where that was changed or removed in the meantime.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._store.replace(self._prefix + expected.id, self._record(expected), self._record(new))

    async def remove(self, item_id: str) -> bool:
        """Remove what has this id; of several callers one receives ``True``.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._store.delete(self._prefix + item_id)

    async def remove_unreadable(self, subject: str) -> int:
        """Remove what the user ``subject`` has that cannot be read; return how much it was.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        own = [record for record in await self._store.find(self._owner(subject)) if record.key.startswith(self._prefix)]
        unreadable = [record.key for record in own if not readable([record], self._item)]
        return sum([await self._store.delete(key) for key in unreadable])

    def _owner(self, subject: str) -> str:
        # Of one length, however long a subject is.
        return self._prefix + digest_of(subject)

    def _record(self, item: ItemT) -> Record:
        return Record(self._prefix + item.id, self._form.encoded(item), self._owner(item.subject))

    def _item(self, record: Record) -> ItemT:
        place = (record.key, record.owner)
        return self._form.read(
            record.value, where=lambda item: place == (self._prefix + item.id, self._owner(item.subject))
        )


async def remove_unreadable(records: object, subject: str) -> int:
    """Remove what cannot be read of a user all of whose ``records`` are removed; return how much it was.

    Raises:
        ServiceUnavailable: The store cannot be reached.
    """
    return await records.remove_unreadable(subject) if isinstance(records, UserRecords) else 0
