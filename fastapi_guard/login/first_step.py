"""The first step of a login: a password, a factor that identifies the user, or a proof that was made elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import HTTPConnection

from fastapi_guard.login.entry import LOGIN_FAILED, Entry
from fastapi_guard.login.outcome import Complete, checked_claims
from fastapi_guard.login.password_check import WRONG_CREDENTIALS, PasswordCheck
from fastapi_guard.login.pending import Pending
from fastapi_guard.login.second_step import locale_in
from fastapi_guard.login.users import User
from fastapi_guard.login.users.names import normalized


class FirstStep:
    """Begins logins; each method goes through the gate. The methods of Login describe what they raise."""

    def __init__(self, entry: Entry, passwords: PasswordCheck) -> None:
        """Begin logins of ``entry``, whose passwords ``passwords`` checks."""
        self._entry = entry
        self._passwords = passwords

    async def password(self, username: str, password: str, connection: HTTPConnection | None) -> Complete | Pending:
        """Log in with a username or an address, and a password."""
        user, valid = await self._passwords.find(username, password, connection)
        if user is None or not valid or not await self._entry.gate.admits(user, connection):
            raise self._entry.failed(WRONG_CREDENTIALS, user)
        return await self._entry.enter(user, ["pwd"], {}, connection)

    async def proven(
        self,
        user: User,
        amr: Sequence[str],
        claims: Mapping[str, Any] | None,
        connection: HTTPConnection | None,
        at: float | None = None,
    ) -> Complete | Pending:
        """Log in a user whose identity was proven otherwise, now or at ``at``, in seconds since the epoch."""
        own = checked_claims(claims)
        if isinstance(amr, str) or not amr:
            msg = 'amr is a list of authentication methods, such as ["fed"]'
            raise ValueError(msg)
        if not await self._entry.gate.admits(user, connection):
            raise self._entry.failed(LOGIN_FAILED, user)
        return await self._entry.enter(user, list(amr), own, connection, at)

    async def offer(
        self, kind: str, login: str | None, binding: str, connection: HTTPConnection | None
    ) -> Mapping[str, Any]:
        """Return what the client needs to begin a login with a factor."""
        named = None if login is None else normalized(login)
        await self._entry.limits.count(None if named is None else f"offer:{kind}:{named}", connection)
        locale = locale_in(connection)
        return await self._entry.factors.challenge(kind, None, binding=binding, login=named, locale=locale)

    async def factor(
        self, kind: str, proof: Mapping[str, Any], binding: str, connection: HTTPConnection | None
    ) -> Complete | Pending:
        """Log in with a factor that identifies the user."""
        await self._entry.limits.count(None, connection)
        identified = await self._entry.factors.identify(kind, proof, binding=binding)
        user = None if identified is None else await self._entry.lookup.by_subject(identified[0])
        if user is None or identified is None or not await self._entry.gate.admits(user, connection):
            raise self._entry.failed(LOGIN_FAILED, user)
        return await self._entry.enter(user, list(identified[1].methods), {}, connection)
