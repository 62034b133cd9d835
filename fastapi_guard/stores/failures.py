"""Errors of a database: which ones are worth another attempt, and what can be said of one without showing a value.

SQLAlchemy puts the statement with its parameters into the text of an error, and a database quotes rows in its own. None
of that may reach a log or a chained traceback: it contains hashes of passwords. Needs the extra ``sqlalchemy``.
"""

import logging
import re
from typing import Final

from fastapi_guard.exceptions import GuardError, MissingExtraError, ServiceUnavailable, first_line

try:
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

logger: logging.Logger = logging.getLogger("fastapi_guard")

# A transaction that conflicts with another one under a stricter isolation, or that creates what another process created
# after it was looked for (PostgreSQL, appendix A): do it again.
_CONFLICTS: Final = frozenset({"40001", "40P01", "42P07", "42710"})
# Classes of such codes: a value that does not fit its column, a constraint that is violated.
_BAD_VALUE, _VIOLATION = "22", "23"
_UNDEFINED_TABLE: Final = "42P01"
# SQLite reports a text that is not UTF-8 like a disk that is full, and quotes it.
_NOT_UTF8: Final = "Could not decode to UTF-8"
# The same without such a code: of SQLite and psycopg2, and of PostgreSQL where it waited for the other process.
_EXISTS: Final = re.compile(
    r"\b(?:table|index|relation) .* already exists|\bpg_(?:type_typname|class_relname)_nsp_index\b"
)


class Refused(GuardError):
    """A constraint is violated, or a value does not fit its column; the message is the database's, without values."""


class DatabaseFailure(GuardError):
    """The cause of a ServiceUnavailable: the first line of what the database reported, without values."""


def refused(error: Exception) -> Refused:
    """Return the error for a change that breaks a rule of the database."""
    cause, line = _reported(error)
    return Refused(f"{cause}: {line!r}")


def unavailable(error: Exception) -> ServiceUnavailable:
    """Log that the database is unavailable; return the 503, with a cause that shows no value."""
    cause, line = _reported(error)
    remedy = "; create the tables with `fastapi-guard init-db` or a migration" if _lacks_a_table(error, line) else ""
    logger.warning("the database is unavailable: %s: %r%s", cause, line, remedy)
    failure = ServiceUnavailable(reason="database_unreachable")
    failure.__cause__ = DatabaseFailure(line or cause)
    return failure


def is_transient(error: Exception) -> bool:
    """Return whether another attempt may succeed at once.

    Transactions conflicted, the connection was lost, or another process created the same table at the same time.
    """
    if _sqlstate(error) in _CONFLICTS:
        return True
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated or _EXISTS.search(first_line(str(error.orig))) is not None
    )


def is_refusal(error: Exception) -> bool:
    """Return whether a rule of the database was broken."""
    # asyncpg reports a value of the wrong type outside of the kinds of errors of DB-API.
    return isinstance(error, IntegrityError | DataError) or _sqlstate(error)[:2] in (_BAD_VALUE, _VIOLATION)


def is_unreadable(error: Exception) -> bool:
    """Return whether a SELECT failed because of a value in a row, and can succeed without that row.

    Those errors alone that drivers do not raise as a TypeError, a ValueError or a LookupError: asyncpg raises an
    OverflowError for a moment that no datetime has.
    """
    cause = getattr(error, "orig", None) or error
    return isinstance(cause, ArithmeticError) or _NOT_UTF8 in str(cause)


def _lacks_a_table(error: Exception, line: str) -> bool:
    return _sqlstate(error) == _UNDEFINED_TABLE or line.startswith("no such table")  # SQLite


def _sqlstate(error: Exception) -> str:
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _reported(error: Exception) -> tuple[str, str]:
    cause = getattr(error, "orig", None) or error
    text = str(cause)
    is_value = isinstance(error, DataError) or _sqlstate(error)[:2] == _BAD_VALUE or is_unreadable(error)
    if is_value or "query argument" in text:
        # The first line of these quotes the value.
        text = "a value does not fit its column"
    return type(cause).__name__, first_line(text)
