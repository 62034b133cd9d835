"""Tokens that were verified, by their digest: what holds of them, and for how long."""

from copy import deepcopy
from hashlib import sha256
from typing import NamedTuple

from fastapi_guard.auth import Verified
from fastapi_guard.claims import Claims, Grants
from fastapi_guard.jwt.verification import VerificationKeys

_CONTAINERS = frozenset({dict, list})


class _Token(NamedTuple):
    """What was verified, and the moments, in seconds since the epoch, between which that holds."""

    claims: Claims
    grants: Grants
    valid_from: float
    valid_until: float
    is_flat: bool


class VerifiedTokens:
    """The last tokens that were verified by one VerificationKeys; others empty it."""

    def __init__(self, size: int, max_bytes: int) -> None:
        """Remember at most ``size`` tokens, of at most ``max_bytes`` each."""
        self._size = size
        self._max_bytes = max_bytes
        self._tokens: dict[bytes, _Token] = {}
        self._keys: VerificationKeys | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._tokens)

    def get(self, token: bytes, keys: VerificationKeys | None, now: float) -> Verified[Claims] | None:
        """Return the claims, for somebody who may change them, and what they grant.

        ``None`` where it was not these very ``keys`` that have verified the token, or it does not hold at ``now``.
        """
        if keys is not self._keys or len(token) > self._max_bytes:
            return None
        known = self._tokens.get(sha256(token).digest())
        if known is None:
            return None
        claims, grants, valid_from, valid_until, is_flat = known
        if not valid_from <= now < valid_until:
            return None
        return claims.copy() if is_flat else deepcopy(claims), grants

    def remember(
        self, token: bytes, keys: VerificationKeys, verified: Verified[Claims], valid: tuple[float, float]
    ) -> Verified[Claims]:
        """Keep what was verified of a token, drop the oldest token beyond the size, and return a copy.

        Args:
            token: The whole of it.
            keys: What has verified it.
            verified: Its claims, of which the caller keeps none, and what they grant.
            valid: The moments from which and until which it holds, in seconds since the epoch.
        """
        if keys is not self._keys:
            self._tokens.clear()
            self._keys = keys
        claims, grants = verified
        is_flat = _CONTAINERS.isdisjoint(map(type, claims.values()))
        self._tokens[sha256(token).digest()] = _Token(claims, grants, *valid, is_flat)
        if len(self._tokens) > self._size:
            del self._tokens[next(iter(self._tokens))]
        return deepcopy(claims), grants
