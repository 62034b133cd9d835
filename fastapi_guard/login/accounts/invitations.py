"""Invitations: a mailed secret that a registration needs, with a tenant and roles."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import Conflict, Forbidden
from fastapi_guard.login.accounts.desk import CHANGED, Desk
from fastapi_guard.login.accounts.mailing import MailedProof, invalid
from fastapi_guard.login.accounts.new_credentials import NewAccount
from fastapi_guard.login.accounts.registration import Registration
from fastapi_guard.login.hooks import YES_OR_NO, or_unavailable
from fastapi_guard.login.lookup import found
from fastapi_guard.login.mailed_secrets import Mailed, Presented
from fastapi_guard.login.second_step import locale_in
from fastapi_guard.login.users import User
from fastapi_guard.login.users.names import normalized
from fastapi_guard.scopes import HierarchicalScopeValidator, ScopeValidator, scopes_of
from fastapi_guard.stores.values import RecordForm

HAS_ACCOUNT: Final = "Log in to accept the invitation"
OTHER_TENANT: Final = "The account belongs to another tenant"


@dataclass(frozen=True, kw_only=True, slots=True)
class Invited:
    """The address and the rights of an invitation.

    Attributes:
        email: Whom it is for.
        roles: Roles of the user.
        scopes: Scopes of the user.
        tenant_id: The tenant of the user.
    """

    email: str
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    tenant_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """The payload of a mailed secret: the rights of an invitation, and who invited; ``None`` for an operator."""

    roles: list[str]
    scopes: list[str]
    tenant_id: str | None
    inviter: str | None


_GIVEN: Final = RecordForm(_Given, "an invitation")

MayInvite = Callable[[User, Invited], bool]


class Invitations:
    """Invites users, and lets them accept."""

    def __init__(
        self,
        desk: Desk,
        registration: Registration,
        *,
        may_invite: MayInvite | None = None,
        scope_validator: ScopeValidator | None = None,
    ) -> None:
        """Invite users of ``desk``, each of whom ``registration`` adds."""
        self._desk = desk
        self._registration = registration
        self._may_invite = may_invite
        self._scopes = scope_validator or HierarchicalScopeValidator()

    async def invite(
        self,
        invited: Invited,
        *,
        inviter: User | None,
        claims: Mapping[str, Any] | None = None,
        connection: HTTPConnection | None = None,
    ) -> None:
        """Send an invitation, valid for 7 days.

        Args:
            invited: Whom, and with what.
            inviter: Who invites. ``None``: an operator, who may give anything.
            claims: Of the credential of the inviter, which may have less than its user.
            connection: The request.

        Raises:
            Rejected: It is not an address.
            Forbidden: It gives more than the inviter or the credential has.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: It cannot be counted.
        """
        mailed = self._mailed(invited, inviter)
        if claims is not None and self._may_invite is None and not self._covers(_granted(claims), invited):
            raise Forbidden(reason="more_than_the_credential")
        await self._desk.count(f"invite:{normalized(mailed.address)}", connection)
        locale = locale_in(connection)
        self._desk.mailing.post(lambda: self._desk.mailing.message(mailed, locale=locale))
        self._desk.publish("account_invited", inviter, connection)

    async def accept(self, token: str, account: NewAccount, *, connection: HTTPConnection | None) -> User:
        """Register by an invitation, whose address is verified by that.

        Args:
            token: Of the link.
            account: Password and username; the address is that of the invitation.
            connection: The request.

        Raises:
            Rejected: The username or the password may not be set; the invitation is still valid.
            Forbidden: The invitation is invalid, or its inviter may not invite like this any more.
            Conflict: The username is taken, or the address has an account, which accepts it while logged in.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        presented, invited = await self._presented(token, connection)
        if await self._desk.lookup.by_login(invited.email) is not None:
            raise Conflict(HAS_ACCOUNT, reason="has_account")
        own = replace(account, email=invited.email)
        address, username, hashed = await self._registration.checked(own, None)
        fields = {name: value for name, value in asdict(invited).items() if name != "email" and value}
        async with self._desk.mailing.using(presented):
            return await self._registration.add(address, username, hashed, connection, **fields)

    async def join(self, token: str, user: User, *, connection: HTTPConnection | None) -> User:
        """Accept an invitation with the account that has its address, while logged in.

        The user has the roles and scopes of both. They are in the claims from the next login or refresh on.

        Raises:
            Forbidden: The invitation is invalid, or for another address.
            Conflict: The user belongs to another tenant, or was changed at the same time.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        presented, invited = await self._presented(token, connection)
        is_own = user.email is not None and normalized(user.email) == normalized(invited.email)
        if not is_own or not user.email_verified or user.disabled:
            raise invalid("other_address")
        if invited.tenant_id is not None and user.tenant_id not in (None, invited.tenant_id):
            raise Conflict(OTHER_TENANT, reason="other_tenant")
        joined = replace(
            user,
            tenant_id=user.tenant_id if invited.tenant_id is None else invited.tenant_id,
            roles=tuple(dict.fromkeys([*user.roles, *invited.roles])),
            scopes=tuple(dict.fromkeys([*user.scopes, *invited.scopes])),
        )
        async with self._desk.mailing.using(presented):
            if not await found(YES_OR_NO, self._desk.users.update, user, joined):
                raise Conflict(CHANGED, reason="changed_at_the_same_time")
        return joined

    async def _presented(self, token: str, connection: HTTPConnection | None) -> tuple[Presented, Invited]:
        await self._desk.count(None, connection)
        presented = await self._desk.mailing.present("invitation", MailedProof(token=token))
        given = _GIVEN.part_or_none(presented.mailed.payload)
        if given is None:
            raise invalid()
        invited = Invited(
            email=presented.mailed.address,
            roles=tuple(given.roles),
            scopes=tuple(given.scopes),
            tenant_id=given.tenant_id,
        )
        if given.inviter is not None:
            inviter = await self._desk.lookup.by_subject(given.inviter)
            if inviter is None or not self._may(inviter, invited):
                raise invalid("inviter_may_not")
        return presented, invited

    def _mailed(self, invited: Invited, inviter: User | None) -> Mailed:
        checked = replace(invited, email=self._desk.new.address(invited.email))
        if inviter is not None and not self._may(inviter, checked):
            raise Forbidden(reason="more_than_the_inviter")
        return invitation(checked, inviter)

    def _may(self, inviter: User, invited: Invited) -> bool:
        if inviter.disabled or not inviter.email_verified:
            return False
        if self._may_invite is not None:
            with or_unavailable("rule_failed", passes=HTTPException):
                return self._may_invite(inviter, invited) is True
        return self._covers((inviter.scopes, inviter.roles), invited) and invited.tenant_id == inviter.tenant_id

    def _covers(self, granted: tuple[Iterable[str], Iterable[str]], invited: Invited) -> bool:
        scopes, roles = granted
        return {*invited.roles} <= {*roles} and all(
            self._scopes.has_scope(scope, scopes) is True for scope in invited.scopes
        )


def invitation(invited: Invited, inviter: User | None) -> Mailed:
    """Return the content of an invitation whose address was checked; ``inviter`` is ``None`` for an operator."""
    given = _Given(
        roles=list(invited.roles),
        scopes=list(invited.scopes),
        tenant_id=invited.tenant_id,
        inviter=None if inviter is None else inviter.subject_id,
    )
    return Mailed(purpose="invitation", subject="", address=invited.email, payload=asdict(given))


def _granted(claims: Mapping[str, Any]) -> tuple[Iterable[str], Iterable[str]]:
    roles = claims.get("roles")
    return scopes_of(claims.get("scope")), [role for role in roles if isinstance(role, str)] if roles else ()
