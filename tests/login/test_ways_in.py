"""The last way to log in: a user keeps one, whichever of them is given up."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import Forbidden, ServiceUnavailable
from fastapi_guard.login.factor import Factor
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock
from support.factors import KEY
from support.providers import Shop

REFUSED = "^403: This is the only way to log in to the account$"


def passkeys(**options: Any) -> Passkeys:
    """Return passkeys of the shop."""
    return Passkeys(rp_id="shop.example", origin="https://shop.example", **options)


class Site(Shop):
    """An application with providers and factors, and a user who has no password."""

    async def prepare(self, *identities: str, **fields: Any) -> User:
        """Link identities to the user, who has these fields."""
        user = await self.house.user()
        for sub in identities:
            await self.finish(await self.answer(user=user, sub=sub))
        changed = replace(user, **{"password_hash": None, **fields})
        assert await self.house.users.update(user, changed)
        return changed

    async def unlink(self, number: int = 0) -> bool:
        """Unlink an identity."""
        linked = await self.sign_in.identities.of("ada")
        return await self.sign_in.unlink(await self.house.user(), linked[number].id)

    async def remove(self, kind: str = "passkey", number: int = 0) -> bool:
        """Remove a factor."""
        factors = [factor for factor in await self.house.login.factors.of("ada") if factor.kind == kind]
        user, enrolments = await self.house.user(), self.house.login.enrolments
        return await enrolments.remove(user, factors[number].id, binding="b", claims=None)


async def send(_: Message) -> None:
    """Send nothing."""


def mailed(**options: Any) -> MailedCode:
    """Return codes by mail."""
    return MailedCode(Outbox(send), key=KEY, **options)


@pytest.mark.parametrize(
    ("kind", "is_way"),
    [
        (passkeys(), True),
        (passkeys(first=False), False),
        (passkeys(discoverable="discouraged"), False),
        (passkeys(discoverable="discouraged", decoy_key=KEY), True),
        (RecoveryCodes(), False),
    ],
)
async def test_an_enrolled_factor(clock: Clock, kind: Factor, is_way: bool) -> None:
    """The last identity can be unlinked where a factor can begin a login, and not where it is a second one alone."""
    site = Site(MemoryStore(clock=clock), clock, second=[kind])
    await site.house.enrol(kind.name)
    await site.prepare("u-1")
    if is_way:
        assert await site.unlink()
        with pytest.raises(Forbidden, match=REFUSED):
            await site.remove()
    else:
        with pytest.raises(Forbidden, match=REFUSED):
            await site.unlink()
        assert await site.remove(kind.name)


@pytest.mark.parametrize(
    ("kind", "fields", "is_way"),
    [
        (mailed(first=True), {}, True),
        (mailed(everyone=True), {}, False),
        (mailed(first=True), {"email_verified": False}, False),
        (mailed(first=True), {"email": None}, False),
    ],
)
async def test_a_mailed_code(clock: Clock, kind: Factor, fields: dict[str, Any], is_way: bool) -> None:
    """A message to a verified address is a way to log in where it can begin a login."""
    site = Site(MemoryStore(clock=clock), clock, second=[kind])
    await site.prepare("u-1", **fields)
    if is_way:
        assert await site.unlink()
    else:
        with pytest.raises(Forbidden, match=REFUSED):
            await site.unlink()


async def test_a_password(clock: Clock) -> None:
    """A password is a way to log in, except at a Login without passwords."""
    site = Site(MemoryStore(clock=clock), clock, second=[passkeys()])
    await site.prepare("u-1", password_hash="x")
    assert await site.unlink()
    await site.house.enrol("passkey")
    assert await site.remove()
    site = Site(MemoryStore(clock=clock), clock, second=[passkeys()])
    await site.prepare("u-1", password_hash="x")
    site.house.login.credentials._has_passwords = False
    with pytest.raises(Forbidden, match=REFUSED):
        await site.unlink()


async def test_all_but_one(clock: Clock) -> None:
    """Of two passkeys and two identities every one but the last can be given up."""
    site = Site(MemoryStore(clock=clock), clock, second=[passkeys()])
    for _ in range(2):
        await site.house.enrol("passkey")
    await site.prepare("u-1", "u-2")
    assert [await site.remove(), await site.unlink(), await site.remove()] == [True, True, True]
    before = await site.house.user()
    with pytest.raises(Forbidden, match=REFUSED) as error:
        await site.unlink()
    assert error.value.reason == "last_way_in"
    assert await site.house.user() == before


async def test_at_the_same_time(store: Store, clock: Clock) -> None:
    """Of several requests that each give up another way at the same time, one is refused, and one way remains."""
    site = Site(store, clock, second=[passkeys()])
    for _ in range(2):
        await site.house.enrol("passkey")
    await site.prepare("u-1")
    user, login = await site.house.user(), site.house.login
    [identity] = await site.sign_in.identities.of("ada")
    first, second = [factor.id for factor in await login.factors.of("ada")]
    gone = await asyncio.gather(
        *(login.enrolments.remove(user, factor, binding="b", claims=None) for factor in (first, second)),
        site.sign_in.unlink(user, identity.id),
        return_exceptions=True,
    )
    assert any(isinstance(one, Forbidden) for one in gone)
    left = [*await site.sign_in.identities.of("ada"), *await login.factors.of("ada")]
    assert len(left) == sum(one is not True for one in gone) >= 1


async def test_the_last_of_several_requests(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that has removed the last way, since another one was as fast, adds it again and is refused."""
    site = Site(MemoryStore(clock=clock), clock, second=[passkeys()])
    await site.house.enrol("passkey")
    await site.prepare("u-1")
    [identity] = await site.sign_in.identities.of("ada")
    remove = site.sign_in.identities.remove

    async def removed_with_the_passkey(identity_id: str) -> bool:
        [factor] = await site.house.login.factors.of("ada")
        assert await site.house.login.factors.records.remove(factor.id)
        return await remove(identity_id)

    monkeypatch.setattr(site.sign_in.identities, "remove", removed_with_the_passkey)
    with pytest.raises(Forbidden, match=REFUSED) as error:
        await site.unlink()
    assert error.value.reason == "last_way_in"
    assert await site.sign_in.identities.of("ada") == [identity]


async def test_a_user_who_changes_again_and_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who cannot be written is a 503, and nothing is removed; a user who is gone keeps nothing."""
    site = Site(MemoryStore(clock=clock), clock)
    user = await site.prepare("u-1", "u-2")

    async def overtaken(_: User, __: User) -> bool:
        return False

    monkeypatch.setattr(site.house.users, "update", overtaken)
    with pytest.raises(ServiceUnavailable):
        await site.unlink()
    assert len(await site.sign_in.identities.of("ada")) == 2
    await site.house.users.remove("ada")
    [first, _] = await site.sign_in.identities.of("ada")
    assert await site.sign_in.unlink(user, first.id)
