"""The second step of a login: one success, five tries, and nothing but the step itself."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable, TooManyRequests, Unauthorized
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.stores import MemoryStore, Store
from fastapi_guard.stores.kinds import PENDING
from support.clock import Clock
from support.login import PASSWORD, CountingStore, request
from support.logins import House

EXPIRED = ("The login has expired", "unknown_pending")
WRONG = ("The second factor is wrong", "second_factor_failed")
UNLIMITED = {"limits": LoginLimits(account=None, address=None)}


async def refusal(attempt: Awaitable[Any]) -> tuple[Any, ...]:
    """Return the text and the reason of a 401."""
    with pytest.raises(Unauthorized) as error:
        await attempt
    assert error.value.headers == {"WWW-Authenticate": 'Bearer realm="api"'}
    return error.value.detail, error.value.reason


async def test_a_code_completes_it(clock: Clock) -> None:
    """The code of an app completes the login, once; the claims name both proofs and their moments."""
    home = House(MemoryStore(clock=clock), clock)
    await home.enrol("totp")
    began = int(clock())
    pending = await home.login.begin(await home.user(), amr=["fed"], claims={"provider": "x"}, connection=request())
    assert isinstance(pending, Pending)
    clock.move(90)
    home.names()
    outcome = await home.login.with_totp(pending.id, home.code(), connection=request())
    now = int(clock())
    assert outcome.kept == {
        "provider": "x",
        "amr": ["fed", "otp", "mfa"],
        "auth_time": now,
        "factors": {"fed": began, "otp": now, "mfa": now},
    }
    assert (outcome.claims["scope"], outcome.second, outcome.trusted) == ("a:b", True, False)
    await outcome.confirm()
    assert home.names() == ["second_factor_succeeded", "login_succeeded"]
    clock.move(60)
    assert await refusal(home.login.with_totp(pending.id, home.code(), connection=None)) == EXPIRED


async def test_a_subject_that_is_revoked_meanwhile(clock: Clock) -> None:
    """A login that waits for its second step ends with the tokens of its subject; one afterwards is valid."""
    store = MemoryStore(clock=clock)
    home = House(store, clock)
    await home.enrol("totp")
    ended, other = await home.pending(), Revocations(store, name="other")
    clock.move(60)
    assert await Revocations(store).revoke_subject("ada") == 0
    assert await refusal(home.login.with_totp(ended.id, home.code(), connection=None)) == EXPIRED
    pending = await home.pending()
    # Those of another name are nothing to this Login.
    await other.revoke_subject("ada")
    assert await home.login.with_totp(pending.id, home.code(), connection=None)


async def test_each_kind(clock: Clock) -> None:
    """A passkey and a recovery code complete a login too, each by its own method."""
    home = House(MemoryStore(clock=clock), clock)
    device = await home.enrol("passkey")
    codes = await home.enrol("recovery")
    pending = await home.pending()
    assert pending.factors == ["passkey", "recovery"]
    options = await home.login.challenge(pending.id, "passkey", connection=request())
    outcome = await home.login.with_passkey(pending.id, device.get(options["publicKey"]), connection=None)
    assert outcome.claims["amr"] == ["pwd", "hwk", "user", "mfa"]
    pending = await home.pending()
    outcome = await home.login.with_recovery_code(pending.id, codes[0], connection=None)
    assert outcome.claims["amr"] == ["pwd", "recovery", "mfa"]
    pending = await home.pending()
    assert await refusal(home.login.with_recovery_code(pending.id, codes[0], connection=None)) == WRONG


async def test_at_the_same_time(store: Store, clock: Clock) -> None:
    """Of ten right proofs of one pending login at the same time one completes it, on each store."""
    home = House(store, clock, UNLIMITED)
    codes = await home.enrol("recovery")
    await home.enrol("totp")
    pending = await home.pending()
    proofs = [("recovery", code) for code in codes] + [("totp", home.code())]
    attempts = [home.login.with_factor(pending.id, kind, {"code": code}, connection=None) for kind, code in proofs]
    answers = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(answer) for answer in answers].count(Complete) == 1
    assert all(isinstance(answer, Complete | Unauthorized) for answer in answers)
    await home.outbox.drain()


async def test_five_tries(store: Store, clock: Clock) -> None:
    """Five proofs of one pending login are verified, however many come at the same time, on each store."""
    home = House(store, clock, UNLIMITED)
    await home.enrol("totp")
    pending = await home.pending()
    verified, at_once, most_at_once = 0, 0, 0
    verify = home.login.factors.verify

    async def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal verified, at_once, most_at_once
        verified, at_once = verified + 1, at_once + 1
        most_at_once = max(most_at_once, at_once)
        proven = await verify(*arguments, **options)
        at_once -= 1
        return proven

    home.login.factors.verify = counting  # type: ignore[method-assign]
    for number in range(1, 6):
        guesses = [home.login.with_totp(pending.id, "00000x", connection=None) for _ in range(12)]
        answers = await asyncio.gather(*guesses, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unauthorized}
        assert number <= verified <= 5
    assert (verified, most_at_once) == (5, 1)
    assert await refusal(home.login.with_totp(pending.id, home.code(), connection=None)) == EXPIRED
    assert set(home.names()) == {"factor_added", "login_pending", "second_factor_failed", "login_failed"}


async def test_the_last_try_may_be_right(clock: Clock) -> None:
    """After four wrong codes the right one completes the login; a try that could not be decided counts too."""
    home = House(MemoryStore(clock=clock), clock, UNLIMITED)
    await home.enrol("totp")
    pending = await home.pending()
    for _ in range(3):
        assert await refusal(home.login.with_totp(pending.id, "00000x", connection=None)) == WRONG
    verify, by_subject = home.login.factors.verify, home.users.by_subject

    async def unreachable(*_: Any, **__: Any) -> Any:
        raise ServiceUnavailable

    home.login.factors.verify = unreachable  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable):
        await home.login.with_totp(pending.id, home.code(), connection=None)
    home.login.factors.verify = verify  # type: ignore[method-assign]
    assert await home.login.with_totp(pending.id, home.code(), connection=None)
    pending = await home.pending()
    home.users.by_subject = unreachable  # type: ignore[method-assign]
    for _ in range(5):
        with pytest.raises(ServiceUnavailable):
            await home.login.with_totp(pending.id, home.code(), connection=None)
    home.users.by_subject = by_subject  # type: ignore[method-assign]
    assert await refusal(home.login.with_totp(pending.id, home.code(), connection=None)) == EXPIRED


async def test_tries_are_counted_across_pending_logins(clock: Clock) -> None:
    """Five wrong second steps of an account in 15 minutes are the last, in however many pending logins."""
    home = House(MemoryStore(clock=clock), clock)
    await home.enrol("totp")
    for number in range(5):
        pending = await home.pending(address=f"192.0.2.{number}")
        assert await refusal(home.login.with_totp(pending.id, "00000x", connection=None)) == WRONG
    pending = await home.pending()
    with pytest.raises(TooManyRequests):
        await home.login.with_totp(pending.id, home.code(), connection=None)
    clock.move(901)
    for _ in range(2):
        # A success forgets what was counted.
        for _ in range(4):
            pending = await home.pending()
            assert await refusal(home.login.with_totp(pending.id, "00000x", connection=None)) == WRONG
        assert await home.login.with_totp(pending.id, home.code(), connection=None)
        clock.move(60)


async def test_challenges_are_counted(clock: Clock) -> None:
    """An account gets five challenges in 15 minutes: each may send a message."""
    home = House(MemoryStore(clock=clock), clock)
    await home.enrol("mail")
    for _ in range(5):
        pending = await home.pending()
        assert await home.login.challenge(pending.id, "mail", connection=None) == {"sent_to": "a***@example.com"}
    with pytest.raises(TooManyRequests):
        await home.login.challenge(pending.id, "mail", connection=None)
    await home.outbox.drain()


STRANGE = ["", "x", "x" * 43, "\ud800" * 43, "x" * 65, "\ud800", "\0", "a b", None, 7, b"x", ["x"] * 43]


@pytest.mark.parametrize("pending", STRANGE, ids=range(len(STRANGE)))
async def test_an_id_of_no_pending_login(clock: Clock, pending: Any) -> None:
    """An id that was never issued, of any type, is refused like one that has expired."""
    home = House(MemoryStore(clock=clock), clock)
    await home.enrol("totp")
    for attempt in (
        home.login.with_totp(pending, home.code(), connection=None),
        home.login.challenge(pending, "totp", connection=None),
    ):
        assert await refusal(attempt) == EXPIRED


@pytest.mark.parametrize("characters", [0, 1, 42, 44, 64])
async def test_an_id_of_another_length_costs_no_look_up(clock: Clock, characters: int) -> None:
    """A text that is too short or too long for an id is refused without the store."""
    store = CountingStore(MemoryStore(clock=clock))
    home = House(store, clock)
    for attempt in (
        home.login.with_totp("x" * characters, "000000", connection=None),
        home.login.challenge("x" * characters, "totp", connection=None),
    ):
        assert await refusal(attempt) == EXPIRED
    assert store.trips == []
    assert await refusal(home.login.with_totp("x" * 43, "000000", connection=None)) == EXPIRED
    assert store.trips == ["take"]


async def test_what_a_pending_login_is_not_for(clock: Clock) -> None:
    """Expired, truncated, of another Login on the store, or with a factor that was not offered: no way in."""
    store = MemoryStore(clock=clock)
    home, other = House(store, clock), House(store, clock, {"name": "staff"})
    await home.enrol("totp")
    other.secrets = home.secrets
    await other.enrol("totp")
    pending = await home.pending()
    assert await refusal(other.login.with_totp(pending.id, other.code(), connection=None)) == EXPIRED
    assert await refusal(home.login.with_totp(pending.id[:-1], home.code(), connection=None)) == EXPIRED
    for kind in ("recovery", "sms", "password", ""):
        with pytest.raises(Forbidden) as error:
            await home.login.with_factor(pending.id, kind, {"code": home.code()}, connection=None)
        assert error.value.reason == "factor_not_offered"
    clock.move(600)
    assert await refusal(home.login.with_totp(pending.id, home.code(), connection=None)) == EXPIRED


Change = Callable[[House], Awaitable[object]]


async def change_password(home: House) -> None:
    """Change the password."""
    await home.login.change(await home.user(), password_hash="newer")


async def change_address(home: House) -> None:
    """Change the address."""
    await home.login.change(await home.user(), email="lovelace@example.com")


async def add_a_factor(home: House) -> None:
    """Enrol another factor."""
    await home.enrol("recovery")


async def reset_factors(home: House) -> None:
    """Remove every factor."""
    await home.login.enrolments.reset(await home.user())


async def disable(home: House) -> None:
    """Disable the user."""
    await home.login.change(await home.user(), disabled=True)


async def disable_elsewhere(home: House) -> None:
    """Disable the user in the application's own way, which raises no version."""
    home.users._users["ada"] = replace(await home.user(), disabled=True)


async def remove(home: House) -> None:
    """Delete the user."""
    del home.users._users["ada"]


CHANGES: list[Change] = [
    change_password,
    change_address,
    add_a_factor,
    reset_factors,
    disable,
    disable_elsewhere,
    remove,
]


@pytest.mark.parametrize("first", ["challenge", "proof"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_ends_pending_logins(clock: Clock, change: Change, first: str) -> None:
    """Whatever changes in the credentials of a user ends the logins that are pending, for good."""
    home = House(MemoryStore(clock=clock), clock, UNLIMITED)
    await home.enrol("totp")
    pending = await home.pending()
    before = await home.user()
    await change(home)
    if first == "challenge":
        assert await refusal(home.login.challenge(pending.id, "totp", connection=None)) == EXPIRED
    else:
        assert await refusal(home.login.with_totp(pending.id, home.code(), connection=None)) == EXPIRED
    home.users._users["ada"] = before
    clock.move(60)
    assert await refusal(home.login.with_totp(pending.id, home.code(), connection=None)) == EXPIRED


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_ends_what_is_about_to_complete(clock: Clock, change: Change) -> None:
    """A change after the second step and before the credential is stored is seen when it is confirmed."""
    home = House(MemoryStore(clock=clock), clock, UNLIMITED)
    await home.enrol("totp")
    pending = await home.pending()
    outcome = await home.login.with_totp(pending.id, home.code(), connection=None)
    await change(home)
    home.names()
    assert await refusal(outcome.confirm()) == ("Login failed", "user_changed")
    assert home.names() == ["login_failed"]


async def test_another_name_ends_nothing(clock: Clock) -> None:
    """A user who is renamed in the application's own way goes on with the login that is pending."""
    home = House(MemoryStore(clock=clock), clock)
    await home.enrol("totp")
    pending = await home.pending()
    home.users._users["ada"] = replace(await home.user(), username="lovelace")
    outcome = await home.login.with_totp(pending.id, home.code(), connection=None)
    await outcome.confirm()
    assert outcome.user.username == "lovelace"


async def test_the_rule_of_the_application_counts_at_the_second_step(clock: Clock) -> None:
    """A user who may not log in any more when the second step comes does not get in."""
    may = True
    home = House(MemoryStore(clock=clock), clock, {"may_login": lambda user, connection: may})
    await home.enrol("totp")
    pending = await home.pending()
    may = False
    assert await refusal(home.login.with_totp(pending.id, home.code(), connection=None)) == (
        "Login failed",
        "login_failed",
    )


async def test_nothing_of_a_pending_login_is_stored_in_clear(clock: Clock) -> None:
    """The store has the hash of the id, the user's version and what was proven, and no secret."""
    store = MemoryStore(clock=clock)
    home = House(store, clock)
    await home.enrol("totp")
    pending = await home.pending()
    [record] = [record for key, record in store._records.items() if key.startswith(PENDING)]
    assert pending.id not in record.key
    assert pending.id.encode() not in record.value
    assert PASSWORD.encode() not in record.value
    value = json.loads(record.value)
    assert (value["subject"], value["methods"], value["version"], value["tries"]) == ("ada", ["pwd"], 1, 0)


@pytest.mark.parametrize(
    ("number", "error"), [(float("nan"), ValueError), (float("-inf"), ValueError), (object(), TypeError)], ids=range(3)
)
async def test_claims_that_cannot_be_stored(clock: Clock, number: Any, error: type[Exception]) -> None:
    """A login with a claim that is not JSON is an error where it begins, and nothing is stored."""
    store = MemoryStore(clock=clock)
    home = House(store, clock)
    await home.enrol("totp")
    with pytest.raises(error, match="JSON"):
        await home.login.begin(await home.user(), amr=["fed"], claims={"number": number}, connection=None)
    assert not [key for key in store._records if key.startswith(PENDING)]


def test_a_factor_of_no_protocol() -> None:
    """A Login whose users need factors that it does not have is refused."""
    with pytest.raises(ConfigurationError, match="needs a factor"):
        Login({}, MemoryStore(), needs_second="always")


async def test_a_pending_login_of_another_login(clock: Clock) -> None:
    """A login that was begun at one Login cannot be completed at another one on the same store."""
    store = MemoryStore(clock=clock)
    home, other = House(store, clock), House(store, clock, {"name": "staff"})
    await home.enrol("totp")
    pending = await home.pending()
    assert await refusal(other.login.with_totp(pending.id, home.code(), connection=request())) == EXPIRED
    assert await home.login.with_totp(pending.id, home.code(), connection=request())
