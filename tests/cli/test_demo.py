"""`fastapi-guard demo`: the command, served in a process of its own and in the process of the tests."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import uvicorn
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from demo import PASSWORDS
from fastapi_guard.cli import database
from fastapi_guard.cli import demo as command
from fastapi_guard.cli.app import app
from support.commands import running_program

KEY = "sk-demo-0123456789abcdef"


@contextmanager
def served(*options: str, url: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve the demo at a free port; yield its URL and the lines that it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "FASTAPI_GUARD_DATABASE_URL"}
    environment |= {} if url is None else {"FASTAPI_GUARD_DATABASE_URL": url}
    with running_program("fastapi_guard", "demo", "--port", "0", *options, environment=environment) as output:
        lines = [output.readline().rstrip("\n")]
        found = re.match(r"# Serving at (http://\S+),", lines[0])
        assert found is not None
        while not lines[-1].endswith("/posts") or "-si" not in lines[-1]:
            lines.append(output.readline().rstrip("\n"))
        yield found[1], lines


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[TestClient]:
    """Serve within this process: the functions in the list are called with a client of the application."""
    visits: list[Any] = []
    tuned: list[bool] = []

    def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        assert tuned
        with TestClient(cast("Any", server.config.app)) as client:
            for visit in visits:
                visit(client)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    # The garbage collector is that of all tests.
    monkeypatch.setattr(command, "tune_gc", lambda: tuned.append(True))
    return visits


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a credential."""
    return {"Authorization": f"Bearer {token}"}


def test_behind_a_login(in_process: list[Any]) -> None:
    """Users log in, refresh, own their posts, and create keys with no more scopes than they have."""

    def visit(client: TestClient) -> None:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/posts").status_code == 401
        logins = {
            name: client.post("/token", data={"username": name, "password": password}).json()
            for name, password in PASSWORDS.items()
        }
        ada, grace, alan = (bearer(logins[name]["access_token"]) for name in ("ada", "grace", "alan"))
        assert client.get("/me", headers=alan).json() == {"sub": "alan", "scopes": ["posts:read"]}
        assert client.post("/posts", headers=alan, json={"title": "x"}).status_code == 403
        mine = client.post("/posts", headers=grace, json={"title": "x"})
        assert (mine.status_code, mine.json()) == (201, {"id": 3, "author_id": "grace", "title": "x"})
        assert client.put("/posts/3", headers=grace, json={"title": "y"}).json()["title"] == "y"
        assert client.put("/posts/1", headers=grace, json={"title": "y"}).status_code == 403
        assert client.delete("/posts/1", headers=grace).status_code == 403
        assert client.delete("/posts/3", headers=ada).status_code == 204
        assert client.delete("/posts/3", headers=ada).status_code == 404
        assert client.get("/admin/users", headers=grace).status_code == 403
        assert client.get("/admin/users", headers=ada).json() == ["ada", "alan", "grace"]
        key = client.post("/keys", headers=grace, json={"scopes": ["posts:read"]}).json()["key"]
        assert [post["id"] for post in client.get("/posts", headers=bearer(key)).json()] == [1, 2]
        assert client.post("/posts", headers=bearer(key), json={"title": "z"}).status_code == 403
        assert client.post("/keys", headers=alan, json={"scopes": ["posts:edit"]}).status_code == 403
        pair = client.post("/token/refresh", data={"refresh_token": logins["grace"]["refresh_token"]}).json()
        assert client.get("/me", headers=bearer(pair["access_token"])).json()["sub"] == "grace"
        assert client.post("/logout", headers=grace).status_code < 300
        assert client.get("/me", headers=grace).status_code == 401

    in_process.append(visit)
    result = CliRunner().invoke(app, ["demo", "--port", "0"])
    assert (result.exit_code, result.stdout.count("curl")) == (0, 15)


def test_the_pages(in_process: list[Any]) -> None:
    """The pages are at localhost, on which passkeys depend, with a database of their own."""

    def visit(client: TestClient) -> None:
        answer = client.get("/", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, "/accounts/")
        site = client.get("/accounts/login", follow_redirects=False).headers["location"].removesuffix("/accounts/")
        assert site.startswith("http://localhost:")
        local = {"Host": site.removeprefix("http://"), "Accept": "text/html"}
        assert 'action="/accounts/login"' in client.get("/accounts/login", headers=local).text
        answer = client.get("/accounts/", headers=local, follow_redirects=False)
        assert answer.headers["location"] == "/accounts/login?next=/accounts/"
        body = {"email": "ada@accounts.example", "username": "ada", "password": "wonderland tea party"}
        answer = client.post("/accounts/register", data=body, headers=local, follow_redirects=False)
        assert answer.headers["location"] == "/accounts/register/sent"
        assert client.get("/accounts/providers", headers=local).json() == ["development"]

    in_process.append(visit)
    result = CliRunner().invoke(app, ["demo", "--port", "0"])
    assert result.exit_code == 0, result.output
    assert re.search(r"with pages at http://localhost:\d+/accounts/, and documentation at", result.stdout)


def test_no_pages_for_other_machines(in_process: list[Any]) -> None:
    """The page of messages is for this machine alone: where others may reach it, there are no pages."""

    def visit(client: TestClient) -> None:
        assert [client.get(path).status_code for path in ("/", "/accounts/", "/health")] == [404, 404, 200]

    in_process.append(visit)
    result = CliRunner().invoke(app, ["demo", "--port", "0", "--host", "0.0.0.0"])  # noqa: S104
    assert (result.exit_code, "pages at" in result.stdout) == (0, False)


def test_behind_one_key(in_process: list[Any]) -> None:
    """The key has all scopes, another key none; there is no login and no router for keys."""

    def visit(client: TestClient) -> None:
        assert client.get("/posts", headers=bearer(KEY)).json() == []
        assert client.post("/posts", headers=bearer(KEY), json={"title": "x"}).status_code == 201
        assert client.put("/posts/1", headers=bearer(KEY), json={"title": "y"}).json()["author_id"] == "demo"
        assert client.delete("/posts/1", headers=bearer(KEY)).status_code == 204
        assert client.get("/admin/users", headers=bearer(KEY)).json() == ["demo"]
        assert client.get("/posts", headers=bearer(KEY + "x")).status_code == 401
        assert client.post("/token").status_code == 404
        assert client.get("/keys", headers=bearer(KEY)).status_code == 404

    in_process.append(visit)
    result = CliRunner().invoke(app, ["demo", "--port", "0", "--api-key", KEY])
    assert (result.exit_code, f"\nTOKEN={KEY}\n" in result.stdout) == (0, True)
    assert "every user of this machine can see this key: pass --api-key - or env:NAME" in result.stderr
    for source, line in (("-", f"{KEY}\n"), ("env:DEMO_KEY", "")):
        in_process.append(visit)
        options = ["demo", "--port", "0", "--api-key", source]
        result = CliRunner().invoke(app, options, input=line, env={"DEMO_KEY": KEY})
        assert (result.exit_code, f"\nTOKEN={KEY}\n" in result.stdout, result.stderr) == (0, True, "")
    result = CliRunner().invoke(app, ["demo", "--port", "0", "--api-key", "env:NO_SUCH_KEY"])
    assert result.stderr == "error: --api-key: the environment variable NO_SUCH_KEY is not set\n"


def test_behind_a_database_of_its_own() -> None:
    """Without a URL the demo has a temporary database, and prints a key."""
    with served("--auth-type", "database") as (url, lines), httpx2.Client(base_url=url) as client:
        (key,) = (line.removeprefix("TOKEN=") for line in lines if line.startswith("TOKEN="))
        assert client.get("/me", headers=bearer(key)).json()["sub"] == "demo"
        assert client.get("/admin/users", headers=bearer(key)).json() == ["demo"]


def test_behind_a_database_in_process(in_process: list[Any]) -> None:
    """Unauthenticated requests are rejected, and the health check is public."""

    def visit(client: TestClient) -> None:
        assert client.get("/admin/users").status_code == 401
        assert client.get("/health").status_code == 200

    in_process.append(visit)
    assert CliRunner().invoke(app, ["demo", "--port", "0", "--auth-type", "database"]).exit_code == 0


def test_behind_the_keys_of_a_database(tmp_path: Path) -> None:
    """The keys of the database at the URL are accepted; missing tables are created, and existing ones are kept."""
    url = f"sqlite:///{tmp_path}/keys.db"
    created = CliRunner().invoke(app, ["--database-url", url, "init-db"])
    assert created.exit_code == 0
    for start in range(2):
        with served("--auth-type", "database", url=url) as (address, lines), httpx2.Client(base_url=address) as client:
            (line,) = (line for line in lines if line.startswith("TOKEN="))
            assert f"keys create --database-url {url} " in line
            key = subprocess.run(["sh", "-c", f"{line}; echo $TOKEN"], check=True, capture_output=True, text=True)  # noqa: S603, S607
            assert client.post("/posts", headers=bearer(key.stdout.strip()), json={"title": "x"}).status_code == 201
            assert len(client.get("/posts", headers=bearer(key.stdout.strip())).json()) == start + 1


def test_mistakes_of_the_command_line() -> None:
    """Each mistake is reported in one line with exit code 1, and nothing is served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            ("--auth-type", "ldap"): "error: --auth-type is local or database, not text of 4 characters",
            (
                "--api-key",
                KEY,
                "--auth-type",
                "local",
            ): "error: --api-key and --auth-type are two ways",
            ("--api-key", "short"): "error: api_keys.key 1: has fewer than 16 characters",
            ("--api-key", KEY, "--port", port): f"error: cannot listen at 127.0.0.1, port {port}: Address already in",
            ("--api-key", KEY, "--host", "no.such.host.invalid"): "error: cannot listen at no.such.host.invalid",
            ("--auth-type", "database", "--database-url", "nothing"): "error: the database URL is malformed",
        }
        for options, expected in cases.items():
            result = CliRunner().invoke(app, ["demo", *options])
            assert (result.exit_code, result.stdout) == (1, "")
            assert result.stderr.startswith(expected)


@pytest.mark.parametrize(("host", "shown"), [("::1", "http://[::1]:"), ("0.0.0.0", "http://127.0.0.1:")])  # noqa: S104
def test_the_printed_address(host: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An IPv6 address is printed in brackets, and all interfaces as the loopback address, with a warning."""
    with command.listen(host, 0) as listening:
        assert command.address_of(listening).startswith(shown)
    assert ("passwords of this demo are public" in capsys.readouterr().err) is (host == "0.0.0.0")  # noqa: S104


def test_all_interfaces_of_ipv6() -> None:
    """All interfaces of IPv6 are printed as the loopback address too."""
    with command.listen("::", 0) as listening:
        assert command.address_of(listening).startswith("http://[::1]:")


def test_the_password_of_a_database_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with a password is not part of the line that creates a key; the program is named as it was started."""
    monkeypatch.setattr(database, "run", lambda *_, **__: None)
    url = "postgresql+psycopg://u:secret@db.example/x"
    for started, program in (("/opt/bin/fastapi-guard", "/opt/bin/fastapi-guard"), ("x.py", "-m fastapi_guard")):
        monkeypatch.setattr(sys, "argv", [started])
        _, calls = command.behind_a_database(url, "")
        assert "secret" not in str(calls("http://x"))
        assert f"{program} keys create --user demo" in str(calls("http://x"))


def test_a_server_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["demo", "--api-key", KEY, "--port", "0"])
    assert result.exit_code == 1
    assert result.stderr == "error: uvicorn is not installed: pip install 'fastapi-guard-auth[serve]'\n"


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_the_pool_has_no_overflow(driver: str) -> None:
    """The demo opens no connections to PostgreSQL beyond those that its pool keeps."""
    opened: Any = database.open_database(f"{driver}://user@localhost/name")
    assert opened.engine.pool._max_overflow == 0
