"""Columns that no log shows, and the indexes of the mixins on the tables of an application."""

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    insert,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

from fastapi_guard.stores.columns import SecretBytes, SecretText, StoredBytes, keep_indexes


def test_hidden_and_unchanged() -> None:
    """Values come back as they were, NULL too; their repr is hidden, and a migration sees plain types."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    table = Table("secrets", MetaData(), Column("a", SecretBytes), Column("b", SecretText))
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(table), [{"a": b"raw", "b": "text"}, {"a": None, "b": None}])
        (a, b), nothing = connection.execute(select(table)).all()
    assert (a, b, tuple(nothing)) == (b"raw", "text", (None, None))
    assert (repr(a), str(a), repr(b), str(b)) == ("<hidden>", "<hidden>", "<hidden>", "text")
    assert [repr(column.type) for column in table.c] == ["LargeBinary()", "Text()"]
    assert {type(column.type).__module__ for column in table.c} == {"sqlalchemy.types"}
    engine.dispose()


class Owned:
    """A mixin with an index and a unique column."""

    user_id: Mapped[str] = mapped_column(String(20), index=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)


keep_indexes(Owned, "user_id")
keep_indexes(Owned, "name", unique=True)


def indexes(model: Any) -> set[tuple[tuple[str, ...], bool]]:
    """Return the columns of each index and unique constraint of a model, and whether they are unique."""
    table: Table = model.__table__
    found = {(tuple(column.name for column in index.columns), bool(index.unique)) for index in table.indexes}
    unique = [rule for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    return found | {(tuple(column.name for column in rule.columns), True) for rule in unique}


WANTED = {(("user_id",), False), (("name",), True)}


def test_a_model_that_takes_the_columns_as_they_are() -> None:
    """The indexes of the mixin are there once."""

    class Base(DeclarativeBase):
        pass

    class Plain(Owned, Base):
        __tablename__ = "plain"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert indexes(Plain) == WANTED
    assert len(Plain.__table__.indexes) == 1  # type: ignore[attr-defined]


def test_a_foreign_key_keeps_the_index() -> None:
    """A column that the application declares again keeps the index and the uniqueness of the mixin."""

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[str] = mapped_column(String(20), primary_key=True)

    class Linked(Owned, Base):
        __tablename__ = "linked"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
        name: Mapped[str] = mapped_column(ForeignKey("users.id"))

    assert indexes(Linked) == WANTED
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    engine.dispose()


def test_an_index_of_the_application() -> None:
    """No index is added where one of the application, a constraint or a key serves the same look-up."""

    class Base(DeclarativeBase):
        pass

    class Own(Owned, Base):
        __tablename__ = "own"
        user_id: Mapped[str] = mapped_column(String(20))
        name: Mapped[str] = mapped_column(String(20), primary_key=True)
        team: Mapped[str] = mapped_column(String(20))
        __table_args__ = (Index("ix_own", "user_id", "team"),)

    class Unique(Owned, Base):
        __tablename__ = "unique_pairs"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[str] = mapped_column(String(20))
        name: Mapped[str] = mapped_column(String(20), index=True)
        __table_args__ = (UniqueConstraint("user_id", "name"),)

    assert indexes(Own) == {(("user_id", "team"), False)}
    # An index that is not unique does not keep names apart.
    assert indexes(Unique) == {(("user_id", "name"), True), (("name",), False), (("name",), True)}


def test_a_subclass_with_a_table_of_its_own() -> None:
    """In joined inheritance the columns and their indexes are in the table of the parent alone."""

    class Base(DeclarativeBase):
        pass

    class Parent(Owned, Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(10))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parent"}  # noqa: RUF012

    class Child(Parent):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(ForeignKey("parents.id"), primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "child"}  # noqa: RUF012

    assert indexes(Parent) == WANTED
    assert indexes(Child) == set()


def test_text_that_no_log_shows(caplog: Any) -> None:
    """A secret text is stored as it is, and neither the parameters nor the rows of a log show it."""

    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = "accounts"
        id: Mapped[int] = mapped_column(primary_key=True)
        secret: Mapped[str | None] = mapped_column(SecretText)

    caplog.set_level("DEBUG")
    engine = create_engine("sqlite://", echo="debug")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(insert(Account), [{"secret": "hunter2-hash"}, {"secret": None}])
        assert list(connection.scalars(select(Account.secret))) == ["hunter2-hash", None]
    engine.dispose()
    assert repr(SecretText()) == "Text()"
    assert "<hidden>" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("kind", [StoredBytes, SecretBytes, SecretText])
@pytest.mark.parametrize("value", [10**15, 7.5, True, "hunter2", b"hunter2!"])
def test_a_value_of_another_type(kind: Any, value: Any) -> None:
    """It cannot be read; of a number no bytes are made, and nothing of it is in the error."""
    dialect: Any = sqlite.dialect()
    read = kind().dialect_impl(dialect).result_processor(dialect, None)
    assert read(None) is None
    if isinstance(value, str if kind is SecretText else bytes):
        assert read(value) == value
    else:
        with pytest.raises(TypeError) as error:
            read(value)
        assert "hunter2" not in str(error.value)
