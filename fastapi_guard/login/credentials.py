"""Change the credentials of a user, and end what the old ones gave."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, UserConflict
from fastapi_guard.login.lookup import UserLookup, found
from fastapi_guard.login.mailbox import MailboxPasswords
from fastapi_guard.login.revocation import EndsWithSubject
from fastapi_guard.login.users import User

_ATTEMPTS: Final = 10


class Credentials:
    """The one place where a password, an address, a name or the factors of a user change, and a user is disabled."""

    def __init__(self, lookup: UserLookup, mailbox: MailboxPasswords) -> None:
        """Change the users of ``lookup``, and note in ``mailbox`` whose password a mailed link set."""
        self._lookup = lookup
        self._mailbox = mailbox
        self._holders: list[EndsWithSubject] = []

    def add(self, *holders: EndsWithSubject) -> None:
        """End the credentials of ``holders`` with those of a user.

        Raises:
            ConfigurationError: One has no method ``revoke_subject``.
        """
        for holder in holders:
            if isinstance(holder, type) or not callable(getattr(holder, "revoke_subject", None)):
                msg = f"{type(holder).__name__} has no async method revoke_subject(subject, *, keep=None)"
                raise ConfigurationError(msg)
            if not any(holder is known for known in self._holders):
                self._holders.append(holder)

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
        if not await found(self._lookup.users.update(user, changed)):
            msg = "the user was changed in the meantime, or a name belongs to another user"
            raise UserConflict(msg)
        if "password_hash" in fields and not by_mail:
            await self._mailbox.clear(user)
        # Another name or address ends nothing by itself.
        if "password_hash" in fields or changed.disabled:
            await self.end(user.subject_id, keep)
        return changed

    async def raise_version(self, user: User) -> None:
        """End what began before the factors of a user changed, although the user may have changed in the meantime.

        Raises:
            ServiceUnavailable: The users cannot be reached, or the user changes again and again.
        """
        await self._raise_version(user.subject_id)

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

    async def _raise_version(self, subject: str) -> None:
        for _ in range(_ATTEMPTS):
            current = await self._lookup.by_subject(subject)
            if current is None:
                return
            with suppress(UserConflict):
                await self.change(current, None, {})
                return
        raise ServiceUnavailable(reason="contended")

    async def end(self, subject: str, keep: str | None) -> int:
        """End what every holder has of a subject; return how much it was.

        Raises:
            ServiceUnavailable: A store cannot be reached. What the others have has ended all the same.
        """
        ended, failed = 0, None
        for holder in self._holders:
            try:
                ended += await found(holder.revoke_subject(subject, keep=keep))
            except ServiceUnavailable as error:
                failed = error
        if failed is not None:
            raise failed
        return ended
