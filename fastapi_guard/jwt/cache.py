"""Tokens that were verified, by their digest: what holds of them, and for how long."""

from hashlib import sha256
from typing import TypeAlias

from fastapi_guard.claims import Claims, Grants, copied
from fastapi_guard.jwt.verification import VerificationKeys

_CONTAINERS = frozenset({dict, list})


# The claims, what they grant, the moments in seconds since the epoch between which that holds, and whether the claims
# have no containers. CPython takes a plain tuple apart faster than a named one.
_Token: TypeAlias = tuple[Claims, Grants | None, float, float, bool]


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

    def get(self, token: bytes, keys: VerificationKeys, now: float) -> tuple[Claims, Grants | None] | tuple[None, None]:
        """Return the claims, for somebody who may change them, and what they grant, where that is known.

        Neither where it was not these very ``keys`` that have verified the token, or it does not hold at ``now``.
        """
        if keys is self._keys and len(token) <= self._max_bytes:
            known = self._tokens.get(sha256(token).digest())
            if known is not None:
                claims, grants, valid_from, valid_until, is_flat = known
                if valid_from <= now < valid_until:
                    return claims.copy() if is_flat else copied(claims), grants
        return None, None

    def remember(
        self,
        token: bytes,
        keys: VerificationKeys,
        claims: Claims,
        valid: tuple[float, float],
        grants: Grants | None = None,
    ) -> None:
        """Keep a copy of what was verified, and drop the oldest token beyond the size.

        Args:
            token: The whole of it.
            keys: What has verified it.
            claims: Its claims.
            valid: The moments from which and until which it holds, in seconds since the epoch.
            grants: What the claims grant, where that was asked.
        """
        if keys is not self._keys:
            self._tokens.clear()
            self._keys = keys
        is_flat = _CONTAINERS.isdisjoint(map(type, claims.values()))
        self._tokens[sha256(token).digest()] = copied(claims), grants, *valid, is_flat
        if len(self._tokens) > self._size:
            del self._tokens[next(iter(self._tokens))]
