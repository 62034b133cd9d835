"""Column types, indexes and checks that the tables of this package share. Needs the extra ``sqlalchemy``.

The types look like plain ones to Alembic: a generated migration does not import this package.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from types import UnionType
from typing import Any, TypeVar

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, shown
from fastapi_guard.stores.hidden import HiddenBytes, HiddenText

try:
    from sqlalchemy import (
        Boolean,
        Column,
        ColumnElement,
        DateTime,
        Dialect,
        Index,
        LargeBinary,
        Table,
        Text,
        UniqueConstraint,
        event,
        type_coerce,
    )
    from sqlalchemy.orm import Mapper
    from sqlalchemy.types import NullType, TypeDecorator
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

MixinT = TypeVar("MixinT")


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, also on a database that stores no time zone."""

    # With these two a generated migration has sa.DateTime(timezone=True).
    __module__ = "sqlalchemy.types"

    def __repr__(self) -> str:
        """Show the type of the database."""
        return repr(self.impl)

    impl: DateTime = DateTime(timezone=True)
    cache_ok: bool | None = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Reject a naive datetime: its moment is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = "a naive datetime cannot be stored: use datetime.now(UTC)"
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Return it in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StoredBytes(TypeDecorator[bytes]):
    """Bytes. A value of another type, which SQLite stores in any column, cannot be read."""

    __module__ = "sqlalchemy.types"

    def __repr__(self) -> str:
        """Show the type of the database."""
        return repr(self.impl)

    impl: type[LargeBinary] = LargeBinary
    cache_ok: bool | None = True

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - SQLAlchemy's
        """Return it.

        Raises:
            TypeError: It is something else. Nothing of it is in the message.
        """
        if value is None:
            return None
        _check_type("bytes", value, bytes | bytearray | memoryview)
        return bytes(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:  # noqa: ARG002 - SQLAlchemy's
        """Read what the driver returns; that of LargeBinary makes n bytes of a number n."""
        return lambda value: self.process_result_value(value, dialect)


class SecretBytes(StoredBytes):
    """Bytes that no log of a statement, its parameters or its rows shows."""

    __module__ = "sqlalchemy.types"
    cache_ok: bool | None = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - SQLAlchemy's
        """Hide it in the log of the parameters."""
        return None if value is None else HiddenBytes(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        """Hide it in the log of the rows."""
        found = super().process_result_value(value, dialect)
        return None if found is None else HiddenBytes(found)


class SecretBytesOrNone(SecretBytes):
    """The same for a SELECT of several rows, of which one with another type keeps none from being read."""

    __module__ = "sqlalchemy.types"
    cache_ok: bool | None = True

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        """Return ``None`` for a value of another type."""
        try:
            return super().process_result_value(value, dialect)
        except TypeError:
            return None


class SecretText(TypeDecorator[str]):
    """Text, such as a hash of a password, that no log of a statement, its parameters or its rows shows."""

    __module__ = "sqlalchemy.types"

    def __repr__(self) -> str:
        """Show the type of the database."""
        return repr(self.impl)

    impl: type[Text] = Text
    cache_ok: bool | None = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Hide it in the log of the parameters."""
        return None if value is None else HiddenText(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Hide it in the log of the rows.

        Raises:
            TypeError: It is something else than a text. Nothing of it is in the message.
        """
        if value is None:
            return None
        _check_type("a text", value, str)
        return HiddenText(value)


def _check_type(name: str, value: object, kind: type | UnionType) -> None:
    if not isinstance(value, kind):
        msg = f"a value in a column for {name} has another type"
        raise TypeError(msg)


def as_stored(found: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column as it is selected: a flag as it is stored, since SQLAlchemy would read any text as true."""
    return type_coerce(found, NullType()) if isinstance(found.type, Boolean) else found


def keep_indexes(mixin: type[Any], *columns: str, unique: bool = False) -> None:
    """Index ``columns`` of every model with ``mixin``, also where the application has declared a column again.

    A column that is declared again, for a ForeignKey, loses ``index=True`` and ``unique=True`` of the mixin. Where the
    application's own column, index, constraint or primary key serves the same look-up, nothing is added.

    Args:
        mixin: The mixin that has the columns.
        columns: Their names as attributes of the model.
        unique: Whether each of them is unique.
    """

    def add_indexes(mapper: Mapper[Any], _: type[Any]) -> None:
        table = mapper.local_table
        for name in columns if isinstance(table, Table) else ():
            column = mapper.columns[name]
            # In joined inheritance the column is in the table of the parent, which has been here before.
            if column.table is table and not _is_indexed(table, column, unique=unique):
                Index(None, column, unique=unique)

    event.listen(mixin, "after_mapper_constructed", add_indexes, propagate=True)


def _is_indexed(table: Table, column: Column[Any], *, unique: bool) -> bool:
    keys = [list(table.primary_key.columns)]
    keys += [list(rule.columns) for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    keys += [list(index.columns) for index in table.indexes if index.unique or not unique]
    if unique:
        return [column] in keys
    return any(key[:1] == [column] for key in keys)


def model_of(name: str, model: type[MixinT], mixin: type[MixinT]) -> type[MixinT]:
    """Return ``model`` if it is a class with the columns of ``mixin``.

    Raises:
        ConfigurationError: It is not.
    """
    if not (isinstance(model, type) and issubclass(model, mixin)):
        msg = f"{name} is a class of a table with {mixin.__name__}, not {shown(model)}"
        raise ConfigurationError(msg)
    return model
