"""ID tokens that are kept for a logout at the provider, encrypted (OpenID Connect RP-Initiated Logout 2)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from fastapi_guard.login.keyring import Keyring, Secret
from fastapi_guard.login.providers.attempts import new_secret
from fastapi_guard.login.providers.provider import Identity
from fastapi_guard.login.state import digest_of
from fastapi_guard.stores.kinds import SIGN_IN
from fastapi_guard.stores.protocol import Record, Store

HINT: Final = "hint"
# From the answer of the provider to the session: as long as a second step may take, and a little more.
_ARRIVAL_SECONDS: Final = 900


class IDTokenHints:
    """Keeps the ID token of each login at a provider, under a random text in the claim ``idp`` of that login.

    Who reads the store sees no ID token: each is sealed, and bound to its record.
    """

    def __init__(self, store: Store, key: Secret | Mapping[str, Secret], *, now: Callable[[], float]) -> None:
        """Encrypt with ``key``, and keep in ``store``.

        Raises:
            ConfigurationError: The key is short or well known.
        """
        self._keys = Keyring(key, "id-token-hints")
        self._store = store
        self._now = now

    async def keep(self, identity: Identity) -> dict[str, str]:
        """Keep the ID token of an identity that was just verified; return what the claim ``idp`` has beside it.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if identity.id_token is None:
            return {}
        hint = new_secret()
        key = _key_of(hint)
        sealed = self._keys.seal(identity.id_token.encode(), key).encode("ascii")
        await self._store.add(Record(key, sealed, None, self._now() + _ARRIVAL_SECONDS))
        return {HINT: hint}

    async def extend(self, idp: Mapping[str, Any], until: float) -> None:
        """Keep the ID token of a login that led to a session as long as that is remembered.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        key = _key_of(str(idp.get(HINT)))
        [record] = await self._store.get(key)
        if record is not None:
            await self._store.replace(key, record, replace(record, expires_at=until))

    async def take(self, idp: Mapping[str, Any]) -> str | None:
        """Return the ID token of a login, and keep it no longer; ``None`` where there is none.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        key = _key_of(str(idp.get(HINT)))
        [record] = await self._store.get(key)
        if record is None:
            return None
        await self._store.delete(key)
        plain = self._keys.open(record.value.decode("ascii", "replace"), key)
        return None if plain is None else plain.decode()

    async def forget(self, hint: str | None) -> None:
        """Delete an ID token.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        await self._store.delete(_key_of(str(hint)))


def _key_of(hint: str) -> str:
    return f"{SIGN_IN}hint:{digest_of(hint)}"
