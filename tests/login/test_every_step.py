"""Every step of every login: the address counts, the application decides, the client is kept, an event names both."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request

from fastapi_guard import ConfigurationError, TooManyRequests, Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.client import Client
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.login import Complete
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD, request
from support.logins import House

# A step that is prepared, and takes the request of the client.
Step = Callable[[Request], Awaitable[Any]]


async def claims_of(home: House) -> dict[str, Any]:
    """Return the claims of a login by password."""
    return {"sub": "ada", "sid": "s1", "amr": ["pwd"], "auth_time": int(home.clock())}


async def by_password(home: House) -> Step:
    """Log in with a password."""
    return lambda connection: home.login.with_password("bob", PASSWORD, connection=connection)


async def by_another_proof(home: House) -> Step:
    """Log in with a proof that was made elsewhere."""
    user = await home.user("bob")
    return lambda connection: home.login.begin(user, amr=["fed"], connection=connection)


async def by_a_first_factor(home: House) -> Step:
    """Log in with a message."""
    await home.login.offer("mail", login="bob", binding="b", connection=None)
    await home.outbox.drain()
    proof = {"code": home.messages[-1].code}
    return lambda connection: home.login.with_first("mail", proof, binding="b", connection=connection)


async def by_a_second_factor(home: House) -> Step:
    """Complete a pending login."""
    await home.enrol("totp")
    pending = await home.pending()
    return lambda connection: home.login.with_totp(pending.id, home.code(), connection=connection)


async def by_password_again(home: House) -> Step:
    """Step up with the password."""
    claims, proof = await claims_of(home), {"password": PASSWORD}
    return lambda connection: home.login.step_up.complete(claims, "password", proof, connection=connection)


async def by_a_factor_again(home: House) -> Step:
    """Step up with a factor."""
    await home.enrol("totp")
    claims = await claims_of(home)
    return lambda connection: home.login.step_up.complete(claims, "totp", {"code": home.code()}, connection=connection)


async def by_an_enrolment(home: House) -> Step:
    """Renew a login with the factor that was just enrolled."""
    claims = await claims_of(home)
    return lambda connection: home.login.step_up.renewed(claims, ["otp"], connection=connection)


async def offer(home: House) -> Step:
    """Request a message to log in with."""
    return lambda connection: home.login.offer("mail", login="ada", binding="b", connection=connection)


async def challenge(home: House) -> Step:
    """Request a message for the second step."""
    await home.enrol("mail")
    pending = await home.pending()
    return lambda connection: home.login.challenge(pending.id, "mail", connection=connection)


async def challenge_again(home: House) -> Step:
    """Request a message for a step-up."""
    await home.enrol("mail")
    claims = await claims_of(home)
    return lambda connection: home.login.step_up.challenge(claims, "mail", connection=connection)


async def password_alone(home: House) -> Step:
    """Verify a password for a change of it."""
    user = await home.user()
    return lambda connection: home.login.proves_password(user, PASSWORD, connection=connection)


PASSWORDS = [by_password, by_password_again]
FIRST = [by_another_proof, by_a_first_factor]
SECOND = [by_a_second_factor, by_a_factor_again]
OFFERS = [offer, challenge, challenge_again]


def house(clock: Clock, **options: Any) -> House:
    """Return a Login in memory."""
    return House(MemoryStore(clock=clock), clock, options)


@pytest.mark.parametrize("prepare", [*PASSWORDS, password_alone, by_a_first_factor, *SECOND, *OFFERS])
async def test_the_address_counts(clock: Clock, prepare: Callable[[House], Awaitable[Step]]) -> None:
    """Each step that could be guessed, or that sends a message, counts for the address of its client, and once."""
    limit = Throttle("2/hour", clock=clock)
    home = house(clock, limits=LoginLimits(account=None, address=limit), name="shop")
    step = await prepare(home)
    await limit.hit("198.51.100.7")
    assert await step(request("198.51.100.7")) is not None
    home.names()
    with pytest.raises(TooManyRequests):
        await step(request("198.51.100.7"))
    assert [(event.name, event.auth, event.subject) for event in home.events] == [("login_throttled", "shop", None)]
    await home.outbox.drain()


@pytest.mark.parametrize("prepare", [*PASSWORDS, *FIRST, *SECOND])
async def test_the_rule_of_the_application(clock: Clock, prepare: Callable[[House], Awaitable[Step]]) -> None:
    """Its rule decides each way in, about the user and the request; a refusal is an event with the user."""
    asked: list[tuple[str, Any]] = []
    blocked = request("198.51.100.7")

    def may_login(user: Any, connection: Any) -> bool:
        asked.append((user.subject_id, connection))
        return connection is not blocked

    home = house(clock, may_login=may_login, name="shop")
    step = await prepare(home)
    home.names()
    with pytest.raises(Unauthorized) as error:
        await step(blocked)
    subject, connection = asked[-1]
    assert connection is blocked
    assert home.events == [Event("login_failed", "shop", 401, "login_failed", subject=subject)]
    assert error.value.detail in {"Login failed", "Incorrect username or password"}
    clock.move(60)
    admitted, step = request("198.51.100.8"), await prepare(home)
    assert isinstance(await step(admitted), Complete)
    assert asked[-1][1] is admitted
    await home.outbox.drain()


@pytest.mark.parametrize("prepare", [*PASSWORDS, *FIRST, *SECOND, by_an_enrolment])
async def test_the_client_and_the_event(clock: Clock, prepare: Callable[[House], Awaitable[Step]]) -> None:
    """Each outcome has the client of its request, and the event of its credential has the Login and the user."""
    home = house(clock, name="shop")
    step = await prepare(home)
    home.names()
    outcome = await step(request("198.51.100.7", agent="Lynx"))
    assert outcome.client == Client("198.51.100.7", "Lynx")
    await outcome.confirm()
    subject = outcome.user.subject_id
    name = "stepped_up" if prepare.__name__.endswith(("again", "enrolment")) else "login_succeeded"
    assert home.events[-1] == Event(name, "shop", subject=subject)
    assert all((event.auth, event.subject) == ("shop", subject) for event in home.events)
    await home.outbox.drain()


@pytest.mark.parametrize("prepare", OFFERS)
@pytest.mark.parametrize(
    ("fields", "locale"),
    [({"accept_language": "de-AT,de;q=0.5"}, "de-AT"), ({"accept_language": "<x>"}, None), ({}, None)],
)
async def test_the_language(
    clock: Clock, prepare: Callable[[House], Awaitable[Step]], fields: dict[str, str], locale: str | None
) -> None:
    """Each message is in the language that the client of its request prefers."""
    home = house(clock)
    step = await prepare(home)
    await step(request(**fields))
    await home.outbox.drain()
    assert home.messages[-1].locale == locale


@pytest.mark.parametrize("prepare", SECOND)
async def test_a_wrong_second_factor(clock: Clock, prepare: Callable[[House], Awaitable[Step]]) -> None:
    """A wrong second factor is an event with the Login, the user and the reason."""
    home = house(clock, name="shop")
    step = await prepare(home)
    home.secrets["ada"] = "A" * 32
    home.names()
    with pytest.raises(Unauthorized) as error:
        await step(request())
    assert (error.value.detail, error.value.reason) == ("The second factor is wrong", "second_factor_failed")
    reason = "second_factor_failed"
    assert home.events == [Event("second_factor_failed", "shop", 401, reason, subject="ada")]


@pytest.mark.parametrize("name", ["ada", " ADA ", "nobody"])
async def test_offers_count_for_the_account(clock: Clock, name: str) -> None:
    """An account, known or not, is offered a message five times in 15 minutes, under whichever spelling."""
    home = house(clock)
    for _ in range(5):
        assert await home.login.offer("mail", login=name, binding="b", connection=None) == {}
    with pytest.raises(TooManyRequests):
        await home.login.offer("mail", login=name.strip().lower(), binding="b", connection=None)
    assert await home.login.offer("mail", login="bob", binding="b", connection=None) == {}
    for _ in range(6):
        # Without a name there is no account to count for.
        assert await home.login.offer("passkey", binding="b", connection=None)
    clock.move(901)
    assert await home.login.offer("mail", login=name, binding="b", connection=None) == {}
    await home.outbox.drain()


async def test_a_pending_login_is_an_event(clock: Clock) -> None:
    """A login that waits for its second step is an event with the Login and the user."""
    home = house(clock, name="shop")
    await home.enrol("totp")
    home.names()
    await home.pending()
    assert home.events == [Event("login_pending", "shop", subject="ada")]


async def test_a_login_that_is_confirmed_for_a_credential(clock: Clock) -> None:
    """A function of the application receives the id of each new credential and the claims that are kept."""
    started: list[tuple[str, dict[str, Any]]] = []

    async def start(sid: str, claims: dict[str, Any]) -> None:
        started.append((sid, claims))

    home = house(clock)
    home.login.on_started(start)
    outcome = await home.complete()
    await outcome.confirm()
    assert started == []
    await outcome.confirm("s1")
    await outcome.confirm("s2", renewed={"amr": ["fed"]})
    assert started == [("s1", outcome.kept), ("s2", {"amr": ["fed"]})]
    await home.login.change(await home.user())
    home.names()
    with pytest.raises(Unauthorized) as error:
        await outcome.confirm("s3")
    assert (error.value.reason, len(started)) == ("user_changed", 2)
    assert home.events == [Event("login_failed", "login", 401, "user_changed", subject="ada")]


@pytest.mark.parametrize(("limit", "number"), [("account", 5), ("address", 50)])
async def test_the_default_limits(clock: Clock, limit: str, number: int) -> None:
    """By default an account is tried five times in 15 minutes by the clock of the Login, an address 50 times."""
    home = house(clock)
    for attempt in range(number):
        name = "ada" if limit == "account" else f"user{attempt}"
        with pytest.raises(Unauthorized):
            await home.login.with_password(name, "wrong", connection=request())
    with pytest.raises(TooManyRequests):
        await home.login.with_password("ada", PASSWORD, connection=request())
    clock.move(901)
    assert await home.login.with_password("ada", PASSWORD, connection=request())
    limits = home.login.limits
    assert [throttle.name for throttle in (limits.account, limits.address) if throttle] == [
        "login-account",
        "login-address",
    ]


async def test_a_login_without_passwords(clock: Clock) -> None:
    """A password at a Login without passwords is an error of the configuration, with the remedy."""
    home = house(clock, passwords=None)
    with pytest.raises(ConfigurationError) as error:
        await home.login.with_password("ada", PASSWORD, connection=None)
    assert str(error.value) == "this Login has no passwords: Login(..., passwords=PasswordHasher())"


@pytest.mark.parametrize("missing", ["account", "address", "both", "none"])
def test_a_limit_that_is_missing_is_logged(missing: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without one of the limits there is a warning, and with both there is none."""
    LoginLimits(**{name: None for name in ("account", "address") if missing in (name, "both")})  # type: ignore[arg-type]
    assert ("can be tried without one" in caplog.text) is (missing != "none")
