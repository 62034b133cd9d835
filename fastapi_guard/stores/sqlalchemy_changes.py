"""Changes of rows, read from a table to which they are appended. Needs the extra ``sqlalchemy``.

A transaction that began earlier may be committed later, so that a row appears below others that were read before. On
PostgreSQL a row is settled, and not looked for any more, when every transaction is over that was open when a later row
was read first. SQLite commits in the order of the rows.
"""

import time
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.selects import Rows, Selects

try:
    from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, func, select, true
    from sqlalchemy.ext.compiler import compiles
    from sqlalchemy.sql.functions import FunctionElement
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

# More rows than these are not read: then anything may have changed.
MOST_ROWS: Final = 1000
# A row has its number before its transaction has one, for the moment between two steps of one INSERT.
_SLACK_SECONDS: Final = 5.0


class _Mark(NamedTuple):
    """The rows up to ``row`` are settled when no transaction below ``transaction`` is open any more."""

    row: int
    transaction: int
    read_at: float


class RowChanges:
    """A position in an append-only table; ``read`` returns what its new rows name."""

    def __init__(
        self,
        sessions: Sessions,
        number: ColumnElement[int],
        name: ColumnElement[Any],
        *where: ColumnElement[bool],
        decode: Callable[[Any], str | None] = str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read a table.

        Args:
            sessions: Of the database.
            number: Its column of ascending numbers, never used twice.
            name: Its column with the name of what changed.
            where: Which of its rows count.
            decode: Returns the name, or ``None`` for a row that does not count.
            monotonic: Seconds from any start.
        """
        self._selects = Selects(sessions)
        self._decode = decode
        self._monotonic = monotonic
        self._statement = _statement(number, name, where)
        self._is_placed = False
        self._settled = 0
        self._seen: set[int] = set()
        self._marks: list[_Mark] = []

    async def read(self) -> Collection[str] | None:
        """Return the names in the rows that were appended since the last call; see ``stores.changes.Changes``.

        Raises:
            ServiceUnavailable: The table cannot be read.
        """
        read_at = self._monotonic()
        rows = await self._selects.all(self._statement, {"after": self._settled, "most": MOST_ROWS + 1})
        last = rows[0].last or 0
        has_restarted = last < self._highest
        if has_restarted:
            # The table was emptied or restored: the numbers above the last one are used again.
            self._settled, self._seen, self._marks = last, set(), []
        is_known = self._is_placed and not has_restarted and len(rows) <= MOST_ROWS
        self._is_placed = True
        names = self._advance(rows, read_at)
        return names if is_known else None

    @property
    def _highest(self) -> int:
        return self._marks[-1].row if self._marks else self._settled

    def _advance(self, rows: Rows, read_at: float) -> Collection[str]:
        oldest, next_one, last = rows[0].oldest, rows[0].next_one, rows[0].last or 0
        new = {row.number: row.name for row in rows if row.number is not None and row.number not in self._seen}
        if last > self._highest:
            self._marks.append(_Mark(last, next_one, read_at))
        while self._marks and self._is_settled(self._marks[0], oldest, read_at):
            self._settled = self._marks.pop(0).row
        self._seen = {number for number in self._seen.union(new) if number > self._settled}
        names = (self._decode(name) for name in new.values())
        return {name for name in names if name is not None}

    def _is_settled(self, mark: _Mark, oldest: int, now: float) -> bool:
        if not mark.transaction:  # SQLite
            return True
        return oldest >= mark.transaction and now - mark.read_at >= _SLACK_SECONDS


class _Oldest(FunctionElement[int]):
    """The oldest transaction that is open; 0 on SQLite."""

    type = BigInteger()
    inherit_cache = True
    name = "xmin"


class _Next(FunctionElement[int]):
    """The transaction that begins next; 0 on SQLite."""

    type = BigInteger()
    inherit_cache = True
    name = "xmax"


# By the dialect that compiles the statement, since a session may choose its engine. On others it cannot be compiled.
@compiles(_Oldest, "postgresql")
@compiles(_Next, "postgresql")
def _in_snapshot(element: FunctionElement[int], *_: object, **__: object) -> str:
    return f"CAST(txid_snapshot_{element.name}(txid_current_snapshot()) AS BIGINT)"


@compiles(_Oldest, "sqlite")
@compiles(_Next, "sqlite")
def _without_snapshot(*_: object, **__: object) -> str:
    return "0"


def _statement(
    number: ColumnElement[int], name: ColumnElement[Any], where: tuple[ColumnElement[bool], ...]
) -> Select[Any]:
    last = select(func.max(number)).scalar_subquery()
    state = select(_Oldest().label("oldest"), _Next().label("next_one"), last.label("last")).subquery("state")
    new = select(number.label("number"), name.label("name")).where(number > bindparam("after"), *where)
    new_rows = new.order_by(number).limit(bindparam("most")).subquery("new")
    return select(state.c.oldest, state.c.next_one, state.c.last, new_rows.c.number, new_rows.c.name).select_from(
        state.outerjoin(new_rows, true())
    )
