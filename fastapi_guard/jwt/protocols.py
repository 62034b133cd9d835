"""The collaborators of a JWTAuth: sources of keys, a check of revocations, a check of proofs of possession."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi import HTTPException
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.events import logger
from fastapi_guard.exceptions import AuthError, ServiceUnavailable, invalid_token
from fastapi_guard.schemes import Scheme, SchemeCallable
from fastapi_guard.stores.arguments import implementing

if TYPE_CHECKING:
    from joserfc.jwk import Key

    from fastapi_guard.jwt.compact import Header
    from fastapi_guard.jwt.verification_keys import VerificationKeys

# In the scope of a connection that is verified again while it is open: its proof was checked when it was opened.
PROVEN: Final = "fastapi_guard.proven"


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


def source_of(key: Any, algorithms: Sequence[str]) -> KeySource:
    """Return the source of the keys that fit ``algorithms``.

    Raises:
        ConfigurationError: ``key`` is a class, or lacks a method, or one is an ``async def`` that is not awaited, or
            the reverse.
    """
    example = "a source of keys, such as RemoteKeySet(url)"
    if callable(getattr(key, "for_algorithms", None)):
        key = implementing("key", key, (), example, plain=("for_algorithms",)).for_algorithms(algorithms)
    source: KeySource = implementing("key", key, ("load",), example, plain=("peek",))
    return source


async def check_proof(dpop: ProofOfPossession, connection: HTTPConnection, raw: str, claims: Mapping[str, Any]) -> None:
    """Check the proof for a verified token. ``False`` is a refusal, as for ``verify``.

    Raises:
        Unauthorized: The proof is invalid.
        ServiceUnavailable: The check failed with anything other than a refusal.
    """
    if PROVEN in connection.scope:
        return
    check: Callable[..., Awaitable[object]] = dpop.check
    try:
        verdict = await check(connection, raw, claims)
    except HTTPException:
        raise
    except Exception as error:
        logger.warning("the check of proofs failed with %s", type(error).__name__)
        raise ServiceUnavailable(reason="proofs_unreachable") from error
    if verdict is False:
        raise invalid_token("dpop")


async def check_revoked(revocations: RevocationCheck, claims: Mapping[str, Any]) -> None:
    """Refuse claims of a revoked token.

    Raises:
        Unauthorized: It is revoked.
        ServiceUnavailable: That is not known, also where the check returned ``None``.
    """
    try:
        verdict: object = await revocations.is_revoked(claims)
    except AuthError:
        raise
    except Exception as error:
        # An unknown state is neither a pass nor the client's fault. The error's text may quote the client.
        logger.warning("the revocations failed with %s", type(error).__name__)
        raise ServiceUnavailable(reason="revocations_unreachable") from error
    if verdict is None:
        logger.error("is_revoked returned None, not True or False")
        raise ServiceUnavailable(reason="revocations_unreachable")
    if verdict:
        raise invalid_token("revoked")


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
