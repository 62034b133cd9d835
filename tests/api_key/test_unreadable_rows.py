"""Rows that were edited by hand so that a driver or SQLAlchemy cannot read them: they harm no other key."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, make_url, text

from api_key.databases import Database
from fastapi_guard import ServiceUnavailable, Unauthorized
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.api_key.models import APIKey, Base
from fastapi_guard.claims import Subject
from fastapi_guard.events import Event

SECRET = "hunter2hunter2"
# By the name of the dialect; a driver may be able to read some of them.
EDITS = {
    "sqlite": {
        "a text that is not UTF-8": f"name = CAST(x'{SECRET.encode().hex()}ff' AS TEXT)",
        "a digest that is a text": f"digest = '{SECRET}'",
        "a moment that is a number": "expires_at = 4102444800",
    },
    "postgresql": {
        "a moment before the first year": "expires_at = '0044-03-15 00:00:00+00 BC'",
        "a moment after the last year": "last_used_at = '200000-01-01 00:00:00+00'",
        "the last moment": "expires_at = 'infinity'",
    },
}


async def edit(database: Database, key_id: str, what: str) -> None:
    """Change the row of a key past all checks."""
    statement = text(f"UPDATE api_keys SET {what} WHERE key_id = :key_id")  # noqa: S608 - ours
    await database.within(lambda session: session.execute(statement, {"key_id": key_id}))


def edits_of(database: Database) -> dict[str, str]:
    """Return the edits for a database."""
    return EDITS[database.sync_engine.dialect.name]


@pytest.mark.parametrize("number", range(3))
async def test_an_unreadable_row_in_a_batch(database: Database, number: int, caplog: pytest.LogCaptureFixture) -> None:
    """Keys that are looked up together with one whose row cannot be read are accepted; nothing of it is logged."""
    keys = database.auth()
    made = [await keys.create(user_id=f"user-{number}") for number in range(5)]
    await edit(database, made[2].key_id, list(edits_of(database).values())[number])
    results = await asyncio.gather(*(keys.verify(new.raw) for new in made), return_exceptions=True)
    read = [result["sub"] for result in results if isinstance(result, dict)]
    unread = results.pop(2)
    assert [result["sub"] for result in results if isinstance(result, dict)] == ["user-0", "user-1", "user-3", "user-4"]
    if isinstance(unread, Unauthorized):
        # A text cannot be the digest of any key.
        assert "digest" in list(edits_of(database).values())[number]
    else:
        assert isinstance(unread, ServiceUnavailable) or (isinstance(unread, dict) and len(read) == 5)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("number", range(3))
async def test_an_unreadable_row_of_a_list(database: Database, number: int, caplog: pytest.LogCaptureFixture) -> None:
    """A key whose row cannot be read is a 503 for each method that reads it, and can be revoked."""
    keys = database.auth()
    key_id, _ = await keys.create(user_id="alice")
    await edit(database, key_id, list(edits_of(database).values())[number])
    reasons = []
    for read in (keys.get(key_id), keys.list(), keys.usage(key_id), keys.rotate(key_id, overlap=timedelta(hours=1))):
        try:
            await read
        except ServiceUnavailable as error:
            reasons.append(error.reason)
    assert reasons in ([], ["unreadable_key"] * 4)
    assert await keys.revoke(key_id)
    assert SECRET not in caplog.text


# Of more bytes than any machine has: bytes(n) of it would fail, or take all memory.
NUMBER = 10**15


@pytest.mark.parametrize("edit_of", [f"salt = {NUMBER}", f"digest = {NUMBER}", "digest = 'text'", "pepper = x'31'"])
async def test_a_digest_of_another_type(sqlite: Database, edit_of: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is that to an unknown key, and the log names the row, and nothing in it."""
    keys, peppered = sqlite.auth(), sqlite.auth(peppers={"1": "p" * 32})
    made = [await keys.create(user_id="alice") for _ in range(2)]
    await edit(sqlite, made[0].key_id, edit_of)
    for auth in (keys, peppered):
        found = await asyncio.gather(*(auth.verify(new.raw) for new in made), return_exceptions=True)
        assert isinstance(found[0], Unauthorized)
        assert isinstance(found[1], dict)
        unknown = await asyncio.gather(auth.verify(KeyFormat().generate().raw), return_exceptions=True)
        assert isinstance(unknown[0], Unauthorized)
        assert (found[0].detail, found[0].error) == (unknown[0].detail, unknown[0].error)
        assert found[0].reason == "unreadable_key"
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"the row of the API key {made[0].key_id} cannot be read"] * 2
    assert await keys.revoke(made[0].key_id)
    assert {key.key_id for key in await keys.list()} == {new.key_id for new in made}


TEXTS = [
    *("name", "environment", "subject_type", "issuer", "user_id", "tenant_id", "rate", "maker_issuer", "maker_id"),
    *("paused_by", "last_address", "usage_id", "maker_key_id", "replaced_by"),
]
MOMENTS = ["created_at", "expires_at", "paused_at", "revoked_at", "last_used_at"]


async def test_a_column_of_another_type(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The key is a 503 wherever its row is read, once it was presented; others are not affected."""
    keys = sqlite.auth()
    other = await keys.create(user_id="alice")
    numbers = ["7.5", "9e999", "'hunter2'"]
    columns = {**dict.fromkeys(TEXTS, ()), **dict.fromkeys([*MOMENTS, "quota", "quota_seconds"], numbers)}
    for column, values in columns.items():
        # Of a number, SQLite makes a text in a column for texts.
        for value in (f"x'{SECRET.encode().hex()}'", *values):
            made = await keys.create(user_id="alice")
            await edit(sqlite, made.key_id, f"{column} = {value}")
            found = await asyncio.gather(
                *(keys.verify(made.raw), keys.get(made.key_id), keys.list()), return_exceptions=True
            )
            assert [getattr(one, "reason", None) for one in found] == ["unreadable_key"] * 3, (column, value)
            replaced = await keys.create(user_id="alice", maker_key=other.key_id)
            await edit(sqlite, replaced.key_id, f"replaced_by = '{made.key_id}'")
            assert await keys.revoke(made.key_id) == (column != "revoked_at")
            assert await keys.validate_token(replaced.raw) == (column == "user_id")
            await sqlite.within(lambda session: session.execute(delete(APIKey).where(APIKey.revoked_at.is_not(None))))
    assert await keys.validate_token(other.raw)
    assert "hunter" not in caplog.text


@pytest.mark.parametrize("owner", ["x'ff'", "CAST(x'ff' AS TEXT)"])
async def test_an_owner_that_cannot_be_read(sqlite: Database, owner: str) -> None:
    """The key ends with its maker, and so do those beside it."""
    seen: list[Event] = []
    keys = sqlite.auth(on_event=seen.append)
    root = await keys.create(user_id="agent-0")
    made = [await keys.create(user_id=f"agent-{number}", maker=Subject(None, "agent-0")) for number in (1, 2)]
    await edit(sqlite, made[0].key_id, f"user_id = {owner}")
    assert await keys.revoke_subject("agent-0") == 3
    ended = {event.key_id: event.subject for event in seen if event.name == "key_revoked"}
    subjects = {None, "agent-2"} if "AS TEXT" not in owner else {None}
    assert ended.keys() == {root.key_id, made[0].key_id, made[1].key_id}
    assert {ended[new.key_id] for new in made} == subjects


async def test_a_flag_that_is_a_text(tmp_path: Path, anyio_backend: str) -> None:
    """A flag of another type grants nothing: SQLite stores any text, which SQLAlchemy would read as true."""
    for driver in ("sqlite", "sqlite+aiosqlite"):
        database = Database.of(make_url(f"{driver}:///{tmp_path / 'keys.db'}"))
        await database.create_tables()
        keys = database.auth()
        root = await keys.create(user_id="root", is_admin=True)
        key_id, raw = await keys.create(user_id="alice", maker_key=root.key_id)
        assert (await keys.verify(root.raw))["is_admin"] is True
        for flag in ("'false'", "2", "x'01'"):
            await edit(database, key_id, f"is_admin = {flag}, outlives_maker = {flag}")
            assert (await keys.verify(raw))["is_admin"] is False
            [_, key] = await keys.list()
            assert (key.is_admin, key.outlives_maker) == (False, False)
        await keys.revoke(root.key_id)
        assert not await keys.validate_token(raw)
        await database.dispose()


async def test_a_table_that_is_missing(sqlite: Database) -> None:
    """It is an outage for a list, and not a row that cannot be read."""
    keys = sqlite.auth()
    await sqlite.within(lambda session: Base.metadata.drop_all(session.connection()))
    for call in (keys.list(), keys.revoke_subject("alice")):
        with pytest.raises(ServiceUnavailable) as failed:
            await call
        assert failed.value.reason == "database_unreachable"
