"""API keys in a database: create, list, rotate, pause and revoke them.

Needs the extra ``sqlalchemy``.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

from fastapi_guard.api_key.cache import forget
from fastapi_guard.api_key.fields import KeyFields
from fastapi_guard.api_key.format import KeyFormat, NewKey
from fastapi_guard.api_key.key import KeyQuery, KeyQueryFields, StoredKey, earlier, unknown_key
from fastapi_guard.api_key.limits import LimitState
from fastapi_guard.api_key.queries import KeyOwner, ended_usage
from fastapi_guard.api_key.restrictions import limits_of
from fastapi_guard.api_key.rows import DraftKey, KeyRows
from fastapi_guard.api_key.transaction import CreateKey, Publisher, RevokeKey
from fastapi_guard.api_key.usage import KeyUsage
from fastapi_guard.claims import Subject
from fastapi_guard.events import EventName
from fastapi_guard.exceptions import KeyConflict
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.failures import Refused

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ResultT = TypeVar("ResultT")
Keys = list[StoredKey]


class DatabaseKeys:
    """The keys in a database. Each method opens a session of its own and commits it.

    Attributes:
        format: The format of the keys; ``format.pattern`` is the regular expression for secret scanners.
        create_key: Create a key in a session of the caller: on the class with default settings and without a pepper,
            on an instance with its settings.
        revoke_key: Revoke a key in a session of the caller, likewise.
    """

    # For makers_first(): they end after the sessions and tokens that make them.
    _are_made_by_others: Final = True
    create_key: CreateKey = CreateKey()
    revoke_key: RevokeKey = RevokeKey()

    def __init__(
        self, sessions: Sessions, rows: KeyRows, *, usage: KeyUsage | None = None, publisher: Publisher | None = None
    ) -> None:
        """Work on the tables of ``rows`` in sessions of ``sessions``."""
        self._sessions = sessions
        self._rows = rows
        self._usage = usage
        self._publisher = Publisher() if publisher is None else publisher
        self.format: KeyFormat = rows.format
        self.create_key = CreateKey(rows, self._publisher)
        self.revoke_key = RevokeKey(rows, self._publisher)

    async def create(self, **key: Unpack[KeyFields]) -> NewKey:
        """Create a key and commit; return its id and its text, which exists only here.

        Raises:
            ValueError: A field does not fit KeyFields.
            KeyConflict: A constraint of the application's tables is violated.
            ServiceUnavailable: The database cannot be reached.
        """
        return await self.add(self.draft(**key))

    def draft(self, **key: Unpack[KeyFields]) -> DraftKey:
        """Return a new key that is not stored yet: ``draft.key.claims()`` are the claims that it will have.

        Raises:
            ValueError: A field does not fit KeyFields.
        """
        return self._rows.draft(dict(key))

    async def add(self, draft: DraftKey) -> NewKey:
        """Store a key that was drafted, and commit; return its id and its text.

        Raises:
            KeyConflict: A constraint of the application's tables is violated.
            ServiceUnavailable: The database cannot be reached.
        """

        def add(session: "Session") -> NewKey:
            self._rows.keep_maker(session, draft.key)
            return self._rows.add(session, draft)

        new = await self._written(add)
        self._publisher.publish("key_created", new.key_id, subject=draft.key.user_id, actor=draft.actor)
        return new

    async def rotate(
        self,
        key_id: str,
        *,
        overlap: timedelta = timedelta(0),
        expires_at: datetime | None = None,
        by: str | None = None,
        check: Callable[[StoredKey], None] | None = None,
    ) -> NewKey:
        """Put a new key in the place of another, which is valid for ``overlap`` more, or until it expires.

        The new key has the fields of the old one, and its lifetime unless ``expires_at`` is given.

        Args:
            key_id: The id of the old key.
            overlap: The time for which both keys are valid.
            expires_at: The expiry of the new key.
            by: The actor for the event table.
            check: Called with the new key before it is stored; what it raises undoes the rotation.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It is paused, has expired, was revoked or was rotated before; nothing was changed.
            ValueError: ``expires_at`` is naive or has passed, or the overlap is negative.
            ServiceUnavailable: The database cannot be reached.
        """
        new = await self._written(
            lambda session: self._rows.rotate(
                session, key_id, overlap=overlap, expires_at=expires_at, by=by, check=check
            )
        )
        forget([key_id])
        self._publisher.publish("key_rotated", key_id, actor=by)
        self._publisher.publish("key_created", new.key_id, actor=by)
        return new

    async def revoke(self, key_id: str, *, by: str | None = None) -> bool:
        """Revoke a key for good; return whether it was this call that revoked it.

        With it end the keys that it replaced, also in their overlap, and those that it or they made.

        Raises:
            KeyNotFound: There is no such key.
            ServiceUnavailable: The database cannot be reached.
        """
        others: list[KeyOwner] = []

        def revoke(session: "Session") -> bool:
            changed = self._rows.revoke(session, key_id, by=by)
            others[:] = self._rows.revoke_with(session, key_id, by=by)
            return changed

        changed = await self._changed("key_revoked", key_id, by, revoke)
        self._forget_revoked(others, by)
        return changed

    async def revoke_subject(
        self,
        subject: str,
        *,
        keep: str | None = None,  # noqa: ARG002 - of the protocol of Revocations(ends=...)
        issuer: str | None = None,
        by: str | None = None,
    ) -> int:
        """Revoke every key that acts as a subject or that it made, except those that outlive their maker.

        Args:
            subject: The ``sub``.
            keep: The session that goes on, for ``Revocations(ends=[keys])``. A key is not a session: all of them end.
            issuer: The ``iss``; ``None`` for subjects of the application itself.
            by: The actor for the event table.

        Returns:
            How many keys were revoked.

        Raises:
            ServiceUnavailable: The database cannot be reached.
        """
        revoked = await self._written(
            lambda session: self._rows.revoke_subject(session, Subject(issuer, subject), by=by)
        )
        self._forget_revoked(revoked, by)
        return len(revoked)

    async def pause(self, key_id: str, *, by: str | None = None, override: bool = False) -> bool:
        """Reject a key until it is resumed; return whether it was this call that paused it.

        Args:
            key_id: The id of the key.
            by: The actor, for the event table and for ``resume``.
            override: Whether a key that another actor has paused becomes one that this actor has paused.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It was revoked.
            ServiceUnavailable: The database cannot be reached.
        """
        return await self._changed(
            "key_paused", key_id, by, lambda session: self._rows.pause(session, key_id, by=by, override=override)
        )

    async def resume(self, key_id: str, *, by: str | None = None, own: bool = False) -> bool:
        """Accept a paused key again; return whether it was this call that resumed it.

        Args:
            key_id: The id of the key.
            by: The actor for the event table.
            own: Whether only a key that this actor has paused is resumed.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It was revoked.
            ServiceUnavailable: The database cannot be reached.
        """
        return await self._changed(
            "key_resumed", key_id, by, lambda session: self._rows.resume(session, key_id, by=by, own=own)
        )

    async def usage(self, key_id: str) -> Sequence[LimitState]:
        """Return the rate and the quota of a key as they are now; nothing is counted.

        Raises:
            KeyNotFound: There is no such key.
            ServiceUnavailable: The database or the store of the usage cannot be reached.
        """
        key, usage = await self._limited(key_id)
        return [] if usage is None else await usage.states(key.usage_id, limits_of(key))

    async def refill(self, key_id: str) -> None:
        """Make the rate and the quota of a key full again.

        Raises:
            KeyNotFound: There is no such key.
            ServiceUnavailable: The database or the store of the usage cannot be reached.
        """
        key, usage = await self._limited(key_id)
        if usage is not None:
            await usage.refill(key.usage_id)

    async def get(self, key_id: str) -> StoredKey | None:
        """Return what is stored of a key, ``None`` where there is none of that id.

        Raises:
            ServiceUnavailable: The database cannot be reached.
        """
        return await self._sessions.transaction(lambda session: self._rows.get(session, key_id))

    async def list(self, **query: Unpack[KeyQueryFields]) -> Keys:
        """Return the keys that match a query, oldest first.

        Args:
            query: See KeyQueryFields; nothing: all of them.

        Raises:
            ValueError: A field does not fit KeyQueryFields.
            ServiceUnavailable: The database cannot be reached.
        """
        wanted = KeyQuery(**query)
        return await self._sessions.transaction(lambda session: self._rows.find(session, wanted))

    async def prune(self, *, ended_for: timedelta) -> int:
        """Delete the keys that were revoked or have expired at least so long ago; return their number.

        One through which a key that has not would be revoked is kept: its maker, or the key that replaced it. The
        counts of their quotas are deleted too.

        Raises:
            ValueError: The duration is negative.
            ServiceUnavailable: The database or the store of the usage cannot be reached.
        """
        before, model = earlier(self._rows.now(), ended_for), self._rows.model
        if self._usage is not None:
            # First: where it fails, the rows from which the counts are known are still there.
            ended = await self._sessions.transaction(lambda session: ended_usage(session, model, before), is_long=True)
            for usage_id in ended:
                await self._usage.refill(usage_id)
        return await self._sessions.transaction(lambda session: self._rows.prune(session, before), is_long=True)

    def _forget_revoked(self, revoked: Sequence[KeyOwner], by: str | None) -> None:
        forget([key.key_id for key in revoked])
        for key in revoked:
            self._publisher.publish("key_revoked", key.key_id, subject=key.user_id, actor=by)

    async def _limited(self, key_id: str) -> tuple[StoredKey, KeyUsage | None]:
        key = await self.get(key_id)
        if key is None:
            raise unknown_key(key_id)
        return key, self._usage if key.is_limited else None

    async def _changed(self, name: EventName, key_id: str, by: str | None, change: "Callable[[Session], bool]") -> bool:
        changed = await self._written(change)
        forget([key_id])
        if changed:
            self._publisher.publish(name, key_id, actor=by)
        return changed

    async def _written(self, work: "Callable[[Session], ResultT]") -> ResultT:
        try:
            return await self._sessions.transaction(work)
        except Refused as error:
            msg = f"the database refused the API key: {error}"
            raise KeyConflict(msg) from error
