"""attack_tokens: tokens that no application may accept, made for its own configuration.

Each is sent as ``Authorization: Bearer <token>``, and has to be refused with 401. Tokens that need the key, such as an
expired token or one for another audience, are among them where the configuration can sign.
"""

import hmac
import json
import secrets
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.keys import key_id
from fastapi_guard.stores.arguments import instance_of

_A_DAY: Final = 86_400
_ELSEWHERE: Final = "https://attacker.example"
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "ES256K": "secp256k1"}
_SIGNATURE_BYTES: Final = {"ES256": 64, "ES256K": 64, "ES384": 96, "ES512": 132}


class Attack(NamedTuple):
    """A token that has to be refused.

    Attributes:
        name: What is wrong with it, with the published vulnerability that it is named after.
        token: What comes after ``Bearer``: visible ASCII.
    """

    name: str
    token: str


@dataclass(frozen=True, slots=True)
class _Forge:
    """The parts of which the tokens of one configuration are made.

    Attributes:
        config: It.
        algorithm: What its tokens are signed with.
        claims: The claims of a valid token.
        key: The key that signs, ``None`` where only its issuer has it.
        kid: The id of the key, where that is known.
        foreign: A key of the attacker, of the same kind.
    """

    config: JWTConfig
    algorithm: str
    claims: dict[str, Any]
    key: Key | None
    kid: str | None
    foreign: Key

    def header(self, **members: Any) -> dict[str, Any]:
        named = {} if self.kid is None else {"kid": self.kid}
        return {"alg": self.algorithm, "typ": self.config.token_types[0], **named, **members}

    def signed(self, payload: Any = None, header: Any = None, *, key: Key | None = None) -> str:
        """Return a token with a signature of ``key``, by default that of the configuration."""
        head = self.header() if header is None else header
        body = self.claims if payload is None else payload
        algorithm = head["alg"] if isinstance(head, dict) and head.get("alg") in JWSRegistry.algorithms else None
        signing_input = f"{_encoded(head)}.{_encoded(body)}"
        model = JWSRegistry.algorithms[algorithm or self.algorithm]
        signature = model.sign(signing_input.encode("ascii"), key or cast("Key", self.key))
        return f"{signing_input}.{_base64url(signature)}"


def attack_tokens(config: JWTConfig, claims: Mapping[str, Any] | None = None) -> list[Attack]:
    """Return the tokens, for a test to send each to a route that a token of ``config`` guards.

    Send one that holds beside them: a route that refuses everything refuses these too.

    Args:
        config: The configuration of the application; ``auth.config`` of an OIDCAuth.
        claims: What the tokens say, such as the scope that the route requires, so that it is not for want of a scope
            that they are refused.

    Raises:
        ConfigurationError: ``config`` is not a JWTConfig.
    """
    instance_of("config", config, JWTConfig, "a JWTConfig, such as auth.config")
    forge = _forge(config, {"sub": "attacker", **(claims or {})})
    found = [*_unsigned(forge), *_foreign(forge), *_confused(forge), *_misshapen(forge)]
    if forge.key is not None:
        found += [*_wrong_claims(forge), *_wrong_times(forge), *_wrong_kinds(forge), *_wrong_bytes(forge)]
    return found


def _forge(config: JWTConfig, claims: dict[str, Any]) -> _Forge:
    now = int(time.time())
    several: Any = config.audience
    audience = several if several is None or isinstance(several, str) else several[0]
    good = {"iat": now, "exp": now + 3600, "iss": config.issuer_url, "aud": audience, **claims}
    good = {name: value for name, value in good.items() if value is not None}
    if config.can_sign:
        model, key, kid = config.signing_key()
        return _Forge(config, model.name, good, key, kid, _new_key(model.name))
    algorithm = (config.algorithms or ("",))[0]
    known = next((key_id(key) for key in _public_keys(config)), None)
    return _Forge(config, algorithm, good, None, known, _new_key(algorithm))


def _public_keys(config: JWTConfig) -> list[RSAKey | ECKey | OKPKey]:
    return [key for key in config.own_keys() if not isinstance(key, OctKey)]


def _new_key(algorithm: str) -> Key:
    if algorithm.startswith("HS"):
        return OctKey.generate_key(512)
    if algorithm in _CURVES:
        return ECKey.generate_key(_CURVES[algorithm])
    if algorithm.startswith(("RS", "PS")):
        return RSAKey.generate_key(2048)
    return OKPKey.generate_key("Ed25519")


def _unsigned(forge: _Forge) -> Iterator[Attack]:
    body = _encoded(forge.claims)
    for name in ("none", "None", "NONE", "nOnE", "", None, 0):
        yield Attack(f"alg is {name!r} (CVE-2015-9235)", f"{_encoded(forge.header(alg=name))}.{body}.")
    stranger = forge.signed(key=forge.foreign)
    head, _, signature = stranger.split(".")
    yield Attack("alg none, with a signature", f"{_encoded(forge.header(alg='none'))}.{body}.{signature}")
    without = {name: value for name, value in forge.header().items() if name != "alg"}
    yield Attack("no alg", f"{_encoded(without)}.{body}.{signature}")
    yield Attack("the signature is empty (CVE-2020-28042)", f"{head}.{body}.")
    yield Attack("the signature is left out", f"{head}.{body}")
    if forge.algorithm in _SIGNATURE_BYTES:
        zeros = _base64url(bytes(_SIGNATURE_BYTES[forge.algorithm]))
        yield Attack("the signature is zero (CVE-2022-21449)", f"{head}.{body}.{zeros}")


def _foreign(forge: _Forge) -> Iterator[Attack]:
    foreign = forge.foreign
    public = foreign.as_dict(private=isinstance(foreign, OctKey))
    yield Attack("signed by another key", forge.signed(key=foreign))
    nameless = {name: value for name, value in forge.header().items() if name != "kid"}
    yield Attack("signed by another key, without a kid", forge.signed(header=nameless, key=foreign))
    yield Attack("signed by the key in its own header (CVE-2018-0114)", _with(forge, jwk=public))
    for name, path in (("jku", "jwks.json"), ("x5u", "chain.pem")):
        yield Attack(f"signed by the key at its {name}", _with(forge, **{name: f"{_ELSEWHERE}/{path}"}))
    yield Attack("signed by the key of its x5c", _with(forge, x5c=[b64encode(secrets.token_bytes(64)).decode()]))
    for kid in ("../../../dev/null", "' UNION SELECT 'key' --", "key\x00", "k" * 4096, 0, None, ["kid"]):
        shown = repr(kid)[:30]
        yield Attack(f"the kid is {shown}", _with(forge, kid=kid))
    yield Attack("signed by the emptiness that its kid names", _hmac(forge, "HS256", b"", kid="/dev/null"))
    for secret in ("secret", "changeme", "your-256-bit-secret", "your-secret-key"):
        yield Attack(f"signed by the well-known secret {secret}", _hmac(forge, "HS256", secret.encode()))


def _confused(forge: _Forge) -> Iterator[Attack]:
    for key in _public_keys(forge.config):
        jwk = key.as_dict(private=False)
        forms = {
            "PEM": key.as_pem(private=False),
            "PEM without its last line end": key.as_pem(private=False).rstrip(),
            "DER": key.as_der(private=False),
            "JWK": json.dumps(jwk).encode(),
            "compact JWK": json.dumps(jwk, separators=(",", ":")).encode(),
        }
        for name, secret in forms.items():
            for algorithm in ("HS256", "HS384", "HS512"):
                title = f"{algorithm} with the public key as its secret, as {name} (CVE-2016-10555)"
                yield Attack(title, _hmac(forge, algorithm, secret))
        break
    for algorithm in ("HS256", "RS256", "ES256", "EdDSA"):
        if algorithm not in (forge.config.algorithms or ()):
            token = forge.signed(header=forge.header(alg=algorithm), key=_new_key(algorithm))
            yield Attack(f"{algorithm}, which is not configured", token)


def _misshapen(forge: _Forge) -> Iterator[Attack]:
    head, body, signature = forge.signed(key=forge.foreign).split(".")
    encrypted = _encoded({"alg": "dir", "enc": "A256GCM"})
    yield Attack("an encrypted token (CVE-2023-51774)", f"{encrypted}..{_random(12)}.{_random(64)}.{_random(16)}")
    yield Attack("an encrypted token around an unsigned one", f"{encrypted}.{head}.{body}.{_random(16)}.{signature}")
    yield Attack("PBES2 with ten million rounds (CVE-2022-36083)", _pbes2())
    yield Attack("four parts", f"{head}.{body}.{signature}.{signature}")
    yield Attack("dots alone", "..")
    yield Attack("a million dots (CVE-2025-27144)", "." * 1_000)
    yield Attack("not a token", "attacker")
    yield Attack("larger than is looked at", f"{head}.{'A' * forge.config.max_token_bytes}.{signature}")


def _wrong_claims(forge: _Forge) -> Iterator[Attack]:
    claims, config = forge.claims, forge.config
    head, _, signature = forge.signed().split(".")
    yield Attack("other claims under a good signature", f"{head}.{_encoded({**claims, 'sub': 'admin'})}.{signature}")
    if config.issuer_url is not None:
        for issuer in (_ELSEWHERE, f"{config.issuer_url}/", str(config.issuer_url).upper(), [config.issuer_url], None):
            shown = "left out" if issuer is None else repr(issuer)
            yield Attack(f"iss is {shown} (CVE-2024-53861)", forge.signed(_without_none({**claims, "iss": issuer})))
    audience = claims.get("aud")
    wrong = [_ELSEWHERE, [_ELSEWHERE]] if audience is None else [f"{audience}.evil", audience[:-1], [], {}, True, None]
    for other in wrong:
        shown = "left out" if other is None else repr(other)
        yield Attack(f"aud is {shown} (CVE-2022-29217)", forge.signed(_without_none({**claims, "aud": other})))
    subject: Any
    for subject in ("", 0, True, ["attacker"], {}):
        yield Attack(f"sub is {subject!r}", forge.signed({**claims, "sub": subject}))
    yield Attack("bound to a key, without a proof (RFC 9449)", forge.signed({**claims, "cnf": {"jkt": _random(32)}}))


def _wrong_times(forge: _Forge) -> Iterator[Attack]:
    value: Any
    claims, now = forge.claims, int(time.time())
    yield Attack("expired", forge.signed({**claims, "iat": now - 2 * _A_DAY, "exp": now - _A_DAY}))
    yield Attack("not yet valid", forge.signed({**claims, "nbf": now + _A_DAY}))
    yield Attack("issued in the future", forge.signed({**claims, "iat": now + _A_DAY, "exp": now + 2 * _A_DAY}))
    if forge.config.expiration_seconds is not None:
        lasting = {name: value for name, value in claims.items() if name != "exp"}
        yield Attack("without exp", forge.signed(lasting))
    for name in ("exp", "nbf", "iat"):
        for value in (str(now + 3600), True, None, [], {}):
            yield Attack(f"{name} is {value!r} (CVE-2026-25537)", forge.signed({**claims, name: value}))
        for text in (b"NaN", b"Infinity", b"1e400"):
            body = json.dumps({claim: value for claim, value in claims.items() if claim != name})[:-1].encode()
            yield Attack(f"{name} is {text.decode()}", forge.signed(body + b',"' + name.encode() + b'":' + text + b"}"))


def _wrong_kinds(forge: _Forge) -> Iterator[Attack]:
    accepted = {kind.lower() for kind in forge.config.token_types}
    for typ in ("dpop+jwt", "logout+jwt", "secevent+jwt", "refresh+jwt", "JOSE", 0):
        if str(typ).lower() not in accepted:
            yield Attack(f"typ is {typ!r} (RFC 8725 3.11)", forge.signed(header=forge.header(typ=typ)))
    crit: Any
    for crit in (["exp"], ["b64"], ["x-unknown"], [], "exp", {}):
        header = forge.header(crit=crit, **{"x-unknown": True})
        yield Attack(f"crit is {crit!r} (CVE-2025-59420)", forge.signed(header=header))
    yield Attack("an unencoded payload (RFC 7797)", forge.signed(header=forge.header(b64=False)))


def _wrong_bytes(forge: _Forge) -> Iterator[Attack]:
    good = json.dumps(forge.claims)
    head, body, signature = forge.signed().split(".")
    yield Attack("a claim twice", forge.signed(b'{"sub":"admin",' + good[1:].encode()))
    twice = b'{"alg":"none",' + json.dumps(forge.header())[1:].encode()
    yield Attack("alg twice", forge.signed(header=twice))
    yield Attack("claims in UTF-16", forge.signed(good.encode("utf-16")))
    yield Attack("claims with a byte order mark", forge.signed(b"\xef\xbb\xbf" + good.encode()))
    yield Attack("claims that are a list", forge.signed(f"[{good}]".encode()))
    yield Attack("claims that are not JSON", forge.signed(good.encode() + b"}"))
    yield Attack("claims in a thousand brackets", forge.signed(b'{"sub":' + b"[" * 1000 + b"]" * 1000 + b"}"))
    yield Attack("a lone surrogate", forge.signed(b'{"sub":"\\ud800",' + good.split(",", 1)[1].encode()))
    for name, token in (
        ("a padded signature", f"{head}.{body}.{signature}=="),
        ("a padded payload", f"{head}.{body}==.{signature}"),
        ("a shortened signature", f"{head}.{body}.{signature[:-2]}"),
        ("a signature with more behind it", f"{head}.{body}.{signature}AAAA"),
    ):
        yield Attack(name, token)


def _with(forge: _Forge, **members: Any) -> str:
    return forge.signed(header=forge.header(**members), key=forge.foreign)


def _hmac(forge: _Forge, algorithm: str, secret: bytes, **members: Any) -> str:
    # By hand: joserfc warns about a short secret, and takes no public key for one.
    signing_input = f"{_encoded(forge.header(alg=algorithm, **members))}.{_encoded(forge.claims)}"
    return f"{signing_input}.{_base64url(hmac.digest(secret, signing_input.encode(), f'sha{algorithm[2:]}'))}"


def _pbes2() -> str:
    header = {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2s": _random(16), "p2c": 10_000_000}
    return f"{_encoded(header)}.{_random(24)}.{_random(12)}.{_random(32)}.{_random(16)}"


def _without_none(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if value is not None}


def _encoded(value: Any) -> str:
    return _base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def _random(length: int) -> str:
    return _base64url(secrets.token_bytes(length))


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
