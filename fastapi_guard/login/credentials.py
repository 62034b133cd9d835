"""Change the credentials of a user, and end what the old ones gave."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from fastapi_guard.exceptions import Forbidden, ServiceUnavailable, UserConflict
from fastapi_guard.login.hooks import YES_OR_NO
from fastapi_guard.login.lookup import UserLookup, ended_by, found
from fastapi_guard.login.mailbox import MailboxPasswords
from fastapi_guard.login.state import EndsWithSubject, holder_of, makers_first
from fastapi_guard.login.users import User

# Returns whether a user can begin a login by anything other than what has this id: another factor, another identity.
HasOtherWay = Callable[[User, str], Awaitable[bool]]
# Removes the ways of a user to log in that are not the password.
Release = Callable[[User], Awaitable[object]]

LAST_WAY: Final = "This is the only way to log in to the account"
_ATTEMPTS: Final = 10


class Credentials:
    """The one place where a password, an address, a name or the factors of a user change, and a user is disabled.

    Attributes:
        ways: The ways to begin a login, passwords apart; whatever adds one appends it.
        releases: Remove the ways that users can have before they verify their address.
    """

    def __init__(self, lookup: UserLookup, mailbox: MailboxPasswords, *ways: HasOtherWay, has_passwords: bool) -> None:
        """Change the users of ``lookup``, and note in ``mailbox`` whose password a mailed link set.

        Args:
            lookup: The users.
            mailbox: The passwords that mailed links set.
            ways: The ways to begin a login, passwords apart.
            has_passwords: Whether users log in with passwords.
        """
        self._lookup = lookup
        self._mailbox = mailbox
        self._has_passwords = has_passwords
        self._holders: list[EndsWithSubject] = []
        self.ways: list[HasOtherWay] = [*ways]
        self.releases: list[Release] = []

    def add(self, *holders: EndsWithSubject) -> None:
        """End the credentials of ``holders`` with those of a user.

        Raises:
            ConfigurationError: One has no method ``revoke_subject``, or one that cannot be used.
        """
        for holder in holders:
            if not any(holder is known for known in self._holders):
                self._holders.append(holder_of(holder))

    async def change(self, user: User, keep: str | None, fields: dict[str, Any], *, by_mail: bool = False) -> User:
        """Write ``fields`` of a user with the next version, and end the rest where that is due.

        Raises:
            UserConflict: The user has changed in the meantime, or a name is taken; nothing was changed.
            ServiceUnavailable: The users or a store cannot be reached.
        """
        if by_mail:
            # First: a password that a mailed link set is never without the mark.
            await self._mailbox.mark(user)
        changed = replace(user, **fields, credentials_version=user.credentials_version + 1)
        # By this the owner of the address gets an account whose user never proved to own it, and may be another person.
        releases = self.releases if changed.email_verified > user.email_verified and "password_hash" in fields else []
        for release in releases:
            await release(user)
        if not await found(YES_OR_NO, self._lookup.users.update, user, changed):
            msg = "the user was changed in the meantime, or a name belongs to another user"
            raise UserConflict(msg)
        # Again: what was added until the version was raised.
        for release in releases:
            await release(user)
        if "password_hash" in fields and not by_mail:
            await self._mailbox.clear(user)
        # Another name or address ends nothing by itself.
        if "password_hash" in fields or changed.disabled:
            await self.end(user.subject_id, keep)
        return changed

    async def current(self, user: User) -> User | None:
        """Return a user as it is now; ``None`` where it was removed or disabled.

        Raises:
            ServiceUnavailable: The users cannot be reached.
        """
        current = await self._lookup.by_subject(user.subject_id)
        return None if current is None or current.disabled else current

    async def raise_version(self, user: User) -> bool:
        """End what began before the factors of a user changed, although the user may have changed in the meantime.

        Returns:
            Whether the user has not changed since ``user`` was read, and is not disabled.

        Raises:
            ServiceUnavailable: The users cannot be reached, or the user changes again and again.
        """
        before = await self._raise_version(user.subject_id)
        return before is not None and not before.disabled and before.credentials_version == user.credentials_version

    async def end_all(self, subject: str, keep: str | None) -> int:
        """End what a subject has begun, then what every holder has of it; return how much the holders had.

        Raises:
            ServiceUnavailable: The users or a store cannot be reached. What the others have has ended all the same.
        """
        try:
            await self._raise_version(subject)
        finally:
            ended = await self.end(subject, keep)
        return ended

    async def _raise_version(self, subject: str) -> User | None:
        for _ in range(_ATTEMPTS):
            current = await self._lookup.by_subject(subject)
            if current is None:
                return None
            with suppress(UserConflict):
                await self.change(current, None, {})
                return current
        raise ServiceUnavailable(reason="contended")

    async def give_up(
        self,
        user: User,
        way: str,
        *,
        remove: Callable[[], Awaitable[bool]],
        restore: Callable[[], Awaitable[object]],
    ) -> bool:
        """Remove a way of a user to log in, of which another one has to remain; return whether there was one.

        Args:
            user: The user.
            way: The id of the factor or the identity.
            remove: Removes it.
            restore: Adds it again: of several requests that give up different ways, the last one finds none left.

        Raises:
            Forbidden: It is the only way to log in.
            ServiceUnavailable: A storage cannot be reached, or the user changes again and again.
        """
        if not await self._has_other_way(user, way):
            raise Forbidden(LAST_WAY, reason="last_way_in")
        await self.raise_version(user)
        if not await found(YES_OR_NO, remove):
            return False
        if not await self._has_other_way(user, way):
            await found(object, restore)
            raise Forbidden(LAST_WAY, reason="last_way_in")
        return True

    async def _has_other_way(self, user: User, way: str) -> bool:
        if self._has_passwords and user.password_hash is not None:
            return True
        for has_other_way in self.ways:
            if await has_other_way(user, way):
                return True
        return False

    async def end(self, subject: str, keep: str | None) -> int:
        """End what every holder has of a subject; return how much it was.

        Raises:
            AuthError: A holder raised one, such as ServiceUnavailable where a store cannot be reached. What the others
                have has ended all the same.
        """
        holders = makers_first(self._holders)
        return await ended_by(partial(holder.revoke_subject, subject, keep=keep) for holder in holders)
