"""Sign in with a provider: state, code, ID token, the user whom an identity belongs to."""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable, Unauthorized
from fastapi_guard.exceptions import AuthError
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.providers import Identity, OpenIDProvider, ProviderLogin, StoredIdentities
from fastapi_guard.login.providers.links import LINK_FIRST, NO_ACCOUNT
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Store
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.login import request
from support.logins import House
from support.providers import BROWSER, CALLBACK, Shop, parameters_of

SESSION = {"sub": "ada", "sid": "s-1", "scope": "a:b"}
VERIFIED = {"email": "ada@example.com", "email_verified": True}


@pytest.fixture
def shop(clock: Clock) -> Shop:
    """Return an application that vouches for the addresses of its provider."""
    return Shop(MemoryStore(clock=clock), clock, provider={"vouches": True})


async def test_a_first_sign_in_registers_a_user(shop: Shop) -> None:
    """A new identity becomes a user with a random subject, who is the same one the next time."""
    first = (await shop.enter(sub="u-1", email="new@example.com", email_verified=True)).outcome
    again = (await shop.enter(sub="u-1", email="other@example.com")).outcome
    assert isinstance(first, Complete)
    assert isinstance(again, Complete)
    assert UUID(first.user.subject_id).version == 4
    assert first.user.subject_id == again.user.subject_id
    assert (first.user.email, first.user.password_hash) == ("new@example.com", None)
    assert first.claims["amr"] == ["fed"]
    assert first.kept["idp"] == {"provider": "acme", "iss": shop.issuer.url, "sub": "u-1"}
    assert shop.happened() == ["provider_succeeded:", "provider_succeeded:"]


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"email": "new@example.com"},
        {"email": "new@example.com", "email_verified": "false"},
        {"email": 7},
        {"email": "ada@example.com"},
    ],
)
async def test_an_address_that_is_not_verified(shop: Shop, claims: dict[str, Any]) -> None:
    """An unverified address, also that of a user, is not stored: the new user has a username that is made up."""
    outcome = (await shop.enter(sub="u-1", **claims)).outcome
    assert isinstance(outcome, Complete)
    assert UUID(outcome.user.subject_id).version == 4
    assert outcome.user.email is None
    assert re.fullmatch("acme-[0-9a-f]{12}", str(outcome.user.username))


async def test_a_vouched_address_is_matched(shop: Shop) -> None:
    """A verified address of a provider that vouches for it logs in the user who has it, and is linked."""
    outcome = (await shop.enter(sub="u-1", **VERIFIED)).outcome
    assert isinstance(outcome, Complete)
    assert outcome.user.subject_id == "ada"
    assert [found.label for found in await shop.sign_in.identities.of("ada")] == ["ada@example.com"]
    await shop.house.outbox.drain()
    assert [message.kind for message in shop.house.messages] == ["provider_linked"]


async def test_an_address_that_is_not_vouched_for(clock: Clock) -> None:
    """Without a provider that vouches, the verified address of a user is a refusal, and not another account."""
    shop = Shop(MemoryStore(clock=clock), clock)
    with pytest.raises(Forbidden, match="link the provider there"):
        await shop.enter(sub="u-1", **VERIFIED)
    assert not await shop.sign_in.identities.of("ada")


async def test_a_password_that_was_never_verified(clock: Clock) -> None:
    """A password of a user who never proved to own the address does not open the account of its owner."""
    shop = Shop(MemoryStore(clock=clock), clock, provider={"vouches": True})
    users = shop.house.users
    bob = await users.by_subject("bob")
    assert bob is not None
    await users.update(bob, User(**{**_fields(bob), "email_verified": False}))
    outcome = (await shop.enter(sub="u-1", email="bob@example.com", email_verified=True)).outcome
    assert isinstance(outcome, Complete)
    assert (outcome.user.email_verified, outcome.user.password_hash) == (True, None)


async def test_a_disabled_user(shop: Shop) -> None:
    """A disabled user cannot sign in, neither by a vouched address nor by a linked identity."""
    with pytest.raises(Unauthorized):
        await shop.enter(sub="u-1", email="mallory@example.com", email_verified=True)
    assert not await shop.sign_in.identities.of("mallory")
    outcome = (await shop.enter(sub="u-2", **VERIFIED)).outcome
    assert isinstance(outcome, Complete)
    await shop.house.login.change(outcome.user, disabled=True)
    with pytest.raises(Unauthorized):
        await shop.enter(sub="u-2", **VERIFIED)


async def test_a_removed_user(shop: Shop) -> None:
    """The identity of a user who was removed is free again."""
    first = (await shop.enter(sub="u-1")).outcome
    assert isinstance(first, Complete)
    await shop.house.users.remove(first.user.subject_id)
    second = (await shop.enter(sub="u-1")).outcome
    assert isinstance(second, Complete)
    assert second.user.subject_id != first.user.subject_id


async def test_the_gate(clock: Clock) -> None:
    """A user who comes from a provider needs the second factor that they have enrolled."""
    house = House(MemoryStore(clock=clock), clock)
    shop = Shop(MemoryStore(clock=clock), clock, second=house.kinds(), provider={"vouches": True})
    ada = await shop.house.users.by_subject("ada")
    assert ada is not None
    begun = await shop.house.login.enrolments.begin("recovery", ada, {}, binding="b")
    assert begun is not None
    outcome = (await shop.enter(sub="u-1", **VERIFIED)).outcome
    assert isinstance(outcome, Pending)
    assert outcome.factors == ["recovery"]


async def test_the_state_is_used_once(shop: Shop) -> None:
    """The same answer does not log in twice."""
    answer = await shop.answer(sub="u-1")
    await shop.finish(answer)
    with pytest.raises(Unauthorized, match="Signing in failed"):
        await shop.finish(answer)
    assert shop.happened()[-1] == "provider_failed:unknown_state"


async def test_two_answers_at_once(clock: Clock, store: Store) -> None:
    """Of two requests with one state, on each store, one logs in."""
    shop = Shop(store, clock)
    answer = await shop.answer(sub="u-1")
    outcomes = await asyncio.gather(*(shop.finish(answer) for _ in range(2)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["SignedIn", "Unauthorized"]


REFUSED: dict[str, tuple[Callable[[dict[str, str]], dict[str, str]], str]] = {
    "no state": (lambda answer: {**answer, "state": ""}, "unknown_state"),
    "another state": (lambda answer: {**answer, "state": "x" * 43}, "unknown_state"),
    "a truncated state": (lambda answer: {**answer, "state": answer["state"][:-1]}, "unknown_state"),
    "no code": (lambda answer: {**answer, "code": ""}, "no_code"),
    "the longest code": (lambda answer: {**answer, "code": "c" * 4096}, "code_refused"),
    "a long code": (lambda answer: {**answer, "code": "c" * 4097}, "no_code"),
    "another code": (lambda answer: {**answer, "code": "another"}, "code_refused"),
    "another issuer": (lambda answer: {**answer, "iss": "https://evil.example"}, "issuer_parameter"),
    "no issuer": (lambda answer: {key: answer[key] for key in ("state", "code")}, "issuer_parameter"),
    "an error": (lambda answer: {**answer, "error": "access_denied"}, "provider_refused"),
    "an error of any text": (lambda answer: {**answer, "error": "é" * 9999}, "provider_refused"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_answers_that_are_refused(shop: Shop, case: str) -> None:
    """An answer with a changed parameter is refused with one constant text."""
    change, reason = REFUSED[case]
    with pytest.raises(Unauthorized, match=r"^401: Signing in failed$"):
        await shop.finish(change(await shop.answer(sub="u-1")))
    assert shop.happened() == [f"provider_failed:{reason}"]


@pytest.mark.parametrize("browser", [None, "another browser", ""])
async def test_another_browser(shop: Shop, browser: str | None) -> None:
    """An answer works in the browser that began alone, and is not used up by another one."""
    answer = await shop.answer(sub="u-1")
    with pytest.raises(Unauthorized):
        await shop.finish(answer, browser=browser)
    assert (await shop.finish(answer)).outcome is not None


ID_TOKENS: dict[str, dict[str, Any]] = {
    "no nonce": {"nonce": None},
    "another nonce": {"nonce": "another"},
    "a nonce of another type": {"nonce": ["x"]},
    "another audience": {"aud": "another"},
    "several audiences": {"aud": ["shop", "another"]},
    "another authorized party": {"azp": "another"},
    "another issuer": {"iss": "https://evil.example"},
    "expired": {"exp": 1},
    "from the future": {"iat": 9_999_999_999},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a long subject": {"sub": "s" * 256},
}


REASONS = {
    "no nonce": "id_token_nonce",
    "another nonce": "id_token_nonce",
    "a nonce of another type": "id_token_nonce",
    "another audience": "id_token_audience",
    "several audiences": "id_token_authorized_party",
    "another authorized party": "id_token_azp",
    "another issuer": "id_token_issuer",
    "expired": "id_token_expired",
    "from the future": "id_token_iat_in_the_future",
    "no subject": "id_token_id_token_claims",
    "an empty subject": "id_token_sub",
    "a long subject": "provider_subject",
}


@pytest.mark.parametrize("case", ID_TOKENS)
async def test_id_tokens_that_are_refused(shop: Shop, case: str) -> None:
    """An ID token that is not for this sign-in logs no user in (OpenID Connect Core 3.1.3.7)."""
    url = await shop.start()
    answer = parameters_of(shop.issuer.authorize(url, **{"sub": "u-1", **ID_TOKENS[case]}))
    with pytest.raises(Unauthorized, match="Signing in failed"):
        await shop.finish(answer)
    assert shop.happened() == [f"provider_failed:{REASONS[case]}"]
    for control in ({"aud": ["shop", "another"], "azp": "shop"}, {"aud": ["shop"]}):
        assert (await shop.enter(sub="u-1", **control)).outcome is not None


async def test_a_mix_up_of_two_providers(clock: Clock) -> None:
    """An answer that one provider gave is not finished at another one."""
    other = FakeIssuer("https://other.example", audience="shop", clock=clock)
    second = OpenIDProvider("other", other.url, "shop", "secret", client=other.client, clock=clock)
    shop = Shop(MemoryStore(clock=clock), clock, more=[second])
    answer = await shop.answer(sub="u-1")
    with pytest.raises(Unauthorized):
        await shop.sign_in.finish("other", answer, browser=BROWSER, connection=None)
    assert "/token" not in other.requests
    assert (await shop.finish(answer)).outcome is not None


async def test_an_expired_attempt(shop: Shop, clock: Clock) -> None:
    """A sign-in has ten minutes."""
    answer = await shop.answer(sub="u-1")
    clock.now += 601
    with pytest.raises(Unauthorized):
        await shop.finish(answer)


async def test_a_provider_that_is_down(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that is unreachable, or answers nonsense, is a 503."""
    caplog.set_level(logging.WARNING)
    with shop.issuer.outage(), pytest.raises(ServiceUnavailable):
        await shop.start()
    answer = await shop.answer(sub="u-1")
    with shop.issuer.answering("/token", b"<html>"), pytest.raises(ServiceUnavailable):
        await shop.finish(answer)
    answer = await shop.answer(sub="u-1")
    with shop.issuer.answering("/token", b'{"access_token":"x"}'), pytest.raises(Unauthorized):
        await shop.finish(answer)
    assert "secret" not in caplog.text


async def test_link_and_unlink(shop: Shop) -> None:
    """A user who is logged in links an identity of any address, and unlinks it."""
    ada = await shop.house.login.change(await shop.house.user())
    linked = await shop.finish(await shop.answer(user=ada, sub="u-9"))
    assert (linked.outcome, linked.identity.subject) == (None, "u-9")
    await shop.finish(await shop.answer(user=ada, sub="u-9"))
    [identity] = await shop.sign_in.identities.of("ada")
    outcome = (await shop.enter(sub="u-9")).outcome
    assert isinstance(outcome, Complete)
    assert outcome.user.subject_id == "ada"
    assert not await shop.sign_in.unlink(outcome.user, "another")
    assert await shop.sign_in.unlink(outcome.user, identity.id)
    assert not await shop.sign_in.identities.of("ada")
    await shop.house.outbox.drain()
    assert [message.kind for message in shop.house.messages] == ["provider_linked", "provider_unlinked"]


async def test_two_logins_on_one_store(shop: Shop) -> None:
    """Identities and attempts of one Login are unknown to another one on the same store."""
    staff = Login(shop.house.users, shop.house.store, name="staff", clock=shop.house.clock)
    entrance = ProviderLogin(staff, [shop.provider], callback=CALLBACK, on_event=shop.house.events.append)
    answer = await shop.answer(sub="u-9")
    with pytest.raises(Unauthorized):
        await entrance.finish("acme", answer, browser=BROWSER, connection=request())
    assert shop.happened() == ["provider_failed:unknown_state"]
    await shop.finish(await shop.answer(user=await shop.house.user(), sub="u-9"))
    assert await shop.sign_in.identities.of("ada")
    assert not await entrance.identities.of("ada")


async def test_identities_in_a_place_of_their_own(clock: Clock) -> None:
    """Identities that the application names are used, and no others."""
    store = MemoryStore(clock=clock)
    shop = Shop(store, clock, identities=StoredIdentities(store, name="elsewhere"))
    await shop.finish(await shop.answer(user=await shop.house.user(), sub="u-9"))
    assert await StoredIdentities(store, name="elsewhere").of("ada")
    assert not await StoredIdentities(store).of("ada")


async def test_without_messages(clock: Clock) -> None:
    """A link is an event alone if the Login sends no messages."""
    shop = Shop(MemoryStore(clock=clock), clock)
    shop.house.login.outbox = None
    ada = await shop.house.users.by_subject("ada")
    await shop.finish(await shop.answer(user=ada, sub="u-9"))
    assert shop.happened() == ["provider_linked:"]
    assert shop.house.messages == []


@pytest.mark.parametrize(
    ("claims", "is_valid", "links"),
    [(SESSION, True, True), (SESSION, False, False), (SESSION, None, True), (None, False, True)],
)
async def test_a_link_of_a_login_that_has_ended(
    shop: Shop, claims: dict[str, Any] | None, is_valid: bool | None, *, links: bool
) -> None:
    """Nothing is linked after a logout: what names the login is checked, where both it and a check are there."""
    user, seen = await shop.house.user(), list[Any]()

    async def still_valid(own: Any) -> bool:
        seen.append(own)
        return bool(is_valid)

    url = await shop.sign_in.start("acme", browser=BROWSER, user=user, claims=claims)
    answer = parameters_of(shop.issuer.authorize(url, sub="u-9"))
    check = None if is_valid is None else still_valid
    finishing = shop.sign_in.finish("acme", answer, browser=BROWSER, connection=request(), still_valid=check)
    if links:
        assert (await finishing).outcome is None
    else:
        with pytest.raises(Unauthorized) as refusal:
            await finishing
        assert refusal.value.reason == "logged_out"
    assert len(await shop.sign_in.identities.of("ada")) == links
    assert seen == ([] if claims is None or check is None else [{"sub": "ada", "sid": "s-1"}])


@pytest.mark.parametrize("how", ["removed", "disabled"])
async def test_a_link_to_a_user_who_is_gone(shop: Shop, how: str) -> None:
    """Nothing is linked to a user who was removed since the attempt began, or disabled without a new version."""
    ada = await shop.house.user()
    answer = await shop.answer(user=ada, sub="u-9")
    if how == "removed":
        del shop.house.users._users["ada"]
    else:
        assert await shop.house.users.update(ada, replace(ada, disabled=True))
    with pytest.raises(Unauthorized) as refused:
        await shop.finish(answer)
    assert refused.value.reason == "user_changed"
    assert not await shop.sign_in.identities.of("ada")


async def test_an_identity_of_another_user(shop: Shop) -> None:
    """An identity belongs to one user."""
    ada, bob = [await shop.house.users.by_subject(name) for name in ("ada", "bob")]
    await shop.finish(await shop.answer(user=ada, sub="u-9"))
    with pytest.raises(Forbidden, match="belongs to another account"):
        await shop.finish(await shop.answer(user=bob, sub="u-9"))


async def test_a_user_who_changed_while_linking(shop: Shop) -> None:
    """A link that was begun before a change of the account is not made after it."""
    ada = await shop.house.users.by_subject("ada")
    assert ada is not None
    answer = await shop.answer(user=ada, sub="u-9")
    await shop.house.login.change(ada)
    with pytest.raises(Unauthorized):
        await shop.finish(answer)
    assert not await shop.sign_in.identities.of("ada")


async def test_the_last_way_in(shop: Shop) -> None:
    """A user without a password keeps the last identity."""
    outcome = (await shop.enter(sub="u-1")).outcome
    assert isinstance(outcome, Complete)
    [identity] = await shop.sign_in.identities.of(outcome.user.subject_id)
    with pytest.raises(Forbidden, match="only way to log in"):
        await shop.sign_in.unlink(outcome.user, identity.id)


async def test_unlinked_by_another_request(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two requests that unlink one identity, one receives ``True``."""
    ada = await shop.house.users.by_subject("ada")
    assert ada is not None
    await shop.finish(await shop.answer(user=ada, sub="u-9"))
    [identity] = await shop.sign_in.identities.of("ada")

    async def gone(_: str) -> bool:
        return False

    monkeypatch.setattr(shop.sign_in.identities, "remove", gone)
    assert not await shop.sign_in.unlink(ada, identity.id)


@pytest.mark.parametrize("who", ["registered", "matched"])
async def test_an_identity_that_is_linked_meanwhile(shop: Shop, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """Of two first sign-ins at once one is refused, and leaves no user behind."""

    async def taken(_: object) -> bool:
        return False

    monkeypatch.setattr(shop.sign_in.identities, "add", taken)
    before = len(shop.house.users._users)
    with pytest.raises(Unauthorized):
        await shop.enter(sub="u-1", **({} if who == "registered" else VERIFIED))
    assert len(shop.house.users._users) == before


@pytest.mark.parametrize(
    ("options", "reason", "detail"),
    [
        ({"registers": False}, "no_account", NO_ACCOUNT),
        ({"new_user": lambda identity: None}, "no_account", NO_ACCOUNT),
        ({"new_user": lambda identity: User(subject_id="ada", username="another")}, "name_taken", LINK_FIRST),
    ],
    ids=["closed", "not wanted", "taken"],
)
async def test_no_new_user(clock: Clock, options: dict[str, Any], reason: str, detail: str) -> None:
    """The application decides who registers."""
    shop = Shop(MemoryStore(clock=clock), clock, **options)
    with pytest.raises(Forbidden) as refusal:
        await shop.enter(sub="u-1")
    assert (refusal.value.reason, refusal.value.detail) == (reason, detail)


async def test_a_new_user_of_the_application(clock: Clock) -> None:
    """The application makes the user; with an address that the provider does not vouch for it cannot log in."""

    async def new_user(identity: Identity) -> User:
        return User(subject_id=identity.subject, username="carol", email=identity.email, scopes=["a:b"])

    shop = Shop(MemoryStore(clock=clock), clock, new_user=new_user)
    outcome = (await shop.enter(sub="u-1", name="Carol")).outcome
    assert isinstance(outcome, Complete)
    assert outcome.claims["scope"] == "a:b"
    assert [found.label for found in await shop.sign_in.identities.of("u-1")] == ["Carol"]
    await shop.house.users.remove("u-1")
    with pytest.raises(Unauthorized):
        await shop.enter(sub="u-2", email="carol@example.com", email_verified=True)


class Own:
    """A provider of the application's own that fails."""

    name, response_mode = "own", "query"

    def __init__(self, error: Exception) -> None:
        """Raise `error`."""
        self.error = error

    async def authorization_url(self, _: object) -> str:
        """Fail."""
        raise self.error

    async def identify(self, exchange: object, *, issuer: str | None) -> Identity:
        """Fail."""
        raise self.error

    def vouches(self, identity: Identity) -> bool:
        """Never."""
        return False


@pytest.mark.parametrize(("error", "status"), [(KeyError("a secret"), 503), (Unauthorized(), 401), (Forbidden(), 403)])
async def test_a_provider_of_the_application(
    clock: Clock, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a provider raises, other than a refusal, is a 503 without its text."""
    own: Any = Own(error)
    shop = Shop(MemoryStore(clock=clock), clock, more=[own])
    with pytest.raises(AuthError) as refusal:
        await shop.sign_in.start("own", browser=BROWSER)
    assert refusal.value.status_code == status
    assert "a secret" not in caplog.text
    assert not own.vouches(Identity(issuer="i", subject="s"))
    with pytest.raises(type(error)):
        await own.identify(None, issuer=None)


class Signing(Own):
    """A provider of the application's own, whose state and answer the test has."""

    def __init__(self, identity: Any, vouches: Callable[[Identity], Any]) -> None:
        """Identify every user as `identity`."""
        super().__init__(KeyError())
        self.identity, self.vouching, self.state = identity, vouches, ""

    async def authorization_url(self, request: Any) -> str:
        """Keep the state."""
        self.state = request.state
        return "https://own.example/authorize"

    async def identify(self, exchange: object, *, issuer: str | None) -> Any:
        """Return the identity."""
        return self.identity

    def vouches(self, identity: Identity) -> Any:
        """Return what the test wants."""
        return self.vouching(identity)

    async def enter(self, shop: Shop) -> Any:
        """Sign in."""
        await shop.sign_in.start("own", browser=BROWSER)
        parameters = {"state": self.state, "code": "a code"}
        return (await shop.sign_in.finish("own", parameters, browser=BROWSER, connection=request())).outcome


def failing(_: object) -> Any:
    """Fail."""
    raise KeyError("hd")


async def not_now(_: object) -> Any:
    """Be no."""
    return False


async def now(_: object) -> Any:
    """Be yes."""
    return True


ADA = Identity(issuer="https://own.example", subject="u-1", **VERIFIED)
NOBODY = Identity(issuer="https://own.example", subject="u-1")


@pytest.mark.parametrize(
    ("vouches", "reason"),
    [
        (lambda identity: "no", "link_first"),
        (lambda identity: 1, "link_first"),
        (lambda identity: None, "link_first"),
        (not_now, "link_first"),
        (failing, "vouches"),
    ],
    ids=["a text", "a number", "nothing", "a coroutine", "an error"],
)
async def test_an_odd_answer_about_an_address(clock: Clock, vouches: Callable[[Identity], Any], reason: str) -> None:
    """Nothing but ``True`` vouches for an address, and a failure is a 503."""
    own: Any = Signing(ADA, vouches)
    with pytest.raises(AuthError) as refusal:
        await own.enter(Shop(MemoryStore(clock=clock), clock, more=[own]))
    assert refusal.value.reason == reason
    for yes in (lambda identity: True, now):
        own = Signing(ADA, yes)
        assert (await own.enter(Shop(MemoryStore(clock=clock), clock, more=[own]))).user.subject_id == "ada"


async def test_what_is_not_an_identity(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A provider of the application's own that returns something else is a 503, and the log names it."""
    own: Any = Signing({"sub": "u-1"}, not_now)
    with pytest.raises(ServiceUnavailable) as error:
        await own.enter(Shop(MemoryStore(clock=clock), clock, more=[own]))
    assert error.value.reason == "provider_failed"
    assert "identify of the provider own returned dict, not an Identity" in caplog.messages

    class Careless(Signing):
        async def identify(self, exchange: object, *, issuer: str | None) -> Any:
            return Identity(issuer="https://own.example", subject=self.identity.get("sub"))

    own = Careless({}, not_now)
    with pytest.raises(ServiceUnavailable):
        await own.enter(Shop(MemoryStore(clock=clock), clock, more=[own]))
    assert "the provider own cannot be used: subject is text of 1 to 255" in caplog.text


@pytest.mark.parametrize(
    ("new_user", "reason", "log"),
    [
        (lambda identity: False, "no_account", []),
        (not_now, "no_account", []),
        (lambda identity: True, "new_user", ["new_user returned bool, not a User or None"]),
        (lambda identity: {"sub": "u"}, "new_user", ["new_user returned dict, not a User or None"]),
        (failing, "new_user", ["new_user failed with KeyError"]),
    ],
    ids=["no", "no, later", "yes", "claims", "an error"],
)
async def test_an_odd_new_user(
    clock: Clock, new_user: Callable[[Identity], Any], reason: str, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """``False`` is a no, as for every function of the application; anything else that is not a user is a 503."""
    own: Any = Signing(NOBODY, not_now)
    with pytest.raises(AuthError) as refusal:
        await own.enter(Shop(MemoryStore(clock=clock), clock, more=[own], new_user=new_user))
    assert refusal.value.reason == reason
    assert [message for message in caplog.messages if message.startswith("new_user")] == log


async def test_an_unknown_provider(shop: Shop) -> None:
    """A provider that is not there is a refusal."""
    with pytest.raises(Forbidden):
        await shop.sign_in.start("another", browser=BROWSER)


class ReadOnly:
    """Users without a method to add one."""

    async def by_login(self, login: str) -> None:
        """Return no user."""

    by_subject = set_password_hash = update = by_login


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"providers": []}, "a list of providers"),
        ({"providers": [1, 1]}, "a name of its own"),
        ({"names": "A"}, "1 to 32 characters"),
        ({"callback": "https://shop.example/callback"}, "{provider} in it, once"),
        ({"callback": "http://shop.example/{provider}"}, "https"),
        ({"users": ReadOnly()}, "registers=False"),
    ],
)
async def test_a_wrong_configuration(clock: Clock, changed: dict[str, Any], message: str) -> None:
    """A wrong configuration is refused with the remedy."""
    shop = Shop(MemoryStore(clock=clock), clock)
    shop.provider.name = changed.get("names", "acme")
    providers = [shop.provider for _ in changed.get("providers", [1])]
    shop.house.login.users = changed.get("users", shop.house.login.users)
    assert await ReadOnly().by_login("ada") is None
    with pytest.raises(ConfigurationError, match=message):
        ProviderLogin(shop.house.login, providers, callback=changed.get("callback", CALLBACK))


async def test_the_redirect_uri(shop: Shop) -> None:
    """Each provider has a redirect URI of its own, and the authorization request has PKCE."""
    assert shop.sign_in.redirect_uri("acme") == "https://shop.example/providers/acme/callback"
    query = parameters_of(await shop.start())
    assert query["code_challenge_method"] == "S256"
    assert (query["response_type"], query["client_id"], query["scope"]) == ("code", "shop", "openid email profile")
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3


async def test_the_throttle(shop: Shop) -> None:
    """Answers count for their address, like passwords."""
    for _ in range(50):
        with pytest.raises(Unauthorized):
            await shop.finish({"state": "x"})
    with pytest.raises(AuthError) as refusal:
        await shop.finish({"state": "x"})
    assert refusal.value.status_code == 429
    await shop.sign_in.finish("acme", await shop.answer(sub="u"), browser=BROWSER, connection=request("192.0.2.9"))


def _fields(user: User) -> dict[str, Any]:
    return {name: getattr(user, name) for name in User.__dataclass_fields__}


def test_a_function_that_no_identity_reaches(clock: Clock) -> None:
    """A function that makes users is an error when constructed if users do not register."""
    with pytest.raises(ConfigurationError, match="new_user makes a user who registers: leave it out"):
        Shop(MemoryStore(clock=clock), clock, registers=False, new_user=lambda identity: None)
