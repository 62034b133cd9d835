"""JWTAuth: issue and verify signed tokens (RFC 7519, as narrowed by RFC 8725)."""

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from inspect import iscoroutinefunction, unwrap
from typing import TYPE_CHECKING, Any, Final, Unpack

from fastapi import HTTPException
from fastapi.security.base import SecurityBase
from joserfc.errors import JoseError
from starlette.requests import HTTPConnection

from fastapi_guard.auth import MEMO, ScopesAuth, ScopesOptions, Verified
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import INVALID_TOKEN, AuthError, ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.jwt.cache import VerifiedTokens
from fastapi_guard.jwt.collaborators import ProofOfPossession, RevocationCheck
from fastapi_guard.jwt.compact import Header, MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.issuer import complete, sign
from fastapi_guard.jwt.keys import KeyInput
from fastapi_guard.jwt.tokens import BearerAccessToken
from fastapi_guard.jwt.verification import KeySource, UnknownKey, VerificationKeys
from fastapi_guard.schemes import UNDECIDED, SchemeCallable, Undecided
from fastapi_guard.scopes import ScopeValidator

if TYPE_CHECKING:
    from httpx2 import AsyncClient

logger: logging.Logger = logging.getLogger("fastapi_guard")


# The methods with which a subclass sees each token.
_ON_THE_WAY: Final = ("authenticate", "recognises", "verify", "verify_request")

# The connection and the token on it that are being verified. A token that comes without one proves nothing.
_presented: ContextVar[tuple[HTTPConnection, str] | None] = ContextVar("fastapi_guard_presented", default=None)


class JWTAuth(ScopesAuth):
    """Signed tokens in the compact form, verified by the rules of a JWTConfig.

    Attributes:
        config: The rules. ``replace_keys`` puts another in its place.
        dpop: Whoever checks proofs of possession, ``None`` where nobody does.
    """

    name = "jwt"

    def __init__(
        self,
        config: JWTConfig,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        revocations: RevocationCheck | None = None,
        dpop: ProofOfPossession | None = None,
        clock: Callable[[], float] = time.time,
        **options: Unpack[ScopesOptions],
    ) -> None:
        """Verify by ``config``, and ask ``revocations`` at each verification.

        Args:
            config: What is signed with and what is accepted.
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            revocations: Asked at each verification; where it fails the answer is 503.
            dpop: Checks the proof that comes with a token that is bound to a key. Without, such a token is refused.
            clock: Seconds since the epoch.
            options: See ScopesOptions.

        Raises:
            ConfigurationError: An argument is of another kind.
        """
        if not isinstance(config, JWTConfig):
            msg = f"JWTAuth takes a JWTConfig, such as JWTConfig(key=...), not {type(config).__name__}"
            raise ConfigurationError(msg)
        is_revoked: Any = getattr(revocations, "is_revoked", None)
        if revocations is not None and (isinstance(revocations, type) or not iscoroutinefunction(unwrap(is_revoked))):
            msg = f"revocations is an object with async def is_revoked(claims), not {revocations!r}"
            raise ConfigurationError(msg)
        if not callable(clock):
            msg = f"clock is a function that returns seconds since the epoch, such as time.time, not {clock!r}"
            raise ConfigurationError(msg)
        if dpop is not None and not callable(getattr(dpop, "check", None)):
            msg = f"dpop is DPoP(store, origin=...), not {type(dpop).__name__}"
            raise ConfigurationError(msg)
        super().__init__(scheme if dpop is None else dpop.scheme(scheme), scope_validator, **options)
        self.config: JWTConfig = config
        self.dpop: ProofOfPossession | None = dpop
        # The connection matters for a proof alone.
        self._sees_request = dpop is not None or type(self).verify_request is not JWTAuth.verify_request
        self._revocations = revocations
        self._clock = clock
        self._keys = config.verification_keys()
        self._cached = VerifiedTokens(config.cache_size, config.max_token_bytes)
        is_own = any(getattr(type(self), name) is not getattr(JWTAuth, name) for name in _ON_THE_WAY)
        self._asks: bool = is_own or self._is_cookie or config.claims_registry is not None

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a token.

        Raises:
            Unauthorized: It does not hold.
            ServiceUnavailable: There are no keys yet, or the revocations cannot be asked.
        """
        source = self.config.source
        keys = self._keys if source is None else source.peek() or await _load(source)
        if keys is None:
            raise ServiceUnavailable(reason="keys_not_loaded")
        try:
            claims = self._claims_of(raw, keys)
        except Exception as error:  # noqa: BLE001 - the choke point, see _refusal
            if source is None or not isinstance(error, UnknownKey):
                raise _refusal(error) from None
            claims = await self._verify_with_new_keys(raw, source, error.header)
        if self.dpop is not None:
            await self._check_binding(self.dpop, raw, claims)
        if self._revocations is not None and await self._is_revoked(self._revocations, claims):
            raise Unauthorized(INVALID_TOKEN, error="invalid_token", reason="revoked")
        return claims

    # For ``at_once``, which does the same, and asks whether this is still what verifies.
    _own_verify = verify

    def recognises(self, raw: str) -> bool:
        """Return whether it has the three parts of a signed token (RFC 7515 7.1)."""
        return raw.count(".") == 2

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Return the claims of a token that came on ``connection``, with the proof where it is bound to a key."""
        presented = _presented.set((connection, raw))
        try:
            return await self.verify(raw)
        finally:
            _presented.reset(presented)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers whose tokens are accepted, as far as the configuration names them."""
        return () if self.config.issuer_url is None else (self.config.issuer_url,)

    def check_claims(self, claims: Claims) -> None:
        """Refuse claims whose signature holds and whose rest does not; a subclass adds checks of its own.

        Raises:
            Unauthorized: One of them is not as it must be.
        """
        # What binds a token to a key is checked where the request is seen.
        self.config.check_claims(claims, bound=self.dpop is not None)

    def encode(self, payload: Mapping[str, Any], expires_in: float | timedelta | None = None) -> str:
        """Return ``payload`` as a signed token.

        ``iat``, ``iss``, ``aud``, ``exp`` and ``jti`` are added where the payload does not have them.

        Args:
            payload: The claims; it is not changed. Times are seconds since the epoch or aware datetimes.
            expires_in: The lifetime in seconds or as timedelta, by default that of the configuration.

        Raises:
            ConfigurationError: There is no private key.
            TypeError: A claim is nothing that JSON has.
            ValueError: A claim is not as RFC 7519 4.1 wants it, or the token would be refused for what it is: larger
                than ``max_token_bytes``, too deep, bound to a key by ``cnf``.
        """
        claims = complete(self.config, payload, expires_in, int(self._clock()))
        return sign(self.config, claims, binds=self.dpop is not None)

    def create_access_token(
        self, payload: Mapping[str, Any], expires_in: float | timedelta | None = None
    ) -> BearerAccessToken:
        """Return ``payload`` as the token response of RFC 6749 5.1; see ``encode``."""
        now = int(self._clock())
        claims = complete(self.config, payload, expires_in, now)
        remaining = None if "exp" not in claims else max(0, int(claims["exp"]) - now)
        token = sign(self.config, claims, binds=self.dpop is not None)
        return BearerAccessToken(access_token=token, expires_in=remaining)

    def replace_keys(self, key: KeyInput) -> None:
        """Sign with the first of other keys and verify with all of them, from the next request on.

        Raises:
            ConfigurationError: As for ``JWTConfig(key=...)``, or tokens could no longer be issued as they are now; the
                keys stay as they were.
        """
        if key is None:
            msg = "replace_keys() takes the new keys; without any no token could be issued or verified"
            raise ConfigurationError(msg)
        config = replace(self.config, key=key)
        if self.config.can_sign and not config.can_sign:
            msg = "the first of the new keys cannot sign, and those in use can: put a private key first"
            raise ConfigurationError(msg)
        self._keys, self.config = config.verification_keys(), config

    async def fetch_jwks(self, url: str, *, client: "AsyncClient | None" = None) -> None:
        """Load the keys of the issuer, for a configuration without ``key``. Until then a request is answered 503.

        Args:
            url: A path below ``issuer_url``, such as ``/.well-known/jwks.json``, or a whole https URL.
            client: The HTTP client to use; one of its own where it is left out.

        Raises:
            ConfigurationError: The configuration has keys of its own, or the URL is neither.
            MissingExtraError: The extra ``http`` is not installed.
            ServiceUnavailable: The keys cannot be fetched, or none of them can be used; what was loaded stays.
        """
        from fastapi_guard.jwt.http import FetchError, fetch_json  # noqa: PLC0415 - the extra "http" is only for this

        if self.config.key is not None:
            msg = "fetch_jwks() is for a configuration without key: JWTConfig(algorithms=[...], issuer_url=...)"
            raise ConfigurationError(msg)
        if url.startswith("/"):
            if self.config.issuer_url is None:
                msg = f"fetch_jwks({url!r}) is below issuer_url, which the configuration does not have"
                raise ConfigurationError(msg)
            url = self.config.issuer_url.rstrip("/") + url
        try:
            document = await fetch_json(url, client=client)
        except FetchError as error:
            raise ServiceUnavailable(reason="keys_unreachable") from error
        keys = self.config.published_keys(document)
        if not keys:
            raise ServiceUnavailable(reason="no_usable_keys")
        self._keys = keys

    async def _verify_with_new_keys(self, raw: str, source: KeySource, header: Header) -> Claims:
        keys = await _load(source, header)
        try:
            return self._claims_of(raw, keys)
        except Exception as error:  # noqa: BLE001 - the choke point, see _refusal
            raise _refusal(error) from None

    def at_once(self, connection: HTTPConnection) -> Verified[Claims] | Undecided | None:
        """Return what ``authenticate`` would, where no more than keys that are here is asked about a token.

        It decides as ``verify`` does, and saves the coroutines.

        Raises:
            AuthError: The token does not hold, or was refused before.
        """
        # Where a guard has been here, this Auth may have decided.
        if MEMO in connection.scope or self._asks or self.dpop is not None or self._revocations is not None:
            return super().at_once(connection)
        token = self.scheme.glance(connection)
        if token is None or token is UNDECIDED:
            return token
        config = self.config
        keys = self._keys if config.source is None else config.source.peek() or None
        if keys is None:
            return UNDECIDED
        if config.cache_size:
            claims, grants = self._cached.get(token, keys, self._clock())
            if claims is not None and grants is not None:
                return self.remember(connection, claims, grants)
        return self._verify_at_once(connection, token, keys)

    def _verify_at_once(
        self, connection: HTTPConnection, token: bytes, keys: VerificationKeys
    ) -> Verified[Claims] | Undecided:
        # A test may have put another verify() in the place of ours.
        if self.verify != self._own_verify:
            return UNDECIDED
        try:
            claims, valid = self._decode(token, keys)
        except Exception as error:  # noqa: BLE001 - the choke point, see _refusal
            if not self._is_final(error, connection, token):
                return UNDECIDED
            refusal = _refusal(error)
        else:
            try:
                verified = self.remember(connection, claims)
            except HTTPException:  # of a grants_of() of a subclass: authenticate() meets it too, and answers
                return UNDECIDED
            if self.config.cache_size:
                self._cached.remember(token, keys, claims, valid, verified[1])
            return verified
        # An exception from before would keep these frames, and with them the connection, until a full collection.
        refusal.__context__ = None
        self.remember_refusal(connection, refusal)
        raise refusal

    def _is_final(self, error: Exception, connection: HTTPConnection, token: bytes) -> bool:
        # Not where the key is yet to be loaded, where the field holds another credential than it seemed at a glance, or
        # none, or where the credential is of another Auth.
        if self.config.source is not None and isinstance(error, UnknownKey):
            return False
        try:
            raw = self.scheme.extract(connection)
        except Unauthorized:
            return False
        return raw is not None and raw.encode() == token and self.recognises(raw)

    def _claims_of(self, raw: str, keys: VerificationKeys) -> Claims:
        config = self.config
        if not raw.isascii():
            raise MalformedToken("not_ascii")
        token = raw.encode("ascii")
        if config.cache_size:
            known, _ = self._cached.get(token, keys, self._clock())
            if known is not None:
                config.check_times(known, self._clock())  # a claims_registry may have a clock of its own
                return known
        claims, valid = self._decode(token, keys)
        if config.cache_size:
            self._cached.remember(token, keys, claims, valid)
        return claims

    def _decode(self, token: bytes, keys: VerificationKeys) -> tuple[Claims, tuple[float, float]]:
        config = self.config
        if len(token) > config.max_token_bytes:
            raise MalformedToken("oversized")
        signing_input, header_segment, payload, signature = split(token)
        header = keys.verify(signing_input, header_segment, decode_base64url(signature))
        config.check_type(header.typ)
        claims = decode_object(decode_base64url(payload))
        valid = config.check_times(claims, self._clock())
        self.check_claims(claims)
        return claims, valid

    @staticmethod
    async def _check_binding(dpop: ProofOfPossession, raw: str, claims: Claims) -> None:
        presented = _presented.get()
        if presented is not None and presented[1] == raw:
            await dpop.check(presented[0], raw, claims)
        elif "cnf" in claims:
            raise Unauthorized(INVALID_TOKEN, error="invalid_token", reason="bound_token")

    async def _is_revoked(self, revocations: RevocationCheck, claims: Claims) -> bool:
        try:
            return await revocations.is_revoked(claims)
        except AuthError:
            raise
        except Exception as error:
            # Not knowing is not a pass, and no fault of the client either. What went wrong may quote it.
            logger.warning("the revocations failed with %s", type(error).__name__)
            raise ServiceUnavailable(reason="revocations_unreachable") from error


def _refusal(error: Exception) -> AuthError:
    # The one choke point of decoding: whatever a byte sequence provokes is one refusal.
    if isinstance(error, AuthError):
        return error
    if isinstance(error, MalformedToken):
        reason = str(error)
    elif isinstance(error, JoseError):
        reason = error.error or "jose"
    else:
        # Its text may quote the token, so only its kind is logged.
        logger.warning("a token was refused after %s", type(error).__name__)
        reason = "undecodable"
    return Unauthorized(INVALID_TOKEN, error="invalid_token", reason=reason)


async def _load(source: KeySource, header: Header | None = None) -> VerificationKeys:
    try:
        return await source.load(header)
    except AuthError:
        raise
    except Exception as error:
        # A source that fails says nothing about the token.
        logger.warning("the source of keys failed with %s", type(error).__name__)
        raise ServiceUnavailable(reason="keys_unreachable") from error
