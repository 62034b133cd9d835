"""Register: nothing is stored among the users before the address is verified.

The answer is the same for a known and an unknown address, and so is its work: whether there is a user is looked up
afterwards, when the message is made. An account that does not exist yet cannot log in, blocks no username, and cannot
be prepared by an attacker for the owner of an address.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import Conflict, Forbidden
from fastapi_guard.login.accounts.desk import TAKEN, Desk
from fastapi_guard.login.accounts.mailing import MailedProof, invalid
from fastapi_guard.login.accounts.new_credentials import NewAccount
from fastapi_guard.login.hooks import expected, or_unavailable
from fastapi_guard.login.mailed_secrets import Mailed, Presented
from fastapi_guard.login.messages import Message
from fastapi_guard.login.second_step import locale_in
from fastapi_guard.login.users import User
from fastapi_guard.login.users.names import normalized
from fastapi_guard.stores.values import RecordForm

NewUser = Callable[[User], User]

OTHER_BROWSER: Final = "Open the link in the browser that registered, or enter the password"
CLOSED: Final = "Registration needs an invitation"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The payload of a mailed secret: what a new user chose."""

    username: str | None
    password_hash: str | None = field(repr=False)


_CHOSEN: Final = RecordForm(_Chosen, "a registration")


class Registration:
    """Registers users by a message to their address."""

    def __init__(self, desk: Desk, *, is_open: bool, new_user: NewUser | None) -> None:
        """Register users where ``is_open``, each as ``new_user`` returns it."""
        self._desk = desk
        self._is_open = is_open
        self._new_user = new_user

    async def register(self, account: NewAccount, *, browser: str | None, connection: HTTPConnection | None) -> None:
        """Send a link and a code to the address; to the address of a user, that there is an account.

        Args:
            account: What the user typed in.
            browser: A random text in a cookie of the browser, new for each registration. Without one the link needs
                the password.
            connection: The request.

        Raises:
            Rejected: A name, an address or a password may not be set.
            Conflict: The username is taken.
            Forbidden: Registration needs an invitation.
            TooManyRequests: It was tried too often, by the client or for the address.
            ServiceUnavailable: The users are unreachable.
        """
        if not self._is_open:
            raise Forbidden(CLOSED, reason="registration_closed")
        address, username, hashed = await self.checked(account, connection)
        payload = asdict(_Chosen(username, hashed))
        mailed = Mailed(purpose="verify_address", subject="", address=address, payload=payload)
        locale = locale_in(connection)
        self._desk.mailing.post(lambda: self._message(mailed, browser, locale))

    async def checked(
        self, account: NewAccount, connection: HTTPConnection | None
    ) -> tuple[str, str | None, str | None]:
        """Return address, username and the hash of the password of a new account; see ``register`` for what it raises.

        The work is the same whether the address is known or not.
        """
        desk = self._desk
        address = desk.new.address(account.email)
        username = desk.new.username(account.username)
        desk.new.check(account.password, username, address)
        await desk.count(f"register:{normalized(address)}", connection)
        if username is not None and await desk.lookup.by_login(username) is not None:
            raise Conflict(TAKEN, reason="name_taken")
        return address, username, await desk.new.hash(account.password, username, address)

    async def resend(self, email: str, *, browser: str | None, connection: HTTPConnection | None) -> None:
        """Send another link to an address that waits to be verified, at most five in all; the answer is the same.

        Raises:
            Rejected: It is not an address.
            TooManyRequests: It was requested too often.
            ServiceUnavailable: It cannot be counted.
        """
        address, locale = self._desk.new.address(email), locale_in(connection)
        await self._desk.count(f"register:{normalized(address)}", connection)
        self._desk.mailing.post(lambda: self._again(address, browser, locale))

    async def verify(
        self, proof: MailedProof, *, password: str | None = None, connection: HTTPConnection | None
    ) -> User:
        """Verify an address, and with it add the user who registered.

        Args:
            proof: The link or code. In another browser than the one that registered it needs the password: a user
                who registers the address of another person has no account when that person opens the link.
            password: The password that was chosen.
            connection: The request.

        Returns:
            The user, who can log in now.

        Raises:
            Forbidden: The link or code is invalid, or it is another browser and the password is missing or wrong.
            Conflict: The username belongs to another user by now: register again.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the store cannot be reached: register again.
        """
        desk = self._desk
        await desk.count(None, connection)
        presented = await desk.mailing.present("verify_address", proof)
        mailed = presented.mailed
        if mailed.subject:
            return await self._verify_stored(presented, password, connection)
        chosen = _CHOSEN.part_or_none(mailed.payload)
        if chosen is None:
            raise invalid()
        if not presented.is_same_browser:
            await desk.count(f"verify:{normalized(mailed.address)}", None)
            if not await desk.new.matches(password, chosen.password_hash):
                raise Forbidden(OTHER_BROWSER, reason="other_browser")
        if chosen.username is not None and await desk.lookup.by_login(chosen.username) is not None:
            raise Conflict(TAKEN, reason="name_taken")
        if await desk.lookup.by_login(mailed.address) is not None:
            raise invalid("address_taken")
        await desk.mailing.use(presented)
        return await self.add(mailed.address, chosen.username, chosen.password_hash, connection)

    async def add(
        self,
        address: str,
        username: str | None,
        hashed: str | None,
        connection: HTTPConnection | None,
        **fields: Any,
    ) -> User:
        """Add a user with a verified address, as the application's ``new_user`` returns it.

        Raises:
            Conflict: The username or the address belongs to another user by now.
            ServiceUnavailable: The users are unreachable.
        """
        plain = User(subject_id=str(uuid4()), email=address, username=username, password_hash=hashed)
        user = plain
        if self._new_user is not None:
            with or_unavailable("new_user_failed", passes=HTTPException):
                user = expected(self._new_user(plain), User, self._new_user)
        # The application decides about rights, not about what was verified.
        user = replace(user, **{**_own(plain), **fields})
        await self._desk.add(user, connection)
        return user

    async def _verify_stored(
        self, presented: Presented, password: str | None, connection: HTTPConnection | None
    ) -> User:
        # A user whom the application added, not we: only the password shows who opens the link.
        desk = self._desk
        user = await desk.lookup.by_subject(presented.mailed.subject)
        if user is None or user.disabled or presented.mailed != _of_stored(user):
            raise invalid()
        if not password or not await desk.login.proves_password(user, password, connection=connection):
            raise Forbidden(OTHER_BROWSER, reason="other_browser")
        await desk.mailing.use(presented)
        verified = await desk.change(user, email_verified=True)
        desk.publish("account_verified", verified, connection)
        return verified

    async def _message(self, mailed: Mailed, browser: str | None, locale: str | None) -> Message | None:
        user = await self._desk.lookup.by_login(mailed.address)
        if user is None or user.email is None:
            return await self._desk.mailing.message(mailed, browser=browser, locale=locale)
        return Message(kind="account_exists", address=user.email, locale=locale, user=user)

    async def _again(self, address: str, browser: str | None, locale: str | None) -> Message | None:
        waiting = None if browser is None else await self._desk.mailing.secrets.waiting("verify_address", browser)
        if waiting is not None and normalized(waiting.address) == normalized(address):
            return await self._message(waiting, browser, locale)
        user = await self._desk.lookup.by_login(address)
        if user is None or user.email_verified or user.disabled:
            return None
        return await self._desk.mailing.message(_of_stored(user), locale=locale, user=user)


def _own(user: User) -> dict[str, Any]:
    return {name: getattr(user, name) for name in ("subject_id", "email", "username", "password_hash")}


def _of_stored(user: User) -> Mailed:
    return Mailed(
        purpose="verify_address", subject=user.subject_id, address=user.email or "", version=user.credentials_version
    )
