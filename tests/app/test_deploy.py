"""The production checklist, checked on applications as they are written."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from joserfc.jwk import ECKey, OctKey
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import AnyAuth, APIKeyScheme, JWTAuth, JWTConfig, StaticAPIKeyAuth, configure_app
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.app.asgi import guarded
from fastapi_guard.app.collaborators import collaborators_of, is_a
from fastapi_guard.app.deploy import Deployment, Finding, static_findings
from fastapi_guard.events import logger
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.login.cookies import CookieSettings
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.routers.login import login_router
from fastapi_guard.stores import MemoryStore
from support.asgi import endpoint

EC = ECKey.generate_key("P-256")
CONFIG = JWTConfig(key=EC, issuer_url="https://issuer.example", audience="api", expiration_seconds=300)


@pytest.fixture(autouse=True)
def info() -> Any:
    """Log at INFO, as an application in production does."""
    level = logger.level
    logger.setLevel("INFO")
    yield
    logger.setLevel(level)


def app_with(*guards: Any, docs: bool = False) -> FastAPI:
    """Return an application with one route, that is guarded and refuses to start otherwise."""
    app = FastAPI(**({} if docs else {"openapi_url": None}))
    app.get("/", dependencies=list(guards))(endpoint)
    configure_app(app, unguarded="refuse")
    return app


def by_config(**changes: Any) -> FastAPI:
    """Return an application whose Auth has a changed configuration."""
    return app_with(JWTAuth(replace(CONFIG, **changes)).authenticated())


def by_session(**settings: Any) -> FastAPI:
    """Return an application whose sessions have a cookie with these attributes."""
    return app_with(SessionAuth(MemoryStore(), cookie_settings=CookieSettings(**settings)).authenticated())


def static(days: float) -> FastAPI:
    """Return an application with an API key that expires in so many days."""
    expires = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    entry = {"user_id": "robot", "scopes": ["a"], "expires_at": expires}
    return app_with(StaticAPIKeyAuth({"a-key-that-is-long-enough-for-this": entry}).authenticated())


def found(app: FastAPI, workers: int | None = 1) -> list[tuple[str, str, str]]:
    """Return the findings of an application in short."""
    findings = static_findings(Deployment.of(app, workers))
    return [(finding.check, finding.severity, finding.message) for finding in findings]


def keys_in_a_database(**options: Any) -> FastAPI:
    """Return an application with API keys in a database, to which no test connects."""
    sessions = sessionmaker(create_engine("sqlite:///nowhere.db"))
    return app_with(DatabaseAPIKeyAuth(sessions, **options).authenticated())


def test_an_application_without_a_finding() -> None:
    """An application that follows the checklist has no finding."""
    assert found(by_config()) == []
    assert found(static(100)) == []


def test_ways_in() -> None:
    """An unguarded route is an error, and an application that starts with one a warning."""
    app = FastAPI(openapi_url=None)
    app.get("/")(endpoint)
    assert found(app) == [
        ("ways-in", "error", "GET /: unguarded"),
        ("ways-in", "warning", "the application starts with a route that is not guarded"),
    ]
    configure_app(app, public=["/"])
    assert [check for check, _, _ in found(app)] == ["ways-in"]


def test_documentation_and_debug() -> None:
    """Pages of the documentation that every caller reads are for a decision, and debug is an error."""
    app = app_with(JWTAuth(CONFIG).authenticated(), docs=True)
    text = "every caller can read /docs, /docs/oauth2-redirect, /openapi.json, /redoc"
    assert found(app) == [("documentation", "info", text)]
    guarded = FastAPI()
    configure_app(guarded, unguarded="refuse", docs=JWTAuth(CONFIG).authenticated())
    assert found(guarded) == []
    app = by_config()
    app.debug = True
    assert found(app) == [("debug", "error", "debug=True shows tracebacks to clients")]


def test_overrides() -> None:
    """An entry for tests replaces guards in an application that is deployed."""
    app = by_config()
    app.dependency_overrides[by_config] = dict
    assert found(app) == [("overrides", "error", "app.dependency_overrides replaces by_config")]
    app, inner = by_config(), FastAPI(openapi_url=None)
    inner.dependency_overrides[found] = dict
    app.mount("/inner", guarded(inner, JWTAuth(CONFIG).authenticated()))
    overrides = [finding for finding in found(app) if finding[0] == "overrides"]
    assert overrides == [("overrides", "error", "app.dependency_overrides replaces found")]


SIGNING = "a signing key is not from a key file: workers that generate their own reject each other's tokens"
TOKENS: list[Any] = [
    ({"issuer_url": None}, "audience", "warning", "a JWTConfig has no issuer_url or no audience: "),
    ({"audience": None}, "audience", "warning", "a JWTConfig has no issuer_url or no audience: "),
    ({"expiration_seconds": None}, "lifetime", "error", "tokens without exp are issued and accepted"),
    ({"expiration_seconds": 7200}, "lifetime", "warning", "access tokens are valid for 7200 s, and cannot "),
    ({"key": OctKey.generate_key(256), "algorithms": None}, "algorithms", "info", "HS256: every service that "),
]


@pytest.mark.parametrize(("changes", "check", "severity", "text"), TOKENS, ids=range(len(TOKENS)))
def test_tokens(changes: dict[str, Any], check: str, severity: str, text: str) -> None:
    """A configuration of tokens that is a risk has a finding."""
    (finding,) = found(by_config(**changes))
    assert finding[:2] == (check, severity)
    assert finding[2].startswith(text)


def test_several_workers() -> None:
    """With several workers a signing key has to be shared, and state in memory is an error; else it is a warning."""
    assert found(by_config(), 2) == [("signing-key", "info", SIGNING)]
    public = JWTConfig(key=EC.as_pem(private=False).decode(), issuer_url="https://i.example", audience="api")
    assert found(app_with(JWTAuth(public).authenticated()), 2) == []
    for workers, severity, text in (
        (1, "warning", "1 workers"),
        (2, "error", "2 workers"),
        (None, "warning", "not known"),
    ):
        ((check, given, message),) = found(by_session(), workers)
        assert (check, given, text in message) == ("memory-store", severity, True)


def test_workers_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of workers is that of WEB_CONCURRENCY, where the operator passes none."""
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert Deployment.of(FastAPI()).workers == 3
    assert Deployment.of(FastAPI(), 2).workers == 2
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    assert Deployment.of(FastAPI()).workers is None


def test_key_files(tmp_path: Path) -> None:
    """A key file that was not rotated for half a year is a warning, one that is missing an error."""
    file = KeyFile(tmp_path / "keys.json")
    file.generate()
    app = by_config(key=file)
    assert found(app, 2) == []
    old = (datetime.now(UTC) - timedelta(days=200)).timestamp()
    os.utime(file.path, (old, old))
    assert found(app) == [("key-age", "warning", f"the keys in {file.path} were last rotated 200 days ago")]
    file.path.unlink()
    text = f"the key file {file.path} cannot be read: No such file or directory"
    assert found(app) == [("key-file", "error", text)]


def test_api_keys() -> None:
    """Keys without a pepper, and keys that expire soon, are a warning."""
    assert found(keys_in_a_database()) == [("pepper", "warning", "api-key: keys are stored without a pepper")]
    assert found(keys_in_a_database(peppers={"1": "a-pepper-that-is-long-enough-for-this"})) == []
    assert found(static(10.01)) == [("key-age", "warning", "an API key of robot expires in 10 d")]
    assert found(static(-1)) == [("key-age", "warning", "an API key of robot has expired")]


def login(**options: Any) -> FastAPI:
    """Return an application with a login of passwords, which has no users."""
    app = FastAPI(openapi_url=None)
    gate = Login({}, MemoryStore(), passwords=None, **options)
    app.include_router(login_router(LocalAuth(CONFIG, gate)))
    configure_app(app, unguarded="refuse", public=["/*"])
    return app


def test_throttles() -> None:
    """A throttle in the memory of each worker, and a login without one, have a finding."""
    app = app_with(JWTAuth(CONFIG).authenticated(), Depends(Throttle("5/minute")))
    assert ("memory-throttle", "warning", "a Throttle counts in each worker separately (1 workers)") in found(app)
    assert [check for check, _, _ in found(login())] == ["memory-throttle"]
    app = login(limits=LoginLimits(account=None), name="staff")
    assert ("throttle", "error", "staff: passwords and codes can be tried without a limit") in found(app)


def test_a_store_in_memory() -> None:
    """The store of a login counts where it has factors, or where refresh tokens are in it too."""
    gate = Login({}, MemoryStore(), passwords=None)
    app = FastAPI(openapi_url=None)
    app.include_router(login_router(LocalAuth(CONFIG, gate, refresh=RefreshTokens(gate.store))))
    assert "memory-store" in {check for check, _, _ in found(app)}


COOKIES: list[Any] = [
    ({}, []),
    ({"name": "sid", "secure": False}, [("error", "the cookie sid is sent over http")]),
    ({"name": "sid"}, [("warning", "another host of the domain can set the cookie sid")]),
    ({"samesite": "none"}, [("warning", "every site can have browsers send the cookie __Host-session")]),
]


@pytest.mark.parametrize(("settings", "expected"), COOKIES, ids=range(len(COOKIES)))
def test_cookies(settings: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """A cookie that is not bound to this host, not secure, or sent by every site has a finding."""
    assert [finding[1:] for finding in found(by_session(**settings)) if finding[0] == "cookie"] == expected


def test_proxies() -> None:
    """Different numbers of trusted proxies are a warning."""
    app = FastAPI(openapi_url=None)
    for name, proxies in (("one", 1), ("two", 2)):
        gate = Login({}, MemoryStore(), passwords=None, name=name, trusted_proxies=proxies)
        app.include_router(login_router(LocalAuth(CONFIG, gate, name=name)), prefix=f"/{name}")
    assert ("proxies", "warning", "trusted_proxies is 1 and 2 in different places") in found(app)


def test_logging() -> None:
    """A logger that drops refusals is a warning."""
    logger.setLevel("WARNING")
    assert [check for check, _, _ in found(by_config())] == ["logging"]


def test_a_finding() -> None:
    """A finding has its severity, its remedy and its link, as text and as JSON, and the worst come first."""
    finding = Finding(check="debug", severity="error", message="m", remedy="r", link="how-to/production.md")
    assert str(finding) == "error    debug: m\n         r (how-to/production.md)"
    assert finding.as_dict() == {
        "check": "debug",
        "severity": "error",
        "message": "m",
        "remedy": "r",
        "link": "how-to/production.md",
    }


async def partial_dependency(used: Any = None) -> None:
    """Do nothing."""


class Own(JWTAuth):
    """An Auth of the application."""


def test_collaborators() -> None:
    """Objects of the package are found along guards, closures, partials, methods and containers, each once."""
    config, auth = JWTConfig(key=EC), Own(CONFIG)
    stores = {"a": [MemoryStore()], "b": (MemoryStore(),)}
    if not stores:  # so that the name is not bound
        late = stores  # pragma: no cover

    def closing() -> object:
        return stores, late  # pragma: no cover - not called

    class Methods:
        """An object of the application, which is not entered."""

        hidden = MemoryStore()

        def method(self) -> None:
            """Do nothing."""

    app = FastAPI(dependencies=[AnyAuth(auth, JWTAuth(config, APIKeyScheme("X"), name="x")).optional()])
    app.get("/a")(closing)
    app.get("/b", dependencies=[Depends(partial(partial_dependency, used=(Throttle("1/minute"),)))])(endpoint)
    app.get("/c")(Methods().method)
    app.get("/d", dependencies=[Depends(Throttle("3/minute").__call__)])(endpoint)
    router = APIRouter()
    router.get("/e", dependencies=[Depends(Throttle("4/minute"))])(endpoint)
    app.include_router(router)
    found = collaborators_of(app)
    assert len({id(part) for part in found}) == len(found)
    assert sum(is_a(part, "MemoryStore") for part in found) == 2
    assert next(part for part in found if is_a(part, "JWTAuth")) is auth
    assert {part.rate.amount for part in found if is_a(part, "Throttle")} == {1, 3, 4}
    assert is_a(auth, "Auth")
    assert not is_a(Methods(), "Methods")
