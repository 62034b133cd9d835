import asyncio
import json
from collections.abc import AsyncIterator, Mapping

import httpx2
import pytest

from asking import in_a_loop_of_its_own
from fastapi_guard.fetch import Answer, Client, FetchError, Poster, fetch, fetch_json, in_process
from fastapi_guard.testing.issuer import FakeIssuer

URL = "https://id.example/keys"


def answering(answers: Mapping[str, Answer]) -> Client:
    """Return a client that is answered by URL."""

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return answers[url]

    return Client(transport=in_process(answer))


async def test_a_document_comes_with_its_lifetime() -> None:
    """The JSON is returned, with what Cache-Control says about it."""
    client = answering({URL: Answer(200, {"Cache-Control": "public, max-age=300"}, b'{"a": 1}')})
    document = await fetch(URL, client=client)
    assert document.value == {"a": 1}
    assert document.max_age_seconds == 300
    assert await fetch_json(URL, client=client) == {"a": 1}


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
    """What is left of ``max-age`` is the lifetime; a malformed one is none."""
    assert (await fetch(URL, client=answering({URL: Answer(200, headers, b"{}")}))).max_age_seconds == expected


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(404), "answered 404"),
        (Answer(500, {}, b"{}"), "answered 500"),
        (Answer(204), "answered 204"),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>"), "did not answer with JSON"),
        (Answer(200, {}, b""), "did not answer with JSON"),
        (Answer(200, {}, b"\xff\xfe{\x00}\x00"), "did not answer with JSON"),
        (Answer(200, {}, b"[" * 100_000), "did not answer with JSON"),
        (Answer(200, {}, b"1" * 5000), "did not answer with JSON"),
        (Answer(200, {}, b'{"a": "' + b"x" * 300_000 + b'"}'), "answered more than 262144 bytes"),
        (Answer(200, {"Content-Encoding": "zstd"}, b"{}"), "answered compressed, unasked"),
        (Answer(302, {"Location": "https://elsewhere.example/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "http://id.example/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "https://id.example:8443/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "//elsewhere.example/keys"}), "redirected to another origin"),
        (Answer(302, {"Location": "https://id.example:443/keys"}), "one redirect after another"),
        (Answer(302), "answered 302"),
    ],
)
async def test_what_is_no_document(answer: Answer, said: str) -> None:
    """Another status, another form, too much of it, another origin: a FetchError that says which."""
    with pytest.raises(FetchError, match=said):
        await fetch(URL, client=answering({URL: answer}))


async def test_a_redirect_within_the_origin_is_followed() -> None:
    """A document may move at its own origin."""
    moved = Answer(308, {"Location": "/v2/keys"})
    client = answering({URL: moved, "https://id.example/v2/keys": Answer(200, {}, b"[1]")})
    assert await fetch_json(URL, client=client) == [1]


async def test_a_client_that_breaks_is_a_failed_fetch() -> None:
    """Whatever a client that was passed in raises, the fetch failed, and the text is not repeated."""

    def broken(request: httpx2.Request) -> httpx2.Response:
        raise ZeroDivisionError("secret")

    with pytest.raises(FetchError, match="ZeroDivisionError") as caught:
        await fetch(URL, client=Client(transport=httpx2.MockTransport(broken)))
    assert "secret" not in str(caught.value)


async def test_the_deadline_is_for_all_of_it() -> None:
    """A server that drips a byte at a time does not hold a fetch longer than its timeout; at its usual pace it may."""
    issuer = FakeIssuer()
    assert await fetch_json(issuer.jwks_uri, client=issuer.client, timeout_seconds=5)
    with issuer.slow(seconds_a_byte=0.01), pytest.raises(FetchError, match="TimeoutError"):
        await fetch(issuer.jwks_uri, client=issuer.client, timeout_seconds=0.05)
    with issuer.slow(1), pytest.raises(FetchError, match="TimeoutError"):
        await fetch(issuer.jwks_uri, client=issuer.client, timeout_seconds=0.02)


async def test_over_http() -> None:
    """Without a client of the caller's, one of its own fetches over HTTP, and leaves nothing open."""
    issuer = FakeIssuer()
    with issuer.serve():
        assert await fetch_json(issuer.jwks_uri) == issuer.jwks
        with issuer.outage(), pytest.raises(FetchError):
            await fetch_json(issuer.jwks_uri)


async def test_a_server_that_is_not_there() -> None:
    """A refused connection is a failed fetch."""
    with pytest.raises(FetchError, match="ConnectError"):
        await fetch("http://127.0.0.1:1/keys")


async def test_post_sends_a_form_and_follows_no_redirect() -> None:
    """A form goes to its endpoint and nowhere else, at the same origin neither."""
    seen: list[tuple[str, bytes, str | None]] = []

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        seen.append((method, body, headers.get("X-Own")))
        return Answer(200, {}, b'{"ok": true}') if url == URL else Answer(307, {"Location": URL})

    client = Client(transport=in_process(answer))
    poster = Poster(URL, client=client, timeout_seconds=1, max_bytes=100)
    assert await poster.post({"a": "b c"}, {"X-Own": "1"}) == {"ok": True}
    assert seen == [("POST", b"a=b+c", "1")]
    moved = Poster(URL + "/moved", client=client, timeout_seconds=1, max_bytes=100)
    with pytest.raises(FetchError, match="answered 307"):
        await moved.post({}, {})
    await poster.aclose()


def test_post_keeps_a_client_for_each_event_loop() -> None:
    """Connections stay open within a loop; those of a loop that has ended are forgotten."""
    issuer = FakeIssuer()
    token = issuer.opaque_token()
    form = {"token": token, "client_id": issuer.client_id, "client_secret": issuer.client_secret}
    with issuer.serve():
        poster = Poster(issuer.introspection_endpoint, client=None, timeout_seconds=5, max_bytes=10_000)

        async def twice() -> None:
            for _ in range(2):
                assert (await poster.post(form, {}))["active"] is True
            assert len(poster._own) == 1
            await poster._own[asyncio.get_running_loop()].aclose()

        async def once_and_close() -> None:
            assert (await poster.post(form, {}))["active"] is True
            assert len(poster._own) == 1
            await poster.aclose()
            await poster.aclose()
            assert not poster._own

        in_a_loop_of_its_own(twice())
        in_a_loop_of_its_own(once_and_close())
    assert json.dumps(issuer.requests) == json.dumps(["/introspect"] * 3)


async def test_reading_stops_at_the_limit() -> None:
    """What is too large is not read to its end: 50 MB that come in pieces stop after a few."""
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(50):  # pragma: no branch - nobody reads to the end
            sent += 1
            yield b" " * 1_000_000

    with pytest.raises(FetchError, match="more than 2000000 bytes"):
        await fetch(URL, client=answering({URL: Answer(200, {}, pieces())}), max_bytes=2_000_000)
    assert sent == 3
