from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable, Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.enrolled import EnrolledFactor, StoredFactors
from fastapi_guard.login.enrolment import Begun, Enrolments
from fastapi_guard.login.factor import Context, Enrolment, Factor, Proof, Strength
from fastapi_guard.login.factors import Factors
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Record, Store
from support.authenticator import Authenticator
from support.clock import Clock
from support.factors import KEY, totp_code, user_named
from support.login import CountingStore

ADA = user_named(email="ada@example.com")
SESSION = "sid-1"


class SMS:
    """A factor of an application's own, with a code that never changes."""

    name = "sms"
    methods = ("sms",)
    strength = Strength.MAILBOX

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:
        """Return whether there is a number."""
        return bool(enrolled)

    async def enrol(self, context: Context, draft: EnrolledFactor, details: Mapping[str, Any]) -> Enrolment | None:
        """Keep the number."""
        phone = details.get("phone")
        return Enrolment(factor=replace(draft, data=phone), shown={"sent": True}) if isinstance(phone, str) else None

    async def confirm(self, context: Context, draft: EnrolledFactor, proof: Mapping[str, Any]) -> EnrolledFactor | None:
        """Compare."""
        return draft if proof.get("code") == "4711" else None

    async def challenge(self, context: Context) -> Mapping[str, Any]:
        """Send."""
        return {"sent": True}

    async def verify(self, context: Context, proof: Mapping[str, Any]) -> Proof | None:
        """Compare."""
        return Proof(methods=("sms",), factor=context.enrolled[0]) if proof.get("code") == "4711" else None


class Broken(SMS):
    """A factor whose provider is unreachable."""

    name = "broken"
    methods = ("broken",)

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:
        """Everyone has it."""
        return True

    async def challenge(self, context: Context) -> Mapping[str, Any]:
        """Fail."""
        raise ConnectionRefusedError

    async def verify(self, context: Context, proof: Mapping[str, Any]) -> Proof | None:
        """Fail."""
        raise TimeoutError


class Bench:
    """Factors and Enrolments of a Login, with what they sent and published."""

    def __init__(self, store: Store, clock: Clock, *more: Factor, **options: Any) -> None:
        """Configure every kind."""
        self.clock = clock
        self.messages: list[Message] = []
        self.events: list[Event] = []
        self.changed: list[str] = []
        self.outbox = Outbox(self.send)
        kinds: list[Factor] = [
            TOTP(key=KEY, issuer="Shop"),
            Passkeys(rp_id="shop.example", origin="https://shop.example"),
            RecoveryCodes(),
            MailedCode(self.outbox, key=KEY),
            *more,
        ]
        self.factors = Factors(
            kinds,
            store,
            find_user=self.find,
            outbox=self.outbox,
            clock=clock,
            on_event=self.events.append,
            **options,
        )
        self.enrolments = Enrolments(self.factors, changed=self.change)

    async def send(self, message: Message) -> None:
        """Keep a message."""
        self.messages.append(message)

    async def change(self, user: User) -> None:
        """Count a change."""
        self.changed.append(user.subject_id)

    async def find(self, login: str) -> User | None:
        """Find no user."""

    def claims(self, **moments: float) -> dict[str, Any]:
        """Return claims of a recent login, with proofs so many seconds ago."""
        now = int(self.clock())
        return {"sub": "ada", "auth_time": now, "factors": {name: now - ago for name, ago in moments.items()}}

    async def begin(self, kind: str, claims: Mapping[str, Any] | None = None, **options: Any) -> Begun:
        """Begin an enrolment."""
        begun = await self.enrolments.begin(kind, ADA, {}, **{"binding": SESSION, "claims": claims, **options})
        assert begun is not None
        return begun

    async def enrol_totp(self, claims: Mapping[str, Any] | None = None, **options: Any) -> tuple[EnrolledFactor, str]:
        """Enrol an app; return the factor and its secret."""
        begun = await self.begin("totp", claims, **options)
        secret: str = begun.shown["secret"]
        proof = {"code": totp_code(secret, self.clock())}
        binding = options.get("binding", SESSION)
        factor = await self.enrolments.confirm(ADA, begun.enrolment or "", proof, binding=binding)
        assert factor is not None
        return factor, secret

    async def enrol_passkey(
        self, claims: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[EnrolledFactor, Authenticator]:
        """Enrol a passkey."""
        begun = await self.begin("passkey", claims, **options)
        device = Authenticator()
        proof = {"credential": device.create(begun.shown["publicKey"])}
        binding = options.get("binding", SESSION)
        factor = await self.enrolments.confirm(ADA, begun.enrolment or "", proof, binding=binding)
        assert factor is not None
        return factor, device


@pytest.fixture
def bench(clock: Clock) -> Bench:
    """Return a bench in memory."""
    return Bench(MemoryStore(clock=clock), clock, SMS())


# Using


async def test_usable(bench: Bench) -> None:
    """The strongest kind comes first; a kind whose method the login has already is left out."""
    await bench.enrol_totp()
    await bench.enrol_passkey()
    await bench.begin("recovery")
    enrolled = await bench.factors.of("ada")
    assert bench.factors.usable(ADA, enrolled) == ["passkey", "recovery", "totp"]
    assert bench.factors.usable(ADA, enrolled, methods=["pwd", "otp"]) == ["passkey", "recovery"]
    assert bench.factors.usable(ADA, enrolled, methods=["swk", "user", "mfa"]) == ["recovery", "totp"]
    assert bench.factors.usable(ADA, []) == []


async def test_a_mailbox_counts_once(clock: Clock) -> None:
    """After a login by mail, or a reset, a mailed code is not a second step."""
    bench = Bench(MemoryStore(clock=clock), clock)
    mailed = MailedCode(bench.outbox, key=KEY, everyone=True)
    factors = Factors([mailed], bench.factors.store, clock=clock)
    assert factors.usable(ADA, [], methods=["pwd"]) == ["mail"]
    assert factors.usable(ADA, [], methods=["mail"]) == []


async def test_verify(bench: Bench) -> None:
    """A proof is returned once, and its use is stored with the factor."""
    _, secret = await bench.enrol_totp()
    bench.clock.move(300)
    proof = {"code": totp_code(secret, bench.clock())}
    proven = await bench.factors.verify("totp", ADA, proof, binding="pending")
    assert proven is not None
    assert proven.methods == ("otp",)
    assert await bench.factors.verify("totp", ADA, proof, binding="pending") is None
    await bench.factors.after.drain()
    [stored] = await bench.factors.of("ada")
    assert stored.used_at == bench.clock()


async def test_a_recovery_code_is_an_event_and_a_message(bench: Bench) -> None:
    """The use of a recovery code is an event, and the user is informed."""
    begun = await bench.begin("recovery")
    bench.events.clear()
    proof = {"code": begun.shown["codes"][0]}
    assert await bench.factors.verify("recovery", ADA, proof, binding="pending") is not None
    await bench.outbox.drain()
    assert [(event.name, event.subject) for event in bench.events] == [("recovery_code_used", "ada")]
    assert bench.messages[-1].kind == "recovery_code_used"


async def test_challenges(bench: Bench) -> None:
    """A challenge is for a factor that the user has enrolled, or for a first factor."""
    await bench.enrol_passkey()
    second = await bench.factors.challenge("passkey", ADA, binding="pending")
    assert len(second["publicKey"]["allowCredentials"]) == 1
    first = await bench.factors.challenge("passkey", None, binding="")
    assert first["publicKey"]["allowCredentials"] == []
    for kind, user, reason in (
        ("totp", ADA, "factor_not_enrolled"),
        ("totp", None, "not_a_first_factor"),
        ("mail", None, "not_a_first_factor"),
        ("other", ADA, "unknown_factor"),
        ("other", None, "unknown_factor"),
    ):
        with pytest.raises(Forbidden) as refused:
            await bench.factors.challenge(kind, user, binding="x")
        assert refused.value.reason == reason


async def test_identify(bench: Bench) -> None:
    """A passkey identifies its user, and its use is stored."""
    factor, device = await bench.enrol_passkey()
    options = (await bench.factors.challenge("passkey", None, binding=""))["publicKey"]
    proof = {"credential": device.get(options)}
    found = await bench.factors.identify("passkey", proof, binding="")
    assert found is not None
    assert found[0] == "ada"
    assert await bench.factors.identify("passkey", proof, binding="") is None
    await bench.factors.after.drain()
    assert (await bench.factors.of("ada"))[0].used_at == bench.clock()
    assert factor.used_at is None
    with pytest.raises(Forbidden):
        await bench.factors.identify("totp", {}, binding="")


async def test_without_users_no_factor_is_the_first(clock: Clock) -> None:
    """Factors that cannot look users up begin no login."""
    kinds = [Passkeys(rp_id="shop.example", origin="https://shop.example")]
    with pytest.raises(Forbidden):
        await Factors(kinds, MemoryStore(clock=clock), clock=clock).challenge("passkey", None, binding="")


async def test_what_is_not_enrolled_is_not_verified(bench: Bench) -> None:
    """A kind that the user has not enrolled is never proven; an unknown one is a 403."""
    assert await bench.factors.verify("sms", ADA, {"code": "4711"}, binding="pending") is None
    with pytest.raises(Forbidden):
        await bench.factors.verify("other", ADA, {}, binding="pending")


async def test_a_factor_of_the_application(bench: Bench) -> None:
    """A factor that the application wrote is enrolled, challenged and verified like any other."""
    assert await bench.enrolments.begin("sms", ADA, {}, binding=SESSION) is None
    begun = await bench.enrolments.begin("sms", ADA, {"phone": "+44"}, binding=SESSION, name="My phone")
    assert begun is not None
    assert begun.shown == {"sent": True}
    confirmed = await bench.enrolments.confirm(ADA, begun.enrolment or "", {"code": "4711"}, binding=SESSION)
    assert confirmed is not None
    assert (confirmed.name, confirmed.data) == ("My phone", "+44")
    assert bench.factors.describe(confirmed) == {}
    assert await bench.factors.challenge("sms", ADA, binding="pending") == {"sent": True}
    proven = await bench.factors.verify("sms", ADA, {"code": "4711"}, binding="pending")
    assert proven is not None
    assert proven.methods == ("sms",)


async def test_an_unreachable_provider(clock: Clock) -> None:
    """A factor that raises is a 503, never a pass."""
    bench = Bench(MemoryStore(clock=clock), clock, Broken())
    with pytest.raises(ServiceUnavailable) as refused:
        await bench.factors.challenge("broken", ADA, binding="x")
    assert refused.value.reason == "factors_unreachable"
    with pytest.raises(ServiceUnavailable):
        await bench.factors.verify("broken", ADA, {}, binding="x")


class Unreachable(StoredFactors):
    """Storage that cannot be reached, or written to."""

    writes_only = False

    async def of(self, subject: str) -> Sequence[EnrolledFactor]:
        """Fail unless reading works."""
        if not self.writes_only:
            raise ConnectionRefusedError
        return await super().of(subject)

    async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
        """Fail."""
        raise ConnectionRefusedError


async def test_unreachable_storage(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Storage that cannot be read is a 503; where the use of a factor alone is not stored the proof is valid."""
    store = MemoryStore(clock=clock)
    records = Unreachable(store)
    bench = Bench(store, clock, records=records)
    with pytest.raises(ServiceUnavailable):
        await bench.factors.of("ada")
    records.writes_only = True
    _, secret = await bench.enrol_totp()
    clock.move(300)
    proof = {"code": totp_code(secret, clock())}
    assert await bench.factors.verify("totp", ADA, proof, binding="pending") is not None
    await bench.factors.after.drain()
    assert "the use of a factor was not stored: ConnectionRefusedError" in caplog.text


async def test_kinds_that_are_configured_no_more(bench: Bench, clock: Clock) -> None:
    """A factor of a kind that is not configured is not listed, and an operator's reset removes it too."""
    await bench.enrol_totp()
    fewer = Factors([RecoveryCodes()], bench.factors.store, clock=clock)
    assert await fewer.of("ada") == []
    assert await Enrolments(fewer).reset(ADA) == 1
    assert await bench.factors.of("ada") == []


def test_describe(bench: Bench) -> None:
    """A kind shows its own details in a list."""
    factor = EnrolledFactor(id="1", subject="ada", kind="recovery", name="x", data='{"codes":["a"]}', created_at=1)
    assert bench.factors.describe(factor) == {"remaining": 1}
    assert bench.factors.describe(replace(factor, kind="totp")) == {}


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([RecoveryCodes(), RecoveryCodes(count=3)], "one factor of each kind"),
        ([SMS(), type("Voice", (SMS,), {"name": "voice"})()], "one factor of each kind"),
        ([type("Odd", (SMS,), {"name": "SMS!"})()], "1 to 32 characters"),
        ([type("Long", (SMS,), {"name": "s" * 33})()], "1 to 32 characters"),
    ],
    ids=["same name", "same method", "odd name", "long name"],
)
def test_refused_kinds(kinds: list[Factor], message: str) -> None:
    """Two factors of one name or one method, and a name that is not usable in a URL, are refused."""
    with pytest.raises(ConfigurationError, match=message):
        Factors(kinds, MemoryStore())


async def test_two_logins_on_one_store(clock: Clock) -> None:
    """The factors, challenges and enrolments of one Login are unknown to another on the same store."""
    store = MemoryStore(clock=clock)
    customers, staff = Bench(store, clock), Bench(store, clock, name="staff")
    begun = await customers.begin("totp")
    proof = {"code": totp_code(begun.shown["secret"], clock())}
    assert await staff.enrolments.confirm(ADA, begun.enrolment or "", proof, binding=SESSION) is None
    assert await customers.enrolments.confirm(ADA, begun.enrolment or "", proof, binding=SESSION) is not None
    assert await staff.factors.of("ada") == []
    _, device = await customers.enrol_passkey()
    options = (await customers.factors.challenge("passkey", None, binding=""))["publicKey"]
    assert await staff.factors.identify("passkey", {"credential": device.get(options)}, binding="") is None
    assert await customers.factors.identify("passkey", {"credential": device.get(options)}, binding="") is not None


# Enrolling


async def test_enrol_and_confirm(bench: Bench) -> None:
    """A confirmed factor is listed, changes the version of the credentials, is an event and a message."""
    begun = await bench.begin("totp", bench.claims(), name=" Phone ")
    assert begun.enrolment is not None
    assert begun.expires_in == 600
    assert begun.enrolment not in repr(begun)
    assert begun.shown["secret"] not in repr(begun)
    assert bench.changed == []
    proof = {"code": totp_code(begun.shown["secret"], bench.clock())}
    confirmed = await bench.enrolments.confirm(ADA, begun.enrolment, proof, binding=SESSION)
    assert await bench.factors.of("ada") == [confirmed]
    assert confirmed is not None
    assert confirmed.name == "Phone"
    assert bench.changed == ["ada"]
    assert [(event.name, event.subject) for event in bench.events] == [("factor_added", "ada")]
    await bench.outbox.drain()
    [message] = bench.messages
    assert (message.kind, message.address, message.detail) == ("factor_added", "ada@example.com", "Phone")
    assert await bench.enrolments.confirm(ADA, begun.enrolment, proof, binding=SESSION) is None


@pytest.mark.parametrize(
    "user", [user_named(), replace(ADA, email_verified=False)], ids=["without an address", "unverified"]
)
async def test_no_message_to_an_unverified_address(bench: Bench, user: User) -> None:
    """A message goes to a verified address alone; the event is there all the same."""
    await bench.enrolments.begin("recovery", user, {}, binding=SESSION)
    await bench.outbox.drain()
    assert bench.messages == []
    assert [event.name for event in bench.events] == ["factor_added"]


async def test_an_enrolment_of_another(bench: Bench) -> None:
    """An enrolment is confirmed by its user, in its session, with its secret."""
    begun = await bench.begin("totp")
    proof = {"code": totp_code(begun.shown["secret"], bench.clock())}
    enrolment = begun.enrolment or ""
    eve = user_named("eve")
    for user, secret, binding in (
        (eve, enrolment, SESSION),
        (ADA, enrolment, "sid-2"),
        (ADA, enrolment[:-1], SESSION),
        (ADA, "", SESSION),
        (ADA, "\ud800", SESSION),
    ):
        assert await bench.enrolments.confirm(user, secret, proof, binding=binding) is None
    assert await bench.enrolments.confirm(ADA, enrolment, proof, binding=SESSION) is not None


async def test_an_expired_enrolment(bench: Bench) -> None:
    """After ten minutes an enrolment is not confirmed any more."""
    begun = await bench.begin("totp")
    bench.clock.move(600)
    proof = {"code": totp_code(begun.shown["secret"], bench.clock())}
    assert await bench.enrolments.confirm(ADA, begun.enrolment or "", proof, binding=SESSION) is None


async def test_five_tries(bench: Bench) -> None:
    """After five wrong codes the right one is refused too."""
    begun = await bench.begin("totp")
    code = totp_code(begun.shown["secret"], bench.clock())
    for _ in range(5):
        assert await bench.enrolments.confirm(ADA, begun.enrolment or "", {"code": "x"}, binding=SESSION) is None
    assert await bench.enrolments.confirm(ADA, begun.enrolment or "", {"code": code}, binding=SESSION) is None


async def test_a_passkey_that_is_enrolled_already(bench: Bench) -> None:
    """A credential that any user has is not enrolled again."""
    _, device = await bench.enrol_passkey()
    begun = await bench.begin("passkey")
    proof = {"credential": device.create(begun.shown["publicKey"])}
    assert await bench.enrolments.confirm(ADA, begun.enrolment or "", proof, binding=SESSION) is None
    assert len(await bench.factors.of("ada")) == 1


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "\ud800", "\u202e", 7])
async def test_odd_names(bench: Bench, name: Any) -> None:
    """A name is 1 to 64 printable characters."""
    assert await bench.enrolments.begin("totp", ADA, {}, binding=SESSION, name=name) is None
    factor, _ = await bench.enrol_totp()
    assert not await bench.enrolments.rename(ADA, factor.id, name)


async def test_ten_of_a_kind(bench: Bench) -> None:
    """A user has at most ten factors of a kind."""
    for _ in range(10):
        await bench.enrol_totp()
    with pytest.raises(Forbidden) as refused:
        await bench.begin("totp")
    assert refused.value.reason == "too_many_factors"


async def test_rename(bench: Bench) -> None:
    """A factor is renamed by its user; one of another user, and an unknown one, are not."""
    factor, _ = await bench.enrol_totp()
    assert await bench.enrolments.rename(ADA, factor.id, "Tablet")
    assert [known.name for known in await bench.factors.of("ada")] == ["Tablet"]
    assert not await bench.enrolments.rename(user_named("eve"), factor.id, "Mine")
    for unknown in ("nothing", "", "\0", "x" * 1000, "\ud800"):
        assert not await bench.enrolments.rename(ADA, unknown, "Mine")


async def test_remove(bench: Bench) -> None:
    """A factor is removed once, by its user: a change, an event and a message."""
    factor, _ = await bench.enrol_totp()
    claims = bench.claims(otp=60)
    assert not await bench.enrolments.remove(user_named("eve"), factor.id, binding=SESSION, claims=claims)
    assert await bench.enrolments.remove(ADA, factor.id, binding=SESSION, claims=claims)
    assert not await bench.enrolments.remove(ADA, factor.id, binding=SESSION, claims=claims)
    await bench.outbox.drain()
    assert [event.name for event in bench.events] == ["factor_added", "factor_removed"]
    assert [message.kind for message in bench.messages] == ["factor_added", "factor_removed"]
    assert bench.changed == ["ada", "ada"]


async def test_removed_meanwhile(bench: Bench) -> None:
    """A factor that another request removes first is not removed twice."""
    factor, _ = await bench.enrol_totp()

    class Raced(StoredFactors):
        async def remove(self, factor_id: str) -> bool:
            await super().remove(factor_id)
            return await super().remove(factor_id)

    bench.factors.records = Raced(bench.factors.store)
    assert not await bench.enrolments.remove(ADA, factor.id, binding="x", claims=None)
    assert [event.name for event in bench.events] == ["factor_added"]


async def test_reset(bench: Bench) -> None:
    """An operator removes every factor of a user."""
    await bench.enrol_totp()
    await bench.enrol_passkey()
    await bench.begin("recovery")
    assert await bench.enrolments.reset(ADA) == 3
    assert await bench.factors.of("ada") == []
    assert await bench.enrolments.reset(ADA) == 0


async def test_recovery_codes_are_replaced(bench: Bench) -> None:
    """Enrolling recovery codes again replaces those of before."""
    first = await bench.begin("recovery")
    second = await bench.begin("recovery")
    assert first.enrolment is second.enrolment is None
    assert first.factor.id == second.factor.id
    old, new = first.shown["codes"][0], second.shown["codes"][0]
    assert await bench.factors.verify("recovery", ADA, {"code": old}, binding="x") is None
    assert await bench.factors.verify("recovery", ADA, {"code": new}, binding="x") is not None


async def test_recovery_codes_that_were_used_meanwhile(bench: Bench) -> None:
    """New codes are not shown where they could not be stored."""
    await bench.begin("recovery")

    class Lost(StoredFactors):
        async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
            return False

    bench.factors.records = Lost(bench.factors.store)
    assert await bench.enrolments.begin("recovery", ADA, {}, binding=SESSION) is None


class Racing(MemoryStore):
    """A store in which another request confirms the same enrolment first."""

    async def delete(self, key: str) -> bool:
        """Delete nothing of an enrolment."""
        return not key.startswith("enrolment:") and await super().delete(key)

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Count."""
        return await super().replace(key, expected, new)


async def test_confirmed_meanwhile(clock: Clock) -> None:
    """Of two that confirm one enrolment at the same time one succeeds."""
    bench = Bench(Racing(clock=clock), clock)
    begun = await bench.begin("totp")
    proof = {"code": totp_code(begun.shown["secret"], clock())}
    assert await bench.enrolments.confirm(ADA, begun.enrolment or "", proof, binding=SESSION) is None
    assert await bench.factors.of("ada") == []


# Who may change factors

STALE = ("More recent authentication is required", "insufficient_user_authentication")


async def refused(bench: Bench, kind: str, claims: Mapping[str, Any], binding: str = "sid-2") -> bool:
    """Return whether adding a factor of a kind is refused for want of a proof."""
    try:
        await bench.begin(kind, claims, binding=binding)
    except Unauthorized as error:
        return (error.detail, error.error) == STALE
    return False


@pytest.mark.parametrize(
    ("auth_time", "is_refused"),
    [(0, False), (-599, False), (-601, True), (50, False), (61, True), (None, True), (True, True), ("now", True)],
)
async def test_the_first_factor_needs_a_recent_login(bench: Bench, auth_time: Any, is_refused: bool) -> None:
    """A login within ten minutes may add the first factor; without a moment, or with an odd one, it may not."""
    number = isinstance(auth_time, int) and not isinstance(auth_time, bool)
    claims = {"auth_time": bench.clock() + auth_time if number else auth_time}
    assert await refused(bench, "totp", claims) is is_refused


async def test_another_factor_needs_a_recent_proof_of_one(bench: Bench) -> None:
    """With a factor enrolled a password alone, and an old proof, add nothing: neither a code nor a key."""
    await bench.enrol_totp()
    for kind in ("totp", "passkey", "recovery", "mail"):
        assert await refused(bench, kind, bench.claims())
        assert await refused(bench, kind, bench.claims(otp=601))
        assert await refused(bench, kind, bench.claims(mail=1))
        assert await refused(bench, kind, bench.claims(pwd=1))
    assert not await refused(bench, "passkey", bench.claims(otp=1))
    assert not await refused(bench, "recovery", bench.claims(otp=1))


@pytest.mark.parametrize("moments", [None, [], "otp", {"otp": None}, {"otp": True}, {"otp": "now"}, {7: 1}])
async def test_odd_moments(bench: Bench, moments: Any) -> None:
    """Claims that a proof cannot be read from show none."""
    await bench.enrol_totp()
    assert await refused(bench, "totp", {"auth_time": bench.clock(), "factors": moments})


async def test_a_weaker_proof_adds_nothing_that_could_remove_a_stronger_factor(bench: Bench) -> None:
    """A code cannot add a key, or recovery codes, to a user who has a key: with them it could remove that key."""
    await bench.enrol_totp()
    await bench.enrol_passkey()
    code = bench.claims(otp=1)
    assert await refused(bench, "passkey", code)
    assert await refused(bench, "recovery", code)
    assert not await refused(bench, "totp", code)
    for claims in (bench.claims(hwk=1), bench.claims(swk=1), bench.claims(recovery=1)):
        assert not await refused(bench, "passkey", claims)
        assert not await refused(bench, "recovery", claims)


@pytest.mark.parametrize(
    ("kind", "proofs", "is_refused"),
    [
        ("totp", {}, True),
        ("totp", {"mail": 1}, True),
        ("totp", {"pwd": 1}, True),
        ("totp", {"otp": 601}, True),
        ("totp", {"otp": 599}, False),
        ("totp", {"hwk": 1}, False),
        ("totp", {"recovery": 1}, False),
        ("passkey", {"otp": 1}, True),
        ("passkey", {"mail": 1, "otp": 1}, True),
        ("passkey", {"swk": 1}, False),
        ("passkey", {"recovery": 1}, False),
        ("recovery", {"mail": 1}, True),
        ("recovery", {"otp": 1}, False),
        ("recovery", {"hwk": 1}, False),
    ],
)
async def test_removing_needs_a_proof_of_equal_strength(
    bench: Bench, kind: str, proofs: dict[str, float], is_refused: bool
) -> None:
    """A factor is removed with a recent proof that is as strong, or with a recovery code."""
    await bench.enrol_totp()
    await bench.enrol_passkey()
    await bench.begin("recovery")
    [factor] = [known for known in await bench.factors.of("ada") if known.kind == kind]
    try:
        removed = await bench.enrolments.remove(ADA, factor.id, binding="sid-2", claims=bench.claims(**proofs))
    except Unauthorized as error:
        removed = (error.detail, error.error) != STALE
    assert removed is not is_refused


async def test_a_confirmed_factor_is_a_proof_in_its_session(bench: Bench) -> None:
    """A user who has just confirmed a factor may go on to recovery codes, in that session, for ten minutes."""
    await bench.enrol_totp(bench.claims())
    assert not await refused(bench, "recovery", bench.claims(), binding=SESSION)
    assert await refused(bench, "recovery", bench.claims(), binding="sid-2")
    bench.clock.move(601)
    assert await refused(bench, "recovery", bench.claims(), binding=SESSION)


async def test_mailed_codes_protect_nothing(bench: Bench) -> None:
    """With mailed codes alone enrolled, a recent login may add a factor."""
    begun = await bench.begin("mail")
    await bench.outbox.drain()
    code = bench.messages[-1].code
    assert await bench.enrolments.confirm(ADA, begun.enrolment or "", {"code": code}, binding=SESSION) is not None
    assert not await refused(bench, "totp", bench.claims())


@pytest.mark.parametrize(
    ("own", "other", "may"),
    [
        (Strength.MAILBOX, Strength.MAILBOX, True),
        (Strength.MAILBOX, Strength.CODE, False),
        (Strength.MAILBOX, Strength.RECOVERY, False),
        (Strength.CODE, Strength.MAILBOX, True),
        (Strength.CODE, Strength.CODE, True),
        (Strength.CODE, Strength.RECOVERY, True),
        (Strength.CODE, Strength.KEY, False),
        (Strength.RECOVERY, Strength.KEY, True),
        (Strength.RECOVERY, Strength.RECOVERY, True),
        (Strength.KEY, Strength.KEY, True),
        (Strength.KEY, Strength.RECOVERY, True),
    ],
)
def test_strengths(own: Strength, other: Strength, may: bool) -> None:
    """A proof replaces what is as strong or weaker; a recovery code stands in for any factor."""
    assert own.may_replace(other) is may


async def test_a_proof_without_an_enrolled_factor(clock: Clock) -> None:
    """A factor that is not enrolled, such as a mailbox, has no moment of last use."""
    bench = Bench(MemoryStore(clock=clock), clock)
    mailed = MailedCode(bench.outbox, key=KEY, everyone=True)
    factors = Factors([mailed], bench.factors.store, outbox=bench.outbox, clock=clock)
    await factors.challenge("mail", ADA, binding="pending")
    await bench.outbox.drain()
    proven = await factors.verify("mail", ADA, {"code": bench.messages[-1].code}, binding="pending")
    await factors.after.drain()
    assert proven == Proof(methods=("mail",))
    assert await factors.of("ada") == []


async def test_a_use_that_was_stored_with_the_proof(clock: Clock) -> None:
    """A recovery code, and a passkey with a counter, note their use in the write that spends them, and no other."""
    store = CountingStore(MemoryStore(clock=clock))
    bench = Bench(store, clock)
    codes = (await bench.begin("recovery")).shown["codes"]
    _, device = await bench.enrol_passkey()
    device.counter = 1
    clock.move(300)
    options = (await bench.factors.challenge("passkey", ADA, binding="pending"))["publicKey"]
    for kind, proof in (("recovery", {"code": codes[0]}), ("passkey", {"credential": device.get(options)})):
        store.trips.clear()
        assert await bench.factors.verify(kind, ADA, proof, binding="pending") is not None
        await bench.factors.after.drain()
        assert store.trips.count("replace") == 1, kind
    assert [factor.used_at for factor in await bench.factors.of("ada")] == [clock(), clock()]


class Outage(CountingStore):
    """A store that is unreachable from a round trip on."""

    begins = 1_000

    async def _trip(self, name: str, *arguments: Any) -> Any:
        if len(self.trips) >= self.begins:
            raise ServiceUnavailable(reason="store_unreachable")
        return await super()._trip(name, *arguments)


@pytest.mark.parametrize("begins", range(7))
async def test_recovery_codes_are_stored_only_with_their_answer(clock: Clock, begins: int) -> None:
    """Wherever an outage begins, the user receives the codes, or has none and can log in without them."""
    store = Outage(MemoryStore(clock=clock))
    bench = Bench(store, clock)

    async def change(user: User) -> None:
        await store.get("users")

    enrolments = Enrolments(bench.factors, changed=change)
    store.begins = begins
    begun = None
    with suppress(ServiceUnavailable):
        begun = await enrolments.begin("recovery", ADA, {}, binding=SESSION, claims=bench.claims())
    store.begins = 1_000
    enrolled = await bench.factors.of("ada")
    assert (begun is None) == (enrolled == []) == (begins < 4)
    assert [event.name for event in bench.events] == ["factor_added"] * len(enrolled)
    if begun is not None:
        assert await bench.factors.verify("recovery", ADA, {"code": begun.shown["codes"][0]}, binding="pending")


async def test_a_reset_that_is_repeated(clock: Clock) -> None:
    """Each factor that a reset removes is reported once, though the users are unreachable and it is repeated."""
    bench = Bench(MemoryStore(clock=clock), clock)
    await bench.enrol_totp()
    failures = [ServiceUnavailable(reason="users_unreachable")]

    async def change(user: User) -> None:
        if failures:
            raise failures.pop()

    enrolments = Enrolments(bench.factors, changed=change)
    bench.events.clear()
    with pytest.raises(ServiceUnavailable):
        await enrolments.reset(ADA)
    assert await enrolments.reset(ADA) == 0
    assert [event.name for event in bench.events] == ["factor_removed"]


async def test_a_reset_beside_another(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor that another reset removes in the meantime is neither counted nor reported a second time."""
    store = MemoryStore(clock=clock)
    bench = Bench(store, clock)
    await bench.enrol_totp()
    listed = await bench.factors.of(ADA.subject_id)
    bench.events.clear()
    assert await bench.enrolments.reset(ADA) == 1

    class Behind(StoredFactors):
        """Factors as they were before the other reset."""

        async def of(self, subject: str) -> Sequence[EnrolledFactor]:
            return listed

    monkeypatch.setattr(bench.factors, "records", Behind(store))
    assert await bench.enrolments.reset(ADA) == 0
    assert [event.name for event in bench.events] == ["factor_removed"]


async def test_a_user_who_cannot_be_changed(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A factor that was added or removed is reported, though what began before cannot be ended, which is logged."""
    bench = Bench(MemoryStore(clock=clock), clock)

    async def change(user: User) -> None:
        raise ServiceUnavailable(reason="users_unreachable") from ConnectionError("secret")

    bench.enrolments = Enrolments(bench.factors, changed=change)
    factor, _ = await bench.enrol_totp()
    assert await bench.enrolments.remove(ADA, factor.id, binding=SESSION, claims=None)
    await bench.outbox.drain()
    assert [event.name for event in bench.events] == ["factor_added", "factor_removed"]
    assert [message.kind for message in bench.messages] == ["factor_added", "factor_removed"]
    text = "the version of a user could not be raised after a change of factors: ConnectionError"
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert logged == [text, text]
