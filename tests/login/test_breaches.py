import asyncio
import logging
from collections.abc import Mapping
from hashlib import sha1
from typing import Any

import httpx2
import pytest

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.jwt.http import client_on, in_process
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.login.breaches import BREACHED, BreachedPasswords

PASSWORD = "correct horse battery staple"
DIGEST = sha1(PASSWORD.encode()).hexdigest().upper()  # noqa: S324 - the API's
OTHERS = "0018A45C4D1DEF81644B54AB7F969B88D65:10\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:2\r\n"


class Server:
    """Returns a text, and keeps the requests."""

    def __init__(self, text: str | bytes, status: int = 200) -> None:
        """Return `text`."""
        self.body = text if isinstance(text, bytes) else text.encode()
        self.status = status
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []

    async def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer."""
        self.requests.append((method, url, headers))
        return Answer(self.status, {"Content-Type": "text/plain"}, self.body)

    def client(self) -> httpx2.AsyncClient:
        """Return a client whose requests come here."""
        return client_on(in_process(self))


async def test_a_breached_password() -> None:
    """A password in the list is refused; the server receives five digits of its hash, and no cookie or credential."""
    server = Server(f"{OTHERS}{DIGEST[5:]}:384\r\n")
    with pytest.raises(ValueError, match=f"^{BREACHED}$"):
        await BreachedPasswords(client=server.client()).check(PASSWORD)
    [(method, url, headers)] = server.requests
    assert (method, url) == ("GET", f"https://api.pwnedpasswords.com/range/{DIGEST[:5]}")
    assert headers["Add-Padding"] == "true"
    assert headers["User-Agent"] == "fastapi-guard-auth"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    "text",
    [
        "",
        OTHERS,
        f"{OTHERS}{DIGEST[5:]}:0\r\n",
        f"{DIGEST[5:]}",
        f"{DIGEST[5:]}:",
        f"{DIGEST[5:]}:x",
        f"{DIGEST[5:]}:-1",
        f"{DIGEST[5:]}:²",
        f"{DIGEST[5:-1]}:7",
        f"{DIGEST}:7",
        ":7",
    ],
)
async def test_a_password_that_is_not_breached(text: str) -> None:
    """A password that is not in the list, or in its padding alone, is accepted."""
    await BreachedPasswords(client=Server(text).client()).check(PASSWORD)


async def test_spellings_of_the_list() -> None:
    """Lower case and white space make no difference, and a huge count is a count."""
    text = f" {DIGEST[5:].lower()}:{'9' * 5000} \n"
    with pytest.raises(ValueError, match=BREACHED):
        await BreachedPasswords(client=Server(text).client()).check(PASSWORD)


async def test_odd_passwords() -> None:
    """A lone surrogate and an empty password are checked without an exception."""
    for password in ("\ud800", "", "\0" * 1000):
        await BreachedPasswords(client=Server(OTHERS).client()).check(password)


@pytest.mark.parametrize(
    "server",
    [Server("", 503), Server("", 429), Server("", 302), Server(b"\xff\xfe"), Server(b"x" * 2_000_000)],
    ids=["503", "429", "302", "not text", "too long"],
)
async def test_an_unreachable_server(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """By default a password is accepted, with a warning without its digits; or it is a 503, as configured."""
    with caplog.at_level(logging.WARNING):
        await BreachedPasswords(client=server.client()).check(PASSWORD)
    assert "the list of breached passwords is unreachable" in caplog.text
    assert DIGEST[:5] not in caplog.text
    with pytest.raises(ServiceUnavailable) as refused:
        await BreachedPasswords(unreachable="refuse", client=server.client()).check(PASSWORD)
    assert refused.value.reason == "breaches_unreachable"
    assert refused.value.__cause__ is None


async def test_a_real_server() -> None:
    """A server on this machine that is slow is given up; one that answers is believed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if path.startswith("/slow/"):
            await reader.read()  # until the client leaves
        body = f"{DIGEST[5:]}:1".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    running = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
    with pytest.raises(ValueError, match=BREACHED):
        await BreachedPasswords(f"{url}/range/", timeout_seconds=60).check(PASSWORD)
    with pytest.raises(ServiceUnavailable):
        await BreachedPasswords(f"{url}/slow/", unreachable="refuse", timeout_seconds=0.05).check(PASSWORD)
    running.close()
    await running.wait_closed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://api.example/range/"}, "https"),
        ({"unreachable": "maybe"}, 'unreachable is "allow" or "refuse"'),
        ({"client": httpx2.Client()}, "AsyncClient"),
    ],
)
def test_refused_settings(options: dict[str, Any], message: str) -> None:
    """An URL without https, an unknown setting and a client for threads are refused."""
    with pytest.raises(ConfigurationError, match=message):
        BreachedPasswords(**options)
