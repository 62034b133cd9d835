"""The credentials that are sent: those that are accepted, and those that are not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import wrk
from .wrk import Request

EXPECTED = (200, 401, 403, 429)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A request that is sent again and again.

    Attributes:
        request: The request.
        expected: The status.
        needs: The servers without which the response is 503.
    """

    request: Request
    expected: int
    needs: tuple[str, ...]


class Mix:
    """Requests by name, listed for one wrk each expected status."""

    def __init__(self, folder: Path) -> None:
        """Keep the lists in a folder."""
        self.files = {expected: folder / f"{expected}.txt" for expected in EXPECTED}
        self._sent: dict[str, Sent] = {}
        self._leaving: dict[str, Sent] = {}

    def __iter__(self) -> Iterator[tuple[str, Sent]]:
        """Yield all that are sent."""
        yield from list(self._sent.items())

    def names(self, beginning: str, *, expected: int = 200) -> list[str]:
        """Return the names that begin so, of those with this expected status."""
        return [name for name, sent in self if sent.expected == expected and name.startswith(beginning)]

    def cookie(self, name: str) -> str:
        """Return the cookie of one that is sent, or is leaving."""
        return (self._sent | self._leaving)[name].request.credential

    def raw(self, name: str) -> str:
        """Return the token or key of one that is sent, or is leaving."""
        return (self._sent | self._leaving)[name].request.credential.removeprefix("Bearer ")

    def send(self, name: str, request: Request, expected: int, needs: Iterable[str]) -> None:
        """Send a request from now on."""
        self._sent[name] = Sent(request=request, expected=expected, needs=tuple(needs))
        self._write()

    def leave(self, names: Iterable[str]) -> None:
        """Send these no more, so that wrk has none of them under way when they end."""
        self._leaving |= {name: self._sent.pop(name) for name in names}
        self._write()

    def end(self, names: Iterable[str]) -> None:
        """Send these again, and expect 401."""
        self._sent |= {name: replace(self._leaving.pop(name), expected=401) for name in names}
        self._write()

    def drop(self, names: Iterable[str]) -> None:
        """Forget some that are sent."""
        for name in names:
            del self._sent[name]
        self._write()

    def _write(self) -> None:
        for expected, file in self.files.items():
            wrk.write(file, [sent.request for sent in self._sent.values() if sent.expected == expected])
