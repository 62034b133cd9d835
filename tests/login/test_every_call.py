"""Each flow is interrupted at each call of the store and of the users: by an operation that ends it, by an outage."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import Response
from joserfc.jwk import ECKey

from fastapi_guard import AuthError, JWTConfig, ServiceUnavailable, Unauthorized
from fastapi_guard.exceptions import Conflict
from fastapi_guard.jwt.tokens import BearerAccessToken, TokenPair
from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.outcome import Complete
from fastapi_guard.login.pending import Pending
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import User
from fastapi_guard.routers.sessions import SessionAnswers
from fastapi_guard.stores import MemoryStore
from support.accounts import Shop
from support.clock import Clock
from support.factors import totp_code
from support.login import PASSWORD, request
from support.logins import STORED
from support.passwords import quick_hasher
from support.turns import Turns, TurnStore, TurnUsers

CONFIG = JWTConfig(key=ECKey.generate_key("P-256"), expiration_seconds=3600)
HASHER = quick_hasher()
OTHER_PASSWORD = "yet another long phrase"
ALL = 1000

Run = Callable[[], Awaitable[Any]]


class World:
    """A shop with sessions and tokens, and `ada`, who has an account."""

    def __init__(self) -> None:
        """Build it."""
        self.turns, self.clock = Turns(), Clock()
        self.store = TurnStore(MemoryStore(clock=self.clock), self.turns)
        limits = LoginLimits(account=None, address=None)
        self.shop = Shop(
            self.clock,
            login_options={"passwords": HASHER, "limits": limits},
            store=self.store,
            users=TurnUsers(self.turns),
        )
        self.login, self.accounts = self.shop.login, self.shop.accounts
        self.sessions = SessionAuth(self.store, clock=self.clock)
        self.revocations = Revocations(self.store, clock=self.clock)
        refresh = RefreshTokens(self.store, clock=self.clock)
        self.auth = LocalAuth(CONFIG, self.login, refresh=refresh, revocations=self.revocations, clock=self.clock)
        self.login.ends(self.sessions)
        self.shop.users._put(User(subject_id="ada", email="ada@example.com", email_verified=True, password_hash=STORED))
        self.secret = ""
        self.cookie = ""
        self.pair: Any = None
        self.used = ""

    async def ada(self) -> User:
        """Return the user as it is now."""
        found: User = self.shop.users._users["ada"]
        return found

    async def enrol(self) -> None:
        """Enrol an authenticator app."""
        confirm = await to_enrol(self)
        assert await confirm() is not None

    def code(self) -> dict[str, str]:
        """Return the next code of the app."""
        self.clock.move(60)
        return {"code": totp_code(self.secret, self.clock())}

    async def session(self, outcome: Complete) -> str:
        """Return the cookie of a new session."""
        response = Response()
        await self.sessions.login(response, outcome, connection=request())
        return cookie_of(response)

    async def logged_in(self) -> None:
        """Log in with a session and with tokens."""
        outcome = await self.login.with_password("ada@example.com", PASSWORD, connection=request())
        assert isinstance(outcome, Complete)
        self.cookie = await self.session(outcome)
        self.pair = await self.auth.login("ada@example.com", PASSWORD)

    async def works(self, result: Any) -> bool:
        """Return whether the client has anything of what a flow returned, on the next request."""
        try:
            if isinstance(result, Pending):
                result = await self.login.with_totp(result.id, self.code()["code"], connection=None)
                return await self.works(await self.session(result))
            if isinstance(result, EnrolledFactor):
                return result in await self.login.factors.of(result.subject)
            if isinstance(result, str):
                return bool(await self.sessions.verify(result))
            if isinstance(result, BearerAccessToken):
                return bool(await self.auth.verify(result.access_token))
        except Unauthorized:
            return isinstance(result, TokenPair) and await self.refreshes(result)
        return False

    async def refreshes(self, pair: TokenPair) -> bool:
        """Return whether a refresh token is valid."""
        try:
            return bool(await self.auth.refresh(pair.refresh_token))
        except Unauthorized:
            return False

    async def aclose(self) -> None:
        """Wait for what runs after the answers."""
        await self.login._entry.after.drain()
        await self.shop.outbox.drain()


def cookie_of(response: Response) -> str:
    """Return the id of the session that a response begins."""
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0]


async def to_begin_a_session(world: World) -> Run:
    """Log in by password, with a session."""

    async def run() -> str:
        return await world.session(await world.login.with_password("ada@example.com", PASSWORD, connection=request()))

    return run


async def to_get_tokens(world: World) -> Run:
    """Log in by password, with tokens."""
    return lambda: world.auth.login("ada@example.com", PASSWORD)


async def to_begin_two_steps(world: World) -> Run:
    """Log in by password, where a second step is needed."""
    await world.enrol()
    return lambda: world.login.with_password("ada@example.com", PASSWORD, connection=request())


async def to_make_the_second_step(world: World) -> Run:
    """Complete a login, with a session."""
    begin = await to_begin_two_steps(world)
    pending, code = await begin(), world.code()

    async def run() -> str:
        return await world.session(await world.login.with_factor(pending.id, "totp", code, connection=None))

    return run


async def to_complete_with_tokens(world: World) -> Run:
    """Complete a login, with tokens."""
    begin = await to_begin_two_steps(world)
    pending, code = await begin(), world.code()

    async def run() -> BearerAccessToken:
        outcome = await world.login.with_factor(pending.id, "totp", code, connection=None)
        return await world.auth.tokens.issue(outcome)

    return run


async def to_step_up(world: World) -> Run:
    """Renew a session."""
    await world.logged_in()
    claims, answers = await world.sessions.verify(world.cookie), SessionAnswers(world.sessions, world.login)

    async def run() -> str:
        proof = {"password": PASSWORD}
        outcome = await world.login.step_up.complete(claims, "password", proof, connection=None)
        return cookie_of(await answers.renew(request(), claims, outcome))

    return run


async def to_step_up_with_tokens(world: World) -> Run:
    """Renew an access token."""
    await world.logged_in()
    claims = await world.auth.verify(world.pair.access_token)

    async def run() -> BearerAccessToken:
        proof = {"password": PASSWORD}
        outcome = await world.login.step_up.complete(claims, "password", proof, connection=None)
        return await world.auth.tokens.step_up(claims, outcome)

    return run


async def to_refresh(world: World) -> Run:
    """Refresh tokens."""
    await world.logged_in()
    return lambda: world.auth.refresh(world.pair.refresh_token)


async def to_enrol(world: World) -> Run:
    """Confirm an authenticator app."""
    ada = await world.ada()
    begun = await world.login.enrolments.begin("totp", ada, {}, binding="b")
    assert begun is not None
    assert begun.enrolment is not None
    world.secret, enrolment = begun.shown["secret"], begun.enrolment
    code = world.code()
    return lambda: world.login.enrolments.confirm(ada, enrolment, code, binding="b")


async def to_get_codes(world: World) -> Run:
    """Enrol recovery codes."""
    ada = await world.ada()

    async def run() -> EnrolledFactor | None:
        begun = await world.login.enrolments.begin("recovery", ada, {}, binding="b")
        return None if begun is None else begun.factor

    return run


async def to_log_in_again(world: World) -> Run:
    """Log in from the start, with both steps."""

    async def run() -> str:
        pending = await world.login.with_password("ada@example.com", PASSWORD, connection=request())
        assert isinstance(pending, Pending)
        return await world.session(await world.login.with_factor(pending.id, "totp", world.code(), connection=None))

    return run


async def disable(world: World) -> None:
    """Disable the user."""
    await world.accounts.disable(await world.ada())


async def remove(world: World) -> None:
    """Delete the user."""
    await world.accounts.remove(await world.ada())


async def change_password(world: World) -> None:
    """Change the password."""
    await world.accounts.passwords.change(
        await world.ada(), OTHER_PASSWORD, current=PASSWORD, claims={}, connection=None
    )


async def reset_password(world: World) -> None:
    """Reset the password by mail."""
    await world.accounts.passwords.forgot("ada@example.com", browser=None, connection=None)
    proof = await world.shop.proof("reset_password")
    await world.accounts.passwords.reset(proof, OTHER_PASSWORD, connection=None)


async def change(world: World) -> None:
    """Set a password, as an operator does."""
    await world.auth.set_password("ada@example.com", OTHER_PASSWORD)


async def end_all(world: World) -> None:
    """End everything of the user."""
    await world.login.end_all("ada")


async def reset_factors(world: World) -> None:
    """Remove the factors of the user, as an operator does."""
    await world.login.enrolments.reset(await world.ada())


async def end_devices(world: World) -> None:
    """End the session and the tokens that the flow began with, by their ids."""
    for session in await world.sessions.list("ada"):
        await world.sessions.end_device(session.id)
    for family in await world.auth.tokens.devices("ada"):
        await world.auth.tokens.end_device(family.id)


async def log_out(world: World) -> None:
    """End the session and the tokens that the flow began with."""
    cookie = f"{world.sessions.cookie_settings.name}={world.cookie}"
    await world.sessions.logout(Response(), connection=request(cookie=cookie))
    with suppress(Unauthorized):
        await world.auth.logout(await world.auth.verify(world.pair.access_token))


# With the number of the first calls before which the flow has not begun: what ends then ends nothing of it.
FLOWS = {
    to_begin_a_session: 1,
    to_get_tokens: 1,
    to_begin_two_steps: 1,
    to_make_the_second_step: 0,
    to_complete_with_tokens: 0,
    to_step_up: 0,
    to_step_up_with_tokens: 0,
    to_refresh: 0,
    to_enrol: 2,
    to_get_codes: 2,
}
ENDS = [disable, remove, change_password, reset_password, end_all, reset_factors]
OF_A_LOGIN = (to_step_up, to_step_up_with_tokens, to_refresh)
# Factors that are reset end what began with them, and no session or token.
RACES = [(flow, end) for flow in FLOWS for end in ENDS if end is not reset_factors or flow not in OF_A_LOGIN]
RACES += [(flow, log_out) for flow in OF_A_LOGIN]


def named(value: Any) -> str:
    """Return the name of a flow."""
    return value.__name__


@pytest.mark.parametrize(("prepare", "end"), RACES, ids=named)
async def test_nothing_is_valid_after_an_end(prepare: Callable[[World], Awaitable[Run]], end: Any) -> None:
    """The result of a flow is invalid if something ended the login at any of its calls."""
    at, reached = FLOWS[prepare], True
    while reached:
        at += 1
        world = World()
        run = await prepare(world)
        world.turns.at, world.turns.then = at, lambda world=world: end(world)
        try:
            result = await world.turns.run(run)
        except AuthError:
            result = None
        reached = world.turns.count >= at
        assert await world.works(result) is not reached, at
        await world.aclose()


# What the user does after a 503: the same, unless what the flow began with is used up.
AFTER = {
    to_make_the_second_step: to_log_in_again,
    to_complete_with_tokens: to_log_in_again,
    # The session may have been replaced by one that was not handed out.
    to_step_up: to_begin_a_session,
    to_enrol: to_enrol,
}


# How many calls fail, and whether one that fails has done its work before.
OUTAGES = pytest.mark.parametrize(
    ("fails", "done"), [(1, False), (ALL, False), (1, True)], ids=["once", "lastingly", "after the work"]
)


@OUTAGES
@pytest.mark.parametrize("prepare", FLOWS, ids=named)
async def test_an_outage_is_a_503_or_a_success(
    prepare: Callable[[World], Awaitable[Run]], fails: int, *, done: bool
) -> None:
    """A failing store, or failing users, lead to no half result, and the user can go on after the outage."""
    at, reached = 0, True
    while reached:
        at += 1
        world = World()
        run = await prepare(world)
        world.turns.at, world.turns.fails, world.turns.done = at, fails, done
        try:
            result = await world.turns.run(run)
        except ServiceUnavailable:
            again = await AFTER[prepare](world) if prepare in AFTER else run
            result = await again()
        assert await world.works(result), at
        await world.aclose()
        reached = world.turns.count >= at


@OUTAGES
@pytest.mark.parametrize("end", [disable, remove, change, end_all, log_out, end_devices], ids=named)
async def test_an_end_can_be_repeated_after_an_outage(
    end: Callable[[World], Awaitable[None]], fails: int, *, done: bool
) -> None:
    """An end that failed half-way can be repeated, and then everything has ended."""
    at, reached = 0, True
    while reached:
        at += 1
        world = World()
        await world.logged_in()
        world.turns.at, world.turns.fails, world.turns.done = at, fails, done
        try:
            await world.turns.run(lambda world=world: end(world))
        except ServiceUnavailable:
            with suppress(Conflict, KeyError):
                await end(world)
        assert not await world.works(world.cookie), at
        assert not await world.works(world.pair), at
        await world.aclose()
        reached = world.turns.count >= at


async def revoke(world: World) -> None:
    """Revoke the refresh token (RFC 7009)."""
    await world.auth.revoke(world.pair.refresh_token)


async def log_out_of_tokens(world: World) -> None:
    """Log out with the access token, as often as it is valid."""
    with suppress(Unauthorized):
        await world.auth.logout(await world.auth.verify(world.pair.access_token))


async def use_again(world: World) -> None:
    """Present a refresh token that was used, as a thief does."""
    with suppress(Unauthorized):
        await world.auth.refresh(world.used)


@OUTAGES
@pytest.mark.parametrize("end", [revoke, log_out_of_tokens, use_again], ids=named)
async def test_the_end_of_tokens_can_be_repeated_after_an_outage(
    end: Callable[[World], Awaitable[None]], fails: int, *, done: bool
) -> None:
    """An end of tokens that failed half-way can be repeated, and then both tokens are invalid."""
    at, reached = 0, True
    while reached:
        at += 1
        world = World()
        await world.logged_in()
        world.used = world.pair.refresh_token
        world.pair = await world.auth.refresh(world.used)
        world.clock.move(60)
        world.turns.at, world.turns.fails, world.turns.done = at, fails, done
        try:
            await world.turns.run(lambda world=world: end(world))
        except ServiceUnavailable:
            await end(world)
        assert not await world.works(world.pair), at
        assert await world.works(world.cookie), at
        await world.aclose()
        reached = world.turns.count >= at
