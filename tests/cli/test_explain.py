"""`fastapi-guard explain` and `token inspect`: why a credential is refused, with secrets by stdin or environment."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc.jwk import OctKey
from typer.testing import CliRunner, Result

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.cli.app import app

SECRET = OctKey.generate_key(256)
APPLICATION = f"""
from contextlib import asynccontextmanager
from fastapi import FastAPI
from fastapi_guard import APIKeyScheme, AnyAuth, JWTAuth, JWTConfig, StaticAPIKeyAuth
from joserfc.jwk import OctKey

@asynccontextmanager
async def lifespan(app):
    yield {{"started": True}}

auth = JWTAuth(JWTConfig(key=OctKey.import_key({SECRET.as_dict()!r}), audience="api"))
keys = StaticAPIKeyAuth({{"a-key-that-is-long-enough-for-this": {{"user_id": "robot", "scopes": ["items:read"]}}}},
                        APIKeyScheme("X-Key"))
cookies = JWTAuth(auth.config, APIKeyScheme("sid", "cookie"), name="cookies")
app = FastAPI(lifespan=lifespan)
app.get("/items/{{item_id}}", dependencies=[AnyAuth(auth, keys).requires("items:read")])(lambda: None)
app.get("/pages", dependencies=[cookies.authenticated()])(lambda: None)
def make(): return app
"""
ISSUING = JWTAuth(JWTConfig(key=SECRET, audience="api"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with a module, which is forgotten afterwards."""
    (tmp_path / "explained_application.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("explained_application", None)


def run(*arguments: str, text: str = "", env: dict[str, str] | None = None) -> Result:
    """Run a command with this standard input and environment."""
    return CliRunner(env=env or {}).invoke(app, list(arguments), input=text)


def explain(*arguments: str, text: str = "", env: dict[str, str] | None = None) -> Result:
    """Run `explain`."""
    return run("explain", "explained_application:app", *arguments, text=text, env=env)


def test_a_token() -> None:
    """A token comes from standard input; the exit code is 0 where the request is allowed, and 1 where it is not."""
    result = explain("GET", "/items/7", "--token", "-", text=ISSUING.encode({"sub": "ada", "scope": "items:edit"}))
    assert result.exit_code == 0
    assert result.stdout.startswith("GET /items/{item_id}: allowed\n")
    assert "items:edit from claim scope (jwt)" in result.stdout
    result = explain("GET", "/items/7", "--token", "-", text=ISSUING.encode({"sub": "ada"}))
    assert result.exit_code == 1
    assert result.stdout.endswith("needed:\n  the scope items:read\n")


def test_a_key_and_a_cookie() -> None:
    """A key and a cookie come from the environment."""
    key = {"KEY": "a-key-that-is-long-enough-for-this"}
    assert explain("GET", "/items/7", "--key", "env:KEY", env=key).exit_code == 0
    cookie = {"COOKIE": ISSUING.encode({"sub": "ada"})}
    assert explain("GET", "/pages", "--cookie", "env:COOKIE", env=cookie).exit_code == 0


def test_explain_as_json() -> None:
    """`--json` has the request, the verdict, credentials, checks, grants and what is needed."""
    result = explain("GET", "/items/7", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert {name: type(value).__name__ for name, value in found.items()} == {
        "method": "str",
        "path": "str",
        "route": "str",
        "allowed": "bool",
        "status": "int",
        "credentials": "list",
        "checks": "list",
        "grants": "list",
        "needed": "list",
    }
    assert (found["route"], found["status"]) == ("/items/{item_id}", 401)
    assert found["checks"] == [
        {"auth": "any", "requirement": "a credential", "passed": False, "status": 401, "reason": "missing"}
    ]
    factory = run("explain", "explained_application:make", "GET", "/nothing", "--factory", "--json")
    assert (json.loads(factory.stdout)["status"], factory.exit_code) == (404, 1)


NO_SECRET = {
    "eyJ": "error: --token is - for standard input, or env:NAME: an argument is visible to other users of the machine"
    "\n",
    "env:NO_SUCH": "error: --token: the environment variable NO_SUCH is not set\n",
    "-": "error: --token - reads a line of standard input, which is empty\n",
}


@pytest.mark.parametrize("source", NO_SECRET)
def test_a_secret_is_never_an_argument(source: str) -> None:
    """A secret comes by standard input or by the environment alone, and the error does not have it."""
    result = explain("GET", "/items/7", "--token", source)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", NO_SECRET[source])


def test_inspect_a_token() -> None:
    """`token inspect` shows a token without an application; with one, each Auth of its routes has a verdict."""
    token = ISSUING.encode({"sub": "ada"})
    result = run("token", "inspect", "-", text=token)
    assert result.exit_code == 0
    assert "\naud: api\n" in result.stdout
    result = run("token", "inspect", "-", "--app", "explained_application:app", text=token)
    assert result.exit_code == 0
    assert result.stdout.endswith("jwt: accepted\napi-key: refused: unknown_key\ncookies: accepted\n")
    expired = ISSUING.encode({"sub": "ada", "exp": 1})
    result = run("token", "inspect", "env:T", "--app", "explained_application:app", "--auth", "jwt", env={"T": expired})
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "jwt: refused: expired")
    result = run("token", "inspect", "-", "--app", "explained_application:app", "--auth", "x", text=token)
    assert result.stderr == "error: no route has an Auth x; there are jwt, api-key, cookies\n"


def test_inspect_against_a_configuration(folder: Path) -> None:
    """`--config` is a file of create_auth; `--json` has the form, the header, the claims, findings and verdicts."""
    file = folder / "auth.toml"
    file.write_text('issuer = "https://issuer.example"\naudience = "api"\njwks_uri = "https://issuer.example/jwks"\n')
    result = run("token", "inspect", "-", "--config", str(file), "--json", text="a.b.c.d.e")
    found = json.loads(result.stdout)
    assert (result.exit_code, list(found)) == (1, ["form", "header", "claims", "findings", "verdicts"])
    assert found["form"] == "encrypted"
    (verdict,) = found["verdicts"]
    assert list(verdict) == ["auth", "accepted", "reason", "findings"]
