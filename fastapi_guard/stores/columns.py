"""Column types for values that no log may show. Needs the extra ``sqlalchemy``."""

from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.stores.hidden import HiddenBytes, HiddenText

try:
    from sqlalchemy import Dialect, LargeBinary, Text
    from sqlalchemy.types import TypeDecorator
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None


class SecretBytes(TypeDecorator[bytes]):
    """Bytes that are hidden in the log of a statement, its parameters and its rows."""

    # With these two, a generated migration contains sa.LargeBinary() and does not depend on this package.
    __module__ = "sqlalchemy.types"

    def __repr__(self) -> str:
        """Return the repr of the type in the database."""
        return repr(self.impl)

    impl: type[LargeBinary] = LargeBinary
    cache_ok: bool | None = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - SQLAlchemy's
        """Hide it in the log of the parameters."""
        return None if value is None else HiddenBytes(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002 - SQLAlchemy's
        """Hide it in the log of the rows."""
        return None if value is None else HiddenBytes(value)


class SecretText(TypeDecorator[str]):
    """Text that is hidden in the log of a statement, its parameters and its rows."""

    __module__ = "sqlalchemy.types"

    def __repr__(self) -> str:
        """Return the repr of the type in the database."""
        return repr(self.impl)

    impl: type[Text] = Text
    cache_ok: bool | None = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Hide it in the log of the parameters."""
        return None if value is None else HiddenText(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """Hide it in the log of the rows."""
        return None if value is None else HiddenText(value)
