"""The contract of storage of enrolled factors, run against each store."""

import asyncio
from dataclasses import replace

from fastapi_guard.login.enrolled import EnrolledFactor, StoredFactors
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock


def factor(factor_id: str = "f1", subject: str = "ada", **fields: object) -> EnrolledFactor:
    """Return a factor."""
    values = {"kind": "totp", "name": "Phone", "data": "{}", "created_at": 1.5, **fields}
    return EnrolledFactor(id=factor_id, subject=subject, **values)  # type: ignore[arg-type]


async def test_add_and_find(store: Store) -> None:
    """Factors are found by user, the oldest first, and by id, each with all of its fields."""
    factors = StoredFactors(store)
    late, early = factor("f1", created_at=2.5, used_at=3.25), factor("f2", kind="passkey", name="Schlüssel \U0001f511")
    other = factor("f3", "eve")
    for added in (late, early, other):
        assert await factors.add(added)
    assert await factors.of("ada") == [early, late]
    assert await factors.of("eve") == [other]
    assert await factors.of("nobody") == []
    assert await factors.get("f1") == late
    assert await factors.get("f4") is None


async def test_an_id_is_taken_for_every_user(store: Store) -> None:
    """A factor of a taken id is not stored, for any user."""
    factors = StoredFactors(store)
    assert await factors.add(factor())
    assert not await factors.add(factor(subject="eve"))
    assert await factors.of("eve") == []


async def test_replace(store: Store) -> None:
    """Of several that replace one factor at the same time one succeeds; a removed one is not replaced."""
    factors = StoredFactors(store)
    await factors.add(old := factor())
    new = [replace(old, data=f'{{"n":{number}}}') for number in range(8)]
    replaced = await asyncio.gather(*(factors.replace(old, change) for change in new))
    assert replaced.count(True) == 1
    assert await factors.get("f1") == new[replaced.index(True)]
    assert await factors.remove("f1")
    assert not await factors.replace(new[replaced.index(True)], old)
    assert await factors.of("ada") == []


async def test_remove_once(store: Store) -> None:
    """Of several that remove a factor at the same time one succeeds."""
    factors = StoredFactors(store)
    await factors.add(factor())
    removed = await asyncio.gather(*(factors.remove("f1") for _ in range(8)))
    assert removed.count(True) == 1


async def test_odd_subjects(store: Store) -> None:
    """A subject of any length and characters has its factors."""
    factors = StoredFactors(store)
    subjects = ["\ud800", "x" * 70_000, "a:b", ""]
    for number, subject in enumerate(subjects):
        assert await factors.add(factor(f"f{number}", subject))
    assert [[found.id for found in await factors.of(subject)] for subject in subjects] == [
        ["f0"],
        ["f1"],
        ["f2"],
        ["f3"],
    ]


async def test_two_logins_on_one_store(store: Store) -> None:
    """Under another name of a Login the same subject has no factors, and the same id is free."""
    customers, staff = StoredFactors(store), StoredFactors(store, name="staff")
    assert await customers.add(factor())
    assert await staff.of("ada") == []
    assert await staff.get("f1") is None
    assert not await staff.remove("f1")
    assert await staff.add(factor())


def test_the_data_is_not_in_the_repr(clock: Clock) -> None:
    """A log of a factor shows no secret."""
    assert "sealed" not in repr(factor(data="sealed"))
    assert StoredFactors(MemoryStore(clock=clock))
