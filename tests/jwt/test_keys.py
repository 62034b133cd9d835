import json
import warnings
from base64 import b64encode, encodebytes
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from fastapi_guard import ConfigurationError, JWTConfig
from fastapi_guard.jwt.compact import MAX_KID_LENGTH
from fastapi_guard.jwt.keys import (
    as_keys,
    check_key,
    derive_algorithms,
    key_id,
    public_jwks,
    signing_algorithm,
    usable_keys,
)
from fastapi_guard.jwt.remote import RemoteKeySet
from support.tokens import ALGORITHMS, FOREIGN_KEYS, KEYS, base64url

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
EC_JWK = ECKey.generate_key("P-256").as_dict(private=True)
RSA_JWK = KEYS["RS256"].as_dict(private=True)


def pem(key: PrivateKeyTypes) -> str:
    """Return the private key in PKCS8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def encrypted(form: serialization.PrivateFormat) -> str:
    """Return a private key that a password protects."""
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"password"))
        .decode()
    )


def certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    """Return a certificate that the key has signed for itself."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id.example")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def secret(raw: bytes) -> OctKey:
    """Return an oct key, however joserfc would warn of it or refuse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return OctKey(raw, raw)


@pytest.mark.parametrize("name", ["RS256", "ES256", "Ed25519"])
@pytest.mark.parametrize("private", [True, False])
def test_keys_as_text(name: str, private: bool) -> None:
    """A key is read from PEM, from JWK text and from the text of a set, private or public."""
    key = KEYS[name]
    texts = [
        key.as_pem(private=private).decode(),
        f"\n  {key.as_pem(private=private).decode()}\n",
        json.dumps(key.as_dict(private=private)),
        json.dumps({"keys": [key.as_dict(private=private)]}),
    ]
    for text in texts:
        (found,) = as_keys(text)
        assert found.thumbprint() == key.thumbprint()
        assert found.is_private is private


def test_a_certificate_as_text() -> None:
    """The key of a certificate is its public key."""
    key = rsa.generate_private_key(65_537, 2048)
    (found,) = as_keys(certificate(key).public_bytes(serialization.Encoding.PEM).decode())
    assert not found.is_private
    assert found.thumbprint() == RSAKey.import_key(pem(key)).thumbprint()


def test_parameters_before_a_key() -> None:
    """The output of `openssl ecparam -genkey` is one key, with its parameters before it."""
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    (found,) = as_keys(parameters + text)
    assert found.thumbprint() == ECKey.import_key(pem(key)).thumbprint()


def test_several_keys() -> None:
    """Lists, tuples and sets of keys are read in order, nested too."""
    one, two, three = KEYS["ES256"], KEYS["RS256"], KEYS["Ed25519"]
    assert as_keys(one) == (one,)
    assert as_keys([one, two]) == (one, two)
    assert as_keys(KeySet([one, two])) == (one, two)
    assert as_keys((KeySet([one]), three.as_pem(private=True).decode()))[0] is one  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "key is empty: pass at least one"),
        (KeySet([]), "key is empty: pass at least one"),
        ('{"keys": []}', "key is empty: pass at least one"),
        (["correct horse battery staple, thirty two"], "neither PEM nor JWK"),
        ("", "neither PEM nor JWK"),
        ("keys.json", "for a file of `fastapi-guard jwk generate` pass KeyFile"),
        ("a" * 64, "neither PEM nor JWK"),
        (b"a" * 64, "not bytes; decode the bytes of a PEM file"),
        ([5], "not int;"),
        (object(), "not object;"),
        ("{", "cannot be read as one"),
        ("{}", "cannot be read as one"),
        ('{"keys": 5}', "cannot be read as one"),
        ('{"keys": "abc"}', "cannot be read as one"),
        ('{"keys": [5]}', "cannot be read as one"),
        pytest.param('{"a":' + "[" * 100_000, "cannot be read as one", id="deep"),
        ('{"kty": ["EC"]}', "cannot be read as one"),
        ('{"kty": "oct", "k": ""}', "cannot be read as one"),
        ('{"kty": "oct", "k": 5}', "cannot be read as one"),
        (json.dumps({**EC_JWK, "crv": "P-999"}), "cannot be read as one"),
        (json.dumps({**EC_JWK, "x": "AAAA"}), "cannot be read as one"),
        (json.dumps({**EC_JWK, "kid": 5}), "cannot be read as one"),
        (json.dumps({**EC_JWK, "use": "x", "key_ops": ["sign"]}), "cannot be read as one"),
        pytest.param(json.dumps({**EC_JWK, "kid": "k" * (MAX_KID_LENGTH + 1)}), "a kid has 513 characters", id="kid"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not PEM, or of a type"),
        ("-----BEGIN ", "neither PEM nor JWK"),
        ("\ud800-----BEGIN -", "not PEM, or of a type"),
        ("-----BEGIN X-----\ud800-----END X-----", "not PEM, or of a type"),
        ("-----BEGIN PUBLIC KEY-----", "not PEM, or of a type"),
        pytest.param("-----BEGIN EC PARAMETERS-----" * 20_000, "PEM blocks", id="many"),
        (encrypted(serialization.PrivateFormat.PKCS8), "an encrypted PEM: decrypt it first"),
        (encrypted(serialization.PrivateFormat.TraditionalOpenSSL), "an encrypted PEM: decrypt it first"),
        (pem(ec.generate_private_key(ec.SECP256R1())) * 2, "2 PEM blocks: one key per text, pass a list"),
        (pem(dsa.generate_private_key(1024)), "not PEM, or of a type"),  # noqa: S505
        (pem(ec.generate_private_key(ec.BrainpoolP256R1())), "use P-256, P-384, P-521 or Ed25519"),
        (pem(ec.generate_private_key(ec.SECP224R1())), "use P-256, P-384, P-521 or Ed25519"),
        (ECKey.import_key(pem(ec.generate_private_key(ec.BrainpoolP256R1()))), "use P-256, P-384, P-521 or Ed25519"),
    ],
)
def test_what_is_no_key(value: Any, message: str) -> None:
    """Anything but a key is refused with the remedy, and never quoted (A.3)."""
    with pytest.raises(ConfigurationError, match=message) as refusal:
        as_keys(value)
    assert "correct horse" not in str(refusal.value)


def test_a_kid_may_have_the_greatest_length() -> None:
    """A kid that a token may name is one that a key may have (A.4)."""
    (key,) = as_keys(json.dumps({**EC_JWK, "kid": "k" * MAX_KID_LENGTH}))
    assert key_id(key) == "k" * MAX_KID_LENGTH


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text is taken for a key by accident, and none raises anything else."""
    for variant in (text, "{" + text, "-----BEGIN " + text):
        with pytest.raises(ConfigurationError):
            as_keys(variant)


FITTING = [(name, key) for name, key in KEYS.items()]


@pytest.mark.parametrize(("algorithm", "key"), FITTING, ids=ALGORITHMS)
def test_a_key_fits_its_own_family(algorithm: str, key: Key) -> None:
    """A key verifies with the algorithms of its type and curve, and with no other (A.2)."""
    check_key(key, [algorithm])
    for other, foreign in KEYS.items():
        if foreign.key_type != key.key_type or (key.key_type == "EC" and other != algorithm):
            with pytest.raises(ConfigurationError, match=rf"^a key of type .* fits none of the algorithms {other}, "):
                check_key(key, [other])


@pytest.mark.parametrize(("algorithm", "needed"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_short_secrets(algorithm: str, needed: int) -> None:
    """A secret one byte too short is refused, one of the least length passes (A.3)."""
    check_key(OctKey.generate_key(needed * 8), [algorithm])
    for length in (0, 1, needed - 1):
        with pytest.raises(
            ConfigurationError, match=rf"{needed} random bytes: jwk.OctKey.generate_key\({needed * 8}\)"
        ):
            check_key(secret(b"\x01" * length), [algorithm])


def test_a_secret_suffices_for_every_algorithm() -> None:
    """The longest need of all the algorithms counts (A.3)."""
    with pytest.raises(ConfigurationError, match=r"HS256, HS512 needs 64"):
        check_key(OctKey.generate_key(256), ["HS256", "HS512"])


@pytest.mark.parametrize(
    "sample",
    [
        "your-secret-key",
        "YOUR_SECRET_KEY",
        "your-256-bit-secret",
        "changeme",
        "ChangeMe",
        "change_me",
        "change-in-production",
        "super-secret",
        "supersecret",
        "my-secret-key",
        "change_in_production",
        "Change in PRODUCTION!",
        "changethis!",
        "YOUR SECRET KEY HERE",
        "your.secret.key",
        "super secret",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    ],
)
def test_sample_secrets(sample: str) -> None:
    """A secret that contains a sample of a tutorial is refused, however it is padded or encoded (A.3)."""
    padded = (sample + "-0123456789abcdef0123456789abcdef").encode()
    for raw in (padded, b64encode(padded), padded.hex().encode()):
        with pytest.raises(ConfigurationError, match=r"contains a well-known sample"):
            check_key(secret(raw), ["HS256"])


@pytest.mark.parametrize("byte", [b"\x00", b"a", b"0", b"\xff"])
def test_one_byte_over_and_over(byte: bytes) -> None:
    """A secret of one repeated byte is refused, one with a second byte in it is not weighed any further (A.3)."""
    with pytest.raises(ConfigurationError, match=r"the secret is one byte over and over"):
        check_key(secret(byte * 64), ["HS256"])
    check_key(secret(byte * 63 + b"b"), ["HS256"])


@given(st.binary(min_size=32, max_size=64).filter(lambda raw: len(set(raw)) > 1))
def test_random_secrets(raw: bytes) -> None:
    """Random bytes are a secret, as they are and in the usual spellings."""
    for spelling in (raw, b64encode(raw), base64url(raw).encode(), raw.hex().encode()):
        check_key(secret(spelling), ["HS256"])


RSA_PRIVATE = rsa.generate_private_key(65_537, 2048)
RSA_PUBLIC = RSA_PRIVATE.public_key()
Encoding, Public = serialization.Encoding, serialization.PublicFormat
KEY_SHAPED_SECRETS = {
    "spki pem": RSA_PUBLIC.public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo),
    "spki der": RSA_PUBLIC.public_bytes(Encoding.DER, Public.SubjectPublicKeyInfo),
    "pkcs1 pem": RSA_PUBLIC.public_bytes(Encoding.PEM, Public.PKCS1),
    "pkcs1 der": RSA_PUBLIC.public_bytes(Encoding.DER, Public.PKCS1),
    "openssh": RSA_PUBLIC.public_bytes(Encoding.OpenSSH, Public.OpenSSH),
    "openssh ecdsa": ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.OpenSSH, Public.OpenSSH),
    "ec pem": ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo),
    "certificate pem": certificate(RSA_PRIVATE).public_bytes(Encoding.PEM),
    "certificate der": certificate(RSA_PRIVATE).public_bytes(Encoding.DER),
    "private pem": pem(RSA_PRIVATE).encode(),
    "private der": RSA_PRIVATE.private_bytes(
        Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ),
    "jwk": json.dumps(KEYS["ES256"].as_dict(private=False)).encode(),
    "pem in one line": pem(RSA_PRIVATE).replace("\n", "\\n").encode(),
}


# The bytes of DER may end in white space: those of an Ed25519 key end in the key.
KEY_SHAPED_SECRETS |= {
    f"der that ends in {end!r}": Ed25519PublicKey.from_public_bytes(bytes(31) + end).public_bytes(
        Encoding.DER, Public.SubjectPublicKeyInfo
    )
    for end in (b" ", b"\n", b"\t", b"\x01")
}
JWK_SHAPED_SECRETS = [
    {"keys": [KEYS["ES256"].as_dict(private=False)]},
    {"keys": []},
    [KEYS["ES256"].as_dict(private=False)],
    {"kty": "unheard of", "padding": "x" * 32},
    KEYS["HS256"].as_dict(private=True),
]
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "white space": lambda raw: b"\n  " + raw + b"\n",
    "base64": b64encode,
    "base64 in lines": encodebytes,
    "base64 in one line": lambda raw: encodebytes(raw).replace(b"\n", b"\\n"),
    "base64url": lambda raw: base64url(raw).encode(),
    "base64 in quotes": lambda raw: b'"' + b64encode(raw) + b'"\n',
    "hexadecimal": lambda raw: raw.hex().encode(),
    "HEXADECIMAL": lambda raw: raw.hex(":").upper().encode(),
}


@pytest.mark.parametrize("shape", KEY_SHAPED_SECRETS)
@pytest.mark.parametrize("change", CHANGES)
def test_key_shaped_secrets(shape: str, change: str) -> None:
    """Anything that parses as a key or a certificate is refused as a secret, in any of its spellings (A.3)."""
    with pytest.raises(ConfigurationError, match=r"is a public key, a private key or a certificate"):
        check_key(secret(CHANGES[change](KEY_SHAPED_SECRETS[shape])), ["HS256"])


@pytest.mark.parametrize("document", JWK_SHAPED_SECRETS, ids=range(len(JWK_SHAPED_SECRETS)))
def test_jwk_shaped_secrets(document: object) -> None:
    """A JWK or a whole set is refused as a secret (A.3)."""
    text = json.dumps(document).encode().ljust(32)
    for raw in (text, b"\n" + text, b64encode(text)):
        with pytest.raises(ConfigurationError, match=r"is a public key, a private key or a certificate"):
            check_key(secret(raw), ["HS256"])


@pytest.mark.parametrize("part", [slice(1, None), slice(None, -1), slice(1, -1)], ids=["head", "foot", "both"])
def test_pem_without_its_armour(part: slice) -> None:
    """The lines of a PEM file without the first, the last or both are refused as a secret (A.3)."""
    lines = KEY_SHAPED_SECRETS["spki pem"].splitlines(keepends=True)
    with pytest.raises(ConfigurationError, match=r"is a public key, a private key or a certificate"):
        check_key(secret(b"".join(lines[part])), ["HS256"])


@pytest.mark.parametrize("text", ["[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]", '{"password": "correct horse battery"}'])
def test_other_json_is_no_key(text: str) -> None:
    """JSON that is not a key is bytes as any other."""
    check_key(secret(text.encode()), ["HS256"])


def test_small_rsa_keys() -> None:
    """An RSA key of less than 2048 bits is refused (A.3)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        small = RSAKey.import_key(pem(rsa.generate_private_key(65_537, 1024)))  # noqa: S505
    with pytest.raises(ConfigurationError, match=r"at least 2048 bits .*jwk.RSAKey.generate_key\(2048\)$"):
        check_key(small, ["RS256"])


@pytest.mark.parametrize(
    ("members", "algorithms"),
    [
        ({"alg": "RS512"}, ["RS256"]),
        ({"alg": "PS256"}, ["RS256", "RS512"]),
        ({"use": "enc"}, ["RS256"]),
        ({"alg": "RSA-OAEP"}, ["RS256"]),
    ],
)
def test_what_a_jwk_says_of_itself(members: dict[str, str], algorithms: list[str]) -> None:
    """The `alg` and `use` of a JWK hold; the same key without them passes (A.2)."""
    check_key(RSAKey.import_key(RSA_JWK), algorithms)
    with pytest.raises(ConfigurationError, match=r"or its alg or use excludes all$"):
        check_key(RSAKey.import_key({**RSA_JWK, **members}), algorithms)


@pytest.mark.parametrize(
    ("keys", "algorithms"),
    [
        ([OctKey.generate_key(512)], ("HS256",)),
        ([KEYS["RS256"]], ("RS256",)),
        ([KEYS["ES256"]], ("ES256",)),
        ([KEYS["ES384"]], ("ES384",)),
        ([KEYS["ES512"]], ("ES512",)),
        ([KEYS["Ed25519"]], ("Ed25519", "EdDSA")),
        ([KEYS["ES256"], KEYS["RS256"], FOREIGN_KEYS["ES256"]], ("ES256", "RS256")),
        ([RSAKey.import_key({**RSA_JWK, "alg": "PS384"})], ("PS384",)),
    ],
)
def test_derived_algorithms(keys: list[Key], algorithms: tuple[str, ...]) -> None:
    """Algorithms follow from the type and the curve, or from the alg of a JWK; oct is HS256 at any length."""
    assert derive_algorithms(keys) == algorithms


@pytest.mark.parametrize(
    "key",
    [
        ECKey.import_key(pem(ec.generate_private_key(ec.SECP256K1()))),
        OKPKey.import_key(pem(ed448.Ed448PrivateKey.generate())),
        OKPKey.import_key(pem(x25519.X25519PrivateKey.generate())),
        ECKey.import_key({**EC_JWK, "alg": "none"}),
        ECKey.import_key({**EC_JWK, "alg": "ECDH-ES"}),
    ],
    ids=["secp256k1", "Ed448", "X25519", "none", "ECDH-ES"],
)
def test_keys_without_an_algorithm(key: Key) -> None:
    """A key of another curve, or with an algorithm of another kind, derives none (A.1, A.2)."""
    with pytest.raises(ConfigurationError, match=r"algorithms needs names among"):
        derive_algorithms([key])


@pytest.mark.parametrize(
    "key",
    [
        OKPKey.import_key(pem(ed448.Ed448PrivateKey.generate())),
        OKPKey.import_key(pem(x25519.X25519PrivateKey.generate())),
    ],
)
def test_edwards_algorithms_take_ed25519_alone(key: Key) -> None:
    """EdDSA with Ed448 or X25519 is refused (A.2)."""
    with pytest.raises(ConfigurationError, match=r"fits none of the algorithms EdDSA, Ed25519"):
        check_key(key, ["EdDSA", "Ed25519"])


def test_signing_algorithm() -> None:
    """The first algorithm that fits signs; a public key and one that may not sign give none."""
    key = KEYS["RS256"]
    chosen = signing_algorithm(key, ["ES256", "PS256", "RS256"])
    assert chosen is JWSRegistry.algorithms["PS256"]
    assert signing_algorithm(key, ["ES256"]) is None
    assert signing_algorithm(RSAKey.import_key(key.as_dict(private=False)), ["RS256"]) is None
    assert signing_algorithm(RSAKey.import_key({**RSA_JWK, "key_ops": ["verify"]}), ["RS256"]) is None
    assert signing_algorithm(RSAKey.import_key({**RSA_JWK, "key_ops": ["sign"]}), ["RS256"]) is not None


def test_key_id() -> None:
    """A key goes by its own kid, else by its thumbprint (RFC 7638)."""
    assert key_id(ECKey.import_key({**EC_JWK, "kid": "mine"})) == "mine"
    assert key_id(ECKey.import_key({**EC_JWK, "kid": ""})) == ECKey.import_key(EC_JWK).thumbprint()


@pytest.mark.parametrize("name", ["RS256", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"])
def test_public_jwks(name: str) -> None:
    """The set shows the public members of the type, with kid, use and alg, and nothing private."""
    (shown,) = public_jwks([KEYS[name]], [name])["keys"]
    assert not PRIVATE_MEMBERS.intersection(shown)
    assert {member: shown[member] for member in ("kid", "use", "alg")} == {
        "kid": KEYS[name].thumbprint(),
        "use": "sig",
        "alg": name,
    }
    assert JWKRegistry.import_key(dict(shown)).thumbprint() == KEYS[name].thumbprint()


def test_public_jwks_lists_its_members() -> None:
    """Members of the application's own never reach the set."""
    key = ECKey.import_key({**EC_JWK, "kid": "1", "alg": "ES256", "note": "internal", "x5c": ["MIIB"]})
    (shown,) = public_jwks([key], ["ES256"])["keys"]
    assert set(shown) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_nothing_symmetric_is_public() -> None:
    """A set of symmetric keys is an error, and beside others they are left out."""
    with pytest.raises(ConfigurationError, match=r"a symmetric key is never published"):
        public_jwks([KEYS["HS256"]], ["HS256"])
    shown = public_jwks([KEYS["HS256"], KEYS["ES256"]], ["ES256"])["keys"]
    assert [key["kty"] for key in shown] == ["EC"]


BROKEN: list[Any] = [
    None,
    5,
    "key",
    [],
    {},
    {"kty": "EC"},
    {"kty": ["EC"]},
    {"kty": "unheard of"},
    {**EC_JWK, "crv": "P-999"},
    {**EC_JWK, "x": "AAAA"},
    {**EC_JWK, "x": 5},
    {**EC_JWK, "kid": 5},
    {**EC_JWK, "use": "enc"},
    {**EC_JWK, "alg": "ES512"},
    {"kty": "oct", "k": base64url(bytes(64))},
    {"kty": "OKP", "crv": "X25519", "x": base64url(bytes(32))},
    {"kty": "RSA", "n": base64url((1 << 1023).to_bytes(128)), "e": "AQAB"},
]


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("entry", BROKEN, ids=range(len(BROKEN)))
def test_one_broken_entry_is_skipped(entry: Any) -> None:
    """A broken, weak, foreign or symmetric entry of a published set is skipped, and the others still count."""
    good = KEYS["ES256"].as_dict(private=False)
    for document in ({"keys": [entry, good]}, {"keys": [good, entry]}):
        (found,) = usable_keys(document, ["ES256", "RS256"])
        assert found.thumbprint() == KEYS["ES256"].thumbprint()


@pytest.mark.parametrize("document", [None, [], "keys", 5, {}, {"keys": None}, {"keys": {}}, {"keys": "abc"}])
def test_what_is_no_key_set(document: object) -> None:
    """A document of another shape holds no key."""
    assert usable_keys(document, ["ES256"]) == []


def test_unknown_members_of_a_set_are_no_obstacle() -> None:
    """Unknown members, x5c and an x5u among them, are read over and cause nothing (A.4)."""
    entry = {**KEYS["ES256"].as_dict(private=False), "x5u": "https://evil.example", "x5c": ["MIIB"], "note": "x"}
    (found,) = usable_keys({"keys": [entry], "note": []}, ["ES256"])
    assert found.thumbprint() == KEYS["ES256"].thumbprint()


def test_a_symmetric_entry_is_skipped_whatever_is_accepted() -> None:
    """A published secret is not secret: it is skipped even where its algorithm would fit."""
    assert usable_keys({"keys": [KEYS["HS256"].as_dict(private=True)]}, ["HS256"]) == []


class Source:
    """A source of keys, with methods of the test."""

    def __init__(self, **methods: Any) -> None:
        """Have `methods`."""
        self.__dict__.update(methods)


async def later(*_: object) -> None:
    """Be an async def."""


def at_once(*_: object) -> None:
    """Be a def."""


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (RemoteKeySet, r"key is a source of keys, such as RemoteKeySet\(url\), not the class RemoteKeySet"),
        (Source(peek=at_once), r"key is a source of keys, such as RemoteKeySet\(url\), not Source"),
        (Source(peek=later, load=later), r"key: Source\.peek has to be a def, not an async def"),
        (Source(peek=at_once, load=at_once), r"key: Source\.load has to be an async def"),
        (Source(for_algorithms=later), r"key: Source\.for_algorithms has to be a def, not an async def"),
        (Source(for_algorithms=at_once), "key is a source of keys, .*, not None"),
    ],
    ids=range(6),
)
def test_a_source_that_cannot_work(key: Any, message: str) -> None:
    """A source of keys is checked when constructed, and not at the first request."""
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        JWTConfig(key=key)
