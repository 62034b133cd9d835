"""Throttle: a limit on how often an address, an account or a subject may try, as a dependency or called directly."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection

from fastapi_guard.auth.placement import MisplacedGuard
from fastapi_guard.events import Event, EventCallback, checked, place_of, publish
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, TooManyRequests, first_line
from fastapi_guard.login.throttle.by import By, Key, account, behind, checked_by, client_address, subject
from fastapi_guard.login.throttle.windows import rate_of, windows_in
from fastapi_guard.stores.arguments import check_numbers, check_texts

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.storage import Storage

logger: logging.Logger = logging.getLogger("fastapi_guard")


class Throttle:
    """A limit, as a dependency: ``dependencies=[Depends(Throttle("5/15 minutes"))]``.

    Each Throttle counts by itself, in this process or in Redis. A refused attempt is not counted.
    """

    # By this mark OpenAPI documents 429; see fastapi_guard.app.routes.
    is_throttle: Final = True

    def __init__(
        self,
        rate: str,
        *,
        by: By | None = None,
        trusted_proxies: int = 0,
        storage: "str | Storage" = "memory://",
        timeout: timedelta | float | None = None,
        name: str | None = None,
        on_event: EventCallback | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Allow ``rate``, in the notation of limits: ``5/15 minutes``, ``100 per hour``.

        Args:
            rate: How many in which time.
            by: A dependency that returns the key that a request counts for, by default ``client_address``.
            trusted_proxies: With ``client_address``, how many proxies of yours are in front of the application, each of
                which appends the address that it sees to ``X-Forwarded-For``. With 0 the field is ignored.
            storage: ``memory://``, a URL of Redis, or an asynchronous storage of limits. In memory each worker counts
                by itself, at most 100,000 keys.
            timeout: How long counting may take, connecting included, as a duration or in seconds; then it is a 503.
                2 seconds by default. Not with ``memory://``, which waits for nothing.
            name: Throttles of one name and rate share their counts in Redis; by default the name of ``by``.
            on_event: Called with the Event ``refused`` where it refuses a request, as a dependency.
            clock: Seconds since the epoch, for the windows in memory; by default a monotonic clock, which is not set.

        Raises:
            ConfigurationError: The rate cannot be read, the storage is not known, the timeout is not positive or comes
                with ``memory://``, or the hops do not belong there.
        """
        self.rate: RateLimitItem = rate_of(rate)
        uncalled: tuple[object, ...] = (account, subject)
        if by in uncalled:
            msg = 'by=account("username") and by=subject(auth) are called: each returns a function for by'
            raise ConfigurationError(msg)
        self.by = client_address if by is None else checked_by(by)
        check_numbers(trusted_proxies=trusted_proxies)
        check_texts(name=name)
        if trusted_proxies:
            if self.by is not client_address:
                msg = "trusted_proxies is a number of proxies from 0 on, for by=client_address"
                raise ConfigurationError(msg)
            self.by = behind(trusted_proxies)
        self.name: str = name or str(getattr(by, "__name__", "client_address"))
        self._windows = windows_in(storage, clock, timeout)
        self._on_event = checked(on_event)
        # FastAPI reads the signature of the instance: what ``by`` needs is resolved like any other dependency.
        connection = Parameter("connection", Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection)
        key = Parameter("key", Parameter.POSITIONAL_OR_KEYWORD, annotation=Annotated[Any, Depends(self.by)])
        self.__signature__: Signature = Signature([connection, key])

    async def __call__(self, connection: HTTPConnection, key: Key | None) -> None:
        """Count the request.

        Raises:
            TooManyRequests: It is one too many.
            ServiceUnavailable: It cannot be counted.
        """
        if key is not None:
            try:
                await self.hit(key)
            except (TooManyRequests, ServiceUnavailable) as error:
                # Whose address or account it is stays out of the log.
                name, place = f"throttle:{self.name}", place_of(connection)
                event = Event("refused", name, error.status, error.reason, requirement=str(self.rate), **place)
                publish(event, self._on_event)
                raise

    async def hit(self, key: Key) -> None:
        """Count one for ``key``.

        Raises:
            TooManyRequests: It is one too many; Retry-After is when the next is allowed.
            ServiceUnavailable: It cannot be counted.
        """
        digest = self._digest(key)
        try:
            wait = await self._windows.hit(self.rate, digest)
        except Exception as error:
            raise self._unavailable(error) from error
        if wait is not None:
            raise TooManyRequests(retry_after=wait)

    async def clear(self, key: Key) -> None:
        """Forget what was counted for ``key``.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        digest = self._digest(key)
        try:
            await self._windows.clear(self.rate, digest)
        except Exception as error:
            raise self._unavailable(error) from error

    async def aclose(self) -> None:
        """Close the connections to a Redis that was given as a URL."""
        await self._windows.aclose()

    # A type checker reports the same mistake earlier, as long as it does not see this.
    if TYPE_CHECKING:
        pass
    else:

        def __getattr__(self, name: str) -> NoReturn:
            """Refuse to be an entry of ``dependencies`` without ``Depends``: FastAPI reads this attribute of one."""
            if name == "dependency":
                msg = 'a Throttle is the argument of Depends: dependencies=[Depends(Throttle("5/15 minutes"))]'
                raise MisplacedGuard(msg)
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg, name=name, obj=self)

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        logger.warning(
            "the storage of the Throttle %s is unavailable: %s: %r", self.name, type(error).__name__, first_line(error)
        )
        return ServiceUnavailable(reason="throttle_unreachable")

    def _digest(self, key: object) -> str:
        if isinstance(key, int | UUID) and not isinstance(key, bool):
            key = str(key)  # the id of a user
        if not isinstance(key, str):
            # An object has another text each time, so that nothing would be limited.
            logger.error("the key of the Throttle %s is %s, not text or None", self.name, type(key).__name__)
            raise ServiceUnavailable(reason="throttle_key")
        # Of one length whatever the client sent, and no name of an account in Redis.
        return f"{self.name}:{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
