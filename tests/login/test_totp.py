import asyncio
import hashlib
import json
import re
from base64 import b32decode, b32encode
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.login.enrolled import EnrolledFactor, StoredFactors
from fastapi_guard.login.keyring import Keyring
from fastapi_guard.login.totp import TOTP
from fastapi_guard.stores import MemoryStore, Record, Store
from support.clock import Clock
from support.examples import at_most
from support.factors import KEY, OTHER_KEY, Desk, user_named

STEP = 30


@pytest.fixture
def desk(clock: Clock) -> Desk:
    """Return a desk with TOTP in memory."""
    return Desk(TOTP(key=KEY, issuer="Shop"), MemoryStore(clock=clock), clock)


def code_at(secret: str, moment: float, **options: Any) -> str:
    """Return the code that an app shows at a moment."""
    return pyotp.TOTP(secret, **options).at(int(moment))


async def enrolled_secret(desk: Desk, factor_id: str = "f1") -> str:
    """Enrol an app, and go on to a step whose codes are unspent."""
    enrolment = await desk.begin(factor_id)
    secret: str = enrolment.shown["secret"]
    assert await desk.confirm(enrolment, {"code": code_at(secret, desk.clock())}) is not None
    desk.clock.move(10 * STEP)
    return secret


async def test_enrolment(desk: Desk) -> None:
    """The secret has 160 bits, and is shown with the URI of the app and its QR code; the stored one is encrypted."""
    enrolment = await desk.begin()
    shown = enrolment.shown
    assert set(shown) == {"secret", "uri", "qr"}
    assert len(b32decode(shown["secret"])) == 20
    parts = urlsplit(shown["uri"])
    assert (parts.scheme, parts.netloc, parts.path) == ("otpauth", "totp", "/Shop:ada")
    assert parse_qs(parts.query)["secret"] == [shown["secret"]]
    assert parse_qs(parts.query)["issuer"] == ["Shop"]
    assert ET.fromstring(shown["qr"]).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - ours
    assert shown["secret"] not in enrolment.factor.data
    assert b32decode(shown["secret"]).hex() not in enrolment.factor.data
    assert shown["secret"] not in repr(enrolment)
    assert json.loads(enrolment.factor.data)["secret"].startswith("1.")


async def test_the_qr_code_is_the_uri(desk: Desk) -> None:
    """The QR code has the URI in it, module by module."""
    import segno  # noqa: PLC0415 - to draw the same

    shown = (await desk.begin()).shown
    drawn = segno.make(shown["uri"], error="m", micro=False).svg_inline(scale=4, border=4, dark="#000", light="#fff")
    assert shown["qr"].replace(' xmlns="http://www.w3.org/2000/svg"', "") == drawn


async def test_no_factor_without_confirmation(desk: Desk) -> None:
    """A wrong code confirms nothing, the right one does, and its step is spent: no login can use it again."""
    enrolment = await desk.begin()
    code = code_at(enrolment.shown["secret"], desk.clock())
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    assert await desk.confirm(enrolment, {"code": wrong}) is None
    assert await desk.records.of("ada") == []
    assert await desk.confirm(enrolment, {"code": code}) is not None
    assert [factor.id for factor in await desk.records.of("ada")] == ["f1"]
    assert await desk.verify({"code": code}) is None


async def test_a_code_is_accepted_once(desk: Desk) -> None:
    """A step is spent by its first use; the next step has another code."""
    secret = await enrolled_secret(desk)
    code = code_at(secret, desk.clock())
    proof = await desk.verify({"code": code})
    assert proof is not None
    assert proof.methods == ("otp",)
    assert await desk.verify({"code": code}) is None
    desk.clock.move(STEP)
    assert await desk.verify({"code": code}) is None
    assert await desk.verify({"code": code_at(secret, desk.clock())}) is not None


@pytest.mark.parametrize(("steps", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
async def test_drift(desk: Desk, steps: int, accepted: bool) -> None:
    """A clock may be one step early or late, no more."""
    secret = await enrolled_secret(desk)
    code = code_at(secret, desk.clock() + steps * STEP)
    assert (await desk.verify({"code": code}) is not None) is accepted


async def test_no_drift(clock: Clock) -> None:
    """Without drift the current step alone is accepted."""
    desk = Desk(TOTP(key=KEY, issuer="Shop", drift=0), MemoryStore(clock=clock), clock)
    secret = await enrolled_secret(desk)
    assert await desk.verify({"code": code_at(secret, clock() - STEP)}) is None
    assert await desk.verify({"code": code_at(secret, clock())}) is not None


async def test_the_first_step(desk: Desk) -> None:
    """A device whose clock was never set begins at the epoch, before which there is no step."""
    desk.clock.now = 5.0
    enrolment = await desk.begin("f1")
    assert await desk.confirm(enrolment, {"code": code_at(enrolment.shown["secret"], 5)}) is not None


async def test_a_spent_step_stays_spent_as_long_as_it_could_be_accepted(desk: Desk) -> None:
    """From the first moment of a step's acceptance to the last it is accepted once."""
    secret = await enrolled_secret(desk)
    desk.clock.now = desk.clock.now // STEP * STEP
    early = code_at(secret, desk.clock() + STEP)
    assert await desk.verify({"code": early}) is not None
    while code_at(secret, desk.clock() - STEP) != early:
        assert await desk.verify({"code": early}) is None
        desk.clock.move(STEP - 1)
    assert await desk.verify({"code": early}) is None


@pytest.mark.parametrize(
    "spelled",
    [lambda code: f"{code[:3]} {code[3:]}", lambda code: f" {code}\n", lambda code: f"{code[:3]}-{code[3:]}"],
    ids=["grouped", "padded", "hyphen"],
)
async def test_spellings(desk: Desk, spelled: Any) -> None:
    """White space and a hyphen make no difference."""
    secret = await enrolled_secret(desk)
    assert await desk.verify({"code": spelled(code_at(secret, desk.clock()))}) is not None


def arabic(code: str) -> str:
    """Return a code in Arabic-Indic digits, which `int` reads."""
    return code.translate({ord("0") + digit: 0x0660 + digit for digit in range(10)})


@pytest.mark.parametrize(
    "malformed",
    [
        lambda code: None,
        int,
        lambda code: [code],
        lambda code: {"code": code},
        lambda code: code.encode(),
        lambda code: "",
        lambda code: code[:-1],
        lambda code: code + "0",
        lambda code: code * 2,
        arabic,
        lambda code: "\ud800" * 6,
        lambda code: code[:5] + "\udfff",
        lambda code: "\0" * 6,
        lambda code: "-" * 6,
        lambda code: "x" * 1_000_000,
        lambda code: float("nan"),
    ],
    ids=[
        "null",
        "number",
        "list",
        "object",
        "bytes",
        "empty",
        "short",
        "long",
        "twice",
        "other digits",
        "surrogates",
        "surrogate",
        "nul",
        "hyphens",
        "megabyte",
        "nan",
    ],
)
async def test_malformed(desk: Desk, malformed: Any) -> None:
    """A text that is not six digits is rejected without an exception, lone surrogates included, and spends nothing."""
    secret = await enrolled_secret(desk)
    code = code_at(secret, desk.clock())
    assert await desk.verify({"code": malformed(code)}) is None
    assert await desk.verify({}) is None
    assert await desk.verify({"code": code}) is not None


@at_most(50)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
async def test_total(value: Any) -> None:
    """Whatever JSON stands for the code, there is an answer."""
    clock = Clock()
    desk = Desk(TOTP(key=KEY, issuer="Shop"), MemoryStore(clock=clock), clock)
    await enrolled_secret(desk)
    assert await desk.verify({"code": value}) is None


async def test_of_another_user(desk: Desk) -> None:
    """A code of one user is refused for another."""
    secret = await enrolled_secret(desk)
    desk.user = user_named("eve")
    await enrolled_secret(desk, "f2")
    assert await desk.verify({"code": code_at(secret, desk.clock())}) is None


async def test_two_apps(desk: Desk) -> None:
    """A user with two apps may use either; each step of each is spent by itself."""
    first, second = await enrolled_secret(desk), await enrolled_secret(desk, "f2")
    for secret, factor_id in ((second, "f2"), (first, "f1")):
        proof = await desk.verify({"code": code_at(secret, desk.clock())})
        assert proof is not None
        assert proof.factor is not None
        assert proof.factor.id == factor_id


async def test_one_step_many_times_at_once(store: Store, clock: Clock) -> None:
    """Of many that present the same code at the same time one is accepted, on each store."""
    desk = Desk(TOTP(key=KEY, issuer="Shop"), store, clock)
    secret = await enrolled_secret(desk)
    context = await desk.context()
    proofs = await asyncio.gather(*(desk.factor.verify(context, {"code": code_at(secret, clock())}) for _ in range(8)))
    assert sum(proof is not None for proof in proofs) == 1


async def test_a_ciphertext_belongs_to_its_user_and_factor(desk: Desk) -> None:
    """A secret that was copied to another user's row, or to another factor, does not open: a 503, and no login."""
    secret = await enrolled_secret(desk)
    [mine] = await desk.records.of("ada")
    for copied in (replace(mine, subject="eve"), replace(mine, id="f2")):
        context = replace(await desk.context(), enrolled=[copied])
        with pytest.raises(ServiceUnavailable) as refused:
            await desk.factor.verify(context, {"code": code_at(secret, desk.clock())})
        assert refused.value.reason == "totp_key_missing"


async def test_rotation(desk: Desk, clock: Clock) -> None:
    """With a new key in front old secrets still work, and the next use encrypts them with the new one."""
    secret = await enrolled_secret(desk)
    desk.factor = TOTP(key={"2": OTHER_KEY, "1": KEY}, issuer="Shop")
    proof = await desk.verify({"code": code_at(secret, clock())})
    [stored] = await desk.records.of("ada")
    assert proof is not None
    assert proof.factor == stored
    assert json.loads(stored.data)["secret"].startswith("2.")
    clock.move(STEP)
    desk.factor = TOTP(key={"2": OTHER_KEY}, issuer="Shop")
    assert await desk.verify({"code": code_at(secret, clock())}) is not None


async def test_a_rotation_that_lost_a_race(clock: Clock) -> None:
    """A code is valid although its factor was changed while it was verified."""

    class Lost(StoredFactors):
        async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
            return False

    store = MemoryStore(clock=clock)
    desk = Desk(TOTP(key=KEY, issuer="Shop"), store, clock)
    secret = await enrolled_secret(desk)
    desk.factor = TOTP(key={"2": OTHER_KEY, "1": KEY}, issuer="Shop")
    desk.records = Lost(store)
    proof = await desk.verify({"code": code_at(secret, clock())})
    assert proof is not None
    assert [proof.factor] == list(await desk.records.of("ada"))


async def test_rekey(desk: Desk) -> None:
    """A factor is encrypted again by the first key, once; without the old key that is a 503."""
    await enrolled_secret(desk)
    [stored] = await desk.records.of("ada")
    assert TOTP(key=KEY, issuer="Shop").rekey(stored) is None
    both = TOTP(key={"2": OTHER_KEY, "1": KEY}, issuer="Shop")
    rekeyed = both.rekey(stored)
    assert rekeyed is not None
    assert both.rekey(rekeyed) is None
    with pytest.raises(ServiceUnavailable):
        TOTP(key={"3": OTHER_KEY}, issuer="Shop").rekey(stored)


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({"algorithm": "SHA256", "digits": 8}, hashlib.sha256),
        ({"algorithm": "SHA512", "period": 60}, hashlib.sha512),
        ({"digits": 7}, hashlib.sha1),
    ],
)
async def test_other_settings(clock: Clock, options: dict[str, Any], digest: Any) -> None:
    """The settings of the enrolment stay those of the factor, whatever is configured later."""
    desk = Desk(TOTP(key=KEY, issuer="Shop", **options), MemoryStore(clock=clock), clock)
    enrolment = await desk.begin()
    asked = {"digest": digest, "digits": options.get("digits", 6), "interval": options.get("period", 30)}
    assert await desk.confirm(enrolment, {"code": code_at(enrolment.shown["secret"], clock(), **asked)})
    clock.move(600)
    desk.factor = TOTP(key=KEY, issuer="Shop")
    assert await desk.verify({"code": code_at(enrolment.shown["secret"], clock(), **asked)}) is not None
    uri = parse_qs(urlsplit(enrolment.shown["uri"]).query)
    assert uri.get("algorithm", ["SHA1"]) == [options.get("algorithm", "SHA1")]
    assert uri.get("digits", ["6"]) == [str(asked["digits"])]
    assert uri.get("period", ["30"]) == [str(asked["interval"])]


# RFC 6238, appendix B: the time, and the last eight digits of SHA1, SHA256, SHA512.
VECTORS = [
    (59, "94287082", "46119246", "90693936"),
    (1111111109, "07081804", "68084774", "25091201"),
    (1111111111, "14050471", "67062674", "99943326"),
    (1234567890, "89005924", "91819424", "93441116"),
    (2000000000, "69279037", "90698825", "38618901"),
    (20000000000, "65353130", "77737706", "47863826"),
]


@pytest.mark.parametrize(("moment", "sha1", "sha256", "sha512"), VECTORS)
async def test_rfc_6238(moment: int, sha1: str, sha256: str, sha512: str) -> None:
    """The vectors of RFC 6238 are accepted at their time, and refused two minutes later."""
    for algorithm, code, length in (("SHA1", sha1, 20), ("SHA256", sha256, 32), ("SHA512", sha512, 64)):
        clock = Clock(moment)
        factor = TOTP(key=KEY, issuer="Shop", algorithm=algorithm, digits=8)  # type: ignore[arg-type]
        desk = Desk(factor, MemoryStore(clock=clock), clock)
        enrolment = await desk.begin()
        seed = b32encode((b"1234567890" * 7)[:length])
        state = json.loads(enrolment.factor.data)
        state["secret"] = factor._keys.seal(seed, "ada", "f1")
        await desk.records.add(replace(enrolment.factor, data=json.dumps(state)))
        clock.move(120)
        assert await desk.verify({"code": code}) is None
        clock.move(-120)
        assert await desk.verify({"code": code}) is not None


@pytest.mark.parametrize("name", ["a:b", "ada@example.com", "\ud800", "x" * 1000, "ü \U0001f511", "%&?#/"])
async def test_odd_names(clock: Clock, name: str) -> None:
    """Whatever a user is called, there is a URI, whose label names one issuer."""
    desk = Desk(TOTP(key=KEY, issuer="Shop & Co"), MemoryStore(clock=clock), clock, user_named(name))
    uri = (await desk.begin()).shown["uri"]
    assert urlsplit(uri).path.startswith("/Shop%20%26%20Co:")
    label = unquote(urlsplit(uri).path.partition(":")[2], errors="strict")
    assert label == name[:128].replace(":", " ").replace("\ud800", "?")
    assert parse_qs(urlsplit(uri).query)["issuer"] == ["Shop & Co"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "short"}, "at least 32 bytes"),
        ({"issuer": ""}, "issuer is the name of the service"),
        ({"issuer": "a:b"}, "issuer is the name of the service"),
        ({"issuer": "a\nb"}, "issuer is the name of the service"),
        ({"issuer": 7}, "issuer is the name of the service without a colon, such as 'Shop', not 7"),
        ({"algorithm": "MD5"}, "algorithm is one of SHA1, SHA256, SHA512, not text of 3 characters"),
        ({"digits": 5}, "digits is a whole number from 6 to 8, not 5"),
        ({"digits": 9}, "digits is a whole number from 6 to 8"),
        ({"digits": True}, "digits is a whole number"),
        ({"period": 5}, "period is a whole number from 15 to 120"),
        ({"period": 30.5}, "period is a whole number"),
        ({"drift": -1}, "drift is a whole number from 0 to 10"),
        ({"drift": 11}, "drift is a whole number from 0 to 10"),
    ],
)
def test_refused_settings(options: dict[str, Any], message: str) -> None:
    """A setting that would be unsafe or that no app understands is refused."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        TOTP(**{"key": KEY, "issuer": "Shop", **options})


@pytest.mark.parametrize(
    "options",
    [{"digits": 6}, {"digits": 8}, {"period": 15}, {"period": 120}, {"drift": 0}, {"drift": 10}],
)
async def test_the_bounds_of_settings(clock: Clock, options: dict[str, Any]) -> None:
    """Each number is accepted up to its bounds."""
    desk = Desk(TOTP(key=KEY, issuer="Shop", **options), MemoryStore(clock=clock), clock)
    parameters = parse_qs(urlsplit((await desk.begin()).shown["uri"]).query)
    assert all(parameters.get(name, [str(value)]) == [str(value)] for name, value in options.items())


async def test_what_is_stored(desk: Desk) -> None:
    """The secret is sealed for this purpose, its user and its factor; a spent step is kept as long as it is needed."""
    enrolment = await desk.begin()
    secret = enrolment.shown["secret"]
    sealed = json.loads(enrolment.factor.data)["secret"]
    assert enrolment.factor.data == f'{{"secret":"{sealed}","algorithm":"SHA1","digits":6,"period":30}}'
    assert Keyring(KEY, "totp").open(sealed, "ada", "f1") == secret.encode()
    assert await desk.confirm(enrolment, {"code": code_at(secret, desk.clock())}) is not None
    [record] = await desk.store.get(f"totp:f1:{int(desk.clock()) // STEP}")
    assert record == Record(f"totp:f1:{int(desk.clock()) // STEP}", b"", None, desk.clock() + 4 * STEP + 300)


async def test_the_longest_spelling(desk: Desk) -> None:
    """A code with spaces in it has at most four characters for each digit."""
    secret = await enrolled_secret(desk)
    code = code_at(secret, desk.clock())
    assert await desk.verify({"code": code.ljust(25)}) is None
    assert await desk.verify({"code": code.ljust(24)}) is not None


async def test_usable(desk: Desk) -> None:
    """TOTP is usable once an app is enrolled, and needs no challenge."""
    assert not desk.factor.usable(desk.user, (await desk.context()).enrolled)
    await enrolled_secret(desk)
    assert desk.factor.usable(desk.user, (await desk.context()).enrolled)
    assert await desk.challenge() == {}
