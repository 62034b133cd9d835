"""Registration: one answer for every address, and an account only for who reads its mail."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable, TooManyRequests
from fastapi_guard.exceptions import Conflict
from fastapi_guard.login.accounts import AccountPages, Accounts, MailedProof, NewAccount, Rejected
from fastapi_guard.login.accounts.mailing import INVALID_SECRET
from fastapi_guard.login.accounts.registration import OTHER_BROWSER
from fastapi_guard.login.messages import ConsoleSender
from fastapi_guard.login.password_policy import TOO_EASY
from fastapi_guard.login.users import MappingUsers, User
from support.accounts import SITE, Shop
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD, request
from support.passwords import CountingContext

ADA = NewAccount(email="Ada@example.com", password=PASSWORD, username="ada")


async def register(shop: Shop, account: NewAccount = ADA, browser: str | None = "ada's browser") -> None:
    """Register, and wait for the message."""
    await shop.accounts.registration.register(account, browser=browser, connection=request())
    await shop.outbox.drain()


async def test_register_and_verify(clock: Clock) -> None:
    """A link in the browser that registered makes the account; before, there is none that could log in."""
    shop = Shop(clock)
    await register(shop)
    message = await shop.mail("verify_address")
    assert message.address == "Ada@example.com"
    assert message.link is not None
    assert message.link.startswith(f"{SITE}/verify#token=")
    assert message.expires_at == clock() + 24 * 3600
    assert not await shop.logs_in("ada", PASSWORD)
    assert await shop.users.by_login("ada") is None
    user = await shop.accounts.registration.verify(await shop.proof(browser="ada's browser"), connection=request())
    assert (user.username, user.email, user.email_verified) == ("ada", "Ada@example.com", True)
    assert await shop.users.by_login("ada@example.com") == user
    assert await shop.logs_in("ADA", PASSWORD)
    assert shop.names() == ["account_registered"]


async def test_a_code_works_in_the_browser_that_registered(clock: Clock) -> None:
    """The code of the message verifies too, in that browser alone."""
    shop = Shop(clock)
    await register(shop)
    code = (await shop.mail()).code
    for browser in ("another", None):
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await shop.accounts.registration.verify(MailedProof(code=code, browser=browser), connection=None)
    proof = MailedProof(code=code, browser="ada's browser")
    assert (await shop.accounts.registration.verify(proof, connection=None)).username == "ada"


@pytest.mark.parametrize("password", [None, "", "wrong", "\ud800"])
async def test_another_browser_needs_the_password(clock: Clock, password: str | None) -> None:
    """An attacker who registers the address of someone else has no account when that person opens the link."""
    shop = Shop(clock)
    await register(shop)
    proof = await shop.proof(browser="the owner's browser")
    with pytest.raises(Forbidden, match=OTHER_BROWSER):
        await shop.accounts.registration.verify(proof, password=password, connection=None)
    assert await shop.users.by_login("ada") is None
    assert await shop.accounts.registration.verify(proof, password=PASSWORD, connection=None)


async def test_a_link_of_a_client_without_a_cookie(clock: Clock) -> None:
    """Without a browser the message has no code, and the link needs the password."""
    shop = Shop(clock)
    await register(shop, browser=None)
    assert (await shop.mail()).code is None
    with pytest.raises(Forbidden, match=OTHER_BROWSER):
        await shop.accounts.registration.verify(await shop.proof(), connection=None)
    assert await shop.accounts.registration.verify(await shop.proof(), password=PASSWORD, connection=None)


async def test_guesses_of_the_password_are_counted(clock: Clock) -> None:
    """A client that has the link alone can try five passwords, over all links to the address."""
    shop = Shop(clock)
    await register(shop)
    proof = await shop.proof()
    for _ in range(5):
        with pytest.raises(Forbidden, match=OTHER_BROWSER):
            await shop.accounts.registration.verify(proof, password="wrong", connection=None)
    with pytest.raises(TooManyRequests):
        await shop.accounts.registration.verify(proof, password=PASSWORD, connection=None)


async def test_a_known_address(clock: Clock) -> None:
    """The address of a user has the same answer and work; the message goes to the address as it is stored."""
    shop = Shop(clock)
    ada = await shop.registered("Ada@example.com")
    assert shop.login.passwords is not None
    counted = CountingContext(shop.login.passwords)
    for email in ("ADA@EXAMPLE.COM", "eve@example.com"):
        await register(shop, NewAccount(email=email, password=PASSWORD))
    assert counted.calls == {"hash": 2}
    assert await shop.kinds() == ["account_exists Ada@example.com", "verify_address eve@example.com"]
    assert await shop.user(ada.subject_id) == ada


async def test_a_taken_username(clock: Clock) -> None:
    """A taken username is a conflict, when registering and again when verifying; the link stays valid."""
    shop = Shop(clock)
    await register(shop)
    proof = await shop.proof(browser="ada's browser")
    await shop.registered("other@example.com", "ADA")
    with pytest.raises(Conflict, match="The username is taken"):
        await register(shop)
    with pytest.raises(Conflict, match="The username is taken"):
        await shop.accounts.registration.verify(proof, connection=None)
    await shop.accounts.remove(await shop.users.by_login("ada"))
    assert await shop.accounts.registration.verify(proof, connection=None)


@pytest.mark.parametrize(
    ("account", "field", "text"),
    [
        (NewAccount(email="ada", password=PASSWORD), "email", "this is not an e-mail address"),
        (NewAccount(email="", password=PASSWORD), "email", "this is not an e-mail address"),
        (NewAccount(email="a\ud800@example.com", password=PASSWORD), "email", "invisible characters"),
        (replace(ADA, username="a@b"), "username", "a username has no @"),
        (replace(ADA, username="a" * 151), "username", "1 to 150 characters"),
        (replace(ADA, password=None), "password", "a password is needed"),
        (replace(ADA, password="short"), "password", "fewer than 15 characters"),
        (replace(ADA, password="x" * 257), "password", "more than 256 characters"),
        (replace(ADA, password="PasswordPassword1"), "password", TOO_EASY),
        (replace(ADA, password="Ada@Example.com"), "password", TOO_EASY),
        (replace(ADA, password="lone \ud800 surrogate!"), "password", "cannot be hashed"),
    ],
)
async def test_what_is_rejected(clock: Clock, account: NewAccount, field: str, text: str) -> None:
    """A name, an address or a password that may not be set is named by its field, and its text repeats nothing."""
    shop = Shop(clock)
    with pytest.raises(Rejected, match=text) as error:
        await register(shop, account)
    assert error.value.field == field
    assert shop.messages == []
    assert account.password is None or account.password == "" or account.password not in repr(account)
    await register(shop, replace(ADA, username=" "))
    assert len(shop.messages) == 1


async def test_a_breached_password(clock: Clock) -> None:
    """The breach check runs last, and its text is for the user."""

    class Breached:
        async def check(self, password: str) -> None:
            if password == PASSWORD:
                msg = "the password is in a list"
                raise ValueError(msg)

    shop = Shop(clock, {"breached": Breached()})
    with pytest.raises(Rejected, match="is in a list"):
        await register(shop)
    await register(shop, replace(ADA, password="another long pass phrase"))


async def test_without_passwords(clock: Clock) -> None:
    """An application without passwords registers without one, and such a link works in the same browser alone."""
    shop = Shop(clock, login_options={"passwords": None})
    with pytest.raises(Rejected, match="this application has no passwords"):
        await register(shop)
    await register(shop, replace(ADA, password=None))
    with pytest.raises(Forbidden, match=OTHER_BROWSER):
        await shop.accounts.registration.verify(await shop.proof(), password="x", connection=None)
    user = await shop.accounts.registration.verify(await shop.proof(browser="ada's browser"), connection=None)
    assert user.password_hash is None
    with pytest.raises(Forbidden):
        await shop.accounts.passwords.forgot("ada", browser=None, connection=None)


async def test_links_that_are_refused(clock: Clock) -> None:
    """A link that is wrong, truncated, of another purpose, used or expired has one refusal, and changes nothing."""
    shop = Shop(clock)
    registration = shop.accounts.registration
    bob = await shop.registered("bob@example.com")
    await shop.accounts.passwords.forgot("bob@example.com", browser="b", connection=None)
    reset = await shop.token("reset_password")
    await register(shop)
    token = await shop.token("verify_address")
    wrong = [None, "", token[:-1], token + "A", token[:-2] + "AA", reset, "\ud800" * 64, "A" * 64]
    for bad in wrong:
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await registration.verify(MailedProof(token=bad, browser="ada's browser"), connection=None)
    clock.move(24 * 3600)
    expired = MailedProof(token=token, browser="ada's browser")
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await registration.verify(expired, connection=None)
    await register(shop)
    valid = await shop.proof(browser="ada's browser")
    assert await registration.verify(valid, connection=None)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await registration.verify(valid, connection=None)
    assert await shop.user(bob.subject_id) == bob


async def test_twice_at_the_same_time(clock: Clock) -> None:
    """Of several that open one link at the same time one has the account, and there is one."""
    shop = Shop(clock)
    await register(shop)
    proof = await shop.proof(browser="ada's browser")
    attempts = [shop.accounts.registration.verify(proof, connection=None) for _ in range(6)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Forbidden"] * 5 + ["User"]


async def test_two_links_to_one_address(clock: Clock) -> None:
    """Of two who register one address the first to verify has it, and the other link is invalid."""
    shop = Shop(clock)
    await register(shop, replace(ADA, username="first"), "one")
    first = await shop.proof(browser="one")
    await register(shop, replace(ADA, username="second", email="ADA@example.com"), "two")
    second = await shop.proof(browser="two")
    assert await shop.accounts.registration.verify(first, connection=None)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await shop.accounts.registration.verify(second, connection=None)
    assert await shop.users.by_login("second") is None


async def test_a_name_that_is_taken_in_that_moment(clock: Clock) -> None:
    """If the name is taken between the look-up and the write, nothing is added."""
    shop = Shop(clock)
    await register(shop)
    proof = await shop.proof(browser="ada's browser")
    lookup, add = shop.users.by_login, shop.users.add

    async def taken_meanwhile(user: User) -> bool:
        await add(replace(user, subject_id="other", email="other@example.com"))
        return bool(await add(user))

    shop.users.add = taken_meanwhile
    with pytest.raises(Conflict):
        await shop.accounts.registration.verify(proof, connection=None)
    assert (await lookup("ada")).subject_id == "other"


async def test_users_that_are_unreachable(clock: Clock) -> None:
    """A write that fails is a 503; the user registers again."""
    shop = Shop(clock)
    await register(shop)
    shop.users.fails = True
    with pytest.raises(ServiceUnavailable):
        await shop.accounts.registration.verify(await shop.proof(browser="ada's browser"), connection=None)
    shop.users.fails = False
    await register(shop)
    assert await shop.accounts.registration.verify(await shop.proof(browser="ada's browser"), connection=None)


async def test_resend(clock: Clock) -> None:
    """The browser that registered can ask for another link, five in all; the link of before is invalid then."""
    shop = Shop(clock)
    registration = shop.accounts.registration
    await register(shop)
    first = await shop.proof(browser="ada's browser")
    for browser in ("another", None, "ada's browser"):
        await registration.resend("ADA@example.com", browser=browser, connection=request())
    await registration.resend("eve@example.com", browser="ada's browser", connection=request())
    second = await shop.proof(browser="ada's browser")
    assert await shop.kinds() == ["verify_address Ada@example.com"] * 2
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await registration.verify(first, connection=None)
    clock.move(3600)
    for _ in range(5):
        await registration.resend("ada@example.com", browser="ada's browser", connection=None)
    assert len(await shop.kinds()) == 3
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await registration.verify(second, connection=None)


async def test_a_user_whose_address_is_not_verified(clock: Clock) -> None:
    """A user whom the application added verifies with the password, in any browser."""
    shop = Shop(clock)
    registration = shop.accounts.registration
    assert shop.login.passwords is not None
    stored = await shop.login.passwords.hash(PASSWORD)
    eve = User(subject_id="eve", email="eve@example.com", email_verified=False, password_hash=stored)
    await shop.users.add(eve)
    assert not await shop.logs_in("eve@example.com", PASSWORD)
    await registration.resend("EVE@example.com", browser="eve's browser", connection=None)
    proof = await shop.proof("verify_address", "eve's browser")
    for password in (None, "wrong"):
        with pytest.raises(Forbidden, match=OTHER_BROWSER):
            await registration.verify(proof, password=password, connection=None)
    verified = await registration.verify(proof, password=PASSWORD, connection=None)
    assert verified == replace(eve, email_verified=True, credentials_version=1)
    assert await shop.logs_in("eve@example.com", PASSWORD)
    assert shop.names() == ["account_verified"]
    await registration.resend("eve@example.com", browser=None, connection=None)
    with pytest.raises(Forbidden, match=INVALID_SECRET):
        await registration.verify(proof, password=PASSWORD, connection=None)
    assert len(await shop.kinds()) == 1


async def test_a_stored_user_who_is_gone(clock: Clock) -> None:
    """The link of a user who was changed or disabled in the meantime is invalid."""
    shop = Shop(clock)
    eve = User(subject_id="eve", email="eve@example.com", email_verified=False, password_hash="x")
    await shop.users.add(eve)
    await shop.accounts.registration.resend("eve@example.com", browser=None, connection=None)
    proof = await shop.proof("verify_address")
    await shop.accounts.disable(eve)
    for _ in range(2):
        with pytest.raises(Forbidden, match=INVALID_SECRET):
            await shop.accounts.registration.verify(proof, password=PASSWORD, connection=None)
        await shop.users.remove("eve")


async def test_new_users(clock: Clock) -> None:
    """The application sets the rights of new users, and does not replace what was verified."""

    def new_user(user: User) -> User:
        return replace(user, roles=("customer",), tenant_id="acme", email="other@example.com", password_hash=None)

    shop = Shop(clock, {"new_user": new_user})
    user = await shop.registered()
    assert (user.roles, user.tenant_id, user.email) == (("customer",), "acme", "ada@example.com")
    assert user.password_hash is not None


async def test_attempts_are_counted(clock: Clock) -> None:
    """An address can be registered five times in 15 minutes, known or not."""
    shop = Shop(clock)
    await shop.registered("bob@example.com")
    for email in ("bob@example.com", "eve@example.com"):
        left = 4 if email == "bob@example.com" else 5
        for _ in range(left):
            await register(shop, NewAccount(email=email, password=PASSWORD))
        with pytest.raises(TooManyRequests):
            await register(shop, NewAccount(email=email, password=PASSWORD))
        with pytest.raises(TooManyRequests):
            await shop.accounts.registration.resend(email, browser=None, connection=None)


async def test_a_lost_mail_server(clock: Clock) -> None:
    """A message that cannot be sent is an event, and the answer is the same."""

    async def send(_: Any) -> None:
        raise ConnectionRefusedError

    shop = Shop(clock, {"send": send})
    await shop.accounts.registration.register(ADA, browser="b", connection=request())
    await shop.accounts.outbox.drain()
    assert [(event.name, event.reason) for event in shop.events] == [("message_failed", "ConnectionRefusedError")]


@pytest.mark.parametrize(
    ("options", "login_options", "message"),
    [
        ({"pages": "http://shop.example"}, {}, "site is the https origin"),
        ({"pages": "https://shop.example/"}, {}, "without a slash at its end"),
        ({"pages": "http://localhost.shop.example"}, {}, "http on localhost alone"),
        ({"pages": "http://127.0.0.1@shop.example"}, {}, "http on localhost alone"),
        ({"key": "short"}, {}, "at least 32"),
        ({"registration": "closed"}, {}, 'registration is "open" or "invited"'),
        ({"send": 7}, {}, "send is a function of one Message"),
    ],
)
def test_what_cannot_be_configured(clock: Clock, options: Any, login_options: Any, message: str) -> None:
    """A mistake is named when the accounts are made."""
    with pytest.raises(ConfigurationError, match=message):
        Shop(clock, options, login_options)
    assert Shop(clock)


def test_collaborators(clock: Clock) -> None:
    """Accounts need a sender, and users that can be added."""
    shop = Shop(clock)
    shop.login.outbox = None
    with pytest.raises(ConfigurationError, match="accounts need messages"):
        Accounts(shop.login, key=KEY, pages=SITE)
    assert Accounts(shop.login, key=KEY, pages=AccountPages(site=SITE), send=ConsoleSender())
    shop.login.users = MappingUsers({})
    with pytest.raises(ConfigurationError, match="add and remove, such as DatabaseUsers, not MappingUsers"):
        Accounts(shop.login, key=KEY, pages=SITE, send=ConsoleSender())
    with pytest.raises(ConfigurationError, match='the path of a page starts with "/"'):
        AccountPages(site=SITE, reset="reset")


async def test_links_in_the_query(clock: Clock) -> None:
    """For pages without script the token is in the query."""
    shop = Shop(clock, {"pages": AccountPages(site=SITE, verify="/welcome?lang=de", in_query=True)})
    await register(shop)
    link = (await shop.mail()).link
    assert link is not None
    assert link.startswith(f"{SITE}/welcome?lang=de&token=")


async def test_closed_registration(clock: Clock) -> None:
    """If registration needs an invitation, no other user registers."""
    shop = Shop(clock, {"registration": "invited"})
    with pytest.raises(Forbidden, match="Registration needs an invitation"):
        await register(shop)
    assert shop.messages == []
