"""Tokens that were verified, by their digest: what holds of them, and for how long."""

from copy import deepcopy
from typing import NamedTuple

from fastapi_guard.claims import Claims, Grants
from fastapi_guard.jwt.verification import VerificationKeys

_CONTAINERS = frozenset({dict, list})


class VerifiedToken(NamedTuple):
    """Claims that were verified, and the moments, in seconds since the epoch, between which that holds."""

    claims: Claims
    valid_from: float
    valid_until: float
    grants: Grants
    is_flat: bool

    def copy_claims(self) -> Claims:
        """Return the claims for somebody who may change them."""
        return self.claims.copy() if self.is_flat else deepcopy(self.claims)


class VerifiedTokens:
    """The last tokens that were verified by one VerificationKeys; others empty it."""

    def __init__(self, size: int) -> None:
        """Remember at most ``size`` tokens."""
        self._size = size
        self._tokens: dict[bytes, VerifiedToken] = {}
        self._keys: VerificationKeys | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._tokens)

    def get(self, digest: bytes, keys: VerificationKeys) -> VerifiedToken | None:
        """Return the token, where these very keys have verified it."""
        return self._tokens.get(digest) if keys is self._keys else None

    def remember(
        self, digest: bytes, keys: VerificationKeys, claims: Claims, valid: tuple[float, float], grants: Grants
    ) -> VerifiedToken:
        """Keep the claims of a token that ``keys`` have verified, and drop the oldest token beyond the size.

        Args:
            digest: Of the token.
            keys: What has verified it.
            claims: Its claims; the caller keeps none of them.
            valid: The moments from which and until which it holds, in seconds since the epoch.
            grants: What the claims grant.
        """
        if keys is not self._keys:
            self._tokens.clear()
            self._keys = keys
        is_flat = _CONTAINERS.isdisjoint(map(type, claims.values()))
        self._tokens[digest] = token = VerifiedToken(claims, *valid, grants, is_flat)
        if len(self._tokens) > self._size:
            del self._tokens[next(iter(self._tokens))]
        return token
