"""Records of sessions and refresh families whose value is not ours: they end, and keep no other from ending."""

import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Request, Response

from fastapi_guard import ServiceUnavailable
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.state import owner_of
from fastapi_guard.stores import MemoryStore, Store
from fastapi_guard.stores.kinds import FAMILY, SESSION
from support.clock import Clock

CLAIMS = {"sub": "ada", "scope": "items:read"}
NOWHERE = Request({"type": "http", "headers": []})
OTHERS = [
    *(b"", b"hidden", b"\xff", b"null", b"[]", b'"hidden"', b"{}", b"[" * 100_000),
    *(b'{"claims":NaN}', b'{"claims":1e999}'),
]
MEMBERS: list[dict[str, Any]] = [
    *({"claims": value} for value in (None, [], "hidden", {}, {"sub": "ada"}, {"sub": 1, "sid": "hidden"})),
    *({"created_at": value} for value in (None, "hidden", True, [], 10**400)),
    *({"auth": 1}, {"auth": ["hidden"]}, {"address": 1}, {"agent": {}}),
]
SESSIONS = [*MEMBERS, {"seen_at": "hidden"}, {"claims": {"sub": "ada", "sid": "hidden"}}, {"claims": {"sid": "hidden"}}]
FAMILIES = [
    *(member for member in MEMBERS if member != {"claims": {"sub": "ada"}}),
    *({"rotated_at": None}, {"current": None}, {"current": "hidden"}, {"previous": 1}, {"nonce": "hidden"}),
    {"hidden": 1},
]


async def edit(store: Store, key: str, value: bytes | dict[str, Any]) -> None:
    """Store another value, or other members, in a record."""
    [record] = await store.get(key)
    assert record is not None
    if isinstance(value, dict):
        value = json.dumps({**json.loads(record.value), **value}).encode("ascii")
    assert await store.replace(key, record, replace(record, value=value))


async def unreadable(call: Any) -> None:
    """Check that a call fails since the record cannot be read."""
    with pytest.raises(ServiceUnavailable) as error:
        await call
    assert (error.value.status_code, error.value.reason) == (503, "unreadable_record")


async def begun(sessions: SessionAuth, clock: Clock) -> tuple[str, str]:
    """Return the cookie and the id of a new session."""
    response = Response()
    session = await sessions.login(response, CLAIMS, connection=NOWHERE)
    clock.move(1)
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0], session.id


@pytest.mark.parametrize("value", [*OTHERS, *SESSIONS], ids=lambda value: repr(value)[:40])
async def test_an_unreadable_session(value: Any, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """It is a 503 for its own cookie, is in no list, and ends as the others do."""
    store = MemoryStore(clock=clock)
    sessions, revocations = SessionAuth(store, clock=clock), Revocations(store, clock=clock)
    for way in ("end_all", "revoke_subject", "revocations", "end", "kept"):
        (raw, broken), (_, other) = await begun(sessions, clock), await begun(sessions, clock)
        await edit(store, SESSION + broken, value)
        assert [one.id for one in await sessions.list("ada")] == [other]
        await unreadable(sessions.verify(raw))
        await unreadable(sessions.renew(Response(), broken, {}, connection=NOWHERE))
        if way == "end_all":
            assert await sessions.end_all("ada") == 1
        elif way == "revoke_subject":
            assert await sessions.revoke_subject("ada") == 1
        elif way == "revocations":
            assert await revocations.revoke_subject("ada") == 2
        elif way == "end":
            assert (await sessions.end(broken), await sessions.end(other)) == (False, True)
        else:
            assert await sessions.end_all("ada", keep=broken) == 1
            assert await store.delete(SESSION + broken)
        assert await store.find(owner_of("ada")) == []
    assert "hidden" not in caplog.text
    assert {text for name, level, text in caplog.record_tuples if level == logging.ERROR} == {
        "the record of a session cannot be read"
    }


@pytest.mark.parametrize("value", [*OTHERS, *FAMILIES], ids=lambda value: repr(value)[:40])
async def test_an_unreadable_family(value: Any, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """It is a 503 for its own tokens, is in no list, and ends as the others do."""
    store = MemoryStore(clock=clock)
    tokens, revocations = RefreshTokens(store, clock=clock), Revocations(store, clock=clock)
    for way in ("revoke_subject", "revocations", "revoke", "kept"):
        broken, other = [await tokens.issue(CLAIMS) for _ in range(2)]
        broken_id, other_id = map(tokens.family_id, (broken, other))
        await edit(store, FAMILY + broken_id, value)
        assert [one.id for one in await tokens.families("ada")] == [other_id]
        await unreadable(tokens.rotate(broken))
        await unreadable(tokens.change(broken_id, {}, subject="ada"))
        if way == "revoke_subject":
            assert await tokens.revoke_subject("ada") == 2
        elif way == "revocations":
            assert await revocations.revoke_subject("ada") == 2
        elif way == "revoke":
            assert (await tokens.revoke(broken), await tokens.end(other_id)) == (True, True)
        else:
            assert await tokens.revoke_subject("ada", keep=broken_id) == 1
            assert await store.delete(FAMILY + broken_id)
        assert await store.find(owner_of("ada")) == []
    assert "hidden" not in caplog.text


async def test_a_family_without_an_expiry(clock: Clock) -> None:
    """No family is stored without one: such a record is a 503 for its tokens, is in no list, and ends."""
    store = MemoryStore(clock=clock)
    tokens = RefreshTokens(store, clock=clock)
    broken, other = [await tokens.issue(CLAIMS) for _ in range(2)]
    key = FAMILY + tokens.family_id(broken)
    [record] = await store.get(key)
    assert record is not None
    assert await store.replace(key, record, replace(record, expires_at=None))
    assert [one.id for one in await tokens.families("ada")] == [tokens.family_id(other)]
    await unreadable(tokens.rotate(broken))
    assert await tokens.revoke_subject("ada") == 2


async def test_a_record_of_a_step_up_with_another_value(clock: Clock) -> None:
    """The session that a step-up began is found by the key of the record that leads to it."""
    store = MemoryStore(clock=clock)
    sessions = SessionAuth(store, clock=clock)
    _, old = await begun(sessions, clock)
    new = await sessions.renew(Response(), old, {}, connection=NOWHERE)
    await edit(store, f"replaced:{new.id}", b"\xff")
    assert await sessions.end(old)
    assert await sessions.list("ada") == []


async def test_an_unreadable_session_of_an_unknown_auth(clock: Clock) -> None:
    """A session of version 0.1.0, without the name of an Auth, is readable, and belongs to none."""
    store = MemoryStore(clock=clock)
    sessions = SessionAuth(store, clock=clock)
    _, session_id = await begun(sessions, clock)
    [record] = await store.get(SESSION + session_id)
    assert record is not None
    members = json.loads(record.value)
    del members["auth"]
    await edit(store, record.key, json.dumps(members).encode("ascii"))
    assert (await sessions.list("ada"), await sessions.end_all("ada")) == ([], 0)
    assert await Revocations(store, clock=clock).revoke_subject("ada") == 1
