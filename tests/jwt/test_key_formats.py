"""Keys as other programs write them: JWKs with members that say nothing, PEM text as environment files have it."""

import json
import logging
from base64 import b64encode, encodebytes, urlsafe_b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.jwk import OctKey

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.jwt.keys import as_keys, usable_keys
from support.tokens import KEYS

NAMES = ("RS256", "ES256", "EdDSA")
# Each member that a JWK may have beside those of the key itself, and the private ones.
OPTIONAL = [
    "alg",
    "use",
    "kid",
    "key_ops",
    "x5c",
    "x5t",
    "x5t#S256",
    "x5u",
    "d",
    "p",
    "q",
    "dp",
    "dq",
    "qi",
    "oth",
    "k",
]
NOTHING = [None, "", [], {}]


def public(name: str) -> dict[str, Any]:
    """Return the public JWK of a key."""
    return dict(KEYS[name].as_dict(private=False))


def certificate_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """Return a certificate that the key has signed for itself, and that expired long ago."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id.example")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


# --- JWKs


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
@pytest.mark.parametrize("member", OPTIONAL)
@pytest.mark.parametrize("name", NAMES)
def test_a_member_that_says_nothing(name: str, member: str, nothing: Any) -> None:
    """Null and empty are as good as absent, in a published set and in a key of the configuration (13a)."""
    entry = {**public(name), member: nothing}
    (found,) = usable_keys({"keys": [entry]}, ["RS256", "ES256", "EdDSA"])
    assert found.thumbprint() == KEYS[name].thumbprint()
    assert not found.is_private
    assert found.kid is None
    for written in (entry, json.dumps(entry), json.dumps({"keys": [entry]})):
        (configured,) = as_keys(written)
        assert configured.thumbprint() == KEYS[name].thumbprint()


@pytest.mark.parametrize("name", NAMES)
def test_all_members_that_say_nothing(name: str) -> None:
    """All of them at once do not hide the key either."""
    (found,) = usable_keys({"keys": [{**dict.fromkeys(OPTIONAL), **public(name)}]}, ["RS256", "ES256", "EdDSA"])
    assert found.thumbprint() == KEYS[name].thumbprint()


@pytest.mark.parametrize(("name", "member"), [("RS256", "n"), ("RS256", "e"), ("ES256", "x"), ("EdDSA", "x")])
@pytest.mark.parametrize("padding", ["=", "==", "==="])
def test_padded_numbers(name: str, member: str, padding: str) -> None:
    """Padding of base64url is read over."""
    entry = {**public(name), member: public(name)[member] + padding}
    (found,) = usable_keys({"keys": [entry]}, ["RS256", "ES256", "EdDSA"])
    assert found.thumbprint() == KEYS[name].thumbprint() or name == "RS256"
    assert found.key_type == KEYS[name].key_type


@pytest.mark.parametrize(("name", "member"), [("RS256", "n"), ("ES256", "x"), ("EdDSA", "x")])
def test_numbers_in_plain_base64(name: str, member: str) -> None:
    """The alphabet of plain base64, line ends and padding are read as well."""
    raw = urlsafe_b64decode(public(name)[member] + "==")
    for written in (b64encode(raw).decode(), encodebytes(raw).decode()):
        (found,) = usable_keys({"keys": [{**public(name), member: written}]}, ["RS256", "ES256", "EdDSA"])
        assert found.thumbprint() == KEYS[name].thumbprint()


@pytest.mark.parametrize(("name", "member"), [("RS256", "n"), ("RS256", "e"), ("ES256", "crv"), ("EdDSA", "x")])
@pytest.mark.parametrize("nothing", [*NOTHING, "=", 5, "!"], ids=repr)
def test_a_member_of_the_key_itself(name: str, member: str, nothing: Any) -> None:
    """A key without one of its numbers is skipped."""
    report: list[str] = []
    entry = {**public(name), member: nothing}
    assert usable_keys({"keys": [entry]}, ["RS256", "ES256", "EdDSA"], report.append) == []
    assert len(report) == 1


def test_a_published_private_key() -> None:
    """The private half of a key that an issuer publishes by mistake is not kept."""
    (found,) = usable_keys({"keys": [KEYS["RS256"].as_dict(private=True)]}, ["RS256"])
    assert not found.is_private


def test_skipped_keys_are_reported() -> None:
    """Each skipped entry is reported with its kid and the reason, in one line of bounded length."""
    entries = [
        {**public("RS256"), "kid": "encrypting", "use": "enc"},
        {**public("ES256"), "kid": "signing", "key_ops": ["sign"]},
        {"kty": "oct", "kid": "secret", "k": "hunter2hunter2"},
        {**public("RS256"), "kid": "short", "n": "AA"},
        {**public("ES256"), "kid": "two\nlines", "x": "AAAA"},
        {"kid": "k" * 500},
        7,
    ]
    reports: list[str] = []
    (found,) = usable_keys({"keys": [*entries, public("EdDSA")]}, ["RS256", "ES256", "EdDSA"], reports.append)
    assert found.key_type == "OKP"
    expected = ["'encrypting'", "'signing'", "'secret'", "'short'", r"'two\nlines'", "'kkk", "None"]
    for report, kid in zip(reports, expected, strict=True):
        assert kid in report
        assert "\n" not in report
        assert "hunter2" not in report
        assert len(report) < 320
    assert "key_ops" in reports[1]
    assert "2048" in reports[3]


def test_skipped_keys_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By default they are logged."""
    with caplog.at_level(logging.WARNING, "fastapi_guard"):
        assert usable_keys({"keys": [{"kty": "oct", "kid": "secret"}]}, ["RS256"]) == []
    assert "'secret'" in caplog.text


# --- PEM

LAYOUTS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "backslash n": lambda text: text.replace("\n", "\\n"),
    "two backslashes n": lambda text: text.replace("\n", "\\\\n"),
    "four backslashes r, n": lambda text: text.replace("\n", "\\\\\\\\r\\\\\\\\n"),
    "backslash r, backslash n": lambda text: text.replace("\n", "\\r\\n"),
    "quoted": lambda text: '"' + text.replace("\n", "\\n") + '"',
    "quoted, with a line end": lambda text: "'" + text.replace("\n", "\\n") + "'\n",
    "spaces": lambda text: text.replace("\n", " "),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "indented": lambda text: text.replace("\n", "\n    "),
    "one line": lambda text: text.replace("\n", ""),
    "a text around it": lambda text: f"subject=CN = id.example\n{text}\n# the end\n",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_layouts_of_pem(name: str, private: bool, layout: Callable[[str], str]) -> None:
    """A PEM text is read as env files, YAML and secret stores lay it out."""
    pem = KEYS[name].as_pem(private=private).decode()  # type: ignore[attr-defined]
    (found,) = as_keys(layout(pem))
    assert found.thumbprint() == KEYS[name].thumbprint()
    assert found.is_private is private


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
async def test_a_key_from_an_environment_file(layout: Callable[[str], str]) -> None:
    """The whole way: a configuration with such a key signs and verifies."""
    pem = KEYS["ES256"].as_pem(private=True).decode()  # type: ignore[attr-defined]
    auth = JWTAuth(JWTConfig(key=layout(pem)))
    assert await auth.verify(auth.encode({"sub": "ada"}))


def test_a_map_of_certificates() -> None:
    """Google publishes certificates by kid; a set as well as a configuration reads them, expired ones too."""
    one, two = rsa.generate_private_key(65_537, 2048), ec.generate_private_key(ec.SECP256R1())
    document = {"1": certificate_of(one), "2": certificate_of(two).replace("\n", "\\n")}
    found = usable_keys(document, ["RS256", "ES256"])
    assert [(key.kid, key.key_type) for key in found] == [("1", "RSA"), ("2", "EC")]
    assert [(key.kid, key.key_type) for key in as_keys(document)] == [("1", "RSA"), ("2", "EC")]
    assert JWTConfig(key=document).algorithms == ("RS256", "ES256")
    assert [key.kid for key in usable_keys(document, ["ES256"], lambda _: None)] == ["2"]


def test_a_map_of_which_an_entry_is_broken() -> None:
    """A broken entry of a published map is skipped and reported; in a configuration it is refused."""
    good = certificate_of(rsa.generate_private_key(65_537, 2048))
    bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    for broken in (bad, "x", 7, None, ["x"]):
        reports: list[str] = []
        found = usable_keys({"broken": broken, "good": good}, ["RS256"], reports.append)
        assert [key.kid for key in found] == ["good"]
        assert "'broken'" in reports[0]
        with pytest.raises(ConfigurationError):
            as_keys({"broken": broken, "good": good})


@pytest.mark.parametrize("document", [{}, {"1": "x"}, {"error": {"code": 404}}, {"issuer": "https://id.example"}])
def test_what_is_no_map_of_certificates(document: dict[str, Any]) -> None:
    """Another document has no keys."""
    assert usable_keys(document, ["RS256"]) == []
    with pytest.raises(ConfigurationError):
        as_keys(document)


def test_a_jwk_as_a_mapping() -> None:
    """A JWK or a JWK Set that was parsed already is read as well, a symmetric one too."""
    assert as_keys(public("ES256"))[0].thumbprint() == KEYS["ES256"].thumbprint()
    assert len(as_keys({"keys": [public("ES256"), public("RS256")]})) == 2
    (secret,) = as_keys(OctKey.generate_key(256).as_dict(private=True))  # type: ignore[arg-type]
    assert isinstance(secret, OctKey)
