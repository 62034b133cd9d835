"""The statements on the tables of API keys, each in a session of the caller, who commits.

Every change is one conditional statement: nothing that was loaded is written back, so no stale copy undoes a
revocation. Needs the extra ``sqlalchemy``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from fastapi_guard.api_key.digest import Peppers
from fastapi_guard.api_key.fields import moment, stored_key
from fastapi_guard.api_key.format import KEY_ID, KeyFormat, NewKey
from fastapi_guard.api_key.key import COLUMNS, KeyQuery, StoredKey, earlier, fits, later, optional_text, unknown_key
from fastapi_guard.api_key.models import APIKey, APIKeyEvent, APIKeyEventMixin, APIKeyMixin
from fastapi_guard.api_key.queries import KeyOwner, ends_too, find_keys, unneeded_keys, unrevoked_keys
from fastapi_guard.api_key.statements import attribute_name, changed_rows, check_sync, equals, known_shape
from fastapi_guard.claims import Subject
from fastapi_guard.exceptions import KeyConflict, MissingExtraError

try:
    from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

EventKind = Literal["created", "rotated", "paused", "resumed", "revoked"]
_MAX_BATCH: Final = 500
_HOW: Final = {"revoked": "was revoked", "expired": "has expired", "paused": "is paused"}


class DraftKey(NamedTuple):
    """A new key that was checked and is in no session yet."""

    new: NewKey
    key: StoredKey
    actor: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRows:
    """The two tables, and the rules for new keys.

    Attributes:
        model: The mapped class of the keys.
        event_model: The mapped class of the events.
        format: The format of new keys.
        peppers: The peppers of the digests.
        require_expiry: Whether a key without an expiry is rejected.
        counts_usage: Whether the Auth counts requests, so that a key may have a rate and a quota.
        clock: Seconds since the epoch.
    """

    model: type[APIKeyMixin] = APIKey
    event_model: type[APIKeyEventMixin] = APIKeyEvent
    format: KeyFormat = field(default_factory=KeyFormat)
    peppers: Peppers = field(default_factory=Peppers)
    require_expiry: bool = False
    counts_usage: bool = True
    clock: Callable[[], float] = time.time

    def now(self) -> datetime:
        """Return the present moment."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def draft(self, given: dict[str, Any]) -> DraftKey:
        """Return a new key with these fields, see KeyFields; ``add`` puts it into a session.

        Raises:
            ValueError: A field does not fit KeyFields, or a rule of this Auth rejects it.
            TypeError: There is no such field.
        """
        actor = optional_text("by", given.get("by"))
        key = stored_key(given, key_id="", now=self.now())
        new = self.format.generate(key.environment)
        environment = key.environment or next(iter(self.format.environments), None)
        key = replace(key, key_id=new.key_id, usage_id=new.key_id, environment=environment)
        if self.require_expiry and key.expires_at is None:
            msg = "expires_at is required here: give the key an expiry, such as datetime.now(UTC) + timedelta(days=90)"
            raise ValueError(msg)
        if key.is_limited and not self.counts_usage:
            msg = "rate and quota are counted in a store: pass usage=..., such as SQLAlchemyStore(sessions)"
            raise ValueError(msg)
        return DraftKey(new, key, actor)

    def add(self, session: Session | AsyncSession, draft: DraftKey) -> NewKey:
        """Put a new key into ``session``."""
        stored = self.peppers.store(draft.new.raw)
        columns: dict[str, Any] = {attribute_name(name): getattr(draft.key, name) for name in COLUMNS}
        columns |= {"salt": stored.salt, "digest": stored.digest, "pepper": stored.pepper}
        session.add(self.model(**columns))
        self._record(session, draft.key.key_id, "created", draft.actor, draft.key.created_at)
        return draft.new

    def rotate(
        self,
        session: Session,
        key_id: str,
        *,
        overlap: timedelta = timedelta(0),
        expires_at: datetime | None = None,
        by: str | None = None,
        check: Callable[[StoredKey], None] | None = None,
    ) -> NewKey:
        """Put a new key in the place of another; see ``DatabaseKeys.rotate``.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It is paused, has expired, was revoked, or was rotated before.
            ValueError: The overlap is negative, or ``expires_at`` is naive, has passed, or is required.
        """
        actor, now, model = optional_text("by", by), self.now(), self.model
        expires_at = moment("expires_at", expires_at)
        if overlap < timedelta(0):
            msg = "overlap is the time for which both keys are valid, which cannot be negative"
            raise ValueError(msg)
        if expires_at is not None and expires_at <= now:
            msg = "expires_at has passed"
            raise ValueError(msg)
        new = self.format.generate(self._existing(session, key_id).environment)
        this = model.key_id == key_id
        whole = (model.revoked_at.is_(None), model.paused_at.is_(None), model.replaced_by.is_(None))
        # This statement decides which of several rotations wins. It comes first, so a loser has nothing to undo.
        won = update(model).where(this, *whole, self._not_expired(now)).values(replaced_by=new.key_id)
        if not changed_rows(session, won):
            raise self._why_not(session, key_id, now)
        old = self._existing(session, key_id)
        key = self._replacement(old, new.key_id, expires_at, now)
        if check is not None:
            check(key)
        # What the old key made ends with the new one.
        changed_rows(session, update(model).where(model.maker_key_id == key_id).values(maker_key_id=new.key_id))
        ends_at = later(now, overlap)
        changed_rows(session, update(model).where(this, self._not_expired(ends_at)).values(expires_at=ends_at))
        self._record(session, key_id, "rotated", actor, now, replaced_by=new.key_id)
        return self.add(session, DraftKey(new, key, actor))

    def revoke(self, session: Session, key_id: str, *, by: str | None = None) -> bool:
        """Revoke a key for good; return whether it was this call that revoked it.

        Raises:
            KeyNotFound: There is no such key.
            TypeError: The session is an async one.
        """
        check_sync(session, "revoke_key")
        actor, now, model = optional_text("by", by), self.now(), self.model
        this = model.key_id == known_shape(key_id)
        if changed_rows(session, update(model).where(this, model.revoked_at.is_(None)).values(revoked_at=now)):
            self._record(session, key_id, "revoked", actor, now)
            return True
        # No more of it is read: what ends with it ends also where its row cannot be read.
        if session.scalar(select(model.key_id).where(this)) is None:
            raise unknown_key(key_id)
        return False

    def revoke_with(self, session: Session, key_id: str, *, by: str | None = None) -> list[KeyOwner]:
        """Revoke what ends with a key: those that it replaced, and those that it or they made; return them."""
        return self._revoke_all(session, self.model.key_id == key_id, optional_text("by", by))

    def revoke_subject(self, session: Session, subject: Subject, *, by: str | None = None) -> list[KeyOwner]:
        """Revoke the keys of a subject, and those that it made, unless they outlive their maker; return them."""
        actor, model = optional_text("by", by), self.model
        if not fits(subject.sub) or not fits(subject.issuer or ""):
            return []
        owned = and_(model.user_id == subject.sub, equals(model, "issuer", subject.issuer))
        made = and_(model.maker_id == subject.sub, equals(model, "maker_issuer", subject.issuer), ends_too(model))
        return self._revoke_all(session, or_(owned, made), actor)

    def keep_maker(self, session: Session | AsyncSession, key: StoredKey) -> None:
        """Lock the key that makes ``key``: it is valid until ``key`` is stored, which ends with it.

        Raises:
            KeyConflict: It is not valid any more.
            TypeError: The session is an async one.
        """
        model, maker, now = self.model, key.maker_key_id, self.now()
        if maker is None:
            return
        session = check_sync(session, "create_key")
        here = (model.key_id == maker, model.revoked_at.is_(None), model.paused_at.is_(None), self._not_expired(now))
        if not changed_rows(session, update(model).where(*here).values(key_id=model.key_id)):
            found = self.get(session, maker)
            how = "does not exist" if found is None else _HOW.get(found.status(now), "changed")
            msg = f"the API key {maker} {how}, so it makes no other key"
            raise KeyConflict(msg)

    def pause(self, session: Session, key_id: str, *, by: str | None = None, override: bool = False) -> bool:
        """Pause a key until ``resume``; return whether it was this call that paused it; see ``DatabaseKeys.pause``.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It was revoked.
        """
        actor, model, now = optional_text("by", by), self.model, self.now()
        is_other: ColumnElement[bool] = model.paused_at.is_(None)
        if override:
            is_other = or_(is_other, model.paused_by.is_distinct_from(actor))
        return self._switch(session, key_id, is_other, {"paused_at": now, "paused_by": actor}, "paused", actor)

    def resume(self, session: Session, key_id: str, *, by: str | None = None, own: bool = False) -> bool:
        """Accept a paused key again; return whether it was this call that resumed it; see ``DatabaseKeys.resume``.

        Raises:
            KeyNotFound: There is no such key.
            KeyConflict: It was revoked.
        """
        actor, model = optional_text("by", by), self.model
        is_paused: ColumnElement[bool] = model.paused_at.is_not(None)
        if own:
            is_paused = and_(is_paused, equals(model, "paused_by", actor))
        return self._switch(session, key_id, is_paused, {"paused_at": None, "paused_by": None}, "resumed", actor)

    def get(self, session: Session, key_id: str) -> StoredKey | None:
        """Return the key of that id, ``None`` where there is none."""
        if not KEY_ID.fullmatch(key_id):
            return None
        return next(iter(find_keys(session, self.model, (self.model.key_id == key_id,), KeyQuery())), None)

    def find(self, session: Session, query: KeyQuery) -> list[StoredKey]:
        """Return the keys that match ``query``, oldest first."""
        model, now = self.model, self.now()
        conditions = [equals(model, name, value) for name, value in query.equals().items()]
        if query.unused_for is not None:
            last_seen = func.coalesce(model.last_used_at, model.created_at, type_=model.created_at.type)
            conditions.append(last_seen <= earlier(now, query.unused_for))
        if query.active_only:
            conditions += [model.revoked_at.is_(None), model.paused_at.is_(None), self._not_expired(now)]
        return find_keys(session, model, conditions, query)

    def prune(self, session: Session, before: datetime) -> int:
        """Delete the keys that had ended at the moment ``before``, see ``unneeded_keys``; return their number.

        Their events stay in the event table.
        """
        model, key_ids, deleted = self.model, unneeded_keys(session, self.model, before), 0
        for start in range(0, len(key_ids), _MAX_BATCH):
            batch = model.key_id.in_(key_ids[start : start + _MAX_BATCH])
            deleted += changed_rows(session, delete(model).where(batch))
        return deleted

    def _replacement(self, old: StoredKey, key_id: str, expires_at: datetime | None, now: datetime) -> StoredKey:
        expires_at = expires_at or old.renewed(now)
        if self.require_expiry and expires_at is None:
            msg = f"expires_at is required here: the API key {old.key_id} has none that the new key could inherit"
            raise ValueError(msg)
        return replace(
            old,
            key_id=key_id,
            created_at=now,
            expires_at=expires_at,
            replaced_by=None,
            last_used_at=None,
            last_address=None,
        )

    def _existing(self, session: Session, key_id: str) -> StoredKey:
        key = self.get(session, key_id)
        if key is None:
            raise unknown_key(key_id)
        return key

    def _not_expired(self, now: datetime) -> ColumnElement[bool]:
        return or_(self.model.expires_at.is_(None), self.model.expires_at > now)

    def _revoke_all(self, session: Session, begin: ColumnElement[bool], actor: str | None) -> list[KeyOwner]:
        model, now, revoked, count = self.model, self.now(), list[KeyOwner](), -1
        # Until none is left: since the first look, a rotation may have put another key in the place of one, or a key
        # may have made another one.
        while len(revoked) > count:
            count = len(revoked)
            for key in unrevoked_keys(session, model, begin):
                this = (model.key_id == key.key_id, model.revoked_at.is_(None))
                if changed_rows(session, update(model).where(*this).values(revoked_at=now)):
                    self._record(session, key.key_id, "revoked", actor, now)
                    revoked.append(key)
        return revoked

    def _switch(
        self,
        session: Session,
        key_id: str,
        other: ColumnElement[bool],
        values: dict[str, Any],
        kind: EventKind,
        actor: str | None,
    ) -> bool:
        model = self.model
        this = (model.key_id == known_shape(key_id), model.revoked_at.is_(None))
        if changed_rows(session, update(model).where(*this, other).values(**values)):
            self._record(session, key_id, kind, actor, self.now())
            return True
        if self._existing(session, key_id).revoked_at is not None:
            msg = f"the API key {key_id} was revoked"
            raise KeyConflict(msg)
        return False

    def _why_not(self, session: Session, key_id: str, now: datetime) -> Exception:
        key = self._existing(session, key_id)
        if key.replaced_by is not None:
            return KeyConflict(f"the API key {key_id} was rotated before: the new key is {key.replaced_by}")
        return KeyConflict(f"the API key {key_id} {_HOW.get(key.status(now), 'changed')}, so it cannot be rotated")

    def _record(
        self,
        session: Session | AsyncSession,
        key_id: str,
        kind: EventKind,
        actor: str | None,
        at: datetime,
        *,
        replaced_by: str | None = None,
    ) -> None:
        columns = {"key_id": key_id, "event": kind, "actor": actor, "at": at, "replaced_by": replaced_by}
        session.add(self.event_model(**columns))
