import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable
from fastapi_guard.login.enrolled import EnrolledFactor, StoredFactors
from fastapi_guard.login.factor import Strength
from fastapi_guard.login.passkey import Passkey, factor_id
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Store
from support.authenticator import AT, BE, BS, UP, UV, Authenticator, b64url, from_b64url
from support.clock import Clock
from support.examples import at_most
from support.factors import KEY, Desk, user_named

ORIGIN = "https://shop.example"


def passkeys(**options: Any) -> Passkeys:
    """Return passkeys of the shop."""
    return Passkeys(**{"rp_id": "shop.example", "origin": ORIGIN, **options})


@pytest.fixture
def desk(clock: Clock) -> Desk:
    """Return a desk with passkeys in memory."""
    return Desk(passkeys(), MemoryStore(clock=clock), clock)


async def enrolled(desk: Desk, **options: Any) -> Authenticator:
    """Enrol a passkey of the user."""
    device = Authenticator(**options)
    enrolment = await desk.begin()
    confirmed = await desk.confirm(enrolment, {"credential": device.create(enrolment.shown["publicKey"])})
    assert confirmed is not None
    return device


async def asserted(desk: Desk, device: Authenticator) -> dict[str, Any]:
    """Return the proof of a second factor that a device makes."""
    return {"credential": device.get((await desk.challenge())["publicKey"])}


async def offered(desk: Desk, login: str | None = None, find_user: Callable[[str], Any] | None = None) -> Any:
    """Return the options of a first factor."""
    assert isinstance(desk.factor, Passkeys)
    return (await desk.factor.offer(desk.first(find_user, login)))["publicKey"]


async def identified(desk: Desk, proof: dict[str, Any]) -> Any:
    """Return whom a first factor identifies."""
    assert isinstance(desk.factor, Passkeys)
    return await desk.factor.identify(desk.first(), proof)


async def find_ada(login: str) -> User | None:
    """Look a user up; there is one."""
    return user_named() if login == "ada" else None


# Enrolling


async def test_creation_options(desk: Desk) -> None:
    """The options have a random challenge and handle, no attestation, and no user data beyond the name."""
    first, second = await desk.begin(), await desk.begin()
    options = first.shown["publicKey"]
    assert options["rp"] == {"id": "shop.example", "name": "shop.example"}
    assert options["user"]["name"] == options["user"]["displayName"] == "ada"
    assert options["attestation"] == "none"
    assert options["authenticatorSelection"]["residentKey"] == "preferred"
    assert options["authenticatorSelection"]["userVerification"] == "preferred"
    assert {parameters["alg"] for parameters in options["pubKeyCredParams"]} == {-7, -8, -257}
    for name in (options["challenge"], options["user"]["id"]):
        assert len(from_b64url(name)) == 32
    assert options["challenge"] != second.shown["publicKey"]["challenge"]
    assert options["user"]["id"] != second.shown["publicKey"]["user"]["id"]


@pytest.mark.parametrize("algorithm", [-7, -8, -257])
async def test_enrol_and_prove(desk: Desk, algorithm: int) -> None:
    """A passkey of each algorithm is enrolled, and its assertion is a proof."""
    device = await enrolled(desk, algorithm=algorithm)
    [factor] = await desk.records.of("ada")
    assert factor.id == factor_id(device.credential_id)
    assert Passkey.of(factor).transports == ("internal", "hybrid")
    proof = await desk.verify(await asserted(desk, device))
    assert proof is not None
    assert proof.methods == ("hwk", "user", "mfa")
    assert proof.factor == factor
    assert desk.factor.strength is Strength.KEY


async def test_the_handle_is_one_for_all_passkeys(desk: Desk) -> None:
    """A second passkey of the user has the same handle, and the first one is excluded."""
    device = await enrolled(desk)
    options = (await desk.begin()).shown["publicKey"]
    assert from_b64url(options["user"]["id"]) == device.user_handle
    assert options["excludeCredentials"] == [
        {"id": b64url(device.credential_id), "type": "public-key", "transports": ["internal", "hybrid"]}
    ]


@pytest.mark.parametrize(
    ("flags", "methods"),
    [
        (UP, ("hwk",)),
        (UP | UV, ("hwk", "user", "mfa")),
        (UP | BE, ("swk",)),
        (UP | BE | BS, ("swk",)),
        (UP | UV | BE | BS, ("swk", "user", "mfa")),
    ],
)
async def test_methods(desk: Desk, flags: int, methods: tuple[str, ...]) -> None:
    """A synchronised passkey is `swk`, another one `hwk`; `user` and `mfa` are there where the user was verified."""
    device = await enrolled(desk, flags=flags)
    proof = await desk.verify(await asserted(desk, device))
    assert proof is not None
    assert proof.methods == methods
    assert desk.factor.describe(proof.factor) == {  # type: ignore[attr-defined]
        "synchronised": bool(flags & BE),
        "aaguid": "00000000-0000-0000-0000-000000000000",
    }


async def test_a_credential_belongs_to_one_user(desk: Desk) -> None:
    """A credential that a user has enrolled is not enrolled again, by that user or another."""
    device = await enrolled(desk)
    for name in ("ada", "eve"):
        desk.user = user_named(name)
        enrolment = await desk.begin()
        proof = {"credential": device.create(enrolment.shown["publicKey"])}
        confirmed = await desk.factor.confirm(await desk.context(), enrolment.factor, proof)
        assert confirmed is not None
        assert not await desk.records.add(confirmed)


async def test_an_enrolment_in_another_session(desk: Desk) -> None:
    """The challenge of an enrolment is valid in the session that began it, and for its user."""
    for other in ({"binding": "pending-2"}, {"user": user_named("eve")}):
        enrolment = await desk.begin()
        proof = {"credential": Authenticator().create(enrolment.shown["publicKey"])}
        context = replace(await desk.context(), **other)
        assert await desk.factor.confirm(context, enrolment.factor, proof) is None


async def test_a_challenge_is_used_up(desk: Desk) -> None:
    """A challenge confirms one enrolment, and is used up by a wrong proof too."""
    enrolment = await desk.begin()
    wrong = Authenticator(origin="https://elsewhere.example").create(enrolment.shown["publicKey"])
    assert await desk.confirm(enrolment, {"credential": wrong}) is None
    assert await desk.confirm(enrolment, {"credential": Authenticator().create(enrolment.shown["publicKey"])}) is None


# Refused, at a registration and at an assertion alike


BAD_DEVICES = {
    "another origin": {"origin": "https://elsewhere.example"},
    "a sub-domain": {"origin": "https://www.shop.example"},
    "a port": {"origin": "https://shop.example:444"},
    "http": {"origin": "http://shop.example"},
    "capitals": {"origin": "https://SHOP.example"},
    "another rp": {"rp_id": "elsewhere.example"},
    "the parent": {"rp_id": "example"},
    "no presence": {"flags": UV},
    "backed up, not eligible": {"flags": UP | UV | BS},
    "a frame": {"client_data": {"crossOrigin": True}},
    "crossOrigin null": {"client_data": {"crossOrigin": None}},
    "crossOrigin text": {"client_data": {"crossOrigin": "false"}},
    "crossOrigin 0": {"client_data": {"crossOrigin": 0}},
    "topOrigin": {"client_data": {"topOrigin": "https://elsewhere.example"}},
    "topOrigin own": {"client_data": {"topOrigin": ORIGIN}},
    "topOrigin null": {"client_data": {"topOrigin": None}},
    "type": {"client_data": {"type": "webauthn.other"}},
    "payment": {"client_data": {"type": "payment.get"}},
    "another challenge": {"client_data": {"challenge": b64url(bytes(32))}},
    "no challenge": {"client_data": {"challenge": None}},
    "empty challenge": {"client_data": {"challenge": ""}},
    "odd challenge": {"client_data": {"challenge": "é"}},
    "padded challenge": {"client_data": {"challenge": "AAAA="}},
    "origin list": {"client_data": {"origin": [ORIGIN]}},
}


@pytest.mark.parametrize("options", BAD_DEVICES.values(), ids=BAD_DEVICES)
async def test_refused_registrations(desk: Desk, options: dict[str, Any]) -> None:
    """A credential of another page, of a frame, or with a wrong flag is not enrolled; the right one is."""
    enrolment = await desk.begin()
    assert (
        await desk.confirm(enrolment, {"credential": Authenticator(**options).create(enrolment.shown["publicKey"])})
        is None
    )
    assert await desk.records.of("ada") == []
    assert await enrolled(desk)


@pytest.mark.parametrize("options", BAD_DEVICES.values(), ids=BAD_DEVICES)
async def test_refused_assertions(desk: Desk, options: dict[str, Any]) -> None:
    """An assertion of another page, of a frame, or with a wrong flag is rejected, as second and as first factor."""
    device = await enrolled(desk)
    bad = replace(device, **options)
    assert await desk.verify(await asserted(desk, bad)) is None
    assert await identified(desk, {"credential": bad.get(await offered(desk))}) is None
    assert await desk.verify(await asserted(desk, device)) is not None
    assert await identified(desk, {"credential": device.get(await offered(desk))}) is not None


async def test_another_key(desk: Desk) -> None:
    """An assertion by another key with the id of the passkey is rejected."""
    device = await enrolled(desk)
    forged = Authenticator(credential_id=device.credential_id)
    forged.create((await desk.begin()).shown["publicKey"])
    forged.user_handle = device.user_handle
    assert await desk.verify(await asserted(desk, forged)) is None
    assert await identified(desk, {"credential": forged.get(await offered(desk))}) is None


async def test_backup_eligibility_never_changes(desk: Desk) -> None:
    """A passkey that becomes synchronisable, or ceases to be, is refused."""
    device = await enrolled(desk)
    assert await desk.verify(await asserted(desk, replace(device, flags=UP | UV | BE))) is None
    synchronised = await enrolled(desk, flags=UP | UV | BE)
    assert await desk.verify(await asserted(desk, replace(synchronised, flags=UP | UV))) is None
    assert await desk.verify(await asserted(desk, replace(synchronised, flags=UP | UV | BE | BS))) is not None
    stored = await desk.records.get(factor_id(synchronised.credential_id))
    assert stored is not None
    assert Passkey.of(stored).backed_up


# Counters


async def test_a_counter_is_stored(desk: Desk) -> None:
    """A counter that goes on is stored, without an event."""
    device = await enrolled(desk, counter=5)
    for count in (6, 7):
        proof = await desk.verify(await asserted(desk, device))
        assert proof is not None
        [stored] = await desk.records.of("ada")
        assert proof.factor == stored
        assert Passkey.of(stored).sign_count == count
    assert desk.events == []


@pytest.mark.parametrize("count", [0, 3, 4])
async def test_a_counter_that_goes_back(desk: Desk, count: int) -> None:
    """A counter that goes back, stands still or disappears is an event, and the higher one is kept."""
    device = await enrolled(desk, counter=5)
    device.counter = count
    assert await desk.verify(await asserted(desk, device)) is not None
    assert [(event.name, event.subject, event.reason) for event in desk.events] == [
        ("passkey_counter", "ada", "counter_went_back")
    ]
    [stored] = await desk.records.of("ada")
    assert Passkey.of(stored).sign_count == 5


async def test_a_counter_that_goes_back_is_refused_where_configured(desk: Desk) -> None:
    """With refuse_counter_regression it is rejected too."""
    desk.factor = passkeys(refuse_counter_regression=True)
    device = await enrolled(desk, counter=5)
    device.counter = 3
    assert await desk.verify(await asserted(desk, device)) is None
    assert [event.name for event in desk.events] == ["passkey_counter"]
    device.counter = 5
    assert await desk.verify(await asserted(desk, device)) is not None


async def test_no_counter(desk: Desk) -> None:
    """A passkey without a counter, such as a synchronised one, causes no event."""
    device = await enrolled(desk)
    assert await desk.verify(await asserted(desk, device)) is not None
    assert desk.events == []


async def test_a_counter_that_changed_meanwhile(clock: Clock) -> None:
    """A higher counter that another process stores first is kept, and the lower one is an event."""

    class Overtaken(StoredFactors):
        async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
            if Passkey.of(new).sign_count < 100:
                ahead = replace(Passkey.of(expected), sign_count=100).stored_in(expected)
                await super().replace(expected, ahead)
                return False
            return await super().replace(expected, new)  # pragma: no cover - it is not called again

    store = MemoryStore(clock=clock)
    desk = Desk(passkeys(), store, clock, records=Overtaken(store))
    device = await enrolled(desk, counter=5)
    assert await desk.verify(await asserted(desk, device)) is not None
    [stored] = await desk.records.of("ada")
    assert Passkey.of(stored).sign_count == 100
    assert [event.name for event in desk.events] == ["passkey_counter"]


async def test_always_contended(clock: Clock) -> None:
    """A passkey that changes again and again is a 503."""

    class Lost(StoredFactors):
        async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
            return False

    store = MemoryStore(clock=clock)
    desk = Desk(passkeys(), store, clock, records=Lost(store))
    device = await enrolled(desk, counter=5)
    with pytest.raises(ServiceUnavailable):
        await desk.verify(await asserted(desk, device))


async def test_removed_meanwhile(clock: Clock) -> None:
    """A passkey that is removed, or goes to another user, while it is verified is rejected."""

    class Removed(StoredFactors):
        instead: EnrolledFactor | None = None

        async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
            await self.remove(expected.id)
            if self.instead is not None:
                await self.add(self.instead)
            return False

    store = MemoryStore(clock=clock)
    records = Removed(store)
    desk = Desk(passkeys(), store, clock, records=records)
    for subject in (None, "eve"):
        device = await enrolled(desk, counter=5)
        [factor] = await desk.records.of("ada")
        records.instead = None if subject is None else replace(factor, subject=subject)
        assert await desk.verify(await asserted(desk, device)) is None


# As the second factor


async def test_the_challenge_lists_the_passkeys(desk: Desk) -> None:
    """The options list the user's own passkeys with their transports, and prefer user verification."""
    device = await enrolled(desk)
    options = (await desk.challenge())["publicKey"]
    assert options["rpId"] == "shop.example"
    assert options["userVerification"] == "preferred"
    assert options["allowCredentials"] == [
        {"id": b64url(device.credential_id), "type": "public-key", "transports": ["internal", "hybrid"]}
    ]


async def test_a_proof_is_used_once(desk: Desk) -> None:
    """The same assertion twice, and another one for the same challenge, is refused."""
    device = await enrolled(desk)
    options = (await desk.challenge())["publicKey"]
    proof = {"credential": device.get(options)}
    assert await desk.verify(proof) is not None
    assert await desk.verify(proof) is None
    assert await desk.verify({"credential": device.get(options)}) is None


async def test_a_proof_of_another_login(desk: Desk) -> None:
    """An assertion for one login is rejected in another, and stays valid in its own."""
    device = await enrolled(desk)
    proof = await asserted(desk, device)
    desk.binding = "pending-2"
    assert await desk.verify(proof) is None
    desk.binding = "pending-1"
    assert await desk.verify(proof) is not None


async def test_purposes_are_apart(desk: Desk) -> None:
    """A challenge to enrol, to prove and to begin a login are nothing to each other."""
    device = await enrolled(desk)
    for_enrolment = {"credential": device.get((await desk.begin()).shown["publicKey"])}
    for_first = {"credential": device.get(await offered(desk))}
    for_second = await asserted(desk, device)
    assert await desk.verify(for_enrolment) is None
    assert await desk.verify(for_first) is None
    assert await identified(desk, for_enrolment) is None
    assert await identified(desk, for_second) is None
    assert await identified(desk, for_first) is not None
    assert await desk.verify(for_second) is not None


async def test_a_proof_of_another_user(desk: Desk) -> None:
    """A passkey of one user proves nothing for another."""
    device = await enrolled(desk)
    desk.user = user_named("eve")
    own = await enrolled(desk)
    assert await desk.verify(await asserted(desk, device)) is None
    assert await desk.verify(await asserted(desk, own)) is not None
    proof = await asserted(desk, own)
    desk.user = user_named("ada")
    assert await desk.verify(proof) is None


async def test_an_expired_challenge(desk: Desk) -> None:
    """After five minutes a challenge is refused."""
    device = await enrolled(desk)
    proof = await asserted(desk, device)
    desk.clock.move(300)
    assert await desk.verify(proof) is None


async def test_without_user_verification(desk: Desk) -> None:
    """As a second factor a key without a PIN is enough, as the only factor it is not."""
    device = await enrolled(desk, flags=UP)
    proof = await desk.verify(await asserted(desk, device))
    assert proof is not None
    assert "mfa" not in proof.methods
    assert await identified(desk, {"credential": device.get(await offered(desk))}) is None


async def test_one_proof_many_times_at_once(store: Store, clock: Clock) -> None:
    """Of many that present the same assertion at the same time one is accepted, on each store."""
    desk = Desk(passkeys(), store, clock)
    device = await enrolled(desk)
    proof = await asserted(desk, device)
    context = await desk.context()
    proofs = await asyncio.gather(*(desk.factor.verify(context, proof) for _ in range(8)))
    assert sum(accepted is not None for accepted in proofs) == 1


# As the only factor


async def test_discoverable(desk: Desk) -> None:
    """Without a name the options list nothing, and the passkey identifies its user."""
    device = await enrolled(desk)
    options = await offered(desk)
    assert options["allowCredentials"] == []
    assert options["userVerification"] == "required"
    found = await identified(desk, {"credential": device.get(options)})
    assert found[0] == "ada"
    assert found[1].methods == ("hwk", "user", "mfa")


async def test_discoverable_needs_the_handle(desk: Desk) -> None:
    """Without a name an assertion needs the handle of its user; another handle is refused."""
    device = await enrolled(desk)
    for handle in (None, b"", bytes(32), b"x" * 65):
        assert (
            await identified(desk, {"credential": replace(device, user_handle=handle).get(await offered(desk))}) is None
        )
    assert await desk.verify(await asserted(desk, replace(device, user_handle=bytes(32)))) is None
    assert await desk.verify(await asserted(desk, replace(device, user_handle=b""))) is not None
    assert await desk.verify(await asserted(desk, replace(device, user_handle=None))) is not None


async def test_a_name_without_decoys_is_ignored(desk: Desk) -> None:
    """Without a key for decoys a name changes nothing, and nothing is looked up."""
    await enrolled(desk)
    looked_up: list[str] = []
    options = await offered(desk, "ada", looked_up.append)
    assert options["allowCredentials"] == []
    assert looked_up == []


async def test_named(desk: Desk) -> None:
    """With decoys a user who is named is shown the ids of the passkeys, and the handle may be missing."""
    desk.factor = passkeys(decoy_key=KEY)
    device = await enrolled(desk)
    options = await offered(desk, "ada", find_ada)
    assert options["allowCredentials"] == [{"id": b64url(device.credential_id), "type": "public-key"}]
    found = await identified(desk, {"credential": replace(device, user_handle=None).get(options)})
    assert found[0] == "ada"


async def test_decoys(desk: Desk) -> None:
    """An unknown user, and one without passkeys, has made-up ids: the same each time, others for others."""
    desk.factor = passkeys(decoy_key=KEY)
    shown = [(await offered(desk, name, find_ada))["allowCredentials"] for name in ("ada", "ada", "eve", "bob")]
    assert shown[0] == shown[1]
    assert len({json.dumps(ids) for ids in shown}) == 3
    for ids in shown:
        assert 1 <= len(ids) <= 3
        assert all(set(one) == {"id", "type"} for one in ids)
        assert all(len(from_b64url(one["id"])) in (16, 20, 32, 48, 64) for one in ids)
    desk.factor = passkeys(decoy_key=KEY)
    assert (await offered(desk, "eve", find_ada))["allowCredentials"] == shown[2]


async def test_named_and_decoys_look_alike(desk: Desk) -> None:
    """The options for a known and an unknown user have the same members and need the same calls of the store."""
    desk.factor = passkeys(decoy_key=KEY)
    await enrolled(desk)
    calls: list[str] = []

    class Counting(StoredFactors):
        async def of(self, subject: str) -> Any:
            calls.append("of")
            return await super().of(subject)

    desk.records = Counting(desk.store)
    known, unknown = await offered(desk, "ada", find_ada), await offered(desk, "eve", find_ada)
    assert calls == ["of", "of"]
    assert set(known) == set(unknown)
    assert set(known["allowCredentials"][0]) == set(unknown["allowCredentials"][0])


async def test_another_user_than_named(desk: Desk) -> None:
    """The passkey of another user than the named one is rejected; a name without a user has no passkey."""
    desk.factor = passkeys(decoy_key=KEY)
    device = await enrolled(desk)
    desk.user = user_named("eve")
    other = await enrolled(desk)
    assert await identified(desk, {"credential": other.get(await offered(desk, "ada", find_ada))}) is None
    assert await identified(desk, {"credential": device.get(await offered(desk, "nobody", find_ada))}) is None


async def test_not_the_first_factor(desk: Desk) -> None:
    """Passkeys that are a second factor alone begin no login."""
    desk.factor = passkeys(first=False)
    with pytest.raises(Forbidden):
        await offered(desk)
    with pytest.raises(Forbidden):
        await identified(desk, {})


async def test_unknown_credentials(desk: Desk) -> None:
    """A credential that no user has enrolled, or that is a factor of another kind, is refused."""
    device = await enrolled(desk)
    [factor] = await desk.records.of("ada")
    await desk.records.remove(factor.id)
    assert await identified(desk, {"credential": device.get(await offered(desk))}) is None
    await desk.records.add(replace(factor, kind="other"))
    assert await identified(desk, {"credential": device.get(await offered(desk))}) is None
    assert await desk.verify(await asserted(desk, device)) is None


# Malformed credentials


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what puts a value into a credential."""

    def change(credential: dict[str, Any]) -> dict[str, Any]:
        copy: dict[str, Any] = json.loads(json.dumps(credential))
        *parents, name = path.split(".")
        where = copy
        for parent in parents:
            where = where[parent]
        where[name] = value
        return {"credential": copy}

    return change


def client_data(raw: bytes) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what replaces the client data."""
    return changed("response.clientDataJSON", b64url(raw))


MALFORMED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nothing": lambda credential: {},
    "null": lambda credential: {"credential": None},
    "text": lambda credential: {"credential": json.dumps(credential)},
    "list": lambda credential: {"credential": [credential]},
    "no response": changed("response", None),
    "response list": changed("response", []),
    "no raw id": changed("rawId", None),
    "raw id number": changed("rawId", 7),
    "raw id padded": changed("rawId", "AAA="),
    "raw id long": changed("rawId", "A" * 2000),
    "raw id odd": changed("rawId", "é"),
    "another raw id": changed("rawId", b64url(b"other")),
    "another id": changed("id", b64url(b"other")),
    "no id": changed("id", None),
    "type": changed("type", "private-key"),
    "attachment": changed("authenticatorAttachment", "glued"),
    "no client data": changed("response.clientDataJSON", None),
    "client data number": changed("response.clientDataJSON", 7),
    "client data long": changed("response.clientDataJSON", "A" * 100_000),
    "client data list": client_data(b"[]"),
    "client data text": client_data(b"hello"),
    "client data deep": client_data(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "client data utf-16": client_data('{"type":"webauthn.get"}'.encode("utf-16")),
    "client data surrogate": client_data(b'{"challenge":"\\ud800"}'),
    "no signature": changed("response.signature", None),
    "signature text": changed("response.signature", "AAAA"),
    "no authenticator data": changed("response.authenticatorData", None),
    "short authenticator data": changed("response.authenticatorData", "AAAA"),
    "handle list": changed("response.userHandle", [1]),
    "handle number": changed("response.userHandle", 1),
    "handle padded": changed("response.userHandle", "AA=="),
}


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_assertions(desk: Desk, malformed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A malformed credential is rejected without an exception, as second and as first factor."""
    device = await enrolled(desk)
    proof = malformed(device.get((await desk.challenge())["publicKey"]))
    assert await desk.verify(proof) is None
    assert await identified(desk, malformed(device.get(await offered(desk)))) is None


def deep(levels: int) -> bytes:
    """Return CBOR of so many arrays in each other."""
    return b"\x81" * levels + b"\x00"


MALFORMED_REGISTRATIONS = {
    "no attestation": changed("response.attestationObject", None),
    "attestation text": changed("response.attestationObject", "AAAA"),
    "attestation deep": changed("response.attestationObject", b64url(deep(20_000))),
    "attestation huge": changed("response.attestationObject", b64url(b"\x9b" + b"\xff" * 8)),
    "unknown format": changed(
        "response.attestationObject", b64url(cbor2.dumps({"fmt": "odd", "attStmt": {}, "authData": bytes(37)}))
    ),
    "no credential data": changed(
        "response.attestationObject", b64url(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": bytes(37)}))
    ),
    **{name: MALFORMED[name] for name in ("nothing", "null", "list", "raw id long", "another raw id", "type")},
}


@pytest.mark.parametrize("malformed", MALFORMED_REGISTRATIONS.values(), ids=MALFORMED_REGISTRATIONS)
async def test_malformed_registrations(desk: Desk, malformed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A malformed registration is rejected without an exception."""
    enrolment = await desk.begin()
    assert await desk.confirm(enrolment, malformed(Authenticator().create(enrolment.shown["publicKey"]))) is None


async def test_the_signed_id_is_the_presented_one(desk: Desk) -> None:
    """A registration whose ids differ from the one that was attested is refused."""
    enrolment = await desk.begin()
    credential = Authenticator().create(enrolment.shown["publicKey"])
    credential["id"] = credential["rawId"] = b64url(b"another")
    assert await desk.confirm(enrolment, {"credential": credential}) is None


async def test_odd_transports(desk: Desk) -> None:
    """Transports that are not a list of texts are left out."""
    for number, transports in enumerate(("usb", None, [1, None, "usb", "usb", ["nfc"]])):
        enrolment = await desk.begin()
        credential = Authenticator().create(enrolment.shown["publicKey"])
        credential["response"]["transports"] = transports
        confirmed = await desk.confirm(enrolment, {"credential": credential})
        assert confirmed is not None
        assert Passkey.of(confirmed).transports == (("usb",) if number == 2 else ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@at_most(80)
@given(JSON, JSON, JSON)
async def test_total(credential: Any, response: Any, text: Any) -> None:
    """Whatever JSON a client sends, there is an answer."""
    clock = Clock()
    desk = Desk(passkeys(), MemoryStore(clock=clock), clock)
    for proof in ({"credential": credential}, {"credential": {"rawId": "AAAA", "response": response}}):
        assert await desk.verify(proof) is None
        assert await identified(desk, proof) is None
    nested = {"rawId": "AAAA", "response": {"clientDataJSON": text, "userHandle": credential}}
    assert await desk.verify({"credential": nested}) is None


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"origin": []}, "origin is where the pages are"),
        ({"origin": "http://shop.example"}, "is not the origin of a page with passkeys"),
        ({"origin": "https://shop.example/"}, "is not the origin of a page with passkeys"),
        ({"origin": "https://Shop.example"}, "is not the origin of a page with passkeys"),
        ({"origin": "https://ada@shop.example"}, "is not the origin of a page with passkeys"),
        ({"origin": "shop.example"}, "is not the origin of a page with passkeys"),
        ({"origin": "https://elsewhere.example"}, "rp_id is the host of the pages or a parent of it"),
        ({"origin": "https://notshop.example"}, "rp_id is the host of the pages or a parent of it"),
        ({"rp_id": "127.0.0.1", "origin": "https://127.0.0.1"}, 'use "localhost" to develop'),
        ({"discoverable": "maybe"}, 'discoverable is "required", "preferred" or "discouraged"'),
        ({"decoy_key": "short"}, "at least 32 bytes"),
    ],
)
def test_refused_settings(options: dict[str, Any], message: str) -> None:
    """An origin that no passkey works on, or a host that is not its own, is refused with the remedy."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        passkeys(**options)


async def test_several_origins(clock: Clock) -> None:
    """Pages on several hosts of one relying party, an app and localhost are accepted where they are listed."""
    origins = ["https://www.shop.example", "https://shop.example:8443", "android:apk-key-hash:abc"]
    desk = Desk(passkeys(origin=origins), MemoryStore(clock=clock), clock)
    for origin in origins:
        device = await enrolled(desk, origin=origin)
        assert await desk.verify(await asserted(desk, device)) is not None
    local = Desk(Passkeys(rp_id="localhost", origin="http://localhost:8000"), MemoryStore(clock=clock), clock)
    device = await enrolled(local, rp_id="localhost", origin="http://localhost:8000")
    assert await local.verify(await asserted(local, device)) is not None


async def test_options_by_settings(clock: Clock) -> None:
    """The name of the service and whether passkeys are discoverable reach the browser."""
    desk = Desk(passkeys(rp_name="The Shop", discoverable="required"), MemoryStore(clock=clock), clock)
    options = (await desk.begin()).shown["publicKey"]
    assert options["rp"]["name"] == "The Shop"
    assert options["authenticatorSelection"]["residentKey"] == "required"


async def test_usable(desk: Desk) -> None:
    """Passkeys are usable once one is enrolled."""
    assert not desk.factor.usable(desk.user, (await desk.context()).enrolled)
    await enrolled(desk)
    assert desk.factor.usable(desk.user, (await desk.context()).enrolled)


@pytest.mark.parametrize("name", ["\ud800", "x" * 1000, "ü \U0001f511"])
async def test_odd_names(clock: Clock, name: str) -> None:
    """Whatever a user is called, there are options that are JSON."""
    desk = Desk(passkeys(), MemoryStore(clock=clock), clock, user_named(name, subject_id="ada"))
    assert json.dumps(dict((await desk.begin()).shown), ensure_ascii=False).encode()


def test_attested_flag() -> None:
    """The flags of the authenticator in software are those of WebAuthn 6.1."""
    assert (UP, UV, BE, BS, AT) == (1, 4, 8, 16, 64)
