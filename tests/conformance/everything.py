"""The served application with every router, and calls of it."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import requests
import uvicorn

from conformance.calls import DOCUMENTED, Served
from conformance.every_router import PASSWORD, EveryRouter
from fastapi_guard.login.messages import Message
from fastapi_guard.login.throttle import Throttle

JSON = "application/json"
# So few that a test reaches it, and so many that no login does.
TRIES = 20
LOGIN = {"username": "ada", "password": PASSWORD}


class Everything(Served):
    """The served application, and what is in its process."""

    def __init__(self, url: str, session: requests.Session, made: EveryRouter) -> None:
        """Read the document at `url`."""
        super().__init__(url, session)
        self.made = made
        self._addresses = (f"10.0.{number // 256}.{number % 256}" for number in count())
        self.moves = True

    def send(self, case: Any, credential: str | None, checks: list[Any] = DOCUMENTED) -> Any:
        """Send a request from an address of its own, unless the address does not move."""
        if self.moves:
            self.address = next(self._addresses)
        return super().send(case, credential, checks)

    def ask(
        self,
        label: str,
        status: int,
        body: Any = None,
        credential: str | None = None,
        *,
        media_type: str = JSON,
        **more: Any,
    ) -> Any:
        """Call an operation with a body and parameters of its path, and return the response, which has this status."""
        arguments = {name: more.pop(name) for name in ("query", "headers") if name in more}
        if body is not None:
            arguments |= {"body": body, "media_type": media_type}
        return self.answer(label, credential, status, path_parameters=more, **arguments)

    def token(self, **login: str) -> str:
        """Return an access token."""
        made: str = self.ask("POST /login", 200, login or LOGIN).json()["access_token"]
        return made

    def cookie(self, **login: str) -> str:
        """Return the cookie of a session."""
        return cookies_of(self.ask("POST /session/login", 204, login or LOGIN))

    def message(self, kind: str) -> Message:
        """Return the next message of a kind, which is sent after the response."""
        message = self.made.messages.get(timeout=60)
        return message if message.kind == kind else self.message(kind)

    def mailed(self, kind: str) -> str:
        """Return the token of the link in the next message of a kind."""
        return str(self.message(kind).link).partition("#token=")[2]

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of a coroutine, which runs where the application does."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.made.loop).result(60)


def cookies_of(answer: Any) -> str:
    """Return the cookies that a response sets, as a request sends them."""
    fields = answer.headers["set-cookie"]
    return "; ".join(field.partition(";")[0] for field in fields if "Max-Age=0" not in field)


@contextmanager
def served(folder: Path, address: Throttle) -> Iterator[Everything]:
    """Serve the application in a thread, so that a test sees what it sends."""
    made = EveryRouter(folder, address)
    made.app.openapi()  # which takes a while, and is kept
    with socket.create_server(("127.0.0.1", 0)) as bound, requests.Session() as session:
        server = uvicorn.Server(uvicorn.Config(made.app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            yield Everything(f"http://127.0.0.1:{bound.getsockname()[1]}", session, made)
        finally:
            server.should_exit = True
            thread.join()
