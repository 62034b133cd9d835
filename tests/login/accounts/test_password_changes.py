"""Forgotten and changed passwords: who may set one, and what ends with the old one."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import Forbidden, ServiceUnavailable, TooManyRequests, Unauthorized
from fastapi_guard.exceptions import Conflict
from fastapi_guard.login.accounts import MailedProof, Rejected
from fastapi_guard.login.accounts.mailing import INVALID_SECRET
from fastapi_guard.login.login import Pending
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.password_check import WRONG_PASSWORD
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import User
from support.accounts import NEW_PASSWORD, SITE, Shop
from support.clock import Clock
from support.factors import KEY, totp_code
from support.login import PASSWORD, request


async def forgot(shop: Shop, name: str = "ada@example.com", browser: str | None = "b") -> None:
    """Request a link."""
    await shop.accounts.passwords.forgot(name, browser=browser, connection=request())


def claims_of(shop: Shop, user: User, **claims: Any) -> dict[str, Any]:
    """Return the claims of a session that has just begun."""
    return {"sub": user.subject_id, "sid": "this session", "auth_time": int(shop.clock()), **claims}


async def change(shop: Shop, user: User, password: str | None = NEW_PASSWORD, **options: Any) -> User:
    """Change the password."""
    arguments = {"current": PASSWORD, "claims": claims_of(shop, user), "connection": request(), **options}
    return await shop.accounts.passwords.change(user, password, **arguments)


async def test_reset(clock: Clock) -> None:
    """A link sets a new password in any browser; everything of the old one ends, and the user receives a message."""
    shop = Shop(clock)
    ada = await shop.registered(username="ada")
    await forgot(shop, "ADA")
    message = await shop.mail("reset_password")
    assert (message.address, message.expires_at) == ("ada@example.com", clock() + 900)
    assert message.link is not None
    assert message.link.startswith(f"{SITE}/reset#token=")
    shop.names()
    changed = await shop.accounts.passwords.reset(await shop.proof(), NEW_PASSWORD, connection=request())
    assert changed.credentials_version == ada.credentials_version + 1
    assert shop.ended.calls == [(ada.subject_id, None)]
    assert not await shop.logs_in("ada", PASSWORD)
    assert await shop.logs_in("ada", NEW_PASSWORD)
    [event] = [event for event in shop.events if event.name == "password_reset"]
    assert (event.subject, event.client, event.user_agent) == (ada.subject_id, "192.0.2.1", "Firefox")
    assert (await shop.mail()).kind == "password_changed"
    assert shop.names()[:1] == ["password_reset"]


async def test_a_code_resets_in_the_browser_that_asked(clock: Clock) -> None:
    """The code needs the browser; a password that is rejected uses up no try of it."""
    shop = Shop(clock)
    await shop.registered()
    await forgot(shop)
    code = (await shop.mail()).code
    for browser in ("another", None):
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await shop.accounts.passwords.reset(MailedProof(code=code, browser=browser), NEW_PASSWORD, connection=None)
    for _ in range(6):
        with pytest.raises(Rejected, match="fewer than 15"):
            await shop.accounts.passwords.reset(MailedProof(code=code, browser="b"), "short", connection=None)
    for password in ("Ada@Example.com1", None):
        with pytest.raises(Rejected):
            await shop.accounts.passwords.reset(MailedProof(code=code, browser="b"), password, connection=None)
    assert await shop.accounts.passwords.reset(MailedProof(code=code, browser="b"), NEW_PASSWORD, connection=None)


async def test_five_tries_of_a_code(clock: Clock) -> None:
    """A code has five tries in all."""
    shop = Shop(clock)
    await shop.registered()
    await forgot(shop)
    code = (await shop.mail()).code
    for _ in range(5):
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await shop.accounts.passwords.reset(
                MailedProof(code="00000000", browser="b"), NEW_PASSWORD, connection=None
            )
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.passwords.reset(MailedProof(code=code, browser="b"), NEW_PASSWORD, connection=None)


@pytest.mark.parametrize("name", ["nobody", "nobody@example.com", "", "\ud800", "a\0b", "x" * 60_000, "off"])
async def test_unknown_users(clock: Clock, name: str) -> None:
    """An unknown or disabled user has the same answer as a known one, and no message."""
    shop = Shop(clock)
    await shop.users.add(User(subject_id="off", username="off", email="off@example.com", disabled=True))
    await shop.users.add(User(subject_id="plain", username="plain"))
    for named in (name, "plain"):
        await forgot(shop, named)
    assert await shop.kinds() == []
    assert shop.names() == []


async def test_requests_are_counted(clock: Clock) -> None:
    """A link can be requested five times in 15 minutes, by a known or unknown name."""
    shop = Shop(clock)
    await shop.registered()
    for name in ("ada@example.com", "nobody"):
        for _ in range(5):
            await forgot(shop, name)
        with pytest.raises(TooManyRequests):
            await forgot(shop, name.upper())


async def test_links_that_are_refused(clock: Clock) -> None:
    """A link that is wrong, of another purpose, used, expired or outdated is refused, and the password stays."""
    shop = Shop(clock)
    passwords = shop.accounts.passwords
    ada = await shop.registered()
    await shop.accounts.addresses.request(ada, "new@example.com", password=PASSWORD, claims={}, connection=None)
    other = await shop.token("change_address")
    await forgot(shop)
    token = await shop.token("reset_password")
    for bad in (None, "", token[:-1], f"{token}A", other, "A" * 64, "\ud800" * 64):
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await passwords.reset(MailedProof(token=bad, browser="b"), NEW_PASSWORD, connection=None)
    clock.move(900)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await passwords.reset(MailedProof(token=token), NEW_PASSWORD, connection=None)
    assert await shop.logs_in("ada@example.com", PASSWORD)
    for change_meanwhile in ("change", "disable"):
        await forgot(shop)
        proof = await shop.proof("reset_password")
        user = await shop.user(ada.subject_id)
        await (change(shop, user) if change_meanwhile == "change" else shop.accounts.disable(user))
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await passwords.reset(proof, "yet another pass phrase", connection=None)
    await shop.users.remove(ada.subject_id)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await passwords.reset(proof, NEW_PASSWORD, connection=None)


async def test_one_link_ends_the_others(clock: Clock) -> None:
    """Of several links one can be used, once, also at the same time."""
    shop = Shop(clock)
    await shop.registered()
    proofs = []
    for browser in ("a", "b"):
        await forgot(shop, browser=browser)
        proofs.append(await shop.proof("reset_password"))
    attempts = [shop.accounts.passwords.reset(proof, NEW_PASSWORD, connection=None) for proof in proofs * 3]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    assert {getattr(outcome, "status_code", 0) for outcome in outcomes} <= {0, 403, 409}


class Unreachable:
    """A holder of credentials whose store is unreachable."""

    async def revoke_subject(self, subject: str, *, keep: str | None = None) -> int:
        """Fail."""
        raise ServiceUnavailable(reason="store_unreachable")


@pytest.mark.parametrize("way", ["reset", "change"])
async def test_what_cannot_be_ended(clock: Clock, way: str) -> None:
    """A password that was written is reported, though what the old one gave could not all be ended."""
    shop = Shop(clock)
    ada = await shop.registered()
    shop.login.ends(Unreachable())
    await forgot(shop)
    proof = await shop.proof("reset_password")
    shop.messages.clear()
    shop.events.clear()
    passwords = shop.accounts.passwords
    changing = change(shop, ada) if way == "change" else passwords.reset(proof, NEW_PASSWORD, connection=None)
    with pytest.raises(ServiceUnavailable):
        await changing
    assert await shop.kinds() == ["password_changed ada@example.com"]
    assert {"reset": "password_reset", "change": "password_changed"}[way] in shop.names()
    assert await shop.logs_in("ada@example.com", NEW_PASSWORD)


async def test_a_password_that_cannot_be_written(clock: Clock) -> None:
    """A password that was not written has neither an event nor a message."""
    shop = Shop(clock)
    ada = await shop.registered()
    shop.messages.clear()
    shop.events.clear()
    shop.users.fails = True
    with pytest.raises(ServiceUnavailable):
        await change(shop, ada)
    assert await shop.kinds() == []
    assert "password_changed" not in shop.names()
    assert not await shop.logs_in("ada@example.com", NEW_PASSWORD)


async def test_a_write_that_fails(clock: Clock) -> None:
    """A failed write is a 503; the link is used up, and the user asks for another one."""
    shop = Shop(clock)
    await shop.registered()
    await forgot(shop)
    proof = await shop.proof()
    shop.users.fails = True
    with pytest.raises(ServiceUnavailable):
        await shop.accounts.passwords.reset(proof, NEW_PASSWORD, connection=None)
    shop.users.fails = False
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.passwords.reset(proof, NEW_PASSWORD, connection=None)
    assert await shop.logs_in("ada@example.com", PASSWORD)
    await forgot(shop)
    assert await shop.accounts.passwords.reset(await shop.proof(), NEW_PASSWORD, connection=None)


async def test_a_reset_removes_no_second_factor(clock: Clock) -> None:
    """After a reset a login still needs the second factor, and a pending login of before is over."""
    shop = Shop(clock)
    ada = await shop.registered()
    begun = await shop.login.enrolments.begin("totp", ada, {}, binding="b")
    assert begun is not None
    code = totp_code(begun.shown["secret"], clock())
    assert await shop.login.enrolments.confirm(ada, begun.enrolment or "", {"code": code}, binding="b")
    clock.move(60)
    before = await shop.login.with_password("ada@example.com", PASSWORD, connection=request())
    assert isinstance(before, Pending)
    await forgot(shop)
    await shop.accounts.passwords.reset(await shop.proof("reset_password"), NEW_PASSWORD, connection=None)
    after = await shop.login.with_password("ada@example.com", NEW_PASSWORD, connection=request())
    assert isinstance(after, Pending)
    code = totp_code(begun.shown["secret"], clock())
    with pytest.raises(Unauthorized):
        await shop.login.with_totp(before.id, code, connection=request())
    assert (await shop.login.with_totp(after.id, code, connection=request())).second


async def test_change(clock: Clock) -> None:
    """A change needs the current password, keeps this session, ends the others, and the user receives a message."""
    shop = Shop(clock)
    ada = await shop.registered()
    with pytest.raises(Forbidden, match=WRONG_PASSWORD):
        await change(shop, ada, current="wrong")
    with pytest.raises(Forbidden, match=WRONG_PASSWORD):
        await change(shop, ada, current=None)
    with pytest.raises(Rejected, match="fewer than 15"):
        await change(shop, ada, "short")
    shop.names()
    await change(shop, ada)
    assert shop.ended.calls == [(ada.subject_id, "this session")]
    assert await shop.logs_in("ada@example.com", NEW_PASSWORD)
    assert await shop.kinds() == ["password_changed ada@example.com"]
    assert shop.names()[:1] == ["password_changed"]
    with pytest.raises(Conflict):  # of the user as it was before
        await change(shop, replace(ada, credentials_version=7), current=PASSWORD)


async def test_claims_without_a_session(clock: Clock) -> None:
    """Everything ends if the claims have no sid."""
    shop = Shop(clock)
    ada = await shop.registered()
    await change(shop, ada, claims={"sid": 7})
    assert shop.ended.calls == [(ada.subject_id, None)]


async def test_guesses_of_the_current_password(clock: Clock) -> None:
    """A stolen session can try five passwords, as anyone can at the login."""
    shop = Shop(clock)
    ada = await shop.registered()
    for _ in range(5):
        with pytest.raises(Forbidden):
            await change(shop, ada, current="wrong")
    with pytest.raises(TooManyRequests):
        await change(shop, ada)


@pytest.mark.parametrize("auth_time", [None, True, "now", -601, 61])
async def test_a_first_password(clock: Clock, auth_time: Any) -> None:
    """A user without a password sets the first within ten minutes of a login (RFC 9470)."""
    shop = Shop(clock)
    await shop.users.add(User(subject_id="eve", email="eve@example.com"))
    eve = await shop.user("eve")
    moment = int(clock()) + auth_time if type(auth_time) is int else auth_time
    with pytest.raises(Unauthorized) as error:
        await change(shop, eve, current=None, claims=claims_of(shop, eve, auth_time=moment))
    assert error.value.error == "insufficient_user_authentication"
    await change(shop, eve, current="anything", claims=claims_of(shop, eve, auth_time=int(clock()) - 599))
    assert await shop.logs_in("eve@example.com", NEW_PASSWORD)


async def test_a_reset_that_chooses_no_password(clock: Clock) -> None:
    """An administrator removes the password: what it gave ends, and the user chooses a new one by a link."""
    shop = Shop(clock)
    ada = await shop.registered()
    shop.names()
    assert (await shop.accounts.passwords.remove(ada, actor="cli:root")).password_hash is None
    assert [(event.name, event.actor) for event in shop.events] == [("password_reset", "cli:root")]
    assert shop.ended.calls == [(ada.subject_id, None)]
    assert not await shop.logs_in("ada@example.com", PASSWORD)
    await shop.accounts.passwords.reset(await shop.proof("reset_password"), NEW_PASSWORD, connection=None)
    assert await shop.logs_in("ada@example.com", NEW_PASSWORD)


@pytest.mark.parametrize("needs_second", ["enrolled", "always"])
async def test_a_mailbox_counts_once(clock: Clock, needs_second: Any) -> None:
    """Beside a password that a mailed link has set, a mailed code does not stand in for another factor."""
    mailed = MailedCode(Outbox(print), key=KEY, everyone=True)
    options = {"second": [TOTP(key=KEY, issuer="Shop"), mailed], "needs_second": needs_second}
    shop = Shop(clock, login_options=options)
    ada, bob = await shop.registered(), await shop.registered("bob@example.com")
    begun = await shop.login.enrolments.begin("totp", ada, {}, binding="b")
    assert begun is not None
    proof = {"code": totp_code(begun.shown["secret"], clock())}
    assert await shop.login.enrolments.confirm(ada, begun.enrolment or "", proof, binding="b")
    before = await shop.login.with_password("ada@example.com", PASSWORD, connection=request())
    assert isinstance(before, Pending)
    assert before.factors == ["totp", "mail"]
    for email in ("ada@example.com", "bob@example.com"):
        await forgot(shop, email)
        await shop.accounts.passwords.reset(await shop.proof("reset_password"), NEW_PASSWORD, connection=None)
    after = await shop.login.with_password("ada@example.com", NEW_PASSWORD, connection=request())
    assert isinstance(after, Pending)
    assert after.factors == ["totp"]
    with pytest.raises(Forbidden):
        await shop.login.challenge(after.id, "mail", connection=request())
    # A reset removes no factor of a user who has no other, and does not shut that user out.
    alone = await shop.login.with_password("bob@example.com", NEW_PASSWORD, connection=request())
    assert isinstance(alone, Pending)
    assert alone.factors == ["mail"]
    await change(shop, await shop.user(ada.subject_id), "yet another pass phrase", current=NEW_PASSWORD)
    changed = await shop.login.with_password("ada@example.com", "yet another pass phrase", connection=request())
    assert isinstance(changed, Pending)
    assert changed.factors == ["totp", "mail"]
    assert bob != await shop.user(bob.subject_id)
