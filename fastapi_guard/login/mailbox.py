"""Passwords that were set by a mailed link (NIST SP 800-63B 3.1.3.1, ASVS 6.3.5).

Anyone who reads the mailbox can set such a password. So a mailed code is not a second factor beside it: the mailbox
would count twice, and stand in for the factors that the user has enrolled. A user without any other factor is asked for
the code all the same, since a reset removes no factor.
"""

from fastapi_guard.login.state import digest_of
from fastapi_guard.login.users import User
from fastapi_guard.stores.protocol import Record, Store


class MailboxPasswords:
    """Remembers whose password was set by a mailed link, until it is changed by the current one."""

    def __init__(self, store: Store, name: str) -> None:
        """Keep it in ``store``; a Login of another ``name`` has its own."""
        self._store = store
        self._name = name

    async def mark(self, user: User) -> None:
        """Remember that a mailed link sets the password.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        await self._store.add(Record(self._key(user), b""))

    async def clear(self, user: User) -> None:
        """Forget it: the user has changed the password otherwise.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        await self._store.delete(self._key(user))

    async def is_marked(self, user: User) -> bool:
        """Return whether the password was set by a mailed link.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        [record] = await self._store.get(self._key(user))
        return record is not None

    def _key(self, user: User) -> str:
        return f"mailbox:{digest_of(f'{self._name}|{user.subject_id}')}"
