"""Users in a mapping and in a table."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import String, Table, create_engine, delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.login.users import DatabaseUsers, MappingUsers, User
from fastapi_guard.login.users.models import StoredUser, UserMixin, set_login_keys
from fastapi_guard.stores.database import Sessions
from support.stores import DATABASES, sessions_of

ENTRY = {
    "password_hash": "$2b$12$x",
    "subject_type": "agent",
    "subject_id": "alice",
    "tenant_id": "org_acme",
    "is_admin": True,
    "scopes": ["items:read", "items:edit"],
    "roles": ["editor"],
    "disabled": True,
}
ALICE = User(
    email="Alice@example.com",
    password_hash="$2b$12$x",
    subject_type="agent",
    subject_id="alice",
    tenant_id="org_acme",
    is_admin=True,
    scopes=("items:read", "items:edit"),
    roles=("editor",),
    disabled=True,
)


@pytest.fixture(params=DATABASES)
async def sessions(request: pytest.FixtureRequest) -> Any:
    """Return a factory of sessions for each kind of database, synchronous and asynchronous."""
    async with sessions_of(request, request.param) as factory:
        yield factory


def test_claims() -> None:
    """A user's claims are those of a token; a field that is not set is left out."""
    assert ALICE.claims() == {
        "sub": "alice",
        "subject_type": "agent",
        "tenant_id": "org_acme",
        "is_admin": True,
        "scope": "items:read items:edit",
        "roles": ["editor"],
    }
    plain = User(username="bob", subject_id="b", extra_claims={"plan": "free", "sub": "eve"})
    assert plain.claims() == {"sub": "b", "subject_type": "user", "is_admin": False, "scope": "", "plan": "free"}
    assert (ALICE.login_name, plain.login_name) == ("Alice@example.com", "bob")


def test_a_hash_is_in_no_repr() -> None:
    """The hash of a password is in no repr."""
    assert "$2b$" not in repr(ALICE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subject_id": "", "username": "bob"}, "subject_id has 1 to 255 characters"),
        ({"subject_id": "x" * 256, "username": "bob"}, "subject_id has 1 to 255 characters"),
        ({"subject_id": "b"}, "a user has a username or an email"),
        ({"subject_id": "b", "username": "b@example.com"}, "pass an e-mail address as email"),
    ],
)
def test_fields_of_no_user(fields: Any, message: str) -> None:
    """A user has a bounded subject and a login name, and an address is not a username."""
    with pytest.raises(ValueError, match=message):
        User(**fields)
    assert User(subject_id="x" * 255, email="b@example.com")


async def test_mapping() -> None:
    """A mapping's users are found by their normalised name, and what is left out has its default."""
    users = MappingUsers({"Alice@example.com": ENTRY, "bob": {"password_hash": "h"}})
    bob = User(username="bob", password_hash="h", subject_id="bob")
    assert await users.by_login("alice@example.com") == await users.by_subject("alice") == ALICE
    assert await users.by_login("bob") == bob
    assert await users.by_login("nobody") is None
    assert list(users) == [ALICE, bob]
    assert await users.set_password_hash("bob", "h", "other")
    assert not await users.set_password_hash("bob", "h", "third")
    assert not await users.set_password_hash("nobody", "h", "third")
    assert await users.by_login("bob") == replace(bob, password_hash="other")


async def test_updates_in_a_mapping() -> None:
    """An update needs the version that it expects and a free name; the old name is free afterwards."""
    users = MappingUsers({"alice@example.com": ENTRY, "bob": {"password_hash": "h", "email": "b@example.com"}})
    bob = await users.by_login("b@example.com")
    assert bob is not None
    renamed = replace(bob, username="robert", credentials_version=1)
    assert not await users.update(bob, replace(bob, email="ALICE@example.com"))
    assert await users.update(bob, renamed)
    assert not await users.update(bob, bob)
    assert not await users.update(replace(bob, subject_id="nobody"), bob)
    assert await users.by_login("bob") is None
    assert await users.by_login("robert") == await users.by_login("b@example.com") == renamed


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, "the user 'bob' is a mapping with a password_hash, not NoneType"),
        ({}, "password_hash is needed as text: make one with `fastapi-guard password hash`"),
        ({"password_hash": ""}, "password_hash is needed as text"),
        ({"password_hash": 7}, "password_hash is needed as text"),
        ({"password_hash": "h", "password": "p"}, "unknown field password; known are disabled"),
        ({"password_hash": "h", "Zq8vT4mXw2Lr9KpD6sYbN3hJcF7gQaE1uRtV5xW0": 1}, r"unknown field \(a long name\);"),
        ({"password_hash": "h", "subject_id": ""}, "subject_id: String should have at least 1 character"),
        ({"password_hash": "h", "subject_id": 7}, "subject_id: Input should be a valid string"),
        ({"password_hash": "h", "is_admin": "no"}, "is_admin: Input should be a valid boolean"),
        ({"password_hash": "h", "disabled": 1}, "disabled: Input should be a valid boolean"),
        ({"password_hash": "h", "scopes": "items:read"}, "scopes is a list of texts"),
        ({"password_hash": "h", "scopes": ["a b"]}, "'a b' is not a scope"),
        ({"password_hash": "h", "roles": "editor"}, "roles is a list of texts"),
        ({"password_hash": "h", "username": "b@c"}, "a username has no @"),
        ({"password_hash": "h", "email": "ADA@example.com"}, "the name or the subject_id of another user"),
        ({"password_hash": "h", "subject_id": "ada"}, "the name or the subject_id of another user"),
        ({"password_hash": "s3cret", "is_admin": "s3cret", "disabled": "s3cret"}, "is_admin: .*\n.*disabled: "),
    ],
)
def test_an_entry_that_is_no_user(entry: Any, message: str) -> None:
    """Every mistake in a mapping is named, without the value."""
    ada = {"password_hash": "h", "email": "ada@example.com"}
    with pytest.raises(ConfigurationError, match=message) as error:
        MappingUsers({"ada": ada, "bob": entry})
    assert "s3cret" not in str(error.value)
    assert len(list(MappingUsers({"ada": ada, "bob": {"password_hash": "h"}}))) == 2


async def emptied(users: DatabaseUsers, sessions: Any) -> DatabaseUsers:
    """Return the users without any."""
    await users.create_table()
    await Sessions(sessions).transaction(
        lambda session: [session.delete(row) for row in session.scalars(select(StoredUser))]
    )
    return users


async def test_database(sessions: Any) -> None:
    """The table has the same users, found by their normalised name; a name is taken whatever its case."""
    users = await emptied(DatabaseUsers(sessions), sessions)
    assert await users.add(ALICE)
    assert not await users.add(ALICE)
    assert not await users.add(User(username="other", subject_id="alice"))
    assert not await users.add(User(username="other", email="ALICE@example.com", subject_id="a2"))
    assert await users.by_login("alice@example.com") == await users.by_subject("alice") == ALICE
    assert await users.by_login("alice") is None
    assert await users.add(User(username="adam", subject_id="adam"))
    assert not await users.add(User(username="Adam", subject_id="adam2"))
    assert {user.login_name for user in await users.all()} == {"adam", "Alice@example.com"}
    assert await users.remove("adam")
    assert not await users.remove("adam")
    assert await users.by_subject("adam") is None


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", ""])
async def test_a_name_that_no_database_holds(sessions: Any, name: str) -> None:
    """There is no user of a name that cannot be stored: no error of the database, and no 503."""
    users = await emptied(DatabaseUsers(sessions), sessions)
    assert await users.by_login(name) is await users.by_subject(name) is None
    assert not await users.set_password_hash(name, None, "h")
    assert not await users.remove(name)
    await users.add(User(username="bob", subject_id="b"))
    assert await users.by_login("bob") is not None


async def test_targeted_writes(sessions: Any) -> None:
    """A write touches the columns that differ and no other, where the row is still as expected."""
    users = await emptied(DatabaseUsers(sessions), sessions)
    bob = User(username="bob", password_hash="h", subject_id="b", scopes=("a",))
    await users.add(bob)
    await users.add(ALICE)
    elsewhere = update(StoredUser).where(StoredUser.subject_id == "b").values(tenant_id="changed elsewhere")
    await Sessions(sessions).transaction(lambda session: session.execute(elsewhere))
    assert await users.set_password_hash("b", "h", "h2")
    assert not await users.set_password_hash("b", "h", "h3")
    changed = replace(bob, disabled=True, scopes=("a", "b"), email="Bob@example.com", credentials_version=1)
    assert await users.update(bob, changed)
    assert not await users.update(bob, bob)
    assert not await users.update(replace(bob, subject_id="nobody"), changed)
    assert not await users.update(changed, replace(changed, email="alice@EXAMPLE.com"))
    assert await users.update(changed, changed)
    assert await users.by_login("bob@example.com") == replace(
        changed, password_hash="h2", tenant_id="changed elsewhere"
    )


async def test_no_password(sessions: Any) -> None:
    """A first password can be compared and swapped in for none."""
    users = await emptied(DatabaseUsers(sessions), sessions)
    await users.add(User(username="bob", subject_id="b"))
    assert await users.set_password_hash("b", None, "h")
    assert not await users.set_password_hash("b", None, "h2")


class OwnBase(DeclarativeBase):
    """The base of an application."""


class Customer(UserMixin, OwnBase):
    """A model of an application's own."""

    __tablename__ = "customers"

    number: Mapped[str] = mapped_column(String(12), primary_key=True, default="1")

    def extra_claims(self) -> dict[str, Any]:
        """Return the number of the customer."""
        return {"customer": self.number}


async def test_a_model_of_ones_own(sessions: Any) -> None:
    """The mixin makes any model a table of users; a row of the application's own has its defaults."""
    users = DatabaseUsers(sessions, model=Customer)
    await users.create_table()
    await Sessions(sessions).transaction(
        lambda session: session.add(Customer(number="7", username="carol", password_hash="h"))
    )
    user = await users.by_login("carol")
    assert user is not None
    assert user.claims()["customer"] == "7"
    assert (user.username, user.scopes, user.disabled, user.subject_type) == ("carol", (), False, "user")
    assert user.subject_id == str(UUID(user.subject_id))
    await Sessions(sessions).transaction(lambda session: session.delete(session.get(Customer, "7")))


class Numbered(DeclarativeBase):
    """A base for a model with a property."""


class Administrators(UserMixin, Numbered):
    """A model in which each user is an administrator, whatever a row contains."""

    __tablename__ = "administrators"
    id: Mapped[int] = mapped_column(primary_key=True)
    is_admin = property(lambda _: True, lambda _, value: None)  # type: ignore[assignment]


@pytest.mark.parametrize("value", ["'false'", "'true'", "''", "2", "x'01'"])
async def test_a_flag_of_another_type(tmp_path: Path, value: str) -> None:
    """A flag of another type grants nothing: SQLite stores any text, which SQLAlchemy would read as true."""
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    users = DatabaseUsers(sessionmaker(engine))
    await users.create_table()
    names = ("ada", "bob")
    for name in names:
        assert await users.add(User(subject_id=name, email=f"{name}@example.com", is_admin=True))
    statement = f"UPDATE fastapi_guard_users SET is_admin={value}, email_verified={value}, disabled={value}"  # noqa: S608
    with engine.begin() as connection:
        connection.execute(text(f"{statement} WHERE subject_id = 'bob'"))
    read = [await users.by_subject("bob"), await users.by_login("bob@example.com"), (await users.all())[1]]
    for bob in read:
        assert bob is not None
        assert (bob.is_admin, bob.email_verified, bob.disabled) == (False, False, True)
    ada = await users.by_subject("ada")
    assert ada is not None
    assert (ada.is_admin, ada.email_verified, ada.disabled) == (True, True, False)
    assert await users.update(bob, replace(bob, is_admin=True, email_verified=True, disabled=False))
    bob = await users.by_subject("bob")
    assert bob is not None
    assert (bob.is_admin, bob.email_verified, bob.disabled) == (True, True, False)
    engine.dispose()


async def test_a_flag_that_is_a_property(tmp_path: Path) -> None:
    """A model may have a property in place of a column."""
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    users = DatabaseUsers(sessionmaker(engine), model=Administrators)
    await users.create_table()
    assert await users.add(User(subject_id="ada", username="ada"))
    ada = await users.by_subject("ada")
    assert ada is not None
    assert (ada.is_admin, ada.email_verified) == (True, True)
    engine.dispose()


async def test_a_collation_takes_nobody_for_another() -> None:
    """A subject is compared exactly, whatever the collation of the database."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    factory = sessionmaker(engine)
    users = DatabaseUsers(factory)
    await users.create_table()
    assert await users.add(User(username="Bob", subject_id="B"))
    with factory() as session:
        session.connection().exec_driver_sql("ALTER TABLE fastapi_guard_users RENAME TO strict")
        names = ", ".join(column.name for column in StoredUser.__table__.columns if column.name != "subject_id")
        session.connection().exec_driver_sql(
            f"CREATE VIEW fastapi_guard_users AS SELECT subject_id COLLATE NOCASE AS subject_id, {names} FROM strict"  # noqa: S608
        )
        session.commit()
    assert await users.by_subject("b") is None
    assert await users.by_subject("B") is not None
    engine.dispose()


class Missing(UserMixin, OwnBase):
    """A model without its table."""

    __tablename__ = "missing"

    id: Mapped[int] = mapped_column(primary_key=True)


async def test_login_keys_of_a_migration() -> None:
    """The keys of a table that had none are filled, unless two names are the same: then all of them are listed."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    users = DatabaseUsers(sessionmaker(engine))
    await users.create_table()
    table = StoredUser.__table__
    assert isinstance(table, Table)
    names = {"1": ("Ada", None), "2": ("ADA", None), "3": (None, "Eve@example.com"), "4": (None, "eve@example.com")}
    with engine.begin() as connection:
        for subject, (username, email) in names.items():
            row = {"subject_id": subject, "username": username, "email": email}
            connection.execute(insert(table).values(scopes=[], roles=[], **row))
        with pytest.raises(ValueError, match=r"rename all but one of each:\n'ada': 1, 2\n'eve@example.com': 3, 4"):
            set_login_keys(connection, table)
        connection.execute(delete(table).where(table.c.subject_id.in_(["2", "4"])))
        set_login_keys(connection, table)
    assert {user.subject_id for user in await users.all()} == {"1", "3"}
    assert all([await users.by_login(name) for name in ("ada", "eve@example.com")])
    engine.dispose()


async def test_a_database_without_the_table(sessions: Any) -> None:
    """A database that cannot answer is a 503."""
    with pytest.raises(ServiceUnavailable) as error:
        await DatabaseUsers(sessions, model=Missing).by_login("bob")
    assert error.value.reason == "database_unreachable"
