"""The record of a factor that a user has enrolled, and where such records are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from fastapi_guard.login.state import digest_of
from fastapi_guard.login.user_records import UserRecords
from fastapi_guard.stores.arguments import instance_of, store_of
from fastapi_guard.stores.protocol import Store
from fastapi_guard.stores.values import Count, RecordForm

if TYPE_CHECKING:
    from fastapi_guard.login.factor_models import FactorMixin, PasskeyMixin
    from fastapi_guard.stores.database import SessionFactory

_KEY: Final = "factor:"
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolledFactor:
    """A factor that a user has enrolled.

    Attributes:
        id: Unique among all enrolled factors, and not secret. At most 64 characters.
        subject: The ``sub`` of the user.
        kind: The name of its Factor, such as ``"totp"``.
        name: What the user calls it.
        data: What its Factor keeps: an encrypted secret, hashes, a public key. Only that Factor reads it.
        created_at: Seconds since the epoch.
        used_at: When it last proved who the user is, in seconds since the epoch; ``None`` before the first time.
    """

    id: str
    subject: str
    kind: str
    name: str
    data: str = field(repr=False)
    created_at: float
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """An enrolment that is not confirmed yet.

    Attributes:
        login: The name of the Login.
        binding: Identifies the session in which it began.
        factor: The factor as far as it goes.
        tries: How many proofs were tried.
    """

    login: str
    binding: str
    factor: EnrolledFactor
    tries: Count = 0


_FORM: Final = RecordForm(EnrolledFactor, "an enrolled factor")
UNCONFIRMED: Final = RecordForm(Unconfirmed, "an enrolment")


def checked_name(name: object) -> str | None:
    """Return the name that a user gave a factor; ``None`` where it is not 1 to 64 printable characters."""
    text = name.strip() if isinstance(name, str) else ""
    return text if 0 < len(text) <= _LONGEST_NAME and text.isprintable() else None


class EnrolledFactors(Protocol):
    """Storage of enrolled factors. Each method is atomic.

    Any exception other than an AuthError means that the storage is unreachable, and becomes a 503.
    """

    async def of(self, subject: str) -> Sequence[EnrolledFactor]:
        """Return the factors of ``subject``, the oldest first."""
        ...  # pragma: no cover

    async def get(self, factor_id: str) -> EnrolledFactor | None:
        """Return the factor with this id, of any user."""
        ...  # pragma: no cover

    async def add(self, factor: EnrolledFactor) -> bool:
        """Store ``factor`` unless its id is taken; return whether it was stored."""
        ...  # pragma: no cover

    async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
        """Store ``new`` in place of ``expected``; return ``False`` where that was changed or removed in the meantime.

        Of several callers with the same ``expected`` and different ``data`` in ``new``, one receives ``True``. Both
        have the same id and subject.
        """
        ...  # pragma: no cover

    async def remove(self, factor_id: str) -> bool:
        """Remove a factor; of several callers one receives ``True``."""
        ...  # pragma: no cover


class StoredFactors(UserRecords[EnrolledFactor]):
    """Enrolled factors in a Store: the default, for an application that keeps everything in one store."""

    def __init__(self, store: Store, *, name: str = "login") -> None:
        """Keep the factors in ``store``, without an expiry. It has to be durable: a MemoryStore forgets them.

        Args:
            store: The store.
            name: The name of the Login. Factors under one name are invisible under another, so that the users of two
                Logins can have the same subjects.
        """
        store_of("store", store)
        instance_of("name", name, str, "the name of the Login")
        super().__init__(store, _FORM, f"{_KEY}{digest_of(name)[:16]}:")


class DatabaseFactors:
    """Enrolled factors in two tables of the application's database, by ``fastapi_guard.login.factor_models``.

    Two Logins whose users can have the same subjects need models of their own.
    """

    def __init__(
        self,
        session_factory: "SessionFactory",
        *,
        model: "type[FactorMixin] | None" = None,
        passkeys: "type[PasskeyMixin] | None" = None,
    ) -> None:
        """Work in sessions of a sessionmaker or an async_sessionmaker, which are committed here.

        Args:
            session_factory: The sessionmaker.
            model: A model with FactorMixin, by default the ready StoredFactor.
            passkeys: A model with PasskeyMixin, by default the ready StoredPasskey.

        Raises:
            ConfigurationError: It is not a sessionmaker, or of a SQLite database in memory, which every thread has
                its own copy of.
            MissingExtraError: The extra ``sqlalchemy`` is not installed.
        """
        from fastapi_guard.login import factor_models as models  # noqa: PLC0415 - StoredFactors needs no extra

        self._tables = models.FactorTables(
            session_factory,
            models.StoredFactor if model is None else model,
            models.StoredPasskey if passkeys is None else passkeys,
        )

    async def create_tables(self) -> None:
        """Create the tables unless they exist."""
        await self._tables.create()

    async def of(self, subject: str) -> Sequence[EnrolledFactor]:
        """Return the factors of ``subject``, the oldest first."""
        return await self._tables.of(subject)

    async def every(self, kind: str) -> Sequence[EnrolledFactor]:
        """Return every factor of a kind other than passkeys, of all users: to encrypt secrets with another key."""
        return await self._tables.every(kind)

    async def get(self, factor_id: str) -> EnrolledFactor | None:
        """Return the factor with this id, of any user."""
        return await self._tables.get(factor_id)

    async def add(self, factor: EnrolledFactor) -> bool:
        """Store ``factor`` unless its id is taken; return whether it was stored."""
        return await self._tables.add(factor)

    async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
        """Store ``new`` in place of ``expected``; return ``False`` where that was changed or removed meanwhile."""
        return await self._tables.replace(expected, new)

    async def remove(self, factor_id: str) -> bool:
        """Remove a factor; of several callers one receives ``True``."""
        return await self._tables.remove(factor_id)
