"""The records of a login, as a store has them."""

import json
import secrets

import pytest
from fastapi import Response

from fastapi_guard.login.devices import KnownDevices
from fastapi_guard.login.family import FamilyState, Token
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore, Record
from support.clock import Clock
from support.login import request
from support.logins import ADDRESS, House


class Keeping(MemoryStore):
    """A store that remembers every value."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        super().__init__(clock=clock)
        self.values: dict[str, list[bytes]] = {}

    async def add(self, record: Record) -> bool:
        """Remember the value of a new record."""
        self.values.setdefault(record.key.partition(":")[0], []).append(record.value)
        return await super().add(record)

    async def replace(self, key: str, expected: Record, new: Record) -> bool:
        """Remember the value of a changed record."""
        self.values.setdefault(key.partition(":")[0], []).append(new.value)
        return await super().replace(key, expected, new)


async def test_records_are_compact(clock: Clock) -> None:
    """The value of a record is JSON without white space: a store may have millions of them, in memory."""
    store = Keeping(clock)
    home = House(store, clock)
    for kind in ("totp", "passkey", "recovery", "mail"):
        await home.enrol(kind)
    pending = await home.pending()
    await home.login.challenge(pending.id, "passkey", connection=None)
    user = await home.user()
    await KnownDevices(store, "login", None).see(user, ADDRESS, clock())
    await RefreshTokens(store, clock=clock).issue({"sub": "ada", "tenants": ["a", "b"]})
    session = SessionAuth(store, clock=clock)
    await session.login(Response(), {"sub": "ada", "tenants": ["a", "b"]}, connection=request())
    revocations = Revocations(store, clock=clock)
    for issuer in ("https://a.example", None):
        await revocations.revoke_subject("ada", issuer=issuer)
        await revocations.revoke_id("1", issuer=issuer)
    found = {prefix: [value for value in values if value] for prefix, values in store.values.items()}
    for prefix in ("enrolment", "factor", "mailed", "pending", "device", "refresh", "session", "revoked"):
        assert found[prefix]
    for value in (value for values in found.values() for value in values):
        assert value == json.dumps(json.loads(value), separators=(",", ":")).encode()
    for value in found["factor"]:
        data = json.loads(value)["data"]
        assert not data or data == json.dumps(json.loads(data), separators=(",", ":"))


async def test_secrets_of_a_length_of_their_own(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of tokens, nonces and ids does not depend on the default of the module secrets."""
    monkeypatch.setattr(secrets, "DEFAULT_ENTROPY", 4)
    token = Token.new()
    state = FamilyState("refresh", {"sub": "ada"}, clock(), clock(), token.digest)
    rotated, successor = state.rotated(token, {"sub": "ada"}, ADDRESS, clock())
    assert [len(text) for text in (token.text, successor.text, rotated.nonce or "")] == [64, 64, 64]
    home = House(MemoryStore(clock=clock), clock)
    await home.enrol("totp")
    assert len((await home.pending()).id) == 43
