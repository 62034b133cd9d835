"""Step-up: a login is renewed by another proof of the same user."""

from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import Forbidden, TooManyRequests, Unauthorized
from fastapi_guard.login.factor import Strength
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD, request
from support.logins import House


def house(clock: Clock, **options: Any) -> House:
    """Return a Login in memory."""
    return House(MemoryStore(clock=clock), clock, options)


def claims_of(home: House, *methods: str, **more: Any) -> dict[str, Any]:
    """Return the claims of a login an hour ago."""
    then = int(home.clock()) - 3600
    proof = {"amr": list(methods), "auth_time": then, "factors": dict.fromkeys(methods, then)}
    return {"sub": "ada", "sid": "s1", **proof, **more}


async def test_a_password(clock: Clock) -> None:
    """The password again is as strong as a login by password: auth_time moves."""
    home = house(clock)
    assert await home.login.step_up.kinds(claims_of(home, "pwd")) == ["password"]
    assert await home.login.step_up.challenge(claims_of(home, "pwd"), "password", connection=None) == {}
    proof = {"password": PASSWORD}
    outcome = await home.login.step_up.complete(claims_of(home, "pwd"), "password", proof, connection=request())
    now = int(clock())
    assert outcome.kept == {"amr": ["pwd"], "auth_time": now, "factors": {"pwd": now}}
    assert (outcome.user.subject_id, outcome.second, outcome.claims["scope"]) == ("ada", False, "a:b")
    home.names()
    await outcome.confirm()
    assert home.names() == ["stepped_up"]


async def test_a_factor(clock: Clock) -> None:
    """A factor is added to amr with its moment, and the login is one by several factors then."""
    home = house(clock)
    await home.enrol("totp")
    claims = claims_of(home, "pwd")
    assert await home.login.step_up.kinds(claims) == ["totp", "password"]
    assert await home.login.step_up.challenge(claims, "totp", connection=request()) == {}
    outcome = await home.login.step_up.complete(claims, "totp", {"code": home.code()}, connection=None)
    now, then = int(clock()), claims["auth_time"]
    assert outcome.kept == {
        "amr": ["pwd", "otp", "mfa"],
        "auth_time": now,
        "factors": {"pwd": then, "otp": now, "mfa": now},
    }
    assert outcome.second
    renewed = await home.login.step_up.renewed(claims, ["otp"], connection=None)
    assert renewed.kept["amr"] == ["pwd", "otp", "mfa"]


async def test_a_passkey(clock: Clock) -> None:
    """A passkey signs a challenge of this login alone."""
    home = house(clock)
    device = await home.enrol("passkey")
    claims = claims_of(home, "pwd")
    options = await home.login.step_up.challenge(claims, "passkey", connection=None)
    proof = {"credential": device.get(options["publicKey"])}
    with pytest.raises(Unauthorized):
        await home.login.step_up.complete({**claims, "sid": "s2"}, "passkey", proof, connection=None)
    outcome = await home.login.step_up.complete(claims, "passkey", proof, connection=None)
    assert outcome.claims["amr"] == ["pwd", "hwk", "user", "mfa"]


async def test_a_passkey_and_a_token_of_no_session(clock: Clock) -> None:
    """A passkey signs a challenge of one token alone, if the login has no session."""
    home = house(clock)
    device = await home.enrol("passkey")
    claims = claims_of(home, "pwd", sid=None, jti="j1")
    options = await home.login.step_up.challenge(claims, "passkey", connection=None)
    proof = {"credential": device.get(options["publicKey"])}
    for other in ({**claims, "jti": "j2"}, {**claims, "jti": None}):
        with pytest.raises(Unauthorized):
            await home.login.step_up.complete(other, "passkey", proof, connection=None)
    assert await home.login.step_up.complete(claims, "passkey", proof, connection=None)


@pytest.mark.parametrize("recorded", [True, False])
async def test_the_moments_of_earlier_proofs(clock: Clock, *, recorded: bool) -> None:
    """Each method keeps the moment when it was proven; in claims without moments all were proven at auth_time."""
    home = house(clock)
    claims = claims_of(home, "pwd", "otp")
    began, now = claims["auth_time"], int(clock())
    claims["factors"] = {"pwd": began - 60, "otp": began} if recorded else None
    outcome = await home.login.step_up.renewed(claims, ["mail"], connection=None)
    assert outcome.kept["factors"] == {"pwd": began - 60 if recorded else began, "otp": began, "mail": now}
    assert outcome.kept["auth_time"] == began


# The methods of the login, what is proven now, and whether auth_time moves and mfa is added.
STRENGTHS = [
    (["pwd"], ["pwd"], True, False),
    (["pwd"], ["mail"], False, False),
    (["pwd"], ["otp"], True, True),
    (["pwd"], ["recovery"], True, True),
    (["mail"], ["mail"], True, False),
    (["mail"], ["pwd"], True, False),
    (["mail"], ["otp"], True, False),
    (["mail", "otp"], ["otp"], True, False),
    (["fed"], ["pwd"], True, False),
    (["fed"], ["mail"], False, False),
    (["pwd", "otp", "mfa"], ["pwd"], False, True),
    (["pwd", "otp", "mfa"], ["otp"], True, True),
    (["pwd", "otp", "mfa"], ["mail"], False, True),
    (["pwd", "otp", "mfa"], ["hwk"], True, True),
    (["hwk", "user", "mfa"], ["pwd"], False, True),
    (["hwk", "user", "mfa"], ["otp"], False, True),
    (["hwk", "user", "mfa"], ["recovery"], True, True),
    (["hwk", "user", "mfa"], ["hwk", "user", "mfa"], True, True),
]


@pytest.mark.parametrize(("before", "now", "moves", "mfa"), STRENGTHS, ids=range(len(STRENGTHS)))
async def test_strengths(clock: Clock, before: list[str], now: list[str], *, moves: bool, mfa: bool) -> None:
    """auth_time moves only for a proof as strong as the login's; a mailbox, or a factor twice, makes no mfa."""
    home = house(clock)
    claims = claims_of(home, *before)
    outcome = await home.login.step_up.renewed(claims, now, connection=None)
    assert outcome.kept["auth_time"] == (int(clock()) if moves else claims["auth_time"])
    assert ("mfa" in outcome.kept["amr"]) is mfa
    assert set(before) <= set(outcome.kept["amr"])
    assert outcome.kept["factors"][now[0]] == int(clock())


async def test_what_cannot_step_up(clock: Clock) -> None:
    """Claims of no login, such as those of an API key, cannot step up; nor a user who is gone or disabled."""
    home = house(clock)
    proof = {"password": PASSWORD}
    for claims in ({"sub": "ada"}, {**claims_of(home, "pwd"), "key_id": "k"}, {"sub": "ada", "auth_time": "now"}):
        for attempt in (
            home.login.step_up.complete(claims, "password", proof, connection=None),
            home.login.step_up.kinds(claims),
            home.login.step_up.challenge(claims, "password", connection=None),
            home.login.step_up.renewed(claims, ["otp"], connection=None),
        ):
            with pytest.raises(Forbidden) as error:
                await attempt
            assert error.value.reason == "no_login"
    for subject in ("nobody", "mallory", ""):
        with pytest.raises(Unauthorized) as refused:
            await home.login.step_up.complete(claims_of(home, "pwd", sub=subject), "password", proof, connection=None)
        assert refused.value.detail == "Login failed"
    assert [(event.name, event.subject) for event in home.events] == [
        ("login_failed", None),
        ("login_failed", "mallory"),
        ("login_failed", None),
    ]


async def test_claims_without_a_subject(clock: Clock) -> None:
    """Claims without a subject are of no user, whatever users are called."""
    home = house(clock)
    home.users._users["None"] = replace(await home.user(), username="None", subject_id="None")
    claims = claims_of(home, "pwd")
    del claims["sub"]
    with pytest.raises(Unauthorized):
        await home.login.step_up.kinds(claims)
    assert await home.login.step_up.kinds({**claims, "sub": "None"}) == ["password"]


WRONG: list[tuple[str, Any]] = [
    ("password", {"password": "wrong"}),
    ("password", {"password": None}),
    ("password", {}),
    ("totp", {"code": "00000x"}),
    ("totp", {}),
    ("recovery", {"code": "x"}),
]


@pytest.mark.parametrize(("kind", "proof"), WRONG, ids=range(len(WRONG)))
async def test_a_wrong_proof(clock: Clock, kind: str, proof: dict[str, Any]) -> None:
    """A wrong proof, and a factor that is not enrolled, is one refusal, which names a password where it is one."""
    home = house(clock)
    await home.enrol("totp")
    home.names()
    with pytest.raises(Unauthorized) as error:
        await home.login.step_up.complete(claims_of(home, "pwd"), kind, proof, connection=None)
    detail = "The password is wrong" if kind == "password" else "The second factor is wrong"
    assert (error.value.detail, home.names()) == (detail, ["second_factor_failed"])


async def test_tries_are_counted(clock: Clock) -> None:
    """Five wrong codes of a step-up and of second steps together are the last for 15 minutes."""
    home = house(clock)
    await home.enrol("totp")
    claims = claims_of(home, "pwd")
    for number in range(5):
        pending = await home.pending()
        attempts = [
            lambda: home.login.step_up.complete(claims, "totp", {"code": "x"}, connection=None),
            lambda pending=pending: home.login.with_totp(pending.id, "x", connection=None),
        ]
        with pytest.raises(Unauthorized):
            await attempts[number % 2]()
    with pytest.raises(TooManyRequests):
        await home.login.step_up.complete(claims, "totp", {"code": home.code()}, connection=None)


async def test_a_success_forgets_the_tries_of_its_own_kind(clock: Clock) -> None:
    """A right code forgets wrong codes; a right password does not, so that it opens no more tries of codes."""
    home = house(clock)
    await home.enrol("totp")
    claims = claims_of(home, "pwd")

    async def wrong(times: int) -> None:
        for _ in range(times):
            with pytest.raises(Unauthorized):
                await home.login.step_up.complete(claims, "totp", {"code": "x"}, connection=None)

    await wrong(4)
    assert await home.login.step_up.complete(claims, "totp", {"code": home.code()}, connection=None)
    await wrong(5)
    assert await home.login.step_up.complete(claims, "password", {"password": PASSWORD}, connection=None)
    with pytest.raises(TooManyRequests):
        await home.login.step_up.complete(claims, "totp", {"code": home.code()}, connection=None)


async def test_an_unknown_factor(clock: Clock) -> None:
    """A factor that the application does not have is a 403."""
    home = house(clock)
    for attempt in (
        home.login.step_up.challenge(claims_of(home, "pwd"), "sms", connection=None),
        home.login.step_up.complete(claims_of(home, "pwd"), "sms", {}, connection=None),
    ):
        with pytest.raises(Forbidden):
            await attempt


async def test_the_rule_of_the_application(clock: Clock) -> None:
    """A user who may not log in any more cannot step up."""
    home = house(clock, may_login=lambda user, connection: False)
    with pytest.raises(Unauthorized) as error:
        await home.login.step_up.complete(claims_of(home, "pwd"), "password", {"password": PASSWORD}, connection=None)
    assert error.value.detail == "Login failed"


async def test_claims_of_an_older_token(clock: Clock) -> None:
    """Claims without amr or factors are those of a login whose methods are not known."""
    home = house(clock, second=[RecoveryCodes()], passwords=None)
    claims = {"sub": "ada", "jti": "j1", "auth_time": int(clock()) - 60, "factors": None}
    assert await home.login.step_up.kinds(claims) == []
    outcome = await home.login.step_up.renewed(claims, ["recovery"], connection=None)
    assert outcome.kept["amr"] == ["recovery"]
    assert Strength.RECOVERY.may_replace(Strength.KEY)
