"""DPoP: a token that is bound to a key is good only beside a fresh proof made with that key (RFC 9449).

Stands behind an Auth that has verified the token: ``JWTAuth(config, dpop=DPoP(store, origin=...))``.
"""

import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from fastapi.security.base import SecurityBase
from joserfc.jwk import JWKRegistry, Key
from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_guard.exceptions import (
    INVALID_PROOF,
    AuthError,
    ConfigurationError,
    ServiceUnavailable,
    Unauthorized,
    invalid_token,
)
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.jwt.keys import check_key
from fastapi_guard.jwt.verification import VerificationKeys
from fastapi_guard.schemes import BearerScheme, DPoPScheme, SchemeCallable, as_scheme
from fastapi_guard.schemes.origin import trusted
from fastapi_guard.stores.protocol import Record, Store

_MAX_PROOF_BYTES: Final = 8192
_MAX_EXPONENT_CHARACTERS: Final = 8  # of base64url: what is larger only makes a verification slow
_PUBLIC: Final = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_VISIBLE: Final = re.compile("[!-~]+")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class DPoP:
    """Checks proofs of possession: made with the key of the token, for this request, recently, and only once.

    Attributes:
        algorithms: The accepted algorithms of proofs.
    """

    def __init__(
        self,
        store: Store,
        *,
        origin: str,
        algorithms: Sequence[str] = ("ES256", "EdDSA", "Ed25519", "RS256"),
        required: bool = False,
        max_age_seconds: int = 60,
        leeway_seconds: int = 10,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Remember the proofs that were seen in ``store``.

        Args:
            store: Shared by all processes that serve the same resources, or a proof can be used once with each.
            origin: The scheme, host and port that clients send their requests to, such as ``https://api.example``. A
                Host field is the client's own text, and no part of the decision.
            algorithms: The accepted algorithms of proofs, asymmetric ones.
            required: Refuse tokens that are bound to no key, and the scheme Bearer.
            max_age_seconds: How old a proof may be.
            leeway_seconds: How far in the future it may be, for a client whose clock is ahead.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: The origin is none, or an algorithm cannot be used.
        """
        unknown = sorted(set(algorithms).difference(ASYMMETRIC))
        if isinstance(algorithms, str) or unknown or not algorithms:
            msg = f"algorithms of proofs are asymmetric ones among {', '.join(ASYMMETRIC)}, not {unknown or 'none'}"
            raise ConfigurationError(msg)
        if not isinstance(origin, str):
            msg = f"origin is text, such as https://api.example, not {origin!r}"
            raise ConfigurationError(msg)
        for name, value in (("max_age_seconds", max_age_seconds), ("leeway_seconds", leeway_seconds)):
            if type(value) is not int or not 0 <= value <= 3600:
                msg = f"{name} is a whole number from 0 to 3600, not {value!r}"
                raise ConfigurationError(msg)
        trusted([origin])
        self.algorithms: tuple[str, ...] = tuple(algorithms)
        self._store = store
        self._origin = origin
        self._required = required
        self._max_age = max_age_seconds
        self._leeway = leeway_seconds
        self._clock = clock

    def scheme(self, bearer: SecurityBase | SchemeCallable | None) -> DPoPScheme:
        """Return the scheme that takes ``DPoP`` in the Authorization field, beside what ``bearer`` takes there.

        Raises:
            ConfigurationError: ``bearer`` takes its credential from elsewhere.
        """
        base = BearerScheme() if bearer is None else as_scheme(bearer)
        if not isinstance(base, BearerScheme):
            msg = "a bound token comes in the Authorization field (RFC 9449 7.1): use BearerScheme() with dpop"
            raise ConfigurationError(msg)
        return DPoPScheme(
            algorithms=self.algorithms,
            required=self._required,
            realm=base.realm,
            scheme_name=base.scheme_name,
            model=base.model,
            resource_metadata=base.resource_metadata,
        )

    async def check(self, connection: HTTPConnection, raw: str, claims: Mapping[str, Any]) -> None:
        """Check the proof on ``connection`` for the verified token ``raw``; none is needed for one that is not bound.

        Raises:
            Unauthorized: The token is bound to another key, came without a proof, or with one that does not hold.
            ServiceUnavailable: The store cannot be asked.
        """
        used = DPoPScheme.is_used(connection)
        bound = "cnf" in claims
        if bound is not used or (self._required and not used):
            # A bound token as a bearer token, or the reverse (RFC 9449 7.1 and 7.2).
            raise invalid_token("bound_token" if bound else "not_bound")
        if not used:
            return
        try:
            proof, key = self._verified(_proof_on(connection))
            _check_binding(claims["cnf"], key)
            jti, until = self._check_claims(proof, connection.scope, raw)
        except AuthError:
            raise
        except MalformedToken as error:
            raise _bad_proof(str(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever a byte sequence provokes is one refusal
            raise _bad_proof(type(error).__name__) from None
        await self._remember(key, jti, until)

    def _verified(self, proof: bytes) -> tuple[Mapping[str, Any], Key]:
        if len(proof) > _MAX_PROOF_BYTES:
            raise MalformedToken("oversized")
        signing_input, header_segment, payload, signature = split(proof)
        header = decode_object(decode_base64url(header_segment))
        typ, algorithm, jwk = header.get("typ"), header.get("alg"), header.get("jwk")
        if not isinstance(typ, str) or typ.lower().removeprefix("application/") != "dpop+jwt":
            raise MalformedToken("typ")
        if not isinstance(algorithm, str) or algorithm not in self.algorithms:
            raise MalformedToken("algorithm")
        key = _key_of(jwk, algorithm)
        # The key is the only one, so its name, if it has one, does not matter.
        VerificationKeys([key], [algorithm]).verify(signing_input, header_segment, decode_base64url(signature))
        return decode_object(decode_base64url(payload)), key

    def _check_claims(self, proof: Mapping[str, Any], scope: Scope, raw: str) -> tuple[str, float]:
        jti, issued = proof.get("jti"), proof.get("iat")
        if not isinstance(jti, str) or not jti:
            raise MalformedToken("jti")
        if isinstance(issued, bool) or not isinstance(issued, int | float):
            raise MalformedToken("iat")
        if proof.get("htm") != scope.get("method", "GET"):  # a WebSocket handshake is a GET
            raise MalformedToken("htm")
        if not self._is_here(proof.get("htu"), scope):
            raise MalformedToken("htu")
        if proof.get("ath") != _hash(raw):
            raise MalformedToken("ath")
        now = self._clock()
        if not now - self._max_age <= issued <= now + self._leeway:
            raise MalformedToken("expired")
        return jti, issued + self._max_age

    def _is_here(self, htu: object, scope: Scope) -> bool:
        # urlsplit drops line ends, tabs and spaces, which no URI has (RFC 3986 2).
        if not isinstance(htu, str) or not _VISIBLE.fullmatch(htu):
            return False
        parts = urlsplit(htu)
        if parts.username is not None or not parts.hostname:
            return False
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        default = parts.port in (None, _DEFAULT_PORTS.get(parts.scheme))
        origin = f"{parts.scheme}://{host}" + ("" if default else f":{parts.port}")
        # Query and fragment are ignored (RFC 9449 4.3). Percent-encoding means nothing that an application can see.
        return origin == self._origin and unquote(parts.path or "/", errors="strict") == path_of(scope)

    async def _remember(self, key: Key, jti: str, until: float) -> None:
        name = sha256(f"{key.thumbprint()}.{jti}".encode("utf-8", "surrogatepass")).hexdigest()
        try:
            # A second more than the proof can be used for: at the last moment of one, the other is still there.
            is_new = await self._store.add(Record(f"dpop:{name}", b"", expires_at=until + 1))
        except AuthError:
            raise
        except Exception as error:
            # Not knowing whether it was used already is not a pass.
            raise ServiceUnavailable(reason="proofs_unreachable") from error
        if not is_new:
            raise _bad_proof("replayed")


def path_of(scope: Scope) -> str:
    """Return the path that the client asked for: the scope's, with ``root_path`` where a proxy has cut it off."""
    path = str(scope["path"])
    root = str(scope.get("app_root_path", scope.get("root_path", ""))).rstrip("/")
    return path if path == root or path.startswith(f"{root}/") else root + path


def _proof_on(connection: HTTPConnection) -> bytes:
    proofs = [value for name, value in connection.scope["headers"] if name == b"dpop"]
    if len(proofs) != 1:
        raise MalformedToken("missing" if not proofs else "not_the_only_one")
    return cast("bytes", proofs[0].strip(b" \t"))


def _key_of(jwk: object, algorithm: str) -> Key:
    # "A public key ... not ... a private key" (RFC 9449 4.3): a client that sends one has lost it.
    if not isinstance(jwk, dict) or not _PRIVATE.isdisjoint(jwk) or jwk.get("kty") not in _PUBLIC:
        raise MalformedToken("jwk")
    kty = jwk["kty"]
    members = {name: jwk[name] for name in _PUBLIC[kty]}
    if kty == "RSA" and len(members["e"]) > _MAX_EXPONENT_CHARACTERS:
        raise MalformedToken("jwk")
    key = JWKRegistry.import_key({"kty": kty, **members})
    check_key(key, [algorithm])
    return key


def _check_binding(confirmation: object, key: Key) -> None:
    # Another method beside it, such as a certificate's, would go unchecked.
    if not isinstance(confirmation, dict) or confirmation.keys() != {"jkt"}:
        raise invalid_token("confirmation")
    if confirmation["jkt"] != key.thumbprint():
        raise invalid_token("bound_to_another_key")


def _hash(raw: str) -> str:
    return urlsafe_b64encode(sha256(raw.encode("ascii")).digest()).rstrip(b"=").decode("ascii")


def _bad_proof(reason: str) -> Unauthorized:
    return Unauthorized(INVALID_PROOF, error="invalid_dpop_proof", reason="proof_" + reason)
