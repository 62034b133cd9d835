"""Interleavings of logins, refreshes, revocations, disabling and enrolments on each store, against a model."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyotp
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from joserfc.jwk import ECKey
from redis.asyncio import Redis
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import JWTConfig, Unauthorized
from fastapi_guard.jwt.tokens import TokenPair
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import User
from fastapi_guard.stores import MemoryStore, Store
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD, request
from support.logins import users_of
from support.passwords import quick_hasher

CONFIG = JWTConfig(key=ECKey.generate_key("P-256"), expiration_seconds=864_000)
NAMES = ("ada", "bob")
PENDING_SECONDS, PENDING_TRIES, GRACE_SECONDS = 600, 5, 10
STEP_SECONDS = 60  # so that each code is another one

Opened = Callable[[Clock], Store]


@dataclass
class Person:
    """A user, as the model has it."""

    name: str
    disabled: bool = False
    version: int = 0
    secret: str | None = None


@dataclass
class Waiting:
    """A pending login, as the model has it."""

    person: Person
    id: str
    version: int
    until: float
    tries: int = 0
    open: bool = True


@dataclass
class Device:
    """A login with tokens, as the model has it: access tokens with whether each is valid, and the refresh tokens."""

    person: Person
    refresh: str
    second: bool
    previous: str | None = None
    rotated_at: float = 0
    alive: bool = True
    access: dict[str, bool] = field(default_factory=dict)


class Logins(RuleBasedStateMachine):
    """The steps, each with the result that the model expects."""

    opened: Opened
    runner: asyncio.Runner

    def __init__(self) -> None:
        """Open an empty store, and enrol a factor of one user."""
        super().__init__()
        self.clock = Clock()
        store = self.opened(self.clock)
        self.login = Login(
            users_of(),
            store,
            passwords=quick_hasher(),
            second=[TOTP(key=KEY, issuer="Shop")],
            limits=LoginLimits(account=None, address=None),
            clock=self.clock,
        )
        self.auth = LocalAuth(
            CONFIG,
            self.login,
            refresh=RefreshTokens(store, clock=self.clock),
            revocations=Revocations(store, clock=self.clock),
            clock=self.clock,
        )
        self.people = {name: Person(name) for name in NAMES}
        self.waiting: list[Waiting] = []
        self.devices: list[Device] = []
        self.enrol("bob")

    def run(self, coroutine: Awaitable[Any]) -> Any:
        """Return the result of a coroutine, ``None`` where it is refused."""

        async def refused() -> Any:
            with suppress(Unauthorized):
                return await coroutine

        return self.runner.run(refused())

    def teardown(self) -> None:
        """Stop the threads that hash."""
        self.run(self.login.aclose())

    def user(self, person: Person) -> User:
        """Return the user as it is stored."""
        user: User = self.run(self.login.users.by_subject(person.name))
        return user

    def change(self, person: Person, **fields: Any) -> None:
        """Change a user, and end what has begun."""
        self.run(self.login.change(self.user(person), **fields))
        person.version += 1

    def end_all(self, person: Person) -> None:
        """End each login of a person in the model."""
        for device in self.devices:
            if device.person is person:
                device.alive = False
                device.access = dict.fromkeys(device.access, False)

    def keep(self, person: Person, outcome: Complete, *, second: bool) -> None:
        """Issue the tokens of a login that is complete."""
        pair: TokenPair = self.run(self.auth.tokens.issue(outcome))
        self.devices.append(Device(person, pair.refresh_token, second, access={pair.access_token: True}))

    @rule(name=st.sampled_from(NAMES), right=st.sampled_from([True, True, True, False]))
    def log_in(self, name: str, right: bool) -> None:
        """A password is enough without a second factor, and for nothing where the user is disabled."""
        person = self.people[name]
        outcome = self.run(
            self.login.with_password(name, PASSWORD if right else "a wrong password", connection=request())
        )
        if person.disabled or not right:
            assert outcome is None
        elif person.secret is None:
            assert isinstance(outcome, Complete)
            self.keep(person, outcome, second=False)
        else:
            assert isinstance(outcome, Pending)
            self.waiting.append(Waiting(person, outcome.id, person.version, self.clock() + PENDING_SECONDS))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), right=st.booleans())
    def second_step(self, data: st.DataObject, right: bool) -> None:
        """A pending login completes once, in its time, with few tries, and not after a change of the user."""
        waiting = data.draw(st.sampled_from(self.waiting))
        person = waiting.person
        assert person.secret is not None
        self.clock.move(STEP_SECONDS)
        code = pyotp.TOTP(person.secret).at(int(self.clock()))
        sent = code if right else f"{(int(code) + 1) % 1_000_000:06}"
        outcome = self.run(self.login.with_totp(waiting.id, sent, connection=request()))
        usable = (
            waiting.open
            and self.clock() < waiting.until
            and waiting.version == person.version
            and not person.disabled
            and waiting.tries < PENDING_TRIES
        )
        waiting.tries += 1
        if usable and right:
            assert isinstance(outcome, Complete)
            waiting.open = False
            self.keep(person, outcome, second=True)
        else:
            assert outcome is None

    @precondition(lambda self: self.devices)
    @rule(data=st.data(), twice=st.booleans())
    def refresh(self, data: st.DataObject, twice: bool) -> None:
        """The current refresh token is exchanged, also twice at once; a login without the factor ends with it."""
        device = data.draw(st.sampled_from(self.devices))
        person = device.person

        async def exchange() -> list[Any]:
            sent = [self.auth.refresh(device.refresh) for _ in range(2 if twice else 1)]
            return await asyncio.gather(*sent, return_exceptions=True)

        pairs = self.run(exchange())
        if device.alive and not person.disabled and (device.second or person.secret is None):
            assert len({pair.refresh_token for pair in pairs}) == 1
            device.previous, device.refresh, device.rotated_at = device.refresh, pairs[0].refresh_token, self.clock()
            device.access |= dict.fromkeys((pair.access_token for pair in pairs), True)
        else:
            assert all(isinstance(pair, Unauthorized) for pair in pairs), pairs
            device.alive = False

    @precondition(lambda self: any(device.previous for device in self.devices))
    @rule(data=st.data(), seconds=st.sampled_from([0, GRACE_SECONDS]))
    def refresh_with_a_used_token(self, data: st.DataObject, seconds: int) -> None:
        """A used refresh token has the same successor for some seconds, and ends the login after them."""
        device = data.draw(st.sampled_from([device for device in self.devices if device.previous]))
        self.clock.move(seconds)
        continues = not device.person.disabled and (device.second or device.person.secret is None)
        pair = self.run(self.auth.refresh(str(device.previous)))
        in_grace = self.clock() - device.rotated_at < GRACE_SECONDS
        if device.alive and continues and in_grace:
            assert pair.refresh_token == device.refresh
            device.access[pair.access_token] = True
        else:
            assert pair is None
            if device.alive and not in_grace:
                device.access = dict.fromkeys(device.access, False)
            device.alive = False

    @precondition(lambda self: self.devices)
    @rule(data=st.data(), how=st.sampled_from(["refresh token", "access token", "logout", "device"]))
    def revoke(self, data: st.DataObject, how: str) -> None:
        """An access token ends alone; a refresh token, a logout and a device end all tokens of their login."""
        device = data.draw(st.sampled_from(self.devices))
        token = data.draw(st.sampled_from(sorted(device.access)))
        family = RefreshTokens.family_id(device.refresh)
        if how == "refresh token":
            assert self.run(self.auth.revoke(device.refresh)) is device.alive
            if device.alive:
                device.access = dict.fromkeys(device.access, False)
            device.alive = False
        elif how == "access token":
            assert self.run(self.auth.revoke(token)) is device.access[token]
            device.access[token] = False
        elif how == "device":
            assert self.run(self.auth.tokens.end_device(family)) is device.alive
            if device.alive:
                device.access = dict.fromkeys(device.access, False)
            device.alive = False
        elif claims := self.run(self.auth.verify(token)):
            self.run(self.auth.logout(claims))
            device.access, device.alive = dict.fromkeys(device.access, False), False

    @rule(name=st.sampled_from(NAMES))
    def revoke_subject(self, name: str) -> None:
        """Everything that a user has or has begun ends."""
        person = self.people[name]
        self.run(self.auth.revoke_subject(name))
        person.version += 1
        self.end_all(person)

    @rule(name=st.sampled_from(NAMES), disabled=st.booleans())
    def disable_or_enable(self, name: str, disabled: bool) -> None:
        """A user who is disabled has nothing any more; one who is enabled again has to log in."""
        person = self.people[name]
        self.change(person, disabled=disabled)
        person.disabled = disabled
        if disabled:
            self.end_all(person)

    @rule(name=st.sampled_from(NAMES))
    def enrol(self, name: str) -> None:
        """A user who enrols a factor needs it from then on; a disabled user cannot."""
        person = self.people[name]
        if person.secret is not None:
            return
        user = self.user(person)
        begun = self.run(self.login.enrolments.begin("totp", user, {}, binding="this login"))
        assert (begun is None) is person.disabled
        if begun is None:
            return
        secret = begun.shown["secret"]
        code = pyotp.TOTP(secret).at(int(self.clock()))
        enrolled = self.run(self.login.enrolments.confirm(user, begun.enrolment, {"code": code}, binding="this login"))
        assert enrolled is not None
        person.secret = secret
        person.version += 1

    @invariant()
    def tokens_are_valid_as_in_the_model(self) -> None:
        """Each access token is valid or not, and each login is listed or not, as in the model."""

        async def valid() -> dict[str, bool]:
            found = {}
            for token in (token for device in self.devices for token in device.access):
                try:
                    found[token] = bool(await self.auth.verify(token))
                except Unauthorized:
                    found[token] = False
            return found

        expected = {token: good for device in self.devices for token, good in device.access.items()}
        assert self.run(valid()) == expected
        for person in self.people.values():
            listed = {family.id for family in self.run(self.auth.tokens.devices(person.name))}
            alive = [device for device in self.devices if device.alive and device.person is person]
            assert listed == {RefreshTokens.family_id(device.refresh) for device in alive}


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Opened, asyncio.Runner]]:
    """Yield a function that opens an empty store, and the loop that it belongs to."""
    kind: str = request.param
    with asyncio.Runner() as runner:
        if kind == "memory":
            yield lambda clock: MemoryStore(clock=clock), runner
        elif kind == "redis":
            client = Redis.from_url(request.getfixturevalue("redis_url"))
            yield lambda clock: RedisStore(client, prefix=f"{uuid4().hex}:", clock=clock), runner
            runner.run(client.aclose())
        else:
            url = f"sqlite:///{tmp_path / 'a.db'}"
            if kind == "postgres":
                url = request.getfixturevalue("postgres_url").set(drivername="postgresql+psycopg")
            engine = create_engine(url)
            sessions = sessionmaker(engine)
            runner.run(SQLAlchemyStore(sessions).create_table())
            yield lambda clock: SQLAlchemyStore(sessions, prefix=f"{uuid4().hex}:", clock=clock), runner
            engine.dispose()


def explore(opened: tuple[Opened, asyncio.Runner], examples: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Run steps on empty stores, and compare each with the model."""
    machine = type("Machine", (Logins,), {"opened": staticmethod(opened[0]), "runner": opened[1]})
    limits = settings(
        max_examples=examples,
        phases=phases,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def test_interleavings(opened: tuple[Opened, asyncio.Runner]) -> None:
    """Sequences of steps leave each store as the model has it; `nox -s interleavings` runs a thousand."""
    usual = "6" if settings.get_current_profile_name() == "quick" else "30"
    explore(opened, int(os.environ.get("INTERLEAVINGS", usual)))


async def never(*_: object) -> None:
    """Return nothing, whatever was passed."""


@pytest.mark.parametrize("opened", ["memory"], indirect=True)
@pytest.mark.parametrize(
    "place",
    [
        "fastapi_guard.login.revocation.Revocations.is_revoked",
        "fastapi_guard.login.credentials.Credentials.end",
        "fastapi_guard.login.refresh.RefreshTokens.end",
    ],
)
def test_a_planted_fault_is_found(
    opened: tuple[Opened, asyncio.Runner], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the package that does nothing is noticed, so that a run without findings is meaningful."""
    monkeypatch.setattr(place, never)
    with pytest.raises(Exception):  # noqa: B017, PT011 - an assertion, or several of them
        explore(opened, 100, [Phase.generate])
