"""expires_with: a WebSocket ends when the credential does that opened it."""

import time
from collections.abc import Callable, Mapping
from sys import float_info
from types import TracebackType
from typing import Any, Self

from anyio import CancelScope, current_time
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

# RFC 6455 7.4.1: a message violates the policy of the endpoint.
_POLICY_VIOLATION = 1008
_REASON = "The credential has expired"


class expires_with:  # noqa: N801 - it reads as what it does
    """Run a block as long as the credential lasts: at its ``exp`` the block is cancelled and the WebSocket closed.

    ::

        async with expires_with(websocket, claims):
            async for text in websocket.iter_text():
                await websocket.send_text(text)

    The code is 1008. The code below the block runs in any case, and finds the WebSocket closed. A credential
    without ``exp`` does not expire.
    """

    def __init__(
        self, websocket: WebSocket, claims: Mapping[str, Any], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Watch over ``websocket``.

        Args:
            websocket: The WebSocket.
            claims: What the guard gave; ``exp`` is in seconds since the epoch.
            clock: Seconds since the epoch.

        Raises:
            TypeError: ``exp`` is not a number.
        """
        expires = claims.get("exp")
        if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float)):
            msg = f"exp is a number of seconds, not {type(expires).__name__}"
            raise TypeError(msg)
        self._websocket = websocket
        # A whole number of JSON may be larger than any float.
        self._expires: float | None = None if expires is None else min(expires, float_info.max)
        self._clock = clock
        self._scope = CancelScope()

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        if self._expires is not None:
            self._scope.deadline = current_time() + self._expires - self._clock()
        self._scope.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Close the WebSocket where the credential has expired."""
        handled = bool(self._scope.__exit__(kind, error, trace))
        if self._scope.cancelled_caught and WebSocketState.DISCONNECTED not in (
            self._websocket.client_state,
            self._websocket.application_state,
        ):
            try:
                await self._websocket.close(_POLICY_VIOLATION, _REASON)
            except WebSocketDisconnect:
                # The client was faster.
                return handled
        return handled
