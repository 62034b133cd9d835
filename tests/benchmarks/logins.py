"""Logins and their claims beside those of 0.1.0, the round trips of a login, and the cost of checking a code.

`login` shows its rows. The wheels of both versions are imported in one process, and their calls take turns.
"""

import asyncio
import importlib
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from fastapi import Response
from joserfc import jwk
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_guard import JWTConfig
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.login.factor import Factor
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login, LoginLimits
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.outcome import Complete
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.totp import TOTP
from fastapi_guard.stores import MemoryStore

from .former import CACHED_MICROSECONDS, PACKAGE, WHOLE_REQUEST, built, exported, imported
from .harness import Variant, application, measure
from .report import Limit

sys.path.insert(0, str(Path(__file__).parent.parent))
from support.clock import Clock
from support.factors import KEY, Desk, totp_code, user_named
from support.login import CountingStore
from support.logins import House, SecondFactor

FORMER, FORMER_NAME = "7ef385c", "0.1.0"
PASSWORD = "wonderland tea party"
USER: dict[str, Any] = {"scopes": ["items:read"], "roles": ["editor"]}
NOWHERE = HTTPConnection({"type": "http", "headers": []})
LOGIN = 1.10
TRIPS = 4
SECOND_FACTORS = {
    "totp": "a code of an app",
    "recovery": "a recovery code",
    "mail": "a mailed code",
    "passkey": "a passkey",
    "passkey with a counter": "a security key",
}
MILLISECOND = 1000.0

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Version:
    """The timed calls of one version.

    Attributes:
        login: A login with a password.
        claims: Applications whose route has the claims of a token or a session, by what they read.
        close: Stops the threads that hash.
    """

    login: Call
    claims: Mapping[str, ASGIApp]
    close: Call


def restored(present: Mapping[str, ModuleType]) -> None:
    """Put the modules of this version back into their places."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    sys.modules.update(present)


async def former_version(folder: Path, stored: str, key: jwk.OctKey) -> Version:
    """Return 0.1.0, whose modules are at other places, from a folder with the contents of its wheel."""
    present = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE}
    package = imported(folder)
    names = ("local", "refresh", "session", "stores")
    local, refresh, session, stores = (importlib.import_module(f"{PACKAGE}.{name}") for name in names)
    users = {"ada": {"password_hash": stored, **USER}}
    tokens = refresh.RefreshTokens(stores.MemoryStore())
    auth = local.LocalAuth(config_of(package, key), users, refresh=tokens, throttled=False)
    cached = package.JWTAuth(config_of(package, key, cache_size=10))
    sessions = session.SessionAuth(stores.MemoryStore())
    version = await version_of(auth, cached, sessions)
    restored(present)
    return version


async def present_version(stored: str, key: jwk.OctKey) -> Version:
    """Return this version."""
    users = {"ada": {"password_hash": stored, **USER}}
    login = Login(users, MemoryStore(), limits=LoginLimits(account=None, address=None))
    package = sys.modules[PACKAGE]
    auth = LocalAuth(config_of(package, key), login, refresh=RefreshTokens(MemoryStore()))
    cached = package.JWTAuth(config_of(package, key, cache_size=10))
    return await version_of(auth, cached, SessionAuth(MemoryStore()))


def config_of(package: ModuleType, key: jwk.OctKey, **options: Any) -> Any:
    """Return the configuration of the tokens, which is the same in both versions."""
    return package.JWTConfig(key=key, issuer_url="https://shop.example", **options)


async def version_of(auth: Any, cached: Any, sessions: Any) -> Version:
    """Return the calls of one version, which were made once."""
    token = (await auth.login("ada", PASSWORD)).access_token
    response = Response()
    await sessions.login(response, {"sub": "ada", "scope": "items:read", "roles": ["editor"]}, connection=NOWHERE)
    raw = response.headers["set-cookie"].partition("=")[2].partition(";")[0]
    claims = {
        "a token": sending("authorization", f"Bearer {token}", application(auth.authenticated())),
        "a cached token": sending("authorization", f"Bearer {token}", application(cached.authenticated())),
        "a session": sending("cookie", f"__Host-session={raw}", application(sessions.authenticated())),
    }
    close = auth.aclose if hasattr(auth, "aclose") else nothing
    return Version(lambda: auth.login("ada", PASSWORD), claims, close)


def sending(field: str, value: str, app: ASGIApp) -> ASGIApp:
    """Return an application whose requests have a header field; without it the answer is a 401."""
    header = (field.encode("ascii"), value.encode("ascii"))

    async def sent(scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"].append(header)
        await app(scope, receive, send)

    return sent


async def beside_former(rounds: int, requests: int) -> tuple[Limit, list[Variant]]:
    """Time a login beside that of 0.1.0; return the requests of both whose claims are to be timed."""
    stored, key = await PasswordHasher().hash(PASSWORD), jwk.OctKey.generate_key(256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        former = await former_version(built(exported(FORMER, folder / "source"), folder / "wheel"), stored, key)
        present = await present_version(stored, key)
        # The hash of a password takes milliseconds: fewer calls are exact.
        limit = await in_turns(former.login, present.login, rounds, max(1, requests // 100))
        await present.close()
        await former.close()
    versions = {FORMER_NAME: former, "this": present}
    return limit, [
        Variant(name=f"{what}, {name}", app=app, controls={})
        for name, version in versions.items()
        for what, app in version.claims.items()
    ]


def claims_beside_former(variants: list[Variant], rounds: int, requests: int) -> list[Limit]:
    """Time requests whose claims are read, beside 0.1.0: the cost there, and the same with what was added to it."""
    timings = measure(variants, rounds=rounds, requests=requests)
    limits = []
    for what in dict.fromkeys(variant.name.partition(", ")[0] for variant in variants):
        former, present = f"{what}, {FORMER_NAME}", f"{what}, this"
        cost, added = timings.cost(former), timings.added(present, former)
        factor = 1 + (CACHED_MICROSECONDS / cost if "cached" in what else WHOLE_REQUEST)
        row = f"claims of {what}, the whole request"
        limits.append(Limit(request=row, measured=cost + added, reference=FORMER_NAME, cost=cost, factor=factor))
    return limits


async def in_turns(former: Call, present: Call, rounds: int, requests: int) -> Limit:
    """Time logins of both, in milliseconds: the cost of the former, and the same with what the present adds to it."""
    spent: dict[Call, list[float]] = {former: [], present: []}
    for number in range(rounds + 1):
        # The second of one round is the first of the next.
        for call in (former, present) if number % 2 else (present, former):
            start = time.perf_counter()
            for _ in range(requests):
                await call()
            spent[call].append((time.perf_counter() - start) / requests * 1e3)
    (_, *before), (_, *after) = spent[former], spent[present]  # the first round warms up
    cost, added = median(before), median(mine - other for mine, other in zip(after, before, strict=True))
    row = "a login with tokens"
    return Limit(request=row, measured=cost + added, reference=FORMER_NAME, cost=cost, factor=LOGIN, unit="ms")


class Counted:
    """A login without a second factor, whose stores count their round trips."""

    def __init__(self, stored: str) -> None:
        """Keep everything in one store, as an application with a Redis or a database does.

        Args:
            stored: The hash of the password.
        """
        self.store = CountingStore(MemoryStore())
        second = [TOTP(key=KEY, issuer="Shop"), RecoveryCodes()]
        self.login = Login({"ada": {"password_hash": stored, **USER}}, self.store, second=second)
        refresh = RefreshTokens(self.store)
        self.auth = LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), self.login, refresh=refresh)
        self.sessions = SessionAuth(self.store)

    async def session(self) -> Any:
        """Log in with a password, and begin a session."""
        outcome = await self.login.with_password("ada", PASSWORD, connection=NOWHERE)
        assert isinstance(outcome, Complete)
        return await self.sessions.login(Response(), outcome, connection=NOWHERE)


async def trips(store: CountingStore, call: Awaitable[Any]) -> tuple[int, Any]:
    """Return the round trips that a call waits for, and its result."""
    before = len(store.trips)
    result = await call
    return len(store.trips) - before, result


async def round_trips() -> list[Limit]:
    """Count the round trips to the store of a login with a password, and with each second factor."""
    counted = Counted(await PasswordHasher().hash(PASSWORD))
    tokens, _ = await trips(counted.store, counted.auth.login("ada", PASSWORD))
    session, _ = await trips(counted.store, counted.session())
    await counted.auth.aclose()
    limits = [trips_of("login with tokens", tokens), trips_of("login with a session", session)]
    for kind, name in SECOND_FACTORS.items():
        limits += await second_step_trips(kind, name)
    return limits


async def second_step_trips(kind: str, name: str) -> list[Limit]:
    """Count the round trips of both requests of a login with a second factor, and of the tokens that follow."""
    clock = Clock()
    store = CountingStore(MemoryStore(clock=clock))
    home = House(store, clock)
    factor = SecondFactor(home, kind)
    await factor.enrol()
    tokens = TokenPairs(JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256))), RefreshTokens(store), login=home.login)
    first, pending = await trips(store, home.pending())
    proof = await factor.proof(pending)
    second, outcome = await trips(store, factor.prove(pending, proof))
    await home.outbox.drain()
    issued, _ = await trips(store, tokens.issue(outcome))
    await home.login.aclose()
    return [
        trips_of(f"password before {name}", first),
        trips_of(f"second step by {name}", second),
        trips_of(f"both, and the tokens, by {name}", first + second + issued, requests=2),
    ]


def trips_of(name: str, found: int, *, requests: int = 1) -> Limit:
    """Return a row of round trips, of which each request may wait for four."""
    most = requests * TRIPS
    return Limit(request=f"store, {name}", measured=found, reference=str(most), cost=most, factor=1, unit="trips")


async def codes(checks: int) -> list[Limit]:
    """Time the checks of valid and of wrong codes, in a store in memory."""
    clock = Clock()
    user = user_named("ada@example.com", email_verified=True)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    outbox = Outbox(send)
    kinds: dict[str, Factor] = {
        "TOTP": TOTP(key=KEY, issuer="Shop"),
        "recovery": RecoveryCodes(count=50),
        "mailed": MailedCode(outbox, key=secrets.token_urlsafe(32), everyone=True),
    }
    limits = []
    for name, kind in kinds.items():
        desk = Desk(kind, MemoryStore(clock=clock), clock, user)
        shown: Mapping[str, Any] = {}
        if name != "mailed":
            enrolment = await desk.begin()
            shown = enrolment.shown
            await desk.records.add(enrolment.factor)
        left = list(shown.get("codes", ()))
        spent: dict[str, list[float]] = {"valid": [], "wrong": []}
        for number in range(min(checks, len(left) or checks)):
            clock.now += 60
            desk.binding = f"pending-{number}"
            if name == "mailed":
                await desk.challenge()
                await outbox.drain()
                code = sent[-1].code
            else:
                code = left.pop() if left else totp_code(shown["secret"], clock())
            for label, proof in (("wrong", {"code": "0" * len(str(code))}), ("valid", {"code": code})):
                start = time.perf_counter()
                proven = await desk.verify(proof)
                spent[label].append((time.perf_counter() - start) * 1e6)
                assert (proven is not None) == (label == "valid")
        limits += [
            Limit(request=f"{name} code, {label}", measured=median(times), reference="1 ms", cost=MILLISECOND, factor=1)
            for label, times in spent.items()
        ]
    return limits


async def nothing() -> None:
    """Close nothing."""


def measured(rounds: int, requests: int) -> list[Limit]:
    """Return the rows."""
    login, variants = asyncio.run(beside_former(rounds, requests))
    limits = [login, *claims_beside_former(variants, rounds, requests)]
    return limits + asyncio.run(round_trips()) + asyncio.run(codes(requests))
