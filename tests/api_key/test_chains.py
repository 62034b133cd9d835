"""Keys that were rotated or made by other keys: how far a revocation reaches, and which rows it needs."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, text

from api_key.databases import Database
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.format import NewKey
from fastapi_guard.api_key.models import APIKey
from fastapi_guard.claims import Subject
from fastapi_guard.events import Event
from support.clock import Clock

NOW = 1_800_000_000
OVERLAP = timedelta(days=90)


async def rotations(keys: DatabaseAPIKeyAuth, number: int) -> list[NewKey]:
    """Return a key and those that replaced it one after the other, all of them in their overlap."""
    chain = [await keys.create(user_id="alice")]
    for _ in range(number):
        chain.append(await keys.rotate(chain[-1].key_id, overlap=OVERLAP))
    return chain


async def valid(keys: DatabaseAPIKeyAuth, made: list[NewKey]) -> list[bool]:
    """Return which of these keys are accepted."""
    return [bool(await keys.validate_token(new.raw)) for new in made]


@pytest.mark.parametrize("way", ["revoke", "revoke_key", "again"])
async def test_a_key_ends_the_keys_that_it_replaced(database: Database, way: str) -> None:
    """A key that is revoked ends those that it replaced, in their overlap; the key that replaced it goes on."""
    seen: list[Event] = []
    keys = database.auth(on_event=seen.append, cache_ttl=60)
    chain, other = await rotations(keys, 3), await keys.create(user_id="alice")
    assert await valid(keys, [*chain, other]) == [True] * 5
    revoked = chain[2].key_id
    if way == "revoke_key":
        assert await database.within(lambda session: keys.revoke_key(session, revoked, by="root"))
    else:
        if way == "again":
            # Revoked by the application itself, without what it replaced.
            moment = text("UPDATE api_keys SET revoked_at = created_at WHERE key_id = :key_id")
            await database.within(lambda session: session.execute(moment, {"key_id": revoked}))
        assert await keys.revoke(revoked, by="root") == (way == "revoke")
    assert await valid(keys, [*chain[:2], chain[3], other]) == [False, False, True, True]
    ended = [(event.key_id, event.actor) for event in seen if event.name == "key_revoked"]
    assert sorted(ended) == sorted((new.key_id, "root") for new in chain[: 2 if way == "again" else 3])


async def test_a_long_chain_is_read_at_once(sqlite: Database) -> None:
    """How many keys replaced each other or were made by each other does not matter to how often the table is read."""
    counts = []
    for length in (1, 4):
        keys = sqlite.auth()
        chain = await rotations(keys, length)
        made = [await keys.create(user_id="agent-0", maker_key=chain[0].key_id)]
        for number in range(length):
            made.append(await keys.create(user_id=f"agent-{number}", maker_key=made[-1].key_id))
        with sqlite.statements() as statements:
            await keys.revoke(chain[-1].key_id)
        assert not any(await valid(keys, [*chain, *made]))
        counts.append(sum(not statement.startswith(("UPDATE", "INSERT")) for statement in statements))
    assert counts[0] == counts[1]


async def test_keys_that_replace_each_other_in_a_circle(sqlite: Database) -> None:
    """Rows that were edited so that they lead back to themselves end as any others, and can be deleted."""
    clock = Clock(NOW)
    keys = sqlite.auth(clock=clock)
    chain = await rotations(keys, 1)
    made = await keys.create(user_id="agent", maker_key=chain[1].key_id)
    circle = text("UPDATE api_keys SET replaced_by = :first, maker_key_id = :made WHERE key_id = :second")
    values = {"first": chain[0].key_id, "second": chain[1].key_id, "made": made.key_id}
    await sqlite.within(lambda session: session.execute(circle, values))
    assert await keys.revoke(made.key_id)
    assert await valid(keys, [*chain, made]) == [False] * 3
    clock.move(1)
    assert await keys.prune(ended_for=timedelta(0)) == 3


async def test_a_key_that_expired_is_kept_for_what_it_made(database: Database) -> None:
    """`prune` leaves a key that leads from a maker to what was made, until that has ended too."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    soon = datetime.fromtimestamp(NOW + 60, UTC)
    root = await keys.create(user_id="alice")
    middle = await keys.create(user_id="agent-1", maker_key=root.key_id, expires_at=soon)
    leaf = await keys.create(user_id="agent-2", maker_key=middle.key_id)
    # It does not end with its maker.
    service = await keys.create(user_id="service", maker_key=middle.key_id, outlives_maker=True)
    by_user = await keys.create(user_id="agent-3", maker=Subject(None, "bob"), expires_at=soon)
    alone = await keys.create(user_id="agent-4", maker_key=by_user.key_id)
    unneeded = await keys.create(user_id="agent-5", maker_key=root.key_id, expires_at=soon)
    left = await keys.create(user_id="service", maker_key=unneeded.key_id, outlives_maker=True)
    clock.move(3600)
    assert await keys.prune(ended_for=timedelta(minutes=30)) == 1
    assert await keys.get(unneeded.key_id) is None
    assert await valid(keys, [leaf, service, alone, left]) == [True] * 4
    assert await keys.revoke(root.key_id)
    assert await valid(keys, [leaf, service, alone, left]) == [False, True, True, True]
    assert await keys.revoke_subject("bob") == 2
    assert await valid(keys, [service, alone, left]) == [True, False, True]
    clock.move(1)
    assert await keys.prune(ended_for=timedelta(0)) == 5
    assert {key.key_id for key in await keys.list()} == {service.key_id, left.key_id}


async def test_a_key_that_was_replaced_is_kept_for_what_it_replaced(database: Database) -> None:
    """`prune` leaves a key between one in its overlap and the newest, and one that made a key in its overlap."""
    clock = Clock(NOW)
    keys = database.auth(clock=clock)
    first = await keys.create(user_id="alice")
    second = await keys.rotate(first.key_id, overlap=OVERLAP)
    made = await keys.create(user_id="agent", maker_key=second.key_id)
    third = await keys.rotate(second.key_id, overlap=timedelta(minutes=1))
    late = await keys.create(user_id="agent", maker_key=second.key_id)
    newest = await keys.rotate(third.key_id)
    clock.move(3600)
    assert await keys.prune(ended_for=timedelta(minutes=30)) == 0
    assert await valid(keys, [first, second, made, third, late, newest]) == [True, False, True, False, True, True]
    await keys.revoke(newest.key_id)
    assert await valid(keys, [first, made, late, newest]) == [False] * 4
    clock.move(1)
    assert await keys.prune(ended_for=timedelta(0)) == 6


async def test_a_revoked_key_leads_on(sqlite: Database) -> None:
    """A key that the application revoked by itself does not keep what it made from ending with its maker."""
    keys = sqlite.auth()
    root = await keys.create(user_id="alice")
    middle = await keys.create(user_id="agent-1", maker_key=root.key_id)
    leaf = await keys.create(user_id="agent-2", maker_key=middle.key_id)
    moment = text("UPDATE api_keys SET revoked_at = created_at WHERE key_id = :key_id")
    await sqlite.within(lambda session: session.execute(moment, {"key_id": middle.key_id}))
    assert await keys.revoke_subject("alice") == 2
    assert await valid(keys, [leaf]) == [False]


async def test_a_key_whose_maker_is_gone(sqlite: Database) -> None:
    """A row that the application deleted is needed by no other, and nothing fails."""
    keys = sqlite.auth()
    root = await keys.create(user_id="alice")
    made = await keys.create(user_id="agent", maker_key=root.key_id)
    await sqlite.within(lambda session: session.execute(delete(APIKey).where(APIKey.key_id == root.key_id)))
    assert await keys.prune(ended_for=timedelta(0)) == 0
    assert await keys.revoke(made.key_id)
