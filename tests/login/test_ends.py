"""Everything of a subject ends, also where one record of it cannot be ended: that failure is raised afterwards."""

import secrets

import pytest
from fastapi import Request, Response

from fastapi_guard import ServiceUnavailable
from fastapi_guard.login.keyring import mailing_keys
from fastapi_guard.login.mailed_secrets import Mailed, MailedSecrets
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.state import owner_of
from fastapi_guard.stores import MemoryStore
from support.clock import Clock

CLAIMS = {"sub": "ada"}
NOWHERE = Request({"type": "http", "headers": []})


class Stuck(MemoryStore):
    """A store that cannot delete one of its records."""

    stuck = ""

    async def delete(self, key: str) -> bool:
        """Raise for that record."""
        if key == self.stuck:
            raise ServiceUnavailable(reason="stuck")
        return await super().delete(key)


async def rest(store: Stuck, kind: str, way: str, clock: Clock) -> set[str]:
    """End what a subject has in the ways of the test, with one record that cannot be deleted; return what is left."""
    sessions, tokens = SessionAuth(store, clock=clock), RefreshTokens(store, clock=clock)
    for _ in range(3):
        await sessions.login(Response(), CLAIMS, connection=NOWHERE)
        await tokens.issue(CLAIMS)
    store.stuck = next(one.key for one in await store.find(owner_of("ada")) if one.key.startswith(kind))
    holder = {"sessions": sessions, "families": tokens, "all": Revocations(store, clock=clock)}[way]
    with pytest.raises(ServiceUnavailable) as failed:
        await holder.revoke_subject("ada")
    assert failed.value.reason == "stuck"
    left = {record.key for record in await store.find(owner_of("ada"))}
    return left if way == "all" else {key for key in left if key.startswith(kind)}


@pytest.mark.parametrize(
    ("kind", "way"), [("session:", "sessions"), ("refresh:", "families"), ("session:", "all"), ("refresh:", "all")]
)
async def test_a_record_that_cannot_be_deleted(kind: str, way: str, clock: Clock) -> None:
    """The others of the subject end."""
    store = Stuck(clock=clock)
    assert await rest(store, kind, way, clock) == {store.stuck}


@pytest.mark.parametrize("way", ["end", "use_code"])
async def test_a_mailed_secret_that_cannot_be_deleted(way: str, clock: Clock) -> None:
    """The other secrets of the user end."""
    store = Stuck(clock=clock)
    mailed = MailedSecrets(store, mailing_keys(secrets.token_bytes(32)), clock=clock)
    reset = Mailed(purpose="reset_password", subject="ada", address="ada@example.com", version=1)
    issued = await mailed.issue(reset, "browser")
    assert issued is not None
    [used] = store._records
    for number in range(3):
        await mailed.issue(reset, f"other-{number}")
    store.stuck = next(key for key in store._records if key != used)
    with pytest.raises(ServiceUnavailable):
        await (mailed.end("ada") if way == "end" else mailed.use_code(reset, issued.code, "browser"))
    alive = [key for key in store._records if (await store.get(key))[0] is not None]
    assert alive == [store.stuck]
