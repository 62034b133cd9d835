"""Changes of addresses, and the end of an account."""

import asyncio
from typing import Any

import pytest

from fastapi_guard import Forbidden, TooManyRequests, Unauthorized
from fastapi_guard.exceptions import Conflict
from fastapi_guard.login.accounts import MailedProof, Rejected
from fastapi_guard.login.accounts.mailing import INVALID_SECRET
from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.password_check import WRONG_PASSWORD
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import User
from support.accounts import SITE, Shop
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD, request


async def ask(shop: Shop, user: User, email: str = "New@example.com", **options: Any) -> None:
    """Request another address."""
    arguments = {"password": PASSWORD, "claims": {}, "connection": request(), **options}
    await shop.accounts.addresses.request(user, email, **arguments)


def factor_of(user: User, kind: str) -> EnrolledFactor:
    """Return a factor of a user."""
    return EnrolledFactor(id="f1", subject=user.subject_id, kind=kind, name="Mine", data="", created_at=0)


async def test_change_of_the_address(clock: Clock) -> None:
    """A link to the new address changes it while logged in; both addresses receive a message, and no session ends."""
    shop = Shop(clock)
    ada = await shop.registered()
    await ask(shop, ada)
    message = await shop.mail("change_address")
    assert (message.address, message.code is None) == ("New@example.com", False)
    assert message.link is not None
    assert message.link.startswith(f"{SITE}/address#token=")
    assert await shop.user(ada.subject_id) == ada
    shop.names()
    shop.messages.clear()
    proof = MailedProof(token=message.link.partition("token=")[2])
    changed = await shop.accounts.addresses.confirm(ada, proof, connection=request())
    assert changed.email == "New@example.com"
    assert await shop.kinds() == ["address_changed New@example.com", "address_changed ada@example.com"]
    assert shop.ended.calls == []
    assert shop.names() == ["address_changed"]
    assert await shop.logs_in("new@example.com", PASSWORD)
    assert not await shop.logs_in("ada@example.com", PASSWORD)


async def test_a_first_address(clock: Clock) -> None:
    """A user with a username alone adds an address, by the code, in any session of that user."""
    shop = Shop(clock)
    await shop.users.add(User(subject_id="eve", username="eve"))
    eve = await shop.user("eve")
    with pytest.raises(Unauthorized):
        await ask(shop, eve)
    await ask(shop, eve, claims={"auth_time": int(clock())})
    code = (await shop.mail()).code
    assert await shop.accounts.addresses.confirm(eve, MailedProof(code=code, browser="x"), connection=None)
    assert await shop.kinds() == ["address_changed New@example.com", "change_address New@example.com"]


PROVEN = {"pwd": 0, "mail": -601}


@pytest.mark.parametrize("everyone", [True, False])
@pytest.mark.parametrize("factors", [None, {}, PROVEN, {**PROVEN, "mail": True}, {**PROVEN, "mail": 61}])
async def test_the_address_of_a_second_factor(clock: Clock, factors: dict[str, Any] | None, *, everyone: bool) -> None:
    """To change where codes of a second factor are sent needs a recent proof of a factor, as to remove it does."""
    mailed = MailedCode(Outbox(print), key=KEY, everyone=everyone)
    shop = Shop(clock, login_options={"second": [TOTP(key=KEY, issuer="Shop"), mailed]})
    ada = await shop.registered()
    moments = factors and {name: at if at is True else clock() + at for name, at in factors.items()}
    if not everyone:
        await ask(shop, ada, claims={"factors": moments})
        assert await shop.login.factors.records.add(factor_of(ada, "mail"))
    with pytest.raises(Unauthorized) as refusal:
        await ask(shop, ada, claims={"factors": moments})
    refused = (refusal.value.error, refusal.value.reason)
    assert refused == ("insufficient_user_authentication", "stale_factor")
    for method in ("mail", "otp"):
        await ask(shop, ada, claims={"factors": {method: clock() - 599}})


async def test_a_link_of_another_user(clock: Clock) -> None:
    """A user who receives the link by a typing error cannot put the address on the account, and the owner of it can."""
    shop = Shop(clock)
    ada, eve = await shop.registered(), await shop.registered("eve@example.com")
    await ask(shop, ada)
    message = await shop.mail("change_address")
    proofs = [await shop.proof(), MailedProof(code=message.code)]
    for proof in proofs:
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await shop.accounts.addresses.confirm(eve, proof, connection=None)
    outcomes = await asyncio.gather(
        *[shop.accounts.addresses.confirm(ada, proofs[0], connection=None) for _ in range(4)], return_exceptions=True
    )
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1


@pytest.mark.parametrize("other", ["EVE@example.com", "new@example.com"])
async def test_an_address_of_another_user(clock: Clock, other: str) -> None:
    """The address of another user has the same answer; that user receives a message."""
    shop = Shop(clock)
    ada, _ = await shop.registered(), await shop.registered("eve@example.com")
    await ask(shop, ada, other)
    expected = "account_exists eve@example.com" if "EVE" in other else f"change_address {other}"
    assert await shop.kinds() == [expected]


async def test_an_address_that_was_taken_meanwhile(clock: Clock) -> None:
    """An address that another user has by the time of the confirmation is a conflict."""
    shop = Shop(clock)
    ada = await shop.registered()
    await ask(shop, ada, "eve@example.com")
    proof = await shop.proof()
    await shop.registered("eve@example.com")
    with pytest.raises(Conflict):
        await shop.accounts.addresses.confirm(ada, proof, connection=None)


async def test_what_is_refused(clock: Clock) -> None:
    """A change needs the password and an address; an outdated or expired link is refused."""
    shop = Shop(clock)
    ada = await shop.registered()
    with pytest.raises(Forbidden, match=WRONG_PASSWORD):
        await ask(shop, ada, password="wrong")
    with pytest.raises(Rejected, match="not an e-mail address"):
        await ask(shop, ada, "new")
    await ask(shop, ada)
    proof = await shop.proof()
    clock.move(24 * 3600)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.addresses.confirm(ada, proof, connection=None)
    await ask(shop, ada)
    proof = await shop.proof()
    changed = await shop.login.change(ada)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.addresses.confirm(changed, proof, connection=None)
    for _ in range(4):
        await ask(shop, changed)
    with pytest.raises(TooManyRequests):
        await ask(shop, changed)


async def test_delete(clock: Clock) -> None:
    """A user deletes the account by the password, and factors, links and sessions with it; a message confirms it."""
    shop = Shop(clock)
    ada = await shop.registered()
    await shop.login.enrolments.begin("recovery", ada, {}, binding="b")
    ada = await shop.user(ada.subject_id)
    await shop.accounts.passwords.forgot("ada@example.com", browser=None, connection=None)
    reset = await shop.proof("reset_password")
    with pytest.raises(Forbidden, match=WRONG_PASSWORD):
        await shop.accounts.delete(ada, password="wrong", claims={}, connection=None)
    shop.messages.clear()
    shop.names()
    await shop.accounts.delete(ada, password=PASSWORD, claims={}, connection=None)
    assert await shop.users.by_subject(ada.subject_id) is None
    assert await shop.login.factors.of(ada.subject_id) == []
    assert not await shop.accounts._desk.mailing.secrets.is_waiting(ada.subject_id)
    assert shop.ended.calls == [(ada.subject_id, None)]
    assert await shop.kinds() == ["account_deleted ada@example.com"]
    assert shop.names() == ["account_deleted"]
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.passwords.reset(reset, "another long pass phrase", connection=None)
    again = await shop.registered()
    assert again.subject_id != ada.subject_id


async def test_disable(clock: Clock) -> None:
    """A disabled user has no session and cannot log in until enabled."""
    shop = Shop(clock)
    ada = await shop.registered()
    shop.names()
    disabled = await shop.accounts.disable(ada, actor="eve")
    assert shop.ended.calls == [(ada.subject_id, None)]
    assert not await shop.logs_in("ada@example.com", PASSWORD)
    await shop.accounts.enable(disabled)
    assert await shop.logs_in("ada@example.com", PASSWORD)
    assert [name for name in shop.names() if name.startswith("account")] == ["account_disabled", "account_enabled"]
