import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, JWKRegistry, Key, RSAKey

from fastapi_guard import jwt as public
from fastapi_guard.jwt.algorithms import model_of
from fastapi_guard.jwt.compact import Header, MalformedToken
from fastapi_guard.jwt.verification_keys import Candidates, Selection, UnknownKey, VerificationKeys, VerifyingKey
from support.tokens import KEYS, base64url

EC_JWK = ECKey.generate_key("P-256").as_dict(private=True)
RSA_JWK = KEYS["RS256"].as_dict(private=True)


def segment(**members: object) -> bytes:
    """Return a header as a token has it."""
    return base64url(json.dumps(members).encode()).encode()


def verifying(*keys: Key | VerifyingKey) -> list[object]:
    """Return what verifies by the keys."""
    return [key.get_op_key("verify") for key in keys]


def test_candidates_by_kid() -> None:
    """A kid leads to the keys of that name alone, its absence to all that fit the algorithm (A.4)."""
    one = ECKey.import_key({**EC_JWK, "kid": "one"})
    two = ECKey.generate_key("P-256", {"kid": "two"})
    rsa_key = RSAKey.import_key({**RSA_JWK, "kid": "one"})
    keys = VerificationKeys([one, two, rsa_key], ["ES256", "RS256"])

    def found(**members: object) -> list[object]:
        return verifying(*keys.candidates(segment(**members)).keys)

    assert found(alg="ES256", kid="one") == verifying(one)
    assert found(alg="ES256", kid="two") == verifying(two)
    assert found(alg="RS256", kid="one") == verifying(rsa_key)
    assert found(alg="ES256") == verifying(one, two)
    for kid in ("three", "ONE", ""):
        with pytest.raises(UnknownKey, match=r"^unknown_key$") as unknown:
            found(alg="ES256", kid=kid)
        assert unknown.value.header == Header("ES256", kid, None)


def test_candidates_without_a_name() -> None:
    """A kid that no key has may mean the keys that never had a name; a thumbprint means its key alone."""
    named = ECKey.generate_key("P-256", {"kid": "named"})
    one, two = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    keys = VerificationKeys([named, one, two], ["ES256"])

    def found(kid: str) -> list[object]:
        return verifying(*keys.candidates(segment(alg="ES256", kid=kid)).keys)

    assert found("whatever the issuer sends") == verifying(one, two)
    assert found(two.thumbprint()) == verifying(two)
    assert found("named") == verifying(named)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "ES384", "RS256", "es256", "ES256 "])
def test_candidates_of_another_algorithm(algorithm: str) -> None:
    """An algorithm that is not configured is refused before any key is looked for (A.1)."""
    keys = VerificationKeys([KEYS["ES256"]], ["ES256"])
    assert keys.candidates(segment(alg="ES256")).algorithm.name == "ES256"
    with pytest.raises(MalformedToken, match=r"^algorithm$"):
        keys.candidates(segment(alg=algorithm))


def test_verification_keys_are_public() -> None:
    """The public half verifies, even where a private key was passed."""
    for name in ("RS256", "ES256", "Ed25519"):
        (key,) = VerificationKeys([KEYS[name]], [name]).candidates(segment(alg=name)).keys
        assert KEYS[name].is_private
        assert not hasattr(key.get_op_key("verify"), "sign")
        assert not any(value is KEYS[name] for value in vars(key).values())


@pytest.mark.parametrize("members", [{"key_ops": ["sign"]}, {"key_ops": []}])
def test_keys_that_may_not_verify(members: dict[str, list[str]]) -> None:
    """The key_ops of a JWK hold, whether it is private, public or a secret (A.2)."""
    secret_key = {"kty": "oct", "k": base64url(bytes(range(32)))}
    for jwk, name in ((EC_JWK, "ES256"), (secret_key, "HS256")):
        refused = JWKRegistry.import_key({**jwk, **members})
        allowed = JWKRegistry.import_key({**jwk, "key_ops": ["sign", "verify"]})
        assert not VerificationKeys([refused], [name])
        assert VerificationKeys([allowed], [name])
    public = {name: value for name, value in EC_JWK.items() if name != "d"}
    assert VerificationKeys([JWKRegistry.import_key({**public, "key_ops": ["verify"]})], ["ES256"])


def test_a_key_is_asked_once() -> None:
    """The verifying key, and the size of its curve, are looked up once for all tokens; nothing private is among it."""
    asked: list[str] = []

    class Watched(ECKey):
        """A key that notes what it is asked for."""

        def get_op_key(self, operation: Any) -> Any:
            asked.append(operation)
            return super().get_op_key(operation)

        @property
        def curve_key_size(self) -> int:
            asked.append("curve_key_size")
            return super().curve_key_size

    public = Watched.import_key({name: value for name, value in EC_JWK.items() if name != "d"})
    (key,) = VerificationKeys([public], ["ES256"]).candidates(segment(alg="ES256")).keys
    algorithm = model_of("ES256")
    signature = algorithm.sign(b"input", ECKey.import_key(EC_JWK))
    for _ in range(3):
        assert algorithm.verify(b"input", signature, key)
        assert not algorithm.verify(b"other", signature, key)
    assert sorted(asked) == ["curve_key_size", "verify"]


def test_remembered_headers() -> None:
    """The key of a header is remembered after a valid signature, up to a bound; beyond it, it is looked up again."""
    asked: list[bytes] = []

    class Asked(VerificationKeys):
        """Keys that note which headers they look up."""

        def candidates(self, segment: bytes) -> Candidates:
            asked.append(segment)
            return super().candidates(segment)

    keys, signature = Asked([KEYS["ES256"]], ["ES256"]), model_of("ES256").sign(b"input", KEYS["ES256"])
    headers = [segment(alg="ES256", number=number) for number in range(VerificationKeys._MAX_HEADERS + 2)]
    with pytest.raises(MalformedToken, match=r"^bad_signature$"):
        keys.verify(b"other", headers[0], signature)
    for _ in range(2):
        assert {keys.verify(b"input", header, signature) for header in headers} == {Header("ES256", None, None)}
    assert asked == [headers[0], *headers, *headers[-2:]]
    with pytest.raises(MalformedToken, match=r"^bad_signature$"):
        keys.verify(b"other", headers[0], signature)


async def test_a_source_of_keys_with_public_names() -> None:
    """An application writes its own source of keys with what `fastapi_guard.jwt` exports."""
    key = ECKey.generate_key("P-256")

    class Database:
        def __init__(self) -> None:
            self.keys: public.VerificationKeys | None = None

        def peek(self) -> public.VerificationKeys | None:
            return self.keys

        async def load(self, header: public.Header | None = None) -> public.VerificationKeys:
            self.keys = public.VerificationKeys([key], ["ES256"])
            return self.keys

    source: public.KeySource = Database()
    auth = public.JWTAuth(public.JWTConfig(key=source, algorithms=["ES256"]))
    token = public.JWTAuth(public.JWTConfig(key=key)).encode({"sub": "ada", "scope": "items:read"})
    assert (await auth.verify(token))["sub"] == "ada"


class Shared:
    """Keys of every algorithm, which a test replaces; it notes what is loaded."""

    def __init__(self, *keys: Key) -> None:
        """Begin with keys, or with none that can be used yet."""
        self.keys: tuple[Key, ...] | None = keys or None
        self.later: tuple[Key, ...] = (KEYS["ES256"],)
        self.loaded: list[tuple[object, ...]] = []

    def current(self) -> tuple[Key, ...] | None:
        """Return the keys."""
        return self.keys

    async def load(self) -> tuple[Key, ...]:
        """Load the keys."""
        self.loaded.append(())
        self.keys = self.later
        return self.keys

    async def load_other(self, header: Header, tried: tuple[Key, ...] | None) -> tuple[Key, ...]:
        """Load others."""
        self.loaded.append((header, tried))
        self.keys = self.later
        return self.keys


def algorithms_of(keys: VerificationKeys | None) -> set[str]:
    """Return the algorithms, of two, for which there is a key."""
    found = set()
    for name in ("ES256", "RS256"):
        try:
            assert keys is not None
            keys.candidates(segment(alg=name))
        except MalformedToken:
            continue
        found.add(name)
    return found


async def test_a_selection_of_shared_keys() -> None:
    """Of keys that several configurations share, each selects those of its own algorithms, once for each change."""
    shared = Shared(KEYS["ES256"], KEYS["RS256"])
    curves, both = Selection(shared, ("ES256",)), Selection(shared, ("ES256", "RS256"))
    assert (algorithms_of(curves.peek()), algorithms_of(both.peek())) == ({"ES256"}, {"ES256", "RS256"})
    kept = both.peek()
    assert both.peek() is kept
    shared.keys = (KEYS["RS256"],)
    assert (algorithms_of(curves.peek()), algorithms_of(both.peek())) == (set(), {"RS256"})
    assert both.peek() is not kept
    shared.keys = None
    assert (curves.peek(), both.peek()) == (None, None)
    assert shared.loaded == []


async def test_a_selection_loads_shared_keys() -> None:
    """Without keys all are loaded; for a token that none verified, others than those that were tried."""
    shared = Shared()
    selection = Selection(shared, ("ES256", "RS256"))
    assert selection.peek() is None
    loaded = await selection.load()
    assert algorithms_of(loaded) == {"ES256"}
    assert selection.peek() is loaded
    header, tried = Header("RS256", "new", None), shared.keys
    shared.later = (KEYS["ES256"], KEYS["RS256"])
    other = await selection.load(header)
    assert algorithms_of(other) == {"ES256", "RS256"}
    assert selection.peek() is other
    assert shared.loaded == [(), (header, tried)]


async def test_a_selection_before_any_keys() -> None:
    """A token whose key was never there is looked for among other keys than none."""
    shared = Shared()
    header = Header("ES256", "new", None)
    assert algorithms_of(await Selection(shared, ("ES256",)).load(header)) == {"ES256"}
    assert shared.loaded == [(header, None)]
