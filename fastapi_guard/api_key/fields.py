"""The fields of a new key, and how they are checked."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Required, TypedDict, cast, get_args

from fastapi_guard.api_key.key import StoredKey, optional_text, text
from fastapi_guard.api_key.limits import LARGEST_INTEGER, check_rate
from fastapi_guard.claims import Subject
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes.address import parse_network
from fastapi_guard.schemes.origin import trusted
from fastapi_guard.scopes import Scope

_MAX_LISTED: Final = 1000

SubjectType = Literal["user", "agent", "service", "session"]
_SUBJECT_TYPES: Final = get_args(SubjectType)


class KeyFields(TypedDict, total=False):
    """The fields of a new key.

    Attributes:
        user_id: The owner; the ``sub`` of the claims.
        issuer: The issuer of that subject, where it is not the application itself; the ``iss`` of the claims.
        name: A name for people.
        scopes: The granted scopes; a bare ``*`` is every scope.
        is_admin: Whether the claims have ``is_admin``.
        tenant_id: The tenant; ``None`` for none.
        expires_at: The moment of expiry, an aware datetime in the future; ``None`` for no expiry.
        metadata: A JSON object; it comes back in the claims.
        subject_type: The kind of the owner: ``user``, ``agent``, ``service`` or ``session``.
        environment: One of the environments of the Auth, such as ``test``; it is part of the text of the key.
        allowed_networks: The networks that the key is accepted from, in CIDR notation; none: from anywhere.
        allowed_origins: The origins of the pages that may send the key (the field ``Origin``); none: no such rule.
        rate: How many requests in which time, in the notation of ``limits``: ``100/minute``, ``5/second; 1000/day``.
        quota: How many requests in all, or in each ``quota_period``.
        quota_period: The time after which the quota is full again; ``None``: never.
        maker: The subject that makes the key, where it is known: the key ends with the maker too.
        maker_key: The id of the API key that makes the key, where it is one: the key is revoked with it.
        outlives_maker: Whether the key goes on when its maker ends, as the key of a service account does.
        by: The actor for the event table.
    """

    user_id: Required[str]
    issuer: str | None
    name: str
    scopes: Iterable[str]
    is_admin: bool
    tenant_id: str | None
    expires_at: datetime | None
    metadata: Mapping[str, Any] | None
    subject_type: SubjectType
    environment: str | None
    allowed_networks: Iterable[str]
    allowed_origins: Iterable[str]
    rate: str | None
    quota: int | None
    quota_period: timedelta | None
    maker: Subject | None
    maker_key: str | None
    outlives_maker: bool
    by: str | None


def stored_key(given: Mapping[str, Any], *, key_id: str, now: datetime) -> StoredKey:
    """Return the key that these fields make, see KeyFields, created at ``now``.

    Raises:
        ValueError: A field does not fit KeyFields; the message has the first such field.
        TypeError: There is no such field.
    """
    unknown = sorted(given.keys() - KeyFields.__annotations__.keys())
    if unknown:
        msg = f"a key has no {', '.join(unknown)}"
        raise TypeError(msg)
    user_id = text("user_id", given["user_id"])
    if not user_id:
        msg = "user_id is the owner of the key, which cannot be empty"
        raise ValueError(msg)
    subject_type = given.get("subject_type", "user")
    if subject_type not in _SUBJECT_TYPES:
        msg = f"subject_type is one of {', '.join(_SUBJECT_TYPES)}"
        raise ValueError(msg)
    expires_at = moment("expires_at", given.get("expires_at"))
    if expires_at is not None and expires_at <= now:
        msg = "expires_at has passed"
        raise ValueError(msg)
    maker_issuer, maker_id = given.get("maker") or (None, None)
    quota, quota_seconds = _quota(given.get("quota"), given.get("quota_period"))
    return StoredKey(
        key_id=key_id,
        usage_id=key_id,
        created_at=now,
        expires_at=expires_at,
        user_id=user_id,
        issuer=optional_text("issuer", given.get("issuer")),
        name=text("name", given.get("name", "")),
        subject_type=subject_type,
        tenant_id=optional_text("tenant_id", given.get("tenant_id")),
        environment=optional_text("environment", given.get("environment")),
        is_admin=_flag("is_admin", given.get("is_admin", False)),
        scopes=list(
            dict.fromkeys(str(Scope(scope)) for scope in _texts("scopes", given.get("scopes", ()), "items:read"))
        ),
        metadata=_metadata(given.get("metadata")),
        allowed_networks=_networks(given.get("allowed_networks", ())),
        allowed_origins=_origins(given.get("allowed_origins", ())),
        rate=None if given.get("rate") is None else check_rate(text("rate", given["rate"])),
        quota=quota,
        quota_seconds=quota_seconds,
        maker_issuer=optional_text("maker", maker_issuer),
        maker_id=optional_text("maker", maker_id),
        maker_key_id=optional_text("maker_key", given.get("maker_key")),
        outlives_maker=_flag("outlives_maker", given.get("outlives_maker", False)),
    )


def moment(name: str, value: object) -> datetime | None:
    """Return ``None``, or a moment in UTC.

    Raises:
        ValueError: It is not an aware datetime.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        msg = f"{name} is an aware datetime, such as datetime.now(UTC) + timedelta(days=90), not {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - every field that is wrong is a ValueError
    if value.utcoffset() is None:
        msg = f"{name} is a naive datetime, and its moment is unknown: use datetime.now(UTC)"
        raise ValueError(msg)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        msg = f"{name} is outside of the years of a datetime"
        raise ValueError(msg) from None


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        msg = f"{name} is True or False, not {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - every field that is wrong is a ValueError
    return value


def _texts(name: str, value: object, example: str) -> list[Any]:
    listed = None if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if listed is None or len(listed) > _MAX_LISTED:
        msg = f"{name} is a list of at most {_MAX_LISTED} texts, such as [{example!r}]"
        raise ValueError(msg)
    return listed


def _networks(value: object) -> list[str]:
    example = "192.0.2.0/24"
    try:
        networks = [
            str(parse_network(text("a network", network))) for network in _texts("allowed_networks", value, example)
        ]
    except ValueError:
        msg = f"allowed_networks are networks in CIDR notation without bits behind the prefix, such as [{example!r}]"
        raise ValueError(msg) from None
    return list(dict.fromkeys(networks))


def _origins(value: object) -> list[str]:
    example = "https://app.example"
    origins = _texts("allowed_origins", value, example)
    try:
        trusted(origins)
    except ConfigurationError:
        msg = f"allowed_origins are origins as a browser sends them, such as [{example!r}]"
        raise ValueError(msg) from None
    return list(dict.fromkeys(origins))


def _quota(quota: object, period: object) -> tuple[int | None, int | None]:
    if quota is not None and (type(quota) is not int or not 1 <= quota <= LARGEST_INTEGER):
        msg = f"quota is a whole number of requests from 1 to {LARGEST_INTEGER}"
        raise ValueError(msg)
    if period is None:
        return quota, None
    if quota is None or not isinstance(period, timedelta) or period < timedelta(seconds=1) or period.microseconds:
        msg = "quota_period is a timedelta of whole seconds, after which the quota is full again"
        raise ValueError(msg)
    return quota, int(period.total_seconds())


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
    msg = "metadata is a JSON object: texts, numbers, lists and objects by name"
    raise ValueError(msg)
