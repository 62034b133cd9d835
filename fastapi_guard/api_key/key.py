"""A key as it is stored, its claims, and queries for keys."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal, Self, TypedDict, cast, get_type_hints

from fastapi_guard.api_key.format import KEY_ID
from fastapi_guard.claims import Claims, Subject, copied
from fastapi_guard.exceptions import KeyNotFound

MAX_TEXT_LENGTH = 255
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredKey:
    """A key as it is stored, without its digest.

    Attributes:
        key_id: The id, which is not a secret.
        name: The name for people.
        environment: The environment, ``None`` where the Auth has none.
        subject_type: The kind of the owner.
        issuer: The issuer of the owner, ``None`` for the application itself.
        user_id: The owner.
        tenant_id: The tenant, ``None`` for none.
        is_admin: Whether the claims have ``is_admin``.
        scopes: The granted scopes.
        metadata: The JSON object that came with it.
        allowed_networks: The networks that it is accepted from; empty: from anywhere.
        allowed_origins: The origins that may send it; empty: no such rule.
        rate: How many requests in which time, ``None`` for any number.
        quota: How many requests in a period, or in all; ``None`` for any number.
        quota_seconds: The period of the quota, ``None`` for a quota that is never refilled.
        usage_id: The key id under which its requests are counted: a key that replaces another goes on counting.
        maker_issuer: The issuer of the subject that made it.
        maker_id: The subject that made it, ``None`` where that is not known.
        maker_key_id: The API key that made it, ``None`` where it was not one; after a rotation that of the new key.
        outlives_maker: Whether it goes on when its maker ends.
        created_at: When it was created.
        expires_at: When it expires, ``None`` for never.
        paused_at: When it was paused, ``None`` where it is not.
        paused_by: The actor who paused it.
        revoked_at: When it was revoked, ``None`` where it was not.
        last_used_at: When it was last used, to the minute, ``None`` for never.
        last_address: The address that it was last used from, as far as the server knew one.
        replaced_by: The id of the key that replaced it at a rotation.
    """

    key_id: str
    name: str = ""
    environment: str | None = None
    subject_type: str = "user"
    issuer: str | None = None
    user_id: str
    tenant_id: str | None = None
    is_admin: bool = False
    scopes: list[str]
    metadata: dict[str, Any]
    allowed_networks: list[str]
    allowed_origins: list[str]
    rate: str | None = None
    quota: int | None = None
    quota_seconds: int | None = None
    usage_id: str
    maker_issuer: str | None = None
    maker_id: str | None = None
    maker_key_id: str | None = None
    outlives_maker: bool = False
    created_at: datetime
    expires_at: datetime | None = None
    paused_at: datetime | None = None
    paused_by: str | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    last_address: str | None = None
    replaced_by: str | None = None

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Return the key in a row of COLUMNS, in their order."""
        return cls.of_columns(dict(zip(COLUMNS, row, strict=True)))

    @classmethod
    def of_columns(cls, columns: dict[str, Any]) -> Self:
        """Return the key with the values of COLUMNS, by name.

        Flags, scopes and metadata that were edited by hand and have another type grant nothing.

        Raises:
            ValueError: Another column has another type, such as a restriction, without which the key could be used from
                anywhere.
        """
        # Nothing in a row from before the column was added. The same object: a cached key needs less memory.
        if columns["usage_id"] in (None, columns["key_id"]):
            columns["usage_id"] = columns["key_id"]
        columns |= {name: _restriction(columns[name]) for name in ("allowed_networks", "allowed_origins")}
        if not _have_their_types(columns):
            msg = "a column has another type"
            raise ValueError(msg)
        columns |= {name: columns[name] == 1 for name in ("is_admin", "outlives_maker")}  # SQLite has numbers
        columns["scopes"] = _granted(columns["scopes"])
        columns["metadata"] = columns["metadata"] if isinstance(columns["metadata"], dict) else {}
        return cls(**columns)

    @property
    def owner(self) -> Subject:
        """The subject that the key acts as."""
        return Subject(self.issuer, self.user_id)

    @property
    def maker(self) -> Subject | None:
        """The subject that made the key, where it is known."""
        return None if self.maker_id is None else Subject(self.maker_issuer, self.maker_id)

    @property
    def is_limited(self) -> bool:
        """Whether the requests with the key are counted."""
        return self.rate is not None or self.quota is not None

    def status(self, now: datetime) -> Literal["active", "paused", "expired", "revoked"]:
        """Return whether the key is accepted at the moment ``now``, or why not."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active" if self.paused_at is None else "paused"

    def renewed(self, now: datetime) -> datetime | None:
        """Return the expiry of a key that replaces this one at ``now``: after the same lifetime."""
        return None if self.expires_at is None else later(now, self.expires_at - self.created_at)

    def claims(self) -> Claims:
        """Return the claims of a request with the key.

        ``sub``, ``subject_type``, ``key_id``, ``name``, ``scope``, ``tenant_id``, ``is_admin``, ``iat``, ``metadata``;
        ``iss``, ``environment`` and ``exp`` where there is one.
        """
        claims: Claims = {
            "sub": self.user_id,
            "subject_type": self.subject_type,
            "key_id": self.key_id,
            "name": self.name,
            "scope": " ".join(self.scopes),
            "tenant_id": self.tenant_id,
            "is_admin": self.is_admin,
            "iat": int(self.created_at.timestamp()),
            "metadata": copied(self.metadata),
        }
        if self.issuer is not None:
            claims["iss"] = self.issuer
        if self.environment is not None:
            claims["environment"] = self.environment
        if self.expires_at is not None:
            claims["exp"] = int(self.expires_at.timestamp())
        return claims


# The columns of a key without its digest.
COLUMNS: Final = tuple(column.name for column in fields(StoredKey))
_CONVERTED: Final = ("scopes", "metadata", "allowed_networks", "allowed_origins", "is_admin", "outlives_maker")
# The types of the others. SQLite stores any value in any column.
_TYPES: Final = {name: kind for name, kind in get_type_hints(StoredKey).items() if name not in _CONVERTED}


class Filter(Enum):
    """A filter of a query that is not set."""

    ANY = "any"


ANY: Final = Filter.ANY
TextFilter = str | Literal[Filter.ANY] | None


class KeyQueryFields(TypedDict, total=False):
    """The keys to list.

    Attributes:
        user_id: Those of this owner.
        issuer: Those whose owner is of this issuer; ``None``: of the application itself.
        subject_type: Those of this kind of owner.
        tenant_id: Those of this tenant; ``None``: of no tenant.
        environment: Those of this environment; ``None``: of none.
        unused_for: Those not used for so long; one that was never used counts from its creation.
        active_only: Those that are neither paused, expired nor revoked.
        limit: At most so many.
        offset: Without the first so many.
    """

    user_id: str | None
    issuer: TextFilter
    subject_type: str | None
    tenant_id: TextFilter
    environment: TextFilter
    unused_for: timedelta | None
    active_only: bool
    limit: int | None
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyQuery:
    """The keys to list; see KeyQueryFields."""

    user_id: str | None = None
    issuer: TextFilter = ANY
    subject_type: str | None = None
    tenant_id: TextFilter = ANY
    environment: TextFilter = ANY
    unused_for: timedelta | None = None
    active_only: bool = False
    limit: int | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        """Reject a negative page; SQLite would read a negative limit as no limit.

        Raises:
            ValueError: A number is negative.
        """
        if min(self.limit or 0, self.offset) < 0:
            msg = f"limit and offset count keys, so they cannot be negative: {self.limit}, {self.offset}"
            raise ValueError(msg)

    def equals(self) -> dict[str, str | None]:
        """Return the columns that have to be equal to a text, or absent for ``None``.

        Raises:
            ValueError: A text does not fit its column.
        """
        required = {"user_id": self.user_id, "subject_type": self.subject_type}
        optional = {"issuer": self.issuer, "tenant_id": self.tenant_id, "environment": self.environment}
        found: dict[str, str | None] = {
            name: text(name, value) for name, value in required.items() if value is not None
        }
        found |= {name: optional_text(name, value) for name, value in optional.items() if value is not ANY}
        return found


def _granted(value: object) -> list[str]:
    listed = value if isinstance(value, list) else []
    # A list that is copied item by item needs more memory.
    return listed if all(isinstance(scope, str) for scope in listed) else [s for s in listed if isinstance(s, str)]


def _restriction(value: object) -> list[str]:
    listed = [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        msg = "networks and origins are lists of texts"
        raise ValueError(msg)
    return listed


def _have_their_types(columns: dict[str, Any]) -> bool:
    period = columns["quota_seconds"]
    return all(isinstance(columns[name], kind) for name, kind in _TYPES.items()) and (period is None or period >= 1)


def fits(value: object) -> bool:
    """Return whether a value fits a column for text."""
    return isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH and not _CONTROL.search(value)


def text(name: str, value: object) -> str:
    """Return a text that fits its column.

    Raises:
        ValueError: It does not.
    """
    if not fits(value):
        msg = (
            f"{name} is a text of at most {MAX_TEXT_LENGTH} characters without control characters, such as str(user.id)"
        )
        raise ValueError(msg)
    return cast("str", value)


def optional_text(name: str, value: object) -> str | None:
    """Return ``None``, or a text that fits its column.

    Raises:
        ValueError: It is neither.
    """
    return None if value is None else text(name, value)


def later(start: datetime, by: timedelta) -> datetime:
    """Return the moment so much later, or the last moment of a datetime."""
    try:
        return start + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def earlier(start: datetime, by: timedelta) -> datetime:
    """Return the moment so much earlier, or the first moment of a datetime.

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


def unknown_key(key_id: str) -> KeyNotFound:
    """Return the error for an id without a key."""
    if not KEY_ID.fullmatch(key_id):
        # It may be a whole key that was pasted: it is not shown.
        msg = "that is not the id of an API key: an id is the 16 letters and digits before the last hyphen"
        return KeyNotFound(msg)
    return KeyNotFound(f"there is no API key with the id {key_id}")
