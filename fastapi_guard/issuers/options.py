"""The keyword arguments of an OIDCAuth, of its presets, and of an IntrospectionAuth. A misspelt one is a TypeError."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from fastapi.security.base import SecurityBase
from pydantic import AnyUrl

from fastapi_guard.auth import ScopesOptions
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.jwt.kinds import Client
from fastapi_guard.jwt.protocols import ProofOfPossession, RevocationCheck
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import mapping_of

if TYPE_CHECKING:
    from httpx2 import AsyncClient


_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
# The claims that access tokens of Auth0 have and its ID tokens do not.
AUTH0_ACCESS_MARK: Final[Mapping[str, Any]] = {
    "scope": True,
    "permissions": True,
    "gty": True,
    "client_id": Client.OTHER,
    "azp": Client.OTHER,
}
# Those of v2.0 tokens of Entra; an application without a role has neither scp nor roles.
ENTRA_ACCESS_MARK: Final[Mapping[str, Any]] = {"scp": True, "azpacr": ["0", "1", "2"], "azp": Client.OTHER}


class OIDCOptions(ScopesOptions, total=False):
    """The further arguments of an OIDCAuth, beside those of every ScopesAuth.

    Attributes:
        jwks_uri: Where the keys are, for a provider without discovery.
        algorithms: The closed list of accepted algorithms, by default all asymmetric ones.
        accept: ``access`` for access tokens; ``id`` for ID tokens, where those are all that an API can verify.
        require: Claims that a token must have, each with the value or the values that are accepted.
        reject: Claims that a token must not have with these texts, each with one or several, compared without case.
        access_mark: Claims of which an access token must have one, each with the value or the values that are accepted,
            or ``True`` for any; a ``nonce`` does not make it an ID token then. By default ``scope``, ``scp``,
            ``token_use`` "access", ``typ`` "Bearer", a ``client_id`` that is not the audience, or such an ``azp``
            where the audience is a URI, in a token that has no claim about a login. A header ``typ`` of at+jwt is
            always one.
        audience_claim: The claim that has the audience, such as ``client_id`` or ``azp``, by default ``aud``.
        requires_type: Whether a token without ``typ`` in its header is refused.
        private_http: See RemoteKeySet.
        profile: ``rfc9068`` accepts JWT access tokens of RFC 9068 alone.
        leeway_seconds: See JWTConfig.
        cache_size: See JWTConfig.
        max_token_bytes: See JWTConfig.
        revocations: See JWTAuth.
        dpop: See JWTAuth.
        clock: Seconds since the epoch.
        client: The ``httpx2.AsyncClient`` that fetches the keys; it stays open. By default one of its own.
        min_ttl: The least time that keys are kept, a timedelta or seconds; 60 seconds by default.
        max_ttl: The most time that keys are kept, a timedelta or seconds; an hour by default.
        cooldown: The least time between two fetches for an unknown ``kid``, a timedelta or seconds; 30 by default.
        stale_for: How long expired keys are used while the provider is unreachable, a timedelta or seconds; an hour by
            default. After that the response is a 503.
        timeout: The time for discovery and keys together, a timedelta or seconds; 5 seconds by default.
        max_bytes: The size of a document, in bytes, at which reading stops; 262,144 by default.
    """

    jwks_uri: str | AnyUrl | None
    algorithms: Sequence[str] | None
    accept: Literal["access", "id"]
    require: Mapping[str, Any]
    reject: Mapping[str, str | Collection[str]]
    access_mark: Mapping[str, Any]
    audience_claim: str
    requires_type: bool
    private_http: bool
    profile: Literal["rfc9068"] | None
    leeway_seconds: int
    cache_size: int
    max_token_bytes: int
    revocations: RevocationCheck | None
    dpop: ProofOfPossession | None
    clock: Callable[[], float]
    client: "AsyncClient | None"
    min_ttl: float | timedelta
    max_ttl: float | timedelta
    cooldown: float | timedelta
    stale_for: float | timedelta
    timeout: float | timedelta
    max_bytes: int


class PresetOptions(OIDCOptions, total=False):
    """The further arguments of a preset, beside those of an OIDCAuth.

    Attributes:
        scheme: Where the token comes from, by default the Bearer header.
        scope_validator: Decides which scopes cover which, by default the hierarchical one.
    """

    scheme: SecurityBase | SchemeCallable | None
    scope_validator: ScopeValidator | None


class IntrospectionOptions(ScopesOptions, total=False):
    """The further arguments of an IntrospectionAuth, beside those of every ScopesAuth.

    Attributes:
        client_authentication: ``basic`` in the Authorization field, or ``post`` in the form (RFC 6749 2.3.1).
        issuer: The ``iss`` that an answer must have.
        audience: The ``aud`` of which an answer must have one. Without it, an answer with an audience is refused.
        dpop: Checks the proof of a token that is bound to a key (RFC 9449 6.2). Without it, such a token is refused.
        token_pattern: A regular expression that a whole token must match, such as ``r"at_[A-Za-z0-9]{43}"``. Any other
            text is refused without asking the issuer.
        cache_seconds: How long an active answer is kept, and so how long a revoked token may live on; 0 for not at all.
        inactive_cache_seconds: How long it is remembered that a token was refused; 0 for not at all.
        cache_size: How many answers of each of the two kinds are kept.
        leeway_seconds: The difference of clocks that is allowed for ``exp``, ``nbf`` and ``iat``.
        client: The httpx2 client to use; it stays open.
        timeout_seconds: The time for one request to the issuer.
        max_bytes: The size of an answer at which reading stops.
        private_http: See RemoteKeySet.
        clock: Seconds since the epoch.
    """

    client_authentication: Literal["basic", "post"]
    issuer: str | None
    audience: str | Sequence[str] | None
    dpop: ProofOfPossession | None
    token_pattern: str | None
    cache_seconds: float
    inactive_cache_seconds: float
    cache_size: int
    leeway_seconds: int
    client: "AsyncClient | None"
    timeout_seconds: float
    max_bytes: int
    private_http: bool
    clock: Callable[[], float]


def check_names(options: Mapping[str, Any]) -> None:
    """Reject options that do not exist.

    Raises:
        TypeError: There is no such option.
    """
    unknown = sorted(options.keys() - OIDCOptions.__annotations__.keys())
    if unknown:
        msg = f"there is no option {', '.join(unknown)}; the options are {', '.join(OIDCOptions.__annotations__)}"
        raise TypeError(msg)


def chosen(options: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return those of ``options`` that ``names`` name."""
    return {name: value for name, value in options.items() if name in names}


def asked_claims(options: PresetOptions) -> Mapping[str, Any]:
    """Return the claims that the user of a preset requires.

    Raises:
        ConfigurationError: They are not a mapping.
    """
    return mapping_of("require", options.get("require", {}), '{"tid": "..."}')


def with_required(own: OIDCOptions, options: PresetOptions, require: Mapping[str, Any] | None = None) -> PresetOptions:
    """Return the options of a preset: its ``own``, those of the user in their place, and the claims of both.

    Raises:
        ConfigurationError: The user requires another value of a claim that the preset requires.
    """
    asked, needed = asked_claims(options), require or {}
    clash = [name for name, value in needed.items() if name in asked and asked[name] != value]
    if clash:
        msg = f"require: this preset requires {', '.join(clash)} itself, with other values: leave it out"
        raise ConfigurationError(msg)
    kept = {name: value for name, value in own.items() if name != "access_mark" or options.get("accept") != "id"}
    return cast("PresetOptions", {**kept, **options, "require": {**asked, **needed}})


def check_host(name: str, host: str) -> str:
    """Return ``host`` if it is a host name in lower case.

    Raises:
        ConfigurationError: It is not, such as a URL.
    """
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        msg = f"{name} ({shown(host)}) is not a host name in lower case, such as id.example"
        raise ConfigurationError(msg)
    return host
