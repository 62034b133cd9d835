"""The parts that every feature of accounts works with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import HTTPConnection

from fastapi_guard.events import Event, EventCallback, EventName, place_of, publish
from fastapi_guard.exceptions import STALE_LOGIN, Conflict, Forbidden, Unauthorized, UserConflict
from fastapi_guard.login.accounts.mailing import Mailing
from fastapi_guard.login.accounts.new_credentials import NewCredentials
from fastapi_guard.login.factor import Strength
from fastapi_guard.login.hooks import YES_OR_NO
from fastapi_guard.login.login import Login
from fastapi_guard.login.lookup import UserLookup, found
from fastapi_guard.login.password_check import WRONG_PASSWORD
from fastapi_guard.login.users import AccountUsers, User

TAKEN: Final = "The username is taken"
CHANGED: Final = "The account was changed at the same time, or the name is taken"

_RECENT_SECONDS: Final = 600
# The clock may be behind the one that wrote a claim.
_AHEAD_SECONDS: Final = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """The Login, the users, and what checks and sends.

    Attributes:
        login: The Login.
        users: Its users, who can be added and removed.
        lookup: The same, with a 503 where they are unreachable.
        mailing: Links and codes.
        new: Checks new names, addresses and passwords.
        on_event: Receives events.
    """

    login: Login
    users: AccountUsers
    lookup: UserLookup
    mailing: Mailing
    new: NewCredentials
    on_event: EventCallback | None = None

    async def count(self, account: str | None, connection: HTTPConnection | None) -> None:
        """Count an attempt for an account and for the address of the client.

        Raises:
            TooManyRequests: It is one too many.
            ServiceUnavailable: It cannot be counted.
        """
        await self.login.limits.count(None if account is None else f"account:{account}", connection)

    async def confirm(
        self, user: User, password: str | None, claims: Mapping[str, Any], connection: HTTPConnection | None
    ) -> None:
        """Let a user go on who proves the password again; without one, who logged in within the last ten minutes.

        Raises:
            Forbidden: The password is wrong.
            Unauthorized: There is no password, and the login is too long ago (RFC 9470).
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The throttle is unreachable.
        """
        if self.login.passwords is not None and user.password_hash is not None:
            if not await self.login.proves_password(user, password or "", connection=connection):
                raise Forbidden(WRONG_PASSWORD, reason="wrong_password")
            return
        if not self._is_recent(claims.get("auth_time")):
            raise Unauthorized(STALE_LOGIN, error="insufficient_user_authentication", reason="stale_login")

    async def confirm_mailbox(self, user: User, claims: Mapping[str, Any]) -> None:
        """Let a user change the address who proved a factor within ten minutes, where codes to it are a second factor.

        To remove that factor needs the same proof.

        Raises:
            Unauthorized: There was no such proof (RFC 9470).
            ServiceUnavailable: The enrolled factors cannot be read.
        """
        factors = self.login.factors
        if all(kind.strength > Strength.MAILBOX for kind in factors.kinds.values()):
            return
        usable = factors.usable(user, await factors.of(user.subject_id))
        moments = claims.get("factors")
        recent = [name for name, at in moments.items() if self._is_recent(at)] if isinstance(moments, Mapping) else []
        is_needed = any(factors.kinds[kind].strength is Strength.MAILBOX for kind in usable)
        if is_needed and not factors.strengths(recent):
            raise Unauthorized(STALE_LOGIN, error="insufficient_user_authentication", reason="stale_factor")

    def _is_recent(self, moment: object) -> bool:
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            return False
        return moment - _AHEAD_SECONDS <= self.login.now() <= moment + _RECENT_SECONDS

    async def add(self, user: User, connection: HTTPConnection | None) -> None:
        """Add a user whose address is verified.

        Raises:
            Conflict: The username, or the address, belongs to another user by now.
            ServiceUnavailable: The users are unreachable.
        """
        if not await found(YES_OR_NO, self.users.add, user):
            raise Conflict(CHANGED, reason="name_taken")
        self.publish("account_registered", user, connection)

    async def change(self, user: User, *, keep: str | None = None, by_mail: bool = False, **fields: Any) -> User:
        """Change credentials of a user; see ``Login.change``.

        Raises:
            Conflict: The user was changed at the same time, or a name belongs to another user.
            ServiceUnavailable: The users, or what has to end, cannot be reached.
        """
        try:
            return await self.login.change(user, keep=keep, by_mail=by_mail, **fields)
        except UserConflict:
            raise Conflict(CHANGED, reason="changed_at_the_same_time") from None

    def publish(
        self,
        event: EventName,
        user: User | None,
        connection: HTTPConnection | None = None,
        *,
        actor: str | None = None,
    ) -> None:
        """Publish an event about an account."""
        subject = None if user is None else user.subject_id
        place = place_of(connection)
        publish(Event(event, self.login.name, subject=subject, actor=actor, **place), self.on_event)
