"""The entries of a mapping of API keys, checked as a whole: each mistake is named, with its place and without a key."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from fastapi_guard.api_key.mistakes import Flag, Mistakes, Place, ScopeList, Settings, Table, Text
from fastapi_guard.claims import Claims, copied
from fastapi_guard.exceptions import shown
from fastapi_guard.stores.hidden import revealed

MIN_KEY_LENGTH: Final = 16
_HASH: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")


class StaticKey(NamedTuple):
    """A key of the configuration.

    Attributes:
        digest: SHA-256 of the key.
        claims: The claims of a request with it.
        expires_at: Seconds since the epoch, ``None`` for never.
    """

    digest: bytes
    claims: Claims
    expires_at: float | None

    def __repr__(self) -> str:
        """Show the claims, and nothing of the key."""
        return f"StaticKey(claims={self.claims!r}, expires_at={self.expires_at!r})"


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            msg = "is not a moment: write it as 2027-01-01T00:00:00Z"
            raise ValueError(msg) from None
    if not isinstance(value, datetime):
        msg = "is a date and a time, such as 2027-01-01T00:00:00Z"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports a ValueError
    if value.utcoffset() is None:
        msg = f"has no time zone, so that its moment is unknown: write {value.isoformat()}Z"
        raise ValueError(msg)
    return value


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        msg = "has a value in it that JSON does not have: put it in quotation marks"
        raise ValueError(msg) from None
    plain: dict[str, Any] = copied(value)
    return plain


class Entry(Settings):
    """The settings of a key."""

    user_id: Text
    tenant_id: Text | None = None
    is_admin: Flag = False
    scopes: ScopeList = Field(default_factory=list)
    expires_at: Annotated[datetime | None, BeforeValidator(_moment)] = None
    metadata: Annotated[dict[str, Any], Table, AfterValidator(_json)] = Field(default_factory=dict)

    def claims(self) -> Claims:
        """Return the claims of a request with the key."""
        claims: Claims = {
            "sub": self.user_id,
            "scope": " ".join(dict.fromkeys(self.scopes)),
            "tenant_id": self.tenant_id,
            "is_admin": self.is_admin,
            "metadata": self.metadata,
        }
        if self.expires_at is not None:
            claims["exp"] = int(self.expires_at.timestamp())
        return claims


def read_entries(
    mistakes: Mistakes, content: object, *, is_sendable: Callable[[str], bool] = str.isascii
) -> list[StaticKey]:
    """Return the keys under ``api_keys`` in ``content``, and add what is wrong to ``mistakes``.

    Args:
        mistakes: Those of the configuration.
        content: A mapping with ``api_keys``, from each key or its hash to an Entry.
        is_sendable: Returns whether a key can be sent by the scheme.
    """
    if not isinstance(content, Mapping):
        mistakes.add((), "is not a mapping with api_keys in it")
        return []
    for name in content:
        if name != "api_keys":
            mistakes.add((str(name),), "is not known; known is api_keys")
    listed: Any = content.get("api_keys")
    if not isinstance(listed, Mapping):
        found = "" if listed is None else f", not {shown(listed)}"
        mistakes.add(("api_keys",), f"has to be there: a mapping from each key to its settings{found}")
        return []
    keys: dict[bytes, StaticKey] = {}
    for number, (key, settings) in enumerate(listed.items(), 1):
        place: Place = ("api_keys", number)
        digest = _digest(mistakes, place, revealed(key), is_sendable)
        if digest in keys:
            mistakes.add(place, "is there twice, perhaps as it is and as its hash")
        try:
            entry = Entry.model_validate(dict(settings) if isinstance(settings, BaseModel) else settings)
        except ValidationError as error:
            mistakes.add_all(error, Entry, place)
        else:
            expires_at = None if entry.expires_at is None else entry.expires_at.timestamp()
            keys[digest] = StaticKey(digest, entry.claims(), expires_at)
    return list(keys.values())


def _digest(mistakes: Mistakes, place: Place, key: object, is_sendable: Callable[[str], bool]) -> bytes:
    if not isinstance(key, str):
        mistakes.add(place, f"is of the type {type(key).__name__}: put it in quotation marks")
        return b"%d" % len(mistakes.found)
    if key.startswith("sha256:"):
        hashed = _HASH.fullmatch(key)
        if hashed is None:
            mistakes.add(
                place, "is not a hash: 64 hexadecimal digits follow sha256:, as `fastapi-guard keys hash` prints them"
            )
            return b"%d" % len(mistakes.found)
        return bytes.fromhex(hashed[1])
    if len(key) < MIN_KEY_LENGTH:
        mistakes.add(place, f"has fewer than {MIN_KEY_LENGTH} characters and can be guessed: use a random one")
    elif not is_sendable(key):
        mistakes.add(place, "has a character that cannot be sent where the key is expected: use letters and digits")
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
