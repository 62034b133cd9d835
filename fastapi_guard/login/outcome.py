"""The outcome of a login that is complete."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi_guard.claims import Claims
from fastapi_guard.login.client import Client
from fastapi_guard.login.users import User


@dataclass(frozen=True, kw_only=True, slots=True)
class Complete:
    """A login that may have a token or a session: pass it to ``SessionAuth.login``.

    Attributes:
        user: The user.
        claims: The claims of the user, those of the application, and ``amr``, ``auth_time``, ``factors``:
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
