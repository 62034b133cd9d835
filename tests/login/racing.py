"""Use single-use secrets as fast as possible, in the process of a test and in another one at the same time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard.login.enrolled import DatabaseFactors, EnrolledFactors, StoredFactors
from fastapi_guard.login.enrolment import Enrolments
from fastapi_guard.login.factors import Factors
from fastapi_guard.login.keyring import mailing_keys
from fastapi_guard.login.mailed_secrets import Mailed, MailedSecrets
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.pending import Begun, PendingLogins
from fastapi_guard.login.providers.attempts import Attempt, Attempts
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.state import digest_of
from fastapi_guard.login.totp import TOTP
from fastapi_guard.stores import Store
from fastapi_guard.stores.redis import RedisStore
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore
from support.authenticator import Authenticator
from support.clock import Clock
from support.factors import KEY, totp_code, user_named

ROUNDS = 8
Spend = Callable[[Any], Awaitable[bool]]


class Race:
    """The secrets of one rule: made by one process, spent by two."""

    def __init__(self, store: Store, records: EnrolledFactors, now: float) -> None:
        """Work in the storage that both processes have."""
        kinds = [TOTP(key=KEY, issuer="Shop"), Passkeys(rp_id="shop.example", origin="https://shop.example")]
        self.clock = Clock(now)
        self.factors = Factors([*kinds, RecoveryCodes(count=ROUNDS)], store, records, clock=self.clock)
        self.enrolments = Enrolments(self.factors)
        self.mailed = MailedSecrets(store, mailing_keys(KEY), clock=self.clock)
        self.pending = PendingLogins(store, "login")
        self.attempts = Attempts(store, "login")

    async def rounds(self, rule: str) -> list[Any]:
        """Make the secrets of a rule."""
        made: list[Any] = await getattr(self, f"make_{rule}")()
        return made

    async def spend(self, rule: str, rounds: list[Any]) -> list[bool]:
        """Spend the secrets of a rule, one after the other."""
        spend: Spend = getattr(self, f"spend_{rule}")
        spent = [await spend(secret) for secret in rounds]
        await self.factors.after.drain()
        return spent

    async def make_totp(self) -> list[Any]:
        """Enrol an app for each user, and return the codes of a later step."""
        made = []
        for number in range(ROUNDS):
            user = user_named(f"user{number}")
            begun = await self.enrolments.begin("totp", user, {}, binding="b")
            assert begun is not None
            secret = begun.shown["secret"]
            proof = {"code": totp_code(secret, self.clock())}
            assert await self.enrolments.confirm(user, begun.enrolment or "", proof, binding="b")
            made.append([user.subject_id, totp_code(secret, self.clock() + 30)])
        return made

    async def spend_totp(self, secret: Any) -> bool:
        """Prove the code of a user."""
        return await self.factors.verify("totp", user_named(secret[0]), {"code": secret[1]}, binding="p") is not None

    async def make_recovery(self) -> list[Any]:
        """Return the recovery codes of one user."""
        begun = await self.enrolments.begin("recovery", user_named(), {}, binding="b")
        assert begun is not None
        codes: list[Any] = begun.shown["codes"]
        return codes

    async def spend_recovery(self, secret: Any) -> bool:
        """Prove a recovery code."""
        return await self.factors.verify("recovery", user_named(), {"code": secret}, binding="p") is not None

    async def make_passkey(self) -> list[Any]:
        """Enrol a passkey with a counter, and return assertions of it."""
        begun = await self.enrolments.begin("passkey", user_named(), {}, binding="b")
        assert begun is not None
        device = Authenticator(counter=1)
        proof = {"credential": device.create(begun.shown["publicKey"])}
        assert await self.enrolments.confirm(user_named(), begun.enrolment or "", proof, binding="b")
        made = []
        for _ in range(ROUNDS):
            options = await self.factors.challenge("passkey", user_named(), binding="p")
            made.append(device.get(options["publicKey"]))
        return made

    async def spend_passkey(self, secret: Any) -> bool:
        """Prove an assertion."""
        return await self.factors.verify("passkey", user_named(), {"credential": secret}, binding="p") is not None

    async def make_pending(self) -> list[Any]:
        """Begin logins, and return their ids."""
        begun = Begun(subject="ada", version=0, methods=["pwd"], claims={}, at=self.clock(), factors=["totp"])
        return [(await self.pending.add(begun)).id for _ in range(ROUNDS)]

    async def spend_pending(self, secret: Any) -> bool:
        """Complete a login."""
        return await self.pending.take(secret) is not None

    async def make_tries(self) -> list[Any]:
        """Begin logins of which one try is left, and return their ids."""
        begun = Begun(subject="ada", version=0, methods=["pwd"], claims={}, at=self.clock(), factors=["totp"], tries=4)
        return [(await self.pending.add(begun)).id for _ in range(ROUNDS)]

    async def spend_tries(self, secret: Any) -> bool:
        """Use the last try."""
        taken = await self.pending.take(secret)
        if taken is not None:
            await self.pending.put_back(secret, taken)
        return taken is not None

    async def make_enrolment(self) -> list[Any]:
        """Begin enrolments of recovery-free factors, and return them with their codes."""
        made = []
        for number in range(ROUNDS):
            user = user_named(f"user{number}")
            begun = await self.enrolments.begin("totp", user, {}, binding="b")
            assert begun is not None
            made.append([user.subject_id, begun.enrolment, totp_code(begun.shown["secret"], self.clock())])
        return made

    async def spend_enrolment(self, secret: Any) -> bool:
        """Confirm an enrolment."""
        subject, enrolment, code = secret
        confirmed = await self.enrolments.confirm(user_named(subject), enrolment, {"code": code}, binding="b")
        return confirmed is not None

    async def make_state(self) -> list[Any]:
        """Begin to sign in with a provider, and return the states."""
        attempt = Attempt(provider="acme", browser=digest_of("b"), nonce="n", verifier="v", next=None)
        return [await self.attempts.add(attempt, self.clock()) for _ in range(ROUNDS)]

    async def spend_state(self, secret: Any) -> bool:
        """Come back from the provider."""
        return await self.attempts.use(secret, provider="acme", browser="b") is not None

    async def make_link(self) -> list[Any]:
        """Issue a link to each of several users."""
        issued = [await self.mailed.issue(_mailed(number), f"browser{number}") for number in range(ROUNDS)]
        return [asdict(secret)["token"] for secret in issued if secret is not None]

    async def spend_link(self, secret: Any) -> bool:
        """Use a link."""
        presented = await self.mailed.present("reset_password", token=secret)
        return presented is not None and await self.mailed.use(presented)

    async def make_code(self) -> list[Any]:
        """Issue a code to each of several users."""
        made = []
        for number in range(ROUNDS):
            issued = await self.mailed.issue(_mailed(number), f"browser{number}")
            assert issued is not None
            made.append([f"browser{number}", issued.code])
        return made

    async def spend_code(self, secret: Any) -> bool:
        """Use a code."""
        presented = await self.mailed.present("reset_password", code=secret[1], handle=secret[0])
        return presented is not None and await self.mailed.use(presented)

    async def make_second_code(self) -> list[Any]:
        """Send a code as the second step of each of several users."""
        made = []
        for number in range(ROUNDS):
            issued = await self.mailed.issue(_second_step(number), f"pending{number}")
            assert issued is not None
            made.append([number, issued.code])
        return made

    async def spend_second_code(self, secret: Any) -> bool:
        """Use a code."""
        number, code = secret
        return await self.mailed.use_code(_second_step(number), code, f"pending{number}")


RULES = [name.removeprefix("make_") for name in vars(Race) if name.startswith("make_")]


def _mailed(number: int) -> Mailed:
    return Mailed(purpose="reset_password", subject=f"user{number}", address="a@b")


def _second_step(number: int) -> Mailed:
    return Mailed(purpose="second_factor", subject=f"user{number}", address="a@b")


@asynccontextmanager
async def storage(kind: str, url: str, prefix: str) -> AsyncIterator[tuple[Store, EnrolledFactors]]:
    """Open a store, with enrolled factors in it or in tables of the same database."""
    if kind == "redis":
        async with Redis.from_url(url) as client:
            store = RedisStore(client, prefix=prefix)
            yield store, StoredFactors(store)
        return
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)
    tables = DatabaseFactors(sessions)
    records = SQLAlchemyStore(sessions, prefix=prefix)
    await records.create_table()
    await tables.create_tables()
    yield records, tables if kind.endswith("tables") else StoredFactors(records)
    await engine.dispose()


async def spend_what_is_sent(  # pragma: no cover - another process, where nothing is measured
    connection: Connection, kind: str, url: str, prefix: str, now: float
) -> None:
    """Spend the secrets that are sent, one rule after the other, and send which were accepted; None is the end."""
    async with storage(kind, url, prefix) as (store, records):
        race = Race(store, records, now)
        connection.send("ready")
        while (rounds := await asyncio.to_thread(connection.recv)) is not None:
            connection.send(await race.spend(*rounds))


def main(connection: Connection, kind: str, url: str, prefix: str, now: float) -> None:  # pragma: no cover - as above
    """Spend secrets until None is sent."""
    asyncio.run(spend_what_is_sent(connection, kind, url, prefix, now))
