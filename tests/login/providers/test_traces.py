"""The traces of a sign-in with a provider: what is stored, published, sent and logged."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import Forbidden, ServiceUnavailable, Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.client import Client
from fastapi_guard.login.login import Complete
from fastapi_guard.login.messages import Message
from fastapi_guard.login.providers import Identity, LinkedIdentity, ProviderLogin, SignedIn
from fastapi_guard.login.providers.attempts import Attempt, Attempts
from fastapi_guard.login.providers.identities import identity_id
from fastapi_guard.login.state import digest_of
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Record
from fastapi_guard.stores.kinds import SIGN_IN
from support.clock import Clock
from support.login import request
from support.providers import BROWSER, CALLBACK, Shop, parameters_of

VERIFIED = {"email": "ada@example.com", "email_verified": True}


@pytest.fixture
def shop(clock: Clock) -> Shop:
    """Return an application that vouches for the addresses of its provider."""
    return Shop(MemoryStore(clock=clock), clock, provider={"vouches": True})


def complete(signed_in: SignedIn) -> Complete:
    """Return the login that followed."""
    assert isinstance(signed_in.outcome, Complete)
    return signed_in.outcome


async def test_the_record_of_an_identity(shop: Shop, clock: Clock) -> None:
    """A linked identity has the issuer, the subject, the provider, the moment and a label for lists."""
    ada = await shop.house.user()
    clock.move(5)
    await shop.finish(await shop.answer(user=ada, sub="u-9", email="other@example.com"))
    assert await shop.sign_in.identities.of("ada") == [
        LinkedIdentity(
            id=identity_id(shop.issuer.url, "u-9"),
            subject="ada",
            provider="acme",
            issuer=shop.issuer.url,
            provider_subject="u-9",
            label="other@example.com",
            created_at=clock(),
        )
    ]


@pytest.mark.parametrize(
    ("claims", "label"),
    [
        ({"email": "a@b.example", "name": "Ada"}, "a@b.example"),
        ({"name": "Ada"}, "Ada"),
        ({"name": "A\nda"}, None),
        ({"name": ""}, None),
        ({}, None),
        ({"name": "n" * 255}, "n" * 254),
    ],
)
async def test_the_label(shop: Shop, claims: dict[str, Any], label: str | None) -> None:
    """The label is the address, else the name; a name that cannot be printed is left out."""
    user = complete(await shop.enter(sub="u-1", **claims)).user
    assert [found.label for found in await shop.sign_in.identities.of(user.subject_id)] == [label]


async def test_the_client_and_the_place(shop: Shop) -> None:
    """A login has the client of its request, and goes on to the path that the attempt began with."""
    url = await shop.sign_in.start("acme", browser=BROWSER, next="/basket")
    answer = parameters_of(shop.issuer.authorize(url, sub="u-1"))
    connection = request("198.51.100.7", agent="Lynx")
    signed_in = await shop.sign_in.finish("acme", answer, browser=BROWSER, connection=connection)
    assert (complete(signed_in).client, signed_in.next) == (Client("198.51.100.7", "Lynx"), "/basket")
    assert (signed_in.identity.issuer, signed_in.identity.subject) == (shop.issuer.url, "u-1")
    assert str(signed_in.identity.id_token).count(".") == 2
    assert (await shop.enter(sub="u-1")).next is None
    url = await shop.sign_in.start("acme", browser=BROWSER, next="/account", user=await shop.house.user())
    linked = await shop.finish(parameters_of(shop.issuer.authorize(url, sub="u-9")))
    assert (linked.outcome, linked.next) == (None, "/account")


async def test_the_session_at_the_provider(shop: Shop) -> None:
    """The claim `idp` has the session at the provider, where the provider names one."""
    named = {"provider": "acme", "iss": shop.issuer.url, "sub": "u-1"}
    assert complete(await shop.enter(sub="u-1", sid="s-1")).kept["idp"] == {**named, "sid": "s-1"}
    assert complete(await shop.enter(sub="u-1")).kept["idp"] == named


async def test_the_events_of_a_new_user(shop: Shop) -> None:
    """They name the Login and the user, in this order."""
    user = complete(await shop.enter(sub="u-1")).user
    assert shop.house.events == [
        Event("account_registered", "login", subject=user.subject_id),
        Event("provider_succeeded", "login", subject=user.subject_id),
    ]


async def test_the_events_of_links(shop: Shop) -> None:
    """A link, by a user who is logged in or by a vouched address, and its end are events with the user."""
    bob = await shop.house.user("bob")
    await shop.finish(await shop.answer(user=bob, sub="u-9"))
    await shop.enter(sub="u-1", **VERIFIED)
    [identity] = await shop.sign_in.identities.of("bob")
    assert await shop.sign_in.unlink(bob, identity.id)
    assert shop.house.events == [
        Event("provider_linked", "login", subject="bob"),
        Event("provider_linked", "login", subject="ada"),
        Event("provider_succeeded", "login", subject="ada"),
        Event("provider_unlinked", "login", subject="bob"),
    ]
    await shop.house.outbox.drain()
    ada = await shop.house.user()
    assert shop.house.messages == [
        Message(kind="provider_linked", address="bob@example.com", user=bob),
        Message(kind="provider_linked", address="ada@example.com", user=ada),
        Message(kind="provider_unlinked", address="bob@example.com", user=bob),
    ]


@pytest.mark.parametrize("fields", [{"email_verified": False}, {"email": None, "username": "bob"}])
async def test_no_message_to_an_unverified_address(shop: Shop, fields: dict[str, Any]) -> None:
    """A user without a verified address gets no message about a link."""
    bob = await shop.house.user("bob")
    assert await shop.house.users.update(bob, replace(bob, **fields))
    await shop.finish(await shop.answer(user=replace(bob, **fields), sub="u-9"))
    await shop.house.outbox.drain()
    assert (shop.house.messages, shop.happened()) == ([], ["provider_linked:"])


async def test_an_attempt_expires(shop: Shop, clock: Clock) -> None:
    """A sign-in has ten minutes, to the second."""
    for seconds, expired in ((599, False), (600, True)):
        answer = await shop.answer(sub="u-1")
        clock.move(seconds)
        shop.house.events.clear()
        if expired:
            with pytest.raises(Unauthorized):
                await shop.finish(answer)
            assert shop.house.events == [Event("provider_failed", "login", 401, "unknown_state")]
        else:
            assert complete(await shop.finish(answer))


async def test_an_attempt_of_another_login(clock: Clock) -> None:
    """A state of one Login is unknown to another on the same store, in the same browser, and still there."""
    store = MemoryStore(clock=clock)
    own, other = Attempts(store, "login"), Attempts(store, "staff")
    attempt = Attempt(provider="acme", browser=digest_of(BROWSER), nonce="n", verifier="v")
    state = await own.add(attempt, clock())
    for unknown in (None, state[:-1]):
        assert await own.use(unknown, provider="acme", browser=BROWSER) is None
    assert await other.use(state, provider="acme", browser=BROWSER) is None
    assert await own.use(state, provider="other", browser=BROWSER) is None
    assert await own.use(state, provider="acme", browser=BROWSER) == attempt
    assert await own.use(state, provider="acme", browser=BROWSER) is None


async def test_an_attempt_that_another_request_uses(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several requests with one state, the one that deletes the attempt receives it."""
    store = MemoryStore(clock=clock)
    attempts = Attempts(store, "login")
    state = await attempts.add(Attempt(provider="acme", browser=digest_of(BROWSER), nonce="n", verifier="v"), clock())

    async def deleted_before(_: str) -> bool:
        return False

    monkeypatch.setattr(store, "delete", deleted_before)
    assert await attempts.use(state, provider="acme", browser=BROWSER) is None


async def test_the_record_of_an_attempt(clock: Clock) -> None:
    """It is found by the digest of the state, and kept for ten minutes; its challenge is that of RFC 7636 B."""
    store = MemoryStore(clock=clock)
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    attempt = Attempt(provider="acme", browser="digest", nonce="n", verifier=verifier)
    assert attempt.challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    state = await Attempts(store, "login").add(attempt, clock())
    key = f"{SIGN_IN}{digest_of(f'login|{state}')}"
    shown = f'{{"provider":"acme","browser":"digest","nonce":"n","verifier":"{verifier}"'
    value = f'{shown},"next":null,"subject":null,"version":0,"login":null}}'.encode()
    assert await store.get(key) == [Record(key, value, None, clock() + 600)]


async def test_refusals_have_their_reasons(shop: Shop) -> None:
    """Each refusal of an identity has a constant text for the page, and a reason for the log."""
    ada, bob = await shop.house.user(), await shop.house.user("bob")
    await shop.finish(await shop.answer(user=ada, sub="u-9"))
    with pytest.raises(Forbidden) as error:
        await shop.finish(await shop.answer(user=bob, sub="u-9"))
    assert error.value.reason == "identity_taken"
    with pytest.raises(Unauthorized) as refused:
        await shop.enter(sub="u-1", email="mallory@example.com", email_verified=True)
    assert (refused.value.detail, refused.value.reason) == ("Signing in failed", "disabled")
    answer = await shop.answer(user=bob, sub="u-8")
    await shop.house.login.change(bob)
    with pytest.raises(Unauthorized) as refused:
        await shop.finish(answer)
    assert (refused.value.detail, refused.value.reason) == ("Signing in failed", "user_changed")
    with pytest.raises(Forbidden) as error:
        shop.sign_in.provider("another")
    assert error.value.reason == "unknown_provider"


@pytest.mark.parametrize("claims", [{}, VERIFIED])
async def test_two_first_sign_ins_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any]) -> None:
    """The second one is a refusal with its reason, and no link is published."""

    async def taken(_: object) -> bool:
        return False

    monkeypatch.setattr(shop.sign_in.identities, "add", taken)
    with pytest.raises(Unauthorized) as refused:
        await shop.enter(sub="u-1", **claims)
    assert refused.value.reason == "linked_meanwhile"
    assert shop.house.events == [Event("provider_failed", "login", 401, "linked_meanwhile")]


async def test_a_link_that_another_request_made(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity that is linked to another user meanwhile is refused as one that was linked before."""

    async def taken(_: object) -> bool:
        return False

    monkeypatch.setattr(shop.sign_in.identities, "add", taken)
    with pytest.raises(Forbidden) as error:
        await shop.finish(await shop.answer(user=await shop.house.user(), sub="u-9"))
    assert error.value.reason == "identity_taken"
    assert shop.happened() == []


@pytest.mark.parametrize(
    ("own", "claims", "verified"),
    [
        ("new@example.com", {"email": "new@example.com", "email_verified": True}, True),
        ("new@example.com", {"email": "new@example.com", "email_verified": False}, False),
        ("own@example.com", {"email": "new@example.com", "email_verified": True}, False),
        (None, {}, True),
    ],
)
async def test_the_address_of_a_user_of_the_application(
    clock: Clock, own: str | None, claims: dict[str, Any], *, verified: bool
) -> None:
    """Of a user whom the application makes, the address is verified if the provider vouches for that very one."""

    async def new_user(identity: Identity) -> User:
        return User(subject_id="u-1", username="newcomer", email=own)

    shop = Shop(MemoryStore(clock=clock), clock, provider={"vouches": True}, new_user=new_user)
    try:
        await shop.enter(sub="u-1", **claims)
    except Unauthorized:
        assert not verified
    assert (await shop.house.user("u-1")).email_verified is verified


async def test_the_additions_of_the_application(shop: Shop) -> None:
    """Its additions for an identity are in the claim `idp`; if it raises, there is no login."""
    seen: list[Identity] = []

    async def identified(identity: Identity) -> dict[str, Any]:
        seen.append(identity)
        return {"plan": "gold"}

    async def failing(_: Identity) -> dict[str, Any]:
        raise ServiceUnavailable

    shop.sign_in.on_identified(identified)
    outcome = complete(await shop.enter(sub="u-1"))
    assert outcome.kept["idp"] == {"provider": "acme", "iss": shop.issuer.url, "sub": "u-1", "plan": "gold"}
    assert [identity.subject for identity in seen] == ["u-1"]
    shop.sign_in.on_identified(failing)
    with pytest.raises(ServiceUnavailable):
        await shop.enter(sub="u-1")


async def test_the_log_of_an_error(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """The code of a provider's error is logged, its text and an odd code are not."""
    caplog.set_level(logging.WARNING)
    for error in ("access_denied", "é" * 9999):
        with pytest.raises(Unauthorized):
            await shop.finish({**await shop.answer(sub="u-1"), "error": error, "error_description": "a text"})
    first, second = [record.getMessage() for record in caplog.records if "refused a sign-in" in record.getMessage()]
    assert first == "a provider refused a sign-in: access_denied"
    assert len(second) < 200
    assert "é" not in second
    assert "a text" not in caplog.text


async def test_the_log_of_a_provider_that_fails(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that is unreachable is a 503 with its reason, and one line that names it."""
    caplog.set_level(logging.WARNING)
    with shop.issuer.outage(), pytest.raises(ServiceUnavailable) as error:
        await shop.start()
    assert error.value.reason == "provider_unreachable"
    url = f"{shop.issuer.url}/.well-known/openid-configuration"
    cause = f"{url} could not be fetched: ConnectionError"
    assert caplog.messages[-1] == f"the provider acme cannot be used: {cause}"
    own: Any = Failing()
    sign_in = ProviderLogin(shop.house.login, [own], callback=CALLBACK, registers=False)
    with pytest.raises(ServiceUnavailable) as error:
        await sign_in.start("own", browser=BROWSER)
    assert error.value.reason == "provider_failed"
    assert caplog.messages[-1] == "the provider own failed with KeyError"
    assert "a secret" not in caplog.text


class Failing:
    """A provider of the application's own that fails."""

    name = "own"

    async def authorization_url(self, _: object) -> str:
        """Fail."""
        raise KeyError("a secret")

    identify = authorization_url

    def vouches(self, _: object) -> bool:
        """Vouch for no address."""
        return False
