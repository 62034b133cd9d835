"""Whom a JWTAuth asks about a token beside its keys: whether it is revoked, and whether its holder sends it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.schemes import Scheme, SchemeCallable


class RevocationCheck(Protocol):
    """Where it is known which tokens were revoked before they expired."""

    async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the token with these claims is revoked, by its ``jti`` or by its ``sub`` and ``iat``."""
        ...  # pragma: no cover


class ProofOfPossession(Protocol):
    """Whoever checks that a token is sent by the holder of the key that it is bound to, such as DPoP."""

    @property
    def algorithms(self) -> Sequence[str]:
        """The accepted algorithms of proofs."""
        ...  # pragma: no cover

    def scheme(self, bearer: SecurityBase | SchemeCallable | None) -> Scheme:
        """Return the scheme that takes bound tokens, in addition to what ``bearer`` takes, or in its place."""
        ...  # pragma: no cover

    async def check(self, connection: HTTPConnection, raw: str, claims: Mapping[str, Any]) -> None:
        """Check the proof on ``connection`` for the verified token ``raw``; none is needed for one that is not bound.

        Raises:
            Unauthorized: The token is bound to another key, or the proof does not hold.
            ServiceUnavailable: That cannot be decided now.
        """
        ...  # pragma: no cover
