"""`fastapi-guard check`, over an application as it is written."""

import json
import logging
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from fastapi_guard.cli.app import app
from fastapi_guard.cli.output import failures
from fastapi_guard.exceptions import ServiceUnavailable

APPLICATION = """
import logging
from contextlib import asynccontextmanager
from fastapi import FastAPI
from fastapi_guard import JWTAuth, JWTConfig, configure_app
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from joserfc.jwk import ECKey
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

logging.getLogger("fastapi_guard").setLevel(logging.INFO)
engine = create_engine("sqlite:///records.db")
sessions = SessionAuth(SQLAlchemyStore(sessionmaker(engine)))
started = []

@asynccontextmanager
async def lifespan(app):
    started.append(True)
    yield

app = FastAPI(openapi_url=None, lifespan=lifespan)
app.get("/", dependencies=[sessions.authenticated()])(lambda: None)
configure_app(app, unguarded="refuse")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with a module, which is forgotten afterwards."""
    (tmp_path / "checked_application.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    level = logging.getLogger("fastapi_guard").level
    yield tmp_path
    logging.getLogger("fastapi_guard").setLevel(level)
    module: Any = sys.modules.pop("checked_application", None)
    if hasattr(module, "engine"):
        module.engine.dispose()


def run(*options: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["check", "checked_application:app", *options])


def test_without_deploy() -> None:
    """Without `--deploy` the application is read, and not started."""
    result = run()
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "0 findings\n")
    assert sys.modules["checked_application"].started == []


def test_deploy() -> None:
    """With it the application is started, and its store is called; the exit code is 1 where a finding is severe."""
    assert_deployed(run("--deploy", "--workers", "2"))


def assert_deployed(result: Result) -> None:
    """Check the findings of `--deploy`, in a frame of its own: that of the test is not traced any more afterwards."""
    assert result.exit_code == 1
    assert "error    store: a SQLAlchemyStore cannot be reached: no such table" in result.stdout
    assert "warning  sqlite: " in result.stdout
    assert result.stderr == "error: 1 of 2 findings are of severity error\n"
    assert sys.modules["checked_application"].started == [True]


def test_a_store_in_redis(redis_url: str, folder: Path) -> None:
    """A store in Redis is closed again, and an application without a finding passes."""
    text = APPLICATION.replace("SQLAlchemyStore(sessionmaker(engine))", "STORE")
    text = text.replace('engine = create_engine("sqlite:///records.db")\n', "")
    text = text.replace("STORE", f"RedisStore.from_url({redis_url!r})")
    text = text.replace("from sqlalchemy import create_engine", "from fastapi_guard.stores.redis import RedisStore")
    (folder / "checked_redis.py").write_text(text)
    invalidate_caches()
    result = CliRunner().invoke(app, ["check", "checked_redis:app", "--deploy"])
    sys.modules.pop("checked_redis", None)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "0 findings\n")


def test_an_application_that_does_not_start(folder: Path) -> None:
    """A guard without its parameter in the path is found before the deployment, as at the start."""
    path = folder / "checked_application.py"
    guard = 'app.get("/items", dependencies=[sessions.requires_tenant()])(lambda: None)\n'
    path.write_text(APPLICATION.replace("configure_app(app,", f"{guard}configure_app(app,"))
    result = run("--deploy")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: requires_tenant() of session reads {tenant}, which the path /items does not"
    )


def test_the_severity_that_fails() -> None:
    """`--fail-on` names the least severity for exit code 1."""
    assert run("--fail-on", "info").exit_code == 0
    assert run("--fail-on", "x").stderr == "error: --fail-on is error, warning, info, not text of 1 characters\n"
    severe = "error: 2 of 2 findings are of severity error or warning or info\n"
    assert run("--deploy", "--fail-on", "info").stderr == severe


def test_as_json() -> None:
    """`--json` prints a list of findings, each with its check, severity, message, remedy and link."""
    assert_json(run("--deploy", "--json"))


def assert_json(result: Result) -> None:
    """Check the JSON of `--deploy`, in a frame of its own; see `assert_deployed`."""
    rows = json.loads(result.stdout)
    assert (result.exit_code, [row["check"] for row in rows]) == (1, ["store", "sqlite"])
    assert list(rows[0]) == ["check", "severity", "message", "remedy", "link"]


FILE = """
from fastapi import FastAPI
from fastapi_guard import JWTAuth, JWTConfig, configure_app
from fastapi_guard.jwt.key_file import KeyFile

auth = JWTAuth(JWTConfig(key=KeyFile("keys.json"), algorithms=["ES256"]))
app = FastAPI(openapi_url=None)
app.get("/", dependencies=[auth.authenticated()])(lambda: None)
configure_app(app, unguarded="refuse")
"""


def test_a_key_file_that_is_missing(folder: Path) -> None:
    """The error names the key file and how to create it, and no database, which the application does not have."""
    (folder / "checked_application.py").write_text(FILE)
    result = run()
    assert result.exit_code == 1
    assert "cannot be read: No such file or directory; create it with `fastapi-guard jwk generate" in result.stderr
    assert "database" not in result.stderr


def test_a_redis_that_is_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    """The error of a store that is not a database has its reason and its cause."""
    with pytest.raises(typer.Exit), failures():
        raise ServiceUnavailable(reason="store_unreachable") from ConnectionError("refused")
    assert capsys.readouterr().err == "error: unavailable (store_unreachable): refused\n"
