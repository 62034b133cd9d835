import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sqlalchemy import ForeignKey, String, create_engine, event, func, make_url, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from api_key.databases import Database
from fastapi_guard import APIKeyScheme, ConfigurationError, GuardError, ServiceUnavailable, Unauthorized
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.digest import DECOY, Peppers
from fastapi_guard.api_key.format import KeyFormat, checksum
from fastapi_guard.api_key.last_use import Use
from fastapi_guard.api_key.lookup import _decoded, _moment
from fastapi_guard.api_key.models import APIKey, APIKeyEvent, APIKeyEventMixin, APIKeyMixin
from fastapi_guard.events import Event
from fastapi_guard.exceptions import KeyConflict, KeyNotFound
from fastapi_guard.stores import MemoryStore
from support.asgi import Answer, exchange
from support.clock import Clock
from support.examples import at_most

INVALID = "Invalid API Key"
BEARER = 'Bearer realm="api"'
BAD_BEARER = f'{BEARER}, error="invalid_token", error_description="{INVALID}"'
NOW = 1_800_000_000
PEPPERS = {"1": "the-older-pepper-of-this-house", "2": "the-newer-pepper-of-this-house"}


def application(keys: DatabaseAPIKeyAuth) -> FastAPI:
    """Return an application with one guarded route."""
    app = FastAPI()

    @app.get("/items")
    async def items(claims: Annotated[dict[str, Any], keys.requires("items:read")]) -> dict[str, Any]:
        return claims

    return app


async def ask(keys: DatabaseAPIKeyAuth, *fields: bytes, name: bytes = b"authorization") -> Answer:
    """Return the answer to a request with these fields."""
    return await exchange(application(keys), "/items", [(name, field) for field in fields])


async def reason_of(keys: DatabaseAPIKeyAuth, raw: str) -> str:
    """Return the reason, for the log, with which a key is refused; the answer is always the same."""
    with pytest.raises(Unauthorized) as refusal:
        await keys.verify(raw)
    assert (refusal.value.detail, refusal.value.error) == (INVALID, "invalid_token")
    return refusal.value.reason


def other_secret(raw: str) -> str:
    """Return a well-formed key with the same id and another secret."""
    body = raw[:20] + KeyFormat().generate().raw[20:-6]
    return body + checksum(body)


async def test_a_key_from_creation_to_revocation(database: Database) -> None:
    """The life of a key, by the methods for a session of the caller and by those on the Auth's own sessions."""
    soon = datetime.now(UTC) + timedelta(days=90)
    key_id, raw = await database.within(
        lambda session: DatabaseAPIKeyAuth.create_key(
            session,
            user_id="alice",
            name="Alice's production key",
            is_admin=True,
            scopes=["items:read"],
            tenant_id="acme",
            expires_at=soon,
            metadata={"email": "alice@example.com"},
        )
    )
    keys = database.auth()
    accepted = await ask(keys, b"Bearer " + raw.encode())
    assert accepted.status == 200
    claims = accepted.json
    assert abs(claims.pop("iat") - datetime.now(UTC).timestamp()) < 60
    assert claims == {
        "sub": "alice",
        "subject_type": "user",
        "key_id": key_id,
        "name": "Alice's production key",
        "scope": "items:read",
        "tenant_id": "acme",
        "is_admin": True,
        "exp": int(soon.timestamp()),
        "metadata": {"email": "alice@example.com"},
    }
    await database.within(lambda session: DatabaseAPIKeyAuth.revoke_key(session, key_id))
    assert (await ask(keys, b"Bearer " + raw.encode())).refusal == (401, INVALID, BAD_BEARER)
    assert await reason_of(keys, raw) == "revoked"


async def test_the_auths_own_sessions(database: Database) -> None:
    """Create, rotate with an overlap, revoke and list, each committed."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    key_id, raw = await keys.create(user_id="alice", name="ci", scopes=["items:read"])
    new_id, new_raw = await keys.rotate(key_id, overlap=timedelta(hours=24))
    assert (await keys.verify(raw))["exp"] == NOW + 86_400
    assert (await keys.verify(new_raw))["key_id"] == new_id
    assert "exp" not in await keys.verify(new_raw)
    clock.move(timedelta(hours=24))
    assert await reason_of(keys, raw) == "expired"
    assert await keys.revoke(new_id) is True
    assert await keys.revoke(new_id) is False
    assert await reason_of(keys, new_raw) == "revoked"
    assert {key.key_id for key in await keys.list(user_id="alice")} == {key_id, new_id}
    assert await keys.list(user_id="bob") == []


async def test_the_header_of_its_own(database: Database) -> None:
    """With APIKeyScheme the key comes in X-Api-Key, the challenge is its, and the Bearer header is not looked at."""
    keys = database.auth(scheme=APIKeyScheme("X-Api-Key"))
    _, raw = await keys.create(user_id="alice", scopes=["items:*"])
    assert (await ask(keys, raw.encode(), name=b"x-api-key")).status == 200
    refused = (401, INVALID, 'ApiKey realm="api"')
    assert (await ask(keys, other_secret(raw).encode(), name=b"x-api-key")).refusal == refused
    assert (await ask(keys, b"Bearer " + raw.encode())).refusal == refused
    assert (await ask(keys)).refusal == refused


FIELDS: dict[str, Callable[[bytes], list[bytes]]] = {
    "empty": lambda raw: [b"Bearer "],
    "another scheme": lambda raw: [b"Basic " + raw],
    "no scheme": lambda raw: [raw],
}
BAD_FIELDS: dict[str, Callable[[bytes], list[bytes]]] = {
    "a stranger's": lambda raw: [b"Bearer sk-proj-abcdef0123456789"],
    "non-ASCII": lambda raw: [b"Bearer " + raw[:-1] + "é".encode()],
    "latin-1": lambda raw: [b"Bearer " + raw[:-1] + b"\xe9"],
    "NUL": lambda raw: [b"Bearer " + raw[:20] + b"\x00" + raw[21:]],
    "a megabyte": lambda raw: [b"Bearer " + raw * 15_000],
    "a megabyte of one": lambda raw: [b"Bearer " + b"s" * 1_000_000],
    "wrong prefix": lambda raw: [b"Bearer pk" + raw[2:]],
    "wrong checksum": lambda raw: [b"Bearer " + raw[:-1] + (b"0" if raw[-1:] != b"0" else b"1")],
    "a JWT": lambda raw: [b"Bearer eyJhbGciOiJub25lIn0.e30."],
    "quotes": lambda raw: [b'Bearer "' + raw + b'"'],
    "SQL": lambda raw: [b"Bearer sk-' OR 1=1 --"],
}


@pytest.mark.parametrize("field", FIELDS)
async def test_no_key(database: Database, field: str) -> None:
    """Without a key there is no error code and no query; with the key the request passes."""
    keys = database.auth()
    _, raw = await keys.create(user_id="alice", scopes=["items:read"])
    with database.statements() as statements:
        assert (await ask(keys, *FIELDS[field](raw.encode()))).refusal == (401, INVALID, BEARER)
    assert statements == []
    assert (await ask(keys, b"Bearer " + raw.encode())).status == 200


@pytest.mark.parametrize("field", BAD_FIELDS)
async def test_what_is_no_key_costs_no_query(database: Database, field: str) -> None:
    """Text that cannot be a key of this deployment is a 401 without a query; the key itself is accepted."""
    keys = database.auth()
    _, raw = await keys.create(user_id="alice", scopes=["items:read"])
    with database.statements() as statements:
        answer = await ask(keys, *BAD_FIELDS[field](raw.encode()))
    assert answer.status == 401
    if b"," not in BAD_FIELDS[field](raw.encode())[0] and field != "SQL":
        assert answer.refusal == (401, INVALID, BAD_BEARER)
    assert statements == []
    assert (await ask(keys, b"Bearer " + raw.encode())).status == 200


async def test_two_keys(database: Database) -> None:
    """Two fields are refused, whichever of them holds."""
    keys = database.auth()
    _, raw = await keys.create(user_id="alice", scopes=["items:read"])
    field = b"Bearer " + raw.encode()
    challenge = f'{BEARER}, error="invalid_request", error_description="More than one credential"'
    assert (await ask(keys, field, field)).refusal == (401, "More than one credential", challenge)
    assert (await ask(keys, field)).status == 200


async def test_one_answer_for_all_refusals(database: Database) -> None:
    """Unknown, wrong, revoked, expired, paused: the same answer and one SELECT each, the reason in the log alone."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    _, good = await keys.create(user_id="alice", scopes=["items:read"])
    revoked_id, revoked = await keys.create(user_id="alice", scopes=["items:read"])
    await keys.revoke(revoked_id)
    _, expired = await keys.create(user_id="alice", expires_at=datetime.fromtimestamp(NOW + 1, UTC))
    clock.move(1)
    unknown = KeyFormat().generate().raw
    cases = {unknown: "unknown_key", other_secret(good): "bad_secret", revoked: "revoked", expired: "expired"}
    # Without the key no client learns that it was revoked.
    cases[other_secret(revoked)] = "bad_secret"
    for expires_at in (None, datetime.fromtimestamp(NOW + 60, UTC)):
        paused_id, paused = await keys.create(user_id="alice", expires_at=expires_at)
        await keys.pause(paused_id)
        cases[paused] = "paused"
    for raw, reason in cases.items():
        with database.statements() as statements:
            assert await reason_of(keys, raw) == reason
        assert [statement.split()[0] for statement in statements] == ["SELECT"]
        assert (await ask(keys, b"Bearer " + raw.encode())).refusal == (401, INVALID, BAD_BEARER)
    assert (await ask(keys, b"Bearer " + good.encode())).status == 200


async def test_a_malformed_row_and_a_wrong_secret(sqlite: Database) -> None:
    """Nothing of a row is decoded before its digest has matched."""
    keys = sqlite.auth()
    _, raw = await keys.create(user_id="alice")
    malformed = text("UPDATE api_keys SET created_at = 'nonsense', scopes = '{'")
    await sqlite.within(lambda session: session.execute(malformed))
    assert await reason_of(keys, other_secret(raw)) == "bad_secret"


async def test_an_unknown_id_costs_what_a_wrong_secret_costs(database: Database) -> None:
    """The same statement returns one row for both, with values of the same types in the same columns."""
    keys = database.auth()
    known, raw = await keys.create(user_id="alice", scopes=["items:read"], name="ci")
    await keys.verify(raw)
    await database.within(lambda session: session.execute(update(APIKey).values(last_used_at=None, last_address=None)))
    rows, statements = [], []
    for key_id in (known, "0" * 16, "z" * 16):
        with database.statements() as seen:
            rows += await keys._lookup._select.rows(key_id)
        statements.append(tuple(seen))
    assert len(set(statements)) == 1
    assert "'decoy'" in statements[0][0]
    types = [[type(value) for value in row] for row in rows if row is not None]
    assert types[0] == types[1] == types[2]
    assert [row[0] for row in rows if row is not None] == [known, "0" * 16, "z" * 16]
    assert [row[-3] == DECOY.salt for row in rows if row is not None] == [False, True, True]


@pytest.mark.parametrize("options", [{"usage": "redis://localhost"}, {"usage": MemoryStore}, {"clock": 1_800_000_000}])
async def test_collaborators_of_the_wrong_kind(sqlite: Database, options: dict[str, Any]) -> None:
    """A store or a clock that is not one is an error at construction, not at the first request."""
    with pytest.raises(ConfigurationError, match=r"is a (Store|function)"):
        sqlite.auth(**options)
    sqlite.auth(usage=MemoryStore(), clock=lambda: NOW)


async def test_expiry_to_the_moment(database: Database) -> None:
    """A key holds before the moment of its expiry, and from then on it does not."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    _, raw = await keys.create(user_id="alice", expires_at=datetime.fromtimestamp(NOW + 60.5, UTC))
    clock.move(60.25)
    assert (await keys.verify(raw))["exp"] == NOW + 60
    clock.move(0.25)
    assert await reason_of(keys, raw) == "expired"


async def test_scopes(database: Database) -> None:
    """Scopes and wildcards of the key decide; a bare star in a stored key is everything."""
    keys = database.auth()
    for scopes, status in ((["items:edit"], 200), (["items:*"], 200), (["*"], 200), (["users:read"], 403), ([], 403)):
        _, raw = await keys.create(user_id="alice", scopes=scopes)
        answer = await ask(keys, b"Bearer " + raw.encode())
        assert answer.status == status
        if status == 403:
            challenge = f'{BEARER}, error="insufficient_scope", scope="items:read"'
            assert answer.refusal == (403, "Token is missing required scope: items:read", challenge)


async def test_a_missing_scope_of_a_key_in_its_own_header(database: Database) -> None:
    """The challenge of a 403 is that of the scheme that carried the key."""
    keys = database.auth(scheme=APIKeyScheme("X-Api-Key"))
    _, raw = await keys.create(user_id="alice", scopes=["items:write"])
    status, _, challenge = (await ask(keys, raw.encode(), name=b"x-api-key")).refusal
    assert (status, challenge) == (403, 'ApiKey realm="api", error="insufficient_scope", scope="items:read"')


async def test_the_columns_come_back_aware(database: Database) -> None:
    """Every moment is aware and in UTC on every database, whatever zone it came in."""
    tokyo = datetime(2030, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    keys = database.auth(clock=Clock(NOW))
    key_id, raw = await keys.create(
        user_id="alice", expires_at=tokyo, subject_type="service", metadata={"n": [1, None]}
    )
    await keys.verify(raw)
    await keys.aclose()
    key = await keys.get(key_id)
    assert key is not None
    assert (key.expires_at, key.created_at) == (datetime(2030, 1, 1, tzinfo=UTC), datetime.fromtimestamp(NOW, UTC))
    for moment in (key.expires_at, key.created_at, key.last_used_at):
        assert moment is not None
        assert moment.utcoffset() == timedelta(0)
    assert (key.subject_type, key.metadata, key.revoked_at, key.replaced_by) == (
        "service",
        {"n": [1, None]},
        None,
        None,
    )

    def load(session: Session) -> datetime | None:
        row = session.get_one(APIKey, key_id)
        assert repr(row) == f"APIKey(key_id={key_id!r}, user_id='alice')"
        return row.expires_at

    assert await database.within(load) == tokyo


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the process live in a zone that is not UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    "value",
    [
        "2027-01-15 08:00:00.000000",
        datetime(2027, 1, 15, 8),  # noqa: DTZ001 - of a driver without zones
        datetime(2027, 1, 15, 8, tzinfo=UTC),
        datetime(2027, 1, 15, 10, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_moments_of_drivers(value: Any) -> None:
    """Each driver has its own type for a moment, which is in UTC afterwards, wherever the process is."""
    moment = _moment(value)
    assert (moment.isoformat(), moment.tzinfo) == ("2027-01-15T08:00:00+00:00", UTC)


def test_a_row_of_another_length() -> None:
    """A row without one of the columns is an error, and not a key without a restriction."""
    with pytest.raises(ValueError, match="zip"):
        _decoded(["id"])


async def test_get(database: Database) -> None:
    """An id that is not there, and any other text, is None and not an error of the database."""
    keys = database.auth()
    key_id, _ = await keys.create(user_id="alice")
    assert (await keys.get(key_id)).key_id == key_id  # type: ignore[union-attr]
    for wrong in ("0" * 16, "", "\x00" * 16, "é" * 16, key_id.upper() + "!", "x" * 1_000_000):
        assert await keys.get(wrong) is None


@pytest.mark.parametrize("page", [{"limit": -1}, {"offset": -1}])
async def test_a_page_that_is_none(database: Database, page: dict[str, int]) -> None:
    """A negative limit or offset is a ValueError on every database."""
    keys = database.auth()
    with pytest.raises(ValueError, match="cannot be negative"):
        await keys.list(**page)  # type: ignore[arg-type]
    assert await keys.list(limit=0, offset=0) == []


async def test_scopes_that_can_be_read_once(database: Database) -> None:
    """Scopes may come out of an iterator, also where the connection was lost and the key is created again."""
    keys, tries = database.auth(), []

    def lose(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT") and not tries:
            tries.append(statement)
            raise OperationalError(statement, {}, OSError("gone"), connection_invalidated=True)

    event.listen(database.sync_engine, "before_cursor_execute", lose)
    _, raw = await keys.create(user_id="alice", scopes=iter(["a", "b"]))
    event.remove(database.sync_engine, "before_cursor_execute", lose)
    assert (await keys.verify(raw))["scope"] == "a b"
    assert len(await keys.list()) == len(tries) == 1


async def test_an_unknown_id(database: Database) -> None:
    """Revoking and rotating what is not there is a KeyNotFound that names what can be an id."""
    keys = database.auth()
    odd = "that is not the id of an API key: an id is the 16 letters and digits before the last hyphen"
    # A whole key that was pasted is not shown.
    pasted = KeyFormat().generate().raw
    for wrong, message in (("0" * 16, f"there is no API key with the id {'0' * 16}"), ("a\x00b", odd), (pasted, odd)):
        for action in (keys.revoke(wrong), keys.rotate(wrong)):
            with pytest.raises(KeyNotFound) as refusal:
                await action
            assert str(refusal.value) == message
    key_id, _ = await keys.create(user_id="alice")
    assert await keys.revoke(key_id) is True


async def test_list(database: Database) -> None:
    """The keys of a user, of a tenant, unused for a while or still good, oldest first, a page at a time."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    used, used_raw = await keys.create(user_id="alice", tenant_id="acme")
    clock.move(1)
    unused, _ = await keys.create(user_id="alice")
    clock.move(1)
    robot, _ = await keys.create(user_id="alice", subject_type="agent")
    clock.move(timedelta(days=60))
    young, _ = await keys.create(user_id="bob", tenant_id="acme")
    await keys.verify(used_raw)
    await keys.aclose()
    clock.move(timedelta(days=60))

    async def listed(**query: Any) -> list[str]:
        return [key.key_id for key in await keys.list(**query)]

    assert await listed() == [used, unused, robot, young]
    assert await listed(user_id="alice", subject_type="user") == [used, unused]
    assert await listed(tenant_id="acme") == [used, young]
    # One that was never used counts from its creation.
    assert await listed(unused_for=timedelta(days=90)) == [unused, robot]
    assert await listed(unused_for=timedelta(days=60)) == [used, unused, robot, young]
    assert await listed(unused_for=timedelta.max) == []
    assert await listed(limit=2) == [used, unused]
    assert await listed(limit=2, offset=1) == [unused, robot]
    await keys.revoke(unused)
    await keys.rotate(robot)
    assert await listed(active_only=True, user_id="alice", subject_type="user") == [used]
    assert robot not in await listed(active_only=True)
    with pytest.raises(ValueError, match="cannot be negative"):
        await keys.list(unused_for=timedelta(days=-1))


async def test_prune(database: Database) -> None:
    """Keys that ended long enough ago are deleted, those that hold stay, and the events stay in any case."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    active, _ = await keys.create(user_id="alice")
    revoked, revoked_raw = await keys.create(user_id="alice")
    expiring, _ = await keys.create(user_id="alice", expires_at=datetime.fromtimestamp(NOW + 3600, UTC))
    await keys.revoke(revoked)
    clock.move(timedelta(days=30))
    assert await keys.prune(ended_for=timedelta(days=31)) == 0
    assert await keys.prune(ended_for=timedelta(days=30)) == 1
    assert {key.key_id for key in await keys.list()} == {active, expiring}
    assert await keys.prune(ended_for=timedelta(0)) == 1
    assert [key.key_id for key in await keys.list()] == [active]
    assert await reason_of(keys, revoked_raw) == "unknown_key"
    events = await database.within(lambda session: list(session.scalars(select(APIKeyEvent.event))))
    assert sorted(events) == ["created", "created", "created", "revoked"]
    with pytest.raises(ValueError, match="cannot be negative"):
        await keys.prune(ended_for=timedelta(days=-1))


async def test_the_events_of_a_key(database: Database) -> None:
    """Creation, rotation and revocation are recorded with who and when, and a record cannot be changed."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    key_id, _ = await keys.create(user_id="alice", by="root")
    clock.move(timedelta(days=1))
    new_id, _ = await keys.rotate(key_id, by="alice")
    await keys.revoke(new_id)
    await keys.revoke(new_id, by="late")

    def events(session: Session) -> list[tuple[Any, ...]]:
        rows = session.scalars(select(APIKeyEvent).order_by(APIKeyEvent.id))
        return [(row.key_id, row.event, row.actor, row.replaced_by, row.at) for row in rows]

    start, later = datetime.fromtimestamp(NOW, UTC), datetime.fromtimestamp(NOW + 86_400, UTC)
    recorded = await database.within(events)
    assert sorted(recorded[1:3], key=lambda row: row[1]) == [
        (new_id, "created", "alice", None, later),
        (key_id, "rotated", "alice", new_id, later),
    ]
    assert recorded[0] == (key_id, "created", "root", None, start)
    # The old key, whose overlap is over, is revoked too.
    assert sorted(recorded[3:]) == sorted((this, "revoked", None, None, later) for this in (key_id, new_id))

    def change(session: Session) -> None:
        session.scalars(select(APIKeyEvent)).first().actor = "nobody"  # type: ignore[union-attr]

    def remove(session: Session) -> None:
        session.delete(session.scalars(select(APIKeyEvent)).first())

    for attempt in (change, remove):
        with pytest.raises(GuardError, match="append-only"):
            await database.within(attempt)
    assert await database.within(events) == recorded


async def test_rotation_keeps_what_the_key_is(database: Database) -> None:
    """The new key is like the old one and lives as long as that was to live; its text is another."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    month = datetime.fromtimestamp(NOW, UTC) + timedelta(days=30)
    key_id, raw = await keys.create(
        user_id="alice",
        name="ci",
        scopes=["b:read", "a:read"],
        is_admin=True,
        tenant_id="acme",
        expires_at=month,
        metadata={"team": "red"},
        subject_type="agent",
    )
    before = await keys.verify(raw)
    clock.move(timedelta(days=20))
    new_id, new_raw = await keys.rotate(key_id)
    assert await reason_of(keys, raw) == "expired"
    after = await keys.verify(new_raw)
    assert (after.pop("key_id"), after.pop("iat"), after.pop("exp")) == (new_id, NOW + 20 * 86_400, NOW + 50 * 86_400)
    assert after == {name: value for name, value in before.items() if name not in ("key_id", "iat", "exp")}
    old = await keys.get(key_id)
    assert old is not None
    assert old.replaced_by == new_id


async def test_rotation_never_extends_the_old_key(database: Database) -> None:
    """The overlap ends no later than the old key would have; an expiry of its own can be given to the new one."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    hour = datetime.fromtimestamp(NOW + 3600, UTC)
    key_id, raw = await keys.create(user_id="alice", expires_at=hour)
    year = hour + timedelta(days=365)
    _, new_raw = await keys.rotate(key_id, overlap=timedelta(days=7), expires_at=year)
    assert (await keys.verify(raw))["exp"] == NOW + 3600
    assert (await keys.verify(new_raw))["exp"] == int(year.timestamp())


@pytest.mark.parametrize("state", ["revoked", "expired", "paused", "rotated"])
async def test_what_cannot_be_rotated(database: Database, state: str) -> None:
    """A key that has expired, was revoked or rotated is a clear error and stays as it is; another one is rotated."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    key_id, _ = await keys.create(user_id="alice", expires_at=datetime.fromtimestamp(NOW + 60, UTC))
    if state == "revoked":
        await keys.revoke(key_id)
        message = f"the API key {key_id} was revoked, so it cannot be rotated"
    elif state == "expired":
        clock.move(60)
        message = f"the API key {key_id} has expired, so it cannot be rotated"
    elif state == "paused":
        await keys.pause(key_id)
        message = f"the API key {key_id} is paused, so it cannot be rotated"
    else:
        new_id, _ = await keys.rotate(key_id, overlap=timedelta(seconds=30))
        message = f"the API key {key_id} was rotated before: the new key is {new_id}"
    before = await keys.list()
    with pytest.raises(KeyConflict) as refusal:
        await keys.rotate(key_id)
    assert str(refusal.value) == message
    assert await keys.list() == before
    good, _ = await keys.create(user_id="alice")
    await keys.rotate(good)


async def test_concurrent_rotations(database: Database) -> None:
    """Of many rotations of one key at once one wins, the others get a clear error, and no key is left over."""
    keys = database.auth()
    for _ in range(5):
        key_id, _ = await keys.create(user_id="alice")
        before = {key.key_id for key in await keys.list()}
        results = await asyncio.gather(*(keys.rotate(key_id) for _ in range(8)), return_exceptions=True)
        won = [result for result in results if not isinstance(result, BaseException)]
        lost = [result for result in results if isinstance(result, KeyConflict)]
        assert (len(won), len(lost)) == (1, 7)
        assert all(key_id in str(error) for error in lost)
        assert {key.key_id for key in await keys.list()} - before == {won[0].key_id}
        assert (await keys.verify(won[0].raw))["key_id"] == won[0].key_id


async def test_rotation_in_a_serializable_transaction(postgres_url: Any) -> None:
    """A race that the database ends with a serialization failure is the same clear error."""
    database = Database.of(postgres_url.set(drivername="postgresql+asyncpg"), isolation_level="REPEATABLE READ")
    await database.create_tables()
    keys = database.auth()
    key_id, _ = await keys.create(user_id="alice")
    results = await asyncio.gather(*(keys.rotate(key_id) for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["KeyConflict"] * 7 + ["NewKey"]
    assert len(await keys.list()) == 2
    await database.dispose()


async def test_nothing_undoes_a_revocation(database: Database) -> None:
    """A stale row written back, merged or assigned to leaves the key revoked."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")

    def load(session: Session) -> APIKey:
        row = session.get_one(APIKey, key_id)
        session.expunge(row)
        return row

    stale = await database.within(load)
    await keys.verify(raw)
    await keys.revoke(key_id)
    revoked = await keys.get(key_id)
    assert revoked is not None

    def write_back(session: Session) -> None:
        stale.name = "renamed"
        session.merge(stale)

    def assign(session: Session) -> None:
        row = session.get_one(APIKey, key_id)
        row.revoked_at = None
        row.revoked_at = datetime.now(UTC) + timedelta(days=1)

    for attempt in (write_back, assign):
        await database.within(attempt)
        after = await keys.get(key_id)
        assert after is not None
        assert after.revoked_at == revoked.revoked_at
        assert await reason_of(keys, raw) == "revoked"
    assert after.name == "renamed"


async def test_a_revocation_may_be_dated_earlier(sqlite: Database) -> None:
    """A revocation is set by assignment too, and moved only to an earlier moment."""
    keys = sqlite.auth()
    key_id, raw = await keys.create(user_id="alice")
    moments = [datetime(2030, 1, 2, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)]

    def assign(session: Session) -> None:
        row = session.get_one(APIKey, key_id)
        for moment in moments:
            row.revoked_at = moment

    await sqlite.within(assign)
    key = await keys.get(key_id)
    assert key is not None
    assert key.revoked_at == moments[1]
    assert await reason_of(keys, raw) == "revoked"


def uses(statements: list[str]) -> int:
    """Count the UPDATEs of last_used_at."""
    return sum(statement.startswith("UPDATE") and "last_used_at" in statement for statement in statements)


async def test_last_used_at_is_written_once_a_minute(database: Database) -> None:
    """200 requests at once with one key write once; a minute later once more, and only then."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    key_id, raw = await keys.create(user_id="alice", scopes=["items:read"])
    app = application(keys)

    async def at_once() -> int:
        headers = [(b"authorization", b"Bearer " + raw.encode())]
        with database.statements() as statements:
            answers = await asyncio.gather(*(exchange(app, "/items", headers) for _ in range(200)))
            await keys.aclose()
        assert {answer.status for answer in answers} == {200}
        return uses(statements)

    assert await at_once() == 1
    clock.move(59)
    assert await at_once() == 0
    key = await keys.get(key_id)
    assert key is not None
    assert key.last_used_at == datetime.fromtimestamp(NOW, UTC)
    clock.move(1)
    assert await at_once() == 1
    # Another process, which remembers nothing of these writes, sees them in the row.
    with database.statements() as statements:
        await database.auth(clock=clock).verify(raw)
    assert uses(statements) == 0


async def test_last_used_at_by_two_processes_at_once(database: Database) -> None:
    """The write compares the row, so that what was read before another process wrote does not count."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)
    await keys.aclose()
    read_before = await keys.get(key_id)
    assert read_before is not None
    clock.move(30)
    other = database.auth(clock=clock)
    other._uses.note(replace(read_before, last_used_at=None), Use(clock(), None))
    await other.aclose()
    key = await keys.get(key_id)
    assert key is not None
    assert key.last_used_at == datetime.fromtimestamp(NOW, UTC)


async def test_a_failed_write_of_last_used_at(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The request succeeds although its use cannot be written: a warning in the log, and no second attempt at once."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice", scopes=["items:read"])

    def fail(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE"):
            raise sqlite3.OperationalError("the disk is full")

    event.listen(database.sync_engine, "before_cursor_execute", fail)
    try:
        for _ in range(2):
            assert (await ask(keys, b"Bearer " + raw.encode())).status == 200
        await keys.aclose()
    finally:
        event.remove(database.sync_engine, "before_cursor_execute", fail)
    assert [record.message for record in caplog.records if "last_used_at" in record.message] == [
        "last_used_at of 1 API keys could not be written"
    ]
    assert (await keys.get(key_id)).last_used_at is None  # type: ignore[union-attr]


async def test_uses_are_remembered_within_bounds(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of uses is bounded."""
    monkeypatch.setattr("fastapi_guard.api_key.last_use._MAX_KNOWN", 2)
    keys = sqlite.auth()
    raws = [(await keys.create(user_id="alice")).raw for _ in range(4)]
    for raw in raws:
        await keys.verify(raw)
    assert len(keys._uses._noted) == 2


async def test_peppers(database: Database) -> None:
    """New keys get the newest pepper, the older ones verify, and another deployment's keys do not."""
    old = database.auth(peppers={"1": PEPPERS["1"]})
    _, old_raw = await old.create(user_id="alice")
    both = database.auth(peppers=Peppers(PEPPERS))
    new_id, new_raw = await both.create(user_id="alice")
    assert (await both.verify(old_raw))["sub"] == (await both.verify(new_raw))["sub"] == "alice"
    pepper = await database.within(lambda session: session.get_one(APIKey, new_id).pepper)
    assert pepper == "2"
    assert await reason_of(old, new_raw) == "bad_secret"
    assert await reason_of(database.auth(), new_raw) == "bad_secret"
    assert await reason_of(database.auth(peppers={"2": "another-deployments-pepper"}), new_raw) == "bad_secret"


async def test_keys_without_a_pepper(database: Database) -> None:
    """An Auth with peppers accepts keys without one until it requires one; a rotation adds one."""
    key_id, raw = await database.auth().create(user_id="alice")
    lax, strict = database.auth(peppers=PEPPERS), database.auth(peppers=PEPPERS, require_pepper=True)
    assert (await lax.verify(raw))["sub"] == "alice"
    assert await reason_of(strict, raw) == "no_pepper"
    _, rotated = await strict.rotate(key_id)
    assert (await strict.verify(rotated))["sub"] == "alice"


async def test_the_class_and_an_instance(database: Database) -> None:
    """On the class a key has no pepper and the default prefix, on an instance its settings, in the caller's session."""
    keys = database.auth(peppers=PEPPERS, prefix="acme", require_expiry=True)
    soon = datetime.now(UTC) + timedelta(days=1)
    key_id, raw = await database.within(lambda session: keys.create_key(session, user_id="alice", expires_at=soon))
    assert raw.startswith("acme-")
    assert (await keys.verify(raw))["key_id"] == key_id
    _, plain = await database.within(lambda session: DatabaseAPIKeyAuth.create_key(session, user_id="alice"))
    assert plain.startswith("sk-")
    assert (await database.auth().verify(plain))["sub"] == "alice"
    assert await reason_of(keys, plain) == "malformed"
    assert await database.within(lambda session: keys.revoke_key(session, key_id, by="root")) is True
    assert await database.within(lambda session: keys.revoke_key(session, key_id)) is False
    assert await reason_of(keys, raw) == "revoked"
    assert DatabaseAPIKeyAuth.create_key.__doc__
    with pytest.raises(KeyNotFound):
        await database.within(lambda session: keys.revoke_key(session, "0" * 16))


async def test_the_caller_commits(database: Database) -> None:
    """A key of a session that is rolled back was never there, and a revocation that is rolled back neither."""
    keys = database.auth(cache_ttl=60)

    def create(session: Session) -> str:
        raw = DatabaseAPIKeyAuth.create_key(session, user_id="alice").raw
        session.flush()
        session.rollback()
        return raw

    assert await reason_of(keys, await database.within(create)) == "unknown_key"
    key_id, raw = await keys.create(user_id="alice")
    await keys.verify(raw)

    def revoke(session: Session) -> None:
        keys.revoke_key(session, key_id)
        session.rollback()

    await database.within(revoke)
    assert (await keys.verify(raw))["sub"] == "alice"


async def test_created_and_revoked_in_one_session(database: Database) -> None:
    """A key that was only added to a session can be revoked in it."""

    def both(session: Session) -> str:
        key_id, raw = DatabaseAPIKeyAuth.create_key(session, user_id="alice")
        assert DatabaseAPIKeyAuth.revoke_key(session, key_id)
        return raw

    assert await reason_of(database.auth(), await database.within(both)) == "revoked"


async def test_a_session_of_asyncio(sqlite: Database, tmp_path: Any) -> None:
    """A key is created in an AsyncSession too; the error of revocation has the call for an AsyncSession."""
    database = Database.of(make_url(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"))
    keys = database.auth()
    async with AsyncSession(database.engine) as session:  # type: ignore[arg-type]
        key_id, raw = DatabaseAPIKeyAuth.create_key(session, user_id="alice")
        await session.commit()
        assert (await keys.verify(raw))["sub"] == "alice"
        with pytest.raises(TypeError, match=r"await session.run_sync\(keys.revoke_key, ...\)"):
            keys.revoke_key(session, key_id)  # type: ignore[arg-type]
        assert await session.run_sync(keys.revoke_key, key_id)
        await session.commit()
    assert await reason_of(keys, raw) == "revoked"
    await database.dispose()


async def test_require_expiry(database: Database) -> None:
    """Keys without an expiry are refused at creation, at rotation and at verification; with one they hold."""
    key_id, raw = await database.auth().create(user_id="alice")
    keys = database.auth(require_expiry=True)
    assert await reason_of(keys, raw) == "no_expiry"
    with pytest.raises(ValueError, match="expires_at is required here"):
        await keys.create(user_id="alice")
    with pytest.raises(ValueError, match="expires_at is required here"):
        await database.within(lambda session: keys.create_key(session, user_id="alice"))
    with pytest.raises(ValueError, match=f"the API key {key_id} has none"):
        await keys.rotate(key_id)
    assert (await keys.get(key_id)).replaced_by is None  # type: ignore[union-attr]
    _, rotated = await keys.rotate(key_id, expires_at=datetime.now(UTC) + timedelta(days=1))
    assert (await keys.verify(rotated))["sub"] == "alice"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "naive": ({"expires_at": datetime(2030, 1, 1)}, "naive datetime"),  # noqa: DTZ001 - that is the point
    "a number": ({"expires_at": 1_900_000_000}, "is an aware datetime"),
    "past the calendar": ({"expires_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=9)))}, "outside of"),
    "no user": ({"user_id": ""}, "cannot be empty"),
    "None": ({"user_id": None}, "user_id is a text"),
    "a number for a user": ({"user_id": 7}, "user_id is a text"),
    "NUL": ({"user_id": "a\x00b"}, "user_id is a text"),
    "surrogate": ({"name": "\ud800"}, "name is a text"),
    "long": ({"name": "n" * 256}, "name is a text"),
    "line feed": ({"tenant_id": "a\nb"}, "tenant_id is a text"),
    "actor": ({"by": 5}, "by is a text"),
    "one scope": ({"scopes": "items:read"}, "scopes is a list"),
    "no list": ({"scopes": 5}, "scopes is a list"),
    "two scopes in one": ({"scopes": ["items:read items:write"]}, "is not a scope"),
    "is_admin": ({"is_admin": 1}, "is_admin is True or False"),
    "subject type": ({"subject_type": "robot"}, "subject_type is one of"),
    "metadata": ({"metadata": {"when": datetime.now(UTC)}}, "metadata is a JSON object"),
    "NaN": ({"metadata": {"x": float("nan")}}, "metadata is a JSON object"),
    "metadata surrogate": ({"metadata": {"x": "\ud800"}}, "metadata is a JSON object"),
    "metadata list": ({"metadata": ["x"]}, "metadata is a JSON object"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_a_key_cannot_be_given(sqlite: Database, wrong: str) -> None:
    """Each field is checked before anything is stored."""
    fields, message = WRONG[wrong]
    keys = sqlite.auth()
    given: dict[str, Any] = {"user_id": "alice", **fields}
    with pytest.raises(ValueError, match=message):
        await keys.create(**given)
    with pytest.raises(ValueError, match=message):
        await sqlite.within(lambda session: DatabaseAPIKeyAuth.create_key(session, **given))
    assert await keys.list() == []


async def test_a_field_that_is_not_there(sqlite: Database) -> None:
    """A misspelt field is a TypeError that names it."""
    with pytest.raises(TypeError, match="a key has no scope"):
        await sqlite.auth().create(user_id="alice", scope="items:read")  # type: ignore[call-arg]


async def test_a_naive_moment_for_rotation(sqlite: Database) -> None:
    """Rotation refuses a naive expiry and a negative overlap, and bounds an endless one."""
    keys = sqlite.auth()
    key_id, raw = await keys.create(user_id="alice")
    with pytest.raises(ValueError, match="naive"):
        await keys.rotate(key_id, expires_at=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="negative"):
        await keys.rotate(key_id, overlap=timedelta(seconds=-1))
    await keys.rotate(key_id, overlap=timedelta.max)
    assert (await keys.verify(raw))["exp"] > NOW


@at_most(40, HealthCheck.function_scoped_fixture)
@given(
    name=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=255),
    metadata=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
        max_size=5,
    ),
    seconds=st.integers(1, 10**9),
)
async def test_whatever_goes_in_comes_out(database: Database, name: str, metadata: Any, seconds: int) -> None:
    """Any name, metadata and expiry comes back in the claims as it was given."""
    keys = database.auth(clock=Clock(NOW))
    expires_at = datetime.fromtimestamp(NOW + seconds, UTC)
    _, raw = await keys.create(user_id="alice", name=name, metadata=metadata, expires_at=expires_at)
    claims = await keys.verify(raw)
    assert (claims["name"], claims["metadata"], claims["exp"]) == (name, metadata, NOW + seconds)


class OwnBase(DeclarativeBase):
    """The declarative base of an application."""


class Account(OwnBase):
    """A table of the application."""

    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(String(50), primary_key=True)


class OwnKey(APIKeyMixin, OwnBase):
    """Keys on the application's base, under another name, with a constraint and a column of its own."""

    __tablename__ = "own_keys"
    user_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    team: Mapped[str | None] = mapped_column(String(20))


class OwnEvent(APIKeyEventMixin, OwnBase):
    """Their events."""

    __tablename__ = "own_key_events"


async def test_the_mixins_on_an_own_base(database: Database) -> None:
    """The mixins work on the application's base; what its constraints refuse is a KeyConflict."""

    def tables(session: Session) -> None:
        OwnBase.metadata.drop_all(session.connection())
        OwnBase.metadata.create_all(session.connection())
        session.add(Account(id="alice"))
        if session.get_bind().dialect.name == "sqlite":
            session.execute(text("CREATE UNIQUE INDEX one_name ON own_keys (name)"))

    await database.within(tables)
    keys = database.auth(model=OwnKey, event_model=OwnEvent)
    key_id, raw = await keys.create(user_id="alice", name="ci")
    assert (await keys.verify(raw))["sub"] == "alice"
    twice = {"name": "ci", "user_id": "alice"} if database.sync_engine.dialect.name == "sqlite" else {"user_id": "eve"}
    with pytest.raises(KeyConflict, match="the database refused the API key"):
        await keys.create(**twice)  # type: ignore[arg-type]
    await keys.revoke(key_id)
    assert await reason_of(keys, raw) == "revoked"
    assert await database.within(lambda session: session.scalar(select(func.count()).select_from(OwnEvent))) == 2
    assert await database.within(lambda session: session.scalar(select(func.count()).select_from(APIKey))) == 0

    def change(session: Session) -> None:
        session.scalars(select(OwnEvent)).first().actor = "nobody"  # type: ignore[union-attr]

    with pytest.raises(GuardError, match="append-only"):
        await database.within(change)
    await database.within(lambda session: OwnBase.metadata.drop_all(session.connection()))


async def test_a_row_that_somebody_edited(database: Database) -> None:
    """Scopes of another type than a list of texts grant nothing; metadata of another type than an object is empty."""
    keys = database.auth()
    _, raw = await keys.create(user_id="alice", scopes=["items:read"])
    for scopes, expected in (("*", ""), (["items:read", 5, None], "items:read"), ({"*": 1}, "")):
        await database.within(lambda session, new=scopes: session.execute(update(APIKey).values(scopes=new)))  # type: ignore[misc]
        assert (await keys.verify(raw))["scope"] == expected
    for metadata in (["x"], "x", 5, None):
        await database.within(lambda session, new=metadata: session.execute(update(APIKey).values(metadata_=new)))  # type: ignore[misc]
        assert (await keys.verify(raw))["metadata"] == {}


async def test_a_row_that_cannot_be_read(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A row whose columns cannot be decoded is a 503 for its own key alone, whose log shows no value."""
    keys = sqlite.auth()
    key_id, raw = await keys.create(user_id="alice")
    _, other = await keys.create(user_id="bob")
    for broken in (
        "scopes = '[secret'",
        "metadata = 'secret'",
        f"metadata = '{'[' * 200_000}'",
        "created_at = 'secret'",
        "created_at = 5",
    ):
        statement = text(f"UPDATE api_keys SET {broken} WHERE key_id = '{key_id}'")  # noqa: S608 - of this test
        await sqlite.within(lambda session, statement=statement: session.execute(statement))  # type: ignore[misc]
        failed, found = await asyncio.gather(keys.verify(raw), keys.verify(other), return_exceptions=True)
        assert isinstance(failed, ServiceUnavailable)
        assert failed.reason == "unreadable_key"
        assert isinstance(found, dict)
        assert await reason_of(keys, other_secret(raw)) == "bad_secret"
        assert caplog.messages == [f"the row of the API key {key_id} cannot be read"]
        assert "secret" not in caplog.text
        caplog.clear()


@pytest.mark.parametrize("name", ["allowed_networks", "allowed_origins"])
@pytest.mark.parametrize("value", ["192.0.2.0/24", [1], {"192.0.2.0/24": True}, 5, [["192.0.2.0/24"]]])
async def test_a_restriction_that_somebody_edited(database: Database, name: str, value: object) -> None:
    """Networks and origins of another type than a list of texts are a 503: without them the key works anywhere."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")
    await database.within(lambda session: session.execute(update(APIKey).values({name: value})))
    for read in (keys.verify(raw), keys.get(key_id), keys.list()):
        with pytest.raises(ServiceUnavailable) as failed:
            await read
        assert failed.value.reason == "unreadable_key"


@pytest.mark.parametrize("broken", ["quota_seconds = 0", "quota_seconds = 'day'", "quota = 'many'", "quota = 1.5"])
async def test_a_quota_that_somebody_edited(sqlite: Database, broken: str) -> None:
    """A quota that is not a whole number, or whose period never ends, is a 503."""
    keys = sqlite.auth(usage=MemoryStore())
    _, raw = await keys.create(user_id="alice", quota=5, quota_period=timedelta(days=1))
    await sqlite.within(lambda session: session.execute(text(f"UPDATE api_keys SET {broken}")))  # noqa: S608 - of this test
    with pytest.raises(ServiceUnavailable) as failed:
        await keys.verify(raw)
    assert failed.value.reason == "unreadable_key"


async def test_revoking_keys_of_which_one_cannot_be_read(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Keys are revoked with their subject and their maker also if a row cannot be read, which a list reports."""
    keys = sqlite.auth()
    key_id, raw = await keys.create(user_id="alice")
    _, made = await keys.create(user_id="alice", maker_key=key_id)
    _, other = await keys.create(user_id="alice")
    broken = text("UPDATE api_keys SET scopes = '[secret' WHERE maker_key_id IS NOT NULL")
    await sqlite.within(lambda session: session.execute(broken))
    with pytest.raises(ServiceUnavailable) as failed:
        await keys.list(user_id="alice")
    assert caplog.messages == [str(failed.value.__cause__)] == ["a row of the API keys cannot be read"]
    assert await keys.revoke(key_id)
    await sqlite.within(lambda session: session.execute(text("UPDATE api_keys SET scopes = '[]'")))
    assert [await reason_of(keys, key) for key in (raw, made)] == ["revoked", "revoked"]
    await sqlite.within(lambda session: session.execute(text("UPDATE api_keys SET scopes = '[secret'")))
    assert await keys.revoke_subject("alice") == 1
    await sqlite.within(lambda session: session.execute(text("UPDATE api_keys SET scopes = '[]'")))
    assert await reason_of(keys, other) == "revoked"


async def test_a_row_is_decoded_again_when_it_has_changed(database: Database) -> None:
    """Every column counts with the next look-up, and claims that an endpoint edited are not those of the next one."""
    keys = database.auth(clock=lambda: NOW)
    key_id, raw = await keys.create(user_id="alice", scopes=["a"], metadata={"teams": ["red"]})
    changes: dict[str, Any] = {"name": "ci", "user_id": "bob", "scopes": ["b"], "metadata_": {"teams": ["blue"]}}
    for field, value in changes.items():
        for _ in range(2):
            (await keys.verify(raw))["metadata"]["teams"].append("green")
        before = await keys.verify(raw)
        assert "green" not in before["metadata"]["teams"]
        await database.within(lambda session, new={field: value}: session.execute(update(APIKey).values(new)))  # type: ignore[misc]
        after = await keys.verify(raw)
        assert len([name for name in after if after[name] != before[name]]) == 1
    await keys.pause(key_id)
    assert await reason_of(keys, raw) == "paused"
    await keys.resume(key_id)
    assert (await keys.verify(raw))["sub"] == "bob"


async def test_decoded_rows_are_kept_within_bounds(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of decoded rows is bounded, and a key whose row is no longer in it is verified all the same."""
    monkeypatch.setattr("fastapi_guard.api_key.lookup._ROWS_KEPT", 2)
    keys = sqlite.auth()
    raws = [(await keys.create(user_id="alice")).raw for _ in range(4)]
    for raw in (*raws, raws[0]):
        assert (await keys.verify(raw))["sub"] == "alice"
    assert keys._lookup._decoded.cache_info().currsize == 2


async def test_events_and_log(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A change of a key is published once it is committed, with its id and its owner."""
    caplog.set_level(logging.INFO, "fastapi_guard")
    seen: list[Event] = []
    keys = sqlite.auth(on_event=seen.append, name="robots")
    key_id, _ = await keys.create(user_id="alice", by="root")
    new_id, _ = await keys.rotate(key_id, by="alice")
    await keys.revoke(new_id)
    await keys.revoke(new_id)
    other_id, _ = await sqlite.within(lambda session: keys.create_key(session, user_id="bob"))
    await sqlite.within(lambda session: keys.revoke_key(session, other_id, by="root"))
    assert seen == [
        Event("key_created", "robots", key_id=key_id, subject="alice", actor="root"),
        Event("key_rotated", "robots", key_id=key_id, actor="alice"),
        Event("key_created", "robots", key_id=new_id, actor="alice"),
        Event("key_revoked", "robots", key_id=new_id),
        Event("key_revoked", "robots", key_id=key_id, subject="alice"),
        Event("key_created", "robots", key_id=other_id, subject="bob"),
        Event("key_revoked", "robots", key_id=other_id, actor="root"),
    ]
    assert caplog.messages[0] == f"key_created of robots: {key_id}, of 'alice', by 'root'"
    assert caplog.messages[3] == f"key_revoked of robots: {new_id}, of None, by None"


async def test_sessions_of_other_kinds(sqlite: Database) -> None:
    """A factory that is bound late, to a connection, or by binds works as one bound to an engine does."""
    late = sessionmaker()
    keys = DatabaseAPIKeyAuth(late)
    with pytest.raises(ServiceUnavailable):
        await keys.verify(KeyFormat().generate().raw)
    late.configure(bind=sqlite.engine)
    key_id, raw = await keys.create(user_id="alice")
    assert (await keys.verify(raw))["key_id"] == key_id
    by_model = DatabaseAPIKeyAuth(sessionmaker(binds={APIKey: sqlite.sync_engine, APIKeyEvent: sqlite.sync_engine}))
    assert (await by_model.verify(raw))["key_id"] == key_id
    memory = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    APIKey.metadata.create_all(memory)
    with memory.connect() as connection:
        bound = DatabaseAPIKeyAuth(sessionmaker(bind=connection))
        _, inside = await bound.create(user_id="alice")
        assert (await bound.verify(inside))["sub"] == "alice"
    memory.dispose()


async def test_unknown_keys_at_once_in_sessions_of_other_kinds(sqlite: Database) -> None:
    """An unknown key that is looked up together with another one is refused, also where no decoy is returned."""
    engine = sqlite.sync_engine
    keys = DatabaseAPIKeyAuth(sessionmaker(binds={APIKey: engine, APIKeyEvent: engine}), timeout=60)
    _, raw = await keys.create(user_id="alice")
    presented = (KeyFormat().generate().raw, raw, KeyFormat().generate().raw)
    first, claims, last = await asyncio.gather(*(keys.verify(one) for one in presented), return_exceptions=True)
    assert isinstance(claims, dict)
    assert claims["sub"] == "alice"
    for refused in (first, last):
        assert isinstance(refused, Unauthorized)
        assert (refused.detail, refused.reason) == (INVALID, "unknown_key")


async def test_async_sessions_of_other_kinds(tmp_path: Any, anyio_backend: str) -> None:
    """An async factory that is bound to a connection, and one of another class, are used through their sessions."""

    class OwnSession(AsyncSession):
        """A session of the application."""

    database = Database.of(make_url(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"))
    await database.create_tables()
    own = type(database.factory)(database.engine, class_=OwnSession)
    _, raw = await DatabaseAPIKeyAuth(own).create(user_id="alice")
    async with database.engine.connect() as connection:  # type: ignore[union-attr]
        keys = DatabaseAPIKeyAuth(type(database.factory)(connection))
        assert (await keys.verify(raw))["sub"] == "alice"
    await database.dispose()


def test_a_database_in_the_memory_of_one_thread() -> None:
    """A SQLite database that other threads would not see is refused with the remedy."""
    engine = create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match="poolclass=StaticPool"):
        DatabaseAPIKeyAuth(sessionmaker(engine))
    engine.dispose()


async def test_prune_deletes_counts_that_do_not_expire(database: Database) -> None:
    """The count of a quota that is never refilled goes with the last of the keys that share it, and not before."""
    clock = Clock(NOW)
    counts = MemoryStore(clock=clock)
    keys = database.auth(clock=clock, usage=counts)
    alone, shared, other = [await keys.create(user_id="alice", quota=5) for _ in range(3)]
    refilled = await keys.create(user_id="alice", quota=5, quota_period=timedelta(days=365))
    for new in (alone, shared, other, refilled):
        await keys.verify(new.raw)
    replaced = await keys.rotate(shared.key_id)
    for key_id in (alone.key_id, refilled.key_id):
        await keys.revoke(key_id)
    await database.within(
        lambda session: session.execute(update(APIKey).values(usage_id=None).where(APIKey.key_id == alone.key_id))
    )

    def counted() -> set[str]:
        return {key.removeprefix("key-usage:") for key in counts._records}

    clock.move(timedelta(days=30))
    assert await database.auth(clock=clock).prune(ended_for=timedelta(days=31)) == 0
    assert await keys.prune(ended_for=timedelta(days=31)) == 0
    assert counted() == {alone.key_id, shared.key_id, other.key_id, refilled.key_id}
    assert await keys.prune(ended_for=timedelta(days=30)) == 3
    assert counted() == {shared.key_id, other.key_id, refilled.key_id}
    assert [state.remaining for state in await keys.usage(replaced.key_id)] == [4]
    await keys.revoke(replaced.key_id)
    assert await keys.prune(ended_for=timedelta(0)) == 1
    assert counted() == {other.key_id, refilled.key_id}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "no prefix"}, "cannot begin a key"),
        ({"cache_ttl": -1}, "cache_ttl is a timedelta"),
        ({"cache_ttl": timedelta(seconds=-1)}, "cache_ttl is a timedelta"),
        ({"timeout": 0}, "timeout is a timedelta or a number of seconds, more than 0"),
        ({"timeout": float("inf")}, "timeout is a timedelta"),
        ({"timeout": float("nan")}, "timeout is a timedelta"),
        ({"cache_ttl": 5, "cache_size": 0}, "cache_size is at least 1"),
        ({"cache_size": 10}, "cache_size and fresh_within belong to a cache"),
        ({"trusted_proxies": -1}, "trusted_proxies is a number of proxies"),
        ({"trusted_proxies": True}, "trusted_proxies is a number of proxies"),
        ({"environments": ["Live"]}, "environments are names"),
        ({"require_pepper": True}, "require_pepper rejects every key"),
        ({"peppers": {"1": "short"}}, "shorter than 16 bytes"),
    ],
    ids=str,
)
async def test_settings_that_could_not_work(sqlite: Database, options: dict[str, Any], message: str) -> None:
    """A setting that cannot work is an error at construction; the same without it is accepted."""
    with pytest.raises(ConfigurationError, match=message):
        sqlite.auth(**options)
    sqlite.auth()


@pytest.mark.parametrize("wrong", ["engine", "session", "nothing"])
def test_what_is_no_session_factory(wrong: str) -> None:
    """An engine, a session and None are refused with what to pass."""
    engine = create_engine("sqlite://")
    given = {"engine": engine, "session": Session(engine), "nothing": None}[wrong]
    with pytest.raises(ConfigurationError, match="pass a factory"):
        DatabaseAPIKeyAuth(given)  # type: ignore[arg-type]
    engine.dispose()
