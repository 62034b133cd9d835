"""A module without its library raises an error with the command that installs it."""

import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

import fastapi_guard
from fastapi_guard import MissingExtraError
from fastapi_guard.login.throttle import Throttle

MODULES = [
    ("issuers.auth0", "auth0_api_python", "[a-z0-9-]+ is", "auth0"),
    ("stores.database", "sqlalchemy.exc", "sqlalchemy is", "sqlalchemy"),
    ("stores.driver", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("stores.greenlets", "greenlet", "sqlalchemy is", "sqlalchemy"),
    ("stores.sqlalchemy", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("stores.sqlalchemy_changes", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("login.users.models", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("stores.redis", "redis.asyncio", "redis is", "redis"),
    ("app.mcp", "mcp.server.auth.provider", "mcp is", "mcp"),
    ("app.mcp_sessions", "mcp.server.auth.provider", "mcp is", "mcp"),
    ("login.passwords", "passlib.context", "libpass is", "passwords"),
    ("login.throttle.windows", "limits", "limits is", "throttle"),
    ("login.factor_models", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("login.providers.identity_models", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("login.totp", "pyotp", "pyotp is", "totp"),
    ("login.totp", "segno", "pyotp is", "totp"),
    ("login.relying_party", "webauthn", "webauthn is", "passkeys"),
    ("api_key.queries", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("api_key.statements", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
    ("cli.__init__", "typer", "typer is", "cli"),
    ("cli.__init__", "rich", "typer is", "cli"),
    ("cli.database", "sqlalchemy", "sqlalchemy is", "sqlalchemy"),
]


@pytest.mark.parametrize(("module", "library", "text", "extra"), MODULES, ids=["-".join(row[:2]) for row in MODULES])
def test_without_the_library(monkeypatch: pytest.MonkeyPatch, module: str, library: str, text: str, extra: str) -> None:
    """The module raises MissingExtraError, which is an ImportError, with the command."""
    path = Path(fastapi_guard.__file__).parent / (module.replace(".", "/") + ".py")
    util.find_spec(f"fastapi_guard.{module}")
    __import__(f"fastapi_guard.{module}")  # with the library it imports
    monkeypatch.setitem(sys.modules, library, None)
    spec: Any = util.spec_from_file_location(f"again_{module}", path)
    with pytest.raises(
        MissingExtraError, match=rf"^{text} not installed: pip install 'fastapi-guard-auth\[{extra}\]'$"
    ):
        spec.loader.exec_module(util.module_from_spec(spec))


def test_a_throttle_in_redis_without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits brings no client of Redis, so a throttle in Redis names the extra that does."""
    assert Throttle("1/minute", storage="redis://localhost:6379/0")
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fastapi-guard-auth\[redis\]'"):
        Throttle("1/minute", storage="redis://localhost:6379/0")


WITHOUT_HTTPX = """
import sys
from fastapi_guard.issuers import DPoP, IntrospectionAuth, MultiOIDCAuth, OIDCAuth, presets
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.cells import cells_of
from fastapi_guard.testing.issuer import FakeIssuer
from fastapi_guard import MissingExtraError

assert "httpx2" not in sys.modules, "imported too early"
sys.modules["httpx2"] = None
DPoP(MemoryStore(), origin="https://api.example")
ARN = "arn:aws:elasticloadbalancing:eu-central-1"
provider = {"issuer": "https://id.example", "audience": "https://api.example"}
for construct in (
    lambda: OIDCAuth(**provider),
    lambda: OIDCAuth.google("client"),
    lambda: presets.cognito("eu-central-1_Ab12Cd34E", "client"),
    lambda: presets.aws_alb(f"{ARN}:123456789012:loadbalancer/app/shop/50dc6c495c0c9188", "client", "issuer"),
    lambda: MultiOIDCAuth({"one": provider}),
    lambda: IntrospectionAuth("https://id.example/introspect", client_id="a", client_secret="s"),
    lambda: RemoteKeySet("https://id.example/jwks"),
    FakeIssuer,
):
    try:
        construct()
    except MissingExtraError as error:
        print(error)
"""


def test_issuers_without_the_http_client() -> None:
    """Modules that tests and issuers need can be imported without the extra; an object that sends requests names it."""
    python = [sys.executable, "-W", "error", "-c", WITHOUT_HTTPX]
    printed = subprocess.run(python, check=True, capture_output=True, text=True).stdout.splitlines()  # noqa: S603 - ours
    assert printed == ["httpx2 is not installed: pip install 'fastapi-guard-auth[http]'"] * 8
