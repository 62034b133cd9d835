"""Limits on how often an account may be tried, and how often an address may try."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import HTTPConnection

from fastapi_guard.events import Event, EventCallback, checked, publish
from fastapi_guard.exceptions import ConfigurationError, TooManyRequests
from fastapi_guard.login.client import address_of
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.throttle.by import client_address
from fastapi_guard.schemes.address import check_proxies
from fastapi_guard.stores.arguments import check_texts, instance_of

logger: logging.Logger = logging.getLogger("fastapi_guard")

ACCOUNT_RATE: Final = "5/15 minutes"
ADDRESS_RATE: Final = "50/15 minutes"
# Of a request whose address was counted before its body was read.
_COUNTED: Final = "fastapi_guard.login.counted"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoginLimits:
    """The limits of a Login. Each Throttle counts in this process, or with a ``storage`` in Redis.

    Attributes:
        account: How often an account may be tried, by default 5 times in 15 minutes. Passwords and second steps count
            apart, and a success is forgotten. ``None``: without a limit.
        address: How often an address may try, by default 50 times in 15 minutes; ``None``: without a limit.
        trusted_proxies: Set by Login, as are the others: how many proxies are in front of the application.
        name: The name in events.
        on_event: Receives the event ``login_throttled``.
    """

    account: Throttle | None = field(default_factory=lambda: Throttle(ACCOUNT_RATE, name="login-account"))
    address: Throttle | None = field(default_factory=lambda: Throttle(ADDRESS_RATE, name="login-address"))
    trusted_proxies: int = 0
    name: str = "login"
    on_event: EventCallback | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the limits, and warn where one is missing.

        Raises:
            ConfigurationError: A limit is not a Throttle, ``address`` has a ``by`` or ``trusted_proxies`` of its own,
                or ``trusted_proxies`` is negative.
        """
        check_texts(name=self.name)
        checked(self.on_event)
        for name, limit in (("account", self.account), ("address", self.address)):
            if limit is not None:
                instance_of(name, limit, Throttle, f"a Throttle, such as Throttle({ACCOUNT_RATE!r}), or None")
        check_proxies(self.trusted_proxies)
        if self.address is not None and self.address.by is not client_address:
            msg = "Login(trusted_proxies=...) decides whose address is counted: leave it out of the Throttle"
            raise ConfigurationError(msg)
        if self.account is None or self.address is None:
            logger.warning("LoginLimits without a limit: passwords and codes can be tried without one")

    async def count(self, account: str | None, connection: HTTPConnection | None) -> None:
        """Count an attempt, unless it is one too many.

        Args:
            account: Identifies the account, known or not; ``None`` counts for the address alone.
            connection: The request, whose address counts; ``None`` counts for the account alone.

        Raises:
            TooManyRequests: It is one too many.
            ServiceUnavailable: It cannot be counted.
        """
        try:
            # The address first: an attempt that is refused there must not use up the attempts of the account.
            if self.address is not None and connection is not None and not self._was_counted(connection):
                await self.address.hit(address_of(connection, self.trusted_proxies))
            if self.account is not None and account is not None:
                await self.account.hit(account)
        except TooManyRequests as error:
            publish(Event("login_throttled", self.name, error.status, error.reason), self.on_event)
            raise

    async def count_address(self, connection: HTTPConnection) -> None:
        """Count the address before the body of the request is read; the next ``count`` does not count it again.

        Raises:
            TooManyRequests: It is one too many.
            ServiceUnavailable: It cannot be counted.
        """
        await self.count(None, connection)
        connection.scope.setdefault(_COUNTED, set()).add(self.name)

    async def clear(self, account: str) -> None:
        """Forget the attempts of an account, after a success.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        if self.account is not None:
            await self.account.clear(account)

    def _was_counted(self, connection: HTTPConnection) -> bool:
        # Once: several attempts within one request, such as those of a batch, count one by one.
        counted: set[str] = connection.scope.get(_COUNTED, set())
        if self.name not in counted:
            return False
        counted.remove(self.name)
        return True


def default_limits(clock: Callable[[], float]) -> LoginLimits:
    """Return the default limits, counted by ``clock`` in this process."""
    return LoginLimits(
        account=Throttle(ACCOUNT_RATE, name="login-account", clock=clock),
        address=Throttle(ADDRESS_RATE, name="login-address", clock=clock),
    )
