"""LocalAuth: who logs in, who does not, and that the work does not tell them apart."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from joserfc import jwk
from sqlalchemy import create_engine, event
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool
from starlette.requests import HTTPConnection

from fastapi_guard import (
    BearerAccessToken,
    ConfigurationError,
    JWTConfig,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
)
from fastapi_guard.events import Event
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.refresh import RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.throttle import Throttle, account
from fastapi_guard.login.users import DatabaseUsers, MappingUsers, User
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.passwords import CountingContext, quick_hasher

PASSWORD = "wonderland tea party"
CONFIG = JWTConfig(key=jwk.OctKey.generate_key(256))
WRONG = (401, "Incorrect username or password", {"WWW-Authenticate": 'Bearer realm="api"'}, "login_failed")


def connection(address: str = "192.0.2.1", *forwarded: str) -> HTTPConnection:
    """Return the request of a login."""
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return HTTPConnection({"type": "http", "client": (address, 1), "headers": headers})


@pytest.fixture
async def hasher() -> AsyncIterator[PasswordHasher]:
    """Return a quick hasher."""
    quick = quick_hasher()
    yield quick
    quick.close()


@pytest.fixture
async def users(hasher: PasswordHasher) -> MappingUsers:
    """Return a user who can log in, and one who is disabled."""
    entry = {
        "password_hash": await hasher.hash(PASSWORD),
        "subject_type": "user",
        "subject_id": "alice",
        "tenant_id": "org_acme",
        "is_admin": False,
        "scopes": ["items:read"],
    }
    return MappingUsers(
        {"alice@example.com": entry, "mallory@example.com": {**entry, "subject_id": "mallory", "disabled": True}}
    )


async def refusal(auth: LocalAuth, username: str, password: str, **options: Any) -> tuple[Any, ...]:
    """Return how a login is refused."""
    with pytest.raises(Unauthorized) as error:
        await auth.login(username, password, **options)
    return error.value.status_code, error.value.detail, error.value.headers, error.value.reason


async def logged_in(auth: LocalAuth) -> TokenPair:
    """Return the pair of a login."""
    pair = await auth.login("alice@example.com", PASSWORD)
    assert isinstance(pair, TokenPair)
    return pair


async def test_login(users: MappingUsers, hasher: PasswordHasher, clock: Clock) -> None:
    """A login gives an access token with the user's claims, and nothing more where there are no refresh tokens."""
    auth = LocalAuth(CONFIG, users, hasher=hasher, clock=clock)
    token = await auth.login("alice@example.com", PASSWORD, connection=connection())
    assert type(token) is BearerAccessToken
    claims = await auth.verify(token.access_token)
    assert len(claims.pop("jti")) == 22
    now = int(clock())
    assert claims == {
        "sub": "alice",
        "subject_type": "user",
        "tenant_id": "org_acme",
        "is_admin": False,
        "scope": "items:read",
        "auth_time": now,
        "iat": now,
        "exp": now + 3600,
    }
    assert await auth.check_password("alice@example.com", PASSWORD) == {
        name: claims[name] for name in ("sub", "subject_type", "tenant_id", "is_admin", "scope")
    }


async def test_users_as_a_mapping(hasher: PasswordHasher) -> None:
    """Users can be written where the Auth is; another hasher is argon2id with libpass's settings."""
    stored = "$2b$04$" + (await quick_hasher("bcrypt").hash(PASSWORD)).removeprefix("$2b$04$")
    auth = LocalAuth(CONFIG, users={"alice@example.com": {"password_hash": stored, "scopes": ["items:read"]}})
    claims = await auth.verify((await auth.login("alice@example.com", PASSWORD)).access_token)
    assert (claims["sub"], claims["scope"]) == ("alice@example.com", "items:read")
    user = await auth.users.by_login("alice@example.com")
    assert user is not None
    assert user.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    await auth.aclose()


ODD = [
    ("alice@example.com", "wrong"),
    ("alice@example.com", ""),
    ("alice@example.com", PASSWORD + " "),
    ("alice@example.com", "a" * 1_000_000),
    ("alice@example.com", "\0"),
    ("alice@example.com", "b" * 73),
    ("alice@example.com", "\ud800"),
    ("nobody@example.com", PASSWORD),
    ("mallory@example.com", PASSWORD),
    ("mallory@example.com", "wrong"),
    ("Alice@example.org", PASSWORD),
    ("", PASSWORD),
    ("\0", PASSWORD),
    ("\ud800", PASSWORD),
    ("x" * 1_000_000, PASSWORD),
]


@pytest.mark.parametrize(("username", "password"), ODD, ids=range(len(ODD)))
async def test_one_answer_and_the_same_work(
    users: MappingUsers, hasher: PasswordHasher, username: str, password: str
) -> None:
    """Unknown, disabled, wrong, malformed: one answer, after the work of one hash with the current settings."""
    auth = LocalAuth(CONFIG, users, hasher=hasher)
    assert isinstance(await auth.login("alice@example.com", PASSWORD), BearerAccessToken)
    counted = CountingContext(hasher)
    assert await refusal(auth, username, password) == WRONG
    assert counted.calls == {"verify": 1}
    assert all(stored.startswith("$argon2id$v=19$m=64,t=1,p=1$") for stored in counted.verified)
    await auth.login("alice@example.com", PASSWORD)
    assert counted.calls == {"verify": 2}


@pytest.mark.parametrize("stored", ["", "nonsense", "$2b$04$short"])
async def test_an_unknown_stored_hash(hasher: PasswordHasher, stored: str) -> None:
    """A stored hash that is none is a failed login like any other."""
    await hasher.verify(PASSWORD, None)

    class Stored:
        """Users with one hash."""

        async def by_login(self, login: str) -> User | None:
            """Return a user of any name."""
            return User(email=login, password_hash=stored, subject_id="a")

        async def by_subject(self, subject: str) -> User | None:
            """Return the user."""
            return await self.by_login("a@example.com")  # pragma: no cover - no login succeeds

        async def set_password_hash(self, subject: str, expected: str | None, new: str) -> bool:
            """Write nothing."""
            raise AssertionError  # pragma: no cover - no login succeeds

        async def update(self, expected: User, new: User) -> bool:
            """Write nothing."""
            raise AssertionError  # pragma: no cover - no login succeeds

    counted = CountingContext(hasher)
    auth = LocalAuth(CONFIG, Stored(), hasher=hasher)
    assert await refusal(auth, "alice@example.com", PASSWORD) == WRONG
    assert counted.calls == {"verify": 1}


async def test_events(users: MappingUsers, hasher: PasswordHasher) -> None:
    """A failed login is an event, with the subject where there is one, and never with what the client sent."""
    events: list[Event] = []
    auth = LocalAuth(CONFIG, users, hasher=hasher, on_event=events.append)
    await refusal(auth, "alice@example.com", "wrong")
    await refusal(auth, "nobody@example.com", "wrong")
    assert events == [
        Event("login_failed", "local", 401, "login_failed", subject="alice"),
        Event("login_failed", "local", 401, "login_failed"),
    ]
    for _ in range(4):
        await refusal(auth, "alice@example.com", "wrong")
    with pytest.raises(TooManyRequests):
        await auth.login("alice@example.com", "wrong")
    assert events[-1] == Event("login_throttled", "local", 429, "throttled")


@pytest.mark.parametrize("username", ["alice@example.com", "nobody@example.com", "mallory@example.com"])
async def test_an_account_is_throttled(
    users: MappingUsers, hasher: PasswordHasher, clock: Clock, username: str
) -> None:
    """The sixth attempt in 15 minutes is a 429, with the right password too, and alike for accounts that are none."""
    auth = LocalAuth(CONFIG, users, hasher=hasher, clock=clock)
    for number in range(5):
        assert await refusal(auth, username.upper() if number % 2 else username, "wrong") == WRONG
    counted = CountingContext(hasher)
    with pytest.raises(TooManyRequests) as error:
        await auth.login(username, PASSWORD, connection=connection("198.51.100.1"))
    assert (error.value.status_code, error.value.detail) == (429, "Too many requests")
    assert error.value.headers == {"Retry-After": "900"}
    assert counted.calls == {}
    clock.move(900)
    assert isinstance(await auth.login("alice@example.com", PASSWORD), BearerAccessToken)


async def test_a_login_that_succeeds_is_forgotten(users: MappingUsers, hasher: PasswordHasher) -> None:
    """Who knows the password may log in as often as there is reason to."""
    auth = LocalAuth(CONFIG, users, hasher=hasher)
    for _ in range(10):
        await auth.login("alice@example.com", PASSWORD)


@pytest.mark.parametrize("forged", [[], ["203.0.113.1"], ["203.0.113.1, 203.0.113.2"]])
async def test_an_address_is_throttled(users: MappingUsers, hasher: PasswordHasher, forged: list[str]) -> None:
    """The 51st attempt of an address in 15 minutes is a 429, whatever it writes into X-Forwarded-For."""
    auth = LocalAuth(CONFIG, users, hasher=hasher)
    for number in range(50):
        written = [f"{each}, 10.0.0.{number}" for each in forged]
        assert await refusal(auth, f"user{number}", "wrong", connection=connection("192.0.2.1", *written)) == WRONG
    with pytest.raises(TooManyRequests):
        await auth.login("alice@example.com", PASSWORD, connection=connection("192.0.2.1", *forged))
    assert await auth.login("alice@example.com", PASSWORD, connection=connection("192.0.2.2"))


async def test_an_address_behind_proxies(users: MappingUsers, hasher: PasswordHasher) -> None:
    """With trusted proxies the address is the one that they saw."""
    throttle = Throttle("1/15 minutes", name="login-address")
    auth = LocalAuth(CONFIG, users, hasher=hasher, address_throttle=throttle, trusted_proxies=1)
    assert await refusal(auth, "a", "wrong", connection=connection("10.0.0.1", "198.51.100.1")) == WRONG
    assert await refusal(auth, "b", "wrong", connection=connection("10.0.0.1", "198.51.100.2")) == WRONG
    with pytest.raises(TooManyRequests):
        await auth.login("c", "wrong", connection=connection("10.0.0.1", "203.0.113.9, 198.51.100.1"))


async def test_an_address_that_is_refused_does_not_lock_an_account(users: MappingUsers, hasher: PasswordHasher) -> None:
    """Attempts of an address that may not try any more do not use up what the account may be tried."""
    auth = LocalAuth(CONFIG, users, hasher=hasher, address_throttle=Throttle("1/15 minutes", name="login-address"))
    for _ in range(10):
        with pytest.raises((Unauthorized, TooManyRequests)):
            await auth.login("alice@example.com", "wrong", connection=connection())
    assert await auth.login("alice@example.com", PASSWORD, connection=connection("192.0.2.2"))


async def test_a_hundred_guesses_at_once(users: MappingUsers, hasher: PasswordHasher) -> None:
    """Of 100 guesses at once five are answered, the others are too many."""
    auth = LocalAuth(CONFIG, users, hasher=hasher)
    guesses = (auth.login("alice@example.com", f"guess {number}") for number in range(100))
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    kinds = [type(answer) for answer in answers]
    assert (kinds.count(Unauthorized), kinds.count(TooManyRequests)) == (5, 95)


async def test_without_throttles(users: MappingUsers, hasher: PasswordHasher, caplog: pytest.LogCaptureFixture) -> None:
    """Throttles can be left out, which is logged."""
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        auth = LocalAuth(CONFIG, users, hasher=hasher, throttled=False)
    assert "tried without a limit" in caplog.text
    for _ in range(10):
        assert await refusal(auth, "alice@example.com", "wrong", connection=connection()) == WRONG
    assert await auth.login("alice@example.com", PASSWORD)


async def test_a_throttle_that_is_away(users: MappingUsers, hasher: PasswordHasher) -> None:
    """What cannot be counted is a 503, never a pass."""
    throttle = Throttle("5/15 minutes", storage="redis://127.0.0.1:1/0")
    auth = LocalAuth(CONFIG, users, hasher=hasher, account_throttle=throttle)
    with pytest.raises(ServiceUnavailable):
        await auth.login("alice@example.com", PASSWORD)
    await throttle.aclose()


class Failing(MappingUsers):
    """Users that cannot be asked, or not be written to."""

    def __init__(self, users: MappingUsers, failing: str, error: Exception) -> None:
        """Fail in one method."""
        self._users, self._names = users._users, users._names
        self.failing = failing
        self.error = error

    async def by_login(self, login: str) -> User | None:
        """Look up."""
        if self.failing == "get":
            raise self.error
        return await super().by_login(login)

    async def by_subject(self, subject: str) -> User | None:
        """Look up for a refresh."""
        raise self.error

    async def set_password_hash(self, subject: str, expected: str | None, new: str) -> bool:
        """Write."""
        raise self.error


@pytest.mark.parametrize("error", [OSError("away"), ServiceUnavailable(reason="users_unreachable")])
async def test_users_that_are_away(users: MappingUsers, hasher: PasswordHasher, error: Exception) -> None:
    """Users that cannot be asked are a 503 with Retry-After, at a login and at a refresh."""
    store = MemoryStore()
    refresh = RefreshTokens(store)
    pair = await logged_in(LocalAuth(CONFIG, users, hasher=hasher, refresh=refresh))
    auth = LocalAuth(CONFIG, Failing(users, "get", error), hasher=hasher, refresh=refresh)
    for call in (auth.login("alice@example.com", PASSWORD), auth.refresh(pair.refresh_token)):
        with pytest.raises(ServiceUnavailable) as refused:
            await call
        assert refused.value.reason == "users_unreachable"
        assert refused.value.headers == {"Retry-After": "5"}
    there = LocalAuth(CONFIG, users, hasher=hasher, refresh=refresh)
    assert await there.refresh(pair.refresh_token)


async def test_an_outdated_hash_is_replaced(hasher: PasswordHasher) -> None:
    """A login replaces a hash of an older scheme; a wrong password and a disabled user do not."""
    old = await quick_hasher("bcrypt").hash(PASSWORD)
    for disabled, password, replaced in ((False, PASSWORD, True), (False, "wrong", False), (True, PASSWORD, False)):
        users = MappingUsers({"bob": {"password_hash": old, "disabled": disabled}})
        auth = LocalAuth(CONFIG, users, hasher=hasher)
        await asyncio.gather(auth.login("bob", password), return_exceptions=True)
        user = await users.by_login("bob")
        assert user is not None
        assert user.password_hash.startswith("$argon2id$" if replaced else "$2b$")
    assert await LocalAuth(CONFIG, MappingUsers({"bob": {"password_hash": old}}), hasher=hasher).login("bob", PASSWORD)


async def test_a_hash_that_cannot_be_replaced(hasher: PasswordHasher, caplog: pytest.LogCaptureFixture) -> None:
    """A write that fails does not fail the login."""
    old = await quick_hasher("bcrypt").hash(PASSWORD)
    users = Failing(MappingUsers({"bob": {"password_hash": old}}), "write", OSError("read only"))
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        assert await LocalAuth(CONFIG, users, hasher=hasher).login("bob", PASSWORD)
    assert "an outdated password hash could not be replaced: OSError" in caplog.text


def log_after(_login: object, caplog: pytest.LogCaptureFixture) -> str:
    """Return what was logged until a login was over."""
    assert "an outdated password hash could not be replaced: DatabaseFailure" in caplog.text
    return caplog.text


async def test_a_hash_that_a_database_cannot_replace_is_in_no_log(
    hasher: PasswordHasher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the table cannot be written, the log says so, without the hash that SQLAlchemy quotes."""
    engine = create_engine(f"sqlite:///{tmp_path}/users.db", poolclass=NullPool)
    users = DatabaseUsers(sessionmaker(engine))
    await users.create_table()
    old = await quick_hasher("bcrypt").hash(PASSWORD)
    await users.add(User(username="bob", password_hash=old, subject_id="bob"))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA query_only = 1"))
    caplog.set_level(logging.DEBUG)
    auth, secret = LocalAuth(CONFIG, users, hasher=hasher), re.compile(rf"\$argon2id\$|\$2b\$|{PASSWORD}")
    # In one statement: coverage loses sight of this function, on Python 3.11, where the database raises.
    assert not secret.search(log_after(await auth.login("bob", PASSWORD), caplog))


@pytest.mark.parametrize("meanwhile", ["changed", "removed"])
async def test_a_password_that_was_changed_meanwhile(hasher: PasswordHasher, meanwhile: str) -> None:
    """A login with the old password does not bring it back."""
    old = await quick_hasher("bcrypt").hash(PASSWORD)
    users = MappingUsers({"bob": {"password_hash": old}})

    class Changing(CountingContext):
        """Change the user while a password is verified."""

        def verify(self, password: Any, hash: Any) -> Any:  # noqa: A002 - libpass calls it that
            """Change, then verify."""
            if meanwhile == "changed":
                users._users["bob"] = replace(users._users["bob"], password_hash="newer")
            else:
                users._users.pop("bob", None)
            return super().verify(password, hash)

    Changing(hasher)
    await LocalAuth(CONFIG, users, hasher=hasher).login("bob", PASSWORD)
    user = await users.by_login("bob")
    assert (None if user is None else user.password_hash) == ("newer" if meanwhile == "changed" else None)


async def test_refresh(users: MappingUsers, hasher: PasswordHasher, clock: Clock) -> None:
    """A refresh gives new tokens with the moment of the login, and the rights that the user has now."""
    store = MemoryStore(clock=clock)
    auth = LocalAuth(CONFIG, users, hasher=hasher, refresh=RefreshTokens(store, clock=clock), clock=clock)
    first = await logged_in(auth)
    assert first.refresh_token not in repr(first)
    began = await auth.verify(first.access_token)
    clock.move(1800)
    users._users["alice"] = User(
        email="alice@example.com", password_hash="x", subject_id="alice", scopes=["items:edit"], is_admin=True
    )
    second = await auth.refresh(first.refresh_token)
    claims = await auth.verify(second.access_token)
    (family,) = await auth.refresh_tokens.families("alice")  # type: ignore[union-attr]
    assert {name: claims[name] for name in ("sub", "scope", "is_admin", "auth_time", "sid")} == {
        "sub": "alice",
        "scope": "items:edit",
        "is_admin": True,
        "auth_time": began["auth_time"],
        "sid": family.id,
    }
    assert "username" not in {**began, **claims}
    assert claims["iat"] == began["iat"] + 1800
    assert first.refresh_token != second.refresh_token
    assert await auth.refresh(second.refresh_token)


@pytest.mark.parametrize("change", ["disabled", "removed"])
async def test_who_may_not_refresh(users: MappingUsers, hasher: PasswordHasher, change: str) -> None:
    """Who was disabled or removed does not go on."""
    auth = LocalAuth(CONFIG, users, hasher=hasher, refresh=RefreshTokens(MemoryStore()))
    pair = await auth.refresh((await logged_in(auth)).refresh_token)
    user = users._users.pop("alice")
    if change == "disabled":
        assert not await users.update(user, user)
        users._users["alice"] = replace(user, disabled=True)
    with pytest.raises(Unauthorized) as error:
        await auth.refresh(pair.refresh_token)
    assert (error.value.detail, error.value.reason) == ("The refresh token is invalid", "may_not_continue")
    assert await auth.refresh_tokens.families("alice") == []  # type: ignore[union-attr]


async def test_another_name(users: MappingUsers, hasher: PasswordHasher) -> None:
    """A family belongs to the subject: another name ends nothing."""
    auth = LocalAuth(CONFIG, users, hasher=hasher, refresh=RefreshTokens(MemoryStore()))
    pair = await logged_in(auth)
    user = users._users["alice"]
    assert await users.update(user, replace(user, email="liddell@example.com", username="alice"))
    assert await auth.refresh(pair.refresh_token)
    assert await auth.login("ALICE", PASSWORD)


async def test_refresh_without_refresh_tokens(users: MappingUsers, hasher: PasswordHasher) -> None:
    """Refreshing needs refresh tokens, and says so."""
    with pytest.raises(ConfigurationError, match="refresh=RefreshTokens"):
        await LocalAuth(CONFIG, users, hasher=hasher).refresh("a" * 64)


async def test_revoke(users: MappingUsers, hasher: PasswordHasher) -> None:
    """A refresh token ends with its family, an access token by itself, and what is no token of ours is no error."""
    store = MemoryStore()
    auth = LocalAuth(CONFIG, users, hasher=hasher, refresh=RefreshTokens(store), revocations=Revocations(store))
    pair, other = await logged_in(auth), await logged_in(auth)
    assert await auth.revoke(pair.refresh_token)
    assert not await auth.revoke(pair.refresh_token)
    assert await auth.validate_token(pair.access_token)
    assert await auth.revoke(pair.access_token)
    assert not await auth.validate_token(pair.access_token)
    for token in (pair.access_token, "", "nonsense", "a.b.c"):
        assert not await auth.revoke(token)
    assert await auth.validate_token(other.access_token)
    assert await auth.refresh(other.refresh_token)


async def test_revoke_without_revocations(users: MappingUsers, hasher: PasswordHasher) -> None:
    """Without Revocations an access token lives until it expires."""
    auth = LocalAuth(CONFIG, users, hasher=hasher)
    token = (await auth.login("alice@example.com", PASSWORD)).access_token
    assert not await auth.revoke(token)
    assert await auth.validate_token(token)


async def test_logout(users: MappingUsers, hasher: PasswordHasher) -> None:
    """A logout ends the login that the access token came from, and no other of the user."""
    store = MemoryStore()
    auth = LocalAuth(CONFIG, users, hasher=hasher, refresh=RefreshTokens(store), revocations=Revocations(store))
    pair, other = await logged_in(auth), await logged_in(auth)
    await auth.logout(await auth.verify(pair.access_token))
    assert not await auth.validate_token(pair.access_token)
    with pytest.raises(Unauthorized):
        await auth.refresh(pair.refresh_token)
    assert await auth.validate_token(other.access_token)
    assert await auth.refresh(other.refresh_token)
    await auth.logout({"sub": "alice"})
    assert await auth.validate_token(other.access_token)


async def test_set_password(users: MappingUsers, hasher: PasswordHasher, clock: Clock) -> None:
    """Another password ends what followed from the old one: access tokens, families, sessions."""
    store, elsewhere = MemoryStore(clock=clock), MemoryStore(clock=clock)
    refresh, sessions = RefreshTokens(elsewhere, clock=clock), SessionAuth(store, clock=clock)
    auth = LocalAuth(
        CONFIG, users, hasher=hasher, refresh=refresh, revocations=Revocations(store, clock=clock), clock=clock
    )
    pair = await logged_in(auth)
    await sessions.login(Response(), {"sub": "alice"}, connection=connection())
    assert await auth.set_password("alice@example.com", "another tea party")
    assert not await auth.validate_token(pair.access_token)
    assert await refresh.families("alice") == await sessions.list("alice") == []
    assert await refusal(auth, "alice@example.com", PASSWORD) == WRONG
    clock.move(1)
    token = await auth.login("alice@example.com", "another tea party")
    assert await auth.validate_token(token.access_token)
    assert not await auth.set_password("nobody@example.com", "another tea party")
    with pytest.raises(ValueError, match="more than 1024 bytes"):
        await auth.set_password("alice@example.com", "x" * 1025)
    alone = LocalAuth(CONFIG, users, hasher=hasher)
    assert await alone.set_password("alice@example.com", PASSWORD)
    assert await alone.login("alice@example.com", PASSWORD)


async def test_a_configuration_that_cannot_work(users: MappingUsers) -> None:
    """Keys that cannot sign, a profile, and hops that nobody counts are refused where they are written."""
    public = jwk.ECKey.import_key(jwk.ECKey.generate_key("P-256").as_dict(private=False))
    with pytest.raises(ConfigurationError, match="no key to sign with"):
        LocalAuth(JWTConfig(key=public), users)
    of_rfc_9068 = JWTConfig(key=CONFIG.key, issuer_url="https://id.example", audience="api", profile="rfc9068")
    with pytest.raises(ConfigurationError, match="leave profile out"):
        LocalAuth(of_rfc_9068, users)
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        LocalAuth(CONFIG, users, trusted_proxies=-1)
    for throttle in (Throttle("9/minute", trusted_proxies=1), Throttle("9/minute", by=account())):
        with pytest.raises(ConfigurationError, match=r"said to LocalAuth\(trusted_proxies=\.\.\.\)"):
            LocalAuth(CONFIG, users, address_throttle=throttle)
    with pytest.raises(ConfigurationError, match="users is a mapping, or has the methods by_login, by_subject"):
        LocalAuth(CONFIG, ["alice"])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="password_hash is needed"):
        LocalAuth(CONFIG, users={"bob": {}})


async def test_the_authorize_button(users: MappingUsers) -> None:
    """OpenAPI knows where to log in, and where to refresh."""
    plain, refreshing = LocalAuth(CONFIG, users), LocalAuth(CONFIG, users, refresh=RefreshTokens(MemoryStore()))
    flows = [auth.scheme.model.model_dump(exclude_none=True)["flows"]["password"] for auth in (plain, refreshing)]
    assert flows == [
        {"tokenUrl": "token", "scopes": {}},
        {"tokenUrl": "token", "refreshUrl": "token/refresh", "scopes": {}},
    ]


async def test_a_password_that_is_set_while_the_user_changes(hasher: PasswordHasher) -> None:
    """Setting a password is repeated where another process changed the user in between."""

    class Contended(MappingUsers):
        attempts = 0

        async def update(self, *arguments: Any) -> bool:
            self.attempts += 1
            return self.attempts > 1 and await super().update(*arguments)

    users = Contended({"ada": {"password_hash": await hasher.hash("old password of ada")}})
    login = LocalAuth(CONFIG, users, hasher=hasher)
    assert await login.set_password("ada", "another password of ada")
    assert users.attempts == 2
