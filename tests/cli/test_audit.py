"""`fastapi-guard audit`, over applications as they are written."""

import json
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path
from textwrap import indent

import pytest
from typer.testing import CliRunner, Result

from fastapi_guard.cli.app import app

APPLICATION = """
from fastapi import Depends, FastAPI
from fastapi_guard import Auth, APIKeyScheme, JWTAuth, JWTConfig
from joserfc.jwk import OctKey

def endpoint() -> None: ...

class Wrapper:
    def __init__(self, app): self.app = app

auth = JWTAuth(JWTConfig(key=OctKey.generate_key(256)))
good = FastAPI()
good.get("/items", dependencies=[auth.requires("items:read")])(endpoint)
bare = FastAPI()
bare.get("/items", dependencies=[auth.requires("items:read")])(endpoint)
bare.get("/health")(endpoint)
present = FastAPI(dependencies=[Auth(APIKeyScheme("X-Key")).authenticated()])
present.get("/a")(endpoint)
cookie = FastAPI(dependencies=[JWTAuth(auth.config, APIKeyScheme("s", "cookie"), cookie=False).authenticated()])
cookie.post("/a")(endpoint)
late = FastAPI()
late.get("/", dependencies=[Depends(endpoint), auth.authenticated()])(endpoint)
wrapped = Wrapper(Wrapper(good))
replaced = FastAPI()
replaced.get("/items", dependencies=[auth.requires("items:read")])(endpoint)
replaced.dependency_overrides = {auth.dependency: dict, endpoint: dict}
def make(): return good
def broken(): raise RuntimeError("no settings")
nothing = 5
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to a folder with a module, which is forgotten afterwards."""
    (tmp_path / "audited_application.py").write_text(APPLICATION)
    (tmp_path / "audited_failure.py").write_text("raise RuntimeError('no settings')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("audited_application", None)


def run(target: str, *options: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["audit", target, *options])


@pytest.mark.parametrize("target", ["good", "wrapped", "late"])
def test_a_guarded_application(target: str) -> None:
    """Every route is listed, and the command succeeds; middlewares around the application are seen through."""
    result = run(f"audited_application:{target}")
    assert result.exit_code == 0
    assert "jwt" in result.stdout
    assert result.stderr == "1 routes, each guarded or allowed\n"
    assert ("runs before the guard: endpoint" in result.stdout) is (target == "late")


FINDINGS = {
    "bare": "unguarded",
    "present": "presence only: auth verifies nothing",
    "cookie": "cookie without the origin rule: jwt",
}


@pytest.mark.parametrize("target", FINDINGS)
def test_what_is_found(target: str) -> None:
    """A route that is not guarded as it should be is listed with what is found, and the exit code is 1."""
    result = run(f"audited_application:{target}")
    assert result.exit_code == 1
    assert FINDINGS[target] in result.stdout
    assert result.stderr.endswith("routes are not guarded as they should be\n")
    path = "/health" if target == "bare" else "/a"
    assert run(f"audited_application:{target}", "--allow", path).exit_code == 0


@pytest.mark.parametrize("options", [[], ["--lock", "authz.lock"]], ids=["list", "lockfile"])
def test_an_application_that_overrides_dependencies(options: list[str]) -> None:
    """The list would not be true, which is an error."""
    result = run("audited_application:replaced", *options)
    assert result.exit_code == 1
    assert "replaces a guard of jwt, endpoint in app.dependency_overrides" in " ".join(result.output.split())
    assert "override dependencies in tests alone" in " ".join(result.output.split())


def test_as_json() -> None:
    """`--json` prints an entry for each route, at the command and before it; the exit code stays."""
    result = run("audited_application:bare", "--json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert [(row["method"], row["path"], row["guard"], row["findings"]) for row in rows] == [
        ("GET", "/items", "jwt", []),
        ("GET", "/health", "", ["unguarded"]),
    ]
    assert (rows[0]["scopes"], rows[0]["schemes"]) == (["items:read"], ["Bearer"])
    before = CliRunner().invoke(app, ["--json", "audit", "audited_application:good"])
    assert (before.exit_code, len(json.loads(before.stdout))) == (0, 1)


def test_where_the_application_is(folder: Path) -> None:
    """It is looked for in the folder that is named, and a factory makes it where one is named."""
    assert run("audited_application:make", "--factory").exit_code == 0
    inner = folder / "inner"
    inner.mkdir()
    (inner / "audited_inner.py").write_text("from fastapi import FastAPI\nclass box: app = FastAPI()")
    assert run("audited_inner:box.app", "--app-dir", str(inner)).exit_code == 0


NO_APPLICATION = {
    "audited_application": "error: text of 19 characters names no application: write it as main:app",
    ":app": "error: text of 4 characters names no application: write it as main:app",
    "audited_gone:app": "error: audited_gone cannot be imported: ModuleNotFoundError: No module named 'audited_gone'",
    "audited_failure:app": "error: audited_failure cannot be imported: RuntimeError: no settings",
    "audited_application:gone": "error: there is no gone in audited_application",
    "audited_application:nothing": "error: audited_application:nothing is not a FastAPI application, but int",
    "audited_application:make": "error: audited_application:make is not a FastAPI application, but function; does it"
    " return one? Then pass --factory",
}


@pytest.mark.parametrize("target", NO_APPLICATION)
def test_what_is_no_application(target: str) -> None:
    """An application that cannot be audited is one clear line and exit code 1."""
    result = run(target)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", NO_APPLICATION[target] + "\n")


def test_a_factory_that_fails() -> None:
    """A factory that raises is one clear line, and so is a path to allow that no route has."""
    result = run("audited_application:broken", "--factory")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: audited_application:broken made no application: RuntimeError: no settings\n",
    )
    result = run("audited_application:good", "--allow", "/heath")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: allow names /heath, which no route has: remove it, or correct it\n",
    )


def test_the_lockfile(folder: Path) -> None:
    """`--lock` writes the file, and `--check` passes while nothing differs."""
    file = folder / "authz.lock"
    result = run("audited_application:good", "--lock", str(file))
    assert (result.exit_code, result.stdout) == (0, f"{file}: 5 ways in\n")
    assert '"GET /items" = [{ auth = "jwt", scopes = ["items:read"] }]\n' in file.read_text()
    result = run("audited_application:good", "--lock", str(file), "--check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{file}: the application is as it was reviewed\n"


def test_a_difference_from_the_lockfile(folder: Path) -> None:
    """A guard that was dropped and a route that was added fail the check, and are printed as a reviewer reads them."""
    file = folder / "authz.lock"
    run("audited_application:good", "--lock", str(file))
    text = file.read_text().replace('"items:read"', '"items:read", "items:edit"')
    file.write_text(text + "")
    result = run("audited_application:bare", "--lock", str(file), "--check")
    assert result.exit_code == 1
    assert result.stdout == (
        "! weakened  GET /items\n"
        "      before: jwt: items:read; items:edit\n"
        "      now:    jwt: items:read\n"
        "+ added     GET /health\n"
        "      now:    unguarded\n"
    )
    assert result.stderr == (
        f"error: the application differs from {file}: 1 weakened, 1 added; after a review, write it again with --lock\n"
    )


def test_the_lockfile_as_json(folder: Path) -> None:
    """`--json` prints what was written, and the differences of a check; the exit code stays."""
    file = folder / "authz.lock"
    result = run("audited_application:good", "--lock", str(file), "--json")
    assert json.loads(result.stdout)["ways"]["GET /items"] == [{"auth": "jwt", "scopes": ["items:read"]}]
    assert json.loads(run("audited_application:good", "--lock", str(file), "--check", "--json").stdout) == {
        "lock": str(file),
        "changes": [],
    }
    result = run("audited_application:bare", "--lock", str(file), "--check", "--json")
    change = {"change": "added", "subject": "GET /health", "before": None, "after": "unguarded"}
    assert (result.exit_code, json.loads(result.stdout)["changes"]) == (1, [change])


def test_a_lockfile_that_cannot_be_used(folder: Path) -> None:
    """A file that is missing, no text, no lockfile, or not to be written is one clear line; so is a missing name."""
    assert run("audited_application:good", "--check").stderr == (
        "error: --check compares a lockfile: name it with --lock, such as --lock authz.lock\n"
    )
    file = folder / "authz.lock"
    options = ("audited_application:good", "--lock", str(file), "--check")
    assert run(*options).stderr == "error: the lockfile cannot be read: No such file or directory\n"
    file.write_bytes(b"\xff")
    assert run(*options).stderr == "error: the lockfile cannot be read: it is not text\n"
    file.write_text("version = 2")
    assert run(*options).stderr.startswith("error: the lockfile cannot be read: version: ")
    assert run("audited_application:good", "--lock", str(folder)).stderr == (
        "error: the lockfile cannot be written: Is a directory\n"
    )


def write(folder: Path, name: str, text: str) -> None:
    """Write a module, and have Python look for it."""
    (folder / f"{name}.py").write_text(text)
    invalidate_caches()


MISSING = {
    "import os; os.environ['NO_SUCH_SETTING']": "the environment variable NO_SUCH_SETTING is not set",
    "{}['some']": "KeyError: 'some'",
    "open('/nonexistent/settings')": "FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/settings'",
    "from pydantic import BaseModel, Field\n"
    "class Settings(BaseModel): secret: str = Field(min_length=32); host: str\n"
    "Settings(secret='not long')": "secret: String should have at least 32 characters; host: Field required",
    "from pydantic import TypeAdapter\nTypeAdapter(int).validate_python('hidden')": "int: Input should be a valid"
    " integer, unable to parse string as an integer",
    "from fastapi_guard import JWTAuth, JWTConfig\nfrom fastapi_guard.jwt.key_file import KeyFile\n"
    "from fastapi_guard.routers import jwks_router\n"
    "jwks_router(JWTAuth(JWTConfig(key=KeyFile('/nonexistent/keys'))))": "ConfigurationError: the key file"
    " /nonexistent/keys cannot be read: No such file or directory; ",
    "from fastapi import HTTPException\nraise HTTPException(503)": "HTTPException: 503: Service Unavailable",
    "from fastapi import HTTPException\nraise HTTPException(503) from OSError('no route to host')": "OSError: no route"
    " to host",
}


@pytest.mark.parametrize("text", MISSING)
def test_a_setting_or_a_file_that_is_missing(folder: Path, text: str) -> None:
    """It is named, without the values of other settings, whether a module or a factory needs it."""
    write(folder, "audited_missing", text)
    result = run("audited_missing:app")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: audited_missing cannot be imported: {MISSING[text]}")
    assert "not long" not in result.stderr
    assert "hidden" not in result.stderr
    write(folder, "audited_missing_factory", "def make():\n" + indent(text, "    "))
    result = run("audited_missing_factory:make", "--factory")
    sys.modules.pop("audited_missing_factory", None)
    assert result.stderr.startswith(f"error: audited_missing_factory:make made no application: {MISSING[text]}")


@pytest.mark.parametrize(
    ("written", "finding"),
    [
        ("app.get('/a', dependencies=[auth.requires_tenant()])(endpoint)", "/a: no guard: requires_tenant() of jwt"),
        ("configure_app(app, public=['/b'])", "APPLICATION /: does not start: public names /b"),
    ],
)
def test_what_configure_app_does_not_let_start(folder: Path, written: str, finding: str) -> None:
    """It is a finding too, with exit code 1."""
    more = f"from fastapi_guard import configure_app\napp = good\n{written}\n"
    write(folder, "audited_unstarted", f"{APPLICATION}\n{more}")
    result = run("audited_unstarted:app", "--json")
    sys.modules.pop("audited_unstarted", None)
    rows = {f"{row['method']} {row['path']}: {text}" for row in json.loads(result.stdout) for text in row["findings"]}
    assert (result.exit_code, len(rows)) == (1, 1)
    assert finding in rows.pop()


def test_what_is_public(folder: Path) -> None:
    """The public paths of configure_app need no `--allow`, and are marked; a prefix allows what is below it."""
    write(
        folder,
        "audited_public",
        "from fastapi import FastAPI\nfrom fastapi_guard import configure_app\napp = FastAPI()\n"
        "app.get('/health')(lambda: None)\napp.get('/pages/a')(lambda: None)\nconfigure_app(app, public=['/health'])\n",
    )
    result = run("audited_public:app", "--json")
    assert (result.exit_code, [row["public"] for row in json.loads(result.stdout)]) == (1, [True, False])
    result = run("audited_public:app", "--allow", "/pages/*")
    assert (result.exit_code, result.stderr) == (0, "2 routes, each guarded or allowed\n")
    sys.modules.pop("audited_public", None)
