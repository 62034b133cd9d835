import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import util
from typing import Any

import httpx2
import pytest

from fastapi_guard import ConfigurationError, MissingExtraError, fetch
from fastapi_guard.fetch import DEFAULT_MAX_BYTES, FetchError, fetch_json

URL = "https://id.example/.well-known/jwks.json"
DOCUMENT = {"keys": [{"kty": "EC"}]}


def client_of(answer: httpx2.Response | Exception) -> httpx2.AsyncClient:
    """Return a client whose every request has this answer."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if isinstance(answer, Exception):
            raise answer
        assert request.headers["Accept-Encoding"] == "identity"
        return answer

    return httpx2.AsyncClient(transport=httpx2.MockTransport(handle))


@pytest.mark.parametrize("url", ["http://id.example/jwks", "https://user:secret@id.example/", "https://["])
async def test_urls_to_fetch_no_key_from(url: str) -> None:
    """What is no https URL is refused before anything is sent (F.28)."""
    with pytest.raises(ConfigurationError):
        await fetch_json(url, client=client_of(AssertionError()))


async def test_a_document() -> None:
    """The document is parsed; the client stays open."""
    async with client_of(httpx2.Response(200, json=DOCUMENT)) as client:
        assert await fetch_json(URL, client=client) == DOCUMENT
        assert not client.is_closed


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx2.ConnectError("no route"), "could not be fetched: ConnectError$"),
        (httpx2.ReadTimeout("slow"), "could not be fetched: ReadTimeout$"),
        (httpx2.InvalidURL("odd"), "could not be fetched: InvalidURL$"),
        (OSError(), "could not be fetched: OSError$"),
        (httpx2.Response(404), "answered 404$"),
        (httpx2.Response(500, json=DOCUMENT), "answered 500$"),
        (httpx2.Response(204), "answered 204$"),
        (httpx2.Response(301), "answered 301$"),
        (httpx2.Response(302, headers={"Location": "https://evil.example/"}), "redirected to another origin$"),
        (httpx2.Response(302, headers={"Location": "//evil.example/"}), "redirected to another origin$"),
        (httpx2.Response(302, headers={"Location": "http://id.example/keys"}), "redirected to another origin$"),
        (httpx2.Response(302, headers={"Location": "https://id.example:8443/"}), "redirected to another origin$"),
        (httpx2.Response(307, headers={"Location": "http://localhost/"}), "redirected to another origin$"),
        (httpx2.Response(200, content=b""), "did not answer with JSON$"),
        (httpx2.Response(200, content=b"<html>"), "did not answer with JSON$"),
        (httpx2.Response(200, content=json.dumps(DOCUMENT).encode("utf-16")), "did not answer with JSON$"),
        (httpx2.Response(200, content=b"\xff"), "did not answer with JSON$"),
        (httpx2.Response(200, content=b"[" * 100_000), "did not answer with JSON$"),
        (
            httpx2.Response(
                200, content=gzip.compress(json.dumps(DOCUMENT).encode()), headers={"Content-Encoding": "gzip"}
            ),
            "answered compressed, unasked$",
        ),
    ],
)
async def test_no_document(answer: httpx2.Response | Exception, message: str) -> None:
    """Whatever goes wrong is one error for the log; a redirect leads to no other origin (F.28)."""
    async with client_of(answer) as client:
        with pytest.raises(FetchError, match=rf"^{URL} {message}"):
            await fetch_json(URL, client=client)


async def test_a_client_that_follows_redirects() -> None:
    """A client's own setting to follow redirects does not count (F.28)."""
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(302, headers={"Location": "https://evil.example/jwks"})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle), follow_redirects=True) as client:
        with pytest.raises(FetchError, match=r"redirected to another origin$"):
            await fetch_json(URL, client=client)
    assert asked == [URL]


Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """Run an HTTP server on this machine that answers each connection with ``serve``; gives its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await serve(writer)
        except ConnectionError:  # pragma: no cover - the client may leave before all is written, or after
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/jwks"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def test_a_real_server() -> None:
    """A document comes from a real server, with a client of its own."""

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Connection: close\r\n\r\n" + json.dumps(DOCUMENT).encode())
        await writer.drain()

    async with server(serve) as url:
        assert await fetch_json(url) == DOCUMENT


async def test_nobody_there() -> None:
    """A port where nobody listens is an error like any other."""
    async with server(lambda _: asyncio.sleep(0)) as url:
        pass
    with pytest.raises(FetchError, match=r"could not be fetched: ConnectError$"):
        await fetch_json(url)


@pytest.mark.parametrize("start", [HEAD + b"Content-Length: 9999\r\n\r\n", b"HTTP/1.1 "])
async def test_bytes_that_drip(start: bytes) -> None:
    """The deadline is for all of it: a server that keeps sending a little is cut off too (F.28)."""
    left = asyncio.Event()

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        try:
            while True:  # until the client is gone
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async with server(serve) as url:
        with pytest.raises(FetchError, match=r"could not be fetched: TimeoutError$"):
            await fetch_json(url, timeout_seconds=0.2)
        await asyncio.wait_for(left.wait(), 5)


async def test_a_document_without_end() -> None:
    """Reading stops at the limit, whatever the server says of the length and however much more there is (F.28)."""
    sent = 0

    async def serve(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"Connection: close\r\n\r\n[")
        while True:  # until the client is gone
            writer.write(b"1," * 8192)
            sent += 16_384
            await writer.drain()

    async with server(serve) as url:
        with pytest.raises(FetchError, match=rf"answered more than {DEFAULT_MAX_BYTES} bytes$"):
            await fetch_json(url)
    assert sent < 100 * DEFAULT_MAX_BYTES


@pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
async def test_the_limit_is_what_it_says(size: int, fits: bool) -> None:
    """A document of the greatest size passes, one of a byte more does not (F.28)."""
    content = json.dumps("x" * (size - 2)).encode()
    assert len(content) == size
    async with client_of(httpx2.Response(200, content=content)) as client:
        if fits:
            assert len(await fetch_json(URL, client=client, max_bytes=100)) == size - 2
        else:
            with pytest.raises(FetchError, match=r"answered more than 100 bytes$"):
                await fetch_json(URL, client=client, max_bytes=100)


async def test_redirect_of_a_real_server() -> None:
    """A redirect of a real server leads nowhere (F.28)."""
    asked: list[str] = []

    async def evil(writer: asyncio.StreamWriter) -> None:
        asked.append("evil")  # pragma: no cover
        writer.write(HEAD + b"\r\n{}")  # pragma: no cover

    async with server(evil) as elsewhere:

        async def serve(writer: asyncio.StreamWriter) -> None:
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()

        async with server(serve) as url:
            with pytest.raises(FetchError, match=r"redirected to another origin$"):
                await fetch_json(url)
    assert asked == []


async def test_a_cancelled_request_is_cancelled() -> None:
    """Who is cancelled while waiting stays cancelled, and gets no error of ours instead."""
    reached = asyncio.Event()

    async def serve(_: asyncio.StreamWriter) -> None:
        reached.set()
        await asyncio.sleep(60)

    async with server(serve) as url:
        task = asyncio.create_task(fetch_json(url))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the module names the command that installs it."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    spec: Any = util.spec_from_file_location("fastapi_guard_fetch_again", fetch.__file__)
    with pytest.raises(MissingExtraError, match=r"^httpx2 is not installed: pip install 'fastapi-guard-auth\[http\]'$"):
        spec.loader.exec_module(util.module_from_spec(spec))
