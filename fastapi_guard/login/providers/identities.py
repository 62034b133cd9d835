"""The identities at providers that are linked to users, and where they are kept."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

from fastapi_guard.login.state import digest_of
from fastapi_guard.login.user_records import UserRecords
from fastapi_guard.stores.arguments import check_texts, store_of
from fastapi_guard.stores.protocol import Store
from fastapi_guard.stores.values import RecordForm

if TYPE_CHECKING:
    from fastapi_guard.login.providers.identity_models import IdentityMixin
    from fastapi_guard.stores.database import SessionFactory

_KEY: Final = "identity:"


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkedIdentity:
    """An identity at a provider that belongs to a user.

    Attributes:
        id: A hash of issuer and provider's subject, so that an identity belongs to one user.
        subject: The ``subject_id`` of the user.
        provider: The name of the provider.
        issuer: The issuer.
        provider_subject: The ``sub`` at the provider.
        label: What to show of it: the address or the name that the provider named when it was linked.
        created_at: Seconds since the epoch.
    """

    id: str
    subject: str
    provider: str
    issuer: str
    provider_subject: str
    label: str | None
    created_at: float


_FORM: Final = RecordForm(LinkedIdentity, "a linked identity")


class Identities(Protocol):
    """Storage of linked identities. Each method is atomic; any exception but an AuthError becomes a 503."""

    async def of(self, subject: str) -> Sequence[LinkedIdentity]:
        """Return the identities of a user, the oldest first."""
        ...  # pragma: no cover

    async def get(self, identity_id: str) -> LinkedIdentity | None:
        """Return the identity with this id, of any user."""
        ...  # pragma: no cover

    async def add(self, identity: LinkedIdentity) -> bool:
        """Store an identity unless its id is taken; return whether it was stored."""
        ...  # pragma: no cover

    async def remove(self, identity_id: str) -> bool:
        """Remove an identity; of several callers one receives ``True``."""
        ...  # pragma: no cover


class StoredIdentities(UserRecords[LinkedIdentity]):
    """Identities in a Store: the default. It has to be durable: a MemoryStore forgets them."""

    def __init__(self, store: Store, *, name: str = "login") -> None:
        """Keep identities in ``store``; those under the ``name`` of another Login are unknown here."""
        store_of("store", store)
        check_texts(name=name)
        super().__init__(store, _FORM, f"{_KEY}{digest_of(name)[:16]}:")


class DatabaseIdentities:
    """Identities in a table of the application's database, by ``fastapi_guard.login.providers.identity_models``."""

    def __init__(self, session_factory: "SessionFactory", *, model: "type[IdentityMixin] | None" = None) -> None:
        """Work in sessions of a sessionmaker or an async_sessionmaker, which are committed here.

        Args:
            session_factory: The sessionmaker.
            model: A model with IdentityMixin, by default the ready StoredIdentity.

        Raises:
            ConfigurationError: It is not a sessionmaker, or of a SQLite database in memory.
            MissingExtraError: The extra ``sqlalchemy`` is not installed.
        """
        from fastapi_guard.login.providers import identity_models as models  # noqa: PLC0415 - needs an extra

        self._table = models.IdentityTable(session_factory, model or models.StoredIdentity)

    async def create_table(self) -> None:
        """Create the table unless it exists."""
        await self._table.create()

    async def of(self, subject: str) -> Sequence[LinkedIdentity]:
        """Return the identities of a user, the oldest first."""
        found = await self._table.where("subject_id", subject)
        return sorted(found, key=lambda identity: (identity.created_at, identity.id))

    async def get(self, identity_id: str) -> LinkedIdentity | None:
        """Return the identity with this id, of any user."""
        found = await self._table.where("identity_id", identity_id)
        return found[0] if found else None

    async def add(self, identity: LinkedIdentity) -> bool:
        """Store an identity unless its id is taken; return whether it was stored."""
        return await self._table.add(identity)

    async def remove(self, identity_id: str) -> bool:
        """Remove an identity; of several callers one receives ``True``."""
        return await self._table.remove(identity_id)


def identity_id(issuer: str, subject: str) -> str:
    """Return the id of an identity. Its length keeps an issuer apart from a subject that begins like it."""
    return sha256(json.dumps([issuer, subject]).encode("ascii")).hexdigest()
