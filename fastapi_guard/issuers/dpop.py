"""DPoP: proofs of possession for tokens that are bound to a key of the client (RFC 9449).

The Auth verifies the token, then DPoP checks the proof: ``JWTAuth(config, dpop=DPoP(store, origin=...))``.
"""

import hmac
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from fastapi.security.base import SecurityBase
from joserfc.jwk import JWKRegistry, Key
from pydantic import AnyUrl
from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_guard.exceptions import (
    INVALID_PROOF,
    AuthError,
    ConfigurationError,
    ServiceUnavailable,
    Unauthorized,
    invalid_token,
    shown,
)
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.jwt.keys import check_key
from fastapi_guard.jwt.protocols import PROVEN
from fastapi_guard.jwt.secrets import check_secret
from fastapi_guard.jwt.verification_keys import VerificationKeys
from fastapi_guard.schemes import BearerScheme, DPoPScheme, SchemeCallable, as_scheme
from fastapi_guard.schemes.origin import trusted
from fastapi_guard.stores.arguments import check_flags, clock_of, implementing, items_of
from fastapi_guard.stores.hidden import plain, revealed
from fastapi_guard.stores.protocol import Record, Store

_MAX_PROOF_BYTES: Final = 8192
_MAX_EXPONENT_CHARACTERS: Final = 8  # of base64url: what is larger only makes a verification slow
_PUBLIC: Final = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_VISIBLE: Final = re.compile("[!-~]+")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, kw_only=True, slots=True)
class DPoPNonces:
    """The nonces that this server sends (RFC 9449 9), computed from the time and a key, and not stored.

    Attributes:
        key: At least 32 random bytes, the same in all processes.
        seconds: How many seconds the server sends the same nonce, 1 to 3600. It accepts it for as long after that.

    Raises:
        ConfigurationError: The key is weak, or the time is not a whole number of seconds up to an hour.
    """

    key: bytes = field(repr=False)
    seconds: int = 300

    def __post_init__(self) -> None:
        """Check both."""
        object.__setattr__(self, "key", revealed(self.key))
        remedy = "use 32 random bytes, such as secrets.token_bytes(32), the same in all processes"
        if not isinstance(self.key, bytes):
            msg = f"the key of the nonces is bytes: {remedy}"
            raise ConfigurationError(msg)
        check_secret(self.key, ["HS256"], named="the key of the nonces", remedy=remedy)
        if type(self.seconds) is not int or not 1 <= self.seconds <= 3600:
            msg = f"seconds is a whole number from 1 to 3600, not {shown(self.seconds)}"
            raise ConfigurationError(msg)

    def at(self, moment: float) -> str:
        """Return the nonce that is sent at ``moment``, in seconds since the epoch."""
        period = int(moment // self.seconds)
        return _base64url(hmac.digest(self.key, b"dpop-nonce:%d" % period, "sha256")[:16])

    def accepts(self, nonce: object, now: float) -> bool:
        """Return whether a proof may have ``nonce``: that of the present period, or of the one before."""
        received = nonce.encode("utf-8", "replace") if isinstance(nonce, str) else b""
        return any(
            hmac.compare_digest(received, self.at(moment).encode("ascii")) for moment in (now, now - self.seconds)
        )


class DPoP:
    """Check proofs of possession: made with the key of the token, for this request, recently, and used once.

    Attributes:
        algorithms: The accepted algorithms of proofs.
    """

    def __init__(
        self,
        store: Store,
        *,
        origin: str | AnyUrl,
        algorithms: Sequence[str] = ("ES256", "EdDSA", "Ed25519", "RS256", "PS256"),
        required: bool = False,
        max_age_seconds: int = 60,
        leeway_seconds: int = 10,
        nonces: DPoPNonces | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the ids of used proofs in ``store``.

        Args:
            store: Shared by all processes that serve the same resources, or a proof can be used once with each.
            origin: The scheme, host and port that clients send their requests to, such as ``https://api.example``. The
                Host field is the client's own text, and plays no part in the decision.
            algorithms: The accepted algorithms of proofs, asymmetric ones.
            required: Reject tokens that are not bound to a key, and the scheme Bearer.
            max_age_seconds: How old a proof may be.
            leeway_seconds: How far in the future it may be, for a client whose clock is ahead.
            nonces: With these, a proof must have a nonce that this server sent, so that it cannot be made in advance
                (RFC 9449 9). By default a nonce is ignored.
            clock: Seconds since the epoch.

        Raises:
            ConfigurationError: The origin is not one, an algorithm cannot be used, or the key of the nonces is weak.
        """
        implementing("store", store, ("add",), "a Store, such as MemoryStore()")
        check_flags(required=required)
        named = items_of("algorithms", algorithms, 'such as ["ES256"]')
        unknown = ", ".join(shown(name) for name in named if name not in ASYMMETRIC)
        if unknown or not named:
            msg = f"algorithms of proofs are asymmetric ones among {', '.join(ASYMMETRIC)}, not {unknown or 'none'}"
            raise ConfigurationError(msg)
        own: str = plain(origin)
        if not isinstance(own, str):
            msg = f"origin is text, such as https://api.example, not {shown(own)}"
            raise ConfigurationError(msg)
        for name, value in (("max_age_seconds", max_age_seconds), ("leeway_seconds", leeway_seconds)):
            if type(value) is not int or not 0 <= value <= 3600:
                msg = f"{name} is a whole number from 0 to 3600, not {shown(value)}"
                raise ConfigurationError(msg)
        if not isinstance(nonces, DPoPNonces | None):
            msg = f"nonces is DPoPNonces(key=...), not {type(nonces).__name__}"
            raise ConfigurationError(msg)
        trusted([own])
        self.algorithms: tuple[str, ...] = named
        self._store = store
        self._origin = own
        self._required = required
        self._max_age = max_age_seconds
        self._leeway = leeway_seconds
        self._nonces = nonces
        self._clock = clock_of(clock)

    def scheme(self, bearer: SecurityBase | SchemeCallable | None) -> DPoPScheme:
        """Return the scheme that reads ``DPoP`` in the Authorization field, in addition to what ``bearer`` reads there.

        Raises:
            ConfigurationError: ``bearer`` reads its credential from another place.
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
        """Check the proof on ``connection`` for the verified token ``raw``. A token that is not bound needs no proof.

        Raises:
            Unauthorized: The token is bound to another key, or the proof is missing or invalid, or its nonce is.
            ServiceUnavailable: The store is unreachable.
        """
        used = DPoPScheme.is_used(connection)
        bound = "cnf" in claims
        if bound is not used or (self._required and not used):
            # A bound token as a bearer token, or the reverse (RFC 9449 7.1 and 7.2).
            raise invalid_token("bound_token" if bound else "not_bound")
        if not used or PROVEN in connection.scope:
            return
        try:
            proof, key = self._verified(_proof_on(connection))
            _check_binding(claims["cnf"], key)
            jti, until = self._check_claims(proof, connection.scope, raw)
        except AuthError:
            raise
        except MalformedToken as error:
            raise _bad_proof(str(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever error the bytes cause is one refusal
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
        # It is the only key, so its name does not matter.
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
        if self._nonces is not None and not self._nonces.accepts(proof.get("nonce"), now):
            sent = {"DPoP-Nonce": self._nonces.at(now), "Cache-Control": "no-store"}
            raise Unauthorized(INVALID_PROOF, error="use_dpop_nonce", reason="proof_nonce", headers=sent)
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
        return origin == self._origin and unquote(parts.path or "/", errors="strict") in paths_of(scope)

    async def _remember(self, key: Key, jti: str, until: float) -> None:
        name = sha256(f"{key.thumbprint()}.{jti}".encode("utf-8", "surrogatepass")).hexdigest()
        try:
            # A second longer than the proof is valid, so that the record is there at its last moment.
            is_new = await self._store.add(Record(f"dpop:{name}", b"", expires_at=until + 1))
        except AuthError:
            raise
        except Exception as error:
            raise ServiceUnavailable(reason="proofs_unreachable") from error
        if not is_new:
            raise _bad_proof("replayed")


def paths_of(scope: Scope) -> tuple[str, ...]:
    """Return the paths that the client may have requested: the scope's, with ``root_path`` if a proxy has cut it off.

    Some servers put ``root_path`` in front of the path, others leave it out. If a path begins with it anyway, either
    may be the case, and there are two.
    """
    path = str(scope["path"])
    root = str(scope.get("app_root_path", scope.get("root_path", ""))).rstrip("/")
    if not root:
        return (path,)
    whole = root + path
    return (path, whole) if path == root or path.startswith(f"{root}/") else (whole,)


def _proof_on(connection: HTTPConnection) -> bytes:
    proofs = [value for name, value in connection.scope["headers"] if name == b"dpop"]
    if len(proofs) != 1:
        raise MalformedToken("missing" if not proofs else "not_the_only_one")
    return cast("bytes", proofs[0].strip(b" \t"))


def _key_of(jwk: object, algorithm: str) -> Key:
    # "A public key ... not ... a private key" (RFC 9449 4.3): a client that sends its private key has lost it.
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
    # A second confirmation, such as that of a certificate, would not be checked.
    if not isinstance(confirmation, dict) or confirmation.keys() != {"jkt"}:
        raise invalid_token("confirmation")
    if confirmation["jkt"] != key.thumbprint():
        raise invalid_token("bound_to_another_key")


def _hash(raw: str) -> str:
    return _base64url(sha256(raw.encode("ascii")).digest())


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _bad_proof(reason: str) -> Unauthorized:
    return Unauthorized(INVALID_PROOF, error="invalid_dpop_proof", reason="proof_" + reason)
