"""The users that identities at providers belong to: matched by a vouched address, registered, linked, unlinked."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from fastapi_guard.events import Event, EventCallback, EventName, logger, publish
from fastapi_guard.exceptions import ConfigurationError, Forbidden, ServiceUnavailable, UserConflict
from fastapi_guard.login.hooks import NONE, YES_OR_NO, or_logged
from fastapi_guard.login.login import Login
from fastapi_guard.login.lookup import USER, decided, found
from fastapi_guard.login.messages import Message
from fastapi_guard.login.providers.identities import Identities, LinkedIdentity, identity_id
from fastapi_guard.login.providers.provider import Identity, Provider, refused
from fastapi_guard.login.user_records import remove_unreadable
from fastapi_guard.login.users import User
from fastapi_guard.login.users.names import normalized
from fastapi_guard.stores.arguments import function_of, implementing

NewUser = Callable[[Identity], User | Awaitable[User | None] | None]

LINK_FIRST: Final = "Log in to your account, and link the provider there"
NO_ACCOUNT: Final = "There is no account for this identity"
TAKEN: Final = "This identity belongs to another account"
_MAX_LABEL_CHARACTERS: Final = 254
_LINKED: Final = (LinkedIdentity, NONE)


class Links:
    """Finds and changes which user an identity belongs to."""

    def __init__(
        self,
        login: Login,
        identities: Identities,
        new_user: NewUser | None,
        *,
        registers: bool,
        on_event: EventCallback | None,
    ) -> None:
        """Work with the users of ``login``; the arguments are those of ProviderLogin.

        Raises:
            ConfigurationError: Users register, and cannot be added; or they do not, and there is a function for it.
        """
        if new_user is not None:
            function_of("new_user", new_user, "of an Identity", "identity")
            if not registers:
                msg = "new_user makes a user who registers: leave it out, or registers=False"
                raise ConfigurationError(msg)
        if registers:
            if not callable(getattr(login.users, "add", None)):
                msg = "the users of this Login have no method add: pass registers=False, or users such as DatabaseUsers"
                raise ConfigurationError(msg)
            implementing("users", login.users, ("add", "remove"), "an object with the methods add and remove")
        self._login = login
        self._identities = identities
        self._new_user = new_user
        self._registers = registers
        self._on_event = on_event
        login.credentials.ways.append(self._has_other)
        login.credentials.releases.append(self._unlink_all)

    async def user_of(self, provider: Provider, identity: Identity) -> User:
        """Return the user of an identity; a new one where there is none yet.

        Raises:
            Unauthorized: The user of a vouched address is disabled, or another request linked or unlinked the identity.
            Forbidden: The address belongs to a user and is not vouched for, or users do not register.
            ServiceUnavailable: The identities or the users are unreachable.
        """
        wanted = identity_id(identity.issuer, identity.subject)
        linked = await found(_LINKED, self._identities.get, wanted)
        user = None if linked is None else await found(USER, self._login.users.by_subject, linked.subject)
        if user is not None:
            # The version of this user is that after an unlinking, which would end a login that began before.
            if await found(_LINKED, self._identities.get, wanted) != linked:
                raise refused("unlinked_meanwhile")
            return user
        if linked is not None:
            # The user was removed, and the identity is free again.
            await found(YES_OR_NO, self._identities.remove, linked.id)
        return await self._matched(provider, identity) or await self._registered(provider, identity)

    async def link(self, provider: Provider, identity: Identity, subject: str, version: int) -> None:
        """Link an identity to a user who was logged in when the attempt began.

        Raises:
            Unauthorized: The user has changed since.
            Forbidden: The identity belongs to another user.
            ServiceUnavailable: The identities or the users are unreachable.
        """
        user = await found(USER, self._login.users.by_subject, subject)
        if user is None or user.disabled or user.credentials_version != version:
            raise refused("user_changed")
        linked = await found(_LINKED, self._identities.get, identity_id(identity.issuer, identity.subject))
        if linked is not None and linked.subject == user.subject_id:
            return
        if linked is not None or not await self._add(provider, identity, user):
            raise Forbidden(TAKEN, reason="identity_taken")
        self._tell("provider_linked", user)

    async def remove(self, user: User, identity: str) -> bool:
        """Unlink an identity of a user; return whether there was one. See ``ProviderLogin.unlink``."""
        linked = {one.id: one for one in await found(Sequence, self._identities.of, user.subject_id)}
        if identity not in linked:
            return False
        removed = await self._login.credentials.give_up(
            user,
            identity,
            remove=lambda: self._identities.remove(identity),
            restore=lambda: self._identities.add(linked[identity]),
        )
        if removed:
            self._tell("provider_unlinked", user)
            # Again: a sign-in that found the identity until it was removed does not complete afterwards.
            await self._login.credentials.raise_version(user)
        return removed

    async def _has_other(self, user: User, way: str) -> bool:
        return any(identity.id != way for identity in await found(Sequence, self._identities.of, user.subject_id))

    async def _unlink_all(self, user: User) -> None:
        await remove_unreadable(self._identities, user.subject_id)
        for linked in await found(Sequence, self._identities.of, user.subject_id):
            await found(YES_OR_NO, self._identities.remove, linked.id)
            self._publish("provider_unlinked", user)

    async def _matched(self, provider: Provider, identity: Identity) -> User | None:
        """Return the user who has the address of the identity, linked from now on."""
        if identity.email is None or not identity.email_verified:
            return None
        user = await found(USER, self._login.users.by_login, normalized(identity.email))
        if user is None:
            return None
        if not await _is_vouched_for(provider, identity) or not _is_same_mailbox(user.email, identity.email):
            raise Forbidden(LINK_FIRST, reason="link_first")
        if user.disabled:
            raise refused("disabled")
        if not user.email_verified:
            # A password of a user who never proved to own the address must not open the account of its owner, nor must
            # an identity that is linked to it.
            try:
                user = await self._login.change(user, email_verified=True, password_hash=None)
            except UserConflict:
                raise refused("user_changed") from None
        if not await self._add(provider, identity, user):
            raise refused("linked_meanwhile")
        self._tell("provider_linked", user)
        return user

    async def _registered(self, provider: Provider, identity: Identity) -> User:
        made = await self._made(provider, identity) if self._registers else None
        if made is None:
            raise Forbidden(NO_ACCOUNT, reason="no_account")
        # Only what the provider vouches for is a verified address.
        if made.email is not None and not (made.email == identity.email and await _is_vouched_for(provider, identity)):
            made = replace(made, email_verified=False)
        users: Any = self._login.users
        if not await found(YES_OR_NO, users.add, made):
            raise Forbidden(LINK_FIRST, reason="name_taken")
        try:
            is_linked = await self._add(provider, identity, made)
        except ServiceUnavailable:
            # Without an identity the user could not log in, and another sign-in would find the names taken.
            with or_logged("a user whose identity could not be linked could not be removed"):
                await found(YES_OR_NO, users.remove, made.subject_id)
            raise
        if not is_linked:
            await found(YES_OR_NO, users.remove, made.subject_id)
            raise refused("linked_meanwhile")
        self._publish("account_registered", made)
        return made

    async def _made(self, provider: Provider, identity: Identity) -> User | None:
        if self._new_user is None:
            return await _default_user(provider, identity)
        made = await decided("new_user", self._new_user, identity)
        if isinstance(made, User):
            return made
        if made is not None and made is not False:
            logger.error("new_user returned %s, not a User or None", type(made).__name__)
            raise ServiceUnavailable(reason="new_user")
        return None

    async def _add(self, provider: Provider, identity: Identity, user: User) -> bool:
        """Link an identity to a user who has not changed; return ``False`` where it belongs to another one."""
        label = (identity.email or identity.name or "")[:_MAX_LABEL_CHARACTERS]
        linked = LinkedIdentity(
            id=identity_id(identity.issuer, identity.subject),
            subject=user.subject_id,
            provider=provider.name,
            issuer=identity.issuer,
            provider_subject=identity.subject,
            label=label if label.isprintable() and label else None,
            created_at=self._login.now(),
        )
        if not await found(YES_OR_NO, self._identities.add, linked):
            # Another request with this identity may have been as fast.
            known = await found(_LINKED, self._identities.get, linked.id)
            return known is not None and known.subject == user.subject_id
        current = await found(USER, self._login.users.by_subject, user.subject_id)
        if current is None or current.credentials_version != user.credentials_version:
            await found(YES_OR_NO, self._identities.remove, linked.id)
            raise refused("user_changed")
        return True

    def _tell(self, event: EventName, user: User) -> None:
        self._publish(event, user)
        if self._login.outbox is not None and user.email is not None and user.email_verified:
            kind: Any = event
            self._login.outbox.post(Message(kind=kind, address=user.email, user=user))

    def _publish(self, event: EventName, user: User) -> None:
        publish(Event(event, self._login.name, subject=user.subject_id), self._on_event)


async def _is_vouched_for(provider: Provider, identity: Identity) -> bool:
    # Anything else that is true is not an answer: a vouched address opens the account that has it.
    return identity.email_verified and await decided("vouches", provider.vouches, identity) is True


def _is_same_mailbox(one: str | None, other: str) -> bool:
    # Addresses are looked up in a normal form, in which a mailbox with a full-width letter or a sharp s has the name of
    # another mailbox. For mail these are two.
    return one == other or (one is not None and one.isascii() and other.isascii() and one.lower() == other.lower())


async def _default_user(provider: Provider, identity: Identity) -> User:
    made = uuid4()
    if identity.email is not None and await _is_vouched_for(provider, identity):
        return User(subject_id=str(made), email=identity.email)
    return User(subject_id=str(made), username=f"{provider.name}-{made.hex[:12]}")
