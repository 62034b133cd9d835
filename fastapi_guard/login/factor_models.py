"""The tables of enrolled factors and passkeys: mixins for the application's own models, and ready models."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.login.passkey import KIND, Passkey
from fastapi_guard.stores.columns import SecretText, StoredBytes, keep_indexes, model_of
from fastapi_guard.stores.database import SessionFactory, Sessions, can_be_stored, change_one, create_tables, insert

try:
    from sqlalchemy import JSON, BigInteger, Double, String, delete, select, update
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class FactorMixin:
    """The columns of an enrolled factor, for a model of the application's own, which has its own primary key.

    Attributes:
        factor_id: The id of the factor.
        subject_id: The ``subject_id`` of the user.
        kind: The name of the Factor, such as ``"totp"``.
        name: The name that the user chose.
        data: The data of the Factor: an encrypted secret, hashes.
        created_at: Seconds since the epoch.
        used_at: Seconds since the epoch.
    """

    factor_id: Mapped[str] = mapped_column(String(64), unique=True)
    subject_id: Mapped[str] = mapped_column(String(255), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(64))
    data: Mapped[str] = mapped_column(SecretText)
    created_at: Mapped[float] = mapped_column(Double)
    used_at: Mapped[float | None] = mapped_column(Double)


class PasskeyMixin:
    """The columns of a passkey, for a model of the application's own, which has its own primary key.

    Attributes:
        factor_id: The id of the factor, a hash of the credential id.
        subject_id: The ``subject_id`` of the user.
        name: The name that the user chose.
        credential_id: The id that the authenticator chose.
        public_key: The public key as COSE.
        sign_count: The highest signature counter that was seen.
        user_handle: The random bytes that identify the user to authenticators.
        backup_eligible: Whether the passkey can be synchronised between devices.
        backed_up: Whether it was synchronised when it was last used.
        transports: How browsers reach the authenticator.
        aaguid: The model of the authenticator.
        created_at: Seconds since the epoch.
        used_at: Seconds since the epoch.
    """

    factor_id: Mapped[str] = mapped_column(String(64), unique=True)
    subject_id: Mapped[str] = mapped_column(String(255), index=True)
    name: Mapped[str] = mapped_column(String(64))
    credential_id: Mapped[bytes] = mapped_column(StoredBytes, unique=True)
    public_key: Mapped[bytes] = mapped_column(StoredBytes)
    sign_count: Mapped[int] = mapped_column(BigInteger)
    user_handle: Mapped[bytes] = mapped_column(StoredBytes)
    backup_eligible: Mapped[bool]
    backed_up: Mapped[bool]
    transports: Mapped[list[str]] = mapped_column(JSON, default=list)
    aaguid: Mapped[str] = mapped_column(String(36), default="")
    created_at: Mapped[float] = mapped_column(Double)
    used_at: Mapped[float | None] = mapped_column(Double)


# The application may declare a column again, such as subject_id with a ForeignKey.
keep_indexes(FactorMixin, "subject_id")
keep_indexes(FactorMixin, "factor_id", unique=True)
keep_indexes(PasskeyMixin, "subject_id")
keep_indexes(PasskeyMixin, "factor_id", "credential_id", unique=True)


class Base(DeclarativeBase):
    """The base of the ready models; Alembic's ``target_metadata`` may list ``Base.metadata``."""


class StoredFactor(FactorMixin, Base):
    """The ready table of enrolled factors."""

    __tablename__ = "fastapi_guard_factors"

    id: Mapped[int] = mapped_column(primary_key=True)


class StoredPasskey(PasskeyMixin, Base):
    """The ready table of passkeys."""

    __tablename__ = "fastapi_guard_passkeys"

    id: Mapped[int] = mapped_column(primary_key=True)


class FactorTables:
    """The statements of DatabaseFactors: each method is a transaction of its own."""

    def __init__(self, sessions: SessionFactory, factors: type[FactorMixin], passkeys: type[PasskeyMixin]) -> None:
        """Work on the tables of these models."""
        self._sessions = Sessions(sessions)
        self._factors = model_of("model", factors, FactorMixin)
        self._passkeys = model_of("passkeys", passkeys, PasskeyMixin)

    async def create(self) -> None:
        """Create both tables unless they exist."""
        await create_tables(self._sessions, self._factors, self._passkeys)

    async def of(self, subject: str) -> list[EnrolledFactor]:
        """Return the factors of ``subject``, the oldest first."""
        if not can_be_stored(subject):
            return []
        found = await self._sessions.transaction(lambda session: self._read(session, "subject_id", subject))
        return sorted(found, key=lambda factor: (factor.created_at, factor.id))

    async def every(self, kind: str) -> list[EnrolledFactor]:
        """Return every factor of a kind other than passkeys, of all users."""
        statement = select(self._factors).where(self._factors.kind == kind)
        return await self._sessions.transaction(lambda session: list(map(_factor, session.scalars(statement))))

    async def get(self, factor_id: str) -> EnrolledFactor | None:
        """Return the factor with this id."""
        if not can_be_stored(factor_id):
            return None
        found = await self._sessions.transaction(lambda session: self._read(session, "factor_id", factor_id))
        return found[0] if found else None

    async def add(self, factor: EnrolledFactor) -> bool:
        """Add a factor unless its id is taken."""
        return await insert(self._sessions, lambda: self._model(factor)(**_columns(factor)))

    async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
        """Replace a factor where its columns are still those of ``expected``."""
        model: Any = self._model(expected)
        # Those that a factor changes: the compared ones have to be comparable, which JSON is not.
        changing = ("sign_count", "backed_up", "name") if expected.kind == KIND else ("data", "name")
        columns = _columns(expected)
        where = [getattr(model, name) == columns[name] for name in ("factor_id", "subject_id", *changing)]
        changed = {name: value for name, value in _columns(new).items() if columns[name] != value}
        # A statement that changes nothing would not find out whether the factor exists.
        changed.setdefault("name", new.name)
        return await change_one(self._sessions, update(model).where(*where).values(**changed))

    async def remove(self, factor_id: str) -> bool:
        """Remove a factor; return whether there was one."""
        if not can_be_stored(factor_id):
            return False
        models: tuple[Any, ...] = (self._factors, self._passkeys)
        removed = [
            await change_one(self._sessions, delete(model).where(model.factor_id == factor_id)) for model in models
        ]
        return any(removed)

    def _read(self, session: "Session", column: str, value: str) -> list[EnrolledFactor]:
        models: tuple[tuple[Any, Callable[[Any], EnrolledFactor]], ...] = (
            (self._factors, _factor),
            (self._passkeys, _passkey),
        )
        rows = [
            (row, read)
            for model, read in models
            for row in session.scalars(select(model).where(getattr(model, column) == value))
        ]
        # A collation of the database may treat another text as equal.
        return [read(row) for row, read in rows if getattr(row, column) == value]

    def _model(self, factor: EnrolledFactor) -> type[FactorMixin] | type[PasskeyMixin]:
        return self._passkeys if factor.kind == KIND else self._factors


def _factor(row: FactorMixin) -> EnrolledFactor:
    return EnrolledFactor(
        id=row.factor_id,
        subject=row.subject_id,
        kind=row.kind,
        name=row.name,
        data=str(row.data),
        created_at=row.created_at,
        used_at=row.used_at,
    )


def _passkey(row: PasskeyMixin) -> EnrolledFactor:
    passkey = Passkey(
        credential_id=row.credential_id,
        public_key=row.public_key,
        sign_count=row.sign_count,
        user_handle=row.user_handle,
        backup_eligible=row.backup_eligible,
        backed_up=row.backed_up,
        transports=tuple(row.transports),
        aaguid=row.aaguid,
    )
    empty = EnrolledFactor(
        id=row.factor_id,
        subject=row.subject_id,
        kind=KIND,
        name=row.name,
        data="",
        created_at=row.created_at,
        used_at=row.used_at,
    )
    return passkey.stored_in(empty)


def _columns(factor: EnrolledFactor) -> dict[str, Any]:
    columns = {
        "factor_id": factor.id,
        "subject_id": factor.subject,
        "name": factor.name,
        "created_at": factor.created_at,
        "used_at": factor.used_at,
    }
    if factor.kind != KIND:
        return {**columns, "kind": factor.kind, "data": factor.data}
    passkey = Passkey.of(factor)
    return {
        **columns,
        "credential_id": passkey.credential_id,
        "public_key": passkey.public_key,
        "sign_count": passkey.sign_count,
        "user_handle": passkey.user_handle,
        "backup_eligible": passkey.backup_eligible,
        "backed_up": passkey.backed_up,
        "transports": list(passkey.transports),
        "aaguid": passkey.aaguid,
    }
