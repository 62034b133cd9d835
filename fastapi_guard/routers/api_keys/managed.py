"""The keys that a caller manages, and what the caller may do with each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.key import KeyQueryFields, StoredKey
from fastapi_guard.claims import Subject
from fastapi_guard.exceptions import Forbidden, KeyNotFound
from fastapi_guard.routers.api_keys.authority import Authority, Lifetimes
from fastapi_guard.routers.api_keys.bodies import CreatedKey, KeyInfo, KeyRequest, LimitInfo, RotationRequest
from fastapi_guard.routers.api_keys.callers import Caller

ROTATED_BY_OWNER = "Only the owner of a key can rotate it"
PAUSED_BY_ANOTHER = "The key was paused by an administrator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Which keys to list.

    Attributes:
        user_id: Those of this owner, ``None`` for the caller's.
        issuer: The issuer of that owner, by default the caller's.
        everyone: Those of every owner.
        limit: At most so many.
        offset: Without the first so many.
    """

    user_id: str | None
    issuer: str | None
    everyone: bool
    limit: int
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagedKeys:
    """The keys of one Auth as callers manage them.

    Attributes:
        keys: The Auth.
        lifetimes: How long new keys live.
    """

    keys: DatabaseAPIKeyAuth
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    async def create(self, caller: Caller, request: KeyRequest) -> CreatedKey:
        """Create a key."""
        authority = await Authority.of(self.keys, caller, self.lifetimes)
        draft = authority.draft(request.fields())
        new = await self.keys.add(draft)
        try:
            await authority.confirm()
        except Forbidden:
            await self.keys.revoke(new.key_id, by=caller.actor)
            raise
        return CreatedKey(key_id=new.key_id, key=new.raw, expires_at=draft.key.expires_at)

    async def rotate(self, caller: Caller, key_id: str, request: RotationRequest) -> CreatedKey:
        """Put a new key in the place of another one of the owner.

        Raises:
            Forbidden: It is another owner's, as whom the new key would act.
        """
        old = await self.find(caller, key_id)
        if not caller.owns(old):
            raise Forbidden(ROTATED_BY_OWNER, reason="not_owner")
        authority = await Authority.of(self.keys, caller, self.lifetimes)
        expires_at = authority.expiry(request.expires_at, default=old.renewed(authority.now))
        overlap = timedelta(seconds=request.overlap_seconds)
        new = await self.keys.rotate(
            key_id, overlap=overlap, expires_at=expires_at, by=caller.actor, check=authority.check
        )
        return CreatedKey(key_id=new.key_id, key=new.raw, expires_at=expires_at)

    async def list(self, caller: Caller, page: Page) -> Sequence[KeyInfo]:
        """Return the keys of the caller, of another owner, or of all owners in the tenant.

        Raises:
            Forbidden: They are not the caller's, and the caller does not administer them.
        """
        subject, subject_type, tenant_id = caller.owner
        issuer = page.issuer or subject.issuer
        query: KeyQueryFields = {"tenant_id": tenant_id, "limit": page.limit, "offset": page.offset}
        is_own = not page.everyone and subject == Subject(issuer, page.user_id or subject.sub)
        if not is_own and not (caller.sees_others and caller.administers_issuer(issuer)):
            raise Forbidden(reason="not_an_administrator")
        if not page.everyone:
            query["user_id"] = page.user_id or subject.sub
        if not page.everyone or page.issuer is not None or subject.issuer is not None:
            query["issuer"] = issuer
        if (is_own and page.user_id is None) or not caller.sees_others:
            query["subject_type"] = subject_type
        return await self._listed(query)

    async def list_service_accounts(self, caller: Caller, page: Page) -> Sequence[KeyInfo]:
        """Return the keys of all service accounts in the tenant."""
        own: KeyQueryFields = {"subject_type": "service", "issuer": None, "tenant_id": caller.owner.tenant_id}
        return await self._listed({**own, "limit": page.limit, "offset": page.offset})

    async def show(self, caller: Caller, key_id: str) -> KeyInfo:
        """Return what is shown of a key."""
        return KeyInfo.of(await self.find(caller, key_id), self._now())

    async def revoke(self, caller: Caller, key_id: str) -> None:
        """Revoke a key for good."""
        await self.find(caller, key_id)
        await self.keys.revoke(key_id, by=caller.actor)

    async def pause(self, caller: Caller, key_id: str) -> None:
        """Pause a key; the pause of an administrator takes the place of the owner's."""
        await self.find(caller, key_id)
        await self.keys.pause(key_id, by=caller.actor, override=caller.is_administrator)

    async def resume(self, caller: Caller, key_id: str) -> None:
        """Accept a paused key again; an owner ends only their own pause.

        Raises:
            Forbidden: Another paused it, and the caller is not an administrator.
        """
        key = await self.find(caller, key_id)
        if not caller.is_administrator and key.paused_at is not None and key.paused_by != caller.actor:
            raise Forbidden(PAUSED_BY_ANOTHER, reason="not_an_administrator")
        await self.keys.resume(key_id, by=caller.actor, own=not caller.is_administrator)

    async def usage(self, caller: Caller, key_id: str) -> Sequence[LimitInfo]:
        """Return the rate and the quota of a key as they are now."""
        await self.find(caller, key_id)
        return LimitInfo.listed(await self.keys.usage(key_id))

    async def find(self, caller: Caller, key_id: str) -> StoredKey:
        """Return a key that the caller may see.

        Raises:
            KeyNotFound: There is no such key; whether another owner has one of that id is not shown.
        """
        key = await self.keys.get(key_id)
        if key is None or not caller.may_see(key):
            raise KeyNotFound
        return key

    async def _listed(self, query: KeyQueryFields) -> Sequence[KeyInfo]:
        now = self._now()
        return [KeyInfo.of(key, now) for key in await self.keys.list(**query)]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.keys.dependency.decision.now(), UTC)
