"""Auth0: access tokens of an Auth0 tenant, verified by auth0-api-python, and by our own rules around it.

The library's exceptions, texts and header fields stay in here. Needs the extra ``auth0``.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypedDict, Unpack
from urllib.parse import quote

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import (
    INVALID_PROOF,
    AuthError,
    ConfigurationError,
    MissingExtraError,
    ServiceUnavailable,
    Unauthorized,
    invalid_token,
)
from fastapi_guard.issuers.dpop import DPoP, paths_of
from fastapi_guard.issuers.options import AUTH0_ACCESS_MARK
from fastapi_guard.jwt.compact import Header, MalformedToken, decode_base64url, decode_header, decode_object, split
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.protocols import PROVEN
from fastapi_guard.schemes import DPoPScheme, SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import clock_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.memory import MemoryStore
from fastapi_guard.stores.protocol import Store

try:
    with warnings.catch_warnings(record=True):  # it imports a part of Authlib that is to go: no matter of its users
        from auth0_api_python import ApiClient  # type: ignore[import-untyped]
        from auth0_api_python.errors import VerifyAccessTokenError  # type: ignore[import-untyped]
except ImportError:
    raise MissingExtraError("auth0-api-python", "auth0") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

_ALGORITHM: Final = "RS256"  # the one that the library verifies
_PROOF_ALGORITHMS: Final = ("ES256",)
_COOLDOWN_SECONDS: Final = 30.0
_MAX_KNOWN_KIDS: Final = 128
_PATH_CHARACTERS: Final = "/:@!$&'()*+,;=~-._"
# The beginnings of the texts of the library, in an error for a bad token, if the tenant is the cause.
_TENANT_TROUBLE: Final = ("Failed to fetch ", "Discovery metadata missing ", "Invalid discovery issuer ")


class Auth0Options(ScopesOptions, total=False):
    """The further arguments of an Auth0, beside those of every ScopesAuth.

    Attributes:
        store: Where used proofs are remembered, by default in this process; several processes share one.
        timeout_seconds: The time for a verification, discovery and keys included.
        clock: Seconds since the epoch. The library has its own.
    """

    store: Store
    timeout_seconds: float
    clock: Callable[[], float]


class Verifier(Protocol):
    """The methods of the library's ApiClient that are used; it has no types of its own."""

    options: Any

    async def verify_access_token(
        self, access_token: str, request_url: str | None = None, request_headers: dict[str, str] | None = None
    ) -> Any:
        """Return the claims of a token, or raise."""
        ...  # pragma: no cover

    async def verify_dpop_proof(self, access_token: str, proof: str, http_method: str, http_url: str) -> Any:
        """Return the claims of a proof, or raise."""
        ...  # pragma: no cover


class _Token(TypedDict):
    """A token that was parsed strictly, and is not verified yet."""

    raw: str
    header: Header
    claims: Claims


class Auth0(ScopesAuth):
    """Access tokens of an Auth0 tenant, plain or bound to a key; ``permissions`` count as scopes."""

    name = "auth0"

    def __init__(
        self,
        api_client: "Verifier",
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        origin: str | None = None,
        **options: Unpack[Auth0Options],
    ) -> None:
        """Verify with ``api_client``: ``ApiClient(ApiClientOptions(domain=..., audience=...))``.

        Args:
            api_client: The library's client; its ``dpop_enabled`` and ``dpop_required`` count here too.
            scheme: The source of the token, by default the Bearer header.
            scope_validator: Decides which scopes cover which, by default the hierarchical one.
            origin: The scheme, host and port that clients send their requests to, such as ``https://api.example``.
                Without it, tokens that are bound to a key are refused: a proof names the URL that it is for.
            options: See Auth0Options.

        Raises:
            ConfigurationError: It is not such a client, or it requires DPoP and there is no origin; or ``store`` would
                not be used.
            TypeError: There is no such option.
        """
        unknown = sorted(options.keys() - Auth0Options.__annotations__.keys())
        if unknown:
            msg = f"Auth0 has no option {', '.join(unknown)}"
            raise TypeError(msg)
        if not isinstance(api_client, ApiClient):
            msg = "api_client is ApiClient(ApiClientOptions(domain=..., audience=...)) of auth0-api-python"
            raise ConfigurationError(msg)
        self._api_client = api_client
        self._clock = clock_of(options.get("clock", time.time))
        self._timeout = seconds_of("timeout_seconds", options.get("timeout_seconds", 10.0), positive=True)
        self._origin = origin
        self._dpop: DPoP | None = self._proofs(origin, options.get("store"))
        own: dict[str, Any] = {"scope_claims": ("scope", "permissions")}
        own |= {name: value for name, value in options.items() if name in ScopesOptions.__annotations__}
        super().__init__(scheme if self._dpop is None else self._dpop.scheme(scheme), scope_validator, **own)
        self._config = JWTConfig(
            algorithms=[_ALGORITHM], audience=api_client.options.audience, access_mark=AUTH0_ACCESS_MARK
        )
        self._known_kids: set[str] = set()
        self._refetched_at = float("-inf")

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers of the configured domains, as far as these are listed."""
        options = self._api_client.options
        domains: Sequence[str] = options.domains if isinstance(options.domains, list) else [options.domain or ""]
        hosts = [domain.strip().lower().removeprefix("https://").rstrip("/") for domain in domains]
        return tuple(f"https://{host}/" for host in hosts if host)

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a token; one that is bound to a key is refused, since no proof is seen here.

        Raises:
            Unauthorized: It is invalid.
            ServiceUnavailable: The tenant cannot be reached.
        """
        token = self._parse(raw, bound=False)
        await self._verify_token(token)
        return token["claims"]

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Return the claims of a token that came on ``connection``, with the proof where it is bound to a key.

        Raises:
            Unauthorized: It is invalid.
            ServiceUnavailable: The tenant, or the store of proofs, cannot be reached.
        """
        token = self._parse(raw, bound=self._dpop is not None)
        await self._verify_token(token, connection)
        if self._dpop is not None:
            await self._dpop.check(connection, raw, token["claims"])
            if DPoPScheme.is_used(connection) and PROVEN not in connection.scope:
                await self._verify_proof(connection, raw)
        return token["claims"]

    def _proofs(self, origin: str | None, store: Store | None) -> DPoP | None:
        options = self._api_client.options
        if origin is None and options.dpop_required:
            msg = "the ApiClient requires DPoP: pass origin, the scheme, host and port that clients send requests to"
            raise ConfigurationError(msg)
        if origin is None or not options.dpop_enabled:
            if store is not None:
                msg = "store keeps the ids of proofs, and none is checked: pass origin too, to a client with DPoP"
                raise ConfigurationError(msg)
            return None
        return DPoP(
            # For one process a store of its own will do; an Auth otherwise sees the protocol alone.
            MemoryStore(clock=self._clock) if store is None else store,
            origin=origin,
            algorithms=_PROOF_ALGORITHMS,
            required=options.dpop_required,
            max_age_seconds=options.dpop_iat_offset,
            leeway_seconds=options.dpop_iat_leeway,
            clock=self._clock,
        )

    def _parse(self, raw: str, *, bound: bool) -> _Token:
        # Before the library sees it: what it does not check, and what it would stumble over.
        try:
            return self._parsed(raw, bound=bound)
        except AuthError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a byte sequence provokes is one refusal
            raise invalid_token(str(error) if isinstance(error, MalformedToken) else "undecodable") from None

    def _parsed(self, raw: str, *, bound: bool) -> _Token:
        if len(raw) > self._config.max_token_bytes:
            raise MalformedToken("oversized")
        _, header_segment, payload, signature = split(raw.encode("ascii"))
        header = decode_header(header_segment)
        claims = decode_object(decode_base64url(payload))
        decode_base64url(signature)
        if header.alg != _ALGORITHM:
            raise MalformedToken("algorithm")
        if not header.kid or not isinstance(claims.get("iss"), str):
            raise MalformedToken("unknown_key")
        self._config.rules.check_type(header.typ)
        self._config.rules.check_times(claims, self._clock())
        self._config.rules.check(claims, header.typ)
        if "cnf" in claims and not bound:  # RFC 9449 7.2
            raise invalid_token("bound_token")
        return {"raw": raw, "header": header, "claims": claims}

    async def _verify_token(self, token: _Token, connection: HTTPConnection | None = None) -> None:
        try:
            await self._ask_library(token, connection)
        except Unauthorized:
            # The library keeps a set of keys until it is old, whatever a token names.
            if not self._forget_keys(token):
                raise
            await self._ask_library(token, connection)
        if len(self._known_kids) < _MAX_KNOWN_KIDS:
            self._known_kids.add(str(token["header"].kid))

    async def _ask_library(self, token: _Token, connection: HTTPConnection | None) -> None:
        url = None if connection is None or self._origin is None else self._origin + paths_of(connection.scope)[0]
        headers = None if connection is None else {name.lower(): value for name, value in connection.headers.items()}
        try:
            async with asyncio.timeout(self._timeout):
                await self._api_client.verify_access_token(token["raw"], request_url=url, request_headers=headers)
        except VerifyAccessTokenError as error:
            if not _is_tenant_trouble(error):
                raise invalid_token("auth0_refused") from None
            raise _unavailable(error) from None
        except Exception as error:  # noqa: BLE001 - any of its exceptions is a refusal or a 503
            # The token was sound as far as it could be seen, so that the library, or its tenant, was not.
            raise _unavailable(error) from None

    async def _verify_proof(self, connection: HTTPConnection, raw: str) -> None:
        scope = connection.scope
        proof = connection.headers["dpop"]
        for path in paths_of(scope):
            url = f"{self._origin}{quote(path, safe=_PATH_CHARACTERS)}"
            try:
                await self._api_client.verify_dpop_proof(raw, proof, scope.get("method", "GET"), url)
            except Exception as error:  # noqa: BLE001 - as above
                logger.info("the proof was refused by auth0-api-python: %s", type(error).__name__)
            else:
                return
        raise Unauthorized(INVALID_PROOF, error="invalid_dpop_proof", reason="auth0_refused")

    def _forget_keys(self, token: _Token) -> bool:
        """Let the library fetch its keys again for an unknown ``kid``, once a cooldown; return whether it will."""
        now = self._clock()
        if token["header"].kid in self._known_kids or now - self._refetched_at < _COOLDOWN_SECONDS:
            return False
        # There is no public way; another release may well have none of these attributes.
        discovered = getattr(self._api_client, "_discovery_cache", None)
        keys = getattr(self._api_client, "_jwks_cache", None)
        if discovered is None or keys is None:
            return False
        issuer = str(token["claims"]["iss"]) if self._api_client.options.domains else self.issuers[0]
        metadata = discovered.get(issuer)
        if not isinstance(metadata, dict) or "jwks_uri" not in metadata:
            return False
        self._refetched_at = now
        keys.delete(metadata["jwks_uri"])
        return True


def _is_tenant_trouble(error: Exception) -> bool:
    cause = error.__cause__
    return str(error).startswith(_TENANT_TROUBLE) or isinstance(cause, OSError | TimeoutError)


def _unavailable(error: Exception) -> ServiceUnavailable:
    logger.warning("auth0-api-python could not decide: %s", type(error).__name__)
    return ServiceUnavailable(reason="auth0_unreachable")
