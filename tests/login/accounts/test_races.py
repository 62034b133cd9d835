"""Links of accounts on each store: of several callers at the same time one succeeds."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from fastapi_guard.login.accounts import Invited, NewAccount
from fastapi_guard.login.users import User
from fastapi_guard.stores import Store
from support.accounts import NEW_PASSWORD, Shop
from support.clock import Clock
from support.login import PASSWORD

Attempt = Callable[[], Awaitable[User]]


async def to_verify(shop: Shop) -> Attempt:
    """Register."""
    new = NewAccount(email="eve@example.com", password=PASSWORD)
    await shop.accounts.registration.register(new, browser="b", connection=None)
    proof = await shop.proof("verify_address", "b")
    return lambda: shop.accounts.registration.verify(proof, connection=None)


async def to_reset(shop: Shop) -> Attempt:
    """Forget the password."""
    await shop.registered()
    await shop.accounts.passwords.forgot("ada@example.com", browser="b", connection=None)
    proof = await shop.proof("reset_password")
    return lambda: shop.accounts.passwords.reset(proof, NEW_PASSWORD, connection=None)


async def to_change_the_address(shop: Shop) -> Attempt:
    """Request another address."""
    ada = await shop.registered()
    await shop.accounts.addresses.request(ada, "x@example.com", password=PASSWORD, claims={}, connection=None)
    proof = await shop.proof("change_address")
    return lambda: shop.accounts.addresses.confirm(ada, proof, connection=None)


async def to_accept(shop: Shop) -> Attempt:
    """Invite."""
    await shop.accounts.invitations.invite(Invited(email="bob@example.com"), inviter=None)
    token = await shop.token("invitation")
    return lambda: shop.accounts.invitations.accept(token, NewAccount(password=PASSWORD), connection=None)


async def to_join(shop: Shop) -> Attempt:
    """Invite a user who has an account."""
    ada = await shop.registered()
    await shop.accounts.invitations.invite(Invited(email="ada@example.com", roles=("x",)), inviter=None)
    token = await shop.token("invitation")
    return lambda: shop.accounts.invitations.join(token, ada, connection=None)


@pytest.mark.parametrize("prepare", [to_verify, to_reset, to_change_the_address, to_accept, to_join])
async def test_one_of_several(
    store: Store, clock: Clock, prepare: Callable[[Shop], Coroutine[Any, Any, Attempt]]
) -> None:
    """A link is used once, on each store; the others are refused, and none is an error of the server."""
    attempt = await prepare(Shop(clock, store=store))
    outcomes = await asyncio.gather(*[attempt() for _ in range(5)], return_exceptions=True)
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    assert {getattr(outcome, "status_code", 200) for outcome in outcomes} <= {200, 403, 409}
