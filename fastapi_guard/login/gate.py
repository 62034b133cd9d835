"""The gate of a login: who may log in, and who needs a second step."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError, Forbidden, shown
from fastapi_guard.login.factor import Strength
from fastapi_guard.login.factors import Factors
from fastapi_guard.login.lookup import decided
from fastapi_guard.login.mailbox import MailboxPasswords
from fastapi_guard.login.users import User
from fastapi_guard.stores.arguments import plain_function_of

MayLogin = Callable[[User, HTTPConnection | None], bool | Awaitable[bool]]
NeedsSecond = Literal["enrolled", "never", "always"] | Callable[[User], bool | Awaitable[bool]]

NO_SECOND_FACTOR: Final = "A second factor has to be enrolled"


class Gate:
    """Decides about a user whose identity was proven, before there is a credential."""

    def __init__(
        self, factors: Factors, needs_second: NeedsSecond, may_login: MayLogin | None, mailbox: MailboxPasswords
    ) -> None:
        """Decide by the configuration of a Login.

        Raises:
            ConfigurationError: An argument has the wrong type, or every user needs a factor and there is none.
        """
        if needs_second not in ("enrolled", "never", "always") and not callable(needs_second):
            msg = f'needs_second is "enrolled", "never", "always" or a function of the user, not {shown(needs_second)}'
            raise ConfigurationError(msg)
        if may_login is not None:
            plain_function_of("may_login", may_login, "of the user and the request", "user", "connection")
        if callable(needs_second):
            plain_function_of("needs_second", needs_second, "of the user", "user")
        if needs_second not in ("enrolled", "never") and not factors.kinds:
            msg = 'needs_second needs a factor: pass second=[...], such as [TOTP(key=..., issuer="Shop")]'
            raise ConfigurationError(msg)
        self._factors = factors
        self._needs_second = needs_second
        self._may_login = may_login
        self._mailbox = mailbox

    async def admits(self, user: User | None, connection: HTTPConnection | None) -> bool:
        """Return whether ``user`` may log in at all: not disabled, with a verified address, by the application's rule.

        Raises:
            ServiceUnavailable: The application's rule cannot be evaluated.
        """
        if user is None or not is_active(user):
            return False
        if self._may_login is None:
            return True
        # Anything else that is true, such as a mock or a row, is not an answer.
        return await decided("may_login", self._may_login, user, connection) is True

    async def second_steps(self, user: User, methods: Sequence[str]) -> list[str]:
        """Return the kinds of factors of which ``user`` has to prove one; none where no second step is needed.

        Args:
            user: The user.
            methods: What was proven so far. A login with ``mfa`` needs no more.

        Raises:
            Forbidden: A second step is needed, and the user has no factor for it.
            ServiceUnavailable: The enrolled factors cannot be read.
        """
        if self._needs_second == "never" or "mfa" in methods or not self._factors.kinds:
            return []
        enrolled = await self._factors.of(user.subject_id)
        usable = self._factors.usable(user, enrolled, methods=methods)
        without_mail = self._factors.usable(user, enrolled, methods=[*methods, "mail"])
        # Of the users with a mailed code alone, so that no other login has another round trip.
        if "pwd" in methods and usable != without_mail and await self._mailbox.is_marked(user):
            # It stands in for no other factor. Alone it is better than none: a reset removes no factor.
            usable = without_mail or usable
        if not usable and await self._is_required(user):
            raise Forbidden(NO_SECOND_FACTOR, reason="no_second_factor")
        return usable

    async def _is_required(self, user: User) -> bool:
        if callable(self._needs_second):
            return await decided("needs_second", self._needs_second, user) is not False
        return self._needs_second == "always"


def is_active(user: User | None) -> bool:
    """Return whether there is such a user, not disabled, with an address that is verified where there is one."""
    return user is not None and not user.disabled and (user.email is None or user.email_verified)


def is_multiple(before: Sequence[str], methods: Sequence[str], strength: Strength) -> bool:
    """Return whether another proof makes a login one by multiple factors (``mfa``).

    A mailbox does not count, neither before nor now (NIST SP 800-63B 3.1.3.1), and the same factor counts once.
    """
    others = set(before) - {"mail", "mfa", *methods}
    return strength > Strength.MAILBOX and bool(others)
