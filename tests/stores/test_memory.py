"""The memory of a MemoryStore is bounded."""

from fastapi_guard.stores import MemoryStore, Record
from support.clock import Clock


async def test_expired_records_are_dropped(clock: Clock) -> None:
    """Memory is bounded by what is alive: long after its expiry a record is not even kept."""
    store = MemoryStore(clock=clock)
    for number in range(100):
        await store.add(Record(str(number), b"", "ada", clock() + 1))
    await store.add(kept := Record("kept", b"", "ada", clock() + 10_000))
    clock.move(302)
    await store.add(Record("new", b"", None, None))
    assert set(store._records) == {"kept", "new"}
    assert store._owned == {"ada": {"kept"}}
    assert store._expiries == [(kept.expires_at, "kept")]


async def test_a_record_that_was_deleted_or_lives_longer_is_left_alone(clock: Clock) -> None:
    """An expiry that is left over from a deleted or a replaced record drops nothing."""
    store = MemoryStore(clock=clock)
    for key in ("deleted", "replaced"):
        await store.add(Record(key, b"1", "ada", clock() + 1))
    await store.delete("deleted")
    longer = Record("replaced", b"2", "ada", clock() + 10_000)
    assert await store.replace("replaced", Record("replaced", b"1"), longer)
    clock.move(400)
    await store.add(Record("new", b""))
    assert await store.get("deleted", "replaced") == [None, longer]


async def test_replacements_leave_little_behind(clock: Clock) -> None:
    """A session that is used for weeks does not fill the memory with expiries that it had before."""
    store = MemoryStore(clock=clock)
    await store.add(record := Record("k", b"0", "ada", clock() + 1e6))
    for number in range(5_000):
        clock.move(60)
        new = Record("k", str(number + 1).encode(), "ada", clock() + 1e6)
        assert await store.replace("k", record, new)
        record = new
    assert len(store._expiries) < 1_100
    assert await store.get("k") == [record]
