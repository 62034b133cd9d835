"""Devices: a message about a new one, and those that a user trusts."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Response

from fastapi_guard import Forbidden
from fastapi_guard.events import Event
from fastapi_guard.login.client import Client
from fastapi_guard.login.devices import KnownDevices, TrustedDevices, device_label
from fastapi_guard.login.login import Complete
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock
from support.login import PASSWORD, CountingStore, request
from support.logins import House, users_of

TRUST = {"trusted_devices": timedelta(days=30)}


async def logged_in(home: House, **fields: Any) -> Complete:
    """Return a login that was confirmed, after what it does afterwards."""
    outcome = await home.complete(**fields)
    await outcome.confirm()
    await home.login._entry.after.drain()
    return outcome


async def test_a_new_device(clock: Clock) -> None:
    """The user hears of a login from another address or user agent, once; of the first one of all not."""
    home = House(MemoryStore(clock=clock), clock)
    await logged_in(home)
    await logged_in(home)
    assert (home.messages, home.names()) == ([], ["login_succeeded"] * 2)
    agent = "Mozilla/5.0 (X11; Linux x86_64) <a href=//evil.example> Firefox/150.0"
    for _ in range(2):
        await logged_in(home, agent=agent)
    assert home.names() == ["login_succeeded", "device_new", "login_succeeded"]
    [message] = home.messages
    assert (message.kind, message.address) == ("new_device", "ada@example.com")
    assert message.detail == "Firefox on Linux, 192.0.2.1"
    await logged_in(home, address="198.51.100.7")
    assert len(home.messages) == 2


async def test_the_devices_of_each_user(clock: Clock) -> None:
    """A device of one user is new for another user who has others, and the first device of that user is not new."""
    home = House(MemoryStore(clock=clock), clock)
    await logged_in(home)
    await logged_in(home, name="bob", address="198.51.100.7")
    assert home.messages == []
    await logged_in(home, name="bob")
    assert [message.address for message in home.messages] == ["bob@example.com"]


async def test_a_device_is_known_for_a_while(clock: Clock) -> None:
    """A device is remembered for 90 days after its last login, and 20 devices of a user are."""
    home = House(MemoryStore(clock=clock), clock)
    await logged_in(home)
    for _ in range(3):
        clock.move(timedelta(days=60))
        await logged_in(home)
    assert home.messages == []
    for number in range(20):
        clock.move(2)
        await logged_in(home, address=f"198.51.100.{number}")
    assert len(home.messages) == 20
    await logged_in(home, address="198.51.100.0")
    assert len(home.messages) == 20
    await logged_in(home)
    assert len(home.messages) == 21


async def test_a_device_is_written_once_a_day(clock: Clock) -> None:
    """A login on a known device is stored again after a day; without one for 90 days the devices are forgotten."""
    store = CountingStore(MemoryStore(clock=clock))
    home = House(store, clock, {"second": ()})
    await logged_in(home)
    assert store.trips == ["get", "add"]
    clock.move(86_399)
    await logged_in(home)
    clock.move(1)
    await logged_in(home)
    assert store.trips[2:] == ["get", "get", "replace"]
    clock.move(timedelta(days=90))
    await logged_in(home, address="198.51.100.7")
    assert home.messages == []


async def test_the_events_of_devices(clock: Clock) -> None:
    """A new device and a trusted one are events of the Login, with the user; so is the message."""
    home = House(MemoryStore(clock=clock), clock, {**TRUST, "name": "staff"})
    for address in ("192.0.2.1", "192.0.2.2"):
        await logged_in(home, address=address)
    assert Event("device_new", "staff", subject="ada") in home.events
    assert [message.user for message in home.messages] == [await home.user()]
    await home.enrol("totp")
    await trusted(home)
    assert Event("device_trusted", "staff", subject="ada") in home.events


async def test_an_address_that_is_not_verified(clock: Clock) -> None:
    """Nothing is sent to an address that may be another person's."""
    known = KnownDevices(MemoryStore(clock=clock), "login", None)
    user = await House(MemoryStore(clock=clock), clock).user()
    for address in ("192.0.2.1", "192.0.2.2"):
        assert await known.see(replace(user, email_verified=False), Client(address), clock()) is None
    assert await known.see(user, Client("192.0.2.3"), clock()) is not None


async def test_devices_at_the_same_time(clock: Clock) -> None:
    """A login on another device in between is remembered too."""
    store = CountingStore(MemoryStore(clock=clock))
    home = House(store, clock)
    await logged_in(home)
    store.before["replace"] = lambda: logged_in(home, address="198.51.100.3")
    await logged_in(home, address="198.51.100.4")
    home.messages.clear()
    for number in (3, 4):
        await logged_in(home, address=f"198.51.100.{number}")
    assert home.messages == []
    assert home.names().count("device_new") == 2


async def test_without_an_address_to_write_to(clock: Clock) -> None:
    """Without a verified address there is an event and no message; without a client there is nothing to remember."""
    home = House(MemoryStore(clock=clock), clock, users=users_of(email=None))
    outcome = await home.login.with_password("ada", PASSWORD, connection=None)
    assert isinstance(outcome, Complete)
    await outcome.confirm()
    for address in ("192.0.2.1", "192.0.2.2"):
        await logged_in(home, address=address)
    assert (home.messages, home.names().count("device_new")) == ([], 1)


async def test_without_a_sender(clock: Clock) -> None:
    """Without an outbox a new device is an event."""
    home = House(MemoryStore(clock=clock), clock, {"outbox": None})
    for address in ("192.0.2.1", "192.0.2.2"):
        await logged_in(home, address=address)
    assert home.names().count("device_new") == 1
    assert home.messages == []
    await home.login.aclose()


LABELS = [
    (Client(), "A device"),
    (Client("192.0.2.1"), "A device, 192.0.2.1"),
    (Client("192.0.2.1", "curl/8.0"), "A device, 192.0.2.1"),
    (
        Client(None, "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/150 Safari/537.36 Edg/150"),
        "Edge on Windows",
    ),
    (Client(None, "Mozilla/5.0 (iPhone; CPU iPhone OS 20_0 like Mac OS X) Version/20 Safari/604"), "Safari on iPhone"),
    (Client(None, "Mozilla/5.0 (Linux; Android 17) Chrome/150.0 Mobile Safari/537.36"), "Chrome on Android"),
    (Client(None, "Mozilla/5.0 (iPad; CPU OS 20_0) Version/20"), "A device on iPad"),
    (Client(None, "Mozilla/5.0 (Macintosh; Intel Mac OS X 20) Chrome/150 OPR/136.0"), "Opera on Mac OS"),
    (Client(None, "call +1 555 0100 now\u202e"), "A device"),
]


@pytest.mark.parametrize(("client", "label"), LABELS, ids=range(len(LABELS)))
def test_labels(client: Client, label: str) -> None:
    """A device is called by names that are known: nothing that a client made up reaches a message."""
    assert device_label(client) == label


async def trusted(home: House) -> str:
    """Return the cookie of a device that was trusted after a second step."""
    pending = await home.pending()
    outcome = await home.login.with_totp(pending.id, home.code(), connection=request())
    response = Response()
    assert home.login.devices is not None
    await home.login.devices.trust(response, outcome)
    home.clock.move(60)
    return response.headers["set-cookie"]


async def test_a_trusted_device(store: Store, clock: Clock) -> None:
    """On a trusted device the password is enough; the claims do not say more than what was proven."""
    home = House(store, clock, TRUST)
    await home.enrol("totp")
    cookie = await trusted(home)
    name, _, rest = cookie.partition("=")
    assert name == "__Host-device-login"
    assert rest.partition("; ")[2] == "HttpOnly; Max-Age=2592000; Path=/; SameSite=lax; Secure"
    sent = cookie.partition(";")[0]
    outcome = await home.complete(cookie=sent)
    assert (outcome.second, outcome.trusted, outcome.claims["amr"]) == (True, True, ["pwd"])
    await home.pending(cookie=sent[:-1])
    await home.pending(cookie=f"{name}={'x' * 65}")
    await home.pending()
    assert "device_trusted" in home.names()
    clock.move(timedelta(days=30))
    await home.pending(cookie=sent)


async def test_an_empty_cookie_and_the_longest_trust(clock: Clock) -> None:
    """Without a request, or a cookie with a value, nothing is looked up; a device can be trusted for 90 days."""
    store = CountingStore(MemoryStore(clock=clock))
    devices = TrustedDevices(store, "login", timedelta(days=90), clock=clock)
    user = await House(MemoryStore(clock=clock), clock).user()
    for connection in (None, request(), request(cookie="__Host-device-login=")):
        assert not await devices.are_trusted(user, connection)
    assert store.trips == []


async def test_what_ends_the_trust(clock: Clock) -> None:
    """Another user, another Login and a change of credentials end it; a trusted device makes no other one."""
    store = MemoryStore(clock=clock)
    home, other = House(store, clock, TRUST), House(store, clock, {**TRUST, "name": "staff rooms"})
    for login in (home, other):
        for name in ("ada", "bob"):
            await login.enrol("totp", name)
    cookie = (await trusted(home)).partition(";")[0]
    assert home.login.devices is not None
    outcome = await home.complete(cookie=cookie)
    for refused in (outcome, await House(MemoryStore(clock=clock), clock).complete()):
        with pytest.raises(Forbidden) as error:
            await home.login.devices.trust(Response(), refused)
        assert error.value.reason == "no_second_step"
    await home.pending("bob", cookie=cookie)
    assert other.login.devices is not None
    foreign = f"{other.login.devices.cookie.name}={cookie.partition('=')[2]}"
    await other.pending(cookie=foreign)
    await home.login.change(await home.user())
    await home.pending(cookie=cookie)
