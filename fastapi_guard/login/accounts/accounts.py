"""Accounts: the features over one Login by which users get, change and end an account."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import AnyUrl
from starlette.requests import HTTPConnection

from fastapi_guard.events import EventCallback, checked
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.login.accounts.address_changes import AddressChanges
from fastapi_guard.login.accounts.desk import Desk
from fastapi_guard.login.accounts.invitations import Invitations, MayInvite
from fastapi_guard.login.accounts.mailing import AccountPages, Mailing, link_lifetimes, pages_of
from fastapi_guard.login.accounts.new_credentials import NewCredentials
from fastapi_guard.login.accounts.password_changes import PasswordChanges
from fastapi_guard.login.accounts.registration import NewUser, Registration
from fastapi_guard.login.breaches import BreachedPasswords
from fastapi_guard.login.hooks import YES_OR_NO
from fastapi_guard.login.keyring import Secret, mailing_keys
from fastapi_guard.login.login import Login
from fastapi_guard.login.lookup import UserLookup, found
from fastapi_guard.login.mailed_secrets import MailedSecrets, Purpose
from fastapi_guard.login.messages import Outbox, Send
from fastapi_guard.login.password_policy import PasswordPolicy
from fastapi_guard.login.user_records import remove_unreadable
from fastapi_guard.login.users import AccountUsers, User
from fastapi_guard.stores.arguments import instance_of, like, sync_function_of


class Accounts:
    """Registration, passwords, addresses, invitations, and the end of an account.

    Attributes:
        login: The Login whose users these are.
        outbox: Sends the messages; ``await accounts.outbox.drain()`` waits for those that are under way.
        registration: Registers users, and verifies addresses.
        passwords: Forgotten passwords and changes of passwords.
        addresses: Changes of addresses.
        invitations: Invites users, and lets them accept.
    """

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        login: Login,
        *,
        key: Secret | Mapping[str, Secret],
        pages: AccountPages | str | AnyUrl,
        send: Send | None = None,
        policy: PasswordPolicy | None = None,
        breached: BreachedPasswords | None = None,
        registration: Literal["open", "invited"] = "open",
        new_user: NewUser | None = None,
        may_invite: MayInvite | None = None,
        lifetimes: Mapping[Purpose, timedelta] | None = None,
        on_event: EventCallback | None = None,
    ) -> None:
        """Serve the accounts of the users of ``login``.

        Args:
            login: Its users can be added and removed, as those of DatabaseUsers.
            key: At least 32 random bytes, or secrets by id: codes are stored as HMACs with it.
            pages: Where the links in messages lead; a text is the origin of the application, with default paths.
            send: Sends one Message; by default what the ``outbox`` of the Login sends with.
            policy: The rules for new passwords, by default at least 15 characters. Its block-list is always used.
            breached: Rejects passwords that are in a published breach too.
            registration: ``"invited"``: only by an invitation.
            new_user: Receives each new user, and returns it with the roles, scopes and tenant of a new user.
            may_invite: ``(inviter, invited) -> bool`` in place of the rule that an invitation gives no role, scope or
                tenant that the inviter does not have.
            lifetimes: Other lifetimes of links, by purpose.
            on_event: Receives events, besides the log.

        Raises:
            ConfigurationError: Nothing sends messages, the users cannot be added, the key is weak, or an argument has
                the wrong type.
        """
        instance_of("login", login, Login, "a Login, such as Login(users, store)")
        instance_of("policy", policy, (PasswordPolicy, type(None)), "a PasswordPolicy")
        if new_user is not None:
            sync_function_of("new_user", new_user, "that returns a User", "user")
        if may_invite is not None:
            sync_function_of("may_invite", may_invite, "that returns True or False", "inviter", "invited")
        outbox = login.outbox if send is None else Outbox(send, on_event=on_event)
        if outbox is None:
            msg = "accounts need messages: Login(..., outbox=Outbox(send)), or Accounts(..., send=ConsoleSender())"
            raise ConfigurationError(msg)
        users: Any = login.users
        if not all(callable(getattr(users, method, None)) for method in ("add", "remove")):
            msg = f"accounts need users with add and remove, such as DatabaseUsers, not {type(users).__name__}"
            raise ConfigurationError(msg)
        like("users", users, AccountUsers, "DatabaseUsers")
        if registration not in ("open", "invited"):
            msg = f'registration is "open" or "invited", not {shown(registration)}'
            raise ConfigurationError(msg)
        mailed = MailedSecrets(
            login.store, mailing_keys(key), name=login.name, lifetimes=link_lifetimes(lifetimes), clock=login.now
        )
        self._desk = Desk(
            login=login,
            users=users,
            lookup=UserLookup(users),
            mailing=Mailing(mailed, outbox, pages_of(pages)),
            new=NewCredentials(login.passwords, policy or PasswordPolicy(), breached),
            on_event=checked(on_event),
        )
        self.login: Login = login
        self.outbox: Outbox = outbox
        self.registration: Registration = Registration(self._desk, is_open=registration == "open", new_user=new_user)
        self.passwords: PasswordChanges = PasswordChanges(self._desk)
        self.addresses: AddressChanges = AddressChanges(self._desk)
        self.invitations: Invitations = Invitations(self._desk, self.registration, may_invite=may_invite)

    async def delete(
        self, user: User, *, password: str | None, claims: Mapping[str, Any], connection: HTTPConnection | None
    ) -> None:
        """Delete the account of a user who is logged in and proves the password again.

        Raises:
            Forbidden: The password is wrong.
            Unauthorized: There is no password, and the login is too long ago (RFC 9470).
            Conflict: The user was changed at the same time.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users, or what has to end, cannot be reached; the account may be disabled.
        """
        await self._desk.confirm(user, password, claims, connection)
        await self.remove(user, connection=connection)

    async def remove(self, user: User, *, actor: str | None = None, connection: HTTPConnection | None = None) -> None:
        """Delete an account, with its factors and everything that it gave, as an operator does.

        Raises:
            Conflict: The user was changed at the same time.
            ServiceUnavailable: The users, or what has to end, cannot be reached; the account may be disabled.
        """
        # First what could still log in; where a later step fails, the account is disabled and can be deleted again.
        disabled = await self._desk.change(user, disabled=True)
        await remove_unreadable(self.login.factors.records, user.subject_id)
        for factor in await self.login.factors.of(user.subject_id):
            await found(YES_OR_NO, self.login.factors.records.remove, factor.id)
        await self._desk.mailing.secrets.end(user.subject_id)
        await found(YES_OR_NO, self._desk.users.remove, user.subject_id)
        self._desk.publish("account_deleted", disabled, connection, actor=actor)
        self._desk.mailing.inform("account_deleted", user)

    async def disable(self, user: User, *, actor: str | None = None) -> User:
        """Disable a user: every session, token and pending login ends.

        Raises:
            Conflict: The user was changed at the same time.
            ServiceUnavailable: The users, or what has to end, cannot be reached.
        """
        disabled = await self._desk.change(user, disabled=True)
        self._desk.publish("account_disabled", disabled, actor=actor)
        return disabled

    async def enable(self, user: User, *, actor: str | None = None) -> User:
        """Let a disabled user log in again.

        Raises:
            Conflict: The user was changed at the same time.
            ServiceUnavailable: The users are unreachable.
        """
        enabled = await self._desk.change(user, disabled=False)
        self._desk.publish("account_enabled", enabled, actor=actor)
        return enabled
