"""Every kind of event is published by what it is about."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Response
from joserfc import jwk
from sqlalchemy import make_url

from api_key.databases import Database
from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.events import Event
from fastapi_guard.events.event import NAMES
from fastapi_guard.exceptions import AuthError
from fastapi_guard.login.accounts import Invited, MailedProof
from fastapi_guard.login.login import Complete, LoginLimits
from fastapi_guard.login.messages import Message
from fastapi_guard.login.providers import ProviderLogout
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore
from support.accounts import NEW_PASSWORD
from support.accounts import Shop as Accounts
from support.clock import Clock
from support.login import PASSWORD, request
from support.logins import House
from support.providers import Shop as Providers
from support.providers import parameters_of

Journey = Callable[[Clock, Path], Awaitable[list[Event]]]
LOGOUT = {"http://schemas.openid.net/event/backchannel-logout": {}}


async def refused(awaitable: Awaitable[object]) -> None:
    """Await what an AuthError refuses."""
    with pytest.raises(AuthError):
        await awaitable


async def logins(clock: Clock, _: Path) -> list[Event]:
    """Log in with and without a second factor, on several devices, and log out."""
    limits = LoginLimits(account=Throttle("2/minute", name="accounts", clock=clock), address=None)
    home = House(MemoryStore(clock=clock), clock, {"trusted_devices": timedelta(days=1), "limits": limits})
    sessions = SessionAuth(home.store, clock=clock, on_event=home.events.append)
    home.login.ends(sessions)
    for _attempt in range(3):
        await refused(home.login.with_password("bob", "wrong", connection=request()))
    response = Response()
    await sessions.login(response, await home.complete(), connection=request())
    await home.outbox.drain()
    cookie = response.headers["set-cookie"].partition(";")[0]
    await sessions.login(Response(), await home.complete(agent="Another"), connection=request())
    await home.outbox.drain()
    await sessions.logout(Response(), connection=request(cookie=cookie))
    await home.enrol("totp")
    pending = await home.pending()
    await refused(home.login.with_totp(pending.id, "000000", connection=request()))
    outcome = await home.login.with_totp(pending.id, home.code(), connection=request())
    assert home.login.devices is not None
    await home.login.devices.trust(Response(), outcome)
    claims = {**outcome.claims, "sid": "s"}
    renewed = await home.login.step_up.complete(claims, "password", {"password": PASSWORD}, connection=request())
    await renewed.confirm()
    codes = await home.enrol("recovery")
    pending = await home.pending()
    await home.login.with_recovery_code(pending.id, codes[0], connection=request())
    await home.login.enrolments.reset(await home.user())
    return home.events


async def passkeys(clock: Clock, _: Path) -> list[Event]:
    """Log in with a passkey whose counter goes back."""
    home = House(MemoryStore(clock=clock), clock)
    device = await home.enrol("passkey")
    for device.counter in (5, 3):
        pending = await home.pending()
        options = (await home.login.challenge(pending.id, "passkey", connection=request()))["publicKey"]
        await home.login.with_passkey(pending.id, device.get(options), connection=request())
    return home.events


async def messages(clock: Clock, _: Path) -> list[Event]:
    """Send messages while the mail server is lost."""
    home = House(MemoryStore(clock=clock), clock)

    async def lost(_: Message) -> None:
        raise ConnectionError

    home.outbox._send = lost
    home.outbox.post(Message(kind="new_device", address="ada@example.com", user=await home.user()))
    await home.outbox.drain()
    return home.events


async def tokens(clock: Clock, _: Path) -> list[Event]:
    """Refresh tokens, repeat one within its grace and after it, and revoke one."""
    home = House(MemoryStore(clock=clock), clock)
    refresh = RefreshTokens(home.store, clock=clock, on_event=home.events.append)
    pairs = TokenPairs(JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), clock=clock), refresh, login=home.login)
    first: Any = await pairs.issue(await home.complete())
    second = await pairs.refresh(first.refresh_token, connection=request())
    await pairs.refresh(first.refresh_token, connection=request("198.51.100.7", agent="Another"))
    clock.move(60)
    await refused(pairs.refresh(first.refresh_token, connection=request()))
    assert not await pairs.revoke(second.refresh_token)
    other: Any = await pairs.issue(await home.complete())
    assert await pairs.revoke(other.refresh_token)
    return home.events


async def accounts(clock: Clock, _: Path) -> list[Event]:
    """Register, change everything that can be changed, invite, disable and delete."""
    shop = Accounts(clock)
    ada = await shop.registered()
    ada = await shop.accounts.passwords.change(ada, NEW_PASSWORD, current=PASSWORD, claims={}, connection=request())
    await shop.accounts.passwords.forgot("ada@example.com", browser=None, connection=request())
    ada = await shop.accounts.passwords.reset(await shop.proof(), PASSWORD, connection=request())
    change = {"password": PASSWORD, "claims": {}, "connection": request()}
    await shop.accounts.addresses.request(ada, "new@example.com", **change)
    proof = MailedProof(token=await shop.token("change_address"))
    ada = await shop.accounts.addresses.confirm(ada, proof, connection=request())
    await shop.accounts.invitations.invite(Invited(email="bob@example.com"), inviter=None, connection=request())
    await shop.users.add(
        User(subject_id="eve", email="eve@example.com", email_verified=False, password_hash=ada.password_hash)
    )
    await shop.accounts.registration.resend("eve@example.com", browser=None, connection=request())
    proof = await shop.proof("verify_address")
    await shop.accounts.registration.verify(proof, password=PASSWORD, connection=request())
    ada = await shop.accounts.enable(await shop.accounts.disable(ada))
    await shop.accounts.delete(ada, password=PASSWORD, claims={}, connection=request())
    return shop.events


async def providers(clock: Clock, _: Path) -> list[Event]:
    """Sign in with a provider, link and unlink an identity, and log out there."""
    shop = Providers(MemoryStore(clock=clock), clock)
    sessions = SessionAuth(shop.house.store, clock=clock)
    logout = ProviderLogout(shop.sign_in, sessions)
    await refused(shop.finish({"state": "unknown", "code": "c"}))
    outcome = (await shop.enter(sub="u-1", sid="s-1")).outcome
    assert isinstance(outcome, Complete)
    await sessions.login(Response(), outcome, connection=request())
    ada = await shop.house.user()
    await shop.finish(parameters_of(shop.issuer.authorize(await shop.start(user=ada), sub="u-2")))
    [identity] = await shop.sign_in.identities.of("ada")
    assert await shop.sign_in.unlink(ada, identity.id)
    own = {"aud": "shop", "events": LOGOUT, "jti": "j-1", "sid": "s-1", "nonce": None, "at_hash": None}
    assert await logout.end("acme", shop.issuer.id_token(header={"typ": "logout+jwt"}, sub="u-1", **own)) == 1
    return shop.house.events


async def keys(_: Clock, folder: Path) -> list[Event]:
    """Create, pause, resume, rotate and revoke an API key, and present it."""
    database = Database.of(make_url(f"sqlite+aiosqlite:///{folder / 'keys.db'}"))
    await database.create_tables()
    events: list[Event] = []
    auth = database.auth(on_event=events.append)
    made = await auth.create(user_id="ada")
    app = FastAPI()
    app.get("/", dependencies=[auth.requires()])(lambda: "")
    transport = httpx2.ASGITransport(app=app)
    client = httpx2.AsyncClient(
        transport=transport, base_url="https://a", headers={"authorization": f"Bearer {made.raw}"}
    )
    assert (await client.get("/")).status_code == 200
    await auth.pause(made.key_id)
    await auth.resume(made.key_id)
    rotated = await auth.rotate(made.key_id, overlap=timedelta())
    await auth.revoke(rotated.key_id)
    assert (await client.get("/")).status_code == 401
    await client.aclose()
    await auth.aclose()
    await database.dispose()
    return events


JOURNEYS: dict[Journey, set[str]] = {
    logins: {
        "login_succeeded",
        "login_pending",
        "login_failed",
        "login_throttled",
        "second_factor_succeeded",
        "second_factor_failed",
        "stepped_up",
        "device_new",
        "device_trusted",
        "session_started",
        "session_ended",
        "factor_added",
        "factor_removed",
        "recovery_code_used",
    },
    passkeys: {"passkey_counter"},
    messages: {"message_failed"},
    tokens: {"token_refreshed", "token_revoked", "refresh_reused", "refresh_graced"},
    accounts: {
        "account_registered",
        "account_verified",
        "account_disabled",
        "account_enabled",
        "account_deleted",
        "account_invited",
        "password_changed",
        "password_reset",
        "address_changed",
    },
    providers: {
        "provider_succeeded",
        "provider_failed",
        "provider_linked",
        "provider_unlinked",
        "provider_logout",
    },
    keys: {
        "authenticated",
        "refused",
        "key_created",
        "key_rotated",
        "key_revoked",
        "key_paused",
        "key_resumed",
    },
}


@pytest.mark.parametrize("journey", JOURNEYS)
async def test_what_is_published(journey: Journey, clock: Clock, tmp_path: Path) -> None:
    """The events of a journey reach the callback, each with the name of its publisher."""
    events = await journey(clock, tmp_path)
    assert JOURNEYS[journey] - {event.name for event in events} == set()
    assert all(event.auth for event in events)


def test_no_kind_is_left_out() -> None:
    """The journeys cover the list of kinds, so that a kind that nothing publishes is found."""
    assert set().union(*JOURNEYS.values()) == set(NAMES)
