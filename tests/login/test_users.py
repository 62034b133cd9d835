"""Where users come from: a mapping and a table, alike."""

from typing import Any

import pytest
from sqlalchemy import String, create_engine, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.login.users import DatabaseUsers, MappingUsers, User
from fastapi_guard.login.users.models import StoredUser, UserMixin
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
    username="alice@example.com",
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
    async with sessions_of(request, request.param) as each:
        yield each


def test_claims() -> None:
    """A user's claims are what a token says; what is not set is not in there."""
    assert ALICE.claims() == {
        "sub": "alice",
        "subject_type": "agent",
        "tenant_id": "org_acme",
        "is_admin": True,
        "scope": "items:read items:edit",
        "roles": ["editor"],
    }
    plain = User(username="bob", password_hash="x", subject_id="b")
    assert plain.claims() == {"sub": "b", "subject_type": "user", "is_admin": False, "scope": ""}


def test_a_hash_is_in_no_repr() -> None:
    """The hash of a password is in no repr."""
    assert "$2b$" not in repr(ALICE)


async def test_mapping() -> None:
    """The mapping's users are found by their exact name, and what is left out has its default."""
    users = MappingUsers({"alice@example.com": ENTRY, "bob": {"password_hash": "h"}})
    assert await users.get("alice@example.com") == ALICE
    assert await users.get("bob") == User(username="bob", password_hash="h", subject_id="bob")
    assert await users.get("Alice@example.com") is None
    await users.set_password_hash("bob", "other")
    assert await users.get("bob") == User(username="bob", password_hash="other", subject_id="bob")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, "the user 'bob' is a mapping with a password_hash, not NoneType"),
        ({}, "needs password_hash as text: make one with `fastapi-guard password hash`"),
        ({"password_hash": ""}, "needs password_hash as text"),
        ({"password_hash": 7}, "needs password_hash as text"),
        ({"password_hash": "h", "password": "p"}, "unknown fields password; known are disabled"),
        ({"password_hash": "h", "subject_id": ""}, "needs subject_id as text$"),
        ({"password_hash": "h", "subject_id": 7}, "needs subject_id as text$"),
        ({"password_hash": "h", "is_admin": "no"}, "is_admin of the user 'bob' is true or false"),
        ({"password_hash": "h", "disabled": 1}, "disabled of the user 'bob' is true or false"),
        ({"password_hash": "h", "scopes": "items:read"}, "scopes of the user 'bob' is a list"),
        ({"password_hash": "h", "scopes": ["a b"]}, "'a b' is not a scope"),
        ({"password_hash": "h", "roles": "editor"}, "roles of the user 'bob' is a list"),
    ],
)
def test_an_entry_that_is_no_user(entry: Any, message: str) -> None:
    """What is wrong with an entry is said where it is written."""
    with pytest.raises(ConfigurationError, match=message):
        MappingUsers({"bob": entry})
    assert MappingUsers({"bob": {"password_hash": "h"}})


async def emptied(users: DatabaseUsers, sessions: Any) -> DatabaseUsers:
    """Return the users without any."""
    await users.create_table()
    await Sessions(sessions).transaction(
        lambda session: [session.delete(each) for each in session.scalars(select(StoredUser))]
    )
    return users


async def test_database(sessions: Any) -> None:
    """The table gives the same users, found by their exact name."""
    users = await emptied(DatabaseUsers(sessions), sessions)
    assert await users.add(ALICE)
    assert not await users.add(ALICE)
    assert not await users.add(User(username="other", password_hash="h", subject_id="alice"))
    assert await users.get("alice@example.com") == ALICE
    assert await users.get("ALICE@example.com") is None
    assert await users.add(User(username="adam", password_hash="h", subject_id="adam"))
    assert [user.username for user in await users.all()] == ["adam", "alice@example.com"]


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", ""])
async def test_a_name_that_no_database_holds(sessions: Any, name: str) -> None:
    """Whoever logs in as what cannot be a name is nobody: no error of the database, and no 503."""
    users = await emptied(DatabaseUsers(sessions), sessions)
    assert await users.get(name) is None
    assert not await users.set_disabled(name)
    await users.add(User(username="bob", password_hash="h", subject_id="b"))
    assert await users.get("bob") is not None


async def test_targeted_writes(sessions: Any) -> None:
    """A write touches its own column and no other, and says whether there was a user."""
    users = await emptied(DatabaseUsers(sessions), sessions)
    await users.add(User(username="bob", password_hash="h", subject_id="b", scopes=["a"]))
    elsewhere = update(StoredUser).values(tenant_id="changed elsewhere")
    await Sessions(sessions).transaction(lambda session: session.execute(elsewhere))
    await users.set_password_hash("bob", "h2")
    assert await users.set_disabled("bob")
    user = await users.get("bob")
    assert user is not None
    assert (user.password_hash, user.tenant_id, user.disabled) == ("h2", "changed elsewhere", True)
    assert await users.set_disabled("bob", disabled=False)
    assert not await users.set_disabled("nobody")
    await users.set_password_hash("nobody", "h3")
    assert [each.disabled for each in await users.all()] == [False]


class OwnBase(DeclarativeBase):
    """The base of an application."""


class Customer(UserMixin, OwnBase):
    """A model of an application's own."""

    __tablename__ = "customers"

    number: Mapped[str] = mapped_column(String(12), primary_key=True, default="1")


async def test_a_model_of_ones_own(sessions: Any) -> None:
    """The mixin makes any model a table of users; a row of the application's own has its defaults."""
    users = DatabaseUsers(sessions, model=Customer)
    await users.create_table()
    await Sessions(sessions).transaction(
        lambda session: session.add(Customer(number="7", username="carol", password_hash="h"))
    )
    user = await users.get("carol")
    assert user is not None
    assert (user.username, user.scopes, user.disabled, user.subject_type) == ("carol", (), False, "user")
    assert len(user.subject_id) == 32
    await Sessions(sessions).transaction(lambda session: session.delete(session.get(Customer, "7")))


async def test_a_collation_takes_nobody_for_another() -> None:
    """Where the database compares without case, the name is still compared exactly."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    factory = sessionmaker(engine)
    with factory() as session:
        columns = "username TEXT COLLATE NOCASE, password_hash TEXT, subject_id TEXT, subject_type TEXT, tenant_id TEXT"
        more = "is_admin BOOLEAN, scopes JSON, roles JSON, disabled BOOLEAN"
        session.connection().exec_driver_sql(
            f"CREATE TABLE fastapi_guard_users (id INTEGER PRIMARY KEY, {columns}, {more})"
        )
        session.commit()
    users = DatabaseUsers(factory)
    assert await users.add(User(username="Bob", password_hash="h", subject_id="b"))
    assert await users.get("bob") is None
    assert await users.get("Bob") is not None
    engine.dispose()


class Missing(UserMixin, OwnBase):
    """A model whose table nobody made."""

    __tablename__ = "missing"

    id: Mapped[int] = mapped_column(primary_key=True)


async def test_a_database_without_the_table(sessions: Any) -> None:
    """A database that cannot answer is a 503."""
    with pytest.raises(ServiceUnavailable) as error:
        await DatabaseUsers(sessions, model=Missing).get("bob")
    assert error.value.reason == "database_unreachable"
