"""Keys are paused, resumed, counted, and end with their subject."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from api_key.databases import Database
from fastapi_guard import TooManyRequests
from fastapi_guard.api_key import rows
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.format import NewKey
from fastapi_guard.api_key.models import APIKey, APIKeyEvent
from fastapi_guard.api_key.rows import DraftKey
from fastapi_guard.claims import Subject
from fastapi_guard.events import Event
from fastapi_guard.exceptions import KeyConflict, KeyNotFound
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.redis import until

NOW = 1_800_000_000
ISSUER = "https://id.example"


async def test_pause_and_resume(database: Database) -> None:
    """A paused key is rejected until it is resumed; what happened is recorded, and published once."""
    seen: list[Event] = []
    clock = Clock(NOW)
    keys = database.auth(on_event=seen.append, clock=clock)
    key_id, raw = await keys.create(user_id="alice")
    seen.clear()
    assert [await keys.pause(key_id, by="root"), await keys.pause(key_id, by="late")] == [True, False]
    paused = await keys.get(key_id)
    assert paused is not None
    assert (paused.paused_at, paused.paused_by) == (datetime.fromtimestamp(NOW, UTC), "root")
    assert paused.status(datetime.fromtimestamp(NOW, UTC)) == "paused"
    assert not await keys.validate_token(raw)
    assert await keys.list(active_only=True) == []
    assert [await keys.resume(key_id, by="root"), await keys.resume(key_id)] == [True, False]
    assert (await keys.verify(raw))["sub"] == "alice"
    resumed = await keys.get(key_id)
    assert resumed is not None
    assert (resumed.paused_at, resumed.paused_by) == (None, None)
    assert [event for event in seen if event.name.startswith("key_")] == [
        Event("key_paused", "api-key", key_id=key_id, actor="root"),
        Event("key_resumed", "api-key", key_id=key_id, actor="root"),
    ]
    recorded = await database.within(
        lambda session: [
            (row.event, row.actor) for row in session.scalars(select(APIKeyEvent).order_by(APIKeyEvent.id))
        ]
    )
    assert sorted(recorded) == [("created", None), ("paused", "root"), ("resumed", "root")]


@pytest.mark.parametrize("switch", ["pause", "resume"])
async def test_what_cannot_be_paused(database: Database, switch: str) -> None:
    """A revoked key stays revoked, and an unknown one is a KeyNotFound."""
    keys = database.auth()
    key_id, _ = await keys.create(user_id="alice")
    await keys.revoke(key_id)
    with pytest.raises(KeyConflict, match=f"the API key {key_id} was revoked"):
        await getattr(keys, switch)(key_id)
    for unknown in ("0" * 16, "x\x00"):
        with pytest.raises(KeyNotFound):
            await getattr(keys, switch)(unknown)


async def test_a_paused_key_that_expires(database: Database) -> None:
    """An expiry counts while a key is paused, and a paused key can be revoked."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    moment = datetime.fromtimestamp(NOW + 60, UTC)
    key_id, _ = await keys.create(user_id="alice", expires_at=moment)
    await keys.pause(key_id)
    paused = await keys.get(key_id)
    assert paused is not None
    assert [paused.status(moment - timedelta(seconds=1)), paused.status(moment)] == ["paused", "expired"]
    assert await keys.revoke(key_id)


async def test_revoke_a_subject(database: Database) -> None:
    """The keys of a subject and those it made end with it; its name at another issuer, and service accounts, do not."""
    seen: list[Event] = []
    keys = database.auth(on_event=seen.append)
    alice = Subject(None, "alice")
    own = await keys.create(user_id="alice")
    agent = await keys.create(user_id="agent-7", subject_type="agent", maker=alice)
    elsewhere = await keys.create(user_id="alice", issuer=ISSUER)
    made_elsewhere = await keys.create(user_id="agent-8", maker=Subject(ISSUER, "alice"))
    service = await keys.create(user_id="service-1", subject_type="service", maker=alice, outlives_maker=True)
    other = await keys.create(user_id="bob")
    seen.clear()
    assert await keys.revoke_subject("alice", by="root") == 2
    assert await keys.revoke_subject("alice", by="root") == 0
    assert {event.key_id for event in seen if event.name == "key_revoked"} == {own.key_id, agent.key_id}
    assert {event.actor for event in seen} == {"root"}
    accepted = {key.key_id for key in (own, agent, elsewhere, made_elsewhere, service, other)}
    accepted -= {own.key_id, agent.key_id}
    assert {key.key_id for key in await keys.list(active_only=True)} == accepted
    assert await keys.revoke_subject("alice", issuer=ISSUER) == 2
    assert not await keys.validate_token(made_elsewhere.raw)
    assert await keys.validate_token(service.raw)
    assert await keys.revoke_subject("service-1") == 1


async def test_a_key_ends_the_keys_that_it_made(database: Database) -> None:
    """Those that these made too, wherever it is revoked; one that outlives its maker goes on."""
    seen: list[Event] = []
    keys = database.auth(on_event=seen.append)
    root = await keys.create(user_id="alice")
    child = await keys.create(user_id="agent-1", maker_key=root.key_id)
    grandchild = await keys.create(user_id="agent-2", maker_key=child.key_id)
    service = await keys.create(user_id="service-1", maker_key=root.key_id, outlives_maker=True)
    other = await keys.create(user_id="bob")
    assert await keys.revoke(root.key_id, by="alice")
    assert not await keys.revoke(root.key_id)
    revoked = [event for event in seen if event.name == "key_revoked"]
    assert [event.key_id for event in revoked] == [root.key_id, child.key_id, grandchild.key_id]
    assert {event.actor for event in revoked} == {"alice"}
    accepted = [raw for _, raw in (root, child, grandchild, service, other) if await keys.validate_token(raw)]
    assert accepted == [service.raw, other.raw]
    with pytest.raises(KeyConflict, match="was revoked, so it makes no other key"):
        await keys.create(user_id="agent-3", maker_key=root.key_id)


async def test_a_key_ends_the_keys_that_it_made_in_a_session_of_the_caller(database: Database) -> None:
    """They end in the transaction that revokes it, and each is an event."""
    seen: list[Event] = []
    keys = database.auth(on_event=seen.append)
    root = await keys.create(user_id="alice")
    child = await keys.create(user_id="agent-1", maker_key=root.key_id)
    assert await database.within(lambda session: keys.revoke_key(session, root.key_id, by="root")) is True
    assert not await keys.validate_token(child.raw)
    revoked = [(event.key_id, event.actor) for event in seen if event.name == "key_revoked"]
    assert revoked == [(root.key_id, "root"), (child.key_id, "root")]


async def test_keys_of_a_key_that_was_rotated(database: Database) -> None:
    """They end with the new key, and not with the old one."""
    keys = database.auth()
    old = await keys.create(user_id="alice")
    child = await keys.create(user_id="agent-1", maker_key=old.key_id)
    new = await keys.rotate(old.key_id, overlap=timedelta(hours=1))
    await keys.revoke(old.key_id)
    assert await keys.validate_token(child.raw)
    replaced = await keys.rotate(child.key_id)
    await keys.revoke(new.key_id)
    assert not await keys.validate_token(replaced.raw)


@pytest.mark.parametrize("revoked", [0, 1, 2])
async def test_keys_that_a_rotated_key_makes_in_its_overlap(database: Database, revoked: int) -> None:
    """They end with their maker, and with each key that has replaced it since, as the maker itself does."""
    keys = database.auth()
    made, chain = [], [await keys.create(user_id="alice")]
    for number in range(2):
        chain.append(await keys.rotate(chain[-1].key_id, overlap=timedelta(hours=1)))
        made.append(await keys.create(user_id=f"agent-{number}", maker_key=chain[number].key_id))
    child = await keys.create(user_id="agent-1", maker_key=made[0].key_id)
    other = await keys.create(user_id="alice")
    await keys.revoke(chain[revoked].key_id)
    valid = [bool(await keys.validate_token(key.raw)) for key in (*made, child, other)]
    assert valid == [False, revoked == 0, False, True]
    assert [bool(await keys.validate_token(key.raw)) for key in chain] == [number > revoked for number in range(3)]


async def test_a_subject_ends_the_keys_of_its_keys(database: Database) -> None:
    """`revoke_subject` reaches the keys that the keys of the subject made."""
    keys = database.auth()
    own = await keys.create(user_id="alice")
    made = await keys.create(user_id="agent-1", maker_key=own.key_id)
    assert await keys.revoke_subject("alice") == 2
    assert not await keys.validate_token(made.raw)


async def test_a_key_that_is_made_while_its_maker_is_revoked(database: Database) -> None:
    """A draft of before is not stored after."""
    keys = database.auth()
    maker = await keys.create(user_id="alice")
    draft = keys.draft(user_id="agent-1", maker_key=maker.key_id)
    await keys.revoke(maker.key_id)
    with pytest.raises(KeyConflict, match=maker.key_id):
        await keys.add(draft)
    assert [key.key_id for key in await keys.list()] == [maker.key_id]


@pytest.mark.parametrize("way", ["add", "create_key"])
async def test_a_key_that_is_made_by_a_key_that_has_ended(database: Database, way: str) -> None:
    """A key makes no other one once it was rotated, has expired, was revoked or is paused."""
    keys = database.auth()
    ends: dict[str, Any] = {"has expired": keys.rotate, "is paused": keys.pause, "was revoked": keys.revoke}
    for how, end in ends.items():
        maker = await keys.create(user_id="alice")
        draft = keys.draft(user_id="agent-1", maker_key=maker.key_id)
        await end(maker.key_id)
        with pytest.raises(KeyConflict, match=f"the API key {maker.key_id} {how}, so it makes no other key"):
            await made(database, keys, draft, way)
    with pytest.raises(KeyConflict, match="does not exist, so it makes no other key"):
        await made(database, keys, keys.draft(user_id="agent-1", maker_key="0" * 16), way)
    assert await keys.list(user_id="agent-1") == []
    maker = await keys.create(user_id="alice")
    new = await made(database, keys, keys.draft(user_id="agent-1", maker_key=maker.key_id), way)
    await keys.revoke(maker.key_id)
    assert not await keys.validate_token(new.raw)


async def made(database: Database, keys: DatabaseAPIKeyAuth, draft: DraftKey, way: str) -> NewKey:
    """Store the key of a draft, or one like it in a session of the application."""
    if way == "add":
        return await keys.add(draft)
    fields: Any = {"user_id": draft.key.user_id, "maker_key": draft.key.maker_key_id}
    return await database.within(lambda session: keys.create_key(session, **fields))


async def test_a_key_that_a_key_makes_in_an_async_session(database: Database) -> None:
    """It is created in `run_sync`, where the key that makes it can be locked."""
    keys = database.auth()
    maker = await keys.create(user_id="alice")
    with pytest.raises(TypeError, match="run_sync"):
        keys.create_key(AsyncSession(), user_id="agent-1", maker_key=maker.key_id)


async def test_a_rotation_while_the_subject_is_revoked(postgres_url: URL) -> None:
    """A rotation that is committed meanwhile leaves no key: the new one is revoked too."""
    database = Database.of(postgres_url.set(drivername="postgresql+asyncpg"))
    await database.create_tables()
    keys = database.auth()
    old = await keys.create(user_id="alice")
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE api_keys%'"
    )
    async with database.factory() as session, database.factory() as other:
        new = await session.run_sync(lambda inner: keys._rows.rotate(inner, old.key_id, overlap=timedelta(hours=1)))
        ending = asyncio.create_task(keys.revoke_subject("alice"))

        async def is_waiting() -> bool:
            await other.rollback()
            return bool(await other.scalar(waiting))

        await until(is_waiting)
        await session.commit()
    assert await ending == 2
    assert [await keys.validate_token(raw) for raw in (old.raw, new.raw)] == [False, False]
    await database.dispose()


async def test_keys_end_with_the_revocation_of_a_subject(sqlite: Database) -> None:
    """`Revocations(ends=[keys])` ends the keys of a subject with its tokens, also where a session goes on."""
    keys = sqlite.auth()
    for keep in (None, "session-id"):
        _, raw = await keys.create(user_id="alice")
        assert await Revocations(MemoryStore(), ends=[keys]).revoke_subject("alice", keep=keep) == 1
        assert not await keys.validate_token(raw)


@pytest.mark.parametrize("subject", ["x" * 3000, "x" * 65_536, "a\x00b", "\ud800", ""])
async def test_a_subject_that_no_key_can_have(database: Database, subject: str) -> None:
    """A subject that fits no column has no keys, and the database is not queried for it."""
    keys = database.auth()
    _, raw = await keys.create(user_id="alice")
    assert await keys.revoke_subject(subject) == 0
    assert await keys.revoke_subject("alice", issuer=subject or "-") == 0
    assert await keys.validate_token(raw)


async def test_a_key_remembers_its_issuer(database: Database) -> None:
    """The issuer of the owner is in the claims, in the list, and goes over to the key that replaces it."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice", issuer=ISSUER, maker=Subject(ISSUER, "alice"))
    assert (await keys.verify(raw))["iss"] == ISSUER
    new_id, new_raw = await keys.rotate(key_id)
    assert (await keys.verify(new_raw))["iss"] == ISSUER
    new = await keys.get(new_id)
    assert new is not None
    assert (new.owner, new.maker) == (Subject(ISSUER, "alice"), Subject(ISSUER, "alice"))
    local, local_raw = await keys.create(user_id="alice")
    assert "iss" not in await keys.verify(local_raw)
    assert [key.key_id for key in await keys.list(user_id="alice", issuer=None)] == [local]
    assert {key.key_id for key in await keys.list(user_id="alice", issuer=ISSUER)} == {key_id, new_id}
    assert len(await keys.list(user_id="alice")) == 3


async def test_keys_without_a_tenant(database: Database) -> None:
    """No tenant is a filter of its own: it is not any tenant."""
    keys = database.auth()
    without, _ = await keys.create(user_id="alice")
    within, _ = await keys.create(user_id="alice", tenant_id="acme")
    assert [key.key_id for key in await keys.list(tenant_id=None)] == [without]
    assert [key.key_id for key in await keys.list(tenant_id="acme")] == [within]
    assert len(await keys.list()) == 2


async def test_environments(database: Database) -> None:
    """A key names its environment in its text and its claims; an Auth rejects keys of other environments."""
    keys = database.auth(environments=("live", "test"))
    live = await keys.create(user_id="alice", environment="live")
    test = await keys.create(user_id="alice", environment="test")
    assert (live.raw[:8], test.raw[:8]) == ("sk_live_", "sk_test_")
    assert (await keys.verify(test.raw))["environment"] == "test"
    assert [key.key_id for key in await keys.list(environment="test")] == [test.key_id]
    with pytest.raises(ValueError, match="environment is one of live, test"):
        await keys.create(user_id="alice")
    production = database.auth(environments=["live"])
    assert await production.validate_token(live.raw)
    assert not await production.validate_token(test.raw)
    assert (production.recognises(live.raw), production.recognises(test.raw)) == (True, False)
    _, rotated = await keys.rotate(test.key_id)
    assert rotated.startswith("sk_test_")
    only, raw = await production.create(user_id="alice")
    assert (await production.verify(raw))["environment"] == "live"
    assert raw.startswith(f"sk_live_{only}")
    _, plain = await database.auth().create(user_id="alice")
    assert "environment" not in await database.auth().verify(plain)


async def test_the_usage_of_a_key(database: Database, clock: Clock) -> None:
    """The counts of a key can be read and refilled; a key that replaces another goes on counting."""
    keys = database.auth(usage=MemoryStore(clock=clock), clock=clock)
    key_id, raw = await keys.create(user_id="alice", rate="10/minute", quota=3, quota_period=timedelta(days=30))
    assert [(state.name, state.remaining) for state in await keys.usage(key_id)] == [("rate", 10), ("quota", 3)]
    for _ in range(2):
        await keys.verify(raw)
    new_id, new_raw = await keys.rotate(key_id)
    await keys.verify(new_raw)
    with pytest.raises(TooManyRequests):
        await keys.verify(new_raw)
    await keys.refill(new_id)
    assert [state.remaining for state in await keys.usage(new_id)] == [10, 3]
    free, _ = await keys.create(user_id="alice")
    assert list(await keys.usage(free)) == []
    await keys.refill(free)
    for call in (keys.usage, keys.refill):
        with pytest.raises(KeyNotFound):
            await call("0" * 16)


async def test_limits_without_a_store(database: Database) -> None:
    """Without a store for the counts a key with limits cannot be made; on the class it can, for another Auth."""
    keys = database.auth()
    for limits in ({"rate": "5/minute"}, {"quota": 5}):
        with pytest.raises(ValueError, match=r"pass usage=\.\.\., such as SQLAlchemyStore"):
            await keys.create(user_id="alice", **limits)  # type: ignore[arg-type]
    key_id, _ = await database.within(lambda session: type(keys).create_key(session, user_id="alice", quota=5))
    stored = await keys.get(key_id)
    assert stored is not None
    assert stored.quota == 5
    assert list(await keys.usage(key_id)) == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"expires_at": datetime.fromtimestamp(NOW, UTC)}, "expires_at has passed"),
    "long owner": ({"user_id": "x" * 3000}, "user_id is a text of at most 255"),
    "very long owner": ({"user_id": "x" * 65_536}, "user_id is a text of at most 255"),
    "issuer": ({"issuer": 5}, "issuer is a text"),
    "maker": ({"maker": Subject(None, "x" * 300)}, "maker is a text"),
    "network": ({"allowed_networks": ["192.0.2.1/24"]}, "networks in CIDR notation"),
    "network of a number": ({"allowed_networks": [7]}, "networks in CIDR notation"),
    "one network": ({"allowed_networks": "192.0.2.0/24"}, "allowed_networks"),
    "origin": ({"allowed_origins": ["https://app.example/"]}, "origins as a browser sends them"),
    "origin of a number": ({"allowed_origins": [7]}, "origins as a browser sends them"),
    "many": ({"scopes": ["x"] * 1001}, "at most 1000 texts"),
    "rate": ({"rate": "often"}, "such as 100/minute"),
    "rate of a number": ({"rate": 5}, "rate is a text"),
    "quota": ({"quota": 0}, "quota is a whole number"),
    "quota of a text": ({"quota": "5"}, "quota is a whole number"),
    "quota of True": ({"quota": True}, "quota is a whole number"),
    "large quota": ({"quota": 10**15}, "quota is a whole number"),
    "period alone": ({"quota_period": timedelta(days=1)}, "quota_period"),
    "short period": ({"quota": 5, "quota_period": timedelta(milliseconds=1)}, "quota_period"),
    "half a second": ({"quota": 5, "quota_period": timedelta(seconds=1.5)}, "quota_period"),
    "period of a number": ({"quota": 5, "quota_period": 86_400}, "quota_period"),
    "outlives": ({"outlives_maker": 1}, "outlives_maker is True or False"),
    "environment": ({"environment": "live"}, "environment is not used by these keys"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_fields_that_are_rejected(sqlite: Database, wrong: str) -> None:
    """Each field is checked before anything is stored."""
    fields, message = WRONG[wrong]
    keys = sqlite.auth(clock=Clock(NOW), usage=MemoryStore())
    given: dict[str, Any] = {"user_id": "alice", **fields}
    with pytest.raises(ValueError, match=message):
        await keys.create(**given)
    with pytest.raises(ValueError, match=message):
        await sqlite.within(lambda session: keys.create_key(session, **given))
    assert await keys.list() == []


async def test_whose_pause_it_is(database: Database) -> None:
    """A pause can be taken over from another actor, and ended by the actor alone whose pause it is."""
    keys = database.auth()
    key_id, _ = await keys.create(user_id="alice")
    assert await keys.pause(key_id, by="alice")
    assert not await keys.pause(key_id, by="root")
    assert not await keys.resume(key_id, by="root", own=True)
    assert await keys.pause(key_id, by="root", override=True)
    assert not await keys.pause(key_id, by="root", override=True)
    assert not await keys.resume(key_id, by="alice", own=True)
    found = await keys.get(key_id)
    assert found is not None
    assert found.paused_by == "root"
    assert await keys.resume(key_id, by="root", own=True)
    assert await keys.pause(key_id, by="alice", override=True)
    assert await keys.resume(key_id)


async def test_a_rotation_to_a_past_expiry(sqlite: Database) -> None:
    """A key that replaces another is not expired when it is made."""
    keys = sqlite.auth(clock=Clock(NOW))
    key_id, _ = await keys.create(user_id="alice")
    with pytest.raises(ValueError, match="expires_at has passed"):
        await keys.rotate(key_id, expires_at=datetime.fromtimestamp(NOW, UTC))
    assert (await keys.get(key_id)).replaced_by is None  # type: ignore[union-attr]


async def test_a_rotation_that_is_checked(database: Database) -> None:
    """A check sees the new key with the fields that the old one has at that moment; what it raises undoes all."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice", scopes=["items:read"])
    seen: list[Any] = []

    def refuse(key: Any) -> None:
        seen.append(key)
        message = "not this one"
        raise KeyConflict(message)

    with pytest.raises(KeyConflict, match="not this one"):
        await keys.rotate(key_id, check=refuse)
    assert (seen[0].user_id, seen[0].scopes, seen[0].key_id != key_id) == ("alice", ["items:read"], True)
    assert [key.key_id for key in await keys.list()] == [key_id]
    assert await keys.validate_token(raw)
    await keys.rotate(key_id, check=seen.append)


async def test_rows_from_before_these_columns(database: Database) -> None:
    """A row in which the newer columns are empty is a key without restrictions."""
    keys = database.auth()
    key_id, raw = await keys.create(user_id="alice")

    def empty(session: Session) -> None:
        row = session.get_one(APIKey, key_id)
        row.usage_id = row.allowed_networks = row.allowed_origins = None

    await database.within(empty)
    assert (await keys.verify(raw))["sub"] == "alice"
    stored = await keys.get(key_id)
    assert stored is not None
    assert (stored.usage_id, stored.allowed_networks, stored.allowed_origins) == (key_id, [], [])


async def test_a_key_that_another_process_revoked_first(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not revoked, recorded or reported a second time."""
    keys = sqlite.auth()
    await keys.create(user_id="alice")
    monkeypatch.setattr(rows, "changed_rows", lambda *_: 0)
    assert await keys.revoke_subject("alice") == 0
