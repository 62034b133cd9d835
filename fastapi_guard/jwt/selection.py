"""The keys of a shared key set that fit the closed list of algorithms of one configuration."""

from typing import Protocol

from joserfc.jwk import Key

from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.verification import VerificationKeys


class SharedKeys(Protocol):
    """Keys of every algorithm, which change while the application runs. A change makes another tuple."""

    def current(self) -> tuple[Key, ...] | None:
        """Return the keys that can be used at once, ``None`` where they have to be loaded."""
        ...  # pragma: no cover

    async def load(self) -> tuple[Key, ...]:
        """Return usable keys."""
        ...  # pragma: no cover

    async def load_other(self, header: Header, tried: tuple[Key, ...] | None) -> tuple[Key, ...]:
        """Return usable keys, others than ``tried`` where there are any for a token with this header."""
        ...  # pragma: no cover


class Selection:
    """The keys of a shared key set that fit the algorithms of one configuration; a KeySource."""

    def __init__(self, keys: SharedKeys, algorithms: tuple[str, ...]) -> None:
        """Select from ``keys``."""
        self._shared = keys
        self._algorithms = algorithms
        self._selected_from: tuple[Key, ...] | None = None
        self._selected = VerificationKeys((), algorithms)

    def peek(self) -> VerificationKeys | None:
        """Return the keys that can be used at once, ``None`` where they have to be loaded."""
        keys = self._shared.current()
        if keys is self._selected_from and keys is not None:
            return self._selected
        return None if keys is None else self._select(keys)

    async def load(self, header: Header | None = None) -> VerificationKeys:
        """Return usable keys; ``header`` is that of a token that the keys of ``peek()`` did not verify.

        Raises:
            ServiceUnavailable: There are none now.
        """
        if header is None:
            return self._select(await self._shared.load())
        return self._select(await self._shared.load_other(header, self._selected_from))

    def _select(self, keys: tuple[Key, ...]) -> VerificationKeys:
        if keys is not self._selected_from:
            self._selected = VerificationKeys(keys, self._algorithms)
            self._selected_from = keys
        return self._selected
