"""What is done to the rows of API keys, each in a session of the caller, who commits.

Every change is one conditional statement: nothing that was loaded is written back, so no stale copy undoes a
revocation. Needs the extra ``sqlalchemy``.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Unpack, cast

from fastapi_guard.api_key.digest import Peppers
from fastapi_guard.api_key.fields import KeyFields, KeyQuery, StoredKey, checked, earlier, later, moment, text
from fastapi_guard.api_key.format import KEY_ID, KeyFormat, NewKey
from fastapi_guard.api_key.models import APIKey, APIKeyEvent, APIKeyEventMixin, APIKeyMixin
from fastapi_guard.exceptions import KeyConflict, KeyNotFound, MissingExtraError

try:
    from sqlalchemy import ColumnElement, CursorResult, Delete, Update, delete, func, or_, select, update
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import InstrumentedAttribute, Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None


class DraftKey(NamedTuple):
    """A key that was checked and is in no session yet."""

    new: NewKey
    columns: dict[str, Any]
    actor: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRows:
    """The two tables and the rules for what is put into them.

    Attributes:
        model: The mapped class of the keys.
        event_model: The mapped class of the events.
        format: How new keys look.
        peppers: What goes into the digests of new keys.
        require_expiry: Whether a key without an expiry is refused.
        clock: Seconds since the epoch.
    """

    model: type[APIKeyMixin] = APIKey
    event_model: type[APIKeyEventMixin] = APIKeyEvent
    format: KeyFormat = field(default_factory=KeyFormat)
    peppers: Peppers = field(default_factory=Peppers)
    require_expiry: bool = False
    clock: Callable[[], float] = time.time

    def now(self) -> datetime:
        """Return the present moment."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def draft(self, **given: Unpack[KeyFields]) -> DraftKey:
        """Return a new key that ``add`` puts into a session.

        Raises:
            ValueError: A field is not what KeyFields says, or there is no expiry and one is required.
        """
        actor = text("by", given.get("by"), optional=True)
        columns = checked(given)
        if self.require_expiry and columns["expires_at"] is None:
            msg = "expires_at is required here: give the key an end, such as datetime.now(UTC) + timedelta(days=90)"
            raise ValueError(msg)
        return DraftKey(self.format.generate(), columns, actor)

    def add(self, session: Session | AsyncSession, draft: DraftKey) -> NewKey:
        """Put a new key into ``session``."""
        new, now, stored = draft.new, self.now(), self.peppers.store(draft.new.raw)
        made_of = {"salt": stored.salt, "digest": stored.digest, "pepper": stored.pepper}
        session.add(self.model(**{**draft.columns, **made_of, "key_id": new.key_id, "created_at": now}))
        self._record(session, new.key_id, "created", draft.actor, now)
        return new

    def rotate(
        self,
        session: Session,
        key_id: str,
        *,
        overlap: timedelta = timedelta(0),
        expires_at: datetime | None = None,
        by: str | None = None,
    ) -> NewKey:
        """Put a new key in the place of ``key_id``, which holds for ``overlap`` more, or until its own expiry.

        The new one is like the old one, and lives as long as the old one was to live, unless ``expires_at`` says
        otherwise.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It has expired, was revoked, or was rotated before.
            ValueError: The overlap is negative, or a moment is naive or not within the years that Python counts.
        """
        actor = text("by", by, optional=True)
        expires_at = moment("expires_at", expires_at)
        if overlap < timedelta(0):
            msg = "overlap is how long both keys hold, which cannot be negative"
            raise ValueError(msg)
        now, model, new = self.now(), self.model, self.format.generate()
        this = model.key_id == _known_shape(key_id)
        whole = [model.revoked_at.is_(None), model.replaced_by.is_(None), self._not_expired(now)]
        if self.require_expiry and expires_at is None:
            whole.append(model.expires_at.is_not(None))
        # This statement decides who of several wins. It comes first, so that a loser has nothing to take back.
        if not _changed(session, update(model).where(this, *whole).values(replaced_by=new.key_id)):
            raise self._why_not(session, key_id, now)
        old = self._select(session, (this,), KeyQuery())[0]
        columns = {_column(name): getattr(old, name) for name in _KEPT}
        columns["expires_at"] = expires_at or old.renewed(now)
        ends_at = later(now, overlap)
        _changed(session, update(model).where(this, self._not_expired(ends_at)).values(expires_at=ends_at))
        self._record(session, key_id, "rotated", actor, now, replaced_by=new.key_id)
        return self.add(session, DraftKey(new, columns, actor))

    def revoke(self, session: Session, key_id: str, *, by: str | None = None) -> bool:
        """End a key for good; return whether it was this call that ended it.

        Raises:
            KeyNotFound: There is no such key.
            TypeError: The session is an async one.
        """
        if isinstance(session, AsyncSession):
            msg = "revoke_key() asks the database: call await session.run_sync(keys.revoke_key, key_id)"
            raise TypeError(msg)
        actor = text("by", by, optional=True)
        now, model = self.now(), self.model
        this = model.key_id == _known_shape(key_id)
        if _changed(session, update(model).where(this, model.revoked_at.is_(None)).values(revoked_at=now)):
            self._record(session, key_id, "revoked", actor, now)
            return True
        if self.get(session, key_id) is None:
            raise unknown_key(key_id)
        return False

    def get(self, session: Session, key_id: str) -> StoredKey | None:
        """Return the key of that id, ``None`` where there is none."""
        if not KEY_ID.fullmatch(key_id):
            return None
        found = self._select(session, (self.model.key_id == key_id,), KeyQuery())
        return found[0] if found else None

    def find(self, session: Session, query: KeyQuery) -> list[StoredKey]:
        """Return the keys that ``query`` asks for, oldest first."""
        model, now = self.model, self.now()
        conditions: list[ColumnElement[bool]] = []
        conditions += [
            _attribute(model, name) == text(name, value)
            for name in ("user_id", "subject_type", "tenant_id")
            if (value := getattr(query, name)) is not None
        ]
        if query.unused_for is not None:
            last_seen = func.coalesce(model.last_used_at, model.created_at, type_=model.created_at.type)
            conditions.append(last_seen <= earlier(now, query.unused_for))
        if query.active_only:
            conditions += [model.revoked_at.is_(None), self._not_expired(now)]
        return self._select(session, conditions, query)

    def prune(self, session: Session, *, ended_for: timedelta) -> int:
        """Delete the keys that were revoked or have expired at least so long ago; return how many.

        What happened to them stays in the event table.
        """
        before, model = earlier(self.now(), ended_for), self.model
        return _changed(session, delete(model).where(or_(model.revoked_at <= before, model.expires_at <= before)))

    def _not_expired(self, now: datetime) -> ColumnElement[bool]:
        return or_(self.model.expires_at.is_(None), self.model.expires_at > now)

    def _select(self, session: Session, conditions: Iterable[ColumnElement[bool]], query: KeyQuery) -> list[StoredKey]:
        model = self.model
        statement = select(*(_attribute(model, name) for name in _STORED)).where(*conditions)
        statement = statement.order_by(model.created_at, model.key_id).limit(query.limit).offset(query.offset or None)
        return [StoredKey(**dict(zip(_STORED, row, strict=True))) for row in session.execute(statement)]

    def _why_not(self, session: Session, key_id: str, now: datetime) -> Exception:
        key = self.get(session, key_id)
        if key is None:
            return unknown_key(key_id)
        if key.replaced_by is not None:
            return KeyConflict(f"the API key {key_id} was rotated before: its place has {key.replaced_by}")
        if key.status(now) != "active":
            how = "was revoked" if key.revoked_at else "has expired"
            return KeyConflict(f"the API key {key_id} {how}, so there is nothing to rotate: create another")
        return ValueError(f"expires_at is required here: the API key {key_id} has none that a new one could go by")

    def _record(
        self,
        session: Session | AsyncSession,
        key_id: str,
        event: Literal["created", "rotated", "revoked"],
        actor: str | None,
        at: datetime,
        *,
        replaced_by: str | None = None,
    ) -> None:
        columns = {"key_id": key_id, "event": event, "actor": actor, "at": at, "replaced_by": replaced_by}
        session.add(self.event_model(**columns))


# Columns of StoredKey, and those of them that a key in another's place keeps.
_STORED = tuple(each.name for each in fields(StoredKey))
_KEPT = ("name", "subject_type", "user_id", "tenant_id", "is_admin", "scopes", "metadata")


def _column(name: str) -> str:
    # A declarative class has a metadata of its own.
    return "metadata_" if name == "metadata" else name


def _attribute(model: type[APIKeyMixin], name: str) -> InstrumentedAttribute[Any]:
    return cast("InstrumentedAttribute[Any]", getattr(model, _column(name)))


def _changed(session: Session, statement: Update | Delete) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def _known_shape(key_id: str) -> str:
    if not KEY_ID.fullmatch(key_id):
        raise unknown_key(key_id)
    return key_id


def unknown_key(key_id: str) -> KeyNotFound:
    """Return the error for an id under which there is no key."""
    if not KEY_ID.fullmatch(key_id):
        # It may be a whole key that somebody pasted: it is not shown.
        return KeyNotFound("that is no id of an API key: an id is the 16 letters and digits between its hyphens")
    return KeyNotFound(f"there is no API key with the id {key_id}")
