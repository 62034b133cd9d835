"""Rows of factors and identities in a database that checks no types: one that is not ours is a 503, never a value."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import sessionmaker

from fastapi_guard import ServiceUnavailable
from fastapi_guard.login.enrolled import DatabaseFactors, EnrolledFactor
from fastapi_guard.login.passkey import Passkey
from fastapi_guard.login.providers.identities import DatabaseIdentities, LinkedIdentity

FACTOR = EnrolledFactor(id="f-1", subject="ada", kind="totp", name="Phone", data="{}", created_at=1.5)
PASSKEY = Passkey(
    credential_id=b"id", public_key=b"key", sign_count=1, user_handle=b"u", backup_eligible=True, backed_up=True
).stored_in(EnrolledFactor(id="", subject="ada", kind="passkey", name="Key", data="", created_at=1.5))
IDENTITY = LinkedIdentity(
    id="i-1", subject="ada", provider="acme", issuer="x", provider_subject="u-1", label=None, created_at=1.5
)
ROWS: dict[str, list[tuple[str, str]]] = {
    "factors": [
        *(("created_at", "'hidden'"), ("created_at", "9e999"), ("used_at", "'hidden'"), ("used_at", "x'ff'")),
        *(("kind", "x'ff'"), ("name", "x'ff'")),
    ],
    "passkeys": [
        *(("created_at", "'hidden'"), ("used_at", "'hidden'"), ("name", "x'ff'"), ("transports", "'7'")),
        *(("sign_count", "'hidden'"), ("credential_id", "'hidden'"), ("public_key", "'hidden'"), ("sign_count", "-1")),
    ],
    "identities": [
        *(("created_at", "'hidden'"), ("created_at", "9e999"), ("label", "x'ff'"), ("provider", "x'ff'")),
        *(("issuer", "x'ff'"), ("provider_subject", "x'ff'")),
    ],
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Return a database in a file."""
    path: Path = tmp_path_factory.mktemp("rows") / "test.db"
    opened = create_engine(f"sqlite:///{path}")
    yield opened
    opened.dispose()


@pytest.mark.parametrize(("table", "column", "value"), [(table, *cell) for table in ROWS for cell in ROWS[table]])
async def test_a_row(engine: Engine, caplog: pytest.LogCaptureFixture, table: str, column: str, value: str) -> None:
    """It is unreadable by its id and by its user, and the log names its kind alone; it can be removed."""
    item: Any = {"factors": FACTOR, "passkeys": PASSKEY, "identities": IDENTITY}[table]
    sessions = sessionmaker(engine)
    storage: Any
    if table == "identities":
        storage = DatabaseIdentities(sessions)
        await storage.create_table()
    else:
        storage = DatabaseFactors(sessions)
        await storage.create_tables()
    assert await storage.add(item)
    try:
        assert (await storage.get(item.id), await storage.of("ada")) == (item, [item])
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE fastapi_guard_{table} SET {column} = {value}"))  # noqa: S608
        for call in (partial(storage.get, item.id), partial(storage.of, "ada")):
            with pytest.raises(ServiceUnavailable) as error:
                await call()
            assert error.value.reason == "unreadable_record"
        assert {record.levelno for record in caplog.records} == {logging.ERROR}
        assert "cannot be read" in caplog.text
        assert "hidden" not in caplog.text
    finally:
        assert await storage.remove(item.id)
