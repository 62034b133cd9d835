"""LocalAuth: a login by password with tokens, in one object."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Response
from joserfc import jwk

from fastapi_guard import BearerAccessToken, ConfigurationError, JWTConfig, Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login, Pending
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.refresh import RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import MappingUsers
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD, request
from support.logins import STORED, users_of
from support.passwords import quick_hasher

CONFIG = JWTConfig(key=jwk.OctKey.generate_key(256))
WRONG = (401, "Incorrect username or password", {"WWW-Authenticate": 'Bearer realm="api"'}, "login_failed")


@pytest.fixture
async def hasher() -> AsyncIterator[PasswordHasher]:
    """Return a quick hasher."""
    quick = quick_hasher()
    yield quick
    quick.close()


def local(hasher: PasswordHasher, users: MappingUsers | None = None, **options: Any) -> LocalAuth:
    """Return a LocalAuth whose passwords cost little."""
    clock = {name: options[name] for name in ("clock", "on_event") if name in options}
    login = Login(users or users_of(), MemoryStore(), passwords=hasher, name="local", **clock)
    return LocalAuth(CONFIG, login, **options)


async def logged_in(auth: LocalAuth) -> TokenPair:
    """Return the pair of a login."""
    pair = await auth.login("ada", PASSWORD)
    assert isinstance(pair, TokenPair)
    return pair


async def refusal(attempt: Any) -> tuple[Any, ...]:
    """Return how a login is refused."""
    with pytest.raises(Unauthorized) as error:
        await attempt
    return error.value.status_code, error.value.detail, error.value.headers, error.value.reason


async def test_login(hasher: PasswordHasher, clock: Clock) -> None:
    """A login is an access token with the claims of the user and the proof, and without refresh tokens nothing more."""
    auth = local(hasher, clock=clock)
    token = await auth.login("ada@example.com", PASSWORD, connection=request())
    assert type(token) is BearerAccessToken
    claims = await auth.verify(token.access_token)
    assert len(claims.pop("jti")) == 22
    now = int(clock())
    assert claims == {
        "sub": "ada",
        "subject_type": "user",
        "is_admin": False,
        "scope": "a:b",
        "amr": ["pwd"],
        "auth_time": now,
        "factors": {"pwd": now},
        "iat": now,
        "exp": now + 3600,
    }
    assert await refusal(auth.login("ada", "wrong")) == WRONG


async def test_users_as_a_mapping() -> None:
    """Users can be written where the Auth is; its events have its name."""
    events: list[Event] = []
    users = {"ada@example.com": {"password_hash": STORED, "scopes": ["a:b"]}}
    auth = LocalAuth(CONFIG, users, on_event=events.append)
    token = await auth.login("ada@example.com", PASSWORD)
    assert isinstance(token, BearerAccessToken)
    claims = await auth.verify(token.access_token)
    assert (claims["sub"], claims["scope"]) == ("ada@example.com", "a:b")
    user = await auth.gate.find("ada@example.com")
    assert user is not None
    assert user.password_hash is not None
    assert user.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert {(event.name, event.auth) for event in events} == {("login_succeeded", "local")}
    await auth.aclose()


async def test_a_second_step(hasher: PasswordHasher) -> None:
    """With a Login that has factors, a login may be pending."""
    login = Login(users_of(), MemoryStore(), passwords=hasher, second=[RecoveryCodes()])
    auth = LocalAuth(CONFIG, login)
    user = await auth.gate.find("ada")
    assert user is not None
    begun = await login.enrolments.begin("recovery", user, {}, binding="b")
    assert begun is not None
    pending = await auth.login("ada", PASSWORD)
    assert isinstance(pending, Pending)
    outcome = await login.with_recovery_code(pending.id, begun.shown["codes"][0], connection=None)
    assert (await auth.verify((await auth.tokens.issue(outcome)).access_token))["amr"] == ["pwd", "recovery", "mfa"]


async def test_refresh_revoke_and_logout(hasher: PasswordHasher) -> None:
    """The short form has the methods of TokenPairs."""
    store = MemoryStore()
    auth = local(hasher, refresh=RefreshTokens(store), revocations=Revocations(store))
    pair = await auth.refresh((await logged_in(auth)).refresh_token, connection=request())
    claims = await auth.verify(pair.access_token)
    await auth.logout(claims)
    assert not await auth.validate_token(pair.access_token)
    assert not await auth.revoke(pair.refresh_token)
    other = await logged_in(auth)
    assert await auth.revoke(other.refresh_token)


async def test_set_password(hasher: PasswordHasher, clock: Clock) -> None:
    """Another password ends what followed from the old one: access tokens, families, sessions, in any store."""
    store, elsewhere = MemoryStore(clock=clock), MemoryStore(clock=clock)
    refresh, sessions = RefreshTokens(elsewhere, clock=clock), SessionAuth(store, clock=clock)
    events: list[Event] = []
    revocations = Revocations(store, clock=clock)
    auth = local(hasher, refresh=refresh, revocations=revocations, clock=clock, on_event=events.append)
    pair = await logged_in(auth)
    await sessions.login(Response(), {"sub": "ada"}, connection=request())
    assert await auth.set_password("ADA@example.com", "another tea party")
    assert Event("password_changed", "local", subject="ada") in events
    assert not await auth.validate_token(pair.access_token)
    assert await refresh.families("ada") == await sessions.list("ada") == []
    assert await refusal(auth.login("ada", PASSWORD)) == WRONG
    token = await auth.login("ada", "another tea party")
    assert isinstance(token, TokenPair)
    assert await auth.validate_token(token.access_token)
    assert not await auth.set_password("nobody", "another tea party")
    with pytest.raises(ValueError, match="more than 1024 bytes"):
        await auth.set_password("ada", "x" * 1025)


async def test_revoke_subject(hasher: PasswordHasher) -> None:
    """Everything of a subject ends: also what holders have that were named to the Login."""
    store = MemoryStore()
    sessions = SessionAuth(MemoryStore())
    auth = local(hasher, refresh=RefreshTokens(store))
    auth.gate.ends(sessions)
    kept, pair = await logged_in(auth), await logged_in(auth)
    await sessions.login(Response(), {"sub": "ada"}, connection=request())
    sid = (await auth.verify(kept.access_token))["sid"]
    assert await auth.revoke_subject("ada", keep=sid) == 2
    assert await sessions.list("ada") == []
    assert await auth.refresh(kept.refresh_token)
    with pytest.raises(Unauthorized):
        await auth.refresh(pair.refresh_token)


async def test_a_password_that_is_set_while_the_user_changes(hasher: PasswordHasher) -> None:
    """Setting a password is repeated after another process changed the user in between."""

    class Contended(MappingUsers):
        attempts = 0

        async def update(self, *arguments: Any) -> bool:
            self.attempts += 1
            return self.attempts > 1 and await super().update(*arguments)

    users = Contended({"ada": {"password_hash": STORED}})
    assert await local(hasher, users).set_password("ada", "another password of ada")
    assert users.attempts == 2


async def test_without_passwords() -> None:
    """A Login without passwords has none to set."""
    auth = LocalAuth(CONFIG, Login(users_of(), MemoryStore(), passwords=None))
    with pytest.raises(ConfigurationError, match="has no passwords"):
        await auth.set_password("ada", "another tea party")


PUBLIC = jwk.ECKey.import_key(jwk.ECKey.generate_key("P-256").as_dict(private=False))
OF_RFC_9068 = JWTConfig(key=CONFIG.key, issuer_url="https://id.example", audience="api", profile="rfc9068")
PLAIN = {"ada": {"password_hash": "analytical engine"}}
BAD: list[tuple[Any, Any, dict[str, Any], str]] = [
    (JWTConfig(key=PUBLIC), {}, {}, "no key to sign with"),
    (OF_RFC_9068, {}, {}, "leave profile out"),
    (CONFIG, ["ada"], {}, "users is a mapping, or has the methods by_login, by_subject"),
    (CONFIG, {"ada": {}}, {}, "password_hash is needed"),
    (CONFIG, PLAIN, {}, "the password_hash of 'ada' is not a hash: `fastapi-guard password hash` makes one"),
    (CONFIG, {STORED: {"password_hash": "ada"}}, {}, r"the password_hash of \(a hash\) is not a hash"),
    (CONFIG, {STORED: {}}, {}, r"the user \(a hash\): password_hash is needed"),
    (CONFIG, {}, {"refresh": MemoryStore()}, r"refresh is RefreshTokens, such as RefreshTokens\(store\), not Memory"),
    (CONFIG, {}, {"refresh": RefreshTokens}, "refresh is RefreshTokens"),
    (CONFIG, {}, {"revocations": MemoryStore()}, "revocations is an object"),
    (CONFIG, {}, {"clock": 7}, "clock is a function"),
]


@pytest.mark.parametrize(("config", "users", "options", "message"), BAD, ids=range(len(BAD)))
def test_a_configuration_that_cannot_work(config: Any, users: Any, options: dict[str, Any], message: str) -> None:
    """An argument of the wrong type is refused when constructed, without the value of a secret."""
    with pytest.raises(ConfigurationError, match=message) as error:
        LocalAuth(config, users, **options)
    assert "analytical engine" not in str(error.value)


def test_two_on_the_same_refresh_tokens() -> None:
    """RefreshTokens belong to one Auth: another would turn a customer's refresh token into a token of its own."""
    store = MemoryStore()
    refresh = RefreshTokens(store)
    customers = LocalAuth(CONFIG, {}, refresh=refresh)
    with pytest.raises(ConfigurationError, match=r"two TokenPairs named 'refresh'.*its own RefreshTokens"):
        LocalAuth(CONFIG, {}, refresh=refresh, name="staff")
    with pytest.raises(ConfigurationError, match="two RefreshTokens named 'refresh'"):
        RefreshTokens(store)
    staff = LocalAuth(CONFIG, {}, refresh=RefreshTokens(store, name="staff"), name="staff")
    assert customers.tokens is not staff.tokens


def test_the_authorize_button() -> None:
    """OpenAPI has the URL of the login, and of the refresh."""
    plain, refreshing = LocalAuth(CONFIG, {}), LocalAuth(CONFIG, {}, refresh=RefreshTokens(MemoryStore()))
    flows = [auth.scheme.model.model_dump(exclude_none=True)["flows"]["password"] for auth in (plain, refreshing)]
    assert flows == [
        {"tokenUrl": "token", "scopes": {}},
        {"tokenUrl": "token", "refreshUrl": "token/refresh", "scopes": {}},
    ]


async def test_another_name(hasher: PasswordHasher) -> None:
    """A family belongs to the subject: another name or address ends nothing."""
    users = users_of()
    auth = local(hasher, users, refresh=RefreshTokens(MemoryStore()))
    pair = await logged_in(auth)
    user = await auth.gate.find("ada")
    assert user is not None
    await auth.gate.change(user, email="liddell@example.com", username="alice")
    assert await auth.refresh(pair.refresh_token)
    assert await auth.login("ALICE", PASSWORD)
    assert replace(user, email="liddell@example.com", username="alice", credentials_version=1) == await auth.gate.find(
        "alice"
    )
