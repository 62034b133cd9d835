import json
import logging
import traceback
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from api_key.databases import Database
from fastapi_guard import APIKeyAuth, APIKeyScheme, GuardError, StaticAPIKeyAuth, Unauthorized, configure_app
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import APIKey, Base
from fastapi_guard.events import Event
from support.asgi import endpoint, exchange


def spellings(secret: bytes) -> set[str]:
    """Return how bytes could be written in a text."""
    return {repr(secret)[2:-1], secret.hex(), str(list(secret))[1:-1]}


def told(error: BaseException) -> str:
    """Return all that an error and its causes say, without the lines of source and without local variables."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


async def test_no_key_and_no_hash_anywhere(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The raw key and what is stored of it are in no log (SQL and rows too), repr, exception, event or OpenAPI text."""
    caplog.set_level(logging.DEBUG)
    database.sync_engine.echo = "debug"
    seen: list[Event] = []
    keys = database.auth(peppers={"1": "the-pepper-of-this-house"}, cache_ttl=60, on_event=seen.append)
    app = FastAPI()

    @app.get("/items")
    async def items(claims: Annotated[dict[str, Any], keys.requires("items:read")]) -> dict[str, Any]:
        return {"key": claims["key_id"]}

    configure_app(app)
    key_id, raw = await keys.create(user_id="alice", scopes=["items:read"])
    new = await keys.rotate(key_id)
    stored = await database.within(lambda session: list(session.execute(select(APIKey.salt, APIKey.digest))))
    rows = await database.within(lambda session: [repr(row) for row in session.scalars(select(APIKey))])
    answers = [
        await exchange(app, "/items", [(b"authorization", b"Bearer " + sent.encode())])
        for sent in (raw, new.raw, new.raw, new.raw[:-1] + "!")
    ]
    assert [answer.status for answer in answers] == [401, 200, 200, 401]
    errors: list[BaseException] = []
    for attempt in (keys.rotate(key_id), keys.verify(raw), keys.verify(new.raw[:-1])):
        with pytest.raises(GuardError) as failed:
            await attempt
        errors.append(failed.value)
    # Errors of the database, while it stores a key and while it is asked for one.
    await database.within(lambda session: Base.metadata.drop_all(session.connection()))
    fresh = database.auth()
    for attempt in (fresh.create(user_id="alice"), fresh.verify(new.raw), fresh.rotate(new.key_id)):
        with pytest.raises(GuardError) as failed:
            await attempt
        errors.append(failed.value)

    texts = [
        *(record.getMessage() + str(record.__dict__) for record in caplog.records),
        *(told(error) for error in errors),
        *(answer.body.decode() + str(answer.headers) for answer in answers),
        json.dumps(app.openapi()),
        repr([new, keys, vars(keys), keys.format, keys._cache, seen, stored, rows]),
    ]
    text_of_all = "\n".join(texts)
    secrets = {raw, new.raw, raw[20:], new.raw[20:], raw[20:-6], new.raw[20:-6], "the-pepper-of-this-house"}
    for salt, digest in stored:
        secrets |= spellings(bytes(salt)) | spellings(bytes(digest))
    assert [secret for secret in secrets if secret in text_of_all] == []
    # What is looked into is not empty: the statements, the rows and the id of the key are there.
    assert "INSERT INTO api_keys" in text_of_all
    assert "<hidden>" in text_of_all
    assert f"key_created of api-key: {key_id}" in text_of_all
    assert "unreachable" in text_of_all


async def test_no_static_key_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    """A static key and a key in a header are in no log, repr, exception, event or OpenAPI text either."""
    caplog.set_level(logging.DEBUG)
    seen: list[Event] = []
    key, wrong = "sk-alice-secret-key", "sk-wrong-secret-key"
    static = StaticAPIKeyAuth({key: {"user_id": "alice"}}, on_event=seen.append)

    async def verify_key(raw: str) -> bool:
        return raw == key

    header = APIKeyAuth(verify_key=verify_key, on_event=seen.append)
    app = FastAPI()
    app.get("/static", dependencies=[static.authenticated()])(endpoint)
    app.get("/header", dependencies=[header.authenticated()])(endpoint)
    texts = []
    for field, prefix, path in ((b"authorization", b"Bearer ", "/static"), (b"x-api-key", b"", "/header")):
        good = await exchange(app, path, [(field, prefix + key.encode())])
        bad = await exchange(app, path, [(field, prefix + wrong.encode())])
        assert (good.status, bad.status) == (200, 401)
        texts.append(f"{good} {bad}")
    for auth in (static, header):
        with pytest.raises(Unauthorized) as refusal:
            await auth.verify(wrong)
        texts.append(told(refusal.value))
    texts += [record.getMessage() for record in caplog.records]
    everything = "\n".join(
        [*texts, repr([static, vars(static), header, vars(header), seen]), json.dumps(app.openapi())]
    )
    assert key not in everything
    assert wrong not in everything.replace(f"auth.verify({wrong!r})", "")
    assert "authenticated by api-key" in everything


async def test_the_key_is_not_stored(database: Database) -> None:
    """Neither the key nor its secret is in any column of any table."""
    keys = database.auth()
    _, raw = await keys.create(user_id="alice", name="ci", scopes=["items:read"])

    def dump(session: Session) -> str:
        tables = Base.metadata.sorted_tables
        return repr([tuple(row) for table in tables for row in session.execute(text(f"SELECT * FROM {table.name}"))])  # noqa: S608

    content = await database.within(dump)
    assert "alice" in content
    assert raw not in content
    assert raw[20:-6] not in content


def test_the_openapi_document_has_no_example_of_a_key() -> None:
    """The schemes are described, and no key is."""
    app = FastAPI()
    keys = StaticAPIKeyAuth({"sk-alice-secret-key": {"user_id": "alice"}}, scheme=APIKeyScheme("X-Api-Key"))
    app.get("/", dependencies=[keys.authenticated()])(endpoint)
    assert app.openapi()["components"]["securitySchemes"] == {
        "X-Api-Key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
    }
    assert "sk-" not in json.dumps(app.openapi())
    assert DatabaseAPIKeyAuth._missing_detail == "Invalid API Key"
