"""Encrypting secrets with another key, from the command line."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner, Result

from fastapi_guard.cli.app import app
from fastapi_guard.login.enrolled import DatabaseFactors, EnrolledFactor
from fastapi_guard.login.totp import TOTP
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.factors import KEY, OTHER_KEY, Desk, totp_code, user_named


class Shell:
    """A shell in which the command is called on a database."""

    def __init__(self, path: Path) -> None:
        """Create the tables, with two users who have enrolled TOTP under the old key."""
        self.url = f"sqlite+aiosqlite:///{path}"
        self.factors = DatabaseFactors(async_sessionmaker(create_async_engine(self.url, poolclass=NullPool)))
        self.clock = Clock()
        self.secrets: dict[str, str] = {}
        asyncio.run(self.fill())

    async def fill(self) -> None:
        """Enrol."""
        await self.factors.create_tables()
        for name in ("ada", "bob"):
            desk = self.desk(name, {"1": KEY})
            enrolment = await desk.begin(name)
            self.secrets[name] = enrolment.shown["secret"]
            assert await desk.confirm(enrolment, {"code": totp_code(self.secrets[name], self.clock())})
        self.clock.move(300)

    def desk(self, name: str, keys: dict[str, str]) -> Desk:
        """Return a desk with these keys."""
        factor = TOTP(key=keys, issuer="Shop")
        return Desk(factor, MemoryStore(clock=self.clock), self.clock, user_named(name), records=self.factors)

    def call(self, *arguments: str, keys: Any = None) -> Result:
        """Return the result of a command."""
        text = keys if isinstance(keys, str) else json.dumps(keys or {"2": OTHER_KEY, "1": KEY})
        environment = {"FASTAPI_GUARD_DATABASE_URL": self.url, "FASTAPI_GUARD_TOTP_KEYS": text}
        return CliRunner().invoke(app, arguments, env=environment)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a shell on a database of its own."""
    return Shell(tmp_path / "factors.db")


def test_rekey(shell: Shell) -> None:
    """Every secret is encrypted with the first key, once, and the old key is not needed any more."""
    assert shell.call("factors", "rekey", "--dry-run").stdout == (
        "2 TOTP secrets, 2 would be encrypted with the first key\n"
    )
    assert shell.call("factors", "rekey").stdout == "2 TOTP secrets, 2 encrypted with the first key\n"
    assert json.loads(shell.call("--json", "factors", "rekey").stdout) == {"factors": 2, "rekeyed": 0}

    async def verify() -> None:
        for name, secret in shell.secrets.items():
            desk = shell.desk(name, {"2": OTHER_KEY})
            assert await desk.verify({"code": totp_code(secret, shell.clock())}) is not None

    asyncio.run(verify())


def test_a_factor_that_changes_meanwhile(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor that is renamed while the command runs is encrypted all the same, one that is removed is left out."""
    real = DatabaseFactors.replace
    seen: list[str] = []

    async def raced(self: DatabaseFactors, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
        if expected.id in seen:
            return await real(self, expected, new)
        seen.append(expected.id)
        if expected.id == "ada":
            assert await real(self, expected, replace(expected, name="Tablet"))
        else:
            await self.remove(expected.id)
        return await real(self, expected, new)

    monkeypatch.setattr(DatabaseFactors, "replace", raced)
    assert json.loads(shell.call("factors", "rekey", "--json").stdout) == {"factors": 2, "rekeyed": 1}
    [factor] = asyncio.run(shell.factors.of("ada"))  # type: ignore[arg-type]
    assert factor.name == "Tablet"
    assert json.loads(factor.data)["secret"].startswith("2.")


def test_a_factor_that_always_changes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends although a factor changes again and again."""

    async def lost(self: DatabaseFactors, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
        return False

    monkeypatch.setattr(DatabaseFactors, "replace", lost)
    assert json.loads(shell.call("factors", "rekey", "--json").stdout) == {"factors": 2, "rekeyed": 0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (" ", "FASTAPI_GUARD_TOTP_KEYS is a JSON object of keys by id"),
        ("[]", "FASTAPI_GUARD_TOTP_KEYS is a JSON object of keys by id"),
        ("{}", "FASTAPI_GUARD_TOTP_KEYS is a JSON object of keys by id"),
        ('{"1": 7}', "FASTAPI_GUARD_TOTP_KEYS is a JSON object of keys by id"),
        (KEY, "FASTAPI_GUARD_TOTP_KEYS is a JSON object of keys by id"),
        ('{"1": "short"}', "at least 32 bytes"),
        (json.dumps({"3": OTHER_KEY}), "a secret is encrypted with a key that is not in FASTAPI_GUARD_TOTP_KEYS"),
    ],
)
def test_refused_keys(shell: Shell, keys: str, message: str) -> None:
    """Without usable keys nothing is changed, and no key is printed."""
    result = shell.call("factors", "rekey", keys=keys)
    assert result.exit_code == 1
    assert message in result.stderr
    assert KEY not in result.output
    assert OTHER_KEY not in result.output
