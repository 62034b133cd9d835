import asyncio
import gzip
import json
import ssl
import sys
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import httpx2
import pytest

from fastapi_guard import ConfigurationError
from fastapi_guard.exceptions import MissingExtraError
from fastapi_guard.jwt import http as module
from fastapi_guard.jwt.http import DEFAULT_MAX_BYTES, Poster, check_client, fetch, fetch_json, in_process
from fastapi_guard.jwt.responses import Answer, FetchError, content_of
from fastapi_guard.testing.issuer import FakeIssuer
from support.guarded import run_in_new_loop

URL = "https://id.example/keys"
DOCUMENT = {"keys": [{"kty": "EC"}]}
GZIPPED = gzip.compress(b"{}", mtime=0)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answering(answers: Mapping[str, Answer]) -> httpx2.AsyncClient:
    """Return a client with a fixed response for each URL."""

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert headers["Accept-Encoding"] == "identity"
        return answers[url]

    return httpx2.AsyncClient(transport=in_process(answer))


Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """Run an HTTP server on this machine that calls ``serve`` for each connection; yield its URL."""

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
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/keys"


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note the name of each thread that reads the certificates of the authorities."""
    threads: list[str] = []
    read = httpx2.create_ssl_context

    def noting() -> ssl.SSLContext:
        threads.append(threading.current_thread().name)
        return read()

    monkeypatch.setattr(httpx2, "create_ssl_context", noting)
    module._authorities.cache_clear()
    yield threads
    module._authorities.cache_clear()


async def test_certificates_are_read_once_and_beside_the_event_loop(reading: list[str]) -> None:
    """However often something is fetched, the certificates are read once, in a thread: nothing waits for it."""

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with server(serve) as url:
        for _ in range(3):
            assert await fetch_json(url) == {}
    assert len(reading) == 1
    assert reading[0] != threading.main_thread().name


async def test_posts_at_the_same_time_share_a_client(reading: list[str]) -> None:
    """Of the first posts of an event loop, all go over one client, and it is closed with the Poster."""

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with server(serve) as url:
        poster = Poster(url, client=None, timeout_seconds=60, max_bytes=100)
        answers = await asyncio.gather(*(poster.post({}, {}) for _ in range(5)))
        assert [content_of(answer) for answer in answers] == [b"{}"] * 5
        (client,) = poster._own.values()
        await poster.aclose()
    assert client.is_closed
    assert reading


@pytest.mark.parametrize("url", ["http://id.example/keys", "https://user:secret@id.example/", "https://["])
async def test_urls_to_fetch_no_key_from(url: str) -> None:
    """A URL that is not https is refused before anything is sent."""
    with pytest.raises(ConfigurationError):
        await fetch_json(url, client=answering({}))


async def test_a_document_comes_with_its_lifetime() -> None:
    """The JSON is returned, with its lifetime by Cache-Control; the client of the caller stays open."""
    async with answering({URL: Answer(200, {"Cache-Control": "public, max-age=300"}, b'{"a": 1}')}) as client:
        document = await fetch(URL, client=client)
        assert document.value == {"a": 1}
        assert document.max_age_seconds == 300
        assert await fetch_json(URL, client=client) == {"a": 1}
        assert not client.is_closed


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Cache-Control": "public"}, None),
        ({"Cache-Control": "max-age=60"}, 60),
        ({"Cache-Control": "Public, MAX-AGE=60 , must-revalidate"}, 60),
        ({"Cache-Control": 'max-age="60"'}, 60),
        ({"Cache-Control": "s-maxage=9, max-age=60"}, 60),
        ({"Cache-Control": "x-max-age=9"}, None),
        ({"Cache-Control": "max-age=-1"}, None),
        ({"Cache-Control": "max-age=soon"}, None),
        ({"Cache-Control": "max-age=99999999999999999999"}, None),
        ({"Cache-Control": "no-store"}, 0),
        ({"Cache-Control": "no-cache, max-age=60"}, 0),
        ({"Cache-Control": "max-age=60", "Age": "20"}, 40),
        ({"Cache-Control": "max-age=60", "Age": "90"}, 0),
        ({"Cache-Control": "max-age=60", "Age": "old"}, 60),
    ],
)
async def test_freshness(headers: Mapping[str, str], expected: float | None) -> None:
    """The rest of ``max-age`` is the lifetime; a malformed one is ignored."""
    assert (await fetch(URL, client=answering({URL: Answer(200, headers, b"{}")}))).max_age_seconds == expected


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Encoding": ""}, b"[1]"),
        ({"Content-Encoding": "identity"}, b"[1]"),
        ({"Content-Encoding": "UTF-8"}, b"[1]"),
        ({"Content-Encoding": "none"}, b"[1]"),
        ({"Content-Encoding": " Identity ,"}, b"[1]"),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"[1]", mtime=0)),
        ({"Content-Encoding": "x-gzip"}, gzip.compress(b"[1]", mtime=0)),
        ({"Content-Encoding": "GZIP, identity"}, gzip.compress(b"[1]", mtime=0)),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"[", mtime=0) + gzip.compress(b"1]", mtime=0)),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"[1]", mtime=0) + bytes(512)),
        ({"Content-Encoding": "deflate"}, zlib.compress(b"[1]")),
        ({"Content-Encoding": "deflate"}, zlib.compress(b"[1]", level=9)),
        ({"Content-Encoding": "deflate"}, zlib.compress(b"[1]", wbits=-15)),
        ({}, b"\xef\xbb\xbf[1]"),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"\xef\xbb\xbf[1]", mtime=0)),
        ({"Content-Type": "text/html; charset=latin-1"}, b" [1]\r\n"),
    ],
)
async def test_documents_in_odd_clothes(headers: Mapping[str, str], body: bytes) -> None:
    """A body that is compressed without being asked for, or begins with a byte order mark, is read."""
    assert await fetch_json(URL, client=answering({URL: Answer(200, headers, body)})) == [1]


@pytest.mark.parametrize(("wbits", "encoding"), [(31, "gzip"), (15, "deflate"), (-15, "deflate")])
async def test_a_compressed_body_in_pieces(wbits: int, encoding: str) -> None:
    """Each byte for itself, in each format, and of several members."""
    parts = [b"[1, ", b"2]"] if encoding == "gzip" else [b"[1, 2]"]
    body = b"".join(zlib.compress(part, wbits=wbits) for part in parts)

    async def pieces() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    answer = Answer(200, {"Content-Encoding": encoding}, pieces())
    assert await fetch_json(URL, client=answering({URL: answer})) == [1, 2]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x1f",
        gzip.compress(b"[1]", mtime=0) + gzip.compress(b"", mtime=0)[:-1],
        gzip.compress(b"[1]", mtime=0) + b"[2]",
        zlib.compress(b"[1]") + b"[2]",
        zlib.compress(b"[1]", wbits=-15)[:-1],
        b"[1]",
    ],
)
async def test_a_compressed_body_that_is_broken(body: bytes) -> None:
    """A body that breaks off, or with something else behind it, is not a document."""
    for encoding in ("gzip", "deflate"):
        with pytest.raises(FetchError):
            await fetch_json(URL, client=answering({URL: Answer(200, {"Content-Encoding": encoding}, body)}))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
async def test_json_in_another_encoding(encoding: str) -> None:
    """RFC 8259 8.1 has UTF-8 alone between systems: the log names the reason."""
    with pytest.raises(FetchError, match=r"in UTF-16 or UTF-32 \(RFC 8259 8\.1: UTF-8\)"):
        await fetch_json(URL, client=answering({URL: Answer(200, {}, '{"keys": []}'.encode(encoding))}))


async def test_the_types_that_are_acceptable() -> None:
    """A server that is strict about Accept finds what it sends there: JSON, a JWK Set, or anything else."""
    sent: list[str] = []

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        sent.append(headers["Accept"])
        return Answer(200, {"Content-Type": "application/jwk-set+json"}, b"{}")

    await fetch_json(URL, client=httpx2.AsyncClient(transport=in_process(answer)))
    assert sent == ["application/json, application/jwk-set+json, */*;q=0.1"]


async def test_a_transport_in_memory() -> None:
    """A response that a test's transport has read and decoded already is taken as it is, within the limit."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(b"[1]", mtime=0))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        assert await fetch_json(URL, client=client) == [1]
        with pytest.raises(FetchError, match="answered more than 2 bytes"):
            await fetch_json(URL, client=client, max_bytes=2)


async def test_a_compressed_body_that_expands() -> None:
    """A body that is small on the wire and large in memory is expanded no further than the limit."""
    bomb = gzip.compress(b" " * 25_000_000, mtime=0) * 2
    client = answering({URL: Answer(200, {"Content-Encoding": "gzip"}, bomb)})
    tracemalloc.start()
    with pytest.raises(FetchError, match="answered more than 262144 bytes"):
        await fetch_json(URL, client=client)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


async def test_a_query_is_not_logged() -> None:
    """A URL may have a secret in its query, which no error repeats."""
    with pytest.raises(FetchError) as refusal:
        await fetch_json(URL + "?code=hunter2", client=answering({URL + "?code=hunter2": Answer(500)}))
    assert str(refusal.value) == f"{URL} answered 500"
    assert refusal.value.status == 500


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(404), "answered 404"),
        (Answer(500, {}, b"{}"), "answered 500"),
        (Answer(204), "answered 204"),
        (Answer(301), "answered 301"),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>"), "did not answer with JSON"),
        (Answer(200, {}, b""), "did not answer with JSON"),
        (Answer(200, {}, b"\xff"), "did not answer with JSON"),
        (Answer(200, {}, json.dumps(DOCUMENT).encode("utf-16")), "did not answer with JSON"),
        (Answer(200, {}, b"[" * 100_000), "did not answer with JSON"),
        (Answer(200, {}, b"1" * 5000), "did not answer with JSON"),
        (Answer(200, {"Content-Encoding": "zstd"}, b"{}"), "answered in an encoding that was not asked for"),
        (Answer(200, {"Content-Encoding": "gzip, br"}, b"{}"), "answered in an encoding that was not asked for"),
        (Answer(200, {"Content-Encoding": "gzip"}, b"{}"), "could not be fetched: error"),
        (Answer(200, {"Content-Encoding": "gzip"}, GZIPPED[:-4]), "answered with a compressed body that breaks off"),
        (Answer(302, {"Location": "https://elsewhere.example/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "//elsewhere.example/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "http://id.example/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "https://id.example:8443/keys"}), "redirected to another origin"),
        (Answer(307, {"Location": "http://localhost/"}), "redirected to another origin"),
        (Answer(307, {"Location": "https://user:secret@id.example/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "https://id.example:443/keys"}), "one redirect after another"),
    ],
)
async def test_what_is_no_document(answer: Answer, said: str) -> None:
    """Another status, another form, another origin: a FetchError with the cause for the log."""
    with pytest.raises(FetchError, match=rf"^https://id\.example(:443)?/keys .*{said}$"):
        await fetch(URL, client=answering({URL: answer}))


@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("secret"),
        httpx2.ReadTimeout("secret"),
        httpx2.InvalidURL("secret"),
        OSError("secret"),
        ZeroDivisionError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_client_that_breaks_is_a_failed_fetch(error: Exception) -> None:
    """Whatever a client that was passed in raises, the fetch failed, and the text is not repeated."""

    def broken(request: httpx2.Request) -> httpx2.Response:
        raise error

    with pytest.raises(FetchError, match=rf"^{URL} could not be fetched: {type(error).__name__}$"):
        await fetch(URL, client=httpx2.AsyncClient(transport=httpx2.MockTransport(broken)))


async def test_a_redirect_within_the_origin_is_followed() -> None:
    """A document may move at its own origin."""
    moved = Answer(308, {"Location": "/v2/keys"})
    client = answering({URL: moved, "https://id.example/v2/keys": Answer(200, {}, b"[1]")})
    assert await fetch_json(URL, client=client) == [1]


async def test_a_client_that_follows_redirects() -> None:
    """A client's own setting to follow redirects does not count."""
    asked: list[str] = []

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        asked.append(url)
        return Answer(302, {"Location": "https://elsewhere.example/keys"})

    async with httpx2.AsyncClient(transport=in_process(answer), follow_redirects=True) as client:
        with pytest.raises(FetchError, match=r"redirected to another origin$"):
            await fetch_json(URL, client=client)
    assert asked == [URL]


async def test_redirect_of_a_real_server() -> None:
    """A redirect of a real server to another one leads nowhere."""
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


async def test_over_http() -> None:
    """Without a client of the caller's, one of its own fetches over HTTP, and leaves nothing open."""
    issuer = FakeIssuer()
    with issuer.serve():
        assert await fetch_json(issuer.jwks_uri) == issuer.jwks
        with issuer.outage(), pytest.raises(FetchError):
            await fetch_json(issuer.jwks_uri)


async def test_nobody_there() -> None:
    """A closed port is an error like any other."""
    async with server(lambda _: asyncio.sleep(0)) as url:
        pass
    with pytest.raises(FetchError, match=r"could not be fetched: ConnectError$"):
        await fetch_json(url)


@pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
async def test_the_limit_is_what_it_says(size: int, fits: bool) -> None:
    """A document of the greatest size passes, one of a byte more does not."""
    content = json.dumps("x" * (size - 2)).encode()
    assert len(content) == size
    client = answering({URL: Answer(200, {}, content)})
    if fits:
        assert len(await fetch_json(URL, client=client, max_bytes=100)) == size - 2
    else:
        with pytest.raises(FetchError, match=r"answered more than 100 bytes$"):
            await fetch_json(URL, client=client, max_bytes=100)


async def test_reading_stops_at_the_limit() -> None:
    """A body that is too large is not read to its end: 50 MB that come in pieces stop after a few."""
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(50):  # pragma: no branch - the end is never read
            sent += 1
            yield b" " * 1_000_000

    with pytest.raises(FetchError, match="more than 2000000 bytes"):
        await fetch(URL, client=answering({URL: Answer(200, {}, pieces())}), max_bytes=2_000_000)
    assert sent == 3


async def test_a_document_without_end() -> None:
    """Reading stops at the limit, despite the Content-Length and however much more there is."""
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


@pytest.mark.parametrize("start", [HEAD + b"Content-Length: 9999\r\n\r\n", b"HTTP/1.1 "])
async def test_bytes_that_drip(start: bytes) -> None:
    """The deadline is for all of it: a server that keeps sending a little is cut off too."""
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
        await asyncio.wait_for(left.wait(), 60)


async def test_the_deadline_of_a_slow_issuer() -> None:
    """An issuer at its usual pace is heard, one that begins late or drips is not waited for."""
    issuer = FakeIssuer()
    assert await fetch_json(issuer.jwks_uri, client=issuer.client, timeout_seconds=60)
    with issuer.slow(seconds_a_byte=0.01), pytest.raises(FetchError, match="TimeoutError"):
        await fetch(issuer.jwks_uri, client=issuer.client, timeout_seconds=0.05)
    with issuer.slow(1), pytest.raises(FetchError, match="TimeoutError"):
        await fetch(issuer.jwks_uri, client=issuer.client, timeout_seconds=0.02)


async def test_a_cancelled_request_is_cancelled() -> None:
    """A task that is cancelled while waiting stays cancelled, and gets no error of ours instead."""
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


async def test_post_sends_a_form_and_follows_no_redirect() -> None:
    """A form goes to its endpoint and nowhere else, at the same origin neither."""
    seen: list[tuple[str, bytes, str | None]] = []

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        seen.append((method, body, headers.get("X-Own")))
        return Answer(200, {}, b'{"ok": true}') if url == URL else Answer(307, {"Location": URL})

    client = httpx2.AsyncClient(transport=in_process(answer))
    poster = Poster(URL, client=client, timeout_seconds=60, max_bytes=100)
    assert content_of(await poster.post({"a": "b c"}, {"X-Own": "1"})) == b'{"ok": true}'
    assert seen == [("POST", b"a=b+c", "1")]
    moved = Poster(URL + "/moved", client=client, timeout_seconds=60, max_bytes=100)
    with pytest.raises(FetchError, match="answered 307"):
        await moved.post({}, {})
    await poster.aclose()


def test_post_keeps_a_client_for_each_event_loop() -> None:
    """Connections stay open within a loop; those of a loop that has ended are forgotten."""
    issuer = FakeIssuer()
    token = issuer.opaque_token()
    form = {"token": token, "client_id": issuer.client_id, "client_secret": issuer.client_secret}
    with issuer.serve():
        poster = Poster(issuer.introspection_endpoint, client=None, timeout_seconds=60, max_bytes=10_000)

        async def twice() -> None:
            for _ in range(2):
                assert b'"active": true' in content_of(await poster.post(form, {}))
            assert len(poster._own) == 1
            await poster._own[asyncio.get_running_loop()].aclose()

        async def once_and_close() -> None:
            assert b'"active": true' in content_of(await poster.post(form, {}))
            assert len(poster._own) == 1
            await poster.aclose()
            await poster.aclose()
            assert not poster._own

        run_in_new_loop(twice())
        run_in_new_loop(once_and_close())
    assert json.dumps(issuer.requests) == json.dumps(["/introspect"] * 3)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that will send requests names the extra when it is constructed."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fastapi-guard-auth\[http\]'"):
        check_client(None)
