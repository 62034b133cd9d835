"""The records of a login: their keys, their owners, and the names that keep those of several Auths apart."""

import gc
from collections.abc import Iterable, Mapping
from hashlib import sha256
from threading import Lock
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.stores.arguments import check_parameters, implementing
from fastapi_guard.stores.places import place_of

# How long a store has the record of a session or a family after its expiry. A host whose clock is ahead, where it has
# expired already, can still end it.
EXPIRY_SLACK_SECONDS: Final = 60
_MAX_NAME_CHARACTERS: Final = 64

_claimed: WeakKeyDictionary[object, list[tuple[str, object, object]]] = WeakKeyDictionary()
_lock: Final = Lock()


class EndsWithSubject(Protocol):
    """Credentials of a subject that end with it: RefreshTokens, SessionAuth, Revocations, DatabaseAPIKeyAuth."""

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """End the credentials of ``subject``, except those of the session ``keep``; return how many there were.

        Where ``issuer`` is named, those of another issuer, and of the application itself, are another subject's.
        """
        ...  # pragma: no cover


def holder_of(holder: EndsWithSubject) -> EndsWithSubject:
    """Return ``holder`` if it can end what it has of a subject.

    Raises:
        ConfigurationError: It has no method ``revoke_subject``, the method is not an ``async def``, or has other
            parameters.
    """
    example = "what has revoke_subject(subject, *, keep=None), such as SessionAuth"
    implementing("ends", holder, ("revoke_subject",), example)
    check_parameters(f"ends: {type(holder).__name__}.revoke_subject", holder.revoke_subject, ["subject"], ["keep"])
    return holder


def makers_first(holders: Iterable[EndsWithSubject]) -> list[EndsWithSubject]:
    """Return ``holders`` with API keys last: until a session or a token is revoked, it can make one."""
    return sorted(holders, key=lambda holder: bool(getattr(holder, "_are_made_by_others", False)))


def owner_of(subject: str, issuer: str | None = None) -> str:
    """Return the owner of records of a subject: of fixed length, whatever the length of a ``sub``.

    Args:
        subject: The ``sub``.
        issuer: The ``iss``, where the subject is another issuer's: the same ``sub`` of two issuers is two subjects.
    """
    named = "" if issuer is None else f"{len(issuer)}:{issuer}"
    return f"subject:{digest_of(f'{named}|{subject}')}"


def issuer_of(claims: Mapping[str, Any]) -> str | None:
    """Return the ``iss`` of claims, ``None`` without one."""
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else None


def owner_of_claims(claims: Mapping[str, Any], kind: str) -> str:
    """Return the owner of a record with these claims.

    Raises:
        ValueError: They have no ``sub``.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        msg = f"the claims of a {kind} need a sub, a non-empty string"
        raise ValueError(msg)
    return owner_of(subject, issuer_of(claims))


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal, of any text, lone surrogates included."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_name(name: str) -> str:
    """Return the name of an Auth, which is stored with its records.

    Raises:
        ConfigurationError: It is empty, longer than 64 characters, or has a ``|`` or characters that are not printable.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME_CHARACTERS or not name.isprintable():
        msg = f"a name is text of 1 to {_MAX_NAME_CHARACTERS} printable characters, not {shown(name)}"
        raise ConfigurationError(msg)
    # It stands between the name and the id in what is hashed: with one in it, two Auths could have one key.
    if "|" in name:
        msg = f"a name is text without |, not {shown(name)}"
        raise ConfigurationError(msg)
    return name


def claim(kind: str, place: object, name: object, holder: object, remedy: str) -> None:
    """Reserve ``name`` in ``place`` for ``holder``, for as long as it lives.

    Two Auths of one name on one store would accept each other's records.

    Args:
        kind: What is named; different kinds do not collide.
        place: The store; two of one database, table and prefix are one (``places.place_of``).
        name: The name.
        holder: The object that has the name.
        remedy: What to do about a collision, for the message.

    Raises:
        ConfigurationError: Another object that is still in use has this name there.
    """
    with _lock:
        if _is_taken(kind, place, name, holder):
            # An application that was thrown away, as by a test, is a cycle of references until it is collected.
            gc.collect()
            if _is_taken(kind, place, name, holder):
                msg = f"two {kind} named {name!r} on one store would accept each other's records: {remedy}"
                raise ConfigurationError(msg)
        _claimed.setdefault(holder, []).append((kind, place, name))


def _is_taken(kind: str, place: object, name: object, holder: object) -> bool:
    # Read each time: a session factory may have been bound to an engine in the meantime.
    wanted = place_of(place)
    return any(
        other is not holder and claimed[0] == kind and claimed[2] == name and place_of(claimed[1]) == wanted
        for other, held in list(_claimed.items())
        for claimed in held
    )
