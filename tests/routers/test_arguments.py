"""An argument of a router, or of what wraps an application, that it cannot use is a ConfigurationError at the call.

Each error names its argument. ``tests/test_arguments.py`` does the same for constructors.
"""

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from inspect import Parameter, signature
from pkgutil import walk_packages
from typing import Any, Final

import pytest
from fastapi import Depends, FastAPI
from joserfc.jwk import ECKey
from pydantic import HttpUrl
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool
from starlette.endpoints import HTTPEndpoint
from starlette.testclient import TestClient

from fastapi_guard import BearerScheme, ConfigurationError, JWTAuth, JWTConfig, routers
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.app import GuardBackend, configure_app, guarded
from fastapi_guard.app.mcp import guarded_mcp, guarded_tools, token_verifier
from fastapi_guard.app.openapi import swagger_login
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.login import RefreshTokens, SessionAuth
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.providers import GitHub, ProviderLogin
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.totp import TOTP
from fastapi_guard.routers import jwks_router, protected_resource_router
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.api_keys import api_keys_router, service_accounts_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.form_pages import FormPage
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.routers.tickets import tickets_router
from fastapi_guard.stores import MemoryStore
from fastapi_guard.stores.arguments import path_of, scopes_in
from support.accounts import SITE, MemoryUsers
from support.factors import KEY

CONFIG = JWTConfig(key=ECKey.generate_key("P-256"), issuer_url="https://id.example")
ENGINE = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
SESSIONS = sessionmaker(ENGINE)
CODE_FLOW = BearerScheme.authorization_code("https://id.example/authorize", "https://id.example/token")
GUARD = JWTAuth(CONFIG).requires("files:read")


def _login() -> Login:
    return Login({}, MemoryStore(), second=[TOTP(key=KEY, issuer="Shop"), RecoveryCodes()])


async def _server(scope: Any, receive: Any, send: Any) -> None:
    """Stand for an application."""


def _mount(app: Any) -> Any:
    return guarded(app, GUARD)


def _mcp(app: Any, *, tools: Any = None, hide: Any = False) -> Any:
    return guarded_mcp(app, GUARD, tools=tools, hide=hide)


# What each needs, made for each call.
REQUIRED: Final[dict[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    accounts_router: lambda: {
        "accounts": Accounts(Login(MemoryUsers(), MemoryStore(), outbox=Outbox(print)), key=KEY, pages=SITE)
    },
    api_keys_router: lambda: {"keys": DatabaseAPIKeyAuth(SESSIONS), "auth": JWTAuth(CONFIG)},
    configure_app: lambda: {"app": FastAPI()},
    factors_router: lambda: {"login": _login(), "auth": JWTAuth(CONFIG)},
    GuardBackend: lambda: {"auth": JWTAuth(CONFIG)},
    guarded_tools: lambda: {"app": _server, "tools": {"delete": GUARD}},
    jwks_router: lambda: {"auth": JWTAuth(CONFIG)},
    login_router: lambda: {"auth": LocalAuth(CONFIG, {}, refresh=RefreshTokens(MemoryStore()))},
    protected_resource_router: lambda: {"auth": JWTAuth(CONFIG), "resource": "https://api.example"},
    providers_router: lambda: {
        "sign_in": ProviderLogin(_login(), [GitHub("c", "s")], callback=f"{SITE}/{{provider}}", registers=False),
        "credentials": SessionAuth(MemoryStore()),
    },
    service_accounts_router: lambda: {"keys": DatabaseAPIKeyAuth(SESSIONS), "auth": JWTAuth(CONFIG)},
    session_router: lambda: {"sessions": SessionAuth(MemoryStore())},
    swagger_login: lambda: {"auth": JWTAuth(CONFIG, scheme=CODE_FLOW), "client_id": "shop-docs"},
    tickets_router: lambda: {"tickets": TicketAuth(MemoryStore(), maker=JWTAuth(CONFIG))},
    token_verifier: lambda: {"auth": JWTAuth(CONFIG)},
    _mcp: lambda: {"app": _server},
    _mount: lambda: {"app": _server},
}


class Wrong:
    """A type that nothing accepts."""


NONSENSE: Final = (
    *(Wrong(), Wrong, 5, -1, float("nan"), timedelta(-1), b"x", "a\nb", "\ud800", "", [5], [Wrong()], {5: "a"}),
    *({"a": 1}, lambda: 1, object),
)
# Their errors describe the argument without its name, or these values are among those that it has.
DESCRIBED: Final = {"resource": "URL", "trusted_origins": "origin", "docs": "docs|guards"}
FITTING: Final[dict[tuple[Callable[..., Any], str], tuple[Any, ...]]] = {
    (jwks_router, "max_age_seconds"): (5,),
    (protected_resource_router, "max_age_seconds"): (5,),
    (configure_app, "trusted_proxies"): (5,),
    **{(router, "prefix"): ("",) for router in REQUIRED if "prefix" in signature(router).parameters},
}


def arguments_of(call: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments."""
    return [
        name for name, parameter in signature(call).parameters.items() if parameter.kind is not Parameter.VAR_KEYWORD
    ]


@pytest.mark.parametrize("call", REQUIRED, ids=lambda call: call.__name__)
def test_an_argument_that_cannot_be_used(call: Callable[..., Any]) -> None:
    """It is an error that names the argument, whatever its type or value."""
    call(**REQUIRED[call]())
    for name in arguments_of(call):
        for value in NONSENSE:
            if any(value is fitting for fitting in FITTING.get((call, name), ())):
                call(**{**REQUIRED[call](), name: value})
                continue
            with pytest.raises(ConfigurationError) as raised:
                call(**{**REQUIRED[call](), name: value})
            assert raised.match(DESCRIBED.get(name, name)), (name, value)


def test_every_router_is_walked() -> None:
    """A new argument of a router is walked too, and a new router is among these."""
    found = {
        value
        for module in walk_packages(routers.__path__, "fastapi_guard.routers.")
        for name, value in vars(import_module(module.name)).items()
        if name.endswith("_router") and not name.startswith("_") and callable(value)
    }
    assert {router.__name__ for router in found - {*REQUIRED}} == {"never_stored_router"}


FLAGS: Final = {
    api_keys_router: "allow_outliving",
    login_router: "refresh_cookie",
    providers_router: "refresh_cookie",
    guarded_tools: "hide",
    _mcp: "hide",
}


@pytest.mark.parametrize("call", FLAGS, ids=lambda call: call.__name__)
def test_a_flag_that_is_text(call: Callable[..., Any]) -> None:
    """The text "false" of an environment variable would count as true."""
    for wrong in ("false", 1, 0, None):
        with pytest.raises(ConfigurationError, match=FLAGS[call]):
            call(**{**REQUIRED[call](), FLAGS[call]: wrong})


MISTAKES: Final[list[tuple[Callable[..., Any], dict[str, Any], str]]] = [
    (api_keys_router, {"scopes": "admin"}, "scopes is a list of scopes"),
    (service_accounts_router, {"scopes": "admin"}, "scopes is a list of scopes"),
    (api_keys_router, {"scopes": ["a b"]}, "scopes: 'a b' is not a scope"),
    (api_keys_router, {"families": LocalAuth(CONFIG, {})}, "families is RefreshTokens or None, not LocalAuth"),
    (api_keys_router, {"tenant_param": "{tenant}"}, "tenant_param is the name of a parameter of the path"),
    (service_accounts_router, {"keys": JWTAuth(CONFIG)}, "keys is a DatabaseAPIKeyAuth, not JWTAuth"),
    (accounts_router, {"inviters": Depends(dict)}, "inviters is a guard, .* not a dependency without a guard"),
    (accounts_router, {"inviters": JWTAuth(CONFIG).requires}, "inviters is a guard, such as"),
    (accounts_router, {"pages": {"register": "/welcome"}}, "pages.'register'. is a FormPage, not text of 8 characters"),
    (accounts_router, {"pages": {"registered": None}}, "pages: there is no route 'registered' for a page"),
    (factors_router, {"tags": "factors"}, r"tags is a list of texts, such as \[.*\], not text of 7 characters"),
    (factors_router, {"tags": [""]}, "tags is a list of texts, such as .* not of text of 0 characters"),
    (factors_router, {"login": LocalAuth(CONFIG, {})}, "login is a Login, not LocalAuth"),
    (session_router, {"pages": {"done": "/"}}, "pages is LoginPages or None, not dict"),
    (session_router, {"login": SessionAuth(MemoryStore())}, "login is a Login, a LocalAuth or None, not SessionAuth"),
    (providers_router, {"logout": SessionAuth(MemoryStore())}, "logout is a ProviderLogout or None, not SessionAuth"),
    (
        providers_router,
        {"credentials": SessionAuth},
        "credentials is a SessionAuth, TokenPairs or a LocalAuth, not the class SessionAuth",
    ),
    (login_router, {"auth": JWTAuth(CONFIG)}, "auth is a LocalAuth or TokenPairs, not JWTAuth"),
    (jwks_router, {"max_age_seconds": True}, "max_age_seconds is a whole number from 0, not True"),
    (protected_resource_router, {"authorization_servers": "https://id.example"}, "authorization_servers is a list"),
    (
        protected_resource_router,
        {"authorization_servers": ["id.example"]},
        "authorization_servers: .* begins with https",
    ),
    (protected_resource_router, {"documentation": "/docs"}, "documentation: .* begins with https"),
    (configure_app, {"request_id_header": "Request Id"}, "request_id_header is the name of a header field"),
    (configure_app, {"public": "/health"}, "public is a list of paths"),
    (_mount, {"app": HTTPEndpoint.dispatch}, "app: guarded.. takes an ASGI application"),
    (_mount, {"app": FastAPI}, "app: guarded.. takes an ASGI application, .* not the class FastAPI"),
    (_mcp, {"tools": {"delete": "items:delete"}}, "tools.'delete'. is a guard, such as"),
    (FormPage, {"done": "/", "failed": "/", "kept": "token"}, "kept is a list of names of fields"),
    (FormPage, {"done": 5, "failed": "/"}, "a page is a path"),
    (LoginPages, {"done": 5}, "a page is a path"),
]


@pytest.mark.parametrize(("call", "wrong", "message"), MISTAKES)
def test_a_likely_mistake(call: Callable[..., Any], wrong: dict[str, Any], message: str) -> None:
    """The message has the remedy: what to pass."""
    with pytest.raises(ConfigurationError, match=message):
        call(**{**REQUIRED.get(call, dict)(), **wrong})


@pytest.mark.parametrize(
    "path",
    ["auth", "//evil.example", "/a//b", "/a b", "/a?b", "/a#b", "/a\n", "/{", "/{a}/{a}", "/{a:money}", "/{1}", "/}"],
)
def test_a_path_that_no_request_reaches(path: str) -> None:
    """It is an error; as a prefix it may be empty, and it does not end with a slash."""
    for prefix in (False, True):
        with pytest.raises(ConfigurationError, match='path is a path such as "/auth"'):
            path_of("path", path, prefix=prefix)
    assert path_of("path", "/{tenant}/{rest:path}/é") == "/{tenant}/{rest:path}/é"
    assert path_of("prefix", "", prefix=True) == ""
    assert path_of("path", "/keys/") == "/keys/"
    for wrong, prefix in (("", False), ("/keys/", True), ("/", True)):
        with pytest.raises(ConfigurationError, match="is a path such as"):
            path_of("path", wrong, prefix=prefix)


def test_scopes_in_a_list() -> None:
    """Whatever holds them, they are scopes."""
    assert scopes_in("scopes", {"items:read"}) == scopes_in("scopes", iter(["items:read"])) == ("items:read",)


def test_an_endpoint_class_and_a_built_in_are_applications() -> None:
    """A class whose instances are awaited is one, and so is what has no signature."""
    assert _mount(HTTPEndpoint).app is HTTPEndpoint
    assert _mount(max).app is max


def test_metadata_of_issuers_that_are_names() -> None:
    """Issuers that are URLs are published, and there has to be one: a client finds nothing at a name."""
    auth = OIDCAuth(
        issuer=["kubernetes/serviceaccount", "https://id.example"],
        audience="https://api.example",
        jwks_uri="https://id.example/keys",
    )
    app = FastAPI()
    app.include_router(
        protected_resource_router(auth, resource="https://api.example", documentation=HttpUrl("https://docs.example/a"))
    )
    with TestClient(app) as client:
        document = client.get("/.well-known/oauth-protected-resource").json()
    assert document["authorization_servers"] == ["https://id.example"]
    assert document["resource_documentation"] == "https://docs.example/a"
    named = OIDCAuth(issuer="acme.com", audience="https://api.example", jwks_uri="https://id.example/keys")
    with pytest.raises(ConfigurationError, match="name the issuers of tokens"):
        protected_resource_router(named, resource="https://api.example")
