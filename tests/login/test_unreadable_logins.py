"""Records of logins that cannot be read: whatever is in the store, a flow answers as if the record had expired."""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple

import httpx2
import pytest
from fastapi import FastAPI

from fastapi_guard import ServiceUnavailable, configure_app
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.accounts.invitations import Invited
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.providers import OpenIDProvider, ProviderLogin, ProviderLogout
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import User
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.testing.issuer import FakeIssuer
from support.accounts import NEW_PASSWORD, MemoryUsers
from support.authenticator import Authenticator
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD
from support.logins import STORED, House
from support.providers import CALLBACK
from support.stores import FiveMethods

SHOP = "https://shop.example"
SECRET = "hidden"
Value = Callable[[bytes], bytes]


class Watched(FiveMethods):
    """A store that remembers the keys of records in the order in which they were added."""

    def __init__(self, store: Store) -> None:
        """Keep records in `store`."""
        super().__init__(store)
        self.keys: list[str] = []

    async def add(self, record: Record) -> bool:
        """Add a record."""
        self.keys.append(record.key)
        return await super().add(record)

    async def last(self, prefix: str) -> Record:
        """Return the record of a kind that was added last."""
        key = next(key for key in reversed(self.keys) if key.startswith(prefix))
        [record] = await self.get(key)
        assert record is not None
        return record

    async def edit(self, prefix: str, value: Value | None) -> None:
        """Change the value of the last record of a kind; `None` removes the record."""
        record = await self.last(prefix)
        if value is None:
            assert await self.delete(record.key)
        else:
            assert await self.replace(record.key, record, replace(record, value=value(record.value)))


class Site:
    """An application with every kind of record of a login, and the browser of a new user."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Build the application."""
        self.store = Watched(store)
        self.numbers = count()
        limits = LoginLimits(account=None, address=None)
        options = {"limits": limits, "trusted_devices": timedelta(days=30)}
        self.house = House(self.store, clock, options, MemoryUsers())
        login = self.house.login
        accounts = Accounts(login, key=KEY, pages=SHOP)
        self.accounts, self.invitations = accounts, accounts.invitations
        self.issuer = FakeIssuer(audience="shop", clock=clock)
        own: dict[str, Any] = {"client": self.issuer.client, "clock": clock}
        provider = OpenIDProvider("acme", self.issuer.url, "shop", "a secret of the client", **own)
        sign_in = ProviderLogin(login, [provider], callback=CALLBACK)
        self.identities = sign_in.identities
        self.sessions = SessionAuth(self.store, clock=clock)
        self.logout = ProviderLogout(sign_in, self.sessions, id_token_key=KEY)
        self.app = FastAPI()
        configure_app(self.app)
        self.app.include_router(session_router(self.sessions, login))
        self.app.include_router(factors_router(login, self.sessions))
        self.app.include_router(accounts_router(accounts, self.sessions))
        self.app.include_router(providers_router(sign_in, self.sessions, logout=self.logout))
        self.open()

    def open(self) -> None:
        """Open another browser."""
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        fields = {"sec-fetch-site": "same-origin", "user-agent": "Firefox/1"}
        self.browser = httpx2.AsyncClient(transport=transport, base_url=SHOP, headers=fields)

    async def person(self, *kinds: str) -> dict[str, Any]:
        """Return what proves a new user, who has a factor of each of these kinds."""
        name = f"user{next(self.numbers)}"
        user = User(subject_id=name, username=name, email=f"{name}@example.com", password_hash=STORED)
        assert await self.house.users.add(user)  # type: ignore[attr-defined]
        return {"name": name, **{kind: await self.house.enrol(kind, name) for kind in kinds}}

    async def post(self, path: str, **body: Any) -> httpx2.Response:
        """Post JSON, and wait for what follows the answer."""
        answer = await self.browser.post(path, json=body)
        await self.house.outbox.drain()
        return answer

    async def log_in(self, name: str, **fields: Any) -> httpx2.Response:
        """Log in by the password."""
        return await self.post("/login", username=name, password=PASSWORD, **fields)

    async def link(self) -> str:
        """Return the token of the link in the last message."""
        await self.house.outbox.drain()
        return str(self.house.messages[-1].link).partition("token=")[2]

    async def sign_in(self, sub: str) -> str:
        """Return the path and query with which the browser comes back from the provider."""
        begun = await self.browser.get("/providers/acme")
        return self.issuer.authorize(begun.headers["location"], sub=sub, sid=f"s-{sub}").removeprefix(SHOP)

    def logout_token(self, sub: str, jti: str) -> str:
        """Return a logout token for the sessions of a subject."""
        own = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "nonce": None, "at_hash": None}
        own |= {"sub": sub, "sid": f"s-{sub}", "jti": jti}
        return self.issuer.id_token(header={"typ": "logout+jwt"}, **own)

    async def is_logged_in(self) -> bool:
        """Return whether the browser has a session."""
        return (await self.browser.get("/sessions")).status_code == 200


# A flow yields the prefix of the record to change, and then the response that depends on it.
Flow = Callable[[Site], AsyncIterator[Any]]


async def second_step(site: Site) -> AsyncIterator[Any]:
    """Complete a pending login."""
    person = await site.person("recovery")
    await site.log_in(person["name"])
    yield "pending:"
    yield await site.post("/login/recovery", code=person["recovery"][0])


async def second_challenge(site: Site) -> AsyncIterator[Any]:
    """Begin the second step of a pending login."""
    person = await site.person("recovery")
    await site.log_in(person["name"])
    yield "pending:"
    yield await site.post("/login/challenge", factor="recovery")


async def first_passkey(site: Site) -> AsyncIterator[Any]:
    """Log in with a passkey alone."""
    person = await site.person("passkey")
    shown = (await site.post("/login/passkey/begin")).json()
    yield "challenge:"
    yield await site.post("/login/passkey/finish", credential=person["passkey"].get(shown["publicKey"]))


async def second_passkey(site: Site) -> AsyncIterator[Any]:
    """Complete a login with a passkey."""
    person = await site.person("passkey")
    await site.log_in(person["name"])
    shown = (await site.post("/login/challenge", factor="passkey")).json()
    yield "challenge:"
    yield await site.post("/login/passkey", credential=person["passkey"].get(shown["publicKey"]))


async def mailed_login(site: Site) -> AsyncIterator[Any]:
    """Log in with a mailed code."""
    person = await site.person()
    await site.post("/login/mail/begin", email=f"{person['name']}@example.com")
    yield "mailed:"
    yield await site.post("/login/mail/finish", code=site.house.messages[-1].code)


async def mailed_code(site: Site) -> AsyncIterator[Any]:
    """Complete a login with a mailed code."""
    person = await site.person("mail")
    await site.log_in(person["name"])
    await site.post("/login/challenge", factor="mail")
    yield "mailed:"
    yield await site.post("/login/mail", code=site.house.messages[-1].code)


async def reset(site: Site) -> AsyncIterator[Any]:
    """Set a new password by a link."""
    person = await site.person()
    await site.post("/forgot", username=person["name"])
    token = await site.link()
    yield "mailed:"
    yield await site.post("/reset", token=token, password=NEW_PASSWORD)


async def register(site: Site) -> AsyncIterator[Any]:
    """Verify the address of a new user."""
    name = f"new{next(site.numbers)}"
    await site.post("/register", email=f"{name}@example.com", username=name, password=PASSWORD)
    token = await site.link()
    yield "mailed:"
    yield await site.post("/verify", token=token)


async def invitation(site: Site) -> AsyncIterator[Any]:
    """Register by an invitation."""
    invited = Invited(email=f"new{next(site.numbers)}@example.com", roles=("editor",), tenant_id="acme")
    await site.invitations.invite(invited, inviter=None)
    token = await site.link()
    yield "mailed:"
    yield await site.post("/invitations/accept", token=token, password=PASSWORD)


async def enrolment(site: Site) -> AsyncIterator[Any]:
    """Confirm a factor."""
    await site.log_in((await site.person())["name"])
    shown = (await site.post("/factors/passkey")).json()
    yield "enrolment:"
    credential = Authenticator().create(shown["publicKey"])
    yield await site.post("/factors/confirm", enrolment=shown["enrolment"], credential=credential)


async def enrolment_challenge(site: Site) -> AsyncIterator[Any]:
    """Confirm a passkey, which signs a challenge."""
    await site.log_in((await site.person())["name"])
    shown = (await site.post("/factors/passkey")).json()
    yield "challenge:"
    credential = Authenticator().create(shown["publicKey"])
    yield await site.post("/factors/confirm", enrolment=shown["enrolment"], credential=credential)


async def sign_in(site: Site) -> AsyncIterator[Any]:
    """Come back from a provider."""
    back = await site.sign_in(f"sub{next(site.numbers)}")
    yield "sign-in:"
    yield await site.browser.get(back)


async def trusted_device(site: Site) -> AsyncIterator[Any]:
    """Log in on a device that needs no second step."""
    person = await site.person("recovery")
    await site.log_in(person["name"])
    await site.post("/login/recovery", code=person["recovery"][0], trust=True)
    await site.post("/logout")
    yield "device:trusted:"
    yield await site.log_in(person["name"])


async def enrolled(site: Site) -> AsyncIterator[Any]:
    """Log in as a user with a second factor."""
    person = await site.person("recovery")
    yield "factor:"
    yield await site.log_in(person["name"])


async def linked(site: Site) -> AsyncIterator[Any]:
    """Sign in with a provider again."""
    sub = f"sub{next(site.numbers)}"
    await site.browser.get(await site.sign_in(sub))
    await site.post("/logout")
    back = await site.sign_in(sub)
    yield "identity:"
    yield await site.browser.get(back)


class Expected(NamedTuple):
    """The response of a flow with its record, and with one that cannot be read or is not there."""

    flow: Flow
    success: str
    refusal: str


EXPIRED, WRONG = "401 The login has expired", "401 The second factor is wrong"
INVALID = "403 The link or code is invalid or has expired"
UNCONFIRMED = "403 The code is wrong, or the enrolment has expired"
FLOWS = {
    "pending login": Expected(second_step, "204", EXPIRED),
    "challenge of a pending login": Expected(second_challenge, "200", EXPIRED),
    "challenge of a first passkey": Expected(first_passkey, "204", "401 Login failed"),
    "challenge of a second passkey": Expected(second_passkey, "204", WRONG),
    "mailed login": Expected(mailed_login, "204", "401 Login failed"),
    "mailed code": Expected(mailed_code, "204", WRONG),
    "reset": Expected(reset, "204", INVALID),
    "registration": Expected(register, "204", INVALID),
    "invitation": Expected(invitation, "204", INVALID),
    "enrolment": Expected(enrolment, "200", UNCONFIRMED),
    "challenge of an enrolment": Expected(enrolment_challenge, "200", UNCONFIRMED),
    "sign-in": Expected(sign_in, "303 /", "303 /login?error=expired"),
    "trusted device": Expected(trusted_device, "204", "202"),
}
# Without them a user has no second factor, or another account: they are not decided about as if they were not there.
KEPT = {
    "factor": Expected(enrolled, "202", "503 Service temporarily unavailable"),
    "identity": Expected(linked, "303 /", "303 /login?error=unavailable"),
}
VALUES: dict[str, Value | None] = {
    "truncated": lambda value: value[:-3],
    "undecodable": lambda value: value.replace(b'"', b"\xff"),
    "list": lambda _: b'["hidden"]',
    "object": lambda _: b"{}",
    "deep": lambda value: b'{"hidden":' + b"[" * 100_000,
}
# Values of another type, by the type of a member.
OTHERS: dict[type, list[Any]] = {
    str: [7, True, [SECRET]],
    int: ["7", True, 1.5],
    float: ["7", True, math.nan, math.inf, 10**400],
    bool: ["true", 1],
    list: [SECRET, {SECRET: 1}, [[7]]],
    dict: [[SECRET], SECRET],
    type(None): [True, [SECRET]],
}


def edits(value: bytes) -> Iterator[tuple[str, Value]]:
    """Yield changes of single members of a record: missing and of another type by turns, and one more."""
    for number, (place, held) in enumerate(_members(json.loads(value))):
        others = [-1] if place[-1] in ("tries", "sent") else OTHERS[type(held)]
        other = others[number % len(others)] if number % 2 else ...
        yield f"{'.'.join(place)} = {repr(other)[:20]}", _edit(place, other)
    yield "one more", _edit((SECRET,), 1)


def _members(within: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, held in within.items():
        yield (name,), held
        if isinstance(held, dict):
            yield from (((name, *place), inner) for place, inner in _members(held))


def _at(members: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        members = members[name]
    return members


def _edit(place: tuple[str, ...], other: Any) -> Value:
    def edit(value: bytes) -> bytes:
        members = json.loads(value)
        within = _at(members, place[:-1])
        if other is ...:
            del within[place[-1]]
        else:
            within[place[-1]] = other
        return json.dumps(members).encode()

    return edit


def outcome(answer: httpx2.Response) -> str:
    """Return the status of a response, with its detail or location."""
    more = answer.headers.get("location")
    if answer.headers.get("content-type") == "application/problem+json":
        more = answer.json()["detail"]
    return " ".join(filter(None, (str(answer.status_code), more)))


async def run(site: Site, flow: Flow, *change: Value | None) -> tuple[str, bytes]:
    """Return the outcome of a flow whose record was changed, and the record; a refusal begins no session."""
    site.open()
    steps = flow(site)
    prefix = await anext(steps)
    record = await site.store.last(prefix)
    before = await site.is_logged_in()
    for value in change:
        await site.store.edit(prefix, value)
    answer = await anext(steps)
    assert await site.is_logged_in() == before or outcome(answer) in ("204", "303 /")
    assert SECRET not in answer.text
    return outcome(answer), record.value


@pytest.fixture(scope="module")
def site() -> Site:
    """Return an application on a store in memory."""
    clock = Clock()
    return Site(MemoryStore(clock=clock), clock)


@pytest.mark.parametrize("name", [*FLOWS, *KEPT])
async def test_an_unreadable_record(site: Site, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever its value is, the answer is the constant one, and the log names the kind of record alone."""
    flow, success, refusal = {**FLOWS, **KEPT}[name]
    response, value = await run(site, flow)
    assert response == success
    if name in FLOWS:
        assert (await run(site, flow, None))[0] == refusal
    changes = {**VALUES, **dict(edits(value))}
    wrong = {}
    for label, change in changes.items():
        caplog.clear()
        response, _ = await run(site, flow, change)
        logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        if response != refusal or not logged or SECRET in caplog.text:
            wrong[label] = (response, logged)
    assert wrong == {}


@pytest.mark.parametrize("store", ["sqlite-async", "postgres-async", "redis"], indirect=True)
async def test_every_store(store: Store, clock: Clock) -> None:
    """The answer is the same whichever store the record is in."""
    site = Site(store, clock)
    flows = [FLOWS["pending login"], FLOWS["reset"], FLOWS["sign-in"], *KEPT.values()]
    found = [(await run(site, expected.flow, VALUES["undecodable"]))[0] for expected in flows]
    assert found == [expected.refusal for expected in flows]


async def test_a_count_of_messages(site: Site) -> None:
    """A record that counts the codes that were sent, and cannot be read, counts as the last one."""
    site.open()
    person = await site.person("mail")
    await site.log_in(person["name"])
    again = [outcome(await site.post("/login/challenge", factor="mail")) for _ in range(2)]
    await site.store.edit("mailed:", VALUES["truncated"])
    again.append(outcome(await site.post("/login/challenge", factor="mail")))
    assert again == ["200", "200", "429 Too many requests"]


async def test_a_count_of_tries(site: Site) -> None:
    """A record that counts tries, and cannot be read, leaves none: the right code is refused."""
    site.open()
    person = await site.person("mail")
    await site.log_in(person["name"])
    await site.post("/login/challenge", factor="mail")
    code = site.house.messages[-1].code
    await site.store.edit("mailed:", _edit(("tries",), -9))
    assert outcome(await site.post("/login/mail", code=code)) == WRONG


@pytest.mark.parametrize("value", VALUES)
async def test_a_code_that_was_used(site: Site, value: str) -> None:
    """The mark of a used code counts whatever its value is."""
    person = await site.person("totp")
    answers = []
    for _ in range(2):
        site.open()
        await site.log_in(person["name"])
        answers.append(outcome(await site.post("/login/totp", code=site.house.code(person["name"]))))
        await site.store.edit("totp:", VALUES[value])
    assert answers == ["204", WRONG] if VALUES[value] else ["204", "204"]


async def test_known_devices(site: Site) -> None:
    """The login succeeds where they cannot be read, and the user receives one message about a new device."""
    person = await site.person()
    for value in ('["hidden"]', '{"hidden": "hidden"}', "{"):
        site.open()
        await site.log_in(person["name"])
        site.house.messages.clear()
        await site.store.edit("device:known:", lambda _, value=value: value.encode())
        answers = [outcome(await site.log_in(person["name"])) for _ in range(2)]
        assert (answers, [message.kind for message in site.house.messages]) == (["204", "204"], ["new_device"])


async def signed_in(site: Site) -> str:
    """Return the subject at the provider of a user who has just signed in."""
    site.open()
    sub = f"sub{next(site.numbers)}"
    assert outcome(await site.browser.get(await site.sign_in(sub))) == "303 /"
    return sub


async def ended(site: Site, token: str) -> str:
    """Return the answer to a logout token."""
    return outcome(await site.browser.post("/providers/acme/logout", data={"logout_token": token}))


async def test_a_used_logout_token(site: Site) -> None:
    """The record of a logout token that cannot be read is that of a used one."""
    sub = await signed_in(site)
    token = site.logout_token(sub, "j-1")
    assert (await ended(site, token), await site.is_logged_in()) == ("200", False)
    await site.store.edit("sign-in:logout:", VALUES["truncated"])
    assert await ended(site, token) == "400"


async def test_a_login_on_its_way(site: Site) -> None:
    """A login at the provider whose end cannot be read has ended."""
    back = await site.sign_in(sub := f"sub{next(site.numbers)}")
    assert await ended(site, site.logout_token(sub, "j-2")) == "200"
    await site.store.edit("sign-in:logout:", VALUES["object"])
    assert outcome(await site.browser.get(back)) == "303 /login?error=provider"
    assert not await site.is_logged_in()


async def test_a_session_of_a_provider(site: Site) -> None:
    """A logout ends the others where the record of one session cannot be read, and is repeated as long as it is."""
    sub = await signed_in(site)
    first = site.browser
    record = await site.store.last("sign-in:logout:")
    site.open()
    await site.browser.get(await site.sign_in(sub))
    assert await site.is_logged_in()
    token = site.logout_token(sub, "j-3")
    assert await site.store.replace(record.key, record, replace(record, value=b"[]"))
    answers = [await ended(site, token) for _ in range(2)]
    assert answers == ["503 Service temporarily unavailable"] * 2
    assert not await site.is_logged_in()
    site.browser = first
    assert await site.is_logged_in()
    assert await site.store.replace(record.key, replace(record, value=b"[]"), record)
    assert (await ended(site, token), await site.is_logged_in()) == ("200", False)


@pytest.mark.parametrize("value", [b"", b"\xff", b"1.hidden", b"1.\xff"])
async def test_an_id_token(site: Site, value: bytes) -> None:
    """A logout at the provider names no ID token where the kept one cannot be read."""
    await signed_in(site)
    claims = json.loads((await site.store.last("session:")).value)["claims"]
    await site.store.edit("sign-in:hint:", lambda _: value)
    url = await site.logout.url(claims)
    assert url is not None
    assert "id_token_hint" not in url


@pytest.mark.parametrize("kind", ["totp", "passkey"])
async def test_the_draft_of_a_factor(site: Site, kind: str) -> None:
    """An enrolment whose factor cannot be read has expired."""
    site.open()
    await site.log_in((await site.person())["name"])
    shown = (await site.post(f"/factors/{kind}")).json()
    await site.store.edit("enrolment:", _edit(("factor", "data"), "{}"))
    proof = {"credential": Authenticator().create(shown["publicKey"])} if kind == "passkey" else {"code": "000000"}
    assert outcome(await site.post("/factors/confirm", enrolment=shown["enrolment"], **proof)) == UNCONFIRMED


@pytest.mark.parametrize("way", ["reset", "delete"])
async def test_all_factors_of_a_user(site: Site, way: str) -> None:
    """An operator who removes every factor of a user, or the user, removes those that cannot be read."""
    name = (await site.person("totp", "recovery"))["name"]
    user = await site.house.user(name)
    await site.store.edit("factor:", VALUES["object"])
    with pytest.raises(ServiceUnavailable):
        await site.house.login.factors.of(name)
    if way == "reset":
        assert await site.house.login.enrolments.reset(user) == 2
        site.open()
        assert outcome(await site.log_in(name)) == "204"
    else:
        await site.accounts.remove(user)
    assert await site.house.login.factors.of(name) == []


async def test_all_identities_of_a_user(site: Site) -> None:
    """An account that belongs to the owner of its address from now on loses the identities that cannot be read."""
    await signed_in(site)
    subject = json.loads((await site.store.last("identity:")).value)["subject"]
    await site.store.edit("identity:", VALUES["object"])
    user = replace(await site.house.user(subject), email="a@example.com", email_verified=False)
    assert await site.house.users.update(await site.house.user(subject), user)
    with pytest.raises(ServiceUnavailable):
        await site.identities.of(subject)
    await site.house.login.change(user, email_verified=True, password_hash=None)
    assert await site.identities.of(subject) == []


async def test_another_invitation(site: Site) -> None:
    """An invitation ends with another of its address and tenant, and so does one that cannot be read."""
    address = f"new{next(site.numbers)}@example.com"
    for tenant in ("here", "elsewhere", "here"):
        await site.invitations.invite(Invited(email=address, tenant_id=tenant), inviter=None)
        await site.house.outbox.drain()
    keys = site.store.keys[-3:]
    token = await site.link()
    [broken] = await site.store.get(keys[0])
    assert broken is not None
    assert await site.store.replace(keys[0], broken, replace(broken, value=b"{}"))
    assert outcome(await site.post("/invitations/accept", token=token, password=PASSWORD)) == "204"
    assert [record is None for record in await site.store.get(*keys)] == [True, False, True]


async def test_a_registration_that_waits(site: Site) -> None:
    """A registration that cannot be read is not sent again; the answer is the same."""
    site.open()
    address = f"new{next(site.numbers)}@example.com"
    await site.post("/register", email=address, password=PASSWORD)
    await site.store.edit("mailed:", VALUES["object"])
    site.house.messages.clear()
    assert outcome(await site.post("/verify/resend", email=address)) == "202"
    assert site.house.messages == []


@pytest.mark.parametrize(("name", "others"), [("sub", [..., 7, [SECRET]]), ("sid", [None, 7, [SECRET]])])
async def test_the_claims_of_a_provider(site: Site, name: str, others: list[Any]) -> None:
    """A pending login that no longer shows which logout at the provider ends it does not complete."""
    sub = await signed_in(site)
    subject = json.loads((await site.store.last("identity:")).value)["subject"]
    codes = await site.house.enrol("recovery", subject)
    found = {}
    for other in others:
        site.open()
        assert outcome(await site.browser.get(await site.sign_in(sub))) == "303 /login/second"
        await site.store.edit("pending:", _edit(("claims", "idp", name), other))
        found[repr(other)] = outcome(await site.post("/login/recovery", code=codes.pop()))
        assert not await site.is_logged_in()
    assert {*found.values()} == {"401 Signing in failed"}, found
