"""A forgotten password, and a change of the password."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import HTTPConnection

from fastapi_guard.events import EventName
from fastapi_guard.exceptions import Forbidden, ServiceUnavailable
from fastapi_guard.login.accounts.desk import Desk
from fastapi_guard.login.accounts.mailing import MailedProof, invalid
from fastapi_guard.login.mailed_secrets import Mailed
from fastapi_guard.login.messages import Message
from fastapi_guard.login.second_step import locale_in
from fastapi_guard.login.users import User
from fastapi_guard.login.users.names import normalized


class PasswordChanges:
    """Sets new passwords."""

    def __init__(self, desk: Desk) -> None:
        """Set passwords of the users of ``desk``."""
        self._desk = desk

    async def forgot(self, username: str, *, browser: str | None, connection: HTTPConnection | None) -> None:
        """Send a link and a code to the user of this name or address, if there is one; the answer is the same.

        Args:
            username: A username or an address.
            browser: A random text in a cookie of the browser, new for each request, which the code needs.
            connection: The request.

        Raises:
            Forbidden: There are no passwords.
            TooManyRequests: It was requested too often, by the client or for the name.
            ServiceUnavailable: It cannot be counted.
        """
        self._check_passwords()
        locale = locale_in(connection)
        await self._desk.count(f"forgot:{normalized(username)}", connection)
        self._desk.mailing.post(lambda: self._message(username, browser, locale))

    async def reset(self, proof: MailedProof, password: str | None, *, connection: HTTPConnection | None) -> User:
        """Set a new password by a link or code. Second factors stay.

        All sessions, tokens and pending logins of the user end, and the user receives a message.

        Raises:
            Rejected: The password may not be set; the link is still valid.
            Forbidden: The link or code is invalid, or there are no passwords.
            Conflict: The user was changed at the same time: ask for another link.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the store cannot be reached: ask for another link.
        """
        self._check_passwords()
        desk = self._desk
        # Before the secret: a password that is rejected does not use up one of the tries of a code.
        desk.new.check(password)
        await desk.count(None, connection)
        presented = await desk.mailing.present("reset_password", proof)
        user = await desk.lookup.by_subject(presented.mailed.subject)
        if user is None or user.disabled or presented.mailed != _mailed(user):
            raise invalid()
        hashed = await desk.new.hash(password, user.username, user.email)
        await desk.mailing.use(presented)
        fields = {"password_hash": hashed, "email_verified": True}
        return await self._written("password_reset", user, connection, by_mail=True, **fields)

    async def change(
        self,
        user: User,
        password: str | None,
        *,
        current: str | None,
        claims: Mapping[str, Any],
        connection: HTTPConnection | None,
    ) -> User:
        """Set a new password of a user who is logged in. The session or token family of ``claims`` goes on.

        Args:
            user: The user.
            password: The new password.
            current: The current password; ``None`` where the user has none and logged in within ten minutes.
            claims: Of the session or token.
            connection: The request.

        Raises:
            Rejected: The password may not be set.
            Forbidden: The current password is wrong, or there are no passwords.
            Unauthorized: There is no current password, and the login is too long ago (RFC 9470).
            Conflict: The user was changed at the same time.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users, or what has to end, cannot be reached.
        """
        self._check_passwords()
        self._desk.new.check(password, user.username, user.email)
        await self._desk.confirm(user, current, claims, connection)
        hashed = await self._desk.new.hash(password, user.username, user.email)
        return await self._written("password_changed", user, connection, keep=sid_of(claims), password_hash=hashed)

    async def remove(self, user: User, *, actor: str | None = None) -> User:
        """Remove the password of a user and send a link to set a new one: a reset that chooses no password.

        All sessions, tokens and pending logins of the user end. Second factors stay.

        Raises:
            Conflict: The user was changed at the same time.
            ServiceUnavailable: The users, or what has to end, cannot be reached.
        """
        self._check_passwords()
        changed = await self._desk.change(user, password_hash=None)
        self._desk.publish("password_reset", changed, actor=actor)
        self._desk.mailing.post(lambda: self._message(changed.login_name, None, None))
        return changed

    async def _written(self, event: EventName, user: User, connection: HTTPConnection | None, **changes: Any) -> User:
        try:
            changed = await self._desk.change(user, **changes)
        except ServiceUnavailable:
            # What has to end may be unreachable after the password was written. The user is informed all the same.
            current = await self._desk.lookup.by_subject(user.subject_id)
            if current is not None and current.password_hash == changes["password_hash"]:
                self._report(event, current, connection)
            raise
        self._report(event, changed, connection)
        return changed

    def _report(self, event: EventName, user: User, connection: HTTPConnection | None) -> None:
        self._desk.publish(event, user, connection)
        self._desk.mailing.inform("password_changed", user)

    async def _message(self, username: str, browser: str | None, locale: str | None) -> Message | None:
        user = await self._desk.lookup.by_login(username)
        if user is None or user.email is None or user.disabled:
            return None
        return await self._desk.mailing.message(_mailed(user), browser=browser, locale=locale, user=user)

    def _check_passwords(self) -> None:
        if self._desk.login.passwords is None:
            raise Forbidden(reason="no_passwords")


def sid_of(claims: Mapping[str, Any]) -> str | None:
    """Return the id of the session or token family of claims."""
    sid = claims.get("sid")
    return sid if isinstance(sid, str) else None


def _mailed(user: User) -> Mailed:
    # Compared as a whole when it is used: the address and the credentials_version have to be the same.
    return Mailed(
        purpose="reset_password", subject=user.subject_id, address=user.email or "", version=user.credentials_version
    )
