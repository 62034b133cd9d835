"""Create and revoke keys in a session of the caller, who commits. Needs the extra ``sqlalchemy``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Unpack
from weakref import ref

from fastapi_guard.api_key.cache import forget
from fastapi_guard.api_key.fields import KeyFields
from fastapi_guard.api_key.format import NewKey
from fastapi_guard.api_key.rows import KeyRows
from fastapi_guard.events import Event, EventCallback, EventName, publish

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class Publisher:
    """Publishes the events of the keys of one Auth.

    Attributes:
        name: The name of the Auth.
        on_event: Called with each Event.
    """

    name: str = "api-key"
    on_event: EventCallback | None = None

    def publish(self, name: EventName, key_id: str, *, subject: str | None = None, actor: str | None = None) -> None:
        """Publish an event of a key."""
        publish(Event(name, self.name, key_id=key_id, subject=subject, actor=actor), self.on_event)


@dataclass(frozen=True, slots=True)
class CreateKey:
    """``create_key(session, user_id=..., ...)``: put a new key into a session of the caller."""

    rows: KeyRows = field(default_factory=KeyRows)
    publisher: Publisher = field(default_factory=Publisher)

    def __call__(self, session: "Session | AsyncSession", **key: Unpack[KeyFields]) -> NewKey:
        """Put a new key into ``session``; return its id and its text, which exists only here.

        Args:
            session: A session of the caller, sync or async, who commits it.
            key: See KeyFields. With a ``maker_key``, call ``await session.run_sync(keys.create_key, ...)`` from an
                async session: the key that makes it is locked.

        Raises:
            ValueError: A field does not fit KeyFields.
            KeyConflict: The key that makes it is not valid any more.
            TypeError: There is a ``maker_key``, and the session is an async one.
        """
        draft = self.rows.draft(dict(key))
        self.rows.keep_maker(session, draft.key)
        new = self.rows.add(session, draft)
        self.publisher.publish("key_created", new.key_id, subject=draft.key.user_id, actor=draft.actor)
        return new


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """``revoke_key(session, key_id)``: revoke a key in a session of the caller."""

    rows: KeyRows = field(default_factory=KeyRows)
    publisher: Publisher = field(default_factory=Publisher)

    def __call__(self, session: "Session", key_id: str, *, by: str | None = None) -> bool:
        """Revoke a key for good, as ``DatabaseKeys.revoke``; return whether it was this call that revoked it.

        Args:
            session: A sync session of the caller, who commits it; from an async one call
                ``await session.run_sync(keys.revoke_key, key_id)``.
            key_id: The id of the key.
            by: The actor for the event table.

        Raises:
            KeyNotFound: There is no such key.
            TypeError: The session is an async one.
        """
        revoked = self.rows.revoke(session, key_id, by=by)
        others = self.rows.revoke_with(session, key_id, by=by)
        forget([key_id, *(key.key_id for key in others)], _is_open(session, self.rows))
        if revoked:
            self.publisher.publish("key_revoked", key_id, actor=by)
        for key in others:
            self.publisher.publish("key_revoked", key.key_id, subject=key.user_id, actor=by)
        return revoked


def _is_open(session: "Session", rows: KeyRows) -> Callable[[], bool]:
    # By a weak reference: a session that is thrown away gives its connection back, which ends the transaction. It
    # is a connection and not the session, since a session may be joined into a transaction outside of it.
    connection = ref(session.connection(bind_arguments={"mapper": rows.model}))

    def is_open() -> bool:
        found = connection()
        return found is not None and not found.closed and found.in_transaction()

    return is_open
