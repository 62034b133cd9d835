"""The contract of storage of enrolled factors, run against each store and each database."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from fastapi_guard.login.enrolled import DatabaseFactors, EnrolledFactor, EnrolledFactors, StoredFactors
from fastapi_guard.login.factor_models import Base, FactorMixin, PasskeyMixin
from fastapi_guard.login.passkey import Passkey
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock
from support.stores import DATABASES, STORES, open_store, sessions_of


@pytest.fixture(params=[*STORES, *(f"table-{name}" for name in DATABASES)])
async def factors(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[EnrolledFactors]:
    """Return empty storage of each kind."""
    name: str = request.param
    if not name.startswith("table-"):
        async with open_store(request, clock) as store:
            yield StoredFactors(store)
        return
    async with sessions_of(request, name.removeprefix("table-")) as sessions:
        tables = DatabaseFactors(sessions)  # type: ignore[arg-type]
        await tables.create_tables()
        await tables.create_tables()
        yield tables
        await tables._tables._sessions.transaction(lambda session: Base.metadata.drop_all(session.connection()))


def factor(factor_id: str = "f1", subject: str = "ada", **fields: object) -> EnrolledFactor:
    """Return a factor."""
    values = {"kind": "totp", "name": "Phone", "data": "{}", "created_at": 1.5, **fields}
    return EnrolledFactor(id=factor_id, subject=subject, **values)  # type: ignore[arg-type]


def passkey(number: int = 1, subject: str = "ada", **fields: Any) -> EnrolledFactor:
    """Return a passkey, with an id of its own for each number."""
    values = {
        "public_key": bytes(range(77)),
        "sign_count": 2**32 - 1,
        "user_handle": b"\0\xff" * 16,
        "backup_eligible": True,
        "backed_up": False,
        "transports": ("internal", "hybrid"),
        "aaguid": "00000000-0000-0000-0000-000000000000",
        **fields,
    }
    return Passkey(credential_id=bytes([number] * 40), **values).stored_in(factor(subject=subject, kind="passkey"))


async def test_add_and_find(factors: EnrolledFactors) -> None:
    """Factors are found by user, the oldest first, and by id, each with all of its fields."""
    late = factor("f1", created_at=2.5, used_at=1_800_000_000.25)
    early = factor("f2", kind="recovery", name="Schlüssel \U0001f511", data='{"codes":["a"]}')
    middle = replace(passkey(), created_at=2)
    other = factor("f3", "eve")
    for added in (late, early, middle, other):
        assert await factors.add(added)
    assert await factors.of("ada") == [early, middle, late]
    assert await factors.of("eve") == [other]
    assert await factors.of("nobody") == []
    for added in (late, early, middle, other):
        assert await factors.get(added.id) == added
    assert await factors.get("f4") is None


async def test_an_id_is_taken_for_every_user(factors: EnrolledFactors) -> None:
    """A factor of a taken id is not stored, for any user."""
    for first, second in ((factor(), factor(subject="eve")), (passkey(), passkey(subject="eve"))):
        assert await factors.add(first)
        assert not await factors.add(second)
        assert not await factors.add(first)
    assert await factors.of("eve") == []


async def test_replace(factors: EnrolledFactors) -> None:
    """Of several that replace one factor at the same time one succeeds; a removed one is not replaced."""
    await factors.add(old := factor())
    new = [replace(old, data=f'{{"n":{number}}}') for number in range(8)]
    replaced = await asyncio.gather(*(factors.replace(old, change) for change in new))
    assert replaced.count(True) == 1
    stored = new[replaced.index(True)]
    assert await factors.get("f1") == stored
    assert await factors.replace(stored, renamed := replace(stored, name="Tablet", used_at=7.5))
    assert await factors.get("f1") == renamed
    assert await factors.remove("f1")
    assert not await factors.replace(renamed, old)
    assert await factors.of("ada") == []


async def test_replace_a_passkey(factors: EnrolledFactors) -> None:
    """Of several that store another counter at the same time one succeeds."""
    await factors.add(old := passkey(sign_count=5))
    new = [replace(Passkey.of(old), sign_count=6 + number, backed_up=True).stored_in(old) for number in range(4)]
    replaced = await asyncio.gather(*(factors.replace(old, change) for change in new))
    assert replaced.count(True) == 1
    stored = new[replaced.index(True)]
    assert await factors.get(old.id) == stored
    assert await factors.replace(stored, used := replace(stored, used_at=9.5))
    assert await factors.of("ada") == [used]
    assert await factors.replace(used, used)


async def test_remove_once(factors: EnrolledFactors) -> None:
    """Of several that remove a factor at the same time one succeeds."""
    for added in (factor(), passkey()):
        await factors.add(added)
        removed = await asyncio.gather(*(factors.remove(added.id) for _ in range(8)))
        assert removed.count(True) == 1
    assert not await factors.remove("f1")


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "a:b", "", "x" * 300])
async def test_odd_texts(factors: EnrolledFactors, text: str) -> None:
    """A subject and an id that no factor has are found nowhere, without an exception."""
    await factors.add(factor())
    assert list(await factors.of(text)) == []
    assert await factors.get(text) is None
    assert not await factors.remove(text)


async def test_long_subjects_in_a_store(store: Store) -> None:
    """In a store a subject of any length and characters has its factors."""
    factors = StoredFactors(store)
    subjects = ["\ud800", "x" * 70_000, "a:b", ""]
    for number, subject in enumerate(subjects):
        assert await factors.add(factor(f"f{number}", subject))
    found = [[known.id for known in await factors.of(subject)] for subject in subjects]
    assert found == [["f0"], ["f1"], ["f2"], ["f3"]]


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


class Own(DeclarativeBase):
    """The base of an application."""


class OwnFactor(FactorMixin, Own):
    """A model of the application."""

    __tablename__ = "second_factors"

    number: Mapped[int] = mapped_column(primary_key=True)


class OwnPasskey(PasskeyMixin, Own):
    """A model of the application."""

    __tablename__ = "keys"

    number: Mapped[int] = mapped_column(primary_key=True)


async def test_models_of_the_application(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The mixins work on models of the application's own; the data is not in the log of the statements."""
    engine = create_engine(f"sqlite:///{tmp_path / 'own.db'}", echo=True)
    factors = DatabaseFactors(sessionmaker(engine), model=OwnFactor, passkeys=OwnPasskey)
    await factors.create_tables()
    with caplog.at_level(logging.DEBUG, "sqlalchemy"):
        assert await factors.add(factor(data="sealed-secret"))
        assert await factors.add(passkey())
        assert len(await factors.of("ada")) == 2
        assert await factors.every("totp") == [factor(data="sealed-secret")]
        assert await factors.every("recovery") == []
    assert set(inspect(engine).get_table_names()) == {"second_factors", "keys"}
    assert "INSERT INTO second_factors" in caplog.text
    assert "sealed-secret" not in caplog.text
    await asyncio.to_thread(engine.dispose)
