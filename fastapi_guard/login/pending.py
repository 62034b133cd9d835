"""Logins that wait for their second step."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeGuard

from fastapi_guard.login.state import digest_of, owner_of
from fastapi_guard.stores.kinds import PENDING
from fastapi_guard.stores.protocol import Record, Store, take
from fastapi_guard.stores.values import Count, RecordForm

LIFETIME_SECONDS: Final = 600
TRIES: Final = 5
_ID_BYTES: Final = 32
_ID_CHARACTERS: Final = 43  # of so many bytes in base64url


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """A login that needs a second step. It is good for nothing but that step.

    Attributes:
        id: What the second step takes, a secret. It never belongs into a URL.
        factors: The kinds of factors that the user can prove, the strongest first.
        expires_in: Seconds until the login has to begin again.
    """

    id: str = field(repr=False)
    factors: list[str]
    expires_in: int = LIFETIME_SECONDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """The record of a pending login.

    Attributes:
        subject: The user.
        version: The ``credentials_version`` of the user when the login began. A change of it ends the login.
        methods: What was proven so far, for ``amr``.
        claims: The claims that the login keeps over refreshes.
        at: When it began, in seconds since the epoch.
        factors: The kinds that the user could prove then.
        tries: How many second steps were tried.
    """

    subject: str
    version: int
    methods: list[str]
    claims: Mapping[str, Any]
    at: float
    factors: list[str]
    tries: Count = 0


_BEGUN: Final = RecordForm(Begun, "a pending login")


class PendingLogins:
    """The pending logins of one Login, each a record under the hash of its id."""

    def __init__(self, store: Store, name: str) -> None:
        """Keep them in ``store``; those of a Login of another ``name`` are unknown here."""
        self._store = store
        self._name = name

    async def add(self, begun: Begun) -> Pending:
        """Store a login that begins, and return what the client receives.

        Raises:
            TypeError: A claim is not JSON.
            ValueError: A number in the claims is not finite.
            ServiceUnavailable: The store cannot be reached.
        """
        pending = Pending(id=secrets.token_urlsafe(_ID_BYTES), factors=begun.factors)
        await self._store.add(self._record(pending.id, begun))
        return pending

    async def get(self, pending_id: object) -> Begun | None:
        """Return a login that is pending, and leave it so.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if not _is_id(pending_id):
            return None
        [record] = await self._store.get(self.key(pending_id))
        return _BEGUN.read_or_none(record)

    async def take(self, pending_id: object) -> Begun | None:
        """Remove a pending login from the store for one try, and return it with the try counted.

        Of several callers one receives it. It is over, unless it is put back.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if not _is_id(pending_id):
            return None
        begun = _BEGUN.read_or_none(await take(self._store, self.key(pending_id)))
        return None if begun is None else replace(begun, tries=begun.tries + 1)

    async def put_back(self, pending_id: str, taken: Begun) -> None:
        """Store a login again that was taken and is not complete, unless that was its last try.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if taken.tries < TRIES:
            await self._store.add(self._record(pending_id, taken))

    def key(self, pending_id: str) -> str:
        """Return the key of the record, which is not secret."""
        return PENDING + digest_of(f"{self._name}|{pending_id}")

    def _record(self, pending_id: str, begun: Begun) -> Record:
        # With an owner, so that it ends with the tokens of its subject.
        return Record(self.key(pending_id), _BEGUN.encoded(begun), owner_of(begun.subject), begun.at + LIFETIME_SECONDS)


def _is_id(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and len(text) == _ID_CHARACTERS
