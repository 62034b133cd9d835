"""The fields of a key: what a new one is given, what is stored of it, and what keys are listed by."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Required, TypedDict, cast, get_args

from fastapi_guard.scopes import Scope

MAX_TEXT_LENGTH = 255

SubjectType = Literal["user", "agent", "service", "session"]
_SUBJECT_TYPES: Final = get_args(SubjectType)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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

    def renewed(self, now: datetime) -> datetime | None:
        """Return when a key in its place expires: it lives as long as this one was to live, from ``now`` on."""
        return None if self.expires_at is None else later(now, self.expires_at - self.created_at)


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

    def __post_init__(self) -> None:
        """Refuse a page that is none; SQLite would take a negative limit for no limit.

        Raises:
            ValueError: A number is negative.
        """
        if min(self.limit or 0, self.offset) < 0:
            msg = f"limit and offset count keys, so they cannot be negative: {self.limit}, {self.offset}"
            raise ValueError(msg)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a new key out of what was given for it.

    Raises:
        ValueError: A field is not what KeyFields says.
        TypeError: There is no such field.
    """
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
    user_id = text("user_id", given["user_id"])
    if not user_id:
        msg = "user_id is whom the key belongs to, which cannot be empty"
        raise ValueError(msg)
    return {
        "user_id": user_id,
        "name": text("name", given.get("name", "")),
        "subject_type": subject_type,
        "tenant_id": text("tenant_id", given.get("tenant_id"), optional=True),
        "is_admin": is_admin,
        "scopes": _scopes(given.get("scopes", ())),
        "expires_at": moment("expires_at", given.get("expires_at")),
        "metadata_": _metadata(given.get("metadata")),
    }


def text(name: str, value: object, *, optional: bool = False) -> str | None:
    """Return what fits a column for text.

    Raises:
        ValueError: It does not.
    """
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
            encoded = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
            encoded.encode("utf-8")
            return cast("dict[str, Any]", json.loads(encoded))
    except (TypeError, ValueError, RecursionError):
        pass
    msg = "metadata is an object that JSON can say: texts, numbers, lists and objects by name"
    raise ValueError(msg)


def moment(name: str, value: object) -> datetime | None:
    """Return a moment in UTC.

    Raises:
        ValueError: It is no aware datetime.
    """
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


def later(start: datetime, by: timedelta) -> datetime:
    """Return the moment so much later, or the last that a datetime counts."""
    try:
        return start + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def earlier(start: datetime, by: timedelta) -> datetime:
    """Return the moment so much earlier, or the first that a datetime counts.

    Raises:
        ValueError: The duration is negative.
    """
    if by < timedelta(0):
        msg = "how long ago cannot be negative"
        raise ValueError(msg)
    try:
        return start - by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
