"""How often somebody may try: limits on an address, an account or a subject, by moving windows.

The notation of rates, and the windows in Redis, are those of ``limits``. The windows in memory are our own: those of
``limits`` look through every key in a task or a thread at each hit, which is work that a stranger can multiply.
"""

import time
from asyncio import timeout
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.util import find_spec
from inspect import Parameter, Signature
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol
from unicodedata import normalize

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, EventCallback, checked, publish
from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable, TooManyRequests

try:
    from limits import RateLimitItem, parse, parse_many
    from limits.aio.storage import Storage
    from limits.aio.strategies import MovingWindowRateLimiter
    from limits.errors import ConfigurationError as LimitsConfigurationError
    from limits.storage import storage_from_string
except ImportError:
    raise MissingExtraError("limits", "throttle") from None

if TYPE_CHECKING:
    from fastapi_guard.auth import ScopesAuth

# A dependency of FastAPI that says whom a request counts for; None for nobody.
By = Callable[..., str | Awaitable[str | None] | None]

_UNKNOWN_ADDRESS: Final = "unknown"
# A client of Redis tries again for a while, and a login is not worth waiting for.
_DEADLINE_SECONDS: Final = 2
# An IPv6 host has the whole of its network's addresses to itself, so they count as one.
_IPV6_HOST_PREFIX: Final = 64


class Windows(Protocol):
    """Where it is counted who did something how often."""

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one; return ``None``, or where that is too many the seconds until the next is not."""
        ...  # pragma: no cover

    async def clear(self, rate: RateLimitItem, key: str) -> None:
        """Forget what was counted."""
        ...  # pragma: no cover

    async def aclose(self) -> None:
        """Close what was opened for it."""
        ...  # pragma: no cover


class Throttle:
    """A limit, as a dependency: ``dependencies=[Depends(Throttle("5/15 minutes"))]``.

    Each Throttle counts for itself, in this process or in Redis. What is refused is not counted.
    """

    # By this mark OpenAPI documents 429; see fastapi_guard.route_guards.
    is_throttle: Final = True

    def __init__(
        self,
        rate: str,
        *,
        by: By | None = None,
        trusted_proxies: int = 0,
        storage: str | Storage = "memory://",
        name: str | None = None,
        on_event: EventCallback | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Allow ``rate``, in the notation of limits: ``5/15 minutes``, ``100 per hour``.

        Args:
            rate: How many in which time.
            by: A dependency that says whom a request counts for, by default ``client_address``.
            trusted_proxies: With ``client_address``, how many proxies of yours stand before the application, each of
                which appends the address that it sees to ``X-Forwarded-For``. With 0 the field is not looked at.
            storage: ``memory://``, a URL of Redis, or an asynchronous storage of limits.
            name: Throttles of one name and rate share their counts in Redis; by default the name of ``by``.
            on_event: Called with the Event ``refused`` where it refuses a request, as a dependency.
            clock: Seconds since the epoch, for the windows in memory.

        Raises:
            ConfigurationError: The rate cannot be read, the storage is not known, or the hops do not belong there.
        """
        try:
            self.rate: RateLimitItem = parse(rate)
        except ValueError:
            msg = f'{rate!r} is no rate, such as "5/15 minutes" or "100 per hour"'
            raise ConfigurationError(msg) from None
        if self.rate.amount < 1 or len(parse_many(rate)) > 1:
            msg = f"{rate!r} allows nothing, or is more than one rate: use a Throttle for each"
            raise ConfigurationError(msg)
        self.by = client_address if by is None else by
        if trusted_proxies:
            if self.by is not client_address or trusted_proxies < 0:
                msg = "trusted_proxies is a number of proxies from 0 on, for by=client_address"
                raise ConfigurationError(msg)
            self.by = _behind(trusted_proxies)
        self.name: str = name or str(getattr(by, "__name__", "client_address"))
        self._windows = _windows(storage, clock)
        self._on_event = checked(on_event)
        # FastAPI reads the signature of the instance: what ``by`` needs is resolved like any other dependency.
        connection = Parameter("connection", Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection)
        key = Parameter("key", Parameter.POSITIONAL_OR_KEYWORD, annotation=Annotated[Any, Depends(self.by)])
        self.__signature__: Signature = Signature([connection, key])

    async def __call__(self, connection: HTTPConnection, key: str | None) -> None:  # noqa: ARG002 - WebSockets have none
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
                publish(Event("refused", f"throttle:{self.name}", error.status, error.reason), self._on_event)
                raise

    async def hit(self, key: str) -> None:
        """Count one for ``key``.

        Raises:
            TooManyRequests: It is one too many; Retry-After says when it is not.
            ServiceUnavailable: It cannot be counted.
        """
        try:
            wait = await self._windows.hit(self.rate, self._digest(key))
        except Exception as error:
            raise ServiceUnavailable(reason="throttle_unreachable") from error
        if wait is not None:
            raise TooManyRequests(retry_after=wait)

    async def clear(self, key: str) -> None:
        """Forget what was counted for ``key``.

        Raises:
            ServiceUnavailable: The storage cannot be reached.
        """
        try:
            await self._windows.clear(self.rate, self._digest(key))
        except Exception as error:
            raise ServiceUnavailable(reason="throttle_unreachable") from error

    async def aclose(self) -> None:
        """Close the connections to a Redis that was given as a URL."""
        await self._windows.aclose()

    def _digest(self, key: str) -> str:
        # Of one length whatever the client sent, and no name of an account in Redis.
        return f"{self.name}:{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def client_address(connection: HTTPConnection) -> str:
    """Return the address that the connection comes from: what the server saw, no header."""
    return address_of(connection)


def account(field: str = "username") -> By:
    """Count for the account that a form or a JSON body names in ``field``.

    Names count as one that differ in case, in white space around them, or in their Unicode form.
    """

    async def by_account(request: Request) -> str | None:
        if request.headers.get("content-type", "").startswith("application/json"):
            try:
                body = await request.json()
            except ValueError:
                return None
            value = body.get(field) if isinstance(body, dict) else None
        else:
            value = (await request.form()).get(field)
        return account_key(value) if isinstance(value, str) else None

    return by_account


def subject(auth: "ScopesAuth") -> By:
    """Count for the ``sub`` of the claims that ``auth`` verified."""

    async def by_subject(claims: Annotated[Claims, auth.authenticated()]) -> str | None:
        value = claims.get("sub")
        return value if isinstance(value, str) else None

    return by_subject


def account_key(username: str) -> str:
    """Return what attempts on an account are counted under, however its name is spelled."""
    return normalize("NFKC", username.strip()).casefold()


def address_of(connection: HTTPConnection, trusted_proxies: int = 0) -> str:
    """Return the address of the client, ``trusted_proxies`` hops before the application.

    Each trusted proxy appends the address that it sees, so the client's is the one that many from the right, whatever
    the client wrote before it. Where the field has fewer, or no address there, it is the address of the peer.
    """
    peer = _UNKNOWN_ADDRESS if connection.client is None else connection.client.host
    address = None
    if trusted_proxies:
        hops = [hop for value in connection.headers.getlist("x-forwarded-for") for hop in value.split(",")]
        if len(hops) >= trusted_proxies:
            address = _parsed(hops[-trusted_proxies].strip())
    return _network(address or _parsed(peer)) or peer


def _behind(trusted_proxies: int) -> By:
    def client_address_behind_proxies(connection: HTTPConnection) -> str:
        return address_of(connection, trusted_proxies)

    return client_address_behind_proxies


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    # Some proxies append the port: 192.0.2.1:4711, [2001:db8::1]:4711.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(address: IPv4Address | IPv6Address | None) -> str | None:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), _IPV6_HOST_PREFIX), strict=False))
    return None if address is None else str(address)


def _windows(storage: str | Storage, clock: Callable[[], float]) -> Windows:
    if not isinstance(storage, str):
        return StoredWindows(storage)
    if storage == "memory://":
        return MemoryWindows(clock=clock)
    if not storage.startswith(("redis://", "rediss://", "redis+unix://")):
        msg = "storage is memory://, a URL of Redis, or an asynchronous storage of limits"
        raise ConfigurationError(msg)
    try:
        built = storage_from_string(f"async+{storage}", implementation="redispy")
    except LimitsConfigurationError:
        if find_spec("redis") is None:
            raise MissingExtraError("redis", "redis") from None
        msg = "limits does not take this URL of Redis: write redis://host:port/number"  # it may hold a password
        raise ConfigurationError(msg) from None
    assert isinstance(built, Storage)  # noqa: S101 - the scheme says so
    return StoredWindows(built, close=True)


class MemoryWindows:
    """Moving windows in this process. A key that was not hit for a whole window is forgotten."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Tell the time by ``clock``, in seconds since the epoch."""
        self._clock = clock
        self._lock = Lock()
        # By the last hit, the oldest first; one Throttle has one rate.
        self._hits: OrderedDict[str, deque[float]] = OrderedDict()

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one; return ``None``, or where that is too many the seconds until the next is not."""
        now, window = self._clock(), rate.get_expiry()
        with self._lock:
            while self._hits and next(iter(self._hits.values()))[-1] <= now - window:
                self._hits.popitem(last=False)
            hits = self._hits.setdefault(key, deque())
            while hits and hits[0] <= now - window:
                hits.popleft()
            if len(hits) >= rate.amount:
                return hits[0] + window - now
            hits.append(now)
            self._hits.move_to_end(key)
            return None

    async def clear(self, rate: RateLimitItem, key: str) -> None:  # noqa: ARG002 - one rate
        """Forget what was counted."""
        with self._lock:
            self._hits.pop(key, None)

    async def aclose(self) -> None:
        """Close nothing."""


class StoredWindows:
    """Moving windows of limits, in the storage of its own that is shared by the workers."""

    def __init__(self, storage: Storage, *, close: bool = False) -> None:
        """Count in ``storage``, which is closed here where nobody else can.

        Raises:
            ConfigurationError: It has no moving windows.
        """
        self._storage = storage if close else None
        try:
            self._limiter = MovingWindowRateLimiter(storage)
        except (NotImplementedError, AssertionError) as error:
            msg = "storage has moving windows and is asynchronous, as limits.aio.storage.RedisStorage is"
            raise ConfigurationError(msg) from error

    async def hit(self, rate: RateLimitItem, key: str) -> float | None:
        """Count one; return ``None``, or where that is too many the seconds until the next is not."""
        async with timeout(_DEADLINE_SECONDS):
            if await self._limiter.hit(rate, key):
                return None
            reset, _ = await self._limiter.get_window_stats(rate, key)
        return reset - time.time()

    async def clear(self, rate: RateLimitItem, key: str) -> None:
        """Forget what was counted."""
        async with timeout(_DEADLINE_SECONDS):
            await self._limiter.clear(rate, key)

    async def aclose(self) -> None:
        """Close the client, where the storage was made for this."""
        if self._storage is not None:
            client: Any = self._storage
            await client.bridge.get_connection().aclose()
