"""The contract of a store, tested with every store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from fastapi_guard.stores import Record, Store
from fastapi_guard.stores.protocol import take
from support.clock import Clock
from support.stores import CLUSTER, STORES, FiveMethods, open_store

ODD_TEXTS = ["a", "A", "ä", "a\u0308", "a:b", "a b", "%", "_", "\U0001f511", "\ud800", "x" * 255]

# As it is, and as a store of an application's own that has the methods of the protocol alone.
View = Callable[[Store], Store]
VIEWS = [pytest.param(lambda store: store, id="itself"), pytest.param(FiveMethods, id="five methods")]


@pytest.fixture(params=[*STORES, CLUSTER])
async def store(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Store]:
    """Return an empty store of each kind, also on a cluster."""
    async with open_store(request, clock) as opened:
        yield opened


def record(clock: Clock, key: str = "k", value: bytes = b"1", owner: str | None = "ada", lives: float = 60) -> Record:
    """Return a record that lives for some seconds from now on."""
    return Record(key, value, owner, clock() + lives)


async def test_get_and_add(store: Store, clock: Clock) -> None:
    """Records are found as they were added, in the order of the keys, and None where there is nothing."""
    first, second = record(clock, "one", bytes(range(256))), Record("two", b"", None, None)
    assert await store.add(first)
    assert await store.add(second)
    assert await store.get("two", "none", "one", "two") == [second, None, first, second]
    assert await store.get() == []


async def test_add_does_not_replace(store: Store, clock: Clock) -> None:
    """A key that is taken stays as it is."""
    assert await store.add(record(clock))
    assert not await store.add(record(clock, value=b"2", owner="eve"))
    assert await store.get("k") == [record(clock)]
    assert await store.find("eve") == []


async def test_an_expired_record_is_gone(store: Store, clock: Clock) -> None:
    """From the moment of its expiry a record is not found, replaced or deleted, and its key is free."""
    await store.add(old := record(clock))
    clock.move(59.99)
    assert await store.get("k") == [old]
    clock.move(0.01)
    assert await store.get("k") == [None]
    assert await store.find("ada") == []
    assert not await store.replace("k", old, replace(old, value=b"2"))
    assert not await store.delete("k")
    await store.add(old)
    assert await store.add(new := record(clock, value=b"3", owner="bob"))
    assert await store.get("k") == [new]
    assert await store.find("ada") == []
    assert await store.find("bob") == [new]


async def test_replace(store: Store, clock: Clock) -> None:
    """A record is replaced where its value is the expected one, owner and expiry included."""
    await store.add(old := record(clock))
    new = Record("k", b"2", "bob", clock() + 90)
    assert await store.replace("k", old, new)
    assert not await store.replace("k", old, replace(new, value=b"3"))
    assert not await store.replace("none", old, replace(new, key="none"))
    assert await store.get("k", "none") == [new, None]
    assert await store.find("ada") == []
    assert await store.find("bob") == [new]
    assert await store.replace("k", new, Record("k", b"4"))
    assert await store.find("bob") == []


async def test_delete(store: Store, clock: Clock) -> None:
    """A record is deleted once."""
    await store.add(record(clock))
    assert await store.delete("k") is True
    assert await store.delete("k") is False
    assert await store.get("k") == [None]
    assert await store.find("ada") == []


@pytest.mark.parametrize("view", VIEWS)
async def test_take(store: Store, clock: Clock, view: View) -> None:
    """A record is removed once, and returned as it was then, with an owner and an expiry or without."""
    for old in (record(clock), Record("k", b""), Record("k", bytes(range(256)), "ada")):
        await store.add(old)
        new = replace(old, value=b"2" + old.value)
        assert await store.replace("k", old, new)
        assert await take(view(store), "k") == new
        assert await take(view(store), "k") is None
        assert await store.get("k") == [None]
        assert await store.find("ada") == []
    assert await store.find("ada") == []


async def test_find(store: Store, clock: Clock) -> None:
    """The records of an owner are found, and no others."""
    mine = [record(clock, key) for key in ("a", "b", "c")]
    for other in [*mine, record(clock, "d", owner="adam"), record(clock, "e", owner=None), record(clock, "f", lives=1)]:
        await store.add(other)
    clock.move(1)
    assert sorted(await store.find("ada"), key=lambda found: found.key) == mine
    assert await store.find("ad") == []


async def test_an_owner_with_a_record_for_ever(store: Store, clock: Clock) -> None:
    """A record that never expires is found among others of its owner that do."""
    await store.add(forever := Record("a", b"1", "ada"))
    await store.add(record(clock, "b", lives=1))
    clock.move(10_000)
    await store.add(later := record(clock, "c"))
    assert {found.key for found in await store.find("ada")} == {"a", "c"}
    assert await store.get("a", "c") == [forever, later]


async def test_odd_keys_and_owners(store: Store, clock: Clock) -> None:
    """Keys and owners are compared exactly, whatever characters they have."""
    for text in ODD_TEXTS:
        assert await store.add(record(clock, text, text.encode("utf-8", "surrogatepass"), owner=text))
    for text in ODD_TEXTS:
        assert await store.find(text) == await store.get(text)
        assert await store.get(text) == [record(clock, text, text.encode("utf-8", "surrogatepass"), owner=text)]


LONG_TEXTS = ["x" * 1024, "x" * 1025, "y" * 65_536, "\U0001f511" * 3000, "\ud800" * 1000, "a\x00b", "\x00", ""]


async def test_names_of_any_length(store: Store, clock: Clock) -> None:
    """Keys and owners of any length are kept apart: a record is found, replaced and deleted by them."""
    for text in LONG_TEXTS:
        assert await store.add(record(clock, text, b"1", owner=text))
        assert not await store.add(record(clock, text, b"1", owner=text))
    for text in LONG_TEXTS:
        [found] = await store.get(text)
        [owned] = await store.find(text)
        assert found is not None
        assert (found.key, found.value, owned.value) == (text, b"1", b"1")
        assert await store.get(text + "w", text[:-1] + "z") == [None, None]
        # What a store returned can be written back, and found by what it returned.
        new = replace(owned, value=b"2")
        assert await store.replace(owned.key, owned, new)
        assert [after.value for after in await store.find(text)] == [b"2"]
        assert await store.delete(owned.key)
        assert await store.get(text) == [None]
        assert await store.find(text) == []


async def test_one_of_many_adds(store: Store, clock: Clock) -> None:
    """Of many that add a key at once one gets True, and its record is the one that is stored."""
    many = [record(clock, value=str(number).encode()) for number in range(100)]
    added = await asyncio.gather(*(store.add(one) for one in many))
    assert added.count(True) == 1
    assert await store.get("k") == [many[added.index(True)]]


async def test_one_of_many_replacements(store: Store, clock: Clock) -> None:
    """Of many that replace the same record at once one gets True, and its record is the one that is stored."""
    await store.add(old := record(clock))
    many = [record(clock, value=str(number).encode()) for number in range(2, 102)]
    replaced = await asyncio.gather(*(store.replace("k", old, one) for one in many))
    assert replaced.count(True) == 1
    assert await store.get("k") == [many[replaced.index(True)]]


async def test_one_of_many_deletions(store: Store, clock: Clock) -> None:
    """Of many that delete a record at once one gets True."""
    await store.add(record(clock))
    deleted = await asyncio.gather(*(store.delete("k") for _ in range(100)))
    assert deleted.count(True) == 1


@pytest.mark.parametrize("view", VIEWS)
async def test_one_of_many_takes(store: Store, clock: Clock, view: View) -> None:
    """Of many that take a record at once one gets it."""
    await store.add(one := record(clock))
    taken = await asyncio.gather(*(take(view(store), "k") for _ in range(100)))
    assert [found for found in taken if found is not None] == [one]


async def test_takes_beside_replacements(store: Store, clock: Clock) -> None:
    """A record that is taken while others replace it is returned as the last of them left it."""
    await store.add(old := record(clock))
    many = [record(clock, value=str(number).encode()) for number in range(2, 20)]
    changes = [store.replace("k", old, one) for one in many]
    taken, *replaced = await asyncio.gather(take(store, "k"), *changes)
    assert taken == (many[replaced.index(True)] if True in replaced else old)
    assert await store.get("k") == [None]


async def test_a_clock_that_goes_back_loses_nothing(store: Store, clock: Clock) -> None:
    """A record that seemed to have expired is there again when the clock is set back by a minute."""
    await store.add(kept := record(clock, lives=30))
    clock.move(60)
    assert await store.get("k") == [None]
    await store.add(record(clock, "other"))
    clock.move(-60)
    assert await store.get("k") == [kept]
    assert kept in await store.find("ada")


@pytest.mark.parametrize("lives", [-1000, 0])
async def test_a_record_that_has_expired_before(store: Store, clock: Clock, lives: float) -> None:
    """A record that expired before it was added is not there."""
    await store.add(record(clock, lives=lives))
    assert await store.get("k") == [None]
