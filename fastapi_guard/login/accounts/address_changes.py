"""A change of the address: confirmed at the new one, with a message to both."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import HTTPConnection

from fastapi_guard.login.accounts.desk import Desk
from fastapi_guard.login.accounts.mailing import MailedProof, invalid
from fastapi_guard.login.mailed_secrets import Mailed
from fastapi_guard.login.messages import Message
from fastapi_guard.login.second_step import locale_in
from fastapi_guard.login.users import User


class AddressChanges:
    """Changes addresses of users who are logged in."""

    def __init__(self, desk: Desk) -> None:
        """Change addresses of the users of ``desk``."""
        self._desk = desk

    async def request(
        self,
        user: User,
        email: str,
        *,
        password: str | None,
        claims: Mapping[str, Any],
        connection: HTTPConnection | None,
    ) -> None:
        """Send a link and a code to a new address; to the address of another user, that there is an account.

        Args:
            user: The user.
            email: The new address.
            password: The current password; ``None`` where the user has none and logged in within ten minutes.
            claims: Of the session or token.
            connection: The request.

        Raises:
            Rejected: It is not an address.
            Forbidden: The password is wrong.
            Unauthorized: There is no password, and the login is too long ago; or codes to the old address are a second
                factor of the user, and no factor was proven within ten minutes (RFC 9470).
            TooManyRequests: It was tried too often.
            ServiceUnavailable: It cannot be counted.
        """
        address, locale = self._desk.new.address(email), locale_in(connection)
        await self._desk.count(f"address:{user.subject_id}", connection)
        await self._desk.confirm(user, password, claims, connection)
        await self._desk.confirm_mailbox(user, claims)
        self._desk.mailing.post(lambda: self._message(_mailed(user, address), user, locale))

    async def confirm(self, user: User, proof: MailedProof, *, connection: HTTPConnection | None) -> User:
        """Set the new address of the user who asked for it and is logged in: the link alone changes nothing.

        Nothing ends by that, except what was sent to the old address. Both addresses receive a message.

        Raises:
            Forbidden: The link or code is invalid, or of another user.
            Conflict: The address belongs to another user by now, or the user was changed at the same time.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the store cannot be reached: ask for another link.
        """
        desk = self._desk
        await desk.count(None, connection)
        presented = await desk.mailing.present("change_address", replace(proof, browser=_handle(user)))
        mailed = presented.mailed
        if user.disabled or mailed != _mailed(user, mailed.address):
            raise invalid()
        await desk.mailing.use(presented)
        changed = await desk.change(user, email=mailed.address, email_verified=True)
        desk.publish("address_changed", changed, connection)
        for address in {user.email, changed.email} - {None}:
            desk.mailing.inform("address_changed", changed, address=address, detail=changed.email)
        return changed

    async def _message(self, mailed: Mailed, user: User, locale: str | None) -> Message | None:
        other = await self._desk.lookup.by_login(mailed.address)
        if other is not None and other.email is not None and other.subject_id != user.subject_id:
            return Message(kind="account_exists", address=other.email, locale=locale, user=other)
        return await self._desk.mailing.message(mailed, browser=_handle(user), locale=locale, user=user)


def _handle(user: User) -> str:
    # Of the user, who has to be logged in: the code works in another browser too, and for no other user.
    return f"{user.subject_id}:{user.credentials_version}"


def _mailed(user: User, address: str) -> Mailed:
    return Mailed(purpose="change_address", subject=user.subject_id, address=address, version=user.credentials_version)
