"""The credentials that are sent: those that hold, and those that do not."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from . import wrk
from .wrk import Request


class Mix:
    """Requests by name, listed for two wrks: one receives 200, the other 401."""

    def __init__(self, folder: Path) -> None:
        """Keep the lists in a folder."""
        self.accepted_file, self.refused_file = folder / "accepted.txt", folder / "refused.txt"
        self._accepted: dict[str, Request] = {}
        self._refused: dict[str, Request] = {}
        self._leaving: dict[str, Request] = {}

    def __iter__(self) -> Iterator[tuple[str, Request, int]]:
        """Yield all that are sent: the name, the request, the status that is expected."""
        yield from [(name, request, 200) for name, request in self._accepted.items()]
        yield from [(name, request, 401) for name, request in self._refused.items()]

    def credential(self, name: str) -> str:
        """Return one that holds, or is leaving."""
        return (self._accepted | self._leaving)[name].credential

    def accept(self, name: str, path: str, raw: str) -> None:
        """Send one that holds, as a bearer."""
        self._accepted[name] = Request(path=path, credential=f"Bearer {raw}")
        self._write()

    def refuse(self, name: str, path: str, credential: str) -> None:
        """Send one that is invalid."""
        self._refused[name] = Request(path=path, credential=credential)
        self._write()

    def leave(self, names: Iterable[str]) -> None:
        """Send these no more, so that wrk has none of them under way when they end."""
        self._leaving |= {name: self._accepted.pop(name) for name in names}
        self._write()

    def end(self, names: Iterable[str]) -> None:
        """Send these again, among those that are invalid."""
        self._refused |= {name: self._leaving.pop(name) for name in names}
        self._write()

    def drop(self, name: str) -> None:
        """Forget one that holds."""
        del self._accepted[name]
        self._write()

    def _write(self) -> None:
        wrk.write(self.accepted_file, self._accepted.values())
        wrk.write(self.refused_file, self._refused.values())
