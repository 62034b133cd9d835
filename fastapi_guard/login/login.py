"""Login: the one gate between the proof of an identity and a credential.

A password, a passkey, a mailed link or a provider proves who the user is. Then the gate decides whether the user may
log in and needs a second step. The result is Complete, which TokenPairs and SessionAuth turn into credentials, or
Pending, which gives nothing but the second step. Every method raises ServiceUnavailable where a backend is unreachable.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from starlette.requests import HTTPConnection

from fastapi_guard.events import EventCallback, checked
from fastapi_guard.login.credentials import Credentials
from fastapi_guard.login.devices import TrustedDevices
from fastapi_guard.login.enrolled import EnrolledFactors
from fastapi_guard.login.enrolment import Enrolments
from fastapi_guard.login.entry import Entry, Started
from fastapi_guard.login.factor import Factor
from fastapi_guard.login.factors import Factors
from fastapi_guard.login.first_step import FirstStep
from fastapi_guard.login.gate import Gate, MayLogin, NeedsSecond
from fastapi_guard.login.limits import LoginLimits, default_limits
from fastapi_guard.login.lookup import UserLookup
from fastapi_guard.login.mailbox import MailboxPasswords
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.outcome import Complete
from fastapi_guard.login.password_check import PasswordCheck
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.pending import Pending
from fastapi_guard.login.second_step import SecondStep, StepUp
from fastapi_guard.login.state import EndsWithSubject, check_name, claim
from fastapi_guard.login.users import User, Users
from fastapi_guard.stores.arguments import async_function_of, clock_of, instance_of, store_of
from fastapi_guard.stores.protocol import Store

__all__ = ["Complete", "Login", "LoginLimits", "Pending"]


class Login:
    """Logs users in: from a proof to Complete or Pending.

    Attributes:
        name: In events, and stored with each record: what another Login began is unknown here.
        users: The users.
        store: Pending logins, challenges, mailed secrets, devices.
        factors: The kinds of second factors, and what users have enrolled.
        enrolments: Adds and removes the factors of users.
        passwords: Hashes and verifies passwords; ``None`` where there are none.
        outbox: Sends messages to users; ``None`` where there are none.
        limits: Throttles by account and by address.
        on_event: Receives events; ``None``: the log alone.
        devices: Trusted devices; ``None`` where there are none.
        step_up: Renews logins by another proof of the same user.
        credentials: Changes the credentials of users, and keeps their last way to log in.
    """

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        users: Users | Mapping[str, Mapping[str, Any]],
        store: Store,
        *,
        passwords: PasswordHasher | Literal["argon2id"] | None = "argon2id",
        second: Sequence[Factor] = (),
        needs_second: NeedsSecond = "enrolled",
        may_login: MayLogin | None = None,
        records: EnrolledFactors | None = None,
        name: str = "login",
        limits: LoginLimits | None = None,
        outbox: Outbox | None = None,
        trusted_devices: timedelta | None = None,
        trusted_proxies: int = 0,
        clock: Callable[[], float] = time.time,
        on_event: EventCallback | None = None,
    ) -> None:
        """Log ``users`` in, with what a login begins in ``store``.

        Args:
            users: Who can log in: a mapping, see MappingUsers, or an object with the methods of Users.
            store: It has to be durable where factors are enrolled and ``records`` is left out.
            passwords: How passwords are hashed, by default argon2id; ``None``: there are no passwords.
            second: The kinds of second factors, such as ``[TOTP(...), Passkeys(...), RecoveryCodes()]``.
            needs_second: ``"enrolled"``: users with a factor need a second step. ``"always"``: all users do, and one
                without a factor cannot log in. ``"never"``: no user does. A function of the user, sync or async: as
                ``"always"`` for the users for whom it returns ``True``, and as ``"enrolled"`` for the others.
            may_login: The application's own rule: ``(user, request) -> bool``, sync or async. Called after the proof.
            records: Where enrolled factors are, by default in ``store``.
            name: Two Logins on one store need two names.
            limits: How often accounts and addresses may try.
            outbox: Sends messages, such as that of a new device.
            trusted_devices: How long a device that the user trusts needs no second step; ``None``: always one.
            trusted_proxies: How many proxies of yours are in front of the application; see Throttle.
            clock: Seconds since the epoch.
            on_event: Receives events, besides the log.

        Raises:
            ConfigurationError: An argument has the wrong type, or another Login has the name on this store.
        """
        if passwords != "argon2id":
            instance_of("passwords", passwords, (PasswordHasher, type(None)), "a PasswordHasher or None")
        lookup, events, clock = UserLookup(users), checked(on_event), clock_of(clock)
        limits = instance_of("limits", limits or default_limits(clock), LoginLimits, "LoginLimits(...)")
        instance_of("outbox", outbox, (Outbox, type(None)), "Outbox(send), or None")
        self.name: str = check_name(name)
        self.users: Users = lookup.users
        self.store: Store = store_of("store", store)
        self.passwords: PasswordHasher | None = PasswordHasher() if passwords == "argon2id" else passwords
        self.outbox: Outbox | None = outbox
        self.on_event: EventCallback | None = events
        self.limits: LoginLimits = replace(limits, trusted_proxies=trusted_proxies, name=name, on_event=events)
        self.factors: Factors = Factors(
            second, store, records, name=name, find_user=lookup.by_login, outbox=outbox, clock=clock, on_event=events
        )
        mailbox = MailboxPasswords(store, name)
        has_passwords = self.passwords is not None
        self.credentials: Credentials = Credentials(lookup, mailbox, self.factors.begins, has_passwords=has_passwords)
        self.enrolments: Enrolments = Enrolments(
            self.factors, changed=self.credentials.raise_version, credentials=self.credentials
        )
        self.devices: TrustedDevices | None = None
        if trusted_devices is not None:
            self.devices = TrustedDevices(store, name, trusted_devices, clock=clock, on_event=events)
        self._entry = Entry(
            name=name,
            lookup=lookup,
            factors=self.factors,
            limits=self.limits,
            store=store,
            gate=Gate(self.factors, needs_second, may_login, mailbox),
            devices=self.devices,
            clock=clock,
            on_event=events,
        )
        self._passwords = PasswordCheck(lookup, self.limits, self.passwords)
        self._first = FirstStep(self._entry, self._passwords)
        self._second = SecondStep(self._entry)
        self.step_up: StepUp = StepUp(self._entry, self._passwords, has_passwords=has_passwords)
        claim("Logins", store, name, self, 'pass Login(..., name="...")')

    async def find(self, login: str) -> User | None:
        """Return the user with this username or address, however it was typed; anything else is ``None``."""
        return await self._entry.lookup.by_login(login)

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._entry.clock()

    async def with_password(
        self, username: str, password: str, *, connection: HTTPConnection | None
    ) -> Complete | Pending:
        """Log in with a username or an address, and a password.

        Raises:
            Unauthorized: The user is unknown, may not log in, or the password is wrong: one refusal, the same work.
            Forbidden: The user needs a second factor and has none.
            TooManyRequests: It was tried too often.
        """
        return await self._first.password(username, password, connection)

    async def begin(
        self,
        user: User,
        *,
        amr: Sequence[str],
        claims: Mapping[str, Any] | None = None,
        connection: HTTPConnection | None,
    ) -> Complete | Pending:
        """Log in a user whose identity was proven otherwise: by a provider, a link, a proxy.

        Args:
            user: The user, as it was read before the proof was verified.
            amr: How it was proven, by names of RFC 8176 where it has one. With ``mfa`` no second step is needed.
            claims: Claims that the login keeps over refreshes, JSON throughout.
            connection: The request.

        Raises:
            ValueError: A claim is one that a login sets by itself, or ``amr`` is empty.
            Unauthorized: The user may not log in.
            Forbidden: The user needs a second factor and has none.
        """
        return await self._first.proven(user, amr, claims, connection)

    async def offer(
        self, kind: str, *, login: str | None = None, binding: str, connection: HTTPConnection | None
    ) -> Mapping[str, Any]:
        """Return what the client needs to begin a login with a factor: a passkey, or a link or code in a message.

        Args:
            kind: The name of the factor.
            login: The username or address that the client named. A known and an unknown one have the same result.
            binding: Identifies the browser, such as the hash of a cookie.
            connection: The request.

        Raises:
            Forbidden: There is no such factor, or it cannot begin a login.
            TooManyRequests: It was requested too often.
        """
        return await self._first.offer(kind, login, binding, connection)

    async def with_first(
        self, kind: str, proof: Mapping[str, Any], *, binding: str, connection: HTTPConnection | None
    ) -> Complete | Pending:
        """Log in with a factor that identifies the user, after ``offer`` with the same ``binding``.

        Raises:
            Unauthorized: The proof is wrong, or the user may not log in.
            Forbidden, TooManyRequests: As for ``offer`` and ``with_password``.
        """
        return await self._first.factor(kind, proof, binding, connection)

    async def challenge(self, pending: str, kind: str, *, connection: HTTPConnection | None) -> Mapping[str, Any]:
        """Return what the client needs for a second step; a kind that sends a code sends it. See ``with_factor``."""
        return await self._second.challenge(pending, kind, connection)

    async def with_factor(
        self, pending: str, kind: str, proof: Mapping[str, Any], *, connection: HTTPConnection | None
    ) -> Complete:
        """Complete a pending login by a second factor. It has five tries, one at a time.

        Args:
            pending: The ``id`` of Pending.
            kind: The name of a factor among ``factors`` of Pending.
            proof: What the client sent: ``{"code": "..."}`` or ``{"credential": {...}}``.
            connection: The request.

        Raises:
            Unauthorized: The proof is wrong; or the login is not pending, has expired, the user has changed, or another
                request tries it at this moment.
            Forbidden: It is not one of the factors of the pending login.
            TooManyRequests: It was tried too often, over all pending logins of the user.
        """
        return await self._second.complete(pending, kind, proof, connection)

    async def with_totp(self, pending: str, code: str, *, connection: HTTPConnection | None) -> Complete:
        """Complete a pending login by the code of an authenticator app; see ``with_factor``."""
        return await self.with_factor(pending, "totp", {"code": code}, connection=connection)

    async def with_recovery_code(self, pending: str, code: str, *, connection: HTTPConnection | None) -> Complete:
        """Complete a pending login by a recovery code; see ``with_factor``."""
        return await self.with_factor(pending, "recovery", {"code": code}, connection=connection)

    async def with_mailed_code(self, pending: str, code: str, *, connection: HTTPConnection | None) -> Complete:
        """Complete a pending login by the code of a message; see ``with_factor``."""
        return await self.with_factor(pending, "mail", {"code": code}, connection=connection)

    async def with_passkey(
        self, pending: str, credential: Mapping[str, Any], *, connection: HTTPConnection | None
    ) -> Complete:
        """Complete a pending login by a passkey; see ``with_factor``."""
        return await self.with_factor(pending, "passkey", {"credential": credential}, connection=connection)

    async def continues(
        self, subject: str, amr: Sequence[str], *, second: bool, connection: HTTPConnection | None
    ) -> User | None:
        """Return the user whose credential is renewed, as by a refresh; ``None`` where it may not be.

        ``amr`` is the claim of the login, and ``second`` that of its Complete.
        """
        return await self._entry.continues(subject, amr, second=second, connection=connection)

    async def proves_password(self, user: User, password: str, *, connection: HTTPConnection | None) -> bool:
        """Return whether it is the password of ``user``, with the same work in any case.

        Raises:
            TooManyRequests: It was tried too often.
        """
        return await self._passwords.proves(user, password, connection)

    def ends(self, *holders: EndsWithSubject) -> None:
        """End what ``holders`` have of a user whose password changes or who is disabled.

        Raises:
            ConfigurationError: One has no method ``revoke_subject``, as SessionAuth and TokenPairs have.
        """
        self.credentials.add(*holders)

    def on_started(self, started: Started) -> None:
        """Call ``started(sid, claims)`` for each session or token family, with the claims that its login keeps.

        It is an ``async def``, called before the credential is handed out; where it raises there is none.
        """
        what = "of the sid and the claims of a login"
        self._entry.started.append(async_function_of("started", started, what, "sid", "claims"))

    async def end_all(self, subject: str, *, keep: str | None = None) -> int:
        """End every credential of a subject except those of the session ``keep``; return how many there were.

        Logins that were begun before, mailed secrets and trusted devices end too. Where ServiceUnavailable is raised,
        everything has ended that could be reached.
        """
        return await self.credentials.end_all(subject, keep)

    async def change(self, user: User, *, keep: str | None = None, by_mail: bool = False, **fields: Any) -> User:
        """Change fields of a user, and end what began before; return the user as it was written.

        The ``credentials_version`` is raised, which ends pending logins, mailed secrets and trusted devices. Another
        ``password_hash``, or ``disabled``, ends sessions, tokens and API keys too.

        Args:
            user: The user as it was read.
            keep: The ``sid`` of a session or token family that continues: the one that changes its password.
            by_mail: Whether a mailed link sets the password. Until the next change a mailed code is not a second
                factor beside it.
            fields: Fields of User with their new values.

        Raises:
            UserConflict: The user was changed in the meantime, or a name belongs to another user.
            ServiceUnavailable: The users cannot be reached; or the user was changed and a store cannot be reached. Then
                call ``end_all``: sessions in that store are still valid.
        """
        return await self.credentials.change(user, keep, fields, by_mail=by_mail)

    async def aclose(self) -> None:
        """Stop the threads that hash, and send what waits to be sent."""
        await self._entry.after.drain()
        if self.passwords is not None:
            self.passwords.close()
