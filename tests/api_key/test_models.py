import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, MetaData, create_engine, inspect, make_url
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session, sessionmaker

from fastapi_guard import MissingExtraError
from fastapi_guard.api_key import last_use, lookup, models, rows
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import APIKey, Base
from fastapi_guard.stores import columns
from fastapi_guard.stores.columns import SecretBytes, UTCDateTime

ENV = """\
from alembic import context
from fastapi_guard.api_key.models import Base
with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
"""


def empty(engine: Engine) -> None:
    """Drop every table, those of other tests too."""
    there = MetaData()
    there.reflect(engine)
    there.drop_all(engine)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Yield an engine on an empty database of each kind in turn."""
    if request.param == "sqlite":
        url = make_url(f"sqlite:///{tmp_path / 'keys.db'}")
    else:
        url = request.getfixturevalue("postgres_url").set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    empty(engine)
    yield engine
    empty(engine)
    engine.dispose()


def test_a_generated_migration(engine: Engine, tmp_path: Path) -> None:
    """Alembic generates a migration that needs no import of ours, makes what the models say, and goes back."""
    config = Config(tmp_path / "alembic.ini")
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    config.set_main_option("path_separator", "os")
    command.init(config, str(tmp_path / "migrations"))
    (tmp_path / "migrations" / "env.py").write_text(ENV)
    config.attributes["engine"] = engine
    command.revision(config, "Add API keys", autogenerate=True)
    (migration,) = (tmp_path / "migrations" / "versions").glob("*.py")
    script = migration.read_text()
    assert "fastapi_guard" not in script
    assert "sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True)" in script
    assert "sa.Column('digest', sa.LargeBinary(length=32), nullable=False)" in script
    command.upgrade(config, "head")
    with engine.connect() as connection:
        assert (
            compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata) == []
        )
    with Session(engine) as session:
        DatabaseAPIKeyAuth.create_key(session, user_id="alice")
        session.commit()
    command.downgrade(config, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}


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


def test_a_naive_moment_is_not_stored(engine: Engine) -> None:
    """A row with a naive moment is refused by the model itself; with an aware one it is stored."""
    Base.metadata.create_all(engine)
    row = {"key_id": "0" * 16, "user_id": "alice", "salt": b"s" * 16, "digest": b"d" * 32}
    with Session(engine) as session:
        session.add(APIKey(**row, created_at=datetime(2030, 1, 1)))  # noqa: DTZ001 - that is the point
        with pytest.raises(StatementError, match="a naive datetime cannot be stored"):
            session.flush()
    with sessionmaker(engine).begin() as session:
        session.add(APIKey(**row, created_at=datetime(2030, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize("module", [columns, last_use, lookup, models, rows])
def test_without_sqlalchemy(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module that needs SQLAlchemy names the extra where it is missing."""
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    spec: Any = util.spec_from_file_location("again", module.__file__)
    message = r"^sqlalchemy is not installed: pip install 'fastapi-guard-auth\[sqlalchemy\]'$"
    with pytest.raises(MissingExtraError, match=message):
        spec.loader.exec_module(util.module_from_spec(spec))
