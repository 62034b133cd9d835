"""Check what a user chooses: a name, an address, a password."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from fastapi_guard.exceptions import AuthError, GuardError
from fastapi_guard.login.breaches import BreachedPasswords
from fastapi_guard.login.hooks import NONE, expected, or_unavailable
from fastapi_guard.login.password_policy import PasswordPolicy
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.users.names import checked_address, checked_username
from fastapi_guard.stores.arguments import like

NO_PASSWORD: Final = "a password is needed"
NO_PASSWORDS: Final = "this application has no passwords"
_UNCHECKED: Final = "password_unchecked"
_ANSWERS: Final = (ValueError, AuthError)


class Rejected(GuardError, ValueError):
    """A name, an address or a password that may not be set, with a text that may be shown to the user.

    Attributes:
        field: ``"username"``, ``"email"`` or ``"password"``.
    """

    def __init__(self, field: str, text: str) -> None:
        """Reject the value of ``field``; ``text`` does not repeat it."""
        super().__init__(field, text)
        self.field: str = field

    def __str__(self) -> str:
        """Return the text for the user."""
        return str(self.args[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class NewAccount:
    """The input of a registration.

    Attributes:
        email: The address, which is verified. With an invitation it is that of the invitation.
        password: ``None`` where the application has no passwords.
        username: A login name beside the address.
    """

    email: str = ""
    password: str | None = field(default=None, repr=False)
    username: str | None = None


class NewCredentials:
    """Checks and hashes new credentials."""

    def __init__(
        self, hasher: PasswordHasher | None, policy: PasswordPolicy, breached: BreachedPasswords | None
    ) -> None:
        """Check passwords by ``policy`` and ``breached``, and hash them with ``hasher``.

        Raises:
            ConfigurationError: ``breached`` has no ``async def check(password)``.
        """
        if breached is not None:
            like("breached", breached, BreachedPasswords, "BreachedPasswords()")
        self._hasher = hasher
        self._policy = policy
        self._breached = breached

    def username(self, text: str | None) -> str | None:
        """Return a new username; ``None`` for an empty text.

        Raises:
            Rejected: It may not be set.
        """
        return None if text is None or not text.strip() else _checked("username", checked_username, text)

    def address(self, text: str) -> str:
        """Return a new address.

        Raises:
            Rejected: It is not an address.
        """
        return _checked("email", checked_address, text)

    def check(self, password: str | None, *names: str | None) -> None:
        """Reject a password by the policy; ``names`` are what it must not consist of.

        Raises:
            Rejected: It may not be set, or there are no passwords.
        """
        if self._hasher is None:
            if password:
                raise Rejected("password", NO_PASSWORDS)
            return
        if not password:
            raise Rejected("password", NO_PASSWORD)
        policy: Callable[..., object] = self._policy.check
        try:
            with or_unavailable(_UNCHECKED, passes=_ANSWERS):
                expected(policy(password, *(name for name in names if name)), NONE, policy)
        except ValueError as error:
            raise Rejected("password", str(error)) from None

    async def hash(self, password: str | None, *names: str | None) -> str | None:
        """Return the hash of a new password that is checked; ``None`` where there are no passwords.

        Raises:
            Rejected: It may not be set, or it is in a breach.
            ServiceUnavailable: The list of breached passwords is unreachable, and is configured to be needed.
        """
        self.check(password, *names)
        if self._hasher is None or password is None:
            return None
        try:
            if self._breached is not None:
                await self._check_breaches(self._breached.check, password)
            return await self._hasher.hash(password)
        except ValueError as error:
            raise Rejected("password", str(error)) from None

    async def matches(self, password: str | None, stored: str | None) -> bool:
        """Return whether a password matches a hash; never without a hash."""
        if self._hasher is None or password is None or stored is None:
            return False
        return await self._hasher.verify(password, stored) is True

    async def _check_breaches(self, check: Callable[[str], Awaitable[object]], password: str) -> None:
        with or_unavailable(_UNCHECKED, passes=_ANSWERS):
            expected(await check(password), NONE, check)


def _checked(field_name: str, check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise Rejected(field_name, str(error)) from None
