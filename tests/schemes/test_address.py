"""The address that a connection comes from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from fastapi_guard.schemes.address import address_of, parse_address, parse_network


def connection(client: str | None, *forwarded: str) -> HTTPConnection:
    """Return a connection from a peer, with these fields X-Forwarded-For."""
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return HTTPConnection({"type": "http", "headers": headers, "client": None if client is None else (client, 4711)})


@pytest.mark.parametrize(
    ("client", "forwarded", "proxies", "address"),
    [
        ("192.0.2.1", [], 0, "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], 0, "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], 1, "198.51.100.7"),
        ("192.0.2.1", ["10.0.0.1, 198.51.100.7"], 1, "198.51.100.7"),
        ("192.0.2.1", ["10.0.0.1,198.51.100.7"], 1, "198.51.100.7"),
        ("192.0.2.1", ["10.0.0.1", "198.51.100.7"], 2, "10.0.0.1"),
        ("192.0.2.1", ["198.51.100.7"], 2, "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7, unknown"], 1, "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7:443"], 1, "198.51.100.7"),
        ("192.0.2.1", ["[2001:db8::1]:443"], 1, "2001:db8::1"),
        ("192.0.2.1", ["[2001:db8::1]]:443"], 1, "2001:db8::1"),
        ("192.0.2.1", ["198.51.100.7:" + "4" * 115], 1, "198.51.100.7"),
        ("192.0.2.1", ["198.51.100.7:" + "4" * 116], 1, "192.0.2.1"),
        ("::ffff:192.0.2.1", [], 0, "192.0.2.1"),
        ("::ffff:192.0.2.1%eth0", [], 0, "192.0.2.1"),
        ("fe80::1%eth0", [], 0, "fe80::1"),
        ("192.0.2.1", ["fe80::1%" + "z" * 100], 1, "fe80::1"),
        ("192.0.2.1", ["198.51.100.7%eth0"], 1, "192.0.2.1"),
        ("testclient", [], 0, None),
        (None, [], 0, None),
        (None, ["198.51.100.7"], 1, "198.51.100.7"),
    ],
)
def test_addresses(client: str | None, forwarded: list[str], proxies: int, address: str | None) -> None:
    """Trusted proxies are counted from the right; without them the field is not read."""
    found = address_of(connection(client, *forwarded), proxies)
    assert (None if found is None else str(found)) == address


def test_no_proxy_is_trusted_by_default() -> None:
    """A client that writes X-Forwarded-For itself stays the client that it is."""
    assert str(address_of(connection("192.0.2.1", "198.51.100.7"))) == "192.0.2.1"


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_networks(text: str, network: str) -> None:
    """A network is in CIDR notation; IPv4 within IPv6 is IPv4, as the addresses are."""
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    "text",
    [
        *("", "192.0.2.1/24", "192.0.2.0/33", "example.com", "192.0.2.0 /24", "2001:db8::1/32"),
        *("fe80::1%eth0", "fe80::%eth0/64"),
    ],
)
def test_texts_that_are_not_networks(text: str) -> None:
    """Bits behind the prefix, a zone, a name and a typo are rejected."""
    with pytest.raises(ValueError, match=r"network|host bits"):
        parse_network(text)


@given(st.text())
def test_any_text(text: str) -> None:
    """Reading an address is total."""
    address = parse_address(text)
    assert address is None or parse_address(str(address)) == address
