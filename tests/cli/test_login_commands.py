"""The commands for users, passwords, tokens and key files."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from joserfc import jwk
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner, Result

from fastapi_guard import GuardError, JWTAuth, JWTConfig, Unauthorized
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.claims import Subject
from fastapi_guard.cli import password as password_command
from fastapi_guard.cli import users as users_command
from fastapi_guard.cli.app import app
from fastapi_guard.jwt.issuer import sign
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.passwords import quick_hasher

PASSWORD = "wonderland tea party"
KEY = jwk.OctKey.generate_key(256)


class Shell:
    """A shell in which the command is called on a database, which an application uses too."""

    def __init__(self, path: Path) -> None:
        """Name the database."""
        self.url = f"sqlite+aiosqlite:///{path}"
        self.sessions = async_sessionmaker(create_async_engine(self.url, poolclass=NullPool))
        self.store = SQLAlchemyStore(self.sessions)
        self.hasher = quick_hasher()
        self.auth = LocalAuth(
            JWTConfig(key=KEY),
            Login(DatabaseUsers(self.sessions), self.store, passwords=self.hasher),
            refresh=RefreshTokens(self.store),
            revocations=Revocations(self.store),
        )

    def call(self, *arguments: str, typed: str | None = None) -> Result:
        """Return what a command did."""
        return CliRunner().invoke(app, arguments, env={"FASTAPI_GUARD_DATABASE_URL": self.url}, input=typed)

    def text(self, *arguments: str, typed: str | None = None) -> str:
        """Return what a command that has to succeed printed."""
        result = self.call(*arguments, typed=typed)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str, typed: str | None = None) -> Any:
        """Return the JSON that a command that has to succeed printed."""
        return json.loads(self.text(*arguments, "--json", typed=typed))

    def error(self, *arguments: str, typed: str | None = None) -> str:
        """Return the one line on standard error of a command that has to fail with exit code 1."""
        result = self.call(*arguments, typed=typed)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        return line.removeprefix("error: ")

    def login(self, password: str = PASSWORD) -> Any:
        """Return the pair of a login of the application."""
        return asyncio.run(self.auth.login("alice@example.com", password))

    def holds(self, pair: Any) -> tuple[bool, bool]:
        """Return whether an access token is accepted, and whether the refresh token is."""
        access = asyncio.run(self.auth.validate_token(pair.access_token))
        try:
            asyncio.run(self.auth.refresh(pair.refresh_token))
        except Unauthorized:
            return access, False
        return access, True


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a database with one user, of which each test has a copy."""
    path = tmp_path_factory.mktemp("database") / "test.db"
    first = Shell(path)
    first.text("init-db")
    first.text(
        "users", "create", "alice@example.com", "--subject-id", "alice", "--scope", "items:read", typed=PASSWORD + "\n"
    )
    first.hasher.close()
    return path


@pytest.fixture
def shell(tmp_path: Path, database: Path) -> Iterator[Shell]:
    """Yield a shell on a database with one user."""
    opened = Shell(shutil.copyfile(database, tmp_path / "test.db"))
    yield opened
    opened.hasher.close()


@pytest.mark.parametrize(
    "name", ["a\tb", "a\x07", "a b", "  ", "\u200bada", "a b@example.com", "a@\x00", "@", "x" * 151]
)
def test_a_name_that_a_registration_rejects(shell: Shell, name: str) -> None:
    """A user of the command line has no other name than one that registered."""
    error = shell.error("users", "create", "--", name, typed=PASSWORD)
    assert error.startswith(("a username has ", "an e-mail address has ", "this is not an e-mail"))
    assert len(shell.json("users", "list")) == 1


@pytest.mark.parametrize("option", ["--subject-id", "--subject-type", "--tenant", "--role"])
@pytest.mark.parametrize("text", ["a\tb", "a\x07", ""])
def test_a_text_that_cannot_be_printed(shell: Shell, option: str, text: str) -> None:
    """A text with control characters cannot be a subject, a tenant or a role."""
    error = shell.error("users", "create", "bob", option, text, typed=PASSWORD)
    assert " is text without control characters, not " in error
    assert len(shell.json("users", "list")) == 1


def test_add_and_list(shell: Shell) -> None:
    """A user who was added can log in, and is listed without the hash of the password."""
    options = ["--tenant", "acme", "--scope", "a:b", "--scope", "c:d", "--role", "editor", "--admin"]
    added = shell.json("users", "create", "bob", "--subject-type", "agent", *options, typed=PASSWORD)
    assert UUID(added.pop("subject_id")).version == 4
    assert added == {
        "username": "bob",
        "email": None,
        "email_verified": True,
        "subject_type": "agent",
        "tenant_id": "acme",
        "is_admin": True,
        "scopes": ["a:b", "c:d"],
        "roles": ["editor"],
        "disabled": False,
    }
    assert [user["email"] or user["username"] for user in shell.json("users", "list")] == ["alice@example.com", "bob"]
    listed = shell.text("users", "list")
    assert "alice@example.com" in listed
    assert "argon2" not in listed
    claims = asyncio.run(shell.auth.verify(shell.login().access_token))
    assert (claims["sub"], claims["scope"]) == ("alice", "items:read")


@pytest.mark.parametrize(
    ("arguments", "typed", "message"),
    [
        (["create", "alice@example.com"], PASSWORD, "there is a user 'alice@example.com', or one with this subject id"),
        (["create", "bob", "--subject-id", "alice"], PASSWORD, "there is a user 'bob', or one with this subject id"),
        (["create", "bob"], "short", "the password has fewer than 15 characters"),
        (["create", "bob.the.builder@example.com"], "bob.the.builder@example.com", "the password is too easy to guess"),
        (["create", "bob", "--scope", "a b"], PASSWORD, "'a b' is not a scope"),
        (["create", "bob", "--min-characters", "4"], "abcd", "min_characters is a whole number from 8"),
        (["set-password", "bob"], PASSWORD, "there is no user 'bob'"),
        (["disable", "bob"], None, "there is no user 'bob'"),
        (["enable", "bob"], None, "there is no user 'bob'"),
    ],
)
def test_what_is_refused(shell: Shell, arguments: list[str], typed: str | None, message: str) -> None:
    """A command that cannot be carried out prints one line on standard error, and changes nothing."""
    assert shell.error("users", *arguments, typed=typed).startswith(message)
    assert [user["email"] or user["username"] for user in shell.json("users", "list")] == ["alice@example.com"]


def test_set_password(shell: Shell) -> None:
    """Another password counts at once, and with the store named what followed from the old one ends."""
    pair = shell.login()
    result = shell.call("users", "set-password", "alice@example.com", typed="another tea party\n")
    assert (result.exit_code, result.stdout) == (0, "alice@example.com: password set\n")
    assert "go on until they expire" in result.stderr
    assert shell.holds(pair) == (True, True)
    answer = shell.json("users", "set-password", "alice@example.com", "--store", shell.url, typed="a third tea party\n")
    ended = {"ended": 1, "stores": {shell.url: 1}, "api_keys": 0}
    assert answer == {"username": "alice@example.com", "changed": "password set", **ended}
    assert shell.holds(pair) == (False, False)
    with pytest.raises(Unauthorized):
        shell.login("another tea party")
    assert shell.login("a third tea party")


def test_disable_and_enable(shell: Shell) -> None:
    """A disabled user neither logs in nor refreshes; enabled again, both."""
    pair, other = shell.login(), shell.login()
    assert shell.text("users", "disable", "alice@example.com") == "alice@example.com: disabled\n"
    assert shell.holds(pair) == (True, False)
    with pytest.raises(Unauthorized):
        shell.login()
    said = shell.text("users", "disable", "alice@example.com", "--store", shell.url)
    assert said == "alice@example.com: disabled\nended 1 sessions and refresh token families\n"
    assert shell.holds(other) == (False, False)
    assert shell.text("users", "enable", "alice@example.com") == "alice@example.com: enabled\n"
    assert shell.login()


def test_enabled_as_json(shell: Shell) -> None:
    """Nothing ends when a user is enabled."""
    assert shell.json("users", "enable", "alice@example.com") == {
        "username": "alice@example.com",
        "changed": "enabled",
        "ended": None,
    }


@pytest.mark.parametrize(
    "command",
    [
        ("users", "disable", "alice@example.com"),
        ("users", "set-password", "alice@example.com"),
        ("token", "revoke", "--subject", "alice"),
    ],
)
def test_api_keys_end_with_their_user(shell: Shell, command: tuple[str, ...]) -> None:
    """The API keys that act as a user, or that the user made, are revoked; those of others are not (34a)."""
    keys = DatabaseAPIKeyAuth(shell.sessions)

    async def created(**fields: Any) -> str:
        return (await keys.create(**fields)).raw

    own, made = asyncio.run(created(user_id="alice")), asyncio.run(created(user_id="x", maker=Subject(None, "alice")))
    other = asyncio.run(created(user_id="bob"))
    assert "revoked 2 API keys\n" in shell.text(*command, typed="another tea party\n")
    assert [asyncio.run(keys.validate_token(raw)) for raw in (own, made, other)] == [False, False, True]
    assert shell.json(*command, typed="another tea party\n")["api_keys"] == 0


def test_a_database_without_api_keys(shell: Shell) -> None:
    """Without their tables there are no keys to revoke."""

    async def drop() -> None:
        async with shell.sessions() as session:
            await session.execute(text("DROP TABLE api_keys"))
            await session.commit()

    asyncio.run(drop())
    assert shell.json("users", "disable", "alice@example.com")["api_keys"] == 0


def test_several_stores(shell: Shell, tmp_path: Path, redis_url: str) -> None:
    """A subject ends in each store that is named, and the report has each; one that fails fails the command."""
    redis, missing = f"{redis_url}?health_check_interval=1", f"sqlite:///{tmp_path / 'none.db'}"
    for command in (("users", "disable", "alice@example.com"), ("token", "revoke", "--subject", "alice")):
        pair = shell.login()
        said = shell.text(*command, "--store", redis, "--store", shell.url)
        assert f"ended 0 sessions and refresh token families in {redis_url}\n" in said
        assert f"ended 1 sessions and refresh token families in {shell.url}\n" in said
        assert shell.holds(pair) == (False, False)
        shell.text("users", "enable", "alice@example.com")
        pair, new = shell.login(), asyncio.run(DatabaseAPIKeyAuth(shell.sessions).create(user_id="alice"))
        error = shell.error(*command, "--store", missing, "--store", shell.url)
        assert error.startswith(f"{missing}: the database cannot be reached: there is no file")
        assert error.endswith(f"; ended 1 sessions and refresh token families in {shell.url}")
        assert shell.holds(pair) == (False, False)
        assert not asyncio.run(DatabaseAPIKeyAuth(shell.sessions).validate_token(new.raw))
        shell.text("users", "enable", "alice@example.com")
    error = shell.error("token", "revoke", "--jti", "x", "--store", redis, "--store", shell.url)
    assert error == "a token is in one store: name several with --subject alone"


def test_several_stores_from_the_environment(shell: Shell, redis_url: str) -> None:
    """The variable has their URLs with spaces between them, and a password in one is not shown."""
    stores = f"{redis_url.replace('redis://', 'redis://default:hunter2@')} {shell.url}"
    environment = {"FASTAPI_GUARD_DATABASE_URL": shell.url, "FASTAPI_GUARD_STORE_URL": stores}
    result = CliRunner().invoke(app, ["token", "revoke", "--subject", "alice"], env=environment)
    assert "hunter2" not in result.output
    assert f" in {shell.url}" in result.output
    result = shell.call("token", "revoke", "--subject", "alice", "--store", "redis://x:hunter2@h", "--store", shell.url)
    assert result.exit_code == 2
    assert "has a password" in result.stderr


def test_hash_a_password(shell: Shell) -> None:
    """The hash of a password is one for a mapping of users."""
    hashed = shell.text("password", "hash", typed=PASSWORD + "\n").strip()
    assert asyncio.run(shell.hasher.verify(PASSWORD, hashed))
    assert shell.json("password", "hash", typed=PASSWORD)["password_hash"].startswith("$argon2id$")
    assert shell.error("password", "hash", typed="") == "the password has fewer than 15 characters"


def test_a_password_is_typed_in_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal a password is asked for twice, and not shown."""
    asked: list[dict[str, Any]] = []

    class Terminal:
        """A terminal."""

        def isatty(self) -> bool:
            """Be one."""
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(password_command.typer, "prompt", lambda _, **options: asked.append(options) or PASSWORD)
    assert password_command.new_password(15) == PASSWORD
    assert asked == [{"hide_input": True, "confirmation_prompt": True}]


def test_revoke_a_token(shell: Shell) -> None:
    """Tokens are revoked one by one, typed in or read, and invalid ones are reported."""
    pair = shell.login()
    url = ["--store", shell.url]
    assert shell.text("token", "revoke", *url, typed=pair.access_token + "\n") == "revoked access token\n"
    assert shell.holds(pair) == (False, True)
    pair = shell.login()
    assert shell.json("token", "revoke", typed=f"{pair.refresh_token}\n") == {"revoked": "refresh token"}
    assert shell.text("token", "revoke", typed=f"{pair.refresh_token}\n") == "there was nothing to revoke\n"
    assert shell.holds(pair) == (True, False)
    claims = asyncio.run(shell.auth.verify(pair.access_token))
    assert shell.json("token", "revoke", "--jti", claims["jti"]) == {"revoked": "access token", "jti": claims["jti"]}
    assert shell.holds(pair) == (False, False)
    pair = shell.login()
    said = shell.text("token", "revoke", "--subject", "alice")
    assert said == "revoked subject\nended 2 sessions and refresh token families\n"
    assert shell.holds(pair) == (False, False)


def test_revoke_a_token_that_begins_with_a_hyphen(shell: Shell) -> None:
    """A hyphen in front makes no option of a token, and a misspelled option is not taken for a token."""
    assert shell.text("token", "revoke", "-8U0cHUqL11wWdXMqzKDbDOP") == "there was nothing to revoke\n"
    assert shell.error("token", "revoke", "--subjec=ada") == (
        "there is no option --subjec; a token that begins so is read from standard input"
    )
    assert shell.text("token", "revoke", typed="--8U0cHUqL11wWdXMqzKDbDOP\n") == "there was nothing to revoke\n"


def test_what_cannot_be_revoked(shell: Shell, tmp_path: Path) -> None:
    """Invalid tokens, tokens without a jti, and a missing store are one line on standard error."""
    bare = sign(JWTConfig(key=KEY), {"sub": "alice", "iat": 1, "exp": 3601}, binds=False)
    assert shell.error("token", "revoke", bare) == ("a token without a jti cannot be revoked alone: revoke its subject")
    assert shell.error("token", "revoke", "a.é.c") == "this is not a token that can be read"
    assert shell.error("token", "revoke", "x", "--jti", "y") == "name a token, --subject or --jti, one of them"
    missing = f"sqlite:///{tmp_path / 'none.db'}"
    assert "there is no file" in shell.error("token", "revoke", "--jti", "x", "--store", missing)
    nowhere = CliRunner().invoke(app, ["token", "revoke", "--jti", "x"], env={"FASTAPI_GUARD_DATABASE_URL": None})
    assert (nowhere.exit_code, nowhere.stderr) == (
        1,
        "error: which store? Pass --store or set FASTAPI_GUARD_STORE_URL\n",
    )


def test_revoke_in_redis(shell: Shell, redis_url: str) -> None:
    """The store may be in Redis, under a prefix of its own."""

    async def revoked(prefix: str) -> bool:
        async with Redis.from_url(redis_url) as client:
            return await Revocations(RedisStore(client, prefix=prefix)).is_revoked({"jti": "one"})

    shell.text("token", "revoke", "--jti", "one", "--store", redis_url, "--store-prefix", "cli:")
    assert asyncio.run(revoked("cli:"))
    assert not asyncio.run(revoked("fastapi-guard:"))
    shell.text("token", "revoke", "--jti", "one", "--store", redis_url)
    assert asyncio.run(revoked("fastapi-guard:"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@127.0.0.1:1",
        "rediss://ada:hunter2@h",
        "redis://h?password=hunter2",
        "postgresql://h/x?password=hunter2",
    ],
)
def test_the_password_of_a_store(shell: Shell, url: str) -> None:
    """It is refused as an argument, by each command with a store, and read from the environment."""
    for command in (("token", "revoke", "--jti", "x"), ("users", "disable", "ada"), ("users", "sessions", "ada")):
        result = shell.call(*command, "--store", url)
        assert result.exit_code == 2
        assert "FASTAPI_GUARD_STORE_URL" in result.stderr.replace("\n", " ")
        assert "hunter2" not in result.output
    environment = {"FASTAPI_GUARD_STORE_URL": "redis://:hunter2@127.0.0.1:1"}
    assert_unreachable(CliRunner().invoke(app, ["token", "revoke", "--jti", "x"], env=environment))


def assert_unreachable(result: Result) -> None:
    """Assert that the command names the failure, and not the password; Python 3.11 loses the trace of its caller."""
    assert (result.exit_code, "the store cannot be reached" in result.stderr) == (1, True)
    assert "hunter2" not in result.output


def test_key_files(shell: Shell, tmp_path: Path) -> None:
    """A key file is made once, rotated, and its public halves printed."""
    path = tmp_path / "keys.json"
    made = shell.json("jwk", "generate", str(path), "--alg", "Ed25519")
    assert made["retired"] == []
    token = JWTAuth(JWTConfig(key=KeyFile(path))).encode({"sub": "ada"})
    rotated = shell.json("jwk", "rotate", str(path))
    assert (rotated["current"], rotated["retired"]) == (made["next"], [made["current"]])
    assert asyncio.run(JWTAuth(JWTConfig(key=KeyFile(path))).validate_token(token))
    said = shell.text("jwk", "rotate", str(path), "--keep", "0s", "--alg", "ES256")
    assert said.startswith(f"rotated {path}: {rotated['next']} signs")
    published = json.loads(shell.text("jwk", "public", str(path)))["keys"]
    assert [key["alg"] for key in published] == ["Ed25519", "ES256"]
    assert all("d" not in key for key in published)
    assert "exists: rotate it" in shell.error("jwk", "generate", str(path))
    assert "cannot be read" in shell.error("jwk", "public", str(tmp_path / "none.json"))
    assert "a key file holds keys for" in shell.error("jwk", "generate", str(tmp_path / "other.json"), "--alg", "HS256")


def test_without_the_extra(tmp_path: Path) -> None:
    """Without libpass the commands on passwords say what to install, and the others work."""
    code = "import sys; sys.modules['passlib.context'] = None; from fastapi_guard.__main__ import main; main()"

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, input=PASSWORD)  # noqa: S603

    refused = call("password", "hash")
    assert refused.returncode == 1
    assert refused.stderr == "error: libpass is not installed: pip install 'fastapi-guard-auth[passwords]'\n"
    assert call("jwk", "generate", str(tmp_path / "keys.json")).returncode == 0


async def test_a_user_that_another_process_changes() -> None:
    """A command whose user was changed in between changes nothing, and prints how to go on."""

    class Contended(DatabaseUsers):
        def __init__(self) -> None:
            """Need no database."""

        async def update(self, user: User, changed: User) -> bool:
            assert changed.credentials_version == user.credentials_version + 1
            return False

    with pytest.raises(GuardError, match="the user 'ada' was changed by another process: run the command again"):
        await users_command._updated(Contended(), User(subject_id="1", username="ada", password_hash=None))


def test_a_redis_that_cannot_be_reached(shell: Shell) -> None:
    """It is one line on standard error."""
    assert shell.error("token", "revoke", "--jti", "x", "--store", "redis://127.0.0.1:1").startswith("the store cannot")
