"""The collaborators of a JWTAuth: sources of keys, a check of revocations, a check of proofs of possession."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.schemes import Scheme, SchemeCallable

if TYPE_CHECKING:
    from joserfc.jwk import Key

    from fastapi_guard.jwt.compact import Header
    from fastapi_guard.jwt.verification_keys import VerificationKeys


class RevocationCheck(Protocol):
    """A record of tokens that were revoked before they expired, such as Revocations."""

    async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the token with these claims is revoked, by its ``jti`` or by its ``sub`` and ``iat``."""
        ...  # pragma: no cover


class ProofOfPossession(Protocol):
    """A check that the client holds the key to which a token is bound, such as DPoP."""

    @property
    def algorithms(self) -> Sequence[str]:
        """The accepted algorithms of proofs."""
        ...  # pragma: no cover

    def scheme(self, bearer: SecurityBase | SchemeCallable | None) -> Scheme:
        """Return the scheme that extracts bound tokens, in addition to those of ``bearer``, or in its place."""
        ...  # pragma: no cover

    async def check(self, connection: HTTPConnection, raw: str, claims: Mapping[str, Any]) -> None:
        """Check the proof on ``connection`` for the verified token ``raw``; none is needed for one that is not bound.

        Raises:
            Unauthorized: The token is bound to another key, or the proof is invalid.
            ServiceUnavailable: What the check needs is unavailable.
        """
        ...  # pragma: no cover


class KeySource(Protocol):
    """The keys of an issuer, which change while the application runs."""

    def peek(self) -> "VerificationKeys | None":
        """Return the keys that can be used at once, ``None`` where they have to be loaded."""
        ...  # pragma: no cover

    async def load(self, header: "Header | None" = None) -> "VerificationKeys":
        """Return usable keys; ``header`` is that of a token for which ``peek()`` had none.

        Raises:
            ServiceUnavailable: There are none now.
        """
        ...  # pragma: no cover


class SharedKeySource(Protocol):
    """Keys of an issuer that several configurations may share, each with its own allow-list of algorithms."""

    def for_algorithms(self, algorithms: Sequence[str]) -> KeySource:
        """Return the source of those keys that fit ``algorithms``."""
        ...  # pragma: no cover


def is_source(key: object) -> bool:
    """Return whether ``key`` is a KeySource, or one to share."""
    return callable(getattr(key, "peek", None)) or callable(getattr(key, "for_algorithms", None))


class SharedKeys(Protocol):
    """Keys of every algorithm, which change while the application runs. A change makes another tuple."""

    def current(self) -> "tuple[Key, ...] | None":
        """Return the keys that can be used at once, ``None`` where they have to be loaded."""
        ...  # pragma: no cover

    async def load(self) -> "tuple[Key, ...]":
        """Return usable keys."""
        ...  # pragma: no cover

    async def load_other(self, header: "Header", tried: "tuple[Key, ...] | None") -> "tuple[Key, ...]":
        """Return usable keys, others than ``tried`` where there are any for a token with this header."""
        ...  # pragma: no cover
