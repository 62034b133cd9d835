"""expires_with: end a WebSocket or a stream when its credential ends: by expiry, revocation, or a session's end.

While the connection is open, the credential is verified again by the guards that admitted it.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from sys import float_info
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from anyio import CancelScope, current_time
from fastapi import HTTPException, params
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from fastapi_guard.app.asgi import Guarded
from fastapi_guard.app.guards import guards_in
from fastapi_guard.auth.decision import verified_on, without_memo
from fastapi_guard.auth.guard import matched_dependant
from fastapi_guard.events import logger
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, Unauthorized, shown
from fastapi_guard.jwt.protocols import PROVEN
from fastapi_guard.stores.arguments import clock_of, instance_of

ItemT = TypeVar("ItemT")

# RFC 6455 7.4.1: a violation of the policy of the endpoint; and "try again later".
_POLICY_VIOLATION: Final = 1008
_TRY_AGAIN_LATER: Final = 1013
_EXPIRED: Final = "The credential has expired"
_INVALID: Final = "The credential is no longer valid"
_UNDECIDED: Final = "The credential cannot be verified now"
# How many checks in a row may find a backend unavailable before the connection ends.
_UNDECIDED_CHECKS: Final = 3


class expires_with:  # noqa: N801 - it reads as what it does
    """Run a block, or a stream, as long as the credential of its connection is valid.

    ::

        async with expires_with(websocket, claims):
            async for text in websocket.iter_text():
                await websocket.send_text(text)

        return StreamingResponse(expires_with(request, claims).over(events()))

    At its ``exp`` the credential ends at once. It is verified again every ``every`` seconds, so that a session, key or
    token that was revoked, or whose absolute lifetime is over, ends within that time; where that cannot be decided, as
    with an unavailable store, within three times as long. The WebSocket is closed with 1008 (1013 where it cannot be
    decided), and a stream ends. The code below the block runs in any case, and finds the WebSocket closed.
    """

    def __init__(
        self,
        connection: HTTPConnection,
        claims: Mapping[str, Any],
        *,
        every: float | timedelta = 30,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Watch over ``connection``.

        Args:
            connection: The WebSocket, or the request of a stream.
            claims: The claims of its credential; ``exp`` is in seconds since the epoch.
            every: How often the credential is verified again, in seconds or as timedelta.
            clock: Seconds since the epoch.

        Raises:
            TypeError: ``exp`` is not a number.
            ConfigurationError: ``every`` is not a positive time, or ``connection`` or ``claims`` is of another type.
        """
        instance_of("connection", connection, HTTPConnection, "the WebSocket or the request of the claims")
        instance_of("claims", claims, Mapping, "the mapping that the guard returned")
        expires = claims.get("exp")
        if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float)):
            msg = f"exp is a number of seconds, not {type(expires).__name__}"
            raise TypeError(msg)
        seconds = every.total_seconds() if isinstance(every, timedelta) else every
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float_info.max:
            msg = f"every is a number of seconds above 0, or a timedelta, not {shown(every)}"
            raise ConfigurationError(msg)
        self._connection = connection
        # A whole number of JSON may be larger than any float.
        self._expires: float | None = None if expires is None else min(expires, float_info.max)
        self._every = seconds
        self._clock = clock_of(clock)
        self._scope = CancelScope()
        self._checks = _checks_of(connection)
        # A task, and no task group, which would wrap the errors of the block.
        self._watch: asyncio.Task[None] | None = None
        self._close = (_POLICY_VIOLATION, _EXPIRED)

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        remaining = self._remaining()
        if remaining is not None:
            self._scope.deadline = current_time() + remaining
        self._scope.__enter__()
        if self._checks:
            self._watch = asyncio.create_task(self._cancel_when_invalid())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Close the WebSocket where the block was cancelled."""
        if self._watch is not None:
            self._watch.cancel()
        handled = bool(self._scope.__exit__(kind, error, trace))
        websocket = self._connection
        if (
            self._scope.cancelled_caught
            and isinstance(websocket, WebSocket)
            and WebSocketState.DISCONNECTED not in (websocket.client_state, websocket.application_state)
        ):
            with suppress(WebSocketDisconnect):  # the client was faster
                await websocket.close(*self._close)
        return handled

    async def over(self, items: AsyncIterable[ItemT]) -> AsyncIterator[ItemT]:
        """Yield ``items`` as long as the credential is valid; then the stream ends, whatever it waits for."""
        iterator = items.__aiter__()
        watch = asyncio.create_task(self._end_of_validity())
        step: asyncio.Task[ItemT] | None = None
        try:
            while True:
                step = asyncio.ensure_future(_next(iterator))
                await asyncio.wait({step, watch}, return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    return
                try:
                    item = step.result()
                except StopAsyncIteration:
                    return
                yield item
        finally:
            watch.cancel()
            if step is not None and not step.done():
                step.cancel()
                await asyncio.wait({step})
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def _remaining(self) -> float | None:
        return None if self._expires is None else self._expires - self._clock()

    async def _end_of_validity(self) -> None:
        remaining = self._remaining()
        if not self._checks:
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=_bounded(remaining))
            return
        checks = asyncio.create_task(self._first_invalid())
        try:
            await asyncio.wait({checks}, timeout=_bounded(remaining))
        finally:
            checks.cancel()

    async def _cancel_when_invalid(self) -> None:
        self._close = await self._first_invalid()
        self._scope.cancel()

    async def _first_invalid(self) -> tuple[int, str]:
        """Return the code and the reason of the close, once the credential is invalid."""
        undecided = 0
        while True:
            await asyncio.sleep(self._every)
            try:
                for check in self._checks:
                    await check()
            except ServiceUnavailable:
                undecided += 1
                if undecided == _UNDECIDED_CHECKS:
                    return _TRY_AGAIN_LATER, _UNDECIDED
            except HTTPException:
                return _POLICY_VIOLATION, _INVALID
            except Exception:  # noqa: BLE001 - an error of the application's verification ends the connection
                logger.exception("the credential of an open connection could not be verified")
                return _TRY_AGAIN_LATER, _UNDECIDED
            else:
                undecided = 0


def _bounded(seconds: float | None) -> float | None:
    # No event loop waits longer than some years.
    return None if seconds is None or seconds > 1e8 else max(0, seconds)


async def _next(iterator: AsyncIterator[ItemT]) -> ItemT:
    return await iterator.__anext__()


def _checks_of(connection: HTTPConnection) -> list[Callable[[], Any]]:
    """Return what verifies the credentials of a connection again: its guards, and Auths that verified it before."""
    verified = {outcome.auth: outcome.principal for outcome in verified_on(connection)}
    dependant = matched_dependant(connection.scope)
    uses = [use for use in guards_in(dependant) if not use.guard.optional] if verified else []
    # A ticket is accepted once.
    single = [auth for auth in verified if hasattr(auth, "still_valid")]
    # The Auth that verified: of an AnyAuth, the member.
    again = [use for use in uses if use.guard.decision.decider(connection).auth not in single]
    guards: list[params.Depends] = [params.Security(use.guard, scopes=list(use.scopes)) for use in again]
    guards += [params.Depends(use.lasting) for use in again if use.lasting is not None]
    covered = {use.guard.auth for use in uses}
    guards += [params.Security(auth.dependency) for auth in verified if auth not in covered and auth not in single]
    checks: list[Callable[[], Any]] = []
    if guards:
        mounted = Guarded(_admitted, guards)
        # A proof of possession was checked when the connection was opened, and is accepted once.
        checks.append(lambda: mounted({**without_memo(connection.scope), PROVEN: True}, _receive, _send))
    checks += [_check_of(auth, verified[auth]) for auth in single]
    return checks


def _check_of(auth: Any, principal: Any) -> Callable[[], Any]:
    async def check() -> None:
        if await auth.still_valid(principal) is not True:
            raise Unauthorized(reason="ended")

    return check


async def _admitted(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for the application behind the guards."""


async def _receive() -> Message:  # pragma: no cover - guards read no body
    return {"type": "http.disconnect"}


async def _send(_: Message) -> None:  # pragma: no cover - a refusal is raised
    """Send nothing."""
