"""The outcome of a login: complete, or pending on a second step; and the claims that record how it was made."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import Unauthorized
from fastapi_guard.login.client import Client
from fastapi_guard.login.revocation import REVOCATION_NUMBER
from fastapi_guard.login.users import User

WRONG_CREDENTIALS: Final = "Incorrect username or password"
WRONG_PROOF: Final = "Incorrect code"
INVALID_PENDING: Final = "The login has expired"
UNVERIFIED: Final = "The account is not verified"

#: A password was verified (RFC 8176 2).
PASSWORD: Final = "pwd"
#: A code or link that was sent to the mailbox; the name is ours.
MAILBOX: Final = "mail"
#: Two factors were verified (RFC 8176 2).
MULTI: Final = "mfa"
# The presence of the user, which is proven along with a passkey and is not a factor of its own.
_NOT_FACTORS: Final = frozenset({MULTI, "user", MAILBOX})
#: Claims that the login sets, whatever the user or the application adds.
OWN_CLAIMS: Final = frozenset(
    {"sub", "sid", "amr", "auth_time", "factors", "iat", "exp", "nbf", "jti", "iss", "aud", "cnf", REVOCATION_NUMBER}
)


@dataclass(frozen=True, slots=True)
class Methods:
    """The authentication methods of a login, each with the moment at which it was proven.

    Attributes:
        moments: The names of RFC 8176, and seconds since the epoch, in the order in which they were first proven.
    """

    moments: Mapping[str, int]

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> "Methods":
        """Return the methods that ``claims`` name; a claim of an unexpected form names none."""
        moments = claims.get("factors")
        if not isinstance(moments, Mapping):
            return cls({})
        return cls({str(name): moment for name, moment in moments.items() if type(moment) is int})

    def adding(self, names: Iterable[str], now: int) -> "Methods":
        """Return these methods, and ``names`` proven at ``now``."""
        return Methods({**self.moments, **dict.fromkeys(names, now)})

    @property
    def names(self) -> list[str]:
        """The claim ``amr``: the methods, and ``mfa`` where two factors were proven, or one that is two."""
        names = [name for name in self.moments if name != MULTI]
        return [*names, MULTI] if self.strength == 2 else names

    @property
    def strength(self) -> int:
        """How strong the methods are together: 0 for nothing or a mailbox, 1 for a factor, 2 for two factors."""
        return _strength(self.moments)

    def since(self, strength: int) -> int:
        """Return the moment since which methods of this strength were proven: the latest that is early enough.

        A method that alone is weaker moves nothing.
        """
        proven: set[str] = set()
        moment = 0
        for name, moment in sorted(self.moments.items(), key=lambda item: -item[1]):  # noqa: B007 - the last is needed
            proven.add(name)
            if _strength(proven) >= strength:
                break
        return moment

    def claims(self, strength: int) -> Claims:
        """Return ``amr``, ``auth_time`` and ``factors``.

        Args:
            strength: That of the login, to which a later step adds.
        """
        moments = {name: moment for name, moment in self.moments.items() if name != MULTI}
        if self.strength == 2:
            moments[MULTI] = self.since(2)
        return {"amr": self.names, "auth_time": self.since(strength), "factors": moments}


@dataclass(frozen=True, kw_only=True, slots=True)
class Complete:
    """A login that may have a token or a session: pass it to ``TokenPairs.issue`` or ``SessionAuth.login``.

    Attributes:
        user: The user.
        claims: The claims of the user, those that were passed to ``begin``, and ``amr``, ``auth_time``, ``factors``:
            the moment of each method in seconds since the epoch.
        kept: Those of the claims that a refresh keeps; the others are read again from the user.
        client: The client that logged in.
        second: Whether a second step was made, or a trusted device stood in for it.
        confirm: Checks that the user has not changed since; raises Unauthorized. Whatever stores a token or session
            calls it afterwards, and takes back what it stored where it raises.
    """

    user: User
    claims: Claims
    kept: Claims
    client: Client = field(default_factory=Client)
    second: bool = False
    confirm: Callable[[], Awaitable[None]] = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """A login that needs a second step.

    Attributes:
        id: A secret that stands for the login; it gives nothing but the second step.
        factors: The kinds of factors of which one completes the login, the strongest first.
        expires_in: Seconds until it expires.
        enrol: Kinds that the user has to enrol one of first, where a second factor is needed and there is none yet.
    """

    id: str = field(repr=False)
    factors: tuple[str, ...]
    expires_in: int
    enrol: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Stepped:
    """A step-up: the claims of a login with a method proven again.

    Attributes:
        user: The user.
        claims: What changed: ``amr``, ``auth_time``, ``factors``.
        confirm: As in Complete.
    """

    user: User
    claims: Claims
    confirm: Callable[[], Awaitable[None]] = field(repr=False, compare=False)


def claims_of(user: User, own: Mapping[str, Any], methods: Mapping[str, Any]) -> Claims:
    """Return the claims of a login: those of the user, of the application, and of how it was made.

    Args:
        user: The user.
        own: Claims that were passed to ``begin``; they stand before those of the user.
        methods: ``amr``, ``auth_time`` and ``factors``, and whatever else the login sets.
    """
    added = {name: value for name, value in own.items() if name not in OWN_CLAIMS}
    of_user = {name: value for name, value in user.claims().items() if name not in OWN_CLAIMS}
    return {"sub": user.subject_id, **of_user, **added, **methods}


def expired_login(reason: str) -> Unauthorized:
    """Return the refusal of a pending login that is not valid, whatever the ``reason``."""
    return Unauthorized(INVALID_PENDING, reason=reason)


def _strength(methods: Iterable[str]) -> int:
    names = set(methods)
    return 2 if MULTI in names else min(2, len(names - _NOT_FACTORS))


def checked_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Return the methods that were passed to ``begin``.

    Raises:
        ValueError: There is none, or one is not text.
    """
    if isinstance(methods, str) or not methods or not all(isinstance(name, str) and name for name in methods):
        msg = f'amr is a list of methods, such as ["fed"], not {methods!r}'
        raise ValueError(msg)
    return tuple(methods)
