"""HTTP on loopback for a fake server of a test, with the faults of a real one."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from fastapi_guard.jwt.responses import Answer

AnswerPath = Callable[[str, Mapping[str, str], bytes], Answer]


@dataclass
class Faults:
    """The present faults of a server; a test changes them.

    Attributes:
        is_down: Whether connections are broken off.
        delay_seconds: The time before an answer.
        drip_seconds: The time between two bytes of a body.
    """

    is_down: bool = False
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0


@contextmanager
def serving(answer: AnswerPath, faults: Faults) -> Iterator[str]:
    """Serve ``answer(path, headers, body)`` on loopback, and yield the origin, such as ``http://127.0.0.1:8000``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(answer, faults))
    server.daemon_threads, server.block_on_close = True, False
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler_of(answer: AnswerPath, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _respond(self, answer, faults)

        do_POST = do_GET  # noqa: N815 - the name is given

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is given
            """Log nothing."""

    return Handler


def _respond(request: BaseHTTPRequestHandler, answer: AnswerPath, faults: Faults) -> None:
    body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
    answered = answer(urlsplit(request.path).path, dict(request.headers.items()), body)
    time.sleep(faults.delay_seconds)
    request.close_connection = True
    if faults.is_down:
        return
    assert isinstance(answered.body, bytes)  # noqa: S101 - only an in-process transport returns pieces
    content = answered.body
    request.send_response(answered.status)
    for name, value in {**answered.headers, "Content-Length": str(len(content))}.items():
        request.send_header(name, value)
    request.end_headers()
    pieces = [content] if not faults.drip_seconds else [bytes((byte,)) for byte in content]
    try:
        for piece in pieces:
            request.wfile.write(piece)
            time.sleep(faults.drip_seconds)
    except OSError:
        return  # the client has left
