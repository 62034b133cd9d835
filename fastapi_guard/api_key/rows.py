"""What is done to the rows of API keys, each in a session of the caller, who commits.

Every change is one conditional statement: nothing that was loaded is written back, so no stale copy undoes a
revocation. Needs the extra ``sqlalchemy``.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Required, TypedDict, cast, get_args

from typing_extensions import Unpack

from fastapi_guard.api_key.digest import Peppers
from fastapi_guard.api_key.format import KEY_ID, KeyFormat, NewKey
from fastapi_guard.api_key.models import MAX_TEXT_LENGTH, APIKey, APIKeyEvent, APIKeyEventMixin, APIKeyMixin
from fastapi_guard.exceptions import KeyConflict, KeyNotFound, MissingExtraError
from fastapi_guard.scopes import Scope

try:
    from sqlalchemy import ColumnElement, CursorResult, Delete, Update, delete, func, or_, select, update
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import InstrumentedAttribute, Session
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

SubjectType = Literal["user", "agent", "service", "session"]
_SUBJECT_TYPES: Final = get_args(SubjectType)


class KeyFields(TypedDict, total=False):
    """What a new key is given.

    Attributes:
        user_id: Whom it belongs to; the ``sub`` of its claims.
        name: What its owner calls it.
        scopes: What it may do; a bare ``*`` is everything.
        is_admin: Whether its claims say ``is_admin``.
        tenant_id: Where it holds.
        expires_at: From when on it does not hold, an aware datetime; ``None`` for never.
        metadata: Anything that JSON can say; it comes back in the claims.
        subject_type: What ``user_id`` names: ``user``, ``agent``, ``service`` or ``session``.
        by: Who creates it, for the event table.
    """

    user_id: Required[str]
    name: str
    scopes: Iterable[str]
    is_admin: bool
    tenant_id: str | None
    expires_at: datetime | None
    metadata: Mapping[str, Any] | None
    subject_type: SubjectType
    by: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredKey:
    """A key as it is stored, without what it was made of.

    Attributes:
        key_id: Its id, which is no secret.
        name: What its owner calls it.
        subject_type: What ``user_id`` names.
        user_id: Whom it belongs to.
        tenant_id: Where it holds.
        is_admin: Whether its claims say ``is_admin``.
        scopes: What it may do.
        metadata: What was put into it.
        created_at: When it was created.
        expires_at: From when on it does not hold, ``None`` for never.
        revoked_at: Since when it does not hold, ``None`` where it was not revoked.
        last_used_at: When it was last used, to the minute, ``None`` for never.
        replaced_by: The id of the key that rotation put in its place.
    """

    key_id: str
    name: str
    subject_type: str
    user_id: str
    tenant_id: str | None
    is_admin: bool
    scopes: list[str]
    metadata: dict[str, Any]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str | None

    def status(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Return whether it holds at the moment ``now``, or why not."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"


class KeyQueryFields(TypedDict, total=False):
    """Which keys to list.

    Attributes:
        user_id: Of this user alone.
        subject_type: Of this type of subject alone.
        tenant_id: Of this tenant alone.
        unused_for: Those not used for at least so long; one that was never used counts from its creation.
        active_only: Those alone that hold now.
        limit: At most so many.
        offset: Without the first so many.
    """

    user_id: str | None
    subject_type: str | None
    tenant_id: str | None
    unused_for: timedelta | None
    active_only: bool
    limit: int | None
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyQuery:
    """Which keys to list; see KeyQueryFields."""

    user_id: str | None = None
    subject_type: str | None = None
    tenant_id: str | None = None
    unused_for: timedelta | None = None
    active_only: bool = False
    limit: int | None = None
    offset: int = 0


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

    def create(self, session: Session | AsyncSession, **given: Unpack[KeyFields]) -> NewKey:
        """Put a new key into ``session``.

        Raises:
            ValueError: A field is not what KeyFields says, or there is no expiry and one is required.
        """
        actor = _text("by", given.get("by"), optional=True)
        columns = _checked(given)
        if self.require_expiry and columns["expires_at"] is None:
            msg = "expires_at is required here: give the key an end, such as datetime.now(UTC) + timedelta(days=90)"
            raise ValueError(msg)
        return self._add(session, self.format.generate(), columns, actor)

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
        actor = _text("by", by, optional=True)
        expires_at = _moment("expires_at", expires_at)
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
        old = session.execute(select(model).where(this).execution_options(populate_existing=True)).scalar_one()
        kept = {name: getattr(old, name) for name in _KEPT}
        if expires_at is None and old.expires_at is not None:
            expires_at = _later(now, old.expires_at - old.created_at)
        ends_at = _later(now, overlap)
        _changed(session, update(model).where(this, self._not_expired(ends_at)).values(expires_at=ends_at))
        self._record(session, key_id, "rotated", actor, now, replaced_by=new.key_id)
        return self._add(session, new, {**kept, "expires_at": expires_at}, actor)

    def revoke(self, session: Session, key_id: str, *, by: str | None = None) -> bool:
        """End a key for good; return whether it was this call that ended it.

        Raises:
            KeyNotFound: There is no such key.
        """
        actor = _text("by", by, optional=True)
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
            _attribute(model, name) == _text(name, value)
            for name in ("user_id", "subject_type", "tenant_id")
            if (value := getattr(query, name)) is not None
        ]
        if query.unused_for is not None:
            last_seen = func.coalesce(model.last_used_at, model.created_at, type_=model.created_at.type)
            conditions.append(last_seen <= _earlier(now, query.unused_for))
        if query.active_only:
            conditions += [model.revoked_at.is_(None), self._not_expired(now)]
        return self._select(session, conditions, query)

    def prune(self, session: Session, *, ended_for: timedelta) -> int:
        """Delete the keys that were revoked or have expired at least so long ago; return how many.

        What happened to them stays in the event table.
        """
        before, model = _earlier(self.now(), ended_for), self.model
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

    def _add(self, session: Session | AsyncSession, new: NewKey, columns: dict[str, Any], actor: str | None) -> NewKey:
        now, stored = self.now(), self.peppers.store(new.raw)
        made_of = {"salt": stored.salt, "digest": stored.digest, "pepper": stored.pepper}
        session.add(self.model(**{**columns, **made_of, "key_id": new.key_id, "created_at": now}))
        self._record(session, new.key_id, "created", actor, now)
        return new

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
_KEPT = ("name", "subject_type", "user_id", "tenant_id", "is_admin", "scopes", "metadata_")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _attribute(model: type[APIKeyMixin], name: str) -> InstrumentedAttribute[Any]:
    # A declarative class has a metadata of its own.
    return cast("InstrumentedAttribute[Any]", getattr(model, "metadata_" if name == "metadata" else name))


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


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(given.keys() - KeyFields.__annotations__.keys())
    if unknown:
        msg = f"a key has no {', '.join(unknown)}"
        raise TypeError(msg)
    subject_type = given.get("subject_type", "user")
    if subject_type not in _SUBJECT_TYPES:
        msg = f"subject_type is one of {', '.join(_SUBJECT_TYPES)}, not {subject_type!r}"
        raise ValueError(msg)
    is_admin = given.get("is_admin", False)
    if not isinstance(is_admin, bool):
        msg = f"is_admin is True or False, not {is_admin!r}"
        raise ValueError(msg)  # noqa: TRY004 - every field that is wrong is a ValueError
    user_id = _text("user_id", given["user_id"])
    if not user_id:
        msg = "user_id is whom the key belongs to, which cannot be empty"
        raise ValueError(msg)
    return {
        "user_id": user_id,
        "name": _text("name", given.get("name", "")),
        "subject_type": subject_type,
        "tenant_id": _text("tenant_id", given.get("tenant_id"), optional=True),
        "is_admin": is_admin,
        "scopes": _scopes(given.get("scopes", ())),
        "expires_at": _moment("expires_at", given.get("expires_at")),
        "metadata_": _metadata(given.get("metadata")),
    }


def _text(name: str, value: object, *, optional: bool = False) -> str | None:
    if value is None and optional:
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH or _CONTROL.search(value):
        msg = (
            f"{name} is a text of at most {MAX_TEXT_LENGTH} characters without control characters, such as str(user.id)"
        )
        raise ValueError(msg)
    return value


def _scopes(value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        msg = f"scopes is a list of scopes, such as [{value!r}]"
        raise ValueError(msg)  # noqa: TRY004 - every field that is wrong is a ValueError
    return list(dict.fromkeys(str(Scope(scope)) for scope in value))


def _metadata(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        if isinstance(value, Mapping):
            text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
            text.encode("utf-8")
            return cast("dict[str, Any]", json.loads(text))
    except (TypeError, ValueError, RecursionError):
        pass
    msg = "metadata is an object that JSON can say: texts, numbers, lists and objects by name"
    raise ValueError(msg)


def _moment(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        msg = f"{name} is an aware datetime, such as datetime.now(UTC) + timedelta(days=90), not {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - every field that is wrong is a ValueError
    if value.utcoffset() is None:
        msg = f"{name} is a naive datetime, whose moment nobody knows: use datetime.now(UTC)"
        raise ValueError(msg)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        msg = f"{name} is outside of the years that a datetime counts"
        raise ValueError(msg) from None


def _later(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _earlier(moment: datetime, by: timedelta) -> datetime:
    if by < timedelta(0):
        msg = "how long ago cannot be negative"
        raise ValueError(msg)
    try:
        return moment - by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
