"""The page about the upgrade from 0.1.0, against tables, rows and records as that version wrote them."""

import importlib
import importlib.util
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import sessionmaker

from fastapi_guard import Unauthorized
from fastapi_guard.api_key import models as api_keys
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.login import RefreshTokens, SessionAuth
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.login.users import models as users
from fastapi_guard.stores import MemoryStore, Record

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "upgrade-from-0.1.md").read_text(encoding="utf-8")
METADATA = [api_keys.Base.metadata, users.Base.metadata]

# The tables of 0.1.0, and rows that it wrote.
FORMER = sa.MetaData()
API_KEYS = sa.Table(
    "api_keys",
    FORMER,
    sa.Column("key_id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("subject_type", sa.String(16), nullable=False),
    sa.Column("user_id", sa.String(255), nullable=False, index=True),
    sa.Column("tenant_id", sa.String(255)),
    sa.Column("is_admin", sa.Boolean, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("pepper", sa.String(32)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("revoked_at", sa.DateTime(timezone=True)),
    sa.Column("last_used_at", sa.DateTime(timezone=True)),
    sa.Column("replaced_by", sa.String(32)),
)
API_KEY_EVENTS = sa.Table(
    "api_key_events",
    FORMER,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("key_id", sa.String(32), nullable=False, index=True),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("actor", sa.String(255)),
    sa.Column("replaced_by", sa.String(32)),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)
USERS = sa.Table(
    "fastapi_guard_users",
    FORMER,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("username", sa.String(320), nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("subject_id", sa.String(255), nullable=False, unique=True),
    sa.Column("subject_type", sa.String(32), nullable=False, server_default="user"),
    sa.Column("tenant_id", sa.String(255)),
    sa.Column("is_admin", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
)
KEY = "sk-iifklc1kpl37zrst-lYK4M1ti4l1FswvuQjpUuL3fzIqr9tmYEuv72LgafhU4HZdej"
HASH = "$argon2id$v=19$m=65536,t=3,p=4$PKe01rpXqjUGYAzBuNd6Dw$BqKtWWdmbk3MPLTHaSeAr7dNAA1RpEdaS5iPJ25LWsE"
KEY_ROW = {
    "key_id": "iifklc1kpl37zrst",
    "name": "",
    "subject_type": "user",
    "user_id": "1",
    "is_admin": False,
    "scopes": [],
    "metadata": {},
    "salt": bytes.fromhex("4BDAA27782A667056E6372FE4293056D"),
    "digest": bytes.fromhex("D44E6CB799AB50CF80C689832A9D5C1C3217F1BEDC68ED51678F2FC912D31836"),
    "created_at": datetime(2026, 11, 29, tzinfo=UTC),
}
FAMILY = (
    b'{"claims":{"sub":"1"},"created_at":1795937143.7859795,"rotated_at":1795937143.7859795,'
    b'"current":"248e83fc53e893a8e406517c01bb1de02f84d3ebd8266b0ab1ee9b0033cb008f","previous":null,"nonce":null}'
)
REFRESH_TOKEN = "RSaPkDZbXRkEIUi0IXWiKloGcJW32EdGeTxwjlD7QKyDw_e_ESdUfHsNoj_ZVngJ"
SESSION = (
    b'{"claims":{"iat":1795937143,"auth_time":1795937143,"sub":"1","sid":"d1ef"},'
    b'"created_at":1795937143.7985206,"seen_at":1795937143.7985206}'
)


def user_row(name: str, number: str) -> dict[str, Any]:
    """Return a user of 0.1.0."""
    return {"username": name, "password_hash": HASH, "subject_id": number, "scopes": [], "roles": []}


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Return an engine of a database with the tables of 0.1.0."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url").set(drivername="postgresql+psycopg")
    opened = sa.create_engine(url)

    def clear() -> None:
        present = sa.MetaData()
        present.reflect(opened)
        present.drop_all(opened)

    clear()
    FORMER.create_all(opened)
    yield opened
    clear()
    opened.dispose()


def run_the_revision(engine: sa.Engine) -> None:
    """Run the revision of the page."""
    found = re.search(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    revision: dict[str, Any] = {}
    exec(found[1], revision)  # noqa: S102 - our own page
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        revision["upgrade"]()


async def test_the_revision(engine: sa.Engine) -> None:
    """It makes the tables of this version; keys, names, addresses and passwords of 0.1.0 are valid after it."""
    with engine.begin() as connection:
        connection.execute(API_KEYS.insert(), KEY_ROW)
        connection.execute(USERS.insert(), [user_row("Ada", "1"), user_row("Grace@Shop.example", "2")])
    run_the_revision(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    sessions = sessionmaker(engine)
    assert await DatabaseAPIKeyAuth(sessions).validate_token(KEY)
    stored = DatabaseUsers(sessions)
    ada, grace = await stored.by_login("ada"), await stored.by_login("grace@shop.example")
    assert ada is not None
    assert grace is not None
    assert (ada.username, ada.email, ada.credentials_version) == ("Ada", None, 0)
    assert (grace.username, grace.email, grace.email_verified) == (None, "Grace@Shop.example", True)
    assert await PasswordHasher().verify("analytical-engine", ada.password_hash)


def test_names_that_differ_in_case(engine: sa.Engine) -> None:
    """The revision lists users whose names are the same now, and leaves the database as it was."""
    with engine.begin() as connection:
        connection.execute(USERS.insert(), [user_row("ada", "1"), user_row("ADA", "2")])
    with pytest.raises(ValueError, match="'ada': 1, 2"):
        run_the_revision(engine)
    with engine.connect() as connection:
        assert sorted(connection.scalars(sa.select(USERS.c.username))) == ["ADA", "ada"]


async def test_records() -> None:
    """Sessions and refresh tokens of 0.1.0 are not valid, not listed, and no error."""
    store = MemoryStore(clock=lambda: 1_795_937_200)
    tokens = RefreshTokens(store, clock=lambda: 1_795_937_200)
    sessions = SessionAuth(store, clock=lambda: 1_795_937_200)
    family = RefreshTokens.family_id(REFRESH_TOKEN)
    await store.add(Record(f"refresh:{family}", FAMILY, "1", 1_797_146_743.8))
    await store.add(Record("session:d1ef", SESSION, "1", 1_795_940_743.8))
    with pytest.raises(Unauthorized, match="The refresh token is invalid"):
        await tokens.rotate(REFRESH_TOKEN)
    assert await tokens.families("1") == []
    assert await sessions.list("1") == []
    assert not await tokens.end(family)
    assert not await sessions.end("d1ef")


def test_the_imports() -> None:
    """The modules of 0.1.0 are gone, and each name is in the module that the page names."""
    table = PAGE.partition("## Imports")[2].partition("## Code")[0]
    rows = re.findall(r"^\| (`fastapi_guard.*?) \| (`fastapi_guard.*?) \|$", table, flags=re.MULTILINE)
    assert len(rows) > 20
    for former, current in rows:
        module = current.split("`")[1]
        for name in re.findall(r"`(\w*[A-Z]\w*|\w+_\w+)`", former + current):
            if not name.startswith("fastapi_guard"):
                assert hasattr(importlib.import_module(module), name), (module, name)
        assert not is_module(former.split("`")[1]), former


def is_module(name: str) -> bool:
    """Return whether there is a module of this name."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_a_module_that_is_there() -> None:
    """The look-up finds a module, and no module below another that is gone."""
    assert is_module("fastapi_guard.login")
    assert not is_module("fastapi_guard.users.models")
