"""Each flow of an account is interrupted at each call of the store and of the users, as those of a login are."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from fastapi_guard import AuthError, Forbidden, ServiceUnavailable, Unauthorized
from fastapi_guard.exceptions import Conflict
from fastapi_guard.login.accounts import MailedProof, NewAccount
from fastapi_guard.login.outcome import Complete
from fastapi_guard.login.pending import Pending
from fastapi_guard.login.providers import Identity, OpenIDProvider, ProviderLogin
from fastapi_guard.login.users import User
from fastapi_guard.testing.issuer import FakeIssuer
from login.test_every_call import (
    OTHER_PASSWORD,
    OUTAGES,
    World,
    change,
    change_password,
    disable,
    end_all,
    named,
    remove,
    reset_password,
)
from support.accounts import NEW_PASSWORD
from support.login import PASSWORD, request
from support.providers import BROWSER, CALLBACK, parameters_of

ADA, NEW = "ada@example.com", "new@example.com"


def by_name(identity: Identity) -> User:
    """Return a new user of an application, whose names are those at the provider."""
    return User(subject_id=f"user-{identity.subject}", username=f"name-{identity.subject}")


class Shop(World):
    """A shop whose users sign in with a provider too."""

    def __init__(self, new_user: Callable[[Identity], User] | None = None) -> None:
        """Build it; new users are as ``new_user`` returns them."""
        super().__init__()
        self.issuer = FakeIssuer(audience="shop", clock=self.clock)
        options: dict[str, Any] = {"client": self.issuer.client, "clock": self.clock, "vouches": True}
        provider = OpenIDProvider("acme", self.issuer.url, "shop", "a secret of the client", **options)
        self.sign_in = ProviderLogin(self.login, [provider], callback=CALLBACK, new_user=new_user)

    async def came_back(self, user: User | None = None, **claims: Any) -> dict[str, str]:
        """Return the parameters of a browser that comes back from the provider."""
        url = await self.sign_in.start("acme", browser=BROWSER, user=user)
        return parameters_of(self.issuer.authorize(url, **{"sub": "u-1", **claims}))

    async def finish(self, parameters: dict[str, str]) -> Any:
        """Sign in."""
        return await self.sign_in.finish("acme", parameters, browser=BROWSER, connection=request())

    async def signed_in(self, **claims: Any) -> str:
        """Sign in, and return the subject of the session."""
        outcome = (await self.finish(await self.came_back(**claims))).outcome
        cookie = await self.session(outcome)
        return str((await self.sessions.verify(cookie))["sub"])

    async def logs_in(self, name: str, password: str) -> bool:
        """Return whether the password is right, and the user may log in."""
        try:
            return isinstance(await self.login.with_password(name, password, connection=request()), Complete | Pending)
        except Unauthorized:
            return False

    async def aclose(self) -> None:
        """Wait for what runs after the answers."""
        await super().aclose()
        await self.shop.outbox.drain()


@dataclass(frozen=True)
class Flow:
    """A flow that is prepared.

    Attributes:
        run: The request that is interrupted.
        again: What the user does after a 503.
        works: Whether the user has what the flow is for.
    """

    run: Callable[[], Awaitable[Any]]
    again: Callable[[], Awaitable[Any]]
    works: Callable[[], Awaitable[bool]]


async def to_change_the_password(shop: Shop) -> Flow:
    """Change the password."""
    await shop.logged_in()
    claims = await shop.sessions.verify(shop.cookie)

    async def run() -> None:
        ada = await shop.ada()
        await shop.accounts.passwords.change(ada, NEW_PASSWORD, current=PASSWORD, claims=claims, connection=None)

    async def again() -> None:
        # It may have been changed: then the former one is wrong.
        with suppress(Forbidden):
            await run()

    return Flow(run, again, lambda: shop.logs_in(ADA, NEW_PASSWORD))


async def to_reset_the_password(shop: Shop) -> Flow:
    """Set a password by a mailed link."""
    await shop.logged_in()

    async def linked() -> MailedProof:
        await shop.accounts.passwords.forgot(ADA, browser=None, connection=None)
        return await shop.shop.proof("reset_password")

    proof = await linked()

    async def again() -> None:
        await shop.accounts.passwords.reset(await linked(), NEW_PASSWORD, connection=None)

    async def works() -> bool:
        # The user who has the mailbox may be another one than the user who is logged in.
        ended = not await shop.works(shop.cookie) and not await shop.works(shop.pair)
        return await shop.logs_in(ADA, NEW_PASSWORD) and ended

    return Flow(lambda: shop.accounts.passwords.reset(proof, NEW_PASSWORD, connection=None), again, works)


async def to_change_the_address(shop: Shop) -> Flow:
    """Confirm a new address."""

    async def linked() -> MailedProof:
        ada = await shop.ada()
        await shop.accounts.addresses.request(ada, NEW, password=PASSWORD, claims={}, connection=None)
        return await shop.shop.proof("change_address")

    proof = await linked()

    async def again() -> None:
        if (await shop.ada()).email != NEW:
            await shop.accounts.addresses.confirm(await shop.ada(), await linked(), connection=None)

    async def run() -> User:
        return await shop.accounts.addresses.confirm(await shop.ada(), proof, connection=None)

    return Flow(run, again, lambda: shop.logs_in(NEW, PASSWORD))


async def to_register(shop: Shop) -> Flow:
    """Verify the address of a new account."""
    account = NewAccount(email=NEW, password=NEW_PASSWORD, username="newcomer")

    async def linked() -> MailedProof:
        await shop.accounts.registration.register(account, browser="b", connection=None)
        return await shop.shop.proof("verify_address", "b")

    proof = await linked()

    async def again() -> None:
        # The name is taken where the account was added.
        with suppress(Conflict):
            await shop.accounts.registration.verify(await linked(), connection=None)

    return Flow(
        lambda: shop.accounts.registration.verify(proof, connection=None),
        again,
        lambda: shop.logs_in("newcomer", NEW_PASSWORD),
    )


async def signing_in(shop: Shop, subject: str | None = None, **claims: Any) -> Flow:
    """Return a sign-in that leads to a subject, or to a new user."""
    parameters = await shop.came_back(**claims)
    results: list[str] = []

    async def run() -> None:
        results.append(await shop.session((await shop.finish(parameters)).outcome))

    async def again() -> None:
        results.append(await shop.session((await shop.finish(await shop.came_back(**claims))).outcome))

    async def works() -> bool:
        if not results or not await shop.works(results[-1]):
            return False
        found = (await shop.sessions.verify(results[-1]))["sub"]
        return subject in (None, found) and len(await shop.sign_in.identities.of(found)) == 1

    return Flow(run, again, works)


async def to_sign_in(shop: Shop) -> Flow:
    """Sign in with an identity that is linked."""
    assert await shop.signed_in(email=ADA, email_verified=True) == "ada"
    return await signing_in(shop, "ada")


async def to_sign_in_by_address(shop: Shop) -> Flow:
    """Sign in with an identity that is linked by its address."""
    return await signing_in(shop, "ada", email=ADA, email_verified=True)


async def to_sign_up(shop: Shop) -> Flow:
    """Sign in with an identity that becomes a user."""
    return await signing_in(shop)


async def to_link(shop: Shop) -> Flow:
    """Link an identity to an account."""
    parameters = await shop.came_back(await shop.ada())

    async def again() -> None:
        await shop.finish(await shop.came_back(await shop.ada()))

    async def works() -> bool:
        try:
            return await shop.signed_in() == "ada"
        except AuthError:
            return False

    return Flow(lambda: shop.finish(parameters), again, works)


async def to_unlink(shop: Shop) -> Flow:
    """Unlink an identity."""
    assert await shop.signed_in(email=ADA, email_verified=True) == "ada"
    [linked] = await shop.sign_in.identities.of("ada")

    async def run() -> None:
        await shop.sign_in.unlink(await shop.ada(), linked.id)

    async def works() -> bool:
        return await shop.signed_in() != "ada"

    return Flow(run, run, works)


FLOWS: list[Callable[[Shop], Awaitable[Flow]]] = [
    to_change_the_password,
    to_reset_the_password,
    to_change_the_address,
    to_register,
    to_sign_in,
    to_sign_in_by_address,
    to_sign_up,
    to_link,
    to_unlink,
]


@OUTAGES
@pytest.mark.parametrize("prepare", FLOWS, ids=named)
async def test_an_outage_is_a_503_or_a_success(
    prepare: Callable[[Shop], Awaitable[Flow]], fails: int, *, done: bool
) -> None:
    """A failing store, or failing users, lead to no half result, and the user can go on after the outage."""
    at, reached = 0, True
    while reached:
        at += 1
        shop = Shop()
        flow = await prepare(shop)
        shop.turns.at, shop.turns.fails, shop.turns.done = at, fails, done
        try:
            await shop.turns.run(flow.run)
        except ServiceUnavailable:
            await flow.again()
        assert await flow.works(), at
        await shop.aclose()
        reached = shop.turns.count >= at


# With the number of the first calls before which the flow has not begun: what ends then ends nothing of it.
OF_ADA = {
    to_change_the_password: 1,
    to_reset_the_password: 1,
    to_sign_in: 4,
    to_sign_in_by_address: 4,
    to_link: 1,
}
ENDS = [disable, remove, change_password, reset_password, change, end_all]
OF_A_PASSWORD = (to_change_the_password, to_reset_the_password)
# What ends everything that was begun does not keep a password from being set. A user changes the current password.
RACES = [
    (flow, end) for flow in OF_ADA for end in ENDS if flow not in OF_A_PASSWORD or end not in (change_password, end_all)
]


@pytest.mark.parametrize("done", [False, True], ids=["before the work", "after the work"])
async def test_a_user_of_a_sign_up_that_failed_is_removed(*, done: bool) -> None:
    """A name that the application returns is free again where the identity could not be linked."""
    at, failed = 0, True
    while failed:
        at += 1
        shop = Shop(by_name)
        flow = await signing_in(shop, "user-u-1")
        add, counted = shop.shop.users.add, shop.turns

        async def added(user: User, add: Any = add, counted: Any = counted, at: int = at) -> bool:
            answer: bool = await add(user)
            counted.at, counted.fails, counted.done = counted.count + at, 1, done
            return answer

        shop.shop.users.add = added
        failed = False
        try:
            await shop.turns.run(flow.run)
        except ServiceUnavailable:
            failed = True
            shop.shop.users.add = add
            await flow.again()
        assert await flow.works(), at
        await shop.aclose()
    assert at > 2


async def test_a_user_who_cannot_be_removed(caplog: pytest.LogCaptureFixture) -> None:
    """A user of a sign-up that failed, who cannot be removed since the users are unreachable too, is logged."""
    shop = Shop(by_name)
    flow = await signing_in(shop, "user-u-1")
    add = shop.shop.users.add

    async def added(user: User) -> bool:
        answer: bool = await add(user)
        shop.turns.at, shop.turns.fails = shop.turns.count + 1, 1000
        return answer

    shop.shop.users.add = added
    with pytest.raises(ServiceUnavailable):
        await shop.turns.run(flow.run)
    text = "a user whose identity could not be linked could not be removed: ConnectionError"
    assert text in caplog.text


@pytest.mark.parametrize(("prepare", "end"), RACES, ids=named)
async def test_nothing_is_left_after_an_end(prepare: Callable[[Shop], Awaitable[Flow]], end: Any) -> None:
    """A flow leads to nothing if something ended what it began with at any of its calls."""
    at, reached = OF_ADA[prepare], True
    while reached:
        at += 1
        shop = Shop()
        flow = await prepare(shop)
        shop.turns.at, shop.turns.then = at, lambda shop=shop: end(shop)
        with suppress(AuthError):
            await shop.turns.run(flow.run)
        reached = shop.turns.count >= at
        assert await flow.works() is not reached, at
        if reached and end in (change_password, reset_password, change):
            assert await shop.logs_in(ADA, OTHER_PASSWORD), at
        await shop.aclose()
