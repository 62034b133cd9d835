"""JWTAuth: issue and verify signed tokens (RFC 7519, as narrowed by RFC 8725)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.auth.conversion import check_hooks
from fastapi_guard.callables import is_async
from fastapi_guard.claims import Claims
from fastapi_guard.events import logger
from fastapi_guard.exceptions import AuthError, ConfigurationError, ServiceUnavailable, invalid_token, shown
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.issuer import complete, sign
from fastapi_guard.jwt.keys import KeyInput
from fastapi_guard.jwt.protocols import ProofOfPossession, RevocationCheck, check_proof, check_revoked
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.jwt.tokens import BearerAccessToken
from fastapi_guard.jwt.verification_keys import VerificationKeys
from fastapi_guard.jwt.verifier import KeysNeeded, TokenVerifier, keys_of_source
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import clock_of, implementing

if TYPE_CHECKING:
    from httpx2 import AsyncClient


class JWTAuth(ScopesAuth):
    """Signed tokens in the compact form, verified by the rules of a JWTConfig.

    Attributes:
        config: The rules. ``replace_keys`` sets another.
        revocations: Checked at each verification, ``None`` where nothing is.
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
        """Verify by ``config``, and check ``revocations`` at each verification.

        Args:
            config: The keys, and what a token has to be.
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            revocations: Checked at each verification; where it fails the answer is 503.
            dpop: Checks the proof that comes with a token that is bound to a key. Without, such a token is refused.
            clock: Returns seconds since the epoch.
            options: See ScopesOptions.

        Raises:
            ConfigurationError: An argument has the wrong type; ``check_claims`` of a subclass is an ``async def``; or a
                subclass overrides ``verify`` alone and takes ``dpop``, whose proofs only ``verify_request`` can see.
        """
        if not isinstance(config, JWTConfig):
            msg = f"JWTAuth takes a JWTConfig, such as JWTConfig(key=...), not {type(config).__name__}"
            raise ConfigurationError(msg)
        is_revoked: Any = getattr(revocations, "is_revoked", None)
        if revocations is not None and (isinstance(revocations, type) or not is_async(is_revoked)):
            msg = f"revocations is an object with async def is_revoked(claims), not {shown(revocations)}"
            raise ConfigurationError(msg)
        if dpop is not None:
            implementing("dpop", dpop, ("check",), "DPoP(store, origin=...)", plain=("scheme",))
        kind = type(self)
        if dpop is not None and kind.verify is not JWTAuth.verify and kind.verify_request is JWTAuth.verify_request:
            msg = f"{kind.__name__}.verify(raw) sees no proof: override verify_request(connection, raw) beside it"
            raise ConfigurationError(msg)
        check_hooks(self, check_claims=False)
        self._dpop = dpop
        self.revocations: RevocationCheck | None = revocations
        self._clock = clock_of(clock)
        super().__init__(scheme if dpop is None else dpop.scheme(scheme), scope_validator, **options)
        self.config: JWTConfig = config
        self._verifier = self._new_verifier(config)

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a token.

        Raises:
            Unauthorized: The token is invalid, or bound to a key, whose proof only ``verify_request`` can check.
            ServiceUnavailable: There are no keys yet, or the revocations are unavailable.
        """
        claims = await self._valid_claims(raw)
        if "cnf" in claims:  # RFC 9449 7.2
            raise invalid_token("bound_token")
        return claims

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Return the claims of a token that came on ``connection``, with the proof where it is bound to a key.

        Raises:
            Unauthorized: The token or its proof is invalid.
            ServiceUnavailable: As for ``verify``, or the proofs that were used are unavailable.
        """
        if self._dpop is None:
            return await self.verify(raw)
        claims = await self._valid_claims(raw)
        await check_proof(self._dpop, connection, raw, claims)
        return claims

    def recognises(self, raw: str) -> bool:
        """Return whether it has the three parts of a signed token (RFC 7515 7.1)."""
        return raw.count(".") == 2

    def check_claims(self, claims: Claims) -> None:
        """Refuse claims that are valid by the configuration: empty, for a subclass that adds rules.

        It is called at each verification, also for a token of the cache. To return anything other than ``None`` and
        ``True`` is a refusal, too.

        Raises:
            Unauthorized: A claim is not as it has to be. Another HTTPException is raised as it is; any other exception
                is a refusal.
        """

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers whose tokens are accepted, as far as the configuration names them."""
        return tuple(self.config.rules.issuers)

    def encode(self, payload: Mapping[str, Any], expires_in: float | timedelta | None = None) -> str:
        """Return ``payload`` as a signed token.

        ``iat``, ``iss``, ``aud``, ``exp`` and ``jti`` are added where the payload does not have them.

        Args:
            payload: The claims; it is not changed. Times are seconds since the epoch or aware datetimes.
            expires_in: The lifetime from ``iat``, in seconds or as timedelta, by default that of the configuration.

        Raises:
            ConfigurationError: There is no private key.
            TypeError: The payload is not a mapping, or a claim is not a JSON value.
            ValueError: A claim is not as RFC 7519 4.1 wants it, or the token would be refused: larger than
                ``max_token_bytes``, too deep, bound to a key by ``cnf``.
        """
        claims = complete(self.config, payload, expires_in, int(self._clock()))
        return sign(self.config, claims, binds=self._dpop is not None)

    def create_access_token(
        self, payload: Mapping[str, Any], expires_in: float | timedelta | None = None
    ) -> BearerAccessToken:
        """Return ``payload`` as the token response of RFC 6749 5.1; see ``encode``."""
        now = int(self._clock())
        claims = complete(self.config, payload, expires_in, now)
        remaining = None if "exp" not in claims else max(0, int(claims["exp"]) - now)
        token = sign(self.config, claims, binds=self._dpop is not None)
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
        self._verifier, self.config = self._new_verifier(config), config

    async def fetch_jwks(self, url: str, *, client: "AsyncClient | None" = None) -> None:
        """Load the keys of the issuer, for a configuration without ``key``. Until then the answer is 503.

        Args:
            url: A path below ``issuer_url``, such as ``/.well-known/jwks.json``, or a whole https URL.
            client: The HTTP client to use; one of its own where it is left out.

        Raises:
            ConfigurationError: The configuration has keys of its own, or the URL is neither.
            MissingExtraError: The extra ``http`` is not installed.
            ServiceUnavailable: The keys cannot be fetched, or none of them can be used; the loaded ones stay.
        """
        from fastapi_guard.jwt.http import FetchError, fetch_json  # noqa: PLC0415 - the extra "http" is only for this

        if self.config.key is not None:
            msg = "fetch_jwks() is for a configuration without key: JWTConfig(algorithms=[...], issuer_url=...)"
            raise ConfigurationError(msg)
        if url.startswith("/"):
            if self.config.issuer_url is None:
                msg = f"fetch_jwks({url!r}) is below issuer_url, which the configuration does not have"
                raise ConfigurationError(msg)
            url = str(self.config.issuer_url).rstrip("/") + url
        try:
            document = await fetch_json(url, client=client)
        except FetchError as error:
            raise ServiceUnavailable(reason="keys_unreachable") from error
        keys = self.config.published_keys(document)
        if not keys:
            raise ServiceUnavailable(reason="no_usable_keys")
        self._verifier.use(keys)

    async def _current(self, principal: Claims, connection: HTTPConnection | None) -> Claims:  # noqa: ARG002
        if self.revocations is not None:
            await check_revoked(self.revocations, principal)
        return principal

    async def _valid_claims(self, raw: str) -> Claims:
        try:
            claims = self._verifier.verify(raw)
        except KeysNeeded as needed:
            claims = await self._verify_with_loaded_keys(raw, needed.header)
        if self.revocations is not None:
            await check_revoked(self.revocations, claims)
        return claims

    async def _verify_with_loaded_keys(self, raw: str, header: Header | None) -> Claims:
        keys = await self._load_keys(header)
        try:
            return self._verifier.verify(raw, keys, is_final=header is not None)
        except KeysNeeded as needed:
            # There were no keys at all, and those that are there now lack the one that the token names.
            return self._verifier.verify(raw, await self._load_keys(needed.header), is_final=True)

    async def _load_keys(self, header: Header | None) -> VerificationKeys:
        source = self.config.source
        assert source is not None  # noqa: S101 - only a configuration with a source needs keys
        try:
            return keys_of_source(await source.load(header))
        except AuthError:
            raise
        except Exception as error:
            # The failure of a source does not make the token invalid.
            logger.warning("the source of keys failed with %s", type(error).__name__)
            raise ServiceUnavailable(reason="keys_unreachable") from error

    def _claim_rules(self, config: JWTConfig) -> ClaimRules:
        return config.rules

    def _new_verifier(self, config: JWTConfig) -> TokenVerifier:
        return TokenVerifier(config, self._claim_rules(config), clock=self._clock, check_claims=self._check_claims)

    def _check_claims(self, claims: Claims) -> None:
        # Looked up at each call: check_claims may be replaced on the instance.
        check: Callable[[Claims], object] = self.check_claims
        verdict = check(claims)
        # A def that returns a coroutine looks like any other def when the Auth is constructed; nothing awaits it.
        if verdict is not None and verdict is not True:
            raise invalid_token("check_claims")
