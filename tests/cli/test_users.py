"""Invitations, factors and sessions, from the command line."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner, Result

from fastapi_guard.cli.app import app
from fastapi_guard.login.accounts import Accounts, NewAccount
from fastapi_guard.login.enrolled import DatabaseFactors, EnrolledFactor, EnrolledFactors, StoredFactors
from fastapi_guard.login.login import Login
from fastapi_guard.login.messages import ConsoleSender
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.accounts import SITE
from support.factors import KEY, OTHER_KEY
from support.login import PASSWORD, request
from support.passwords import quick_hasher

ADA = User(subject_id="ada", username="ada")


class Shell:
    """A shell beside an application, on the database of its users and records."""

    def __init__(self, path: Path) -> None:
        """Create the tables, and a user."""
        self.url = f"sqlite+aiosqlite:///{path}"
        factory = async_sessionmaker(create_async_engine(self.url, poolclass=NullPool))
        self.users = DatabaseUsers(factory)
        self.store = SQLAlchemyStore(factory)
        self.tables = DatabaseFactors(factory)
        self.text("init-db")
        assert asyncio.run(self.users.add(ADA))

    def call(self, *arguments: str, key: str = json.dumps({"2": KEY, "1": OTHER_KEY})) -> Result:
        """Return the result of a command."""
        environment = {
            "FASTAPI_GUARD_DATABASE_URL": self.url,
            "FASTAPI_GUARD_STORE_URL": self.url if "sessions" in arguments or "invite" in arguments else "",
            "FASTAPI_GUARD_MAIL_KEY": key,
        }
        return CliRunner().invoke(app, arguments, env=environment)

    def text(self, *arguments: str) -> str:
        """Return the output of a command that succeeds."""
        result = self.call(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """Return the JSON of a command that succeeds."""
        return json.loads(self.text(*arguments, "--json"))

    def error(self, *arguments: str, **options: Any) -> str:
        """Return the one line on standard error of a command that fails."""
        result = self.call(*arguments, **options)
        assert (result.exit_code, result.stdout) == (1, "")
        return result.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a shell."""
    return Shell(tmp_path / "shop.db")


async def accept(shell: Shell, token: str) -> User:
    """Accept an invitation in the application."""
    login = Login(shell.users, shell.store, passwords=quick_hasher())
    accounts = Accounts(login, key={"2": KEY, "1": OTHER_KEY}, pages=SITE, send=ConsoleSender())
    return await accounts.invitations.accept(token, NewAccount(password=PASSWORD), connection=None)


def test_invite(shell: Shell) -> None:
    """The printed link registers a user with the roles, scopes and tenant that an operator gave."""
    arguments = ["users", "invite", "bob@example.com", "--site", SITE, "--role", "editor", "--scope", "posts:edit"]
    link = shell.text(*arguments, "--tenant", "acme").strip()
    page, _, token = link.partition("#token=")
    assert page == f"{SITE}/invitation"
    bob = asyncio.run(accept(shell, token))
    assert (bob.email, bob.roles, bob.tenant_id) == ("bob@example.com", ("editor",), "acme")
    found = shell.json("users", "invite", "eve@example.com", "--site", SITE, "--page", "/welcome")
    assert found["email"] == "eve@example.com"
    assert found["link"].startswith(f"{SITE}/welcome#token=")
    assert found["expires_at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        (["bob", "--site", SITE], None, "this is not an e-mail address"),
        (["bob@example.com", "--site", "shop"], None, "site is the https origin"),
        (["bob@example.com", "--site", SITE], "", "FASTAPI_GUARD_MAIL_KEY is a JSON object"),
        (["bob@example.com", "--site", SITE], '{"1": "short"}', "at least 32 bytes"),
    ],
)
def test_an_invitation_that_cannot_be(shell: Shell, arguments: list[str], key: str | None, message: str) -> None:
    """A mistake is one line on standard error, without the key."""
    options = {} if key is None else {"key": key}
    error = shell.error("users", "invite", *arguments, **options)
    assert message in error
    assert "short" not in error


async def enrol(records: EnrolledFactors) -> None:
    """Enrol two factors."""
    for number in range(2):
        factor = EnrolledFactor(id=f"f{number}", subject="ada", kind="totp", name="x", data="{}", created_at=1.5)
        assert await records.add(factor)


@pytest.mark.parametrize("place", ["tables", "store"])
def test_reset_factors(shell: Shell, place: str) -> None:
    """An operator removes every factor of a user, and what began before does not complete."""
    records: EnrolledFactors = shell.tables if place == "tables" else StoredFactors(shell.store)
    options = [] if place == "tables" else ["--store", shell.url]
    asyncio.run(enrol(records))
    assert shell.json("users", "reset-factors", "ADA", *options) == {"username": "ada", "removed": 2}
    assert asyncio.run(records.of("ada")) == []
    user = asyncio.run(shell.users.by_subject("ada"))
    assert user is not None
    assert user.credentials_version == 1
    assert shell.text("users", "reset-factors", "ada", *options) == "ada: removed 0 factors\n"
    assert "there is no user 'eve'" in shell.error("users", "reset-factors", "eve")


def test_sessions(shell: Shell) -> None:
    """Sessions are listed with their devices, and one can be ended."""
    auth = SessionAuth(shell.store)
    session = asyncio.run(auth.login(Response(), {"sub": "ada"}, connection=request()))
    [listed] = shell.json("users", "sessions", "ada")
    assert (listed["id"], listed["address"], listed["agent"]) == (session.id, "192.0.2.1", "Firefox")
    assert "Firefox" in shell.text("users", "sessions", "ada")
    assert shell.json("users", "sessions", "ada", "--auth", "staff") == []
    assert "has no session with this id" in shell.error("users", "sessions", "ada", "--end", "x")
    assert shell.text("users", "sessions", "ada", "--end", session.id) == f"ended {session.id}\n"
    assert shell.json("users", "sessions", "ada") == []
    other = asyncio.run(auth.login(Response(), {"sub": "ada"}, connection=request()))
    assert shell.json("users", "sessions", "ada", "--end", other.id) == {"ended": other.id}


def test_texts_for_a_terminal(shell: Shell) -> None:
    """A name with a line end or with a sequence for a terminal is shown with escapes."""
    assert asyncio.run(shell.users.add(User(subject_id="m", username="m\x1b[2J", roles=("a\nb",))))
    listed = shell.text("users", "list")
    assert "\x1b" not in listed
    assert r"m\x1b[2J" in listed
    assert r"a\nb" in listed
