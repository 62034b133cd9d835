import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fastapi_guard import ConfigurationError, Forbidden, TooManyRequests
from fastapi_guard.login.factor import Strength
from fastapi_guard.login.mailed import MailedCode, hidden
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock
from support.factors import KEY, Desk, user_named

PAGE = "https://shop.example/login/mail"
ADA = user_named(email="Ada@Example.com", credentials_version=2)


class Mailbox:
    """Keeps what was sent."""

    def __init__(self) -> None:
        """Begin empty."""
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        """Keep one message."""
        self.messages.append(message)


@pytest.fixture
def mailbox() -> Mailbox:
    """Return an empty mailbox."""
    return Mailbox()


@pytest.fixture
def outbox(mailbox: Mailbox) -> Outbox:
    """Return what sends into the mailbox."""
    return Outbox(mailbox)


@pytest.fixture
def desk(clock: Clock, outbox: Outbox) -> Desk:
    """Return a desk with mailed codes for everyone."""
    factor = MailedCode(outbox, key=KEY, everyone=True, first=True, page=PAGE)
    return Desk(factor, MemoryStore(clock=clock), clock, ADA)


async def sent_code(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> str:
    """Return the code that a challenge sends."""
    await desk.challenge()
    await outbox.drain()
    code = mailbox.messages[-1].code
    assert code is not None
    return code


def users(*known: User) -> Callable[[str], Any]:
    """Return what looks users up by address."""

    async def find(login: str) -> User | None:
        found = [user for user in known if user.email is not None and user.email.casefold() == login]
        return found[0] if found else None

    return find


async def offered(
    desk: Desk, outbox: Outbox, mailbox: Mailbox, login: str | None = "ada@example.com", *known: User
) -> Message | None:
    """Return the message that beginning a login sends."""
    before = len(mailbox.messages)
    assert isinstance(desk.factor, MailedCode)
    assert await desk.factor.offer(desk.first(users(*(known or (ADA,))), login)) == {}
    assert len(mailbox.messages) == before
    await outbox.drain()
    return mailbox.messages[-1] if len(mailbox.messages) > before else None


async def identified(desk: Desk, proof: Mapping[str, Any], *known: User) -> Any:
    """Return the user that a first factor identifies."""
    assert isinstance(desk.factor, MailedCode)
    return await desk.factor.identify(desk.first(users(*(known or (ADA,)))), proof)


# As the second factor


async def test_a_code_for_a_login(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """A challenge sends eight digits to the address as it was typed; they prove the mailbox once."""
    shown = await desk.challenge()
    assert shown == {"sent_to": "A***@Example.com"}
    await outbox.drain()
    [message] = mailbox.messages
    assert (message.kind, message.address, message.link, message.user) == (
        "second_factor",
        "Ada@Example.com",
        None,
        ADA,
    )
    assert message.expires_at == desk.clock() + 600
    proof = await desk.verify({"code": message.code})
    assert proof is not None
    assert proof.methods == ("mail",)
    assert proof.factor is None
    assert await desk.verify({"code": message.code}) is None
    assert desk.factor.strength is Strength.MAILBOX


async def test_a_code_of_another_login(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """A code for one login is invalid in another, of the same user and of another user."""
    code = await sent_code(desk, outbox, mailbox)
    desk.binding = "pending-2"
    assert await desk.verify({"code": code}) is None
    desk.binding, desk.user = "pending-1", user_named("eve", email="eve@example.com")
    assert await desk.verify({"code": code}) is None
    desk.user = ADA
    assert await desk.verify({"code": code}) is not None


@pytest.mark.parametrize("change", [{"credentials_version": 3}, {"email": "new@example.com"}])
async def test_a_code_from_before_a_change(
    desk: Desk, outbox: Outbox, mailbox: Mailbox, change: dict[str, Any]
) -> None:
    """A code is invalid once the password, a factor or the address was changed."""
    code = await sent_code(desk, outbox, mailbox)
    desk.user = replace(ADA, **change)
    assert await desk.verify({"code": code}) is None


async def test_three_codes_for_one_login(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """A fourth code for one login is refused; the third one is valid and those of before are not."""
    codes = [await sent_code(desk, outbox, mailbox) for _ in range(3)]
    with pytest.raises(TooManyRequests) as refused:
        await desk.challenge()
    assert refused.value.reason == "too_many_codes"
    assert [await desk.verify({"code": code}) is not None for code in codes] == [False, False, True]


async def test_usable(outbox: Outbox) -> None:
    """It is usable with a verified address, for everyone or once it is enrolled."""
    opted, everyone = MailedCode(outbox, key=KEY), MailedCode(outbox, key=KEY, everyone=True)
    [row] = [Desk(opted, MemoryStore(), Clock(), ADA).draft()]
    assert [opted.usable(ADA, []), opted.usable(ADA, [row]), everyone.usable(ADA, [])] == [False, True, True]
    for user in (user_named(), replace(ADA, email_verified=False)):
        assert not opted.usable(user, [row])
        assert not everyone.usable(user, [row])


async def test_enrol(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """Enrolling sends a code to confirm with; it happens once."""
    desk.factor = MailedCode(outbox, key=KEY)
    enrolment = await desk.begin()
    assert enrolment.shown == {"sent_to": "A***@Example.com"}
    await outbox.drain()
    code = mailbox.messages[-1].code
    assert await desk.verify({"code": code}) is None
    assert await desk.confirm(enrolment, {"code": code}) is not None
    assert await desk.factor.enrol(await desk.context(), desk.draft("f2"), {}) is None
    proof = await desk.verify({"code": await sent_code(desk, outbox, mailbox)})
    assert proof is not None
    assert proof.factor == (await desk.context()).enrolled[0]


@pytest.mark.parametrize("user", [user_named(), replace(ADA, email_verified=False)], ids=["no address", "unverified"])
async def test_enrol_without_a_verified_address(desk: Desk, outbox: Outbox, mailbox: Mailbox, user: User) -> None:
    """Without a verified address there is nothing to enrol, and no message."""
    desk.user = user
    assert await desk.factor.enrol(await desk.context(), desk.draft(), {}) is None
    await outbox.drain()
    assert mailbox.messages == []


async def test_confirm_with_a_wrong_code(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """A wrong code confirms nothing."""
    enrolment = await desk.begin()
    await outbox.drain()
    for code in ("", None, "00000000x", 7):
        assert await desk.confirm(enrolment, {"code": code}) is None
    assert await desk.confirm(enrolment, {"code": mailbox.messages[-1].code}) is not None


# As the first factor


async def test_a_login_by_link(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """A link logs the user in, in the browser that asked, once."""
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    assert (message.kind, message.address) == ("log_in", "Ada@Example.com")
    assert message.link is not None
    page, _, token = message.link.partition("#token=")
    assert page == PAGE
    found = await identified(desk, {"token": token})
    assert found is not None
    assert (found[0], found[1].methods, found[1].factor) == ("ada", ("mail",), None)
    assert await identified(desk, {"token": token}) is None
    assert await identified(desk, {"code": message.code}) is None


async def test_a_login_by_code(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """The code logs the user in, in the browser that asked, once."""
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    assert await identified(desk, {"code": message.code}) is not None
    assert await identified(desk, {"code": message.code}) is None


async def test_another_browser(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """Neither link nor code works in another browser, and neither is used up there."""
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    token = str(message.link).partition("#token=")[2]
    desk.binding = "browser-2"
    assert await identified(desk, {"token": token}) is None
    assert await identified(desk, {"code": message.code}) is None
    desk.binding = "pending-1"
    assert await identified(desk, {"token": token}) is not None


async def test_any_browser(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """With any_browser the link works in another browser, the code does not."""
    desk.factor = MailedCode(outbox, key=KEY, first=True, page=PAGE, in_query=True, any_browser=True)
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    page, _, token = str(message.link).partition("?token=")
    assert page == PAGE
    desk.binding = "browser-2"
    assert await identified(desk, {"code": message.code}) is None
    assert await identified(desk, {"token": token}) is not None


async def test_without_a_page(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """Without a page a message has a code alone."""
    desk.factor = MailedCode(outbox, key=KEY, first=True)
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    assert message.link is None


@pytest.mark.parametrize(
    ("login", "user"),
    [
        ("eve@example.com", ADA),
        (None, ADA),
        ("ada@example.com", replace(ADA, disabled=True)),
        ("ada@example.com", replace(ADA, email_verified=False)),
    ],
    ids=["unknown", "unnamed", "disabled", "unverified"],
)
async def test_no_message(desk: Desk, outbox: Outbox, mailbox: Mailbox, login: str | None, user: User) -> None:
    """The response for an unknown address, and for a user who cannot log in, is the same; no message is sent."""
    assert await offered(desk, outbox, mailbox, login, user) is None


async def test_a_user_without_an_address(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """The response for a user without an address is the same."""

    async def find(login: str) -> User:
        return user_named()

    assert isinstance(desk.factor, MailedCode)
    assert await desk.factor.offer(desk.first(find, "ada")) == {}
    await outbox.drain()
    assert mailbox.messages == []


async def test_three_messages_for_one_browser(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """A browser receives three messages for one login, and the answer to a fourth request is the same."""
    sent = [await offered(desk, outbox, mailbox) is not None for _ in range(4)]
    assert sent == [True, True, True, False]


@pytest.mark.parametrize(
    "user",
    [
        replace(ADA, credentials_version=3),
        replace(ADA, email="ADA@example.com"),
        replace(ADA, subject_id="eve"),
    ],
    ids=["changed", "respelled", "another user"],
)
async def test_changed_meanwhile(desk: Desk, outbox: Outbox, mailbox: Mailbox, user: User) -> None:
    """A link from before a change of password, factor or address is invalid, also where another user has it now."""
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    token = str(message.link).partition("#token=")[2]
    assert await identified(desk, {"token": token}, user) is None
    assert await identified(desk, {"token": token}, user_named("eve", email="eve@example.com")) is None


async def test_a_login_ends_other_links(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """A link that was sent to another browser ends with the one that is used."""
    first = await offered(desk, outbox, mailbox)
    desk.binding = "browser-2"
    second = await offered(desk, outbox, mailbox)
    assert first is not None
    assert second is not None
    assert await identified(desk, {"code": second.code}) is not None
    desk.binding = "pending-1"
    assert await identified(desk, {"code": first.code}) is None


async def test_purposes_are_apart(desk: Desk, outbox: Outbox, mailbox: Mailbox) -> None:
    """The code of a second step begins no login, and the code of a login is not a second step."""
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    assert await desk.verify({"code": message.code}) is None
    code = await sent_code(desk, outbox, mailbox)
    assert await identified(desk, {"code": code}) is None


async def test_second_alone(desk: Desk, outbox: Outbox) -> None:
    """Without first=True, or without a browser, a message begins no login."""
    desk.factor = MailedCode(outbox, key=KEY, everyone=True)
    for reason, binding in (("not_a_first_factor", "pending-1"), ("no_browser", "")):
        desk.binding = binding
        for call in (desk.factor.offer(desk.first()), desk.factor.identify(desk.first(), {})):
            with pytest.raises(Forbidden) as refused:
                await call
            assert refused.value.reason == reason
        desk.factor = MailedCode(outbox, key=KEY, first=True)


async def test_used_once_of_many(store: Store, clock: Clock, outbox: Outbox, mailbox: Mailbox) -> None:
    """Of many that present one link at the same time one logs in, on each store."""
    desk = Desk(MailedCode(outbox, key=KEY, first=True, page=PAGE), store, clock, ADA)
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    token = str(message.link).partition("#token=")[2]
    found = await asyncio.gather(*(identified(desk, {"token": token}) for _ in range(8)))
    assert sum(subject is not None for subject in found) == 1


@pytest.mark.parametrize("proof", [{}, {"token": None, "code": None}, {"token": 7}, {"code": ["1"]}, {"token": "x"}])
async def test_malformed(desk: Desk, outbox: Outbox, mailbox: Mailbox, proof: dict[str, Any]) -> None:
    """A proof without a link or code is refused without an exception."""
    message = await offered(desk, outbox, mailbox)
    assert message is not None
    assert await identified(desk, proof) is None
    assert await desk.verify(proof) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "short"}, "at least 32 bytes"),
        ({"page": "/login/mail"}, "page is an absolute https URL"),
        ({"page": "http://shop.example/login"}, "page is an absolute https URL"),
        ({"page": "http://localhost.shop.example/login"}, "page is an absolute https URL"),
        ({"lifetime": timedelta(minutes=11)}, "at most 10 minutes"),
        ({"lifetime": timedelta()}, "lifetime is positive"),
    ],
)
def test_refused_settings(outbox: Outbox, options: dict[str, Any], message: str) -> None:
    """A page that is not the application's, a weak key and a long lifetime are refused."""
    with pytest.raises(ConfigurationError, match=message):
        MailedCode(outbox, **{"key": KEY, **options})


@pytest.mark.parametrize(
    ("address", "shown"), [("ada@example.com", "a***@example.com"), ("@", "***@"), ("\U0001f511@x", "\U0001f511***@x")]
)
def test_hidden(address: str, shown: str) -> None:
    """An address is recognised by those who know it."""
    assert hidden(address) == shown
