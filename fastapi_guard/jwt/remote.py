"""RemoteKeySet: the keys that an issuer publishes, fetched when they are needed and kept while they may be.

A request waits for a fetch only where there is no key to decide by. The states of a key set, and the transitions
between them, are drawn in the documentation ("The states of a remote key set"). Needs the extra ``http``.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from joserfc.jwk import Key
from pydantic import AnyUrl

from fastapi_guard.exceptions import ServiceUnavailable
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.freshness import Attempts, Freshness, Held
from fastapi_guard.jwt.http import DEFAULT_MAX_BYTES, DEFAULT_TIMEOUT_SECONDS, check_client, check_max_bytes, fetch
from fastapi_guard.jwt.keys import usable_keys
from fastapi_guard.jwt.responses import Document, FetchError
from fastapi_guard.jwt.urls import check_url, warn_about_http, without_query
from fastapi_guard.jwt.verification_keys import Selection
from fastapi_guard.stores.arguments import check_flags, clock_of

if TYPE_CHECKING:
    from httpx2 import AsyncClient

logger: logging.Logger = logging.getLogger("fastapi_guard")

# The number of different complaints about the entries of a set that are logged; an issuer may change its set often.
_MAX_REPORTS: Final = 100


class _Flight(NamedTuple):
    """A fetch that is under way, and whether it only adds keys."""

    task: asyncio.Task[None]
    adding: bool

    async def landed(self) -> None:
        """Wait for the end of the task. Cancelling the waiter does not cancel it, and its errors are not raised."""
        await asyncio.wait((self.task,))


class RemoteKeySet:
    """The JWK Set at a URL, as ``JWTConfig(key=RemoteKeySet(url))``. Several configurations may share one.

    It is fetched at the first request, or by ``start()`` or ``async with`` in a lifespan. One fetch is in flight at a
    time, in a task of its own that outlives the request that caused it. A map of PEM certificates or public keys by
    their ``kid``, as Google publishes it, is read as well.
    """

    def __init__(  # noqa: PLR0913 - independent settings, each with a default
        self,
        url: str | AnyUrl,
        *,
        client: "AsyncClient | None" = None,
        min_ttl: float | timedelta | None = None,
        max_ttl: float | timedelta | None = None,
        cooldown: float | timedelta = 30,
        stale_for: float | timedelta = 3600,
        timeout: float | timedelta = DEFAULT_TIMEOUT_SECONDS,
        max_bytes: int = DEFAULT_MAX_BYTES,
        private_http: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use the keys at ``url``; nothing is fetched yet.

        Durations are seconds or timedeltas.

        Args:
            url: An https URL; http on loopback.
            client: The httpx2 client to use; it stays open.
            min_ttl: The least time that keys are kept, despite Cache-Control; 60 seconds, or ``max_ttl`` if that
                is less.
            max_ttl: The most, and the time without Cache-Control; an hour, or ``min_ttl`` if that is more. A key that
                the issuer withdraws is refused after at most this long.
            cooldown: The time between two fetches for the sake of tokens that no key verifies, and the longest pause
                between attempts while the issuer is unreachable.
            stale_for: How much longer keys serve while the issuer is unreachable. After that the answer is 503.
            timeout: The time for one fetch, from its start to the last byte.
            max_bytes: The size of a document at which reading stops.
            private_http: Accept http in a private network, such as between containers: for host names without a dot or
                with a suffix reserved for such networks, and for private addresses. It is logged.
            clock: Seconds, from any moment on.

        Raises:
            ConfigurationError: The URL is not https, or a number is out of range.
            MissingExtraError: The extra ``http`` is not installed.
        """
        check_flags(private_http=private_http)
        self.url: str = check_url(url, private_http=private_http)
        self._client = check_client(client)
        self._freshness = Freshness.of(
            min_ttl=min_ttl, max_ttl=max_ttl, cooldown=cooldown, stale_for=stale_for, timeout=timeout
        )
        self._max_bytes = check_max_bytes(max_bytes)
        warn_about_http(self.url)
        self._private_http = private_http
        self._clock = clock_of(clock)
        self._held: Held | None = None
        self._attempts = Attempts(self._freshness, clock)
        self._looked_further_at = float("-inf")
        self._reported: set[str] = set()
        # The fetch in flight, one for each event loop: a task of a loop that has ended never ends.
        self._flights: dict[asyncio.AbstractEventLoop, _Flight] = {}

    async def __aenter__(self) -> Self:
        """Fetch the keys, see ``start``."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel the fetch in flight."""
        await self.aclose()

    async def start(self) -> None:
        """Fetch the keys now, so that no request waits for them.

        An unreachable issuer does not keep the application from starting: it is logged, and requests try again.
        """
        try:
            await self.refresh()
        except ServiceUnavailable:
            where = without_query(self.url)
            logger.warning(
                "started without the keys at %s: the answer to requests is 503 until they are fetched", where
            )

    async def refresh(self) -> None:
        """Fetch the keys now and replace the present ones.

        Raises:
            ServiceUnavailable: That failed; the present keys stay.
        """
        await self._replaced()
        if self._attempts.failures:
            raise self._unavailable()

    async def aclose(self) -> None:
        """Cancel the fetch in flight in this event loop. The keys stay, and can be used and fetched again."""
        flight = self._flight()
        if flight is not None:
            flight.task.cancel()
            await flight.landed()

    def for_algorithms(self, algorithms: Sequence[str]) -> Selection:
        """Return the source of the keys that fit ``algorithms``, for a JWTConfig."""
        return Selection(self, tuple(algorithms))

    def current(self) -> tuple[Key, ...] | None:
        """Return the keys that can be used at once, and begin to refresh them where that is due.

        ``None`` where a request has to wait: no key was fetched yet, or the keys are too old and it is not known
        whether the issuer is unreachable.
        """
        held = self._held
        if held is None:
            return None
        age = self._clock() - held.at
        if age < held.refresh_after:
            return held.keys
        if age >= held.ttl and not (self._attempts.are_failing() and age < held.ttl + self._freshness.stale_for):
            return None
        if self._flight() is None and self._attempts.pause() <= 0:
            self._begin(adding=False)
        return held.keys

    async def load(self) -> tuple[Key, ...]:
        """Return usable keys, fetched if need be.

        Raises:
            ServiceUnavailable: There are none: the issuer is unreachable, for longer than ``stale_for`` if it was
                reachable before.
        """
        if self.current() is None and (self._attempts.pause() <= 0 or self._flight() is not None):
            await self._replaced()
        return self._usable()

    async def load_other(self, header: Header, tried: tuple[Key, ...] | None) -> tuple[Key, ...]:
        """Return usable keys, after at most one fetch in a cooldown for a token that ``tried`` did not verify.

        The issuer may have begun to sign with a new key, with or without a new ``kid``.

        Raises:
            ServiceUnavailable: No key fits the header, and the fetch that might have brought one failed.
        """
        for _ in range(2):  # a fetch in flight may have left before the key was published
            held = self._held
            if held is not None and held.keys is not tried and held.may_verify(header):
                return self._usable()
            flight = self._flight()
            if flight is None:
                now = self._clock()
                if now - self._looked_further_at < self._freshness.cooldown:
                    break
                self._looked_further_at = now
                flight = self._begin(adding=True)
            await flight.landed()
        if self._attempts.failures and not (self._held is not None and self._held.may_verify(header)):
            raise self._unavailable(self._looked_further_at + self._freshness.cooldown - self._clock())
        return self._usable()

    async def read(self) -> Document:
        """Fetch the JWK Set.

        Raises:
            FetchError: It did not come.
        """
        return await self._fetch_document(self.url)

    async def _fetch_document(self, url: str) -> Document:
        return await fetch(
            url,
            client=self._client,
            timeout_seconds=self._freshness.timeout,
            max_bytes=self._max_bytes,
            private_http=self._private_http,
        )

    async def _replaced(self) -> None:
        flight = self._flight()
        if flight is not None and flight.adding:
            await flight.landed()
            flight = self._flight()
        await (flight or self._begin(adding=False)).landed()

    def _flight(self) -> _Flight | None:
        return self._flights.get(asyncio.get_running_loop())

    def _begin(self, *, adding: bool) -> _Flight:
        loop = asyncio.get_running_loop()
        for closed in [known for known in self._flights if known.is_closed()]:
            del self._flights[closed]
        # An empty context: nothing of the request that caused the fetch, such as its trace, goes with it.
        task = loop.create_task(self._fetch(adding=adding), context=Context())
        flight = self._flights[loop] = _Flight(task, adding)
        task.add_done_callback(lambda _: self._flights.pop(loop, None))
        return flight

    async def _fetch(self, *, adding: bool) -> None:
        started, succeeded = self._clock(), False
        try:
            async with asyncio.timeout(self._freshness.timeout):
                document = await self.read()
            self._keep(document, started, adding=adding)
            succeeded = True
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the present keys stay
            # The text of a FetchError is ours; that of another exception may quote anything.
            cause = str(error) if isinstance(error, FetchError) else type(error).__name__
            logger.warning("the keys at %s stay as they are: %s", without_query(self.url), cause)
        finally:  # also after a cancellation
            self._attempts.record(succeeded=succeeded)

    def _keep(self, document: Document, at: float, *, adding: bool) -> None:
        keys = tuple(usable_keys(document.value, ASYMMETRIC, self._report))
        if not keys and not _is_empty_set(document.value):
            msg = "it is not a JWK Set, or none of its keys can be used"
            raise FetchError(msg)
        held = self._held
        if adding and held is not None and at - held.at < held.ttl:
            known = {_identity(key) for key in held.keys}
            added = tuple(key for key in keys if _identity(key) not in known)
            if added:
                self._held = replace(held, keys=held.keys + added)
            return
        if held is not None and [*map(_identity, held.keys)] == [*map(_identity, keys)]:
            keys = held.keys  # the same object, so that a cache of verified tokens stays valid
        ttl, refresh_after = self._freshness.lifetime(document.max_age_seconds)
        self._held = Held(keys, at, ttl, refresh_after)

    def _report(self, complaint: str) -> None:
        """Log a skipped entry, once for each complaint."""
        if complaint not in self._reported and len(self._reported) < _MAX_REPORTS:
            self._reported.add(complaint)
            logger.warning("%s: %s", without_query(self.url), complaint)

    def _usable(self) -> tuple[Key, ...]:
        held = self._held
        if held is None or self._clock() - held.at >= held.ttl + self._freshness.stale_for:
            raise self._unavailable()
        return held.keys

    def _unavailable(self, pause: float = 0.0) -> ServiceUnavailable:
        return ServiceUnavailable(retry_after=max(1.0, pause, self._attempts.pause()), reason="keys_unreachable")


def _is_empty_set(document: object) -> bool:
    # An issuer may withdraw all its keys. A set of keys none of which can be used is another thing.
    return isinstance(document, dict) and document.get("keys") == []


def _identity(key: Key) -> str:
    return json.dumps(key.as_dict(private=False), sort_keys=True)
