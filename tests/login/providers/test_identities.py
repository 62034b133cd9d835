"""Linked identities, on each store and in the ready table."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard.login.providers import DatabaseIdentities, LinkedIdentity, StoredIdentities
from fastapi_guard.login.providers.identities import Identities, identity_id
from fastapi_guard.stores import MemoryStore, Store

ADA = LinkedIdentity(
    id=identity_id("https://id.example", "u-1"),
    subject="ada",
    provider="acme",
    issuer="https://id.example",
    provider_subject="u-1",
    label="ada@example.com",
    created_at=2.0,
)


async def check(identities: Identities) -> None:
    """Check what every storage of identities does."""
    assert await identities.add(ADA)
    assert not await identities.add(replace(ADA, subject="bob"))
    earlier = replace(ADA, id=identity_id("https://id.example", "u-2"), provider_subject="u-2", created_at=1.0)
    assert await identities.add(earlier)
    assert await identities.of("ada") == [earlier, ADA]
    assert not await identities.of("bob")
    assert not await identities.of("a\x00b")
    assert await identities.get(ADA.id) == ADA
    assert await identities.get("x") is None
    assert await identities.remove(ADA.id)
    assert not await identities.remove(ADA.id)
    assert not await identities.remove("a\x00b")
    assert await identities.of("ada") == [earlier]


async def test_in_a_store(store: Store) -> None:
    """Identities in a store, apart from those of another Login."""
    await check(StoredIdentities(store))
    assert not await StoredIdentities(store, name="staff").of("ada")


async def test_in_a_table(tmp_path: Path) -> None:
    """Identities in the ready table."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'identities.db'}")
    identities = DatabaseIdentities(async_sessionmaker(engine))
    await identities.create_table()
    await check(identities)
    await engine.dispose()


def test_the_id_of_an_identity() -> None:
    """The id keeps issuer and subject apart, however they are cut."""
    assert identity_id("https://a", "b") != identity_id("https://ab", "")
    assert identity_id("a", "\ud800") != identity_id("a", "?")


async def test_the_key_in_a_store() -> None:
    """An identity is under the key of earlier versions: under another one, every link that exists would be lost."""
    store = MemoryStore()
    assert await StoredIdentities(store).add(ADA)
    [key] = store._records
    assert key == "identity:428821350e969149:c1ee3a8983259920309a230d6615ecc234054baaff1c5e8c854f676a3ecb6726"


async def test_one_login_each() -> None:
    """An identity of one Login is unknown to another on the same store."""
    store = MemoryStore()
    assert await StoredIdentities(store, name="a").add(ADA)
    assert await StoredIdentities(store, name="b").add(ADA)


@pytest.mark.parametrize("text", ["\ud800", "x\x00"])
async def test_what_no_database_stores(tmp_path: Path, text: str) -> None:
    """A text that no database stores finds nothing."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'identities.db'}")
    identities = DatabaseIdentities(async_sessionmaker(engine))
    await identities.create_table()
    assert await identities.get(text) is None
    await engine.dispose()
