"""TokenPairs: tokens of a login, what a refresh keeps and reads again, and what ends them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Response
from joserfc import jwk

from fastapi_guard import (
    BearerAccessToken,
    ConfigurationError,
    Forbidden,
    JWTAuth,
    JWTConfig,
    ServiceUnavailable,
    Unauthorized,
)
from fastapi_guard.events import Event
from fastapi_guard.login.client import Client
from fastapi_guard.login.login import Complete
from fastapi_guard.login.refresh import RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.tokens import InvalidScope, TokenPairs
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD, CountingStore, request
from support.logins import House, users_of

KEY = jwk.OctKey.generate_key(256)
CONFIG = JWTConfig(key=KEY, issuer_url="https://id.example")


class Shop(House):
    """A Login with tokens."""

    def __post_init__(self) -> None:
        """Build the tokens too."""
        auth = self.options.pop("auth", {})
        revocable = self.options.pop("revocable", True)
        super().__post_init__()
        self.revocations = Revocations(self.store, clock=self.clock) if revocable else None
        self.jwt = JWTAuth(CONFIG, revocations=self.revocations, clock=self.clock, **auth)
        self.refresh = RefreshTokens(self.store, clock=self.clock, on_event=self.events.append)
        self.tokens = TokenPairs(self.jwt, self.refresh, login=self.login)

    async def pair(self, **fields: Any) -> TokenPair:
        """Return the tokens of a login by password."""
        pair = await self.tokens.issue(await self.complete(**fields))
        assert isinstance(pair, TokenPair)
        return pair

    async def claims(self, token: BearerAccessToken) -> dict[str, Any]:
        """Return the claims of an access token."""
        return await self.jwt.verify(token.access_token)


def shop(clock: Clock, store: Any = None, **options: Any) -> Shop:
    """Return a Login with tokens in memory."""
    users = options.pop("users", None) or users_of()
    return Shop(store or MemoryStore(clock=clock), clock, options, users=users)


async def test_a_pair(clock: Clock) -> None:
    """A login is an access token and a refresh token; the family keeps the proof, the subject and the client."""
    home = shop(clock)
    pair = await home.pair()
    claims = await home.claims(pair)
    [family] = await home.tokens.devices("ada")
    now = int(clock())
    proof = {"amr": ["pwd"], "auth_time": now, "factors": {"pwd": now}}
    assert {name: claims[name] for name in ("sub", "sid", "scope", *proof)} == {
        "sub": "ada",
        "sid": family.id,
        "scope": "a:b",
        **proof,
    }
    assert family.claims == {"sub": "ada", **proof, "_second": False}
    assert (family.subject, family.client) == ("ada", Client("192.0.2.1", "Firefox"))
    assert "username" not in claims
    assert pair.refresh_token not in repr(pair)
    assert pair.scope is None


async def test_a_refresh(clock: Clock) -> None:
    """A refresh reads the user again, and keeps the proof and the claims of the login."""
    home = shop(clock)
    began = int(clock())
    outcome = await home.login.begin(await home.user(), amr=["fed"], claims={"provider": "x"}, connection=request())
    assert isinstance(outcome, Complete)
    first = await home.tokens.issue(outcome)
    assert isinstance(first, TokenPair)
    clock.move(1800)
    sid = (await home.claims(first))["sid"]
    home.users._users["ada"] = replace(
        await home.user(),
        scopes=["c:d"],
        is_admin=True,
        username="lovelace",
        extra_claims={"amr": ["mfa"], "auth_time": 1, "factors": {}, "sid": "x", "plan": "gold"},
    )
    second = await home.tokens.refresh(first.refresh_token, connection=request("198.51.100.7", agent="curl"))
    claims = await home.claims(second)
    expected = {"sub": "ada", "scope": "c:d", "is_admin": True, "plan": "gold", "provider": "x", "sid": sid}
    proof = {"amr": ["fed"], "auth_time": began, "factors": {"fed": began}}
    assert {name: claims[name] for name in (*expected, *proof)} == {**expected, **proof}
    assert claims["iat"] == began + 1800
    assert not {"_second", "_scope"} & claims.keys()
    [family] = await home.tokens.devices("ada")
    assert family.client == Client("198.51.100.7", "curl")
    assert "token_refreshed" in home.names()
    assert first.refresh_token != second.refresh_token


Change = Callable[[Shop], Awaitable[object]]


async def disable(home: Shop) -> None:
    """Disable the user in the application's own way."""
    home.users._users["ada"] = replace(await home.user(), disabled=True)


async def unverify(home: Shop) -> None:
    """Drop the verification of the address."""
    home.users._users["ada"] = replace(await home.user(), email_verified=False)


async def remove(home: Shop) -> None:
    """Delete the user."""
    del home.users._users["ada"]


async def enrol(home: Shop) -> None:
    """Enrol a factor that the login did not prove."""
    await home.enrol("totp")


async def change_password(home: Shop) -> None:
    """Change the password."""
    await home.login.change(await home.user(), password_hash="newer")


async def revoke(home: Shop) -> None:
    """Revoke the subject."""
    assert home.revocations is not None
    await home.revocations.revoke_subject("ada")


@pytest.mark.parametrize("change", [disable, unverify, remove, enrol, change_password, revoke])
async def test_who_may_not_refresh(clock: Clock, change: Change) -> None:
    """A user who may not log in now, or who needs a factor that the login did not prove, does not go on."""
    home = shop(clock)
    pair = await home.pair()
    await change(home)
    with pytest.raises(Unauthorized) as error:
        await home.tokens.refresh(pair.refresh_token, connection=request())
    assert error.value.detail == "The refresh token is invalid"
    assert await home.tokens.devices("ada") == []


async def test_the_gate_at_a_refresh(clock: Clock) -> None:
    """A login with a second step, on a trusted device or of a user without factors goes on; may_login is called."""
    may = True
    home = shop(
        clock,
        trusted_devices=timedelta(days=30),
        may_login=lambda user, connection: may,
        needs_second=lambda user: user.subject_id == "ada",
    )
    await home.enrol("totp")
    outcome = await home.login.with_totp((await home.pending()).id, home.code(), connection=request())
    response = Response()
    assert home.login.devices is not None
    await home.login.devices.trust(response, outcome)
    with_factor = await home.tokens.issue(outcome)
    cookie = response.headers["set-cookie"].partition(";")[0]
    trusted = await home.tokens.issue(await home.complete(cookie=cookie))
    other = await home.tokens.issue(await home.complete("bob"))
    for pair in (with_factor, trusted, other):
        assert isinstance(pair, TokenPair)
        assert await home.tokens.refresh(pair.refresh_token)
    factors = await home.login.factors.of("ada")
    await home.login.factors.records.remove(factors[0].id)
    again = await home.pair(name="bob")
    home.users._users["ada"] = replace(await home.user(), username="still")
    may = False
    with pytest.raises(Unauthorized):
        await home.tokens.refresh(again.refresh_token)


async def test_a_user_who_lost_every_factor_and_needs_one(clock: Clock) -> None:
    """A family without a second step of a user who needs one, and has none, does not go on."""
    needed = False
    home = shop(clock, needs_second=lambda user: needed)
    pair = await home.pair()
    needed = True
    with pytest.raises(Unauthorized):
        await home.tokens.refresh(pair.refresh_token)


class Barrier:
    """Work of the hasher that waits until a test lets it go on."""

    def __init__(self, home: House) -> None:
        """Block the hasher."""
        self.context = home.hasher._context
        self.reached, self.go_on = threading.Event(), threading.Event()
        home.hasher._context = self  # type: ignore[assignment]

    def verify(self, password: Any, stored: Any) -> Any:
        """Verify after the change."""
        valid = self.context.verify(password, stored)
        self.reached.set()
        assert self.go_on.wait(60)
        return valid

    def hash(self, password: Any) -> Any:
        """Hash at once."""
        return self.context.hash(password)

    def needs_update(self, stored: Any) -> Any:
        """Return whether the hash is outdated."""
        return self.context.needs_update(stored)


@pytest.mark.parametrize("kind", ["tokens", "access token", "session"])
@pytest.mark.parametrize("change", [change_password, disable, remove])
async def test_begun_before_and_completed_after(clock: Clock, change: Change, kind: str) -> None:
    """A login that waits for the hasher while the password changes gets nothing by the old one, and nothing stays."""
    home = shop(clock, revocable=kind != "access token")
    sessions = SessionAuth(home.store, clock=clock)
    home.login.ends(sessions)
    await home.hasher.verify(PASSWORD, None)
    barrier = Barrier(home)
    assert barrier.hash(PASSWORD) != barrier.hash(PASSWORD)
    waiting = asyncio.create_task(home.login.with_password("ada", PASSWORD, connection=request()))
    await asyncio.to_thread(barrier.reached.wait, 60)
    await change(home)
    barrier.go_on.set()
    outcome = await waiting
    assert isinstance(outcome, Complete)
    alone = TokenPairs(JWTAuth(CONFIG, clock=clock), login=home.login)
    response = Response()
    follows: dict[str, Callable[[], Awaitable[object]]] = {
        "tokens": lambda: home.tokens.issue(outcome),
        "access token": lambda: alone.issue(outcome),
        "session": lambda: sessions.login(response, outcome, connection=request()),
    }
    with pytest.raises(Unauthorized) as error:
        await follows[kind]()
    assert (error.value.detail, error.value.reason) == ("Login failed", "user_changed")
    assert (await home.tokens.devices("ada"), await sessions.list("ada")) == ([], [])
    assert "set-cookie" not in response.headers


async def test_a_revocation_while_tokens_are_issued(clock: Clock) -> None:
    """A revocation after the user was confirmed covers the token that is signed a moment later."""
    home = shop(clock)
    outcome = await home.complete()
    confirm = outcome.confirm

    async def confirm_and_be_slow(*sid: str) -> None:
        await confirm(*sid)
        await change_password(home)
        clock.move(600)

    token = await home.tokens.issue(replace(outcome, confirm=confirm_and_be_slow))
    assert isinstance(token, TokenPair)
    assert not await home.jwt.validate_token(token.access_token)
    with pytest.raises(Unauthorized):
        await home.tokens.refresh(token.refresh_token)


async def test_a_revocation_while_a_token_is_refreshed(clock: Clock) -> None:
    """A revocation after the rotation covers the access token that is signed a moment later."""
    store = CountingStore(MemoryStore(clock=clock))
    home = shop(clock, store)
    pair = await home.pair()
    rotate = home.refresh.rotate

    async def rotate_and_be_slow(*arguments: Any, **options: Any) -> Any:
        rotated = await rotate(*arguments, **options)
        await change_password(home)
        clock.move(600)
        return rotated

    home.refresh.rotate = rotate_and_be_slow  # type: ignore[method-assign]
    second = await home.tokens.refresh(pair.refresh_token)
    assert not await home.jwt.validate_token(second.access_token)


@pytest.mark.parametrize("issuer", [None, CONFIG.issuer_url])
async def test_a_login_in_the_second_of_a_revocation(clock: Clock, issuer: str | None) -> None:
    """A login right after a revocation, in the same second, has a valid token, also after a refresh or a step-up."""
    home = shop(clock)
    assert home.revocations is not None
    before = await home.pair()
    await home.revocations.revoke_subject("ada", issuer=issuer)
    after = await home.pair()
    assert not await home.jwt.validate_token(before.access_token)
    assert await home.jwt.validate_token(after.access_token)
    refreshed = await home.tokens.refresh(after.refresh_token)
    assert await home.jwt.validate_token(refreshed.access_token)
    claims = await home.claims(refreshed)
    proof = {"password": PASSWORD}
    outcome = await home.login.step_up.complete(claims, "password", proof, connection=None)
    renewed = await home.tokens.step_up(claims, outcome)
    assert await home.jwt.validate_token(renewed.access_token)
    await revoke(home)
    assert not await home.jwt.validate_token(refreshed.access_token)
    assert not await home.jwt.validate_token(renewed.access_token)


async def test_a_change_of_password_keeps_the_login_that_made_it(clock: Clock) -> None:
    """The tokens of the login that is kept stay valid; those of the others end, access tokens included."""
    home = shop(clock)
    mine, other = await home.pair(), await home.pair()
    sid = (await home.claims(mine))["sid"]
    await home.login.change(await home.user(), keep=sid, password_hash="newer")
    assert await home.jwt.validate_token(mine.access_token)
    assert not await home.jwt.validate_token(other.access_token)
    assert await home.tokens.refresh(mine.refresh_token)
    with pytest.raises(Unauthorized):
        await home.tokens.refresh(other.refresh_token)


async def test_a_store_that_is_unreachable(clock: Clock) -> None:
    """A family that cannot be stored is a 503, without tokens."""

    async def unreachable() -> None:
        raise ServiceUnavailable(reason="store_unreachable")

    store = CountingStore(MemoryStore(clock=clock))
    home = shop(clock, store)
    outcome = await home.complete()
    store.before["add"] = unreachable
    with pytest.raises(ServiceUnavailable):
        await home.tokens.issue(outcome)


async def test_round_trips(clock: Clock) -> None:
    """A login is at most four round trips to the store: factors, a trusted device, the family, the revocation."""
    for options, expected in (
        ({"second": (), "revocable": False}, ["add"]),
        ({"revocable": False}, ["find", "add"]),
        ({"trusted_devices": timedelta(days=30)}, ["find", "get", "add"]),
    ):
        store = CountingStore(MemoryStore(clock=clock))
        await shop(clock, store, **options).pair()
        assert store.trips[: len(expected)] == expected, options
    store = CountingStore(MemoryStore(clock=clock))
    home = shop(clock, store, trusted_devices=timedelta(days=30))
    await home.enrol("totp")
    outcome = await home.login.with_totp((await home.pending()).id, home.code(), connection=request())
    await home.outbox.drain()
    response = Response()
    assert home.login.devices is not None
    await home.login.devices.trust(response, outcome)
    store.trips.clear()
    complete = await home.complete(cookie=response.headers["set-cookie"].partition(";")[0])
    await home.tokens.issue(complete)
    assert store.trips == ["find", "get", "get", "add"]


SCOPES = {"roles": {"editor": ["items:*"], "root": ["*"]}}
NARROWED = [
    ({"scopes": ["a:b", "c:d"]}, "a:b", "a:b"),
    ({"scopes": ["a:b", "c:d"]}, "c:d a:b c:d", "c:d a:b"),
    ({"scopes": ["a:b"]}, "a:b x:y", "a:b"),
    ({"scopes": [], "roles": ["editor"]}, "items:read", "items:read"),
    ({"scopes": [], "roles": ["root"]}, "any:thing", "any:thing"),
    ({"scopes": ["a:*"], "is_admin": True}, "a:b", "a:b"),
]


@pytest.mark.parametrize(("fields", "scope", "granted"), NARROWED, ids=range(len(NARROWED)))
async def test_scopes_are_narrowed(clock: Clock, fields: dict[str, Any], scope: str, granted: str) -> None:
    """A login may request fewer scopes than the user has: roles and the mark of an administrator grant no more then."""
    home = shop(clock, auth=SCOPES, users=users_of(**fields))
    pair = await home.tokens.issue(await home.complete(), scope=scope)
    assert isinstance(pair, TokenPair)
    refreshed = await home.tokens.refresh(pair.refresh_token)
    for token in (pair, refreshed):
        grants = home.jwt.grants_of(await home.claims(token))
        assert (grants.scopes, grants.roles, grants.is_admin) == (set(granted.split()), set(), False)
    assert (pair.scope, refreshed.scope) == (granted, None)


async def test_a_refresh_narrows_further_and_never_widens(clock: Clock) -> None:
    """A refresh may narrow its access token; the next one has the scopes of the login, and what the user has now."""
    home = shop(clock, users=users_of(scopes=["a:b", "c:d", "e:f"]))
    pair = await home.tokens.issue(await home.complete(), scope="a:b c:d")
    assert isinstance(pair, TokenPair)
    with pytest.raises(InvalidScope):
        await home.tokens.refresh(pair.refresh_token, scope="e:f")
    second = await home.tokens.refresh(pair.refresh_token, scope="a:b e:f")
    assert (second.scope, (await home.claims(second))["scope"]) == ("a:b", "a:b")
    home.users._users["ada"] = replace(await home.user(), scopes=["c:d", "e:f"])
    third = await home.tokens.refresh(second.refresh_token)
    assert (third.scope, (await home.claims(third))["scope"]) == (None, "c:d")
    home.users._users["ada"] = replace(await home.user(), scopes=[])
    fourth = await home.tokens.refresh(third.refresh_token)
    assert (await home.claims(fourth))["scope"] == ""


async def test_a_refused_refresh_uses_nothing_up(clock: Clock) -> None:
    """A refresh token is valid after a refresh for scopes that the user does not have, however much later."""
    home = shop(clock)
    pair = await home.pair()
    with pytest.raises(InvalidScope):
        await home.tokens.refresh(pair.refresh_token, scope="x:y")
    clock.move(timedelta(hours=1))
    second = await home.tokens.refresh(pair.refresh_token)
    assert second.refresh_token != pair.refresh_token
    assert await home.jwt.validate_token(second.access_token)


@pytest.mark.parametrize("scope", ["x:y", "", " ", 'a:b"', "a:b\\", "\u00e9", "x" * 10_000, "A:B"])
async def test_scopes_that_nobody_has(clock: Clock, scope: str) -> None:
    """Scopes that the user does not have, and texts that are not scopes, cannot be requested alone."""
    home = shop(clock)
    with pytest.raises(InvalidScope, match="the user has none of the requested scopes"):
        await home.tokens.issue(await home.complete(), scope=scope)
    assert await home.tokens.devices("ada") == []


async def test_a_default_role_cannot_be_narrowed(clock: Clock) -> None:
    """A credential without a role has the default role: its scopes cannot be left out, so narrowing is refused."""
    auth = {"roles": {"reader": ["a:b", "c:d"]}, "default_role": "reader"}
    home = shop(clock, auth=auth, users=users_of(scopes=[]))
    with pytest.raises(InvalidScope):
        await home.tokens.issue(await home.complete(), scope="a:b")


async def test_a_step_up(clock: Clock) -> None:
    """A step-up is a new access token of the same login; its family has the proof, also at the next refresh."""
    home = shop(clock)
    await home.enrol("recovery", "bob")
    pair = await home.pair()
    began = await home.claims(pair)
    await home.enrol("totp")
    clock.move(600)
    outcome = await home.login.step_up.complete(began, "totp", {"code": home.code()}, connection=request())
    token = await home.tokens.step_up(began, outcome)
    assert type(token) is BearerAccessToken
    refreshed = await home.tokens.refresh(pair.refresh_token)
    for stepped in (token, refreshed):
        claims = await home.claims(stepped)
        assert (claims["amr"], claims["sid"]) == (["pwd", "otp", "mfa"], began["sid"])
        assert claims["auth_time"] == int(clock())
        assert claims["factors"] == {"pwd": began["auth_time"], "otp": int(clock()), "mfa": int(clock())}
    assert "stepped_up" in home.names()


async def test_a_step_up_of_a_login_that_has_ended(clock: Clock) -> None:
    """A login that was ended, or belongs to another user, cannot be renewed."""
    home = shop(clock)
    pair, other = await home.pair(), await home.pair(name="bob")
    claims, foreign = await home.claims(pair), await home.claims(other)
    outcome = await home.login.step_up.complete(claims, "password", {"password": PASSWORD}, connection=None)
    with pytest.raises(Unauthorized):
        await home.tokens.step_up({**claims, "sid": foreign["sid"]}, outcome)
    await home.tokens.logout(claims)
    with pytest.raises(Unauthorized) as error:
        await home.tokens.step_up(claims, outcome)
    assert error.value.reason == "unknown_family"
    outcome = await home.login.step_up.complete(foreign, "password", {"password": PASSWORD}, connection=None)
    await home.login.change(await home.user("bob"))
    with pytest.raises(Unauthorized) as error:
        await home.tokens.step_up(foreign, outcome)
    assert error.value.reason == "user_changed"


async def test_a_step_up_without_refresh_tokens(clock: Clock) -> None:
    """Without refresh tokens the new access token has the rights of the old one, and expires with it."""
    home = shop(clock)
    alone = TokenPairs(JWTAuth(CONFIG, clock=clock), login=home.login)
    began = await alone.jwt.verify((await alone.issue(await home.complete(), scope="a:b")).access_token)
    clock.move(600)
    outcome = await home.login.step_up.complete(began, "password", {"password": PASSWORD}, connection=None)
    foreign = {**began, "nbf": 1, "aud": "another", "iss": "another"}
    claims = await alone.jwt.verify((await alone.step_up(foreign, outcome)).access_token)
    assert (claims["exp"], claims["scope"], claims["auth_time"]) == (began["exp"], "a:b", int(clock()))
    assert (claims["iss"], "nbf" in claims, "aud" in claims) == (CONFIG.issuer_url, False, False)
    # A token of another Auth, without a session, is renewed alike where there are refresh tokens.
    claims = await home.jwt.verify((await home.tokens.step_up(began, outcome)).access_token)
    assert (claims["exp"], "sid" in claims) == (began["exp"], False)
    assert claims["jti"] != began["jti"]


async def test_a_step_up_counts_after_its_factor_is_gone(clock: Clock) -> None:
    """A family that had a second step goes on when the user needs one and has no factor any more."""
    needed = False
    home = shop(clock, needs_second=lambda user: needed)
    pair = await home.pair()
    claims = await home.claims(pair)
    await home.enrol("totp")
    outcome = await home.login.step_up.complete(claims, "totp", {"code": home.code()}, connection=None)
    # Without mfa, as after a mailed code.
    await home.tokens.step_up(claims, replace(outcome, kept={**outcome.kept, "amr": ["pwd", "otp"]}))
    for factor in await home.login.factors.of("ada"):
        await home.login.factors.records.remove(factor.id)
    needed = True
    assert await home.tokens.refresh(pair.refresh_token)


async def test_the_scope_of_an_access_token_alone(clock: Clock) -> None:
    """The response names the scopes that were granted, without a refresh token too."""
    home = shop(clock)
    alone = TokenPairs(JWTAuth(CONFIG, clock=clock), login=home.login)
    assert (await alone.issue(await home.complete(), scope="a:b x:y")).scope == "a:b"


async def test_a_refresh_of_a_login_by_a_passkey(clock: Clock) -> None:
    """A login that was by several factors at once needs no second step at a refresh."""
    home = shop(clock)
    device = await home.enrol("passkey")
    offer = await home.login.offer("passkey", binding="browser", connection=request())
    proof = {"credential": device.get(offer["publicKey"])}
    outcome = await home.login.with_first("passkey", proof, binding="browser", connection=request())
    assert isinstance(outcome, Complete)
    pair = await home.tokens.issue(outcome)
    assert isinstance(pair, TokenPair)
    assert await home.tokens.refresh(pair.refresh_token)


def test_a_request_of_another_site(clock: Clock) -> None:
    """A page of another site cannot make the browser send a refresh cookie."""
    home = shop(clock)
    home.tokens.check_origin(request())
    with pytest.raises(Forbidden) as error:
        home.tokens.check_origin(request(origin="https://evil.example"))
    assert error.value.reason == "cross_origin"


async def test_revoke(clock: Clock) -> None:
    """A refresh token ends with its family, an access token by itself, and an unknown token is not an error."""
    home = shop(clock)
    pair, other = await home.pair(), await home.pair()
    assert await home.tokens.revoke(pair.refresh_token)
    assert not await home.tokens.revoke(pair.refresh_token)
    assert await home.tokens.revoke(other.access_token)
    assert not await home.jwt.validate_token(other.access_token)
    assert home.names().count("token_revoked") == 2
    for token in (pair.access_token, other.access_token, "", "nonsense", "a.b.c", "\ud800", "a" * 64):
        assert not await home.tokens.revoke(token)
    assert await home.tokens.refresh(other.refresh_token)


async def test_without_revocations(clock: Clock) -> None:
    """Without Revocations an access token is valid until it expires, whatever ends beside it."""
    home = shop(clock, revocable=False)
    pair = await home.pair()
    claims = await home.claims(pair)
    assert not await home.tokens.revoke(pair.access_token)
    await home.tokens.logout(claims)
    assert not await home.tokens.end_device(claims["sid"])
    assert await home.jwt.validate_token(pair.access_token)
    assert await home.tokens.revoke_subject("ada") == 0
    alone = TokenPairs(home.jwt, login=home.login)
    assert (await alone.devices("ada"), await alone.revoke_subject("ada"), await alone.end_device("x")) == (
        [],
        0,
        False,
    )
    await alone.logout({"sub": "ada", "sid": 7})
    home.events.clear()
    await home.tokens.logout(await home.claims(await home.pair()))
    # A family is an end, without Revocations too.
    assert "token_revoked" in home.names()
    with pytest.raises(ConfigurationError, match=r"pass refresh=RefreshTokens\(store\)"):
        await alone.refresh("x" * 64)


@pytest.mark.parametrize("revocable", [True, False])
async def test_the_logout_of_an_access_token_alone(clock: Clock, *, revocable: bool) -> None:
    """Without refresh tokens a logout revokes the access token, which is an event; without Revocations nothing ends."""
    home = shop(clock, revocable=revocable)
    alone = TokenPairs(home.jwt, login=home.login)
    for tokens, more in ((alone, {}), (alone, {"sid": "s-1"}), (home.tokens, {})):
        token = await alone.issue(await home.complete())
        claims = await home.claims(token)
        home.names()
        await tokens.logout({**claims, **more})
        assert await home.jwt.validate_token(token.access_token) is not revocable
        assert home.names() == (["token_revoked"] if revocable else [])


async def test_logout_and_devices(clock: Clock) -> None:
    """A device ends by its sid, its access tokens with it; a logout ends one's own and no other."""
    home = shop(clock)
    pairs = []
    for _ in range(3):
        pairs.append(await home.pair())
        clock.move(1)
    first, second, third = pairs
    sids = [(await home.claims(pair))["sid"] for pair in (first, second, third)]
    assert [family.id for family in await home.tokens.devices("ada")] == sids
    assert await home.tokens.end_device(sids[0])
    assert not await home.tokens.end_device(sids[0])
    await home.tokens.logout(await home.claims(second))
    for pair in (first, second):
        assert not await home.jwt.validate_token(pair.access_token)
        with pytest.raises(Unauthorized):
            await home.tokens.refresh(pair.refresh_token)
    assert await home.jwt.validate_token(third.access_token)
    assert [family.id for family in await home.tokens.devices("ada")] == sids[2:]


@pytest.mark.parametrize("way", ["logout", "device", "refresh token"])
async def test_every_access_token_of_a_login_ends(clock: Clock, way: str) -> None:
    """With a login its access tokens of before a refresh and of a step-up end too, and those of no other login."""
    home = shop(clock)
    other = await home.pair()
    first = await home.pair()
    second = await home.tokens.refresh(first.refresh_token)
    claims = await home.claims(second)
    proof = {"password": PASSWORD}
    outcome = await home.login.step_up.complete(claims, "password", proof, connection=None)
    stepped_up = await home.tokens.step_up(claims, outcome)
    if way == "logout":
        await home.tokens.logout(claims)
    elif way == "device":
        assert await home.tokens.end_device(claims["sid"])
    else:
        assert await home.tokens.revoke(second.refresh_token)
    pairs = (first, second, stepped_up, other)
    assert [await home.jwt.validate_token(pair.access_token) for pair in pairs] == [False, False, False, True]


@pytest.mark.parametrize("way", ["a reuse", "a store that was unreachable"])
async def test_a_logout_after_the_family_has_ended(clock: Clock, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A logout ends every access token of the login, also where its refresh tokens were revoked before."""
    home = shop(clock)
    first = await home.pair()
    second = await home.tokens.refresh(first.refresh_token)
    claims = await home.claims(second)
    if way == "a reuse":
        clock.move(120)
        with pytest.raises(Unauthorized):
            await home.tokens.refresh(first.refresh_token)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(home.jwt.revocations, "revoke_session", unreachable)
            with pytest.raises(ServiceUnavailable):
                await home.tokens.logout(claims)
    home.names()
    await home.tokens.logout(claims)
    assert [await home.jwt.validate_token(pair.access_token) for pair in (first, second)] == [False, False]
    assert home.names() == ["token_revoked"]


async def unreachable(*_: object, **__: object) -> None:
    """Raise the error of a store."""
    raise ServiceUnavailable(reason="store_unreachable")


async def test_an_unknown_device(clock: Clock) -> None:
    """Nothing is stored about a sid that no login has, of which there are any number."""
    store = CountingStore(MemoryStore(clock=clock))
    home = shop(clock, store)
    assert not await home.tokens.end_device("x" * 32)
    assert not {"add", "replace"} & set(store.trips)
    sid = (await home.claims(await home.pair()))["sid"]
    store.trips.clear()
    assert await home.tokens.end_device(sid)
    assert "add" in store.trips


def revoked(home: Shop) -> list[tuple[str, str | None]]:
    """Return the Auth and the subject of each event of an end, and forget the events."""
    ended = [(event.auth, event.subject) for event in home.events if event.name == "token_revoked"]
    home.events.clear()
    return ended


async def test_the_events_of_tokens(clock: Clock) -> None:
    """A refresh and each kind of end are events of the JWTAuth, with the subject where it is known."""
    home = shop(clock, auth={"name": "shop"})
    pair = await home.pair()
    home.events.clear()
    await home.tokens.refresh(pair.refresh_token)
    assert home.events == [Event("token_refreshed", "shop", subject="ada")]
    pairs = [await home.pair() for _ in range(4)]
    claims = [await home.claims(pair) for pair in pairs]
    home.events.clear()
    assert await home.tokens.revoke(pairs[0].refresh_token)
    assert revoked(home) == [("shop", None)]
    assert await home.tokens.revoke(pairs[1].access_token)
    assert revoked(home) == [("shop", "ada")]
    await home.tokens.logout(claims[2])
    assert revoked(home) == [("shop", "ada")]
    assert await home.tokens.end_device(claims[3]["sid"])
    assert revoked(home) == [("shop", None)]
    assert not await home.tokens.end_device(claims[3]["sid"])
    assert not await home.tokens.revoke("x" * 64)
    assert revoked(home) == []


async def test_the_number_of_what_ends(clock: Clock) -> None:
    """The families of a subject are counted, the kept one apart; for another issuer nothing ends."""
    home = shop(clock)
    pairs = [await home.pair() for _ in range(3)]
    await home.pair(name="bob")
    kept = (await home.claims(pairs[0]))["sid"]
    home.events.clear()
    assert await home.tokens.revoke_subject("ada", issuer="https://other.example") == 0
    assert (len(await home.tokens.devices("ada")), revoked(home)) == (3, [])
    assert await home.tokens.revoke_subject("ada", keep=kept, issuer="https://id.example") == 2
    assert revoked(home) == [(home.jwt.name, "ada")]
    assert [await home.jwt.validate_token(pair.access_token) for pair in pairs] == [True, False, False]
    assert await home.tokens.revoke_subject("ada") == 1
    assert not await home.jwt.validate_token(pairs[0].access_token)
    assert len(await home.tokens.devices("bob")) == 1
    sessions = SessionAuth(home.store, clock=clock)
    await sessions.login(Response(), await home.complete(), connection=request())
    await home.pair()
    # A family, and a session that the revocations of the Auth end.
    assert await home.tokens.revoke_subject("ada") == 2
    plain = shop(clock, revocable=False)
    await plain.pair()
    plain.events.clear()
    assert [await plain.tokens.revoke_subject("ada"), await plain.tokens.revoke_subject("ada")] == [1, 0]
    assert revoked(plain) == [(home.jwt.name, "ada")]


async def test_ending_a_subject_while_its_families_are_unavailable(clock: Clock) -> None:
    """The access tokens end all the same; a repetition ends the families."""

    async def unreachable() -> None:
        raise ServiceUnavailable(reason="store_unreachable")

    home, store = shop(clock), CountingStore(MemoryStore(clock=clock))
    tokens = TokenPairs(home.jwt, RefreshTokens(store, name="elsewhere", clock=clock), login=home.login)
    pair = await tokens.issue(await home.complete())
    store.before["find"] = unreachable
    with pytest.raises(ServiceUnavailable):
        await tokens.revoke_subject("ada")
    assert not await home.jwt.validate_token(pair.access_token)
    assert await tokens.revoke_subject("ada") == 1


async def test_the_client_of_a_refresh_behind_a_proxy(clock: Clock) -> None:
    """The address of a family is the one that the trusted proxies of the Login saw."""
    home = shop(clock, trusted_proxies=1)
    pair = await home.pair()
    await home.tokens.refresh(pair.refresh_token, connection=request("10.0.0.1", x_forwarded_for="198.51.100.9"))
    [family] = await home.tokens.devices("ada")
    assert family.client == Client("198.51.100.9", "Firefox")


async def test_the_rule_at_a_refresh_receives_the_request(clock: Clock) -> None:
    """The rule of the application decides about the request of a refresh, too."""
    blocked = request("203.0.113.9")
    home = shop(clock, may_login=lambda user, connection: connection is not blocked)
    pair = await home.pair()
    with pytest.raises(Unauthorized):
        await home.tokens.refresh(pair.refresh_token, connection=blocked)
    pair = await home.pair()
    assert await home.tokens.refresh(pair.refresh_token, connection=request("203.0.113.9"))


async def test_a_step_up_keeps_the_narrowed_scopes(clock: Clock) -> None:
    """The token after a step-up, and those of later refreshes, have no more scopes than the login asked for."""
    home = shop(clock, users=users_of(scopes=["a:b", "c:d"]))
    pair = await home.tokens.issue(await home.complete(), scope="a:b x:y")
    assert isinstance(pair, TokenPair)
    assert (pair.scope, (await home.claims(pair))["scope"]) == ("a:b", "a:b")
    claims = await home.claims(pair)
    outcome = await home.login.step_up.complete(claims, "password", {"password": PASSWORD}, connection=None)
    stepped = await home.tokens.step_up(claims, outcome)
    refreshed = await home.tokens.refresh(pair.refresh_token)
    assert [(await home.claims(token))["scope"] for token in (stepped, refreshed)] == ["a:b", "a:b"]
    # A user who loses the scope goes on, without it, also after another step-up.
    home.users._users["ada"] = replace(await home.user(), scopes=["c:d"])
    claims = await home.claims(await home.tokens.refresh(refreshed.refresh_token))
    outcome = await home.login.step_up.complete(claims, "password", {"password": PASSWORD}, connection=None)
    stepped = await home.tokens.step_up(claims, outcome)
    assert [found.get("scope", "") for found in (claims, await home.claims(stepped))] == ["", ""]


async def test_a_step_up_by_a_factor_counts_at_refreshes(clock: Clock) -> None:
    """A family that was stepped up by a factor goes on when the user needs one; by a password it does not."""
    home = shop(clock)
    pairs = [await home.pair(), await home.pair()]
    claims = [await home.claims(pair) for pair in pairs]
    outcome = await home.login.step_up.complete(claims[0], "password", {"password": PASSWORD}, connection=None)
    await home.tokens.step_up(claims[0], outcome)
    await home.enrol("totp")
    outcome = await home.login.step_up.complete(claims[1], "totp", {"code": home.code()}, connection=None)
    await home.tokens.step_up(claims[1], outcome)
    assert await home.tokens.refresh(pairs[1].refresh_token)
    with pytest.raises(Unauthorized):
        await home.tokens.refresh(pairs[0].refresh_token)


async def test_a_device_stays_ended_as_long_as_its_tokens(clock: Clock) -> None:
    """The access tokens of a device that was ended are revoked until the last of them has expired, and its leeway."""
    home = shop(clock)
    claims = await home.claims(await home.pair())
    assert await home.tokens.end_device(claims["sid"])
    clock.move(3600 + 299)
    assert await home.revocations.is_revoked(claims)  # type: ignore[union-attr]
    clock.move(2)
    assert not await home.revocations.is_revoked(claims)  # type: ignore[union-attr]


async def test_the_errors_of_scopes_and_settings(clock: Clock) -> None:
    """Each error has a constant text, without what the client sent."""
    home = shop(clock)
    # Split at a space alone: with another white space it is one scope, which the user does not have.
    for scope in ("secret", "a:b\ta:b", "a:b\n", "\u00a0a:b"):
        with pytest.raises(InvalidScope, match=r"^the user has none of the requested scopes$"):
            await home.tokens.issue(await home.complete(), scope=scope)
    alone = TokenPairs(home.jwt, login=home.login)
    with pytest.raises(ConfigurationError) as error:
        await alone.refresh("x" * 64)
    assert str(error.value) == "there are no refresh tokens: pass refresh=RefreshTokens(store)"
    profile = JWTConfig(key=KEY, issuer_url="https://id.example", audience="api", profile="rfc9068")
    with pytest.raises(ConfigurationError) as error:
        TokenPairs(JWTAuth(profile), login=home.login)
    assert str(error.value) == (
        "a password login has no client_id for a token of RFC 9068: leave profile out of the JWTConfig"
    )


async def test_a_token_that_never_expires(clock: Clock) -> None:
    """The device of tokens without an expiry ends for good."""
    home = shop(clock)
    forever = JWTAuth(JWTConfig(key=KEY, expiration_seconds=None), revocations=home.revocations, clock=clock)
    refresh = RefreshTokens(MemoryStore(clock=clock), clock=clock)
    tokens = TokenPairs(forever, refresh, login=home.login)
    pair = await tokens.issue(await home.complete())
    assert await tokens.end_device((await forever.verify(pair.access_token))["sid"])
    clock.move(timedelta(days=999))
    assert not await forever.validate_token(pair.access_token)


def test_a_configuration_that_cannot_work(clock: Clock) -> None:
    """TokenPairs have a Login, RefreshTokens of their own, and a key to sign with."""
    home = shop(clock)
    with pytest.raises(ConfigurationError, match="login is a Login"):
        TokenPairs(home.jwt, login={})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as error:
        TokenPairs(home.jwt, home.refresh, login=home.login)
    remedy = 'pass each its own RefreshTokens(store, name="...")'
    assert str(error.value) == (
        f"two TokenPairs named 'refresh' on one store would accept each other's records: {remedy}"
    )
