"""A collaborator of the wrong type is a ConfigurationError when constructed, which names the argument."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Final, get_args, get_origin
from unittest.mock import AsyncMock

import pytest
from joserfc.jwk import OctKey
from pydantic import HttpUrl
from redis.asyncio import Redis
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, StaticAPIKeyAuth
from fastapi_guard.api_key import APIKeyAuth
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.app.ticket_scheme import TicketScheme
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.events import AuditTrail
from fastapi_guard.issuers import DPoP, DPoPNonces, IntrospectionAuth, MultiOIDCAuth, OIDCAuth
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.login import RefreshTokens, Revocations, SessionAuth
from fastapi_guard.login.accounts import AccountPages, Accounts, Invited
from fastapi_guard.login.breaches import BreachedPasswords
from fastapi_guard.login.cookies import CookieSettings
from fastapi_guard.login.devices import TrustedDevices
from fastapi_guard.login.enrolled import DatabaseFactors, StoredFactors
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import ConsoleSender, Message, Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.password_policy import PasswordPolicy
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.providers import (
    DatabaseIdentities,
    GitHub,
    Identity,
    OpenIDProvider,
    ProviderLogin,
    ProviderLogout,
    StoredIdentities,
)
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.session_schemes import StarletteSessionScheme
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import DatabaseUsers, MappingUsers, User
from fastapi_guard.schemes import APIKeyScheme, BearerScheme
from fastapi_guard.stores import MemoryStore
from fastapi_guard.stores.arguments import clock_of, mapping_of, shown
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from fastapi_guard.testing.issuer import FakeIssuer
from support.accounts import SITE, MemoryUsers

CONFIG = JWTConfig(key=OctKey.generate_key(256))
ENGINE = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
SESSIONS = sessionmaker(ENGINE)
ISSUER = {"issuer": "https://id.example", "audience": "https://api.example"}
SECRET: Final = bytes(range(32))
# What a class, or a preset of it, needs, made for each construction.
REQUIRED: Final[dict[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    AccountPages: lambda: {"site": SITE},
    Accounts: lambda: {"login": Login(MemoryUsers(), MemoryStore()), "key": SECRET, "pages": SITE, "send": print},
    APIKeyScheme: lambda: {"name": "X-Key"},
    AuditTrail: lambda: {"path": "audit.jsonl"},
    BearerScheme: dict,
    BearerScheme.authorization_code: lambda: {"authorization_url": f"{SITE}/authorize", "token_url": f"{SITE}/token"},
    BearerScheme.openid_connect: lambda: {"url": f"{SITE}/.well-known/openid-configuration"},
    BearerScheme.password: lambda: {"token_url": "/token"},
    BreachedPasswords: dict,
    ConsoleSender: dict,
    DatabaseFactors: lambda: {"session_factory": SESSIONS},
    DatabaseIdentities: lambda: {"session_factory": SESSIONS},
    DatabaseUsers: lambda: {"session_factory": SESSIONS},
    DPoPNonces: lambda: {"key": SECRET},
    FakeIssuer: dict,
    KeyFormat: dict,
    MailedCode: lambda: {"outbox": Outbox(print), "key": SECRET},
    MappingUsers: lambda: {"users": {}},
    OIDCAuth.auth0: lambda: {"domain": "shop.eu.auth0.com", "audience": SITE},
    OIDCAuth.entra: lambda: {"tenant_id": "5f0d7c1a-2b3c-4d5e-8f90-a1b2c3d4e5f6", "audience": SITE},
    OIDCAuth.github_actions: lambda: {"audience": SITE, "require": {"repository_id": "1"}},
    OIDCAuth.google: lambda: {"client_id": "shop"},
    OIDCAuth.keycloak: lambda: {"url": "https://sso.example", "realm": "shop", "audience": SITE},
    RecoveryCodes: dict,
    RedisStore.from_url: lambda: {"url": "redis://localhost"},
    StarletteSessionScheme: dict,
    StoredFactors: lambda: {"store": MemoryStore()},
    TicketScheme: dict,
    TOTP: lambda: {"key": SECRET, "issuer": "Shop"},
    TrustedDevices: lambda: {"store": MemoryStore(), "name": "login", "lifetime": timedelta(days=1)},
    APIKeyAuth: dict,
    CookieSettings: dict,
    DatabaseAPIKeyAuth: lambda: {"session_factory": SESSIONS},
    DPoP: lambda: {"store": MemoryStore(), "origin": "https://api.example"},
    GitHub: lambda: {"client_id": "c", "client_secret": "s"},
    IntrospectionAuth: lambda: {"endpoint": "https://id.example/i", "client_id": "c", "client_secret": "s"},
    JWTAuth: lambda: {"config": CONFIG},
    KeyFile: lambda: {"path": Path("keys.json")},
    LocalAuth: lambda: {"config": CONFIG, "users": {}},
    Login: lambda: {"users": {}, "store": MemoryStore()},
    LoginLimits: dict,
    MemoryStore: dict,
    MultiOIDCAuth: lambda: {"providers": {"one": ISSUER}},
    OIDCAuth: lambda: dict(ISSUER),
    OpenIDProvider: lambda: {"name": "a", "issuer": "https://id.example", "client_id": "c", "client_secret": "s"},
    Outbox: lambda: {"send": print},
    Passkeys: lambda: {"rp_id": "shop.example", "origin": "https://shop.example"},
    PasswordHasher: dict,
    PasswordPolicy: dict,
    ProviderLogin: lambda: {
        "login": Login({}, MemoryStore()),
        "providers": [GitHub("c", "s")],
        "callback": "https://shop.example/{provider}",
        "registers": False,
    },
    RedisStore: lambda: {"client": Redis()},
    RefreshTokens: lambda: {"store": MemoryStore()},
    RemoteKeySet: lambda: {"url": "https://id.example/keys"},
    Revocations: lambda: {"store": MemoryStore()},
    SessionAuth: lambda: {"store": MemoryStore()},
    SQLAlchemyStore: lambda: {"sessions": SESSIONS},
    StaticAPIKeyAuth: lambda: {"api_keys": {"sk-0123456789abcdef0123": {"user_id": "robot"}}},
    StoredIdentities: lambda: {"store": MemoryStore()},
    Throttle: lambda: {"rate": "5/minute"},
    TicketAuth: lambda: {"store": MemoryStore(), "maker": JWTAuth(CONFIG)},
    TokenPairs: lambda: {"jwt": JWTAuth(CONFIG), "login": Login({}, MemoryStore())},
}
# Their errors describe the argument without its name.
DESCRIBED: Final = {
    "config": "JWTConfig",
    "session_factory": "sessionmaker",
    "sessions": "sessionmaker",
    "url": "URL",
    "issuer": "URL|issuer",
    "host": "URL",
    "jwks_uri": "URL",
    "endpoint": "URL",
    "decoy_key": "key",
    "cache_size": "cache",
    "scope_validator": "scope validator",
    "providers": "providers|provider 'one'",
    "auth_name": "name",
    "store": "store",
    "client": "client",
    "parameter": "name",
    # The argument of the Login.
    "lifetime": "lifetime|trusted_devices",
}


# Of these the tests of a case may have any, such as a list of an issuer that is not one.
UNCHECKED: Final = {(FakeIssuer, "audience")}


def annotations_of(kind: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a class with their types, those of a TypedDict of keywords included."""
    found: dict[str, Any] = {}
    for name, parameter in signature(kind).parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            [options] = get_args(parameter.annotation)
            found |= options.__annotations__
        else:
            found[name] = parameter.annotation
    return found


def arguments_of(kind: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments of a class."""
    return list(annotations_of(kind))


@pytest.mark.parametrize("kind", REQUIRED, ids=lambda kind: kind.__qualname__)
def test_an_argument_of_the_wrong_type(kind: Callable[..., Any]) -> None:
    """An object that nothing accepts is an error that names the argument."""

    class Wrong: ...

    assert kind(**REQUIRED[kind]())
    for name in arguments_of(kind):
        if (kind, name) in UNCHECKED:
            continue
        with pytest.raises(ConfigurationError) as raised:
            kind(**{**REQUIRED[kind](), name: Wrong()})
        assert raised.match(f"{name}|{DESCRIBED.get(name, name)}"), name


def hooks_of(kind: Callable[..., Any]) -> dict[str, bool]:
    """Return the arguments of a class that are functions, each with whether it may be an async def.

    Without those whose parameters FastAPI fills, and those that have none.
    """
    found: dict[str, bool] = {}
    for name, annotation in annotations_of(kind).items():
        kinds = [part for part in parts_of(annotation) if get_origin(part) is Callable]
        if any(isinstance(get_args(part)[0], list) and get_args(part)[0] for part in kinds):
            found[name] = any(get_origin(part) is Awaitable for kind in kinds for part in parts_of(kind))
    return found


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yield an annotation, and what is in it."""
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


HOOKS: Final = [
    pytest.param(kind, name, may_wait, id=f"{kind.__qualname__}-{name}")
    for kind in REQUIRED
    for name, may_wait in hooks_of(kind).items()
]
# What some of them need, to be called at all.
CALLED: Final[dict[tuple[Callable[..., Any], str], dict[str, Any]]] = {
    (Login, "needs_second"): {"second": [TOTP(key=SECRET, issuer="Shop")]},
    (ProviderLogin, "new_user"): {"login": Login(MemoryUsers(), MemoryStore()), "registers": True},
}


@pytest.mark.parametrize(("kind", "name", "may_wait"), HOOKS)
def test_a_hook(kind: Callable[..., Any], name: str, may_wait: bool) -> None:
    """A function with other parameters is an error, and so is an async def that is not awaited."""

    def other(a: Any, b: Any, c: Any, d: Any) -> Any: ...

    async def waiting(*_: Any) -> Any: ...

    needed = {**REQUIRED[kind](), **CALLED.get((kind, name), {})}
    with pytest.raises(ConfigurationError, match=name):
        kind(**{**needed, name: other})
    if may_wait:
        kind(**{**needed, name: waiting})
    else:
        with pytest.raises(ConfigurationError, match=name):
            kind(**{**needed, name: waiting})


def test_the_hooks_are_found() -> None:
    """Each function that an application may pass is among them."""
    names = {name for kind in REQUIRED for name in hooks_of(kind)}
    assert names >= {"on_event", "send", "may_login", "needs_second", "may_continue", "may_invite", "new_user"}
    assert names >= {"verify_key", "vouches"}


CLOCKED: Final = [kind for kind in REQUIRED if "clock" in arguments_of(kind)]


@pytest.mark.parametrize("kind", CLOCKED, ids=lambda kind: kind.__name__)
def test_a_clock(kind: Callable[..., Any]) -> None:
    """It is a function, and neither a number, a class nor an async def."""

    async def later() -> float: ...

    for clock in (5, "now", timedelta, later, None):
        with pytest.raises(ConfigurationError, match=r"clock is a function that returns seconds, such as time\.time"):
            kind(**{**REQUIRED[kind](), "clock": clock})
    with pytest.raises(ConfigurationError, match="wall_clock is a function"):
        clock_of(5, "wall_clock")  # type: ignore[arg-type]


FLAGS: Final[dict[Callable[..., Any], list[str]]] = {
    AccountPages: ["in_query"],
    MailedCode: ["everyone", "first", "in_query", "any_browser"],
    CookieSettings: ["secure"],
    DatabaseAPIKeyAuth: ["require_pepper", "require_expiry"],
    DPoP: ["required"],
    IntrospectionAuth: ["private_http"],
    JWTAuth: ["cookie"],
    OIDCAuth: ["private_http", "requires_type"],
    OpenIDProvider: ["userinfo", "private_http"],
    Passkeys: ["first", "refuse_counter_regression"],
    ProviderLogin: ["registers"],
}


@pytest.mark.parametrize("kind", FLAGS, ids=lambda kind: kind.__name__)
def test_a_flag_that_is_text(kind: Callable[..., Any]) -> None:
    """The text "false" of an environment variable would count as true."""
    for name in FLAGS[kind]:
        for wrong in ("false", 1, 0):
            with pytest.raises(ConfigurationError, match=name):
                kind(**{**REQUIRED[kind](), name: wrong})


WRONG: Final[list[tuple[Callable[..., Any], Mapping[str, Any], str]]] = [
    (SessionAuth, {"cookie_settings": {"secure": False}}, "cookie_settings is CookieSettings, not dict"),
    (
        SessionAuth,
        {"cookie_settings": CookieSettings},
        "cookie_settings is CookieSettings, not the class CookieSettings",
    ),
    (Login, {"second": PasswordPolicy}, "second is a list such as"),
    (Login, {"second": [Passkeys]}, r"second is a list of factors, such as \[TOTP"),
    (Login, {"second": "totp"}, "second is a list such as"),
    (Login, {"limits": Throttle("5/minute")}, "limits is LoginLimits"),
    (Login, {"outbox": print}, r"outbox is Outbox\(send\), or None, not builtin_function_or_method"),
    (Login, {"records": SESSIONS}, "records is such as DatabaseFactors, not sessionmaker"),
    (Login, {"passwords": "bcrypt"}, "passwords is a PasswordHasher or None, not text of 6 characters"),
    (TokenPairs, {"refresh": MemoryStore()}, "refresh is RefreshTokens, such as"),
    (TokenPairs, {"jwt": CONFIG}, r"jwt is a JWTAuth, such as JWTAuth\(JWTConfig"),
    (LoginLimits, {"account": "5/minute"}, "account is a Throttle"),
    (
        Revocations,
        {"ends": [SessionAuth]},
        r"ends is what has revoke_subject\(subject, \*, keep=None\), such as SessionAuth, not the class SessionAuth",
    ),
    (Revocations, {"ends": "sessions"}, "ends is a list"),
    (Revocations, {"longest_lifetime": timedelta()}, "longest_lifetime"),
    (Throttle, {"by": "address"}, "by is a function"),
    (Throttle, {"trusted_proxies": -1}, "trusted_proxies is a whole number from 0, not -1"),
    (Throttle, {"trusted_proxies": True}, "trusted_proxies is a whole number from 0, not True"),
    (JWTAuth, {"name": 5}, "^name is text, not 5$"),
    (OIDCAuth, {"require": ["tid"]}, "require is a mapping"),
    (OIDCAuth, {"require": {1: "a"}}, "require is a mapping"),
    (OIDCAuth, {"tenant_claims": ()}, "tenant_claims is a sequence of claim names"),
    (OIDCAuth, {"tenant_claims": 5}, "tenant_claims is a sequence of claim names"),
    (MultiOIDCAuth, {"dpop": MemoryStore()}, r"dpop is DPoP\(store, origin=...\), not MemoryStore"),
    (MultiOIDCAuth, {"admin_providers": ["other"]}, "admin_providers is a list of names among"),
    (DatabaseAPIKeyAuth, {"usage": "redis://host"}, "usage is a Store"),
    (PasswordPolicy, {"blocked": ["a\x00"]}, "blocked is text without control characters"),
    (PasswordHasher, {"max_password_bytes": 5000}, "max_password_bytes is at most 4096"),
    (Accounts, {"pages": 5}, "pages is AccountPages"),
    (Accounts, {"lifetimes": {"invite": timedelta(days=1)}}, "lifetimes has one for each purpose: verify_address"),
    (Accounts, {"lifetimes": {"invitation": timedelta()}}, "lifetimes.'invitation'. is a timedelta .*, more than 0"),
    (Accounts, {"lifetimes": 0}, "lifetimes is a mapping"),
    (Accounts, {"lifetimes": {"invitation": 60}}, "lifetimes is a timedelta for each purpose, not 60"),
    (OIDCAuth.google, {"client_id": ["shop", 5]}, "client_id is a list of client ids, not of 5"),
    (Accounts, {"breached": BreachedPasswords}, "breached is BreachedPasswords"),
    (AccountPages, {"verify": "verify"}, 'verify: the path of a page starts with "/"'),
    (AccountPages, {"reset": None}, 'reset: the path of a page starts with "/", which None does not'),
    (AuditTrail, {"path": ""}, "path is the path of a file, such as"),
    (BreachedPasswords, {"timeout_seconds": 0}, "timeout_seconds is a timedelta or a number of seconds, more than 0"),
    (ConsoleSender, {"stream": "stdout"}, "stream is a text stream, such as sys.stdout, not text of 6 characters"),
    (DatabaseUsers, {"model": 0}, "model is a class of a table with UserMixin, not 0"),
    (DatabaseUsers, {"model": User}, "model is a class of a table with UserMixin, not the class User"),
    (DatabaseFactors, {"model": User}, "model is a class of a table with FactorMixin, not the class User"),
    (DatabaseFactors, {"passkeys": User}, "passkeys is a class of a table with PasskeyMixin, not the class User"),
    (DatabaseIdentities, {"model": User}, "model is a class of a table with IdentityMixin, not the class User"),
    (DatabaseAPIKeyAuth, {"model": User}, "^model is a class of a table with APIKeyMixin, not the class User"),
    (DatabaseAPIKeyAuth, {"event_model": User}, "event_model is a class of a table with APIKeyEventMixin, not the cl"),
    (OIDCAuth.auth0, {"require": None}, "require is a mapping"),
    (OIDCAuth.google, {"hosted_domain": ""}, "hosted_domain is text"),
    (KeyFile, {"path": 5}, "path is the path of a file, not int"),
]


@pytest.mark.parametrize(("kind", "wrong", "message"), WRONG)
def test_a_likely_mistake(kind: Callable[..., Any], wrong: Mapping[str, Any], message: str) -> None:
    """The message has the remedy: what to pass."""
    with pytest.raises(ConfigurationError, match=message):
        kind(**{**REQUIRED[kind](), **wrong})


PROVIDERS: Final = "providers is a list of providers, each with a name of its own"
CALLBACK: Final = "callback is a URL with {provider} in it, once: each provider has a redirect URI of its own"
MESSAGES: Final[list[tuple[Callable[..., Any], Mapping[str, Any], str]]] = [
    (TokenPairs, {"jwt": CONFIG}, "jwt is a JWTAuth, such as JWTAuth(JWTConfig(key=...)), not JWTConfig"),
    (TokenPairs, {"login": {}}, "login is a Login, such as Login(users, store), not dict"),
    (TokenPairs, {"refresh": 5}, "refresh is RefreshTokens, such as RefreshTokens(store), not 5"),
    (TrustedDevices, {"lifetime": timedelta(days=91)}, "trusted_devices is at most 90 days"),
    (TrustedDevices, {"lifetime": 0}, "trusted_devices is a timedelta or a number of seconds, more than 0, not 0"),
    (
        TrustedDevices,
        {"store": MemoryStore},
        "store is a Store, such as MemoryStore(), not the class MemoryStore",
    ),
    (TrustedDevices, {"name": 5}, "name is the name of the Login, not 5"),
    (
        TOTP,
        {"issuer": "a:b"},
        "issuer is the name of the service without a colon, such as 'Shop', not text of 3 characters",
    ),
    (TOTP, {"algorithm": "MD5"}, "algorithm is one of SHA1, SHA256, SHA512, not text of 3 characters"),
    (TOTP, {"digits": 5}, "digits is a whole number from 6 to 8, not 5"),
    (TOTP, {"digits": 9}, "digits is a whole number from 6 to 8, not 9"),
    (TOTP, {"period": 14}, "period is a whole number from 15 to 120, not 14"),
    (TOTP, {"period": 121}, "period is a whole number from 15 to 120, not 121"),
    (TOTP, {"drift": -1}, "drift is a whole number from 0 to 10, not -1"),
    (TOTP, {"drift": 11}, "drift is a whole number from 0 to 10, not 11"),
    (OpenIDProvider, {"scope": "", "nonce": ""}, "OpenIDProvider has no option nonce, scope"),
    (OpenIDProvider, {"name": ""}, "name is text without control characters, not text of 0 characters"),
    (OpenIDProvider, {"parameters": 5}, "parameters is a mapping, such as {'prompt': 'login'}, not 5"),
    (
        OpenIDProvider,
        {"scopes": "openid"},
        "scopes is a list with openid in it, such as ['openid', 'email', 'profile'], not text of 6 characters",
    ),
    (
        OpenIDProvider,
        {"scopes": ["email"]},
        """scopes is a list with "openid" in it, such as ['openid', 'email', 'profile']""",
    ),
    (
        OpenIDProvider,
        {"parameters": {"state": "a", "nonce": "b"}},
        "parameters cannot set nonce, state: every request has its own",
    ),
    (
        OpenIDProvider,
        {"response_mode": "fragment"},
        'response_mode is "query" or "form_post", not text of 8 characters',
    ),
    (ProviderLogin, {"login": {}}, "login is a Login, such as Login(users, store), not dict"),
    (ProviderLogin, {"providers": "github"}, "providers is a list such as [GitHub(...)], not text of 6 characters"),
    (ProviderLogin, {"providers": [GitHub]}, "providers is a list such as [GitHub(...)], not the class GitHub"),
    (ProviderLogin, {"providers": []}, PROVIDERS),
    (ProviderLogin, {"providers": [GitHub("c", "s"), GitHub("d", "s")]}, PROVIDERS),
    (
        ProviderLogin,
        {"providers": [OpenIDProvider("A", "https://id.example", "c")]},
        "the name of a provider is 1 to 32 characters of a-z 0-9 _ -, not text of 1 characters",
    ),
    (
        ProviderLogin,
        {"identities": SESSIONS},
        "identities is an object such as DatabaseIdentities(sessions), not sessionmaker",
    ),
    (
        ProviderLogin,
        {"callback": 5},
        'callback is a URL such as "https://shop.example/providers/{provider}/callback", not 5',
    ),
    (ProviderLogin, {"callback": "https://shop.example/"}, CALLBACK),
    (ProviderLogin, {"callback": "https://shop.example/{provider}/{provider}"}, CALLBACK),
]


@pytest.mark.parametrize(("kind", "wrong", "message"), MESSAGES)
def test_a_message(kind: Callable[..., Any], wrong: Mapping[str, Any], message: str) -> None:
    """The whole message of an argument is constant, and does not quote a text."""
    with pytest.raises(ConfigurationError) as raised:
        kind(**{**REQUIRED[kind](), **wrong})
    assert str(raised.value) == message


@pytest.mark.parametrize("methods", [("of", "get", "add"), ("of", "get", "remove"), ("of", "add", "remove"), ("get",)])
def test_identities_without_a_method(methods: tuple[str, ...]) -> None:
    """An object without one of the methods does not store identities."""
    identities = type("Identities", (), dict.fromkeys(methods, print))()
    with pytest.raises(ConfigurationError, match="identities is an object"):
        ProviderLogin(**{**REQUIRED[ProviderLogin](), "identities": identities})
    whole = type("Identities", (), dict.fromkeys(("of", "get", "add", "remove"), AsyncMock()))()
    assert ProviderLogin(**{**REQUIRED[ProviderLogin](), "identities": whole}).identities is whole


@pytest.mark.parametrize("method", ["authorization_url", "identify"])
def test_a_provider_without_a_method(method: str) -> None:
    """A provider of the application's own has both methods."""
    provider = type("Provider", (), {"name": "own", method: print})()
    with pytest.raises(ConfigurationError, match="providers is a list"):
        ProviderLogin(**{**REQUIRED[ProviderLogin](), "providers": [provider]})


async def later(*_: object) -> Any:
    """Be an async def."""


def at_once(*_: object) -> Any:
    """Be a def."""


def with_methods(awaited: str, plain: str = "") -> Any:
    """Return an object with these methods."""
    methods = {**dict.fromkeys(awaited.split(), later), **dict.fromkeys(plain.split(), at_once)}
    return type("Own", (), {"name": "own", **methods})()


STORE: Final = "get add replace delete find"
HOOKS: Final[list[tuple[Callable[..., Any], str, Callable[..., Any], str, str]]] = [
    (ProviderLogin, "providers", lambda *names: [with_methods(*names)], "authorization_url identify", "vouches"),
    (ProviderLogin, "identities", with_methods, "of get add remove", ""),
    (Login, "users", with_methods, "by_login by_subject set_password_hash update", ""),
    (Login, "store", with_methods, STORE, ""),
    (SessionAuth, "store", with_methods, STORE, ""),
    (RefreshTokens, "store", with_methods, STORE, ""),
    (Revocations, "store", with_methods, STORE, ""),
    (Revocations, "ends", lambda *names: [with_methods(*names)], "revoke_subject", ""),
    (DPoP, "store", with_methods, STORE, ""),
    (JWTAuth, "dpop", with_methods, "check", "scheme"),
    (IntrospectionAuth, "dpop", with_methods, "check", "scheme"),
    (MultiOIDCAuth, "dpop", with_methods, "check", "scheme"),
]


@pytest.mark.parametrize(("kind", "name", "build", "awaited", "plain"), HOOKS)
def test_methods_that_are_awaited(
    kind: Callable[..., Any], name: str, build: Callable[..., Any], awaited: str, plain: str
) -> None:
    """A method that is awaited is an ``async def``, and one that is not is a ``def``: its coroutine would be true."""
    with pytest.raises(ConfigurationError, match=rf"^{name}: Own\.\w+ has to be an async def$"):
        kind(**{**REQUIRED[kind](), name: build("", f"{awaited} {plain}")})
    if plain:
        with pytest.raises(ConfigurationError, match=rf"^{name}: Own\.{plain} has to be a def, not an async def$"):
            kind(**{**REQUIRED[kind](), name: build(f"{awaited} {plain}")})


def test_functions_that_are_awaited() -> None:
    """So it is with functions, and with objects that are called like one."""
    login = Login({}, MemoryStore())
    sign_in = ProviderLogin(**{**REQUIRED[ProviderLogin](), "login": login})
    with pytest.raises(ConfigurationError, match=r"^started is a function of .*: an async def, not a def$"):
        login.on_started(at_once)
    with pytest.raises(ConfigurationError, match=r"^identified is a function of an Identity: an async def, not a def$"):
        sign_in.on_identified(at_once)
    with pytest.raises(ConfigurationError, match=r"^ends: Own\.revoke_subject has to be an async def$"):
        login.ends(with_methods("", "revoke_subject"))
    with pytest.raises(ConfigurationError, match=r"^credentials: Own\.end_device has to be an async def$"):
        ProviderLogout(sign_in, with_methods("", "end_device"))
    for asynchronous in (later, AsyncMock(), partial(later, 1), type("Called", (), {"__call__": later})()):
        for name in ("client_secret", "vouches"):
            with pytest.raises(ConfigurationError, match=rf"^{name} is a function .*: a def, not an async def$"):
                OpenIDProvider(**{**REQUIRED[OpenIDProvider](), name: asynchronous})
        with pytest.raises(ConfigurationError, match="clock is a function"):
            clock_of(asynchronous)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subject": None}, "subject is text of 1 to 255 printable characters, not None"),
        ({"subject": 7}, "subject is text of 1 to 255 printable characters, not 7"),
        ({"issuer": ""}, "issuer is text of 1 to 255 printable characters, not text of 0 characters"),
        ({"email_verified": "false"}, "email_verified is True or False, not text of 5 characters"),
        ({"email": ["a@b.example"]}, "email is text, not list"),
        ({"claims": None}, "claims is a mapping, such as those of an ID token, not None"),
    ],
)
def test_an_identity(wrong: dict[str, Any], message: str) -> None:
    """An identity is checked: with ``None`` as the subject, all users of a provider would be one."""
    with pytest.raises(ConfigurationError) as raised:
        Identity(**{"issuer": "https://id.example", "subject": "u-1", **wrong})
    assert str(raised.value) == message


def test_collaborators_of_a_logout() -> None:
    """Each is something that ends a session."""
    sign_in = ProviderLogin(**REQUIRED[ProviderLogin]())
    with pytest.raises(ConfigurationError, match=r"credentials is what has end_device\(sid\).*not the class"):
        ProviderLogout(sign_in, SessionAuth)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="sign_in is a ProviderLogin"):
        ProviderLogout(sign_in.login, SessionAuth(MemoryStore()))  # type: ignore[arg-type]


def test_what_is_shown_of_a_value() -> None:
    """Its type alone."""
    assert [shown(value) for value in ("secret", str, 5, 10**40, None, True, b"secret")] == [
        *("text of 6 characters", "the class str", "5", "int", "None", "True", "bytes")
    ]
    assert mapping_of("require", {"a": 1}, "{}") == {"a": 1}


def test_the_site_of_accounts_as_a_url() -> None:
    """A URL of pydantic is its text."""
    accounts = Accounts(**{**REQUIRED[Accounts](), "pages": HttpUrl(SITE)})
    assert accounts.registration is not None


async def test_the_lifetimes_of_links() -> None:
    """A lifetime that is given replaces that of its purpose."""
    messages: list[Message] = []
    login = Login(MemoryUsers(), MemoryStore(clock=lambda: 0.0), clock=lambda: 0.0)
    hour = timedelta(hours=1)
    accounts = Accounts(login, key=SECRET, pages=SITE, send=messages.append, lifetimes={"invitation": hour})
    await accounts.invitations.invite(Invited(email="ada@example.com"), inviter=None)
    await accounts.outbox.drain()
    assert [message.expires_at for message in messages] == [hour.total_seconds()]
