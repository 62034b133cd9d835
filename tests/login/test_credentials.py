"""Change credentials: what was begun before ends, and what other logins have."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fastapi_guard import ConfigurationError, Forbidden, ServiceUnavailable, Unauthorized
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.exceptions import UserConflict, shown
from fastapi_guard.login.mailbox import MailboxPasswords
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import request
from support.logins import House


class Holder:
    """A holder of credentials that keeps what it is called with, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        """Fail with an error."""
        self.calls: list[tuple[str, str | None]] = []
        self.error = error

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """Count."""
        self.calls.append((subject, keep))
        if self.error is not None:
            raise self.error
        return 2


def house(clock: Clock, *holders: Any) -> House:
    """Return a Login that ends what holders have."""
    home = House(MemoryStore(clock=clock), clock)
    home.login.ends(*holders)
    return home


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"password_hash": "newer"}, True),
        ({"password_hash": None}, True),
        ({"disabled": True}, True),
        ({"email": "lovelace@example.com"}, False),
        ({"username": "lovelace"}, False),
        ({"scopes": ["c:d"]}, False),
        ({}, False),
    ],
    ids=range(7),
)
async def test_what_a_change_ends(clock: Clock, fields: dict[str, Any], *, ends: bool) -> None:
    """Each change raises the version; a password or a disabled user ends everything but the session that is kept."""
    first, second = Holder(), Holder()
    home = house(clock, first, second, first)
    user = await home.user()
    changed = await home.login.change(user, keep="sid-1", **fields)
    assert changed == await home.user()
    assert {name: getattr(changed, name) for name in fields} == fields
    assert changed.credentials_version == user.credentials_version + 1
    assert first.calls == second.calls == ([("ada", "sid-1")] if ends else [])


async def test_a_change_of_what_has_changed(clock: Clock) -> None:
    """Of two changes of the same version one is written; a name that is taken is refused; nothing ends."""
    holder = Holder()
    home = house(clock, holder)
    user = await home.user()
    changes = [home.login.change(user, password_hash=f"hash {number}") for number in range(5)]
    answers = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(answer) for answer in answers].count(UserConflict) == 4
    assert len(holder.calls) == 1
    conflict = "^the user was changed in the meantime, or a name belongs to another user$"
    with pytest.raises(UserConflict, match=conflict):
        await home.login.change(await home.user(), email="bob@example.com", password_hash="x")
    assert len(holder.calls) == 1


async def test_factors_that_change_while_the_user_does(clock: Clock) -> None:
    """A pending login ends, and a factor is not enrolled, where the user was changed or removed in the meantime."""
    home = house(clock)
    stale = await home.user()
    await home.login.change(stale, email="lovelace@example.com")
    update = home.users.update

    async def update_after_another(*arguments: Any) -> bool:
        home.users.update = update  # type: ignore[method-assign]
        await home.login.change(await home.user(), username="lovelace")
        return await update(*arguments)

    home.users.update = update_after_another  # type: ignore[method-assign]
    assert await home.login.enrolments.begin("recovery", stale, {}, binding="b") is None
    user = await home.user()
    assert (user.credentials_version, user.username, user.email) == (3, "lovelace", "lovelace@example.com")
    # One that was read before the factor was enrolled can enrol the next.
    for _ in range(2):
        codes = await home.login.enrolments.begin("recovery", user, {}, binding="b")
        assert codes is not None
        assert await home.login.factors.of("ada") == [codes.factor]
    del home.users._users["ada"]
    assert await home.login.enrolments.begin("recovery", stale, {}, binding="b") is None


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ServiceUnavailable(reason="store_unreachable"), ServiceUnavailable),
        (OSError("away"), ServiceUnavailable),
        (Forbidden(), Forbidden),
    ],
)
async def test_a_holder_that_is_unreachable(clock: Clock, error: Exception, raised: type[Exception]) -> None:
    """A holder that fails does not keep the others from being ended; a store that is unreachable is a 503."""
    first, second = Holder(error), Holder()
    home = house(clock, first, second)
    with pytest.raises(raised):
        await home.login.change(await home.user(), password_hash="newer")
    assert second.calls == [("ada", None)]
    assert (await home.user()).password_hash == "newer"


async def test_end_all(clock: Clock) -> None:
    """Everything of a subject can be ended without a change."""
    home = house(clock, Holder(), Holder())
    assert await home.login.end_all("ada", keep="sid-1") == 4


class Keys(DatabaseAPIKeyAuth):
    """API keys of which only the moment of their end counts."""

    def __init__(self, session: Holder) -> None:
        """End after a session."""
        self.session = session
        self.ended: list[bool] = []

    async def revoke_subject(self, subject: str, *, keep: str | None = None, **_: Any) -> int:
        """Note whether the session was revoked."""
        self.ended.append((subject, keep) in self.session.calls)
        return 1


async def test_api_keys_end_last(clock: Clock) -> None:
    """Whatever the order of the holders: until a session is revoked, it can make an API key (34a)."""
    session = Holder()
    keys = Keys(session)
    assert await house(clock, keys, session).login.end_all("ada") == 3
    assert await Revocations(MemoryStore(), ends=[keys, session]).revoke_subject("bob") == 3
    assert keys.ended == [True, True]


async def test_a_holder_that_does_not_count(clock: Clock) -> None:
    """A holder that returns nothing has ended what it had; those after it end, too."""

    class Silent(Holder):
        async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
            await super().revoke_subject(subject, keep=keep)
            return None  # type: ignore[return-value]

    silent, last = Silent(), Holder()
    assert await house(clock, silent, last).login.end_all("ada") == 2
    assert await Revocations(MemoryStore(), ends=[silent, last]).revoke_subject("bob") == 2
    assert [call[0] for call in last.calls] == [call[0] for call in silent.calls] == ["ada", "bob"]


def test_what_holds_nothing(clock: Clock) -> None:
    """A holder has the method; a class is not a holder."""
    for holder in (object(), Holder, MemoryStore()):
        with pytest.raises(ConfigurationError) as error:
            house(clock, holder)
        wanted = "ends is what has revoke_subject(subject, *, keep=None), such as SessionAuth"
        assert str(error.value) == f"{wanted}, not {shown(holder)}"
    store = MemoryStore()
    house(clock, SessionAuth(store), Revocations(store))


async def test_whether_a_user_is_as_before(clock: Clock) -> None:
    """The version is raised whichever it was; whether the user is enabled and as before is returned."""
    home = house(clock)
    ada, mallory = await home.user(), await home.user("mallory")
    raised = home.login.credentials.raise_version
    assert [await raised(user) for user in (ada, ada, mallory, replace(ada, subject_id="nobody"))] == [
        *(True, False, False, False)
    ]
    assert ((await home.user()).credentials_version, (await home.user("mallory")).credentials_version) == (2, 1)
    assert await home.login.credentials.current(ada) == await home.user()
    assert await home.login.credentials.current(mallory) is None


async def test_a_password_that_a_mailed_link_set(clock: Clock) -> None:
    """It is marked until the user changes the password otherwise; another change leaves the mark."""
    home = house(clock)
    mailbox = MailboxPasswords(home.store, home.login.name)

    async def marked(**change: Any) -> bool:
        await home.login.change(await home.user(), **change)
        return await mailbox.is_marked(await home.user())

    assert not await marked(username="lovelace")
    assert await marked(by_mail=True, password_hash="mailed")
    assert await marked(username="ada")
    assert await marked(disabled=True)
    assert not await marked(password_hash="own")


async def test_the_version_rises_whoever_was_first(clock: Clock) -> None:
    """Several factors that are added or removed at the same time each raise the version, of whatever it is by then."""
    home = house(clock)
    ada = await home.user()
    await home.enrol("totp")
    await home.enrol("recovery")
    assert await home.login.enrolments.reset(ada) == 2
    before = (await home.user()).credentials_version
    await asyncio.gather(*[home.login.enrolments.reset(ada) for _ in range(4)])
    assert (await home.user()).credentials_version == before + 4
    await home.login.enrolments.reset(replace(ada, subject_id="nobody"))


async def test_a_version_that_never_settles(clock: Clock) -> None:
    """A user who changes again and again is a 503."""

    async def update(*_: Any) -> bool:
        return False

    home = house(clock)
    home.users.update = update  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable) as error:
        await home.login.enrolments.reset(await home.user())
    assert error.value.reason == "contended"


async def test_a_login_that_was_begun_before_everything_ended(clock: Clock) -> None:
    """A pending login does not complete after a logout everywhere, although the password is still the same."""
    home = house(clock)
    await home.enrol("totp")
    pending = await home.pending()
    await home.login.end_all("ada")
    with pytest.raises(Unauthorized, match="401"):
        await home.login.with_totp(pending.id, home.code(), connection=request())
    assert await home.login.with_totp((await home.pending()).id, home.code(), connection=request())


async def test_ending_everything_while_the_users_are_unavailable(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in other places end all the same, and the error is raised."""
    holder = Holder()
    home = house(clock, holder)

    async def unavailable(_: str) -> None:
        raise ServiceUnavailable(reason="database_unreachable")

    monkeypatch.setattr(home.users, "by_subject", unavailable)
    with pytest.raises(ServiceUnavailable):
        await home.login.end_all("ada", keep="sid-1")
    assert holder.calls == [("ada", "sid-1")]
