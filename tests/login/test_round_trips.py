"""The round trips to the store of a login with each second factor: as calls, and as the server sees them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jwk
from redis.asyncio import Redis
from sqlalchemy import event

from fastapi_guard import JWTConfig, Unauthorized
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.stores import MemoryStore, Store
from fastapi_guard.stores.database import Sessions
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.clock import Clock
from support.login import CountingStore
from support.logins import House, SecondFactor
from support.stores import FiveMethods, sessions_of

# What the pending login, the factors, the proof and what is noted about it cost.
SECOND_STEPS = {
    "totp": ["take", "find", "add"],
    "recovery": ["take", "find", "replace"],
    "mail": ["take", "find", "find", "replace"],
    "passkey": ["take", "find", "take"],
    "passkey with a counter": ["take", "find", "take", "replace"],
}
MOST = 4


@asynccontextmanager
async def watched(request: pytest.FixtureRequest, kind: str, clock: Clock) -> AsyncIterator[tuple[Store, list[str]]]:
    """Open a store, and list the commands or statements that reach its server."""
    seen: list[str] = []
    prefix = f"{uuid4().hex}:"
    if kind == "redis":
        async with Redis.from_url(request.getfixturevalue("redis_url")) as client:
            execute = client.execute_command

            def counted(*command: Any, **options: Any) -> Any:
                seen.append(str(command[0]))
                return execute(*command, **options)

            client.execute_command = counted  # type: ignore[method-assign]
            yield RedisStore(client, prefix=prefix, clock=clock), seen
        return
    async with sessions_of(request, kind) as sessions:
        store = SQLAlchemyStore(sessions, prefix=prefix, clock=clock)
        await store.create_table()
        engine = Sessions(sessions).engine
        event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
        yield store, seen


@pytest.mark.parametrize("where", ["postgres-async", "redis"])
@pytest.mark.parametrize("kind", SECOND_STEPS)
async def test_round_trips(request: pytest.FixtureRequest, clock: Clock, where: str, kind: str) -> None:
    """A second step costs at most four, each one command or statement, and the tokens that follow one more."""
    async with watched(request, where, clock) as (opened, seen):
        store = CountingStore(opened)
        home = House(store, clock)
        jwt = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), clock=clock)
        tokens = TokenPairs(jwt, RefreshTokens(store, clock=clock), login=home.login)
        factor = SecondFactor(home, kind)
        await factor.enrol()

        def forget() -> None:
            store.trips.clear()
            seen.clear()

        # From then on Redis has the scripts, and the table was pruned in this minute.
        pending = await home.pending()
        await tokens.issue(await factor.prove(pending, await factor.proof(pending)))
        await home.outbox.drain()
        clock.move(30)
        forget()
        pending = await home.pending()
        # Of a user with a mailed code it is read too whether a mailed link has set the password.
        assert store.trips == (["find", "get", "add"] if kind == "mail" else ["find", "add"])
        assert len(seen) == len(store.trips) <= MOST
        proof = await factor.proof(pending)
        forget()
        outcome = await factor.prove(pending, proof)
        assert store.trips == SECOND_STEPS[kind]
        assert len(seen) == len(store.trips) <= MOST
        # The use of the factor is noted after the answer, unless the proof has noted it.
        forget()
        await home.outbox.drain()
        assert store.trips == ([] if kind in ("recovery", "passkey with a counter") else ["replace"])
        [enrolled] = await home.login.factors.of("ada")
        assert enrolled.used_at == clock()
        forget()
        await tokens.issue(outcome)
        assert store.trips == ["add"]
        assert len(seen) == 1
        await home.outbox.drain()


@pytest.mark.parametrize("kind", SECOND_STEPS)
async def test_a_wrong_proof(clock: Clock, kind: str) -> None:
    """A wrong proof stores the pending login again, and is three round trips, four for a passkey, five by mail."""
    store = CountingStore(MemoryStore(clock=clock))
    home = House(store, clock)
    factor = SecondFactor(home, kind)
    await factor.enrol()
    pending = await home.pending()
    proof = await factor.proof(pending)
    if factor.kind == "passkey":
        proof["credential"]["response"]["signature"] = "AAAA"
    else:
        proof = {"code": "00000000"}
    store.trips.clear()
    with pytest.raises(Unauthorized):
        await factor.prove(pending, proof)
    expected = {"mail": ["find", "replace"], "passkey": ["take"]}.get(factor.kind, [])
    assert store.trips == ["take", "find", *expected, "add"]


@pytest.mark.parametrize("kind", SECOND_STEPS)
async def test_a_store_of_five_methods(clock: Clock, kind: str) -> None:
    """A store of the application's own completes a second step too, once, after a try that failed."""
    home = House(FiveMethods(MemoryStore(clock=clock)), clock)
    factor = SecondFactor(home, kind)
    await factor.enrol()
    pending = await home.pending()
    proof = await factor.proof(pending)
    with pytest.raises(Unauthorized):
        await home.login.with_factor(pending.id, factor.kind, {}, connection=None)
    assert (await factor.prove(pending, proof)).claims["sub"] == "ada"
    with pytest.raises(Unauthorized, match="expired"):
        await factor.prove(pending, proof)
    await home.outbox.drain()
