"""TokenVerifier: from the text of a token to its claims, without waiting for anything."""

from collections.abc import Callable
from hashlib import sha256
from typing import TypeAlias

from fastapi import HTTPException
from joserfc.errors import JoseError

from fastapi_guard.claims import Claims, copied
from fastapi_guard.events import logger
from fastapi_guard.exceptions import INVALID_TOKEN, ServiceUnavailable, Unauthorized
from fastapi_guard.jwt.compact import Header, MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.jwt.verification_keys import UnknownKey, VerificationKeys
from fastapi_guard.stores.bounds import BoundedCache

_CONTAINERS = frozenset({dict, list})


def keys_of_source(keys: object) -> VerificationKeys:
    """Return what a KeySource returned.

    Raises:
        ServiceUnavailable: It is not VerificationKeys, so that no token can be verified.
    """
    if not isinstance(keys, VerificationKeys):
        logger.error("the source of keys returned %s, not VerificationKeys", type(keys).__name__)
        raise ServiceUnavailable(reason="keys_unreachable")
    return keys


class KeysNeeded(Exception):
    """The keys that verify a token have to be loaded first.

    Attributes:
        header: The checked header of the token, ``None`` where there are no keys at all.
    """

    def __init__(self, header: Header | None = None) -> None:
        """Keep the header, by which a source finds the key."""
        super().__init__()
        self.header = header


# A token that was verified: by which keys, from when until when it is valid, its claims, and whether they are flat.
# CPython unpacks a plain tuple much faster than a named one.
_Verified: TypeAlias = tuple[VerificationKeys, float, float, Claims, bool]


class TokenVerifier:
    """Verify tokens in the compact form: form, signature, type, times, claims.

    It keeps the last ``cache_size`` tokens that were valid, by their digest. Times are checked on each hit, and so is
    ``check_claims``; other keys make a hit a miss.
    """

    def __init__(
        self,
        config: JWTConfig,
        rules: ClaimRules,
        *,
        clock: Callable[[], float],
        check_claims: Callable[[Claims], None],
    ) -> None:
        """Verify by the keys of ``config`` and by ``rules``.

        Args:
            config: The keys, the largest token, the size of the cache.
            rules: What the claims have to be.
            clock: Returns seconds since the epoch.
            check_claims: Further checks of the claims, called for every token.
        """
        self._source = config.source
        self._keys = config.verification_keys()
        self._rules = rules
        self._max_token_bytes = config.max_token_bytes
        self._cache: BoundedCache[bytes, _Verified] | None = (
            BoundedCache(config.cache_size) if config.cache_size else None
        )
        self._clock = clock
        self._check_claims = check_claims

    def use(self, keys: VerificationKeys) -> None:
        """Verify with these keys from now on."""
        self._keys = keys

    def verify(self, raw: str, keys: VerificationKeys | None = None, *, is_final: bool = False) -> Claims:
        """Return the claims of a token, for a caller who may change them.

        Args:
            raw: The token.
            keys: The keys that were loaded for it; by default the current ones.
            is_final: Whether its key was loaded already, so that an unknown one is a refusal.

        Raises:
            KeysNeeded: The key has to be loaded.
            Unauthorized: The token is invalid.
            ServiceUnavailable: There are no keys yet.
            HTTPException: ``check_claims`` raised it.
        """
        current = self._keys if keys is None else keys
        if current is None:
            current = self._keys_of_the_source()
        # The one choke point: whatever a sequence of bytes provokes is one refusal.
        try:
            claims = self._claims(raw, current)
            self._check_claims(claims)
        except UnknownKey as error:
            if not is_final and self._source is not None:
                raise KeysNeeded(error.header) from None
            raise _refusal(error) from None
        except Exception as error:  # noqa: BLE001 - see above
            raise _refusal(error) from None
        return claims

    def _keys_of_the_source(self) -> VerificationKeys:
        if self._source is None:
            raise ServiceUnavailable(reason="keys_not_loaded")
        try:
            keys = self._source.peek()
        except Exception as error:
            logger.warning("the source of keys failed with %s", type(error).__name__)
            raise ServiceUnavailable(reason="keys_unreachable") from error
        if not keys:
            raise KeysNeeded
        return keys_of_source(keys)

    def _claims(self, raw: str, keys: VerificationKeys) -> Claims:
        if len(raw) > self._max_token_bytes:
            raise MalformedToken("oversized")
        if not raw.isascii():
            raise MalformedToken("not_ascii")
        token = raw.encode()
        if self._cache is None:
            return self._checked(token, keys)[0]
        digest = sha256(token).digest()
        kept = self._cache.get(digest)
        if kept is not None:
            verified_by, valid_from, valid_until, claims, is_flat = kept
            if verified_by is keys and valid_from <= self._clock() < valid_until:
                if self._rules.registry is not None:  # it may have a clock of its own
                    self._rules.registry.validate(claims)
                return claims.copy() if is_flat else copied(claims)
        claims, valid_from, valid_until = self._checked(token, keys)
        is_flat = _CONTAINERS.isdisjoint(map(type, claims.values()))
        self._cache.put(digest, (keys, valid_from, valid_until, copied(claims), is_flat))
        return claims

    def _checked(self, token: bytes, keys: VerificationKeys) -> tuple[Claims, float, float]:
        signing_input, header_segment, payload, signature = split(token)
        header = keys.verify(signing_input, header_segment, decode_base64url(signature))
        self._rules.check_type(header.typ)
        claims = decode_object(decode_base64url(payload))
        valid_from, valid_until = self._rules.check_times(claims, self._clock())
        self._rules.check(claims, header.typ)
        return claims, valid_from, valid_until


def _refusal(error: Exception) -> HTTPException:
    if isinstance(error, HTTPException):
        # An AuthError, or what a check of the application answers by itself.
        return error
    if isinstance(error, MalformedToken):
        reason = str(error)
    elif isinstance(error, JoseError):
        reason = error.error or "jose"
    else:
        # Its text may quote the token, so only its class is logged.
        logger.warning("a token was refused after %s", type(error).__name__)
        reason = "undecodable"
    return Unauthorized(INVALID_TOKEN, error="invalid_token", reason=reason)
