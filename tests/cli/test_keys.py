import asyncio
import errno
import hashlib
import io
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import URL, create_engine, event, make_url, select
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from api_key.databases import DRIVERS, Database
from fastapi_guard.__main__ import main
from fastapi_guard.api_key.models import APIKeyEvent, Base
from fastapi_guard.cli import options
from fastapi_guard.cli.app import app
from support.commands import run_program

PEPPERS = json.dumps({"1": "the-only-pepper-of-this-house"})


class Shell:
    """A shell in which the command is called."""

    def __init__(self, url: str) -> None:
        """Have the database URL in the environment."""
        self.env: dict[str, str | None] = {"FASTAPI_GUARD_DATABASE_URL": url, "FASTAPI_GUARD_PEPPERS": None}

    def call(self, *arguments: str, typed: str | None = None) -> Result:
        """Return what a command did."""
        return CliRunner().invoke(app, arguments, env=self.env, input=typed)

    def text(self, *arguments: str, typed: str | None = None) -> str:
        """Return what a command that has to succeed printed."""
        result = self.call(*arguments, typed=typed)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """Return the JSON that a command that has to succeed printed."""
        return json.loads(self.text(*arguments, "--json"))

    def error(self, *arguments: str, typed: str | None = None) -> str:
        """Return the one line on standard error of a command that has to fail with exit code 1."""
        result = self.call(*arguments, typed=typed)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        return line.removeprefix("error: ")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Return a shell with an empty database."""
    shell = Shell(f"sqlite:///{tmp_path / 'keys.db'}")
    shell.text("init-db")
    return shell


@pytest.fixture(params=DRIVERS)
def each_shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """Return a shell on each database in turn, without tables."""
    driver = DRIVERS[request.param]
    if driver.startswith("sqlite"):
        yield Shell(f"{driver}:///{tmp_path / 'keys.db'}")
    else:
        url: URL = request.getfixturevalue("postgres_url").set(drivername="postgresql+psycopg")
        engine = create_engine(url)
        Base.metadata.drop_all(engine)
        yield Shell(url.set(drivername=driver).render_as_string(hide_password=False))
        Base.metadata.drop_all(engine)
        engine.dispose()


def test_a_key_with_limits(shell: Shell) -> None:
    """A rate and a quota are set on the command line, and are wrong as they are in Python."""
    options = ("--rate", "100/minute", "--quota", "5000", "--quota-period", "30d")
    created = shell.json("keys", "create", "--user", "alice", *options)
    stored = shell.json("keys", "show", created["key_id"])
    assert (stored["rate"], stored["quota"], stored["quota_seconds"]) == ("100/minute", 5000, 30 * 86_400)
    assert shell.json("keys", "show", shell.json("keys", "create", "--user", "bob")["key_id"])["rate"] is None
    assert "rate" in shell.error("keys", "create", "--user", "alice", "--rate", "often")
    assert "quota" in shell.error("keys", "create", "--user", "alice", "--quota-period", "30d")


def test_each_database(each_shell: Shell) -> None:
    """All commands work on each database, through sync and async drivers; missing tables are named."""
    if "sqlite" in str(each_shell.env["FASTAPI_GUARD_DATABASE_URL"]):
        assert "there is no file" in each_shell.error("keys", "list")
    else:
        missing = "there is no table api_key_events and no table api_keys in this database: run fastapi-guard init-db"
        assert each_shell.error("keys", "list") == missing
    assert each_shell.text("init-db") == "all tables exist\n"
    assert each_shell.json("init-db") == {"created": True}
    created = each_shell.json("keys", "create", "--user", "alice", "--scope", "items:read", "--expires", "90d")
    rotated = each_shell.json("keys", "rotate", created["key_id"], "--overlap", "24h")
    assert [key["key_id"] for key in each_shell.json("keys", "list", "--user", "alice")] == [
        created["key_id"],
        rotated["key_id"],
    ]
    assert each_shell.json("keys", "revoke", rotated["key_id"]) == {
        "key_id": rotated["key_id"],
        "revoked": True,
        "changed": True,
    }
    for key in (created, rotated):
        assert each_shell.json("keys", "show", key["key_id"])["status"] == "revoked"
    assert each_shell.json("keys", "prune", "--ended-for", "0s") == {"deleted": 2}


def test_what_is_created_verifies(shell: Shell) -> None:
    """A key of the command line is a key of the application, with all that was given to it."""
    shell.env["FASTAPI_GUARD_PEPPERS"] = PEPPERS
    created = shell.json(
        *(
            "keys",
            "create",
            "--user",
            "ci",
            "--name",
            "Cié's [bold]key[/bold]",
            "--scope",
            "items:read",
            "--scope",
            "b:*",
        ),
        *("--admin", "--tenant", "acme", "--metadata", '{"team": "red"}', "--subject-type", "service"),
        *("--prefix", "acme", "--expires", "2099-01-01T00:00:00Z"),
    )
    database = Database.of(make_url(str(shell.env["FASTAPI_GUARD_DATABASE_URL"])))
    claims = asyncio.run(database.auth(peppers=json.loads(PEPPERS), prefix="acme").verify(created["key"]))
    assert abs(claims.pop("iat") - datetime.now(UTC).timestamp()) < 60
    assert claims == {
        "sub": "ci",
        "subject_type": "service",
        "key_id": created["key_id"],
        "name": "Cié's [bold]key[/bold]",
        "scope": "items:read b:*",
        "tenant_id": "acme",
        "is_admin": True,
        "metadata": {"team": "red"},
        "exp": int(datetime(2099, 1, 1, tzinfo=UTC).timestamp()),
    }
    database.sync_engine.dispose()


def test_for_people(shell: Shell) -> None:
    """Without --json a key is printed once, with a word on it, and lists are tables that cut nothing off."""
    result = shell.call("keys", "create", "--user", "alice", "--name", "[red]" + "n" * 200, "--scope", "items:read")
    key_id, key = (line.split()[-1] for line in result.stdout.splitlines())
    assert (result.exit_code, result.stderr) == (0, "Keep it now: it is not shown again.\n")
    assert key.split("-")[1] == key_id
    header, row = shell.text("keys", "list").splitlines()
    assert header.split() == ["key", "id", "name", "user", "id", "status", "scopes", "expires", "last", "used"]
    assert row.split() == [key_id, "[red]" + "n" * 200, "alice", "active", "items:read", "-", "-"]
    shown = shell.text("keys", "show", key_id)
    assert f"key id        {key_id}\n" in shown
    assert "is admin      no\n" in shown
    assert "metadata      -\n" in shown
    assert key not in shown
    assert shell.text("keys", "revoke", key_id) == f"revoked {key_id}\n"
    assert shell.text("keys", "revoke", key_id) == f"{key_id} was revoked before\n"
    assert shell.text("keys", "prune") == "deleted 0\n"
    with time_machine.travel(datetime.now(UTC) + timedelta(days=91)):
        assert shell.text("keys", "prune") == "deleted 1\n"
    assert shell.text("keys", "list", "--user", "nobody").splitlines()[1:] == []


def test_what_shows_in_a_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a narrow terminal long cells are folded, and the id is whole."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    key_id = shell.json("keys", "create", "--user", "alice", "--name", "n" * 50)["key_id"]
    assert key_id in shell.text("keys", "list")


def test_unused_keys(shell: Shell) -> None:
    """--unused-for counts from the creation of a key that was never used; --active leaves out those that ended."""
    old = shell.json("keys", "create", "--user", "alice")["key_id"]
    with time_machine.travel(datetime.now(UTC) + timedelta(days=91)):
        young = shell.json("keys", "create", "--user", "alice", "--tenant", "acme")["key_id"]
        assert [key["key_id"] for key in shell.json("keys", "list", "--unused-for", "90d")] == [old]
        assert [key["key_id"] for key in shell.json("keys", "list", "--tenant", "acme")] == [young]
        shell.text("keys", "revoke", old)
        assert [key["key_id"] for key in shell.json("keys", "list", "--active")] == [young]


def test_the_events_name_the_account(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change by the command line is recorded with the account of the system; an account without a name is `cli`."""
    monkeypatch.setenv("LOGNAME", "ada")
    key_id = shell.json("keys", "create", "--user", "alice")["key_id"]

    def nobody() -> str:
        raise OSError("no name")

    monkeypatch.setattr(options.getpass, "getuser", nobody)
    shell.text("keys", "revoke", key_id)
    engine = create_engine(str(shell.env["FASTAPI_GUARD_DATABASE_URL"]))
    with Session(engine) as session:
        assert list(session.scalars(select(APIKeyEvent.actor).order_by(APIKeyEvent.id))) == ["cli:ada", "cli"]
    engine.dispose()


def test_hash(shell: Shell) -> None:
    """The hash of a key is made of standard input or a prompt, never of an argument, and needs no database."""
    shell.env["FASTAPI_GUARD_DATABASE_URL"] = None
    expected = "sha256:" + hashlib.sha256(b"sk-alice-secret-key").hexdigest()
    typed = "sk-alice-secret-key\n"
    assert shell.text("keys", "hash", typed=typed) == f"{expected}\n"
    assert json.loads(shell.text("keys", "hash", "--json", typed=typed)) == {"hash": expected}
    assert json.loads(shell.text("--json", "keys", "hash", typed=typed)) == {"hash": expected}
    assert shell.error("keys", "hash") == "there is no key to hash"
    assert shell.error("keys", "hash", typed="a" * 15).startswith("the key has fewer than 16 characters")
    assert shell.call("keys", "hash", typed=secrets.token_hex(16)).stderr == ""
    for guessable in ("a" * 64, "sk-alice-secret-key"):
        assert "does not look random" in shell.call("keys", "hash", typed=guessable).stderr
    assert shell.call("keys", "hash", "sk-alice-secret-key").exit_code == 2


def test_environments(shell: Shell) -> None:
    """A key of an environment begins with its name, and so does the key that replaces it."""
    created = shell.json("keys", "create", "--user", "alice", "--environment", "test")
    rotated = shell.json("keys", "rotate", created["key_id"])
    assert (created["key"][:8], rotated["key"][:8]) == ("sk_test_", "sk_test_")
    assert "environments are names" in shell.error("keys", "create", "--user", "alice", "--environment", "A B")


def test_pause_and_resume(shell: Shell) -> None:
    """A key is paused and resumed; a second time changes nothing."""
    key_id = shell.json("keys", "create", "--user", "alice")["key_id"]
    assert shell.text("keys", "pause", key_id) == f"paused {key_id}\n"
    assert shell.json("keys", "pause", key_id) == {"key_id": key_id, "paused": True, "changed": False}
    assert shell.json("keys", "show", key_id)["status"] == "paused"
    assert shell.text("keys", "resume", key_id) == f"resumed {key_id}\n"
    assert shell.text("keys", "resume", key_id) == f"{key_id} was resumed before\n"
    assert shell.json("keys", "show", key_id)["status"] == "active"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@127.0.0.1:1/x",
        "mysql://:hunter2@h",
        "x://a:hunter2@b@c",
        "postgresql://h/x?user=u&password=hunter2",
    ],
)
def test_a_password_as_an_argument(shell: Shell, url: str) -> None:
    """A URL with a password is rejected as an argument, wherever it is; the environment may have one."""
    for arguments in (("keys", "list", "--database-url", url), ("--database-url", url, "keys", "list")):
        result = shell.call(*arguments)
        assert result.exit_code == 2
        assert "FASTAPI_GUARD_DATABASE_URL" in result.stderr
        assert "hunter2" not in result.output
    shell.env["FASTAPI_GUARD_DATABASE_URL"] = url
    assert "hunter2" not in shell.error("keys", "list")
    assert shell.call("--database-url", "postgresql://u@127.0.0.1:1/x", "keys", "list").exit_code == 1


def test_hash_in_a_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the key is asked for, and not shown while it is typed."""
    monkeypatch.setattr("fastapi_guard.cli.keys.sys", FakeTerminal())
    printed = shell.text("keys", "hash", typed="sk-alice-secret-key\n")
    assert "sha256:" + hashlib.sha256(b"sk-alice-secret-key").hexdigest() in printed
    assert "sk-alice-secret-key" not in printed


class FakeTerminal:
    """A module `sys` whose standard input is a terminal."""

    class stdin:  # noqa: N801 - its name there
        """Standard input."""

        @staticmethod
        def isatty() -> bool:
            """Return that it is one."""
            return True


def test_the_url_before_the_command_and_behind_it(shell: Shell, tmp_path: Path) -> None:
    """The URL is taken from the command, from before it, or from the environment, in that order; --json likewise."""
    url = str(shell.env["FASTAPI_GUARD_DATABASE_URL"])
    shell.env["FASTAPI_GUARD_DATABASE_URL"] = "sqlite:////nowhere/else.db"
    shell.error("keys", "list")
    assert shell.text("--database-url", url, "--json", "keys", "list") == "[]\n"
    assert shell.json("keys", "list", "--database-url", url) == []
    assert shell.json("--database-url", "nonsense", "keys", "list", "--database-url", url) == []
    shell.env["FASTAPI_GUARD_DATABASE_URL"] = None
    assert shell.error("keys", "list") == "which database? Pass --database-url or set FASTAPI_GUARD_DATABASE_URL"
    assert shell.error("init-db") == "which database? Pass --database-url or set FASTAPI_GUARD_DATABASE_URL"


ODD = "that is not the id of an API key: an id is the 16 letters and digits before the last hyphen"


@pytest.mark.parametrize("command", ["show", "rotate", "revoke"])
def test_a_wrong_id(shell: Shell, command: str) -> None:
    """A wrong id is one clear line and exit code 1, and a whole key that was pasted is not shown."""
    created = shell.json("keys", "create", "--user", "alice")
    assert shell.error("keys", command, "0" * 16) == f"there is no API key with the id {'0' * 16}"
    for wrong in (created["key"], "nope", "", "é"):
        assert shell.error("keys", command, wrong) == ODD
    assert shell.call("keys", command, created["key_id"]).exit_code == 0


def test_what_cannot_be_rotated(shell: Shell) -> None:
    """Rotating twice is one clear line."""
    key_id = shell.json("keys", "create", "--user", "alice")["key_id"]
    new_id = shell.json("keys", "rotate", key_id)["key_id"]
    assert shell.error("keys", "rotate", key_id) == f"the API key {key_id} was rotated before: the new key is {new_id}"
    shell.json("keys", "rotate", new_id, "--overlap", "1h", "--expires", "30d")
    assert f"the API key {new_id} was rotated before" in shell.error("keys", "rotate", new_id)


URLS = {
    "nonsense": "the database URL is malformed: write it as sqlite:///keys.db or postgresql://user:password@host/name,"
    " and characters such as @ and / in the password as %40 and %2F",
    "postgresql://u:p@hunter2@127.0.0.1:1/x": "the database URL is malformed: write it as",
    "postgresql://u:hunter2@host:port/x": "the database URL is malformed: write it as",
    "foo://u:hunter2@host/x": "the database URL names a database that SQLAlchemy does not support: foo",
    "mysql+oursql://u:hunter2@host/x": "the database URL names a database that SQLAlchemy does not support",
    "mysql+pymysql://u:hunter2@host/x": "the driver of mysql+pymysql is not installed: pip install pymysql",
    "mysql://u:hunter2@host/x": "the driver of mysql is not installed: pip install mysqlclient",
    "mariadb://u:hunter2@host/x": "the driver of mariadb is not installed: pip install mysqlclient",
    "mysql+mysqlconnector://u:hunter2@host/x": "the driver of mysql+mysqlconnector is not installed: pip install mysql",
    "postgresql+psycopg2://u:hunter2@host/x": "the driver of postgresql+psycopg2 is not installed: pip install psycopg",
    "sqlite:////nowhere/keys.db": "the database cannot be reached: there is no file /nowhere/keys.db; create",
    "sqlite://": "there is no table api_key_events and no table api_keys in this database: run fastapi-guard init-db",
    "postgres://u:hunter2@127.0.0.1:1/x": "the database cannot be reached: ",
    "postgresql+psycopg://u:hunter2@127.0.0.1:1/x": "the database cannot be reached: ",
    "postgresql+asyncpg://u:hunter2@127.0.0.1:1/x": "the database cannot be reached: ",
    "postgresql+psycopg://u:hunter2@host.invalid/x": "the database cannot be reached: ",
}


@pytest.mark.parametrize("url", URLS)
def test_databases_that_cannot_be_used(shell: Shell, url: str) -> None:
    """A bad URL, a missing driver, file, server or table is one clear line without the password."""
    assert shell.json("keys", "list") == []
    shell.env["FASTAPI_GUARD_DATABASE_URL"] = url
    line = shell.error("keys", "list")
    assert line.startswith(URLS[url])
    assert "hunter2" not in line


def test_a_database_that_goes_away(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that fails after it was reached is one clear line too."""

    def fail(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "FROM api_keys" in statement:
            raise RuntimeError("gone")

    from fastapi_guard.cli import database  # noqa: PLC0415 - to wrap what it opens

    opened = database.create_engine

    def open_and_fail(*arguments: Any) -> Any:
        engine = opened(*arguments)
        event.listen(engine, "before_cursor_execute", fail)
        return engine

    monkeypatch.setattr(database, "create_engine", open_and_fail)
    assert shell.error("keys", "list") == "the database is unavailable: gone"


USAGE = {
    "--expires": ["soon", "90", "90x", "2027-01-01T00:00:00", "2020-01-01T00:00:00Z", "9999999d", "999999w"],
    "--subject-type": ["robot"],
    "--metadata": ["{", "[]", '"x"'],
    "--scope": ["a b", ""],
    "--user": ["", "a\nb"],
}


@pytest.mark.parametrize("option", USAGE)
def test_wrong_values(shell: Shell, option: str) -> None:
    """A wrong value is a failure with the remedy, and nothing is created."""
    for value in USAGE[option]:
        result = shell.call("keys", "create", "--user", "alice", option, value)
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.output
        assert result.stderr
    assert shell.json("keys", "list") == []
    assert shell.call("keys", "list", "--unused-for", "soon").exit_code == 2


def test_peppers_that_are_none(shell: Shell) -> None:
    """Peppers in the environment that cannot be read are one clear line without them."""
    shell.env["FASTAPI_GUARD_PEPPERS"] = "hunter2"
    assert shell.error("keys", "list").startswith("FASTAPI_GUARD_PEPPERS is a JSON object")


def test_as_a_command(tmp_path: Path) -> None:
    """`python -m fastapi_guard` does what the console script does."""
    environment = {"FASTAPI_GUARD_DATABASE_URL": f"sqlite:///{tmp_path / 'keys.db'}"}
    assert run_program("fastapi_guard", "init-db", environment=environment).status == 0
    created = run_program("fastapi_guard", "keys", "create", "--user", "alice", "--json", environment=environment)
    assert json.loads(created.stdout).keys() == {"key_id", "key"}
    assert run_program("fastapi_guard", "keys", "revoke", "nope", environment=environment) == (1, "", f"error: {ODD}\n")
    module = [sys.executable, "-m", "fastapi_guard", "--help"]
    assert "init-db" in subprocess.run(module, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours


def test_main(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The console script is `main`, and names the extra in one line if typer is missing."""
    monkeypatch.setattr(sys, "argv", ["fastapi-guard", "keys", "hash"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("sk-alice-secret-key\n"))
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().out[:7]) == (0, "sha256:")
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "fastapi_guard.cli.app")
    monkeypatch.delitem(sys.modules, "fastapi_guard.cli")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == "error: typer is not installed: pip install 'fastapi-guard-auth[cli]'"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["--json", "config", "check"], ["--help"], ["keys", "--help"]], ids=" ".join)
def test_output_that_cannot_be_written(arguments: list[str], tmp_path: Path) -> None:
    """A full disk behind standard output is one line, and exit code 1."""
    file = tmp_path / "keys.toml"
    file.write_text('kind = "static"\n[api_keys."sk-alice-secret-key-of-some-length"]\nuser_id = "alice"\n')
    arguments = [*arguments, str(file)] if "check" in arguments else arguments
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "fastapi_guard", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, SystemExit), (errno.ETIMEDOUT, TimeoutError)])
def test_errors_of_standard_output(monkeypatch: pytest.MonkeyPatch, number: int, kind: type[BaseException]) -> None:
    """Any other error of the operating system keeps its traceback."""

    class Output(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(number, "broken")

    monkeypatch.setattr(sys, "argv", ["fastapi-guard", "keys", "hash"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("sk-alice-secret-key\n"))
    monkeypatch.setattr(sys, "stdout", Output())
    with pytest.raises(kind) as end:
        main()
    assert number != errno.ENOSPC or str(end.value) == "error: the output cannot be written: broken"
