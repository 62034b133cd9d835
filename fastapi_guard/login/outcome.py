"""The outcome of a login that is complete, and its claims."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fastapi_guard.claims import Claims
from fastapi_guard.login.client import Client
from fastapi_guard.login.hooks import expected, or_unavailable
from fastapi_guard.login.users import User

# Claims that a login, a token or a session sets by itself.
RESERVED: Final = frozenset(
    {"sub", "sid", "amr", "auth_time", "factors", "iss", "aud", "iat", "nbf", "exp", "jti", "cnf"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Complete:
    """A login that may have a token or a session: pass it to ``TokenPairs.issue`` or ``SessionAuth.login``.

    Attributes:
        user: The user.
        claims: The claims of the user, those of the application, and ``amr``, ``auth_time``, ``factors``:
            the moment of each method in seconds since the epoch.
        kept: Those of the claims that a refresh keeps; the others are read again from the user.
        client: The client that logged in.
        second: Whether a second step was made, or a trusted device stood in for it.
        trusted: Whether it was a trusted device.
        confirm: Checks that the user has not changed since; raises Unauthorized. Whatever stores a token or session
            calls it afterwards, with the ``sid`` where there is one, and takes back what it stored where it raises.
    """

    user: User
    claims: Claims
    kept: Claims
    client: Client = field(default_factory=Client)
    second: bool = False
    trusted: bool = False
    confirm: "Confirm" = field(repr=False, compare=False)


class Confirm(Protocol):
    """Confirms a login after its credential was stored."""

    async def __call__(self, sid: str | None = None, *, renewed: Claims | None = None) -> None:
        """Raise Unauthorized where the user has changed since.

        Args:
            sid: Identifies the credential, where it is a new one.
            renewed: The claims of a session that has a new ``sid`` after a step-up.
        """
        ...  # pragma: no cover


def checked_claims(claims: Mapping[str, Any] | None) -> Claims:
    """Return the claims that an application adds to a login.

    Raises:
        ValueError: A claim is one that a login, a token or a session sets by itself.
    """
    own = dict(claims or {})
    reserved = sorted(RESERVED & own.keys())
    if reserved:
        msg = f"a login sets the claims {', '.join(reserved)} by itself: leave them out of claims"
        raise ValueError(msg)
    return own


def proven(claims: Mapping[str, Any], methods: Iterable[str], moments: Mapping[str, int], auth_time: int) -> Claims:
    """Return claims with ``amr``, ``auth_time`` and ``factors``, for what was proven when."""
    amr = list(dict.fromkeys(methods))
    return {**claims, "amr": amr, "auth_time": auth_time, "factors": {method: moments[method] for method in amr}}


def claims_of(user: User, kept: Mapping[str, Any]) -> Claims:
    """Return the claims of a user as they are now, with those that a login keeps."""
    with or_unavailable("claims_failed"):
        found = expected(user.claims(), Mapping, user.claims)
    own = {name: value for name, value in found.items() if name not in ("sid", "amr", "auth_time", "factors")}
    return {**own, **kept, "sub": user.subject_id}
