"""The tables of all packages: generated migrations, and models of the application."""

from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, ForeignKey, Index, MetaData, String, Table, UniqueConstraint, create_engine, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.login.factor_models import FactorMixin, PasskeyMixin
from fastapi_guard.login.providers.identity_models import IdentityMixin
from fastapi_guard.login.users.models import UserMixin

METADATA = {
    "fastapi_guard.api_key.models.Base.metadata": {"api_keys", "api_key_events"},
    "fastapi_guard.login.users.models.Base.metadata": {"fastapi_guard_users"},
    "fastapi_guard.login.factor_models.Base.metadata": {"fastapi_guard_factors", "fastapi_guard_passkeys"},
    "fastapi_guard.login.providers.identity_models.Base.metadata": {"fastapi_guard_identities"},
    "fastapi_guard.stores.sqlalchemy.metadata": {"fastapi_guard_records", "fastapi_guard_records_changes"},
}
ENV = """\
from alembic import context
with context.config.attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=context.config.attributes["metadata"])
    with context.begin_transaction():
        context.run_migrations()
"""


def models_of(name: str) -> MetaData:
    """Return the metadata of this name."""
    metadata: MetaData = resolve_name(name)
    return metadata


def empty(engine: Engine) -> None:
    """Drop every table."""
    present = MetaData()
    present.reflect(engine)
    present.drop_all(engine)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Return an engine of an empty database."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url").set(drivername="postgresql+psycopg")
    opened = create_engine(url)
    empty(opened)
    yield opened
    empty(opened)
    opened.dispose()


def test_a_generated_migration(engine: Engine, tmp_path: Path) -> None:
    """Alembic generates a migration of every table that does not import this package, runs it, and goes back."""
    metadata = [models_of(name) for name in METADATA]
    config = Config(tmp_path / "alembic.ini")
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    config.set_main_option("path_separator", "os")
    command.init(config, str(tmp_path / "migrations"))
    (tmp_path / "migrations" / "env.py").write_text(ENV)
    config.attributes |= {"engine": engine, "metadata": metadata}
    command.revision(config, "Add the tables", autogenerate=True)
    (migration,) = (tmp_path / "migrations" / "versions").glob("*.py")
    script = migration.read_text()
    assert "fastapi_guard." not in script
    assert "sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True)" in script
    assert "sa.Column('digest', sa.LargeBinary(length=32), nullable=False)" in script
    command.upgrade(config, "head")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}.union(*METADATA.values())
    with Session(engine) as session:
        DatabaseAPIKeyAuth.create_key(session, user_id="alice")
        session.commit()
    command.downgrade(config, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}


@pytest.mark.parametrize("name", METADATA)
def test_the_tables_of_each(name: str) -> None:
    """Each metadata has the tables that are listed, so that a new table is migrated too."""
    assert set(models_of(name).tables) == METADATA[name]


class Base(DeclarativeBase):
    """The base of an application."""


class Customer(UserMixin, Base):
    """A user with columns that the application declares again."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    username_key: Mapped[str | None] = mapped_column(String(100))
    email_key: Mapped[str | None] = mapped_column(String(100))


class CustomerFactor(FactorMixin, Base):
    """A factor with a foreign key of the application."""

    __tablename__ = "customer_factors"

    id: Mapped[int] = mapped_column(primary_key=True)
    subject_id: Mapped[str] = mapped_column(ForeignKey("customers.subject_id", ondelete="CASCADE"))


class CustomerPasskey(PasskeyMixin, Base):
    """A passkey with a foreign key, and with an index of the application."""

    __tablename__ = "customer_passkeys"

    id: Mapped[int] = mapped_column(primary_key=True)
    subject_id: Mapped[str] = mapped_column(ForeignKey("customers.subject_id"))
    factor_id: Mapped[str] = mapped_column(String(64))
    credential_id: Mapped[bytes]
    __table_args__ = (Index("customer_passkeys_of", "subject_id"),)


class CustomerIdentity(IdentityMixin, Base):
    """A linked identity with a foreign key of the application."""

    __tablename__ = "customer_identities"

    id: Mapped[int] = mapped_column(primary_key=True)
    subject_id: Mapped[str] = mapped_column(ForeignKey("customers.subject_id", ondelete="CASCADE"))
    identity_id: Mapped[str] = mapped_column(String(64))


def keys_of(model: Any) -> dict[str, bool]:
    """Return the first columns of the indexes of a model, and whether they are unique."""
    table: Table = model.__table__
    found = {index.columns.keys()[0]: bool(index.unique) for index in table.indexes}
    unique = [rule.columns.keys()[0] for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    assert len(found) == len(table.indexes)
    return {**found, **dict.fromkeys(unique, True)}


def test_columns_that_the_application_declares_again(engine: Engine) -> None:
    """A column that is declared again keeps the index of the mixin, and is no less unique."""
    assert keys_of(Customer) == {"subject_id": True, "username_key": True, "email_key": True}
    assert keys_of(CustomerFactor) == {"subject_id": False, "factor_id": True}
    assert keys_of(CustomerPasskey) == {"subject_id": False, "factor_id": True, "credential_id": True}
    assert keys_of(CustomerIdentity) == {"subject_id": False, "identity_id": True}
    Base.metadata.create_all(engine)
    found = inspect(engine).get_indexes("customer_factors")
    assert [index["column_names"] for index in found if not index["unique"]] == [["subject_id"]]
