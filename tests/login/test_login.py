"""Login: who gets in, who needs a second step, and what a login leaves in its claims."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy.ext.asyncio import async_sessionmaker
from starlette.requests import HTTPConnection

from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable, TooManyRequests, Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.client import Client
from fastapi_guard.login.factor import Strength
from fastapi_guard.login.gate import is_multiple
from fastapi_guard.login.limits import LoginLimits, default_limits
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.throttle import Throttle, account
from fastapi_guard.login.throttle.windows import rate_of
from fastapi_guard.login.users import DatabaseUsers, MappingUsers, User
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD, CountingStore, request
from support.logins import ADDRESS, House, users_of
from support.passwords import CountingContext, quick_hasher

WRONG = (401, "Incorrect username or password", {"WWW-Authenticate": 'Bearer realm="api"'}, "login_failed")
FAILED = (401, "Login failed", {"WWW-Authenticate": 'Bearer realm="api"'}, "login_failed")


def house(clock: Clock, **options: Any) -> House:
    """Return a Login in memory."""
    return House(MemoryStore(clock=clock), clock, options)


async def refusal(attempt: Any) -> tuple[Any, ...]:
    """Return how a login is refused."""
    with pytest.raises(Unauthorized) as error:
        await attempt
    return error.value.status_code, error.value.detail, error.value.headers, error.value.reason


async def test_a_password_is_enough(clock: Clock) -> None:
    """Without an enrolled factor a password completes the login, with the claims of the user and of the proof."""
    home = house(clock)
    outcome = await home.complete("Ada@Example.com")
    now = int(clock())
    proof = {"amr": ["pwd"], "auth_time": now, "factors": {"pwd": now}}
    assert outcome.claims == {"sub": "ada", "subject_type": "user", "is_admin": False, "scope": "a:b", **proof}
    assert (outcome.kept, outcome.second, outcome.trusted) == (proof, False, False)
    assert home.login.now() == clock()
    assert (outcome.client, outcome.user) == (Client("192.0.2.1", "Firefox"), await home.user())
    assert home.names() == []
    await outcome.confirm()
    assert home.names() == ["login_succeeded"]


ODD = [
    ("ada", "wrong"),
    ("ada", ""),
    ("ada", PASSWORD + " "),
    ("ada", "a" * 1_000_000),
    ("ada", "\0"),
    ("ada", "\ud800"),
    ("nobody", PASSWORD),
    ("mallory", PASSWORD),
    ("mallory", "wrong"),
    ("mallory@example.com", PASSWORD),
    ("", PASSWORD),
    ("\0", PASSWORD),
    ("\ud800", PASSWORD),
    ("x" * 1_000_000, PASSWORD),
]


@pytest.mark.parametrize(("username", "password"), ODD, ids=range(len(ODD)))
async def test_one_refusal_and_the_same_work(clock: Clock, username: str, password: str) -> None:
    """Unknown, disabled, wrong, malformed: one refusal, after the work of one hash with the current settings."""
    home = house(clock)
    await home.complete()
    counted = CountingContext(home.hasher)
    assert await refusal(home.login.with_password(username, password, connection=request())) == WRONG
    assert counted.calls == {"verify": 1}
    assert all(stored.startswith("$argon2id$v=19$m=64,t=1,p=1$") for stored in counted.verified)
    home.hasher.close()


@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
async def test_an_outdated_hash_costs_the_same_work(clock: Clock, password: str, *, disabled: bool) -> None:
    """With an outdated hash the right and the wrong password, of an active and a disabled user, cost the same."""
    stored = await quick_hasher("bcrypt").hash(PASSWORD)
    users = users_of(password_hash=stored, disabled=disabled)
    home = House(MemoryStore(clock=clock), clock, users=users)
    await home.hasher.verify(PASSWORD, None)
    counted = CountingContext(home.hasher)
    attempt = home.login.with_password("ada", password, connection=request())
    if password == PASSWORD and not disabled:
        assert isinstance(await attempt, Complete)
    else:
        assert await refusal(attempt) == WRONG
    assert counted.calls == {"verify": 1, "hash": 1}
    replaced = (await home.user()).password_hash != stored
    assert replaced is (password == PASSWORD and not disabled)
    home.hasher.close()


async def may_not(user: User, connection: HTTPConnection | None) -> bool:
    """Return that a user may not log in, asynchronously."""
    return user.subject_id != "ada"


@pytest.mark.parametrize("rule", [*(lambda user, _, say=say: say for say in (False, None, 1)), may_not], ids=range(4))
async def test_the_application_has_a_say(clock: Clock, rule: Callable[..., Any]) -> None:
    """may_login, sync or async, keeps a user out on every way in; anything but True is a no."""
    home = house(clock, may_login=rule)
    assert await refusal(home.login.with_password("ada", PASSWORD, connection=request())) == WRONG
    assert await refusal(home.login.begin(await home.user(), amr=["fed"], connection=request())) == FAILED
    assert set(home.names()) == {"login_failed"}


async def test_the_request_of_a_login(clock: Clock) -> None:
    """On each way in may_login gets the user and the request, and the login has the client of the request."""
    seen: list[Any] = []
    home, connection = house(clock, may_login=lambda user, request: seen.append((user, request)) is None), request()
    await home.login.offer("mail", login="ada", binding="browser", connection=connection)
    await home.outbox.drain()
    proof = {"code": home.messages[-1].code}
    for attempt in (
        home.login.with_password("ada", PASSWORD, connection=connection),
        home.login.begin(await home.user(), amr=["fed"], connection=connection),
        home.login.with_first("mail", proof, binding="browser", connection=connection),
    ):
        outcome = await attempt
        assert isinstance(outcome, Complete)
        assert outcome.client == ADDRESS
        assert seen.pop() == (await home.user(), connection)
    assert seen == []


async def test_the_rule_of_the_application_fails(clock: Clock) -> None:
    """A may_login that raises is a 503, never a login."""

    async def broken(user: User, connection: HTTPConnection | None) -> bool:
        raise OSError

    def broken_at_once(user: User, connection: HTTPConnection | None) -> bool:
        raise OSError

    for rule in (broken, broken_at_once):
        home = house(clock, may_login=rule)
        with pytest.raises(ServiceUnavailable) as unavailable:
            await home.complete()
        assert unavailable.value.reason == "may_login"


async def test_the_rule_of_the_application_answers_by_itself(clock: Clock) -> None:
    """An HTTPException of its own is raised as it is, by a def and an async def."""

    async def later(user: User, connection: HTTPConnection | None) -> bool:
        raise HTTPException(402)

    def at_once(user: User, connection: HTTPConnection | None) -> bool:
        raise HTTPException(402)

    for rule in (later, at_once):
        with pytest.raises(HTTPException) as raised:
            await house(clock, may_login=rule).complete()
        assert raised.value.status_code == 402


async def test_who_may_not_log_in(clock: Clock) -> None:
    """A user who is disabled, or whose address is not verified, does not get in by any proof."""
    home = house(clock)
    user = await home.user()
    for fields in ({"disabled": True}, {"email_verified": False}):
        assert await refusal(home.login.begin(replace(user, **fields), amr=["fed"], connection=None)) == FAILED
        home.users._users["ada"] = replace(user, **fields)
        assert await refusal(home.login.with_password("ada", PASSWORD, connection=request())) == WRONG
    home.users._users["ada"] = replace(user, email=None, email_verified=False)
    assert (await home.complete()).user.subject_id == "ada"


async def test_claims_of_the_application(clock: Clock) -> None:
    """Claims given to begin are kept; a claim that a login sets itself is refused; a user cannot set the proof."""
    users = users_of(extra_claims={"amr": ["mfa"], "auth_time": 9**9, "factors": {}, "sid": "x", "sub": "root", "a": 1})
    home = House(MemoryStore(clock=clock), clock, users=users)
    user = await home.user()
    outcome = await home.login.begin(user, amr=["fed"], claims={"provider": "google", "a": 2}, connection=None)
    assert isinstance(outcome, Complete)
    now = int(clock())
    proof = {"amr": ["fed"], "auth_time": now, "factors": {"fed": now}}
    assert outcome.kept == {"provider": "google", "a": 2, **proof}
    assert {name: outcome.claims.get(name) for name in ("sub", "sid", "a", *proof)} == {
        "sub": "ada",
        "sid": None,
        "a": 2,
        **proof,
    }
    for claims in ({"sub": "root"}, {"amr": ["mfa"]}, {"exp": 1}, {"cnf": {}}, {"sid": "1", "jti": "2"}):
        with pytest.raises(ValueError, match="a login sets the claims"):
            await home.login.begin(user, amr=["fed"], claims=claims, connection=None)
    for amr in ([], "pwd"):
        with pytest.raises(ValueError, match=r'^amr is a list of authentication methods, such as \["fed"\]$'):
            await home.login.begin(user, amr=amr, connection=None)


async def needs_none(_: User) -> bool:
    """Need no second factor, as an async def."""
    return False


async def test_a_second_factor_that_cannot_be_decided(clock: Clock) -> None:
    """A needs_second that raises is a 503, never a login."""

    def broken(user: User) -> bool:
        raise OSError

    with pytest.raises(ServiceUnavailable) as unavailable:
        await house(clock, needs_second=broken).complete()
    assert unavailable.value.reason == "needs_second"


NEEDS: list[tuple[Any, bool, str]] = [
    ("never", True, "complete"),
    ("never", False, "complete"),
    ("enrolled", True, "pending"),
    ("enrolled", False, "complete"),
    ("always", True, "pending"),
    ("always", False, "no_second_factor"),
    (lambda user: user.subject_id == "ada", True, "pending"),
    (lambda user: user.subject_id == "ada", False, "no_second_factor"),
    (lambda user: False, True, "pending"),
    (lambda user: False, False, "complete"),
    (lambda user: None, False, "no_second_factor"),
    (needs_none, False, "complete"),
]


@pytest.mark.parametrize(("needs", "enrolled", "expected"), NEEDS, ids=range(len(NEEDS)))
async def test_who_needs_a_second_step(clock: Clock, needs: Any, expected: str, *, enrolled: bool) -> None:
    """never, enrolled, always or a function decides; an enrolled factor is needed even where that returns False."""
    home = house(clock, needs_second=needs)
    if enrolled:
        await home.enrol("totp")
    if expected == "no_second_factor":
        with pytest.raises(Forbidden) as error:
            await home.complete()
        assert (error.value.detail, error.value.reason) == ("A second factor has to be enrolled", expected)
        return
    for attempt in (
        home.login.with_password("ada", PASSWORD, connection=request()),
        home.login.begin(await home.user(), amr=["fed"], connection=request()),
    ):
        assert isinstance(await attempt, Pending if expected == "pending" else Complete)
    assert isinstance(await home.login.begin(await home.user(), amr=["hwk", "mfa"], connection=None), Complete)


async def test_a_login_that_is_pending_has_no_secret_in_its_repr(clock: Clock) -> None:
    """A pending login names its factors, the strongest first, and its lifetime; its id is not in the repr."""
    home = house(clock)
    await home.enrol("totp")
    await home.enrol("passkey")
    home.names()
    pending = await home.pending()
    assert (pending.factors, pending.expires_in) == (["passkey", "totp"], 600)
    assert len(pending.id) == 43
    assert pending.id not in repr(pending)
    assert home.names() == ["login_pending"]


async def test_a_mailbox_counts_once(clock: Clock) -> None:
    """A login that began with a message has no second step in the same mailbox, and is not one by many factors."""
    home = house(clock)
    await home.enrol("mail")
    user = await home.user()
    begun = await home.login.begin(user, amr=["mail"], connection=None)
    assert isinstance(begun, Complete)
    await home.enrol("totp")
    begun = await home.login.begin(await home.user(), amr=["mail"], connection=None)
    assert isinstance(begun, Pending)
    assert begun.factors == ["totp"]
    outcome = await home.login.with_totp(begun.id, home.code(), connection=None)
    assert outcome.claims["amr"] == ["mail", "otp"]
    pending = await home.pending()
    assert pending.factors == ["totp", "mail"]
    await home.login.challenge(pending.id, "mail", connection=request(accept_language="de-AT,de;q=0.5"))
    await home.outbox.drain()
    assert home.messages[-1].locale == "de-AT"
    outcome = await home.login.with_mailed_code(pending.id, home.messages[-1].code or "", connection=None)
    assert outcome.claims["amr"] == ["pwd", "mail"]


async def test_a_first_factor(clock: Clock) -> None:
    """A message to the address begins a login in the browser that asked, once, and by the name that was typed."""
    home = house(clock)
    for name in (" ADA@example.com ", "ada", "nobody@example.com"):
        german = request(accept_language="de-AT,de;q=0.5")
        assert await home.login.offer("mail", login=name, binding="browser", connection=german) == {}
    await home.outbox.drain()
    code = home.messages[-1].code
    assert [(message.address, message.locale) for message in home.messages] == [("ada@example.com", "de-AT")] * 2
    proof = {"code": code}
    elsewhere = home.login.with_first("mail", proof, binding="other", connection=request())
    assert await refusal(elsewhere) == FAILED
    outcome = await home.login.with_first("mail", proof, binding="browser", connection=request())
    assert isinstance(outcome, Complete)
    assert outcome.claims["amr"] == ["mail"]
    assert await refusal(home.login.with_first("mail", proof, binding="browser", connection=request())) == FAILED


async def test_a_passkey_alone(clock: Clock) -> None:
    """A passkey with user verification is a login by several factors, without a second step."""
    home = house(clock)
    device = await home.enrol("passkey")
    offer = await home.login.offer("passkey", binding="browser", connection=request())
    proof = {"credential": device.get(offer["publicKey"])}
    outcome = await home.login.with_first("passkey", proof, binding="browser", connection=request())
    assert isinstance(outcome, Complete)
    assert {"user", "mfa"} <= set(outcome.claims["amr"])
    home.users._users["ada"] = replace(await home.user(), disabled=True)
    offer = await home.login.offer("passkey", binding="browser", connection=request())
    proof = {"credential": device.get(offer["publicKey"])}
    assert await refusal(home.login.with_first("passkey", proof, binding="browser", connection=request())) == FAILED
    assert home.events[-1] == Event("login_failed", "login", 401, "login_failed", subject="ada")


@pytest.mark.parametrize("name", ["ada", "nobody", "mallory"])
async def test_an_account_is_throttled(clock: Clock, name: str) -> None:
    """The sixth attempt in 15 minutes is a 429, known or not, under whichever name, with the right password too."""
    home = house(clock)
    for spelling in (name, name.upper(), f" {name}", f"{name} ", name):
        assert await refusal(home.login.with_password(spelling, "wrong", connection=request())) == WRONG
    home.names()
    counted = CountingContext(home.hasher)
    with pytest.raises(TooManyRequests) as error:
        await home.login.with_password(name, PASSWORD, connection=request("198.51.100.1"))
    assert error.value.headers == {"Retry-After": "900"}
    assert (counted.calls, home.events) == ({}, [Event("login_throttled", "login", 429, "throttled")])
    clock.move(900)
    assert await home.complete()


async def test_offers_are_throttled(clock: Clock) -> None:
    """The sixth offer for a name in 15 minutes is a 429; other names, kinds and offers without a name count apart."""
    home = house(clock)

    async def offer(kind: str, login: str | None) -> None:
        await home.login.offer(kind, login=login, binding="browser", connection=request())

    for name in ("ada", " ada", "ADA", "ada ", "ada"):
        await offer("mail", name)
    home.names()
    with pytest.raises(TooManyRequests):
        await offer("mail", "ada")
    assert home.names() == ["login_throttled"]
    await offer("mail", "bob")
    await offer("passkey", "ada")
    for _ in range(6):
        await offer("passkey", None)
    assert await home.complete()
    await home.outbox.drain()


async def test_attempts_without_a_name_count_for_the_address(clock: Clock) -> None:
    """An offer, a proof by a first factor and a current password are counted for the address that they come from."""
    home = house(clock, limits=LoginLimits(address=Throttle("1/15 minutes", clock=clock)))
    user, login = await home.user(), home.login
    attempts: list[Callable[[HTTPConnection], Awaitable[Any]]] = [
        lambda connection: login.offer("passkey", binding="browser", connection=connection),
        lambda connection: login.with_first("mail", {"code": "1"}, binding="browser", connection=connection),
        lambda connection: login.proves_password(user, "wrong", connection=connection),
    ]
    for number, attempt in enumerate(attempts):
        connection = request(f"192.0.2.{number}")
        with suppress(Unauthorized):
            await attempt(connection)
        with pytest.raises(TooManyRequests):
            await attempt(connection)


async def test_one_account_under_two_names(clock: Clock) -> None:
    """The username and the address of a user count together, and a success forgets them."""
    home = house(clock)
    for name in ("ada", "ada@example.com", "ada", "ADA@EXAMPLE.COM"):
        await refusal(home.login.with_password(name, "wrong", connection=None))
    await home.complete()
    for name in ("ada", "ada@example.com", "ada", "ada@example.com", "ada"):
        await refusal(home.login.with_password(name, "wrong", connection=None))
    with pytest.raises(TooManyRequests):
        await home.login.with_password("ada@example.com", PASSWORD, connection=None)


async def test_a_hundred_guesses_at_once(clock: Clock) -> None:
    """Of 100 guesses at once five are verified, the others are too many."""
    home = house(clock)
    guesses = (home.login.with_password("ada", f"guess {number}", connection=None) for number in range(100))
    answers = [type(answer) for answer in await asyncio.gather(*guesses, return_exceptions=True)]
    assert (answers.count(Unauthorized), answers.count(TooManyRequests)) == (5, 95)


async def test_an_address_is_throttled(clock: Clock) -> None:
    """The 51st attempt of an address is a 429, and does not use up the attempts of an account."""
    home = house(clock)
    for number in range(50):
        forged = request(x_forwarded_for=f"10.0.0.{number}")
        assert await refusal(home.login.with_password(f"user{number}", "wrong", connection=forged)) == WRONG
    for _ in range(6):
        with pytest.raises(TooManyRequests):
            await home.login.with_password("ada", "wrong", connection=request())
    assert await home.complete(address="192.0.2.2")
    clock.move(900)
    assert await home.complete()


def test_the_limits_of_a_login(clock: Clock) -> None:
    """LoginLimits and a Login without any have the same limits and names."""
    rates = [("login-account", rate_of("5/15 minutes")), ("login-address", rate_of("50/15 minutes"))]
    for limits in (LoginLimits(), default_limits(clock)):
        assert [(limit.name, limit.rate) for limit in (limits.account, limits.address) if limit] == rates


async def test_an_address_behind_proxies(clock: Clock) -> None:
    """With trusted proxies the address is the one that they saw, for limits and for lists of devices."""
    limits = LoginLimits(address=Throttle("1/15 minutes", clock=clock))
    home = house(clock, limits=limits, trusted_proxies=1)
    forwarded = {"x_forwarded_for": "203.0.113.9, 198.51.100.1"}
    assert (await home.complete(address="10.0.0.1", **forwarded)).client.address == "198.51.100.1"
    with pytest.raises(TooManyRequests):
        await home.complete(address="10.0.0.1", **forwarded)
    assert await home.complete(address="10.0.0.1", x_forwarded_for="198.51.100.2")


async def test_an_address_counts_before_the_body(clock: Clock) -> None:
    """An address that is counted before the body is read is not counted again, and only for one attempt."""
    home = house(clock, limits=LoginLimits(address=Throttle("2/15 minutes", clock=clock)))
    batch = request()
    await home.login.limits.count_address(batch)
    await home.login.with_password("ada", PASSWORD, connection=batch)
    await home.login.with_password("ada", PASSWORD, connection=batch)
    with pytest.raises(TooManyRequests):
        await home.login.with_password("ada", PASSWORD, connection=batch)


async def test_without_limits(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Limits can be left out, which is logged."""
    home = house(clock, limits=LoginLimits(account=None, address=None))
    assert "can be tried without one" in caplog.text
    for _ in range(60):
        await refusal(home.login.begin(replace(await home.user(), disabled=True), amr=["fed"], connection=request()))
    for _ in range(6):
        assert await refusal(home.login.with_password("ada", "wrong", connection=request())) == WRONG
    assert await home.complete()


@pytest.mark.parametrize("missing", [["account"], ["address"], ["account", "address"], []])
def test_a_limit_that_is_left_out_is_logged(missing: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Without one of the limits, or both, there is one warning; with both there is none."""
    LoginLimits(**dict.fromkeys(missing))
    warning = "LoginLimits without a limit: passwords and codes can be tried without one"
    assert caplog.messages == ([warning] if missing else [])


async def test_the_current_password(clock: Clock) -> None:
    """proves_password verifies the password of a user, counted with the logins of the account."""
    home = house(clock)
    user = await home.user()
    assert await home.login.proves_password(user, PASSWORD, connection=request())
    assert await home.login.proves_password(replace(user, email_verified=False), PASSWORD, connection=request())
    assert not await home.login.proves_password(replace(user, password_hash=None), PASSWORD, connection=None)
    for _ in range(4):
        assert not await home.login.proves_password(user, "wrong", connection=request())
    with pytest.raises(TooManyRequests):
        await home.login.with_password("ada", PASSWORD, connection=request())


async def test_without_passwords(clock: Clock) -> None:
    """A Login without passwords has none to log in with."""
    home = house(clock, passwords=None)
    with pytest.raises(ConfigurationError, match=r"^this Login has no passwords: Login\(\.\.\., passwords=Pass"):
        await home.complete()
    assert await home.login.begin(await home.user(), amr=["fed"], connection=None)
    await home.login.aclose()


async def test_round_trips(clock: Clock) -> None:
    """A login by password costs no round trip to the store, and one for each of: factors, a trusted device, pending."""
    store = CountingStore(MemoryStore(clock=clock))
    home = House(store, clock, {"second": ()})
    await home.complete()
    assert store.trips == []
    store = CountingStore(MemoryStore(clock=clock))
    home = House(store, clock, {"trusted_devices": timedelta(days=30)})
    await home.complete()
    assert store.trips == ["find"]
    await home.enrol("totp")
    store.trips.clear()
    await home.pending(cookie="__Host-device-login=x")
    assert store.trips == ["find", "get", "add"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"users": ["ada"]}, "users is a mapping, or has the methods by_login, by_subject"),
    ({"users": MappingUsers}, "users is a mapping"),
    ({"users": {"bob": {}}}, "password_hash is needed"),
    (
        {"store": "redis://localhost"},
        r"store is a Store, such as MemoryStore\(\), not text of 17 characters",
    ),
    ({"passwords": "$argon2id$v=19$m=64$x"}, "passwords is a PasswordHasher or None"),
    ({"passwords": PasswordHasher}, "passwords is a PasswordHasher or None"),
    (
        {"needs_second": "sometimes"},
        '^needs_second is "enrolled", "never", "always" or a function of the user, not text of 9 characters$',
    ),
    (
        {"needs_second": "always"},
        r"""^needs_second needs a factor: pass second=\[...\], such as \[TOTP\(key=..., issuer="Shop"\)\]$""",
    ),
    ({"needs_second": lambda user: True}, "needs_second needs a factor"),
    ({"may_login": "admins"}, "may_login is a function"),
    ({"name": ""}, "a name is text"),
    ({"second": [RecoveryCodes(), RecoveryCodes()]}, "two factors have one name"),
    ({"trusted_proxies": -1}, "trusted_proxies is a number of proxies from 0 on"),
    ({"trusted_devices": timedelta()}, "trusted_devices is a timedelta"),
    ({"trusted_devices": timedelta(days=91)}, "trusted_devices is at most 90 days"),
    ({"on_event": "log"}, "on_event is a function"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=range(len(BAD)))
def test_a_configuration_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """An argument of the wrong type, or a configuration that cannot work, is refused when constructed."""
    with pytest.raises(ConfigurationError, match=message):
        Login(**{"users": {}, "store": MemoryStore(), **options})


def test_users_of_a_database_are_not_read_when_constructed() -> None:
    """The hashes of users in a mapping are checked at once, those of a database as they are used."""
    assert Login(DatabaseUsers(async_sessionmaker()), MemoryStore(), passwords=quick_hasher())


def test_no_second_steps_need_no_factors() -> None:
    """Only a Login that requires one needs a kind of factor."""
    assert Login({}, MemoryStore(), needs_second="never").factors.kinds == {}


@pytest.mark.parametrize(
    ("before", "methods", "strength", "expected"),
    [
        (["pwd"], ["otp"], Strength.CODE, True),
        (["pwd", "mfa"], ["otp"], Strength.CODE, True),
        (["mfa"], ["otp"], Strength.CODE, False),
        (["mail"], ["otp"], Strength.CODE, False),
        (["mail", "mfa"], ["otp"], Strength.CODE, False),
        (["otp"], ["otp"], Strength.CODE, False),
        (["pwd"], ["mail"], Strength.MAILBOX, False),
    ],
)
def test_several_factors(before: list[str], methods: list[str], strength: Strength, expected: bool) -> None:
    """Two different proofs are several factors; a mailbox, the same one again and the mark of it are not."""
    assert is_multiple(before, methods, strength) is expected


def test_limits_that_cannot_work() -> None:
    """A limit is a Throttle by the client's address."""
    for throttle in (Throttle("9/minute", trusted_proxies=1), Throttle("9/minute", by=account())):
        with pytest.raises(ConfigurationError, match="decides whose address is counted"):
            LoginLimits(address=throttle)
    with pytest.raises(ConfigurationError, match="account is a Throttle"):
        LoginLimits(account="5/15 minutes")  # type: ignore[arg-type]


def test_two_logins_of_one_name_on_one_store() -> None:
    """A second Login of the same name on one store is refused: it would accept the pending logins of the first."""
    store = MemoryStore()
    first = Login({}, store)
    with pytest.raises(ConfigurationError, match=r"two Logins named 'login' on one store.*pass Login"):
        Login({}, store)
    assert (Login({}, store, name="staff").name, first.name) == ("staff", "login")


async def test_an_outdated_hash_that_cannot_be_replaced(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A hash that cannot be written does not fail the login; the log does not quote it."""

    class ReadOnly(MappingUsers):
        async def set_password_hash(self, subject: str, expected: str | None, new: str) -> bool:
            msg = f"cannot write {new}"
            raise OSError(msg)

    stored = await quick_hasher("bcrypt").hash(PASSWORD)
    home = House(MemoryStore(clock=clock), clock, users=ReadOnly({"ada": {"password_hash": stored}}))
    assert await home.complete()
    assert "an outdated password hash could not be replaced: OSError" in caplog.text
    assert "$" not in caplog.text


@pytest.mark.parametrize("error", [OSError("away"), ServiceUnavailable(reason="users_unreachable")])
async def test_users_that_are_unreachable(clock: Clock, error: Exception) -> None:
    """Users that cannot be read are a 503 with Retry-After."""

    class Unreachable(MappingUsers):
        async def by_login(self, login: str) -> User | None:
            raise error

    home = House(MemoryStore(clock=clock), clock, users=Unreachable({}))
    with pytest.raises(ServiceUnavailable) as refused:
        await home.complete()
    assert (refused.value.reason, refused.value.headers) == ("users_unreachable", {"Retry-After": "5"})


async def test_events_name_the_user(clock: Clock) -> None:
    """A failed login is an event with the subject where there is one, and never with what the client sent."""
    home = house(clock)
    await refusal(home.login.with_password("ada", "wrong", connection=None))
    await refusal(home.login.with_password("nobody", "wrong", connection=None))
    await refusal(home.login.begin(replace(await home.user(), disabled=True), amr=["fed"], connection=None))
    assert home.events == [
        Event("login_failed", "login", 401, "login_failed", subject="ada"),
        Event("login_failed", "login", 401, "login_failed"),
        Event("login_failed", "login", 401, "login_failed", subject="ada"),
    ]
