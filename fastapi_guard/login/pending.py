"""Logins that wait for their second step (SECURITY K.49)."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from fastapi_guard.login.state import digest_of
from fastapi_guard.stores.kinds import PENDING
from fastapi_guard.stores.protocol import Record, Store

LIFETIME_SECONDS: Final = 600
TRIES: Final = 5
_ID_BYTES: Final = 32
_LONGEST_ID: Final = 64


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
    tries: int = 0

    def encoded(self) -> bytes:
        """Return the value of the record.

        Raises:
            TypeError: A claim is not JSON.
            ValueError: A number is not finite.
        """
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False).encode("ascii")


class PendingLogins:
    """The pending logins of one Login, each a record under the hash of its id."""

    def __init__(self, store: Store, name: str) -> None:
        """Keep them in ``store``; those of a Login of another ``name`` are unknown here."""
        self._store = store
        self._name = name

    async def add(self, begun: Begun) -> Pending:
        """Store a login that begins, and return what the client receives.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        pending = Pending(id=secrets.token_urlsafe(_ID_BYTES), factors=begun.factors)
        await self._store.add(Record(self.key(pending.id), begun.encoded(), None, begun.at + LIFETIME_SECONDS))
        return pending

    async def get(self, pending_id: object) -> Begun | None:
        """Return a login that is pending and has a try left.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        found = await self._found(pending_id)
        return None if found is None else found[1]

    async def count(self, pending_id: str) -> bool:
        """Count a try before it is verified, so that of many at the same time no more than five are.

        Returns:
            ``False`` where no try is left.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        # Of several at the same time one is counted in each turn.
        while (found := await self._found(pending_id)) is not None:
            record, begun = found
            counted = replace(record, value=replace(begun, tries=begun.tries + 1).encoded())
            if await self._store.replace(record.key, record, counted):
                return True
        return False

    async def finish(self, pending_id: str) -> bool:
        """End a pending login; of several callers one receives ``True``.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._store.delete(self.key(pending_id))

    def key(self, pending_id: str) -> str:
        """Return the key of the record, which is not secret."""
        return PENDING + digest_of(f"{self._name}|{pending_id}")

    async def _found(self, pending_id: object) -> tuple[Record, Begun] | None:
        if not isinstance(pending_id, str) or not 0 < len(pending_id) <= _LONGEST_ID:
            return None
        [record] = await self._store.get(self.key(pending_id))
        if record is None:
            return None
        begun = Begun(**json.loads(record.value))
        return None if begun.tries >= TRIES else (record, begun)
