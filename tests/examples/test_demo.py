"""The application of `fastapi-guard demo`, called directly."""

from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

import demo
from demo.application import Posts
from fastapi_guard.api_key.models import Base
from fastapi_guard.app.audit import assert_guarded
from fastapi_guard.stores import MemoryStore, Record

KEY = "sk-demo-0123456789abcdef"


async def test_the_users_of_a_database(tmp_path: Path) -> None:
    """The users are the owners of keys, each once."""
    engine = create_engine(f"sqlite:///{tmp_path}/keys.db")
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    assert await demo.database_parts(sessions).usernames() == []
    for _ in range(2):
        await demo.create_key(sessions)
    assert await demo.database_parts(sessions).usernames() == ["demo"]
    engine.dispose()


async def test_two_posts_at_the_same_time() -> None:
    """A post gets the number after the next if a concurrent request has used the next one."""

    class Overtaken(MemoryStore):
        """A store in which a concurrent request has added the first record."""

        async def add(self, record: Record) -> bool:
            """Add the record, and report the first one as taken."""
            return await super().add(record) and record.key != "1"

    posts = Posts(Overtaken())
    assert (await posts.add("x", "ada")).id == 2


def test_the_demo_passes_its_own_audit() -> None:
    """Only the health check is public."""
    assert_guarded(demo.create_app(demo.static_parts(KEY)), allow=["/health"])
