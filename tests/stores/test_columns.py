"""Columns whose values no log shows."""

from sqlalchemy import Column, MetaData, Table, create_engine, insert, select
from sqlalchemy.pool import StaticPool

from fastapi_guard.stores.columns import SecretBytes, SecretText


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
