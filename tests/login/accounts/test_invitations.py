"""Invitations: for one address, with no more than the inviter has, then and at acceptance."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import Forbidden, ServiceUnavailable
from fastapi_guard.exceptions import Conflict
from fastapi_guard.login.accounts import Invited, NewAccount, Rejected
from fastapi_guard.login.accounts.invitations import HAS_ACCOUNT, OTHER_TENANT
from fastapi_guard.login.accounts.mailing import INVALID_SECRET
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore
from support.accounts import SITE, Shop
from support.clock import Clock
from support.login import PASSWORD, request
from support.turns import Turns, TurnStore, TurnUsers

EDITOR = Invited(email="bob@example.com", roles=("editor",), scopes=("posts:edit",), tenant_id="acme")
ACCOUNT = NewAccount(password=PASSWORD, username="bob")


async def boss_of(shop: Shop, **fields: Any) -> User:
    """Return a user who may invite."""
    values: dict[str, Any] = {"roles": ("editor", "boss"), "scopes": ("posts:*",), "tenant_id": "acme", **fields}
    boss = User(subject_id="boss", email="boss@example.com", **values)
    assert await shop.users.add(boss)
    return boss


async def invited(shop: Shop, invitation: Invited = EDITOR, inviter: User | None = None) -> str:
    """Invite, and return the token."""
    await shop.accounts.invitations.invite(invitation, inviter=inviter, connection=request())
    return await shop.token("invitation")


async def test_accept(clock: Clock) -> None:
    """An invitation is mailed, valid for 7 days, and makes a user with its roles, scopes and tenant."""
    shop = Shop(clock, {"registration": "invited"})
    token = await invited(shop, inviter=await boss_of(shop))
    message = await shop.mail()
    assert (message.address, message.code, message.expires_at) == ("bob@example.com", None, clock() + 7 * 86400)
    assert message.link == f"{SITE}/invitation#token={token}"
    for wrong in (replace(ACCOUNT, password="short"), replace(ACCOUNT, username="a b")):
        with pytest.raises(Rejected):
            await shop.accounts.invitations.accept(token, wrong, connection=None)
    user = await shop.accounts.invitations.accept(token, ACCOUNT, connection=request())
    assert (user.email, user.roles, user.scopes, user.tenant_id) == (
        "bob@example.com",
        ("editor",),
        ("posts:edit",),
        "acme",
    )
    assert await shop.logs_in("bob", PASSWORD)
    assert [name for name in shop.names() if name.startswith("account")] == ["account_invited", "account_registered"]
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.invitations.accept(token, replace(ACCOUNT, username="eve"), connection=None)


@pytest.mark.parametrize(
    "more",
    [
        {"roles": ("editor", "owner")},
        {"scopes": ("users:edit",)},
        {"scopes": ("posts:*", "*")},
        {"tenant_id": "other"},
        {"tenant_id": None},
    ],
)
async def test_more_than_the_inviter_has(clock: Clock, more: Any) -> None:
    """An invitation to more is refused, and one that the inviter could not give any more is invalid."""
    shop = Shop(clock)
    boss = await boss_of(shop)
    with pytest.raises(Forbidden):
        await invited(shop, replace(EDITOR, **more), boss)
    assert shop.messages == []
    token = await invited(shop, EDITOR, boss)
    has_less = {"roles": ("boss",), "scopes": ("posts:read",), "tenant_id": "other"}
    name = next(iter(more))
    assert await shop.users.update(boss, replace(boss, **{name: has_less[name]}))
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.invitations.accept(token, ACCOUNT, connection=None)
    assert await shop.users.update(boss, boss)
    assert await shop.accounts.invitations.accept(token, ACCOUNT, connection=None)


@pytest.mark.parametrize("gone", ["disabled", "unverified", "removed"])
async def test_an_inviter_who_is_gone(clock: Clock, gone: str) -> None:
    """An invitation of a user who was disabled or removed is invalid."""
    shop = Shop(clock)
    boss = await boss_of(shop)
    token = await invited(shop, EDITOR, boss)
    if gone == "removed":
        await shop.users.remove("boss")
    else:
        await shop.users.update(boss, replace(boss, disabled=gone == "disabled", email_verified=gone == "disabled"))
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.invitations.accept(token, ACCOUNT, connection=None)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.invitations.join(token, await shop.registered("bob@example.com"), connection=None)


async def test_an_operator(clock: Clock) -> None:
    """An operator may invite to anything."""
    shop = Shop(clock)
    token = await invited(shop, replace(EDITOR, roles=("owner",)))
    user = await shop.accounts.invitations.accept(token, ACCOUNT, connection=None)
    assert user.roles == ("owner",)


async def test_a_rule_of_the_application(clock: Clock) -> None:
    """may_invite takes the place of the rule, but no disabled user invites."""
    shop = Shop(clock, {"may_invite": lambda inviter, invited: inviter.is_admin and invited.roles == ("guest",)})
    boss = await boss_of(shop, is_admin=True)
    assert await invited(shop, Invited(email="x@example.com", roles=("guest",)), boss)
    for inviter, roles in ((boss, ("editor",)), (replace(boss, disabled=True), ("guest",))):
        with pytest.raises(Forbidden):
            await invited(shop, Invited(email="y@example.com", roles=roles), inviter)


async def test_an_address_with_an_account(clock: Clock) -> None:
    """A user who has an account accepts while logged in, with that address alone, and keeps what the account had."""
    shop = Shop(clock)
    bob, eve = await shop.registered("Bob@example.com", "bob"), await shop.registered("eve@example.com")
    await shop.users.update(bob, replace(bob, roles=("customer",)))
    bob = await shop.user(bob.subject_id)
    token = await invited(shop, inviter=await boss_of(shop))
    with pytest.raises(Conflict, match=HAS_ACCOUNT):
        await shop.accounts.invitations.accept(token, NewAccount(password=PASSWORD), connection=None)
    for other in (eve, replace(bob, email=None), replace(bob, disabled=True), replace(bob, email_verified=False)):
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await shop.accounts.invitations.join(token, other, connection=None)
    with pytest.raises(Conflict, match=OTHER_TENANT):
        await shop.accounts.invitations.join(token, replace(bob, tenant_id="other"), connection=None)
    attempts = [shop.accounts.invitations.join(token, bob, connection=None) for _ in range(4)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    joined = await shop.user(bob.subject_id)
    assert (joined.roles, joined.scopes, joined.tenant_id) == (("customer", "editor"), ("posts:edit",), "acme")


async def test_join_without_a_tenant(clock: Clock) -> None:
    """An invitation without a tenant leaves that of the user; a user who was changed meanwhile is a conflict."""
    shop = Shop(clock)
    bob = replace(await shop.registered("bob@example.com"), tenant_id="acme")
    token = await invited(shop, Invited(email="bob@example.com", roles=("guest",)))
    with pytest.raises(Conflict):
        await shop.accounts.invitations.join(token, replace(bob, credentials_version=9), connection=None)
    token = await invited(shop, Invited(email="bob@example.com", roles=("guest",)))
    assert (await shop.accounts.invitations.join(token, bob, connection=None)).tenant_id == "acme"


async def test_links_that_are_refused(clock: Clock) -> None:
    """A wrong, expired or foreign link is invalid; a malformed address is rejected."""
    shop = Shop(clock)
    with pytest.raises(Rejected):
        await invited(shop, replace(EDITOR, email="bob"))
    await shop.registered("eve@example.com")
    await shop.accounts.passwords.forgot("eve@example.com", browser=None, connection=None)
    foreign = await shop.token("reset_password")
    token = await invited(shop)
    for bad in ("", token[1:], token[:-1] + "!", foreign):
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await shop.accounts.invitations.accept(bad, ACCOUNT, connection=None)
    clock.move(7 * 86400)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.invitations.accept(token, ACCOUNT, connection=None)


async def test_the_invitations_of_other_tenants_stay(clock: Clock) -> None:
    """An invitation ends the others of its tenant to the same address, and no others."""
    shop = Shop(clock)
    tokens = [await invited(shop, replace(EDITOR, tenant_id=tenant)) for tenant in ("globex", "acme", "acme")]
    bob = await shop.accounts.invitations.accept(tokens[2], ACCOUNT, connection=None)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.invitations.join(tokens[1], bob, connection=None)
    with pytest.raises(Conflict, match=OTHER_TENANT):
        await shop.accounts.invitations.join(tokens[0], bob, connection=None)


@pytest.mark.parametrize("failing", [ConnectionError, ServiceUnavailable], ids=["users", "store"])
@pytest.mark.parametrize("fails", [1, 1000], ids=["once", "lastingly"])
@pytest.mark.parametrize("joins", [False, True], ids=["accept", "join"])
async def test_an_outage_loses_no_invitation(
    clock: Clock, caplog: pytest.LogCaptureFixture, joins: bool, fails: int, failing: type[Exception]
) -> None:
    """The same link works after an outage of the users or of the store, at whichever call; what it left is logged."""
    bob, at, reached = User(subject_id="bob", email="bob@example.com"), 0, True
    while reached:
        at += 1
        turns = Turns(at=at, fails=fails, failing=failing)
        users = TurnUsers(turns)
        shop = Shop(clock, store=TurnStore(MemoryStore(clock=clock), turns), users=users)
        if joins:
            users._put(bob)
        token = await invited(shop)

        async def run(shop: Shop = shop, token: str = token) -> User:
            if joins:
                return await shop.accounts.invitations.join(token, bob, connection=None)
            return await shop.accounts.invitations.accept(token, ACCOUNT, connection=None)

        try:
            user = await turns.run(run)
        except ServiceUnavailable:
            user = await run()
        assert user.roles == ("editor",), at
        reached = turns.count >= at
    if failing is ServiceUnavailable:
        assert "the other secrets of an address could not be ended: ServiceUnavailable" in caplog.text


async def test_an_invitation_that_cannot_be_put_back(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An invitation that was used up for nothing, since users and store were unreachable, is logged."""
    turns = Turns()
    users = TurnUsers(turns)
    shop = Shop(clock, store=TurnStore(MemoryStore(clock=clock), turns), users=users)
    token = await invited(shop)

    async def fail(user: User) -> bool:
        turns.at, turns.fails = turns.count + 1, 1000
        raise ConnectionError

    users.add = fail  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable):
        await turns.run(lambda: shop.accounts.invitations.accept(token, ACCOUNT, connection=None))
    assert "a mailed secret that led to nothing could not be put back: ServiceUnavailable" in caplog.text
