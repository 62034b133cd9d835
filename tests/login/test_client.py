"""The client of a login."""

import pytest
from starlette.requests import HTTPConnection

from fastapi_guard.login.client import Client


def connection(agent: bytes | None, client: tuple[str, int] | None = ("192.0.2.1", 1)) -> HTTPConnection:
    """Return a connection with a user agent."""
    headers = [] if agent is None else [(b"user-agent", agent)]
    return HTTPConnection({"type": "http", "client": client, "headers": headers})


def test_nothing_is_known() -> None:
    """Without a connection, an address or a user agent nothing is known of the client."""
    assert Client.of(None) == Client.of(connection(None, None)) == Client() == Client(None, None)


@pytest.mark.parametrize(
    ("agent", "expected"),
    [(b"Mozilla/5.0 (X11)", "Mozilla/5.0 (X11)"), (b"", None), (b"a\x1b[31m\nb", "a[31mb"), (b"x" * 9999, "x" * 256)],
)
def test_agents(agent: bytes, expected: str | None) -> None:
    """A user agent is bounded and printable."""
    assert Client.of(connection(agent)) == Client("192.0.2.1", expected)


def test_addresses() -> None:
    """The address is that of throttles: behind trusted proxies, and of IPv6 the network."""
    scope = {"type": "http", "client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", b"2001:db8::7")]}
    assert Client.of(HTTPConnection(scope), 1) == Client("2001:db8::/64")
