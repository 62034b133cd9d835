"""Let a user in whose identity was proven: the second half of every way to log in."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, EventCallback, publish
from fastapi_guard.exceptions import Forbidden, Unauthorized
from fastapi_guard.login.client import Client
from fastapi_guard.login.devices import KnownDevices, TrustedDevices
from fastapi_guard.login.factors import Factors
from fastapi_guard.login.gate import Gate
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.lookup import UserLookup
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.outcome import Complete, claims_of, proven
from fastapi_guard.login.pending import Begun, Pending, PendingLogins
from fastapi_guard.login.users import User
from fastapi_guard.stores.protocol import Store

LOGIN_FAILED: Final = "Login failed"

# Called with the ``sid`` of a new credential, and the claims that its login keeps.
Started = Callable[[str, Claims], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Proven:
    """The proofs of a user.

    Attributes:
        user: The user, as it was read before the proof was verified.
        methods: The authentication methods, for ``amr``.
        moments: When each was proven, in seconds since the epoch.
        auth_time: When the user was authenticated, in seconds since the epoch.
        claims: Claims of the application that the login keeps.
        second: Whether a second step was made, or a trusted device stood in for it.
        trusted: Whether it was a trusted device.
        event: The event of the credential that follows.
    """

    user: User
    methods: Sequence[str]
    moments: Mapping[str, int]
    auth_time: int
    claims: Mapping[str, Any]
    second: bool = False
    trusted: bool = False
    event: Literal["login_succeeded", "stepped_up"] = "login_succeeded"


class Entry:
    """The parts of a Login that every way in goes through.

    Attributes:
        name: The name of the Login.
        lookup: The users.
        factors: The second factors.
        limits: The throttles.
        gate: Decides who may log in, and who needs a second step.
        devices: Trusted devices.
        clock: Seconds since the epoch.
        on_event: Receives events.
        pending: The logins that wait for a second step.
        after: Runs work after the answer.
        started: Called for each credential that a login leads to, before it is handed out.
    """

    def __init__(  # noqa: PLR0913 - what Login has built
        self,
        *,
        name: str,
        store: Store,
        lookup: UserLookup,
        factors: Factors,
        limits: LoginLimits,
        gate: Gate,
        devices: TrustedDevices | None,
        clock: Callable[[], float],
        on_event: EventCallback | None,
    ) -> None:
        """Use the parts that a Login is configured with, and keep pending logins and known devices in ``store``."""
        self.name = name
        self.lookup = lookup
        self.factors = factors
        self.limits = limits
        self.gate = gate
        self.devices = devices
        self.clock = clock
        self.on_event = on_event
        self.pending: PendingLogins = PendingLogins(store, name)
        self.after: Outbox = factors.after
        self.started: list[Started] = []
        self._known = KnownDevices(store, name, on_event)

    async def enter(
        self,
        user: User,
        methods: Sequence[str],
        claims: Mapping[str, Any],
        connection: HTTPConnection | None,
        at: float | None = None,
    ) -> Complete | Pending:
        """Return the outcome for a user who proved ``methods`` and may log in.

        Args:
            user: The user.
            methods: What was proven, for ``amr``.
            claims: Claims that the login keeps.
            connection: The request.
            at: When it was proven, in seconds since the epoch; by default now.

        Raises:
            Forbidden: The user needs a second factor and has none.
            ServiceUnavailable: A store cannot be reached.
        """
        now = self.clock() if at is None else at
        steps = await self.gate.second_steps(user, methods)
        trusted = bool(steps) and self.devices is not None and await self.devices.are_trusted(user, connection)
        if steps and not trusted:
            begun = Begun(
                subject=user.subject_id,
                version=user.credentials_version,
                methods=list(methods),
                claims=claims,
                at=now,
                factors=steps,
            )
            pending = await self.pending.add(begun)
            publish(Event("login_pending", self.name, subject=user.subject_id), self.on_event)
            return pending
        moments = dict.fromkeys(methods, int(now))
        return self.complete(
            Proven(
                user=user,
                methods=methods,
                moments=moments,
                auth_time=int(now),
                claims=claims,
                second=trusted,
                trusted=trusted,
            ),
            connection,
        )

    async def continues(
        self, subject: str, methods: Sequence[str], *, second: bool, connection: HTTPConnection | None
    ) -> User | None:
        """Return the user of a login whose credential is renewed; ``None`` where it may not be.

        Args:
            subject: The user.
            methods: What the login proved.
            second: Whether it had a second step, or a trusted device stood in for it.
            connection: The request.

        Raises:
            ServiceUnavailable: The users or the factors cannot be read.
        """
        user = await self.lookup.by_subject(subject)
        if user is None or not await self.gate.admits(user, connection):
            return None
        try:
            steps = [] if second else await self.gate.second_steps(user, methods)
        except Forbidden:
            return None
        return None if steps else user

    def complete(self, proof: Proven, connection: HTTPConnection | None) -> Complete:
        """Return the outcome of a login that is complete."""
        user, client = proof.user, Client.of(connection, self.limits.trusted_proxies)
        kept = proven(proof.claims, proof.methods, proof.moments, proof.auth_time)

        async def confirm(sid: str | None = None, *, renewed: Claims | None = None) -> None:
            current = await self.lookup.by_subject(user.subject_id)
            if current is None or current.disabled or current.credentials_version != user.credentials_version:
                raise self.failed(LOGIN_FAILED, user, "user_changed")
            for started in self.started if sid is not None else ():
                await started(str(sid), kept if renewed is None else renewed)
            publish(Event(proof.event, self.name, subject=user.subject_id), self.on_event)
            self.after.post(lambda: self._known.see(user, client, self.clock()))

        return Complete(
            user=user,
            claims=claims_of(user, kept),
            kept=kept,
            client=client,
            second=proof.second,
            trusted=proof.trusted,
            confirm=confirm,
        )

    def failed(
        self,
        detail: str,
        user: User | None,
        reason: str = "login_failed",
        event: Literal["login_failed", "second_factor_failed"] = "login_failed",
    ) -> Unauthorized:
        """Return the refusal of a login, after its event."""
        subject = None if user is None else user.subject_id
        publish(Event(event, self.name, Unauthorized.status, reason, subject=subject), self.on_event)
        return Unauthorized(detail, reason=reason)
