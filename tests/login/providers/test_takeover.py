"""Accounts whose address was never verified, identities that are linked to them, and first sign-ins at once."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import Forbidden, Unauthorized
from fastapi_guard.login.login import Complete, Pending
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.providers import Identity, OpenIDProvider, SignedIn
from fastapi_guard.login.providers.identities import LinkedIdentity
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.login import request
from support.providers import BROWSER, Shop, parameters_of

VICTIM = {"sub": "v-1", "email": "victim@example.com", "email_verified": True}


class Attack:
    """An application that stores addresses that are not vouched for, and a provider at which a user can claim any."""

    def __init__(self, clock: Clock) -> None:
        """Build the application."""
        self.issuer = FakeIssuer("https://other.example", audience="shop", clock=clock)
        other = OpenIDProvider("other", self.issuer.url, "shop", "a secret", client=self.issuer.client, clock=clock)
        self.shop = Shop(
            MemoryStore(clock=clock), clock, provider={"vouches": True}, more=[other], new_user=self._new_user
        )

    async def enter(self) -> SignedIn:
        """Sign in as the attacker, with the address of the victim."""
        sign_in = self.shop.sign_in
        url = self.issuer.authorize(await sign_in.start("other", browser=BROWSER), sub="a-1", email=VICTIM["email"])
        return await sign_in.finish("other", parameters_of(url), browser=BROWSER, connection=request())

    async def linked(self) -> list[str]:
        """Return the subjects at providers that can log in to the account."""
        return [identity.provider_subject for identity in await self.shop.sign_in.identities.of("made")]

    def before_the_link(self, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Awaitable[object]]) -> None:
        """Do something before the next identity is stored."""
        before(self.shop, monkeypatch, then)

    @staticmethod
    def _new_user(identity: Identity) -> User:
        return User(subject_id="made", username="made", email=identity.email)


def before(shop: Shop, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Awaitable[object]]) -> None:
    """Do something once, before an identity is stored."""
    identities: Any = shop.sign_in.identities
    add = identities.add

    async def later(identity: object) -> Any:
        monkeypatch.setattr(identities, "add", add)
        await then()
        return await add(identity)

    monkeypatch.setattr(identities, "add", later)


async def test_an_identity_that_was_linked_before(clock: Clock) -> None:
    """The owner of an address gets the account that has it, and the identity that made the account does not open it."""
    attack = Attack(clock)
    with pytest.raises(Unauthorized):
        await attack.enter()
    assert await attack.linked() == ["a-1"]
    outcome = (await attack.shop.enter(**VICTIM)).outcome
    assert isinstance(outcome, Complete)
    assert (outcome.user.subject_id, outcome.user.email_verified) == ("made", True)
    assert await attack.linked() == ["v-1"]
    assert "provider_unlinked" in attack.shop.house.names()
    with pytest.raises(Forbidden):
        await attack.enter()


async def test_a_password_by_mail(clock: Clock) -> None:
    """A new password of the owner of an address is a takeover too; that of a verified user unlinks nothing."""
    attack = Attack(clock)
    with pytest.raises(Unauthorized):
        await attack.enter()
    login = attack.shop.house.login
    made = await attack.shop.house.user("made")
    verified = await login.change(made, by_mail=True, password_hash="$argon2id$", email_verified=True)
    assert await attack.linked() == []
    await attack.shop.finish(await attack.shop.answer(user=verified, sub="own"))
    await login.change(verified, by_mail=True, password_hash="$argon2id$", email_verified=True)
    assert await attack.linked() == ["own"]


async def test_a_verification_by_the_user(clock: Clock) -> None:
    """An address that the user verifies, without a new password, leaves the identities of the user as they are."""
    attack = Attack(clock)
    with pytest.raises(Unauthorized):
        await attack.enter()
    await attack.shop.house.login.change(await attack.shop.house.user("made"), email_verified=True)
    assert isinstance((await attack.enter()).outcome, Complete)


async def test_an_account_that_is_taken_over_meanwhile(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity that would be linked after the takeover is not, and the account stays."""
    attack = Attack(clock)
    attack.before_the_link(monkeypatch, lambda: attack.shop.enter(**VICTIM))
    with pytest.raises(Unauthorized) as refusal:
        await attack.enter()
    assert refusal.value.reason == "user_changed"
    assert await attack.linked() == ["v-1"]
    assert (await attack.shop.house.user("made")).email_verified


async def test_a_link_during_the_takeover(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity that is linked right before the account changes opens it no longer either."""
    attack = Attack(clock)
    users: Any = attack.shop.house.users
    with pytest.raises(Unauthorized):
        await attack.enter()
    made = await attack.shop.house.user("made")
    answer = await attack.shop.answer(browser="another", user=made, sub="a-2")
    update = users.update

    async def later(*arguments: User) -> Any:
        monkeypatch.setattr(users, "update", update)
        await attack.shop.finish(answer, browser="another")
        return await update(*arguments)

    monkeypatch.setattr(users, "update", later)
    await attack.shop.enter(**VICTIM)
    assert await attack.linked() == ["v-1"]


async def test_a_user_who_changes_while_linking(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the credentials while an identity is stored ends the attempt, as one before does."""
    shop = Shop(MemoryStore(clock=clock), clock)
    ada = await shop.house.user()
    answer = await shop.answer(user=ada, sub="u-9")
    before(shop, monkeypatch, lambda: shop.house.login.change(ada))
    with pytest.raises(Unauthorized) as refusal:
        await shop.finish(answer)
    assert refusal.value.reason == "user_changed"
    assert await shop.sign_in.identities.of("ada") == []


async def test_a_takeover_of_a_user_who_changes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who changes during the takeover is a refusal, and no error."""
    shop = Shop(MemoryStore(clock=clock), clock, provider={"vouches": True})
    users: Any = shop.house.users
    bob = await shop.house.user("bob")
    await users.update(bob, replace(bob, email_verified=False))

    async def changed(*_: User) -> bool:
        return False

    monkeypatch.setattr(users, "update", changed)
    with pytest.raises(Unauthorized) as refusal:
        await shop.enter(sub="u-1", email="bob@example.com", email_verified=True)
    assert refusal.value.reason == "user_changed"


async def test_first_sign_ins_with_one_address(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two first sign-ins of one identity both log in the user whom one of them made, and who stays."""
    shop = Shop(MemoryStore(clock=clock), clock, provider={"vouches": True})
    answers = [await shop.answer(**VICTIM) for _ in range(2)]
    outcomes: list[Any] = []

    async def second() -> None:
        outcomes.append((await shop.finish(answers[1])).outcome)

    before(shop, monkeypatch, second)
    outcomes.append((await shop.finish(answers[0])).outcome)
    [subject] = {outcome.user.subject_id for outcome in outcomes}
    assert (await shop.house.user(subject)).email == VICTIM["email"]


async def about_to_sign_in(clock: Clock) -> tuple[Shop, LinkedIdentity, dict[str, str]]:
    """Return a shop, the identity of `ada` there, and the answer of its provider to a sign-in."""
    shop = Shop(MemoryStore(clock=clock), clock)
    await shop.finish(await shop.answer(user=await shop.house.user(), sub="u-9"))
    [linked] = await shop.sign_in.identities.of("ada")
    return shop, linked, await shop.answer(sub="u-9")


async def test_an_identity_that_is_unlinked_meanwhile(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign-in that found the identity before it was unlinked logs in no user afterwards."""
    shop, linked, answer = await about_to_sign_in(clock)
    identities: Any = shop.sign_in.identities
    get = identities.get

    async def unlinked(wanted: str) -> Any:
        monkeypatch.setattr(identities, "get", get)
        known = await get(wanted)
        assert await shop.sign_in.unlink(await shop.house.user(), linked.id)
        return known

    monkeypatch.setattr(identities, "get", unlinked)
    with pytest.raises(Unauthorized) as refusal:
        await shop.finish(answer)
    assert refusal.value.reason == "unlinked_meanwhile"


async def test_a_sign_in_during_the_unlinking(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign-in that began right before the identity is removed does not complete afterwards."""
    shop, linked, answer = await about_to_sign_in(clock)
    identities: Any = shop.sign_in.identities
    remove = identities.remove
    outcomes: list[Any] = []

    async def later(identity: str) -> Any:
        monkeypatch.setattr(identities, "remove", remove)
        outcomes.append((await shop.finish(answer)).outcome)
        return await remove(identity)

    monkeypatch.setattr(identities, "remove", later)
    assert await shop.sign_in.unlink(await shop.house.user(), linked.id)
    [outcome] = outcomes
    with pytest.raises(Unauthorized):
        await outcome.confirm("a session")


@pytest.mark.parametrize("removes", [False, True])
async def test_a_passkey_of_a_user_with_another_address(clock: Clock, *, removes: bool) -> None:
    """A passkey stays where an application stores another address that is not verified, unless it removes it."""
    passkeys = Passkeys(rp_id="shop.example", origin="https://shop.example")
    shop = Shop(MemoryStore(clock=clock), clock, provider={"vouches": True}, second=[passkeys])
    login, key = shop.house.login, await shop.house.enrol("passkey")
    if removes:
        assert await login.enrolments.reset(await shop.house.user()) == 1
    await login.change(await shop.house.user(), email=VICTIM["email"], email_verified=False)

    async def with_passkey() -> Any:
        options = await login.offer("passkey", binding="b", connection=request())
        credential = key.get(options["publicKey"])
        return await login.with_first("passkey", {"credential": credential}, binding="b", connection=request())

    with pytest.raises(Unauthorized):
        await with_passkey()
    outcome = (await shop.enter(**VICTIM)).outcome
    assert isinstance(outcome, Complete if removes else Pending)
    if removes:
        with pytest.raises(Unauthorized):
            await with_passkey()
    else:
        assert isinstance(await with_passkey(), Complete)
