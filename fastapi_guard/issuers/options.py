"""The further arguments of an OIDCAuth, checked by name: a misspelt one must not be a check that is left out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, cast

from fastapi_guard.auth import ScopesOptions
from fastapi_guard.jwt.collaborators import ProofOfPossession, RevocationCheck
from fastapi_guard.jwt.http import Client


class OIDCOptions(ScopesOptions, total=False):
    """The further arguments of an OIDCAuth, beside those of every ScopesAuth.

    Attributes:
        jwks_uri: Where the keys are, for a provider without discovery.
        algorithms: The closed list of accepted algorithms, by default all asymmetric ones.
        accept: ``access`` for access tokens; ``id`` for ID tokens, where those are all that an API can verify.
        require: Claims that a token must have, each with the value or the values that are accepted.
        profile: ``rfc9068`` accepts JWT access tokens of RFC 9068 alone.
        leeway_seconds: See JWTConfig.
        cache_size: See JWTConfig.
        max_token_bytes: See JWTConfig.
        revocations: See JWTAuth.
        dpop: See JWTAuth.
        clock: Seconds since the epoch.
        client: See RemoteKeySet, as of what follows.
        min_ttl: The least time that keys are kept.
        max_ttl: The most.
        cooldown: The time between two fetches for the sake of an unknown ``kid``.
        stale_for: How much longer keys serve while the provider is away.
        timeout: The time for discovery and keys together.
        max_bytes: The size of a document at which reading stops.
    """

    jwks_uri: str | None
    algorithms: Sequence[str] | None
    accept: Literal["access", "id"]
    require: Mapping[str, Any]
    profile: Literal["rfc9068"] | None
    leeway_seconds: int
    cache_size: int
    max_token_bytes: int
    revocations: RevocationCheck | None
    dpop: ProofOfPossession | None
    clock: Callable[[], float]
    client: Client | None
    min_ttl: float | timedelta
    max_ttl: float | timedelta
    cooldown: float | timedelta
    stale_for: float | timedelta
    timeout: float | timedelta
    max_bytes: int


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse what is no option.

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


def with_required(own: OIDCOptions, options: OIDCOptions, require: Mapping[str, Any]) -> OIDCOptions:
    """Return the options of a preset: its ``own``, those given over them, and both requirements together."""
    required = {**options.get("require", {}), **require}
    return cast("OIDCOptions", {**own, **options, "require": required})
