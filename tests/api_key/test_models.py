import sys
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session, sessionmaker

from fastapi_guard import MissingExtraError
from fastapi_guard.api_key import last_use, lookup, models, rows
from fastapi_guard.api_key.models import APIKey, Base
from fastapi_guard.stores import columns
from fastapi_guard.stores.columns import SecretBytes, UTCDateTime


def test_what_the_types_are_to_others() -> None:
    """The types show what the database sees, hold for naive databases too, and say nothing of a value."""
    assert repr(UTCDateTime()) == "DateTime(timezone=True)"
    assert repr(SecretBytes(32)) == "LargeBinary(length=32)"
    dialect: Any = None
    secret, moments = SecretBytes(), UTCDateTime()
    assert secret.process_bind_param(None, dialect) is secret.process_result_value(None, dialect) is None
    assert moments.process_bind_param(None, dialect) is moments.process_result_value(None, dialect) is None
    assert repr(secret.process_bind_param(b"digest", dialect)) == "<hidden>"
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - as SQLite gives it
    assert moments.process_result_value(naive, dialect) == datetime(2030, 1, 1, tzinfo=UTC)


def test_a_naive_moment_is_not_stored(tmp_path: Path) -> None:
    """A row with a naive moment is refused by the model itself; with an aware one it is stored."""
    engine = create_engine(f"sqlite:///{tmp_path / 'keys.db'}")
    Base.metadata.create_all(engine)
    row = {"key_id": "0" * 16, "user_id": "alice", "salt": b"s" * 16, "digest": b"d" * 32}
    with Session(engine) as session:
        session.add(APIKey(**row, created_at=datetime(2030, 1, 1)))  # noqa: DTZ001 - that is the point
        with pytest.raises(StatementError, match="a naive datetime cannot be stored"):
            session.flush()
    with sessionmaker(engine).begin() as session:
        session.add(APIKey(**row, created_at=datetime(2030, 1, 1, tzinfo=UTC)))
    engine.dispose()


@pytest.mark.parametrize("module", [columns, last_use, lookup, models, rows])
def test_without_sqlalchemy(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module that needs SQLAlchemy names the extra where it is missing."""
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    spec: Any = util.spec_from_file_location("again", module.__file__)
    message = r"^sqlalchemy is not installed: pip install 'fastapi-guard-auth\[sqlalchemy\]'$"
    with pytest.raises(MissingExtraError, match=message):
        spec.loader.exec_module(util.module_from_spec(spec))
