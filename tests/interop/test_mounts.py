"""Gradio, sqladmin and static files behind guards: nothing of theirs answers before."""

import http.client
import socket
from urllib.parse import urlsplit

import httpx2
import pytest

from interop.running import Serve

API = "mounts_app.py"
ADMIN = {"Authorization": "Bearer sk-ada-an-admin-of-the-tests-7d1f0a3b"}
OTHER = {"Authorization": "Bearer sk-bob-who-may-do-nothing-here-41c2e9"}
# What a page of each loads, and paths that a server may read in another way.
PATHS = [
    *("/admin/", "/admin/item/list", "/admin/statics/css/main.css", "/admin/item/create", "/admin/login"),
    *(
        "/ui/",
        "/ui/config",
        "/ui/gradio_api/info",
        "/ui/gradio_api/queue/join",
        "/ui/gradio_api/upload",
        "/ui/theme.css",
    ),
    *("/ui/gradio_api/call/greet", "/ui/gradio_api/heartbeat/x", "/ui/assets/x.js", "/ui/docs", "/ui/openapi.json"),
    *("/files/report.txt", "/files/", "/files", "/files/index.html", "/files//report.txt", "/files/%2e%2e/report.txt"),
    *(
        "/files/..%2Freport.txt",
        "/files/report%2Etxt",
        "//files/report.txt",
        "/files/./report.txt",
        "/x/../files/report.txt",
    ),
]
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "PROPFIND"]
CONTENT = (b"all is well", b"<p>index", b"gradio", b"sqladmin", b"Item")


@pytest.mark.parametrize("headers", [{}, OTHER], ids=["anonymous", "without the scope"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_answers_before_the_guard(serve: Serve, method: str, headers: dict[str, str]) -> None:
    """Every path and method is refused, sent as it is written, and nothing of the content is in the response."""
    address = urlsplit(serve(API))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    for path in PATHS:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        # Outside of a mount there is nothing; a redirect of the mount's own path leads to the guard.
        assert answer.status in ((403,) if headers else (401,)) or answer.status in (404, 307), (path, answer.status)
        if answer.status == 404:
            assert path.startswith(("//", "/x/")), path
        assert not any(text in body for text in CONTENT), (path, body)
    connection.close()


def test_an_upgrade(serve: Serve) -> None:
    """A WebSocket handshake, and an upgrade to something else, is refused before the application sees it."""
    address = urlsplit(serve(API))
    for protocol in ("websocket", "h2c"):
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=60) as connection:
            fields = f"Host: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Version: 13\r\n"
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            connection.sendall(f"GET /ui/gradio_api/queue/join HTTP/1.1\r\n{fields}{key}\r\n".encode())
            assert connection.recv(65536).split(b"\r\n")[0].split()[1] == b"401"


def test_they_work_behind_it(serve: Serve) -> None:
    """With the key files are served, Gradio computes, and sqladmin writes a row."""
    with httpx2.Client(base_url=serve(API), headers=ADMIN, follow_redirects=True, timeout=60) as client:
        assert client.get("/files/report.txt").text == "all is well"
        assert "<p>index" in client.get("/files/").text
        assert client.get("/files/..%2Freport.txt").status_code == 404
        assert "gradio" in client.get("/ui/").text
        assert "/greet" in client.get("/ui/gradio_api/info").json()["named_endpoints"]
        event = client.post("/ui/gradio_api/call/greet", json={"data": ["Ada"]}).json()["event_id"]
        assert "Hello Ada" in client.get(f"/ui/gradio_api/call/greet/{event}").text
        assert client.get("/admin/item/list").status_code == 200
        assert client.post("/admin/item/create", data={"name": "a new row"}).status_code == 200
        assert "a new row" in client.get("/admin/item/list").text
