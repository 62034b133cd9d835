"""Configurations of logins that cannot work: each is an error when constructed, whose text has the remedy."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwk

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.login import Login
from fastapi_guard.login.providers import OpenIDProvider, ProviderLogin
from fastapi_guard.login.providers.identities import StoredIdentities
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.throttle.by import account
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import MappingUsers
from fastapi_guard.stores import MemoryStore
from support.factors import KEY

STORE = MemoryStore()
LOGIN = Login({}, MemoryStore(), passwords=None)
JWT = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))
SCOPES = "['openid', 'email', 'profile']"


async def coroutine(*_: Any) -> Any:
    """Return nothing, to be awaited."""


def login(users: Any = None, **options: Any) -> Login:
    """Return a Login."""
    return Login({} if users is None else users, MemoryStore(), **options)


def totp(**options: Any) -> TOTP:
    """Return codes of an app."""
    return TOTP(**{"key": KEY, "issuer": "Shop", **options})


def provider(**options: Any) -> OpenIDProvider:
    """Return a provider."""
    return OpenIDProvider("acme", "https://id.example", "shop", "the secret of the client", **options)


def sign_in(**options: Any) -> ProviderLogin:
    """Return a sign-in with a provider."""
    own = {
        "login": LOGIN,
        "providers": [provider()],
        "registers": False,
        "callback": "https://shop.example/{provider}",
        **options,
    }
    return ProviderLogin(own.pop("login"), own.pop("providers"), **own)


REVOCATIONS: dict[str, Callable[[], object]] = {
    "longest_lifetime is a positive timedelta, or None, not 5": lambda: Revocations(STORE, longest_lifetime=5),  # type: ignore[arg-type]
    "longest_lifetime is a timedelta or a number of seconds, more than 0, not 0:00:00": lambda: Revocations(
        STORE, longest_lifetime=timedelta()
    ),
    "store is a Store, such as MemoryStore(), not list": lambda: Revocations([]),  # type: ignore[arg-type]
    "ends is a list such as [SessionAuth(store)], not 5": lambda: Revocations(STORE, ends=5),  # type: ignore[arg-type]
    "ends is what has revoke_subject(subject, *, keep=None), such as SessionAuth, not MemoryStore": lambda: Revocations(
        STORE,
        ends=[STORE],  # type: ignore[list-item]
    ),
    "clock_skew is at most a minute, not 61: synchronise the clocks of the hosts": lambda: Revocations(
        STORE, clock_skew=61
    ),
    "clock_skew is a timedelta or a number of seconds, 0 or more, not text of 1 characters": lambda: Revocations(
        STORE,
        clock_skew="x",  # type: ignore[arg-type]
    ),
}
TOKENS: dict[str, Callable[[], object]] = {
    "store is a Store, such as MemoryStore(), not dict": lambda: RefreshTokens({}),  # type: ignore[arg-type]
    "idle_lifetime is longer than absolute_lifetime; a number is of seconds": lambda: RefreshTokens(
        STORE, idle_lifetime=timedelta(2), absolute_lifetime=timedelta(1)
    ),
    "grace is at most 60 seconds: it is for a client that sends again at once": lambda: RefreshTokens(
        STORE, grace=timedelta(seconds=61)
    ),
    "may_continue is a function of the claims of a family, not 5": lambda: RefreshTokens(STORE, may_continue=5),  # type: ignore[arg-type]
    "jwt is a JWTAuth, such as JWTAuth(JWTConfig(key=...)), not 5": lambda: TokenPairs(5, login=LOGIN),  # type: ignore[arg-type]
    "login is a Login, such as Login(users, store), not 5": lambda: TokenPairs(JWT, login=5),  # type: ignore[arg-type]
    "refresh is RefreshTokens, such as RefreshTokens(store), not 5": lambda: TokenPairs(JWT, 5, login=LOGIN),  # type: ignore[arg-type]
}
LIMITS: dict[str, Callable[[], object]] = {
    "account is a Throttle, such as Throttle('5/15 minutes'), or None, not 5": lambda: LoginLimits(account=5),  # type: ignore[arg-type]
    "address is a Throttle, such as Throttle('5/15 minutes'), or None, not 5": lambda: LoginLimits(address=5),  # type: ignore[arg-type]
    "trusted_proxies is a number of proxies from 0 on, not -1": lambda: LoginLimits(trusted_proxies=-1),
    "Login(trusted_proxies=...) decides whose address is counted: leave it out of the Throttle": lambda: LoginLimits(
        address=Throttle("1/minute", by=account())
    ),
    "name is text without control characters, not 7": lambda: LoginLimits(name=7),  # type: ignore[arg-type]
}
LOGINS: dict[str, Callable[[], object]] = {
    'needs_second is "enrolled", "never", "always" or a function of the user, not 7': lambda: login(needs_second=7),
    "may_login is a function of the user and the request, not 5": lambda: login(may_login=5),
    'needs_second needs a factor: pass second=[...], such as [TOTP(key=..., issuer="Shop")]': lambda: login(
        needs_second="always"
    ),
    "the password_hash of 'ada' is not a hash: `fastapi-guard password hash` makes one": lambda: login(
        {"ada": {"password_hash": "plain"}}
    ),
    "trusted_devices is at most 90 days": lambda: login(trusted_devices=timedelta(days=91)),
    "trusted_devices is a timedelta or a number of seconds, more than 0, not 0:00:00": lambda: login(
        trusted_devices=timedelta()
    ),
    "ends is what has revoke_subject(subject, *, keep=None), such as SessionAuth, not MemoryStore": lambda: LOGIN.ends(
        STORE  # type: ignore[arg-type]
    ),
}
FACTORS: dict[str, Callable[[], object]] = {
    "issuer is the name of the service without a colon, such as 'Shop', not 7": lambda: totp(issuer=7),
    "algorithm is one of SHA1, SHA256, SHA512, not text of 3 characters": lambda: totp(algorithm="MD5"),
    "digits is a whole number from 6 to 8, not 9": lambda: totp(digits=9),
    "period is a whole number from 15 to 120, not 5": lambda: totp(period=5),
    "drift is a whole number from 0 to 10, not 11": lambda: totp(drift=11),
    "count is a number of recovery codes from 1 to 50, not 0": lambda: RecoveryCodes(count=0),
}
PROVIDERS: dict[str, Callable[[], object]] = {
    "store is a Store, such as MemoryStore(), not set": lambda: StoredIdentities(set()),  # type: ignore[arg-type]
    "name is text without control characters, not 5": lambda: StoredIdentities(STORE, name=5),  # type: ignore[arg-type]
    "login is a Login, such as Login(users, store), not text of 1 characters": lambda: sign_in(login="x"),
    "providers is a list such as [GitHub(...)], not 5": lambda: sign_in(providers=5),
    "providers is a list such as [GitHub(...)], not MemoryStore": lambda: sign_in(providers=[STORE]),
    "providers is a list of providers, each with a name of its own": lambda: sign_in(providers=[]),
    "the name of a provider is 1 to 32 characters of a-z 0-9 _ -, not None": lambda: sign_in(
        providers=[type("Own", (), {"authorization_url": coroutine, "identify": coroutine, "vouches": print})()]
    ),
    "identities is an object such as DatabaseIdentities(sessions), not 5": lambda: sign_in(identities=5),
    "registers is True or False, not 5": lambda: sign_in(registers=5),
    'callback is a URL such as "https://shop.example/providers/{provider}/callback", not 5': lambda: sign_in(
        callback=5
    ),
    "callback is a URL with {provider} in it, once: each provider has a redirect URI of its own": lambda: sign_in(
        callback="https://shop.example"
    ),
    "new_user is a function of an Identity, not 5": lambda: sign_in(new_user=5),
    "new_user has other parameters than it is called with: (identity)": lambda: sign_in(new_user=lambda: None),
    "new_user makes a user who registers: leave it out, or registers=False": lambda: sign_in(new_user=print),
    "the users of this Login have no method add: pass registers=False, or users such as DatabaseUsers": lambda: sign_in(
        registers=True
    ),
    "users is an object with the methods add and remove, not Users": lambda: sign_in(
        login=login(type("Users", (MappingUsers,), {"add": coroutine})({})), registers=True
    ),
    "users: Users.remove has to be an async def": lambda: sign_in(
        login=login(type("Users", (MappingUsers,), {"add": coroutine, "remove": print})({})), registers=True
    ),
    "OpenIDProvider has no option more, other": lambda: provider(other=1, more=1),
    "name is text without control characters, not text of 0 characters": lambda: OpenIDProvider(
        "", "https://id.example", "shop", "the secret of the client"
    ),
    "userinfo is True or False, not 1": lambda: provider(userinfo=1),
    "private_http is True or False, not 1": lambda: provider(private_http=1),
    "parameters is a mapping, such as {'prompt': 'login'}, not 1": lambda: provider(parameters=1),
    f"scopes is a list with openid in it, such as {SCOPES}, not 1": lambda: provider(scopes=1),
    f'scopes is a list with "openid" in it, such as {SCOPES}': lambda: provider(scopes=["email"]),
    "parameters cannot set nonce, state: every request has its own": lambda: provider(
        parameters={"state": "x", "nonce": "x", "prompt": "login"}
    ),
    "parameters cannot set response_mode, scope: every request has its own": lambda: provider(
        parameters={"scope": "openid", "response_mode": "form_post"}
    ),
    'response_mode is "query" or "form_post", not 5': lambda: provider(response_mode=5),
}
TICKETS: dict[str, Callable[[], object]] = {
    "store is a Store, such as MemoryStore(), not tuple": lambda: TicketAuth((), JWT),  # type: ignore[arg-type]
    "purpose is a text such as 'chat', or left out, not 5": lambda: TicketAuth(STORE, JWT, purpose=5),  # type: ignore[arg-type]
    "lifetime is at most 60 seconds, not 0:01:01: a ticket is made right before it is used": lambda: TicketAuth(
        STORE, JWT, lifetime=timedelta(seconds=61)
    ),
    "lifetime is a timedelta or a number of seconds, more than 0, not text of 1 characters": lambda: TicketAuth(
        STORE,
        JWT,
        lifetime="x",  # type: ignore[arg-type]
    ),
    "maker is an Auth with scopes, such as a SessionAuth or a JWTAuth, not 5": lambda: TicketAuth(STORE, 5),  # type: ignore[arg-type]
    "keeps is a list of claims, none of cnf, exp, is_admin, role, roles, scope, scp, ticket_of: "
    "a ticket grants its scopes alone": lambda: TicketAuth(STORE, JWT, keeps=["sub", "scope"]),
    "keeps is a list of claims, not 5": lambda: TicketAuth(STORE, JWT, keeps=5),  # type: ignore[arg-type]
}
TABLES = [REVOCATIONS, TOKENS, LIMITS, LOGINS, FACTORS, PROVIDERS, TICKETS]
CASES = [case for table in TABLES for case in table.items()]


@pytest.mark.parametrize(("message", "make"), CASES, ids=range(len(CASES)))
def test_the_remedy(message: str, make: Callable[[], object]) -> None:
    """The error names the argument, what to pass, and never the value itself where that is text."""
    with pytest.raises(ConfigurationError) as error:
        make()
    assert str(error.value) == message


def test_configurations_that_work() -> None:
    """The helpers of these tests build each of them, with nothing changed."""
    assert all((login(), totp(), provider(), sign_in(), TicketAuth(MemoryStore(), JWT), TokenPairs(JWT, login=login())))
