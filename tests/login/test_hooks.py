"""Hooks of the application: each mistake is an error when constructed, or a 503, and never consent."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import HTTPException, Response
from joserfc import jwk
from sqlalchemy.orm import sessionmaker

from fastapi_guard import APIKeyAuth, ConfigurationError, Forbidden, JWTConfig, ServiceUnavailable
from fastapi_guard.login.accounts import Accounts, Invited, NewAccount, Rejected
from fastapi_guard.login.client import Client
from fastapi_guard.login.devices import KnownDevices
from fastapi_guard.login.factor import Enrolment, Proof, Strength
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login, Pending
from fastapi_guard.login.messages import ConsoleSender, Outbox
from fastapi_guard.login.password_policy import PasswordPolicy
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.providers.provider import checked_vouches
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import DatabaseUsers, MappingUsers, User
from fastapi_guard.login.users.models import StoredUser
from fastapi_guard.stores import MemoryStore
from fastapi_guard.stores.arguments import function_of
from support.accounts import NEW_PASSWORD, SITE, MemoryUsers, Shop
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD, request
from support.logins import STORED
from support.passwords import quick_hasher

ADA = NewAccount(email="ada@example.com", password=NEW_PASSWORD, username="ada")


async def coroutine(*_: Any) -> None:
    """Return nothing, to be awaited."""


async def without_parameters(self: Any) -> None:
    """Return nothing, and receive nothing."""


def without_arguments() -> None:
    """Return nothing, and receive nothing."""


def nothing(*_: Any) -> None:
    """Return nothing."""


def fails(*_: Any) -> Any:
    """Raise what an application may raise."""
    raise KeyError


def returns(result: Any) -> Callable[..., Any]:
    """Return an async method with this result."""

    async def method(*_: Any, **__: Any) -> Any:
        return result

    return method


def rule_class() -> Any:
    """Return a class whose objects are rules, instead of one of them."""
    return type("Own", (), {"__init__": lambda self, *arguments: None, "__call__": lambda self, *arguments: True})


class PIN:
    """A factor of an application: the code is 1."""

    name, methods, strength = "pin", ("pin",), Strength.CODE

    def usable(self, user: Any, enrolled: Any) -> Any:
        """Return whether one is enrolled."""
        return bool(enrolled)

    async def enrol(self, context: Any, draft: Any, details: Any) -> Any:
        """Enrol it without anything."""
        return Enrolment(factor=replace(draft, data="x"))

    async def confirm(self, context: Any, draft: Any, proof: Any) -> Any:
        """Confirm by the code."""
        return draft if proof.get("code") == "1" else None

    async def challenge(self, context: Any) -> Any:
        """Return nothing that the client needs."""
        return {}

    async def verify(self, context: Any, proof: Any) -> Any:
        """Verify the code."""
        return Proof(methods=self.methods) if proof.get("code") == "1" else None


class First(PIN):
    """A factor that begins a login."""

    def begins(self, user: Any, enrolled: Any) -> Any:
        """Return whether one is enrolled."""
        return bool(enrolled)

    async def offer(self, context: Any) -> Any:
        """Return nothing that the client needs."""
        return {}

    async def identify(self, context: Any, proof: Any) -> Any:
        """Return the user."""
        return "ada", Proof(methods=self.methods)


def other(kind: type, **members: Any) -> Any:
    """Return an object of a class like this one, with other members."""
    return type("Own", (kind,), members)()


def users(**methods: Any) -> Any:
    """Return users of which one is ``ada``, with other methods."""
    return type("Own", (MappingUsers,), methods)({"ada": {"password_hash": STORED}})


def login(found: Any = None, **options: Any) -> Login:
    """Return a Login."""
    return Login(found or users(), MemoryStore(), passwords=quick_hasher(), **options)


def accounts(found: Any = None, **options: Any) -> Accounts:
    """Return accounts."""
    return Accounts(login(found or MemoryUsers()), key=KEY, pages=SITE, **{"send": nothing, **options})


def subclass(kind: type, **members: Any) -> Any:
    """Define a subclass."""
    return type("Own", (kind,), members)


WRONG: dict[str, Callable[[], object]] = {
    "may_login has other parameters than it is called with: (user, connection)": lambda: login(
        may_login=lambda user: True  # type: ignore[misc]
    ),
    "may_login is a function of the user and the request, not the class Own: construct it": lambda: login(
        may_login=rule_class()
    ),
    "needs_second is a function of the user, not the class Own: construct it": lambda: login(
        second=[PIN()], needs_second=rule_class()
    ),
    "may_invite is a function that returns True or False, not the class Own: construct it": lambda: accounts(
        may_invite=rule_class()
    ),
    "new_user is a function that returns a User, not the class Own: construct it": lambda: accounts(
        new_user=rule_class()
    ),
    "vouches is a function of an Identity, not the class Own: construct it": lambda: checked_vouches(rule_class()),
    "verify_key is a function that returns whether a raw key is valid, not the class Own: construct it": lambda: (
        APIKeyAuth(verify_key=rule_class())
    ),
    "needs_second has other parameters than it is called with: (user)": lambda: login(needs_second=without_arguments),
    "users: Own.by_login has to be an async def": lambda: login(users(by_login=nothing)),
    "users: Own.by_login has other parameters than it is called with: (login)": lambda: login(
        users(by_login=without_parameters)
    ),
    "second: Own.usable has to be a def, not an async def": lambda: login(second=[other(PIN, usable=coroutine)]),
    "second: Own.verify has to be an async def": lambda: login(second=[other(PIN, verify=nothing)]),
    "second: Own.begins has to be a def, not an async def": lambda: login(second=[other(First, begins=coroutine)]),
    "second: Own.describe has to be a def, not an async def": lambda: login(second=[other(PIN, describe=coroutine)]),
    "Own.strength is a Strength, such as Strength.CODE, not 2": lambda: login(second=[other(PIN, strength=2)]),
    'Own.methods is a list such as ["otp"], not text of 3 characters': lambda: login(
        second=[other(PIN, methods="pin")]
    ),
    "Own.methods has pwd, which a login sets by itself: name another one": lambda: login(
        second=[other(PIN, methods=("pwd",))]
    ),
    "the name of a factor is 1 to 32 characters of a-z 0-9 _ -, none of challenge, confirm, password, step-up, "
    "not text of 9 characters": lambda: login(second=[other(PIN, name="challenge")]),
    "records is such as DatabaseFactors, not 5": lambda: login(records=5),
    "ends: Own.revoke_subject has to be an async def": lambda: login().ends(other(object, revoke_subject=nothing)),
    "ends: Own.revoke_subject has other parameters than it is called with: (subject, keep=...)": lambda: login().ends(
        other(object, revoke_subject=coroutine)
    ),
    "started is a function of the sid and the claims of a login: an async def, not a def": lambda: login().on_started(
        nothing
    ),  # type: ignore[arg-type]
    "send is a function of one Message, not the class ConsoleSender: construct it": lambda: Outbox(ConsoleSender),  # type: ignore[arg-type]
    "send has other parameters than it is called with: (message)": lambda: Outbox(lambda: None),  # type: ignore[arg-type,misc]
    "new_user is a function that returns a User: a def, not an async def": lambda: accounts(new_user=coroutine),
    "may_invite is a function that returns True or False: a def, not an async def": lambda: accounts(
        may_invite=coroutine
    ),
    "users: Own.add has to be an async def": lambda: accounts(other(MemoryUsers, add=nothing)),
    "Own.check is a function of a password: a def, not an async def": lambda: other(PasswordPolicy, check=coroutine),
    "breached: Own.check has to be an async def": lambda: accounts(breached=other(object, check=nothing)),
    "Own.verify_and_update has to be an async def": lambda: other(PasswordHasher, verify_and_update=nothing),
    "Own.claims is a function of the user: a def, not an async def": lambda: subclass(User, claims=coroutine),
    "coroutine is a function of the row: a def, not an async def": lambda: DatabaseUsers(
        sessionmaker(), model=subclass(StoredUser, extra_claims=coroutine)
    ),
    "may_continue has other parameters than it is called with: (claims)": lambda: RefreshTokens(
        MemoryStore(),
        may_continue=lambda: True,  # type: ignore[arg-type,misc]
    ),
}


def test_a_holder_without_a_session_to_keep() -> None:
    """A holder with other parameters is an error of each argument that is for holders."""
    holder = other(object, revoke_subject=coroutine)
    for construct in (lambda: login().ends(holder), lambda: Revocations(MemoryStore(), ends=[holder])):
        with pytest.raises(ConfigurationError, match=r"^ends: Own\.revoke_subject has other parameters"):
            construct()


@pytest.mark.parametrize("message", WRONG)
def test_a_mistake_is_an_error_when_constructed(message: str) -> None:
    """A coroutine that nothing awaits would be consent, and other parameters a 500 at the first request."""
    with pytest.raises(ConfigurationError) as error:
        WRONG[message]()
    assert str(error.value) == message


def test_a_function_without_a_signature_is_accepted() -> None:
    """Functions in C may have none that can be read."""
    assert function_of("send", max, "of one Message", "message") is max


async def log_in(gate: Login, user: str = "ada") -> Any:
    """Log in by the password."""
    return await gate.with_password(user, PASSWORD, connection=request())


@pytest.mark.parametrize("result", [False, {"subject_id": "ada"}])
async def test_users_of_another_type(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    """``False`` is not a user, for a known and an unknown name alike, and the log names the method."""
    gate = login(users(by_login=returns(result)))
    for name in ("ada", "nobody"):
        with pytest.raises(ServiceUnavailable):
            await log_in(gate, name)
    assert "returned" in caplog.text
    assert "not User or None" in caplog.text


async def test_an_update_without_an_answer() -> None:
    """A coroutine that ``update`` does not await has written nothing, and ends as an outage."""
    written = coroutine()
    gate = login(users(update=returns(written)))
    user = await gate.find("ada")
    assert user is not None
    with pytest.raises(ServiceUnavailable):
        await gate.change(user, password_hash=STORED)
    written.close()


async def test_users_that_cannot_be_changed() -> None:
    """A directory that only reads does not keep ``set_password`` busy."""
    auth = LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), login(users(update=returns(False))))
    with pytest.raises(ServiceUnavailable):
        await auth.set_password("ada", NEW_PASSWORD)


@pytest.mark.parametrize("rule", [fails, returns(None)])
async def test_a_rule_that_fails(rule: Any) -> None:
    """A rule that raises is an outage; one that returns nothing refuses."""
    gate = login(may_login=rule)
    with pytest.raises(HTTPException) as error:
        await log_in(gate)
    assert error.value.status_code == (503 if rule is fails else 401)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_rule_may_refuse_in_its_own_words(*, is_async: bool) -> None:
    """An HTTPException of ``may_login`` is the answer."""

    def refuse(user: User, connection: Any) -> bool:
        raise HTTPException(402, "Pay first")

    async def refuse_later(user: User, connection: Any) -> bool:
        return refuse(user, connection)

    with pytest.raises(HTTPException, match="Pay first"):
        await log_in(login(may_login=refuse_later if is_async else refuse))


async def test_whether_a_second_step_is_needed_cannot_be_decided() -> None:
    """A ``needs_second`` that raises is an outage."""
    with pytest.raises(ServiceUnavailable):
        await log_in(login(second=[PIN()], needs_second=fails))


async def enrolled(factor: PIN) -> tuple[Login, User]:
    """Return a Login whose user has the factor."""
    gate = login(second=[factor])
    user = await gate.find("ada")
    assert user is not None
    begun = await gate.enrolments.begin("pin", user, {}, binding="b")
    assert begun is not None
    assert await gate.enrolments.confirm(user, str(begun.enrolment), {"code": "1"}, binding="b")
    return gate, user


@pytest.mark.parametrize("answer", [None, [], "yes"])
async def test_a_factor_that_does_not_say_whether_it_is_usable(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Without ``return`` it would be a user who needs no second step."""
    gate, _ = await enrolled(other(PIN, usable=lambda self, user, enrolled: answer))
    with pytest.raises(ServiceUnavailable):
        await log_in(gate)
    assert "not True or False" in caplog.text


async def test_a_factor_for_some_users() -> None:
    """A factor that is usable by what it reads of the user is needed of these users."""
    gate, _ = await enrolled(other(PIN, usable=lambda self, user, enrolled: user.subject_id == "ada"))
    pending = await log_in(gate)
    assert isinstance(pending, Pending)
    assert pending.factors == ["pin"]


async def test_a_factor_whose_answers_have_another_type() -> None:
    """A proof that is ``True``, a challenge that is ``None`` and a description that is one are outages."""
    gate, user = await enrolled(other(PIN, verify=returns(True), challenge=returns(None), describe=nothing))
    pending = await log_in(gate)
    assert isinstance(pending, Pending)
    for attempt in (
        gate.challenge(pending.id, "pin", connection=None),
        gate.with_factor(pending.id, "pin", {"code": "1"}, connection=None),
    ):
        with pytest.raises(ServiceUnavailable):
            await attempt
    [factor] = await gate.factors.of(user.subject_id)
    with pytest.raises(ServiceUnavailable):
        gate.factors.describe(factor)


async def test_ten_factors_of_a_kind() -> None:
    """An eleventh is not confirmed, although it was begun while there were nine."""
    gate, user = await enrolled(PIN())
    begun = [await gate.enrolments.begin("pin", user, {}, binding="b") for _ in range(10)]
    confirmed = [
        await gate.enrolments.confirm(user, str(one and one.enrolment), {"code": "1"}, binding="b") for one in begun
    ]
    assert [one is not None for one in confirmed] == [True] * 9 + [False]
    assert len(await gate.factors.of(user.subject_id)) == 10


@pytest.mark.parametrize("answer", ["1", [1]])
async def test_every_holder_ends_what_it_has(answer: Any) -> None:
    """A holder that returns no number does not keep the sessions from ending."""
    gate = login()
    sessions = SessionAuth(gate.store)
    own: Any = other(object, revoke_subject=lambda self, subject, *, keep=None: None)
    own.__class__.revoke_subject = returns(answer)
    gate.ends(own, sessions)
    await sessions.login(Response(), await log_in(gate), connection=request())
    user = await gate.find("ada")
    assert user is not None
    with pytest.raises(ServiceUnavailable):
        await gate.change(user, password_hash=STORED)
    assert await sessions.list("ada") == []


@pytest.mark.parametrize(
    "fields",
    [{"email_verified": "false"}, {"disabled": None}, {"scopes": "a:b"}, {"roles": "admin"}, {"extra_claims": None}],
)
def test_fields_of_another_type(fields: dict[str, Any]) -> None:
    """The text "false" would be an address that is verified, and the letters of a text scopes."""
    [name] = fields
    with pytest.raises(ValueError, match=f"a user has another type as {name}, not "):
        User(subject_id="ada", username="ada", **fields)


async def test_claims_that_are_none() -> None:
    """Claims of another type are an outage of a login."""
    kind = subclass(User, claims=nothing)
    ada = kind(subject_id="ada", username="ada", password_hash=STORED)
    with pytest.raises(ServiceUnavailable):
        await log_in(login(users(by_login=returns(ada))))


@pytest.mark.parametrize("result", [False, True])
async def test_checks_of_passwords_that_return_something(result: Any) -> None:
    """A check accepts by returning nothing: whether ``True`` is good or bad cannot be known."""
    registering = {"browser": None, "connection": None}
    strict = accounts(policy=other(PasswordPolicy, check=lambda self, password, *names: result))
    with pytest.raises(ServiceUnavailable):
        await strict.registration.register(ADA, **registering)
    breached = accounts(breached=other(object, check=returns(result)))
    with pytest.raises(ServiceUnavailable):
        await breached.registration.register(ADA, **registering)


async def test_checks_of_passwords_that_reject() -> None:
    """A ValueError has the text for the user."""

    async def check(self: Any, password: str) -> None:
        msg = "known elsewhere"
        raise ValueError(msg)

    with pytest.raises(Rejected, match="known elsewhere"):
        await accounts(breached=other(object, check=check)).registration.register(ADA, browser=None, connection=None)


@pytest.mark.parametrize("new_user", [nothing, fails])
async def test_a_new_user_that_is_none(clock: Clock, new_user: Any) -> None:
    """No user is added where ``new_user`` does not return a user."""
    shop = Shop(clock, options={"new_user": new_user})
    await shop.accounts.registration.register(ADA, browser="b", connection=request())
    await shop.outbox.drain()
    proof = await shop.proof(browser="b")
    with pytest.raises(ServiceUnavailable):
        await shop.accounts.registration.verify(proof, connection=request())
    assert await shop.users.by_login("ada") is None


async def test_an_invitation_that_cannot_be_decided() -> None:
    """A ``may_invite`` that raises is an outage, and one that returns nothing refuses."""
    inviter = User(subject_id="ada", username="ada")
    invited = Invited(email="eve@example.com")
    with pytest.raises(ServiceUnavailable):
        await accounts(may_invite=fails).invitations.invite(invited, inviter=inviter)
    with pytest.raises(Forbidden):
        await accounts(may_invite=nothing).invitations.invite(invited, inviter=inviter)


async def test_a_hasher_whose_verdict_is_a_text() -> None:
    """Only ``True`` is a right password."""
    gate = login()
    object.__setattr__(gate.passwords, "verify_and_update", returns(("no", None)))
    with pytest.raises(HTTPException, match="Incorrect"):
        await log_in(gate)


async def test_known_devices_in_a_store_that_never_writes() -> None:
    """A store that another process changes each time is given up, and does not keep the process busy."""
    store = other(MemoryStore, add=returns(False))
    with pytest.raises(ServiceUnavailable) as error:
        await KnownDevices(store, "login", None).see(User(subject_id="ada", username="ada"), Client("192.0.2.1"), 1e9)
    assert error.value.reason == "contended"
