"""The network address that a connection comes from."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError, shown

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# An address with a port and a zone has fewer. A client writes the header fields, and so what is kept.
_LONGEST: Final = 128
_KEPT: Final = 1024


def check_proxies(trusted_proxies: object) -> None:
    """Check a number of trusted proxies.

    Raises:
        ConfigurationError: It is not a whole number from 0 on.
    """
    if type(trusted_proxies) is not int or trusted_proxies < 0:
        msg = f"trusted_proxies is a number of proxies from 0 on, not {shown(trusted_proxies)}"
        raise ConfigurationError(msg)


def address_of(connection: HTTPConnection, trusted_proxies: int = 0) -> Address | None:
    """Return the address of the client; ``None`` where the server names none, as on a Unix socket.

    Args:
        connection: The request or the WebSocket.
        trusted_proxies: How many proxies of the operator stand before the application. Each appends the address that
            it sees to ``X-Forwarded-For``, so the client's is that many from the right, whatever the client wrote
            before it. Where the field has fewer, or no address there, the address is the peer's. With 0 the field is
            not read.
    """
    if trusted_proxies:
        hops = [hop for value in connection.headers.getlist("x-forwarded-for") for hop in value.split(",")]
        if len(hops) >= trusted_proxies:
            forwarded = parse_address(hops[-trusted_proxies].strip())
            if forwarded is not None:
                return forwarded
    peer = connection.client
    return None if peer is None else parse_address(peer.host)


def parse_address(text: str) -> Address | None:
    """Return the address in a text, also behind brackets or before a port; ``None`` where there is none.

    An IPv4 address that is mapped into IPv6 (``::ffff:192.0.2.1``) is the IPv4 address. The zone of an IPv6 address
    (``fe80::1%eth0``) is left out.
    """
    return _parsed(text) if len(text) <= _LONGEST else None


@lru_cache(_KEPT)
def _parsed(text: str) -> Address | None:
    # Some proxies append the port: 192.0.2.1:4711, [2001:db8::1]:4711.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # A zone names an interface of one host, in any text of any length.
        return address.ipv4_mapped or IPv6Address(address.packed)
    return address


def parse_network(text: str) -> Network:
    """Return the network in CIDR notation, such as ``192.0.2.0/24``; an address alone is a network of one.

    Raises:
        ValueError: It is not a network, or has a zone or bits beyond its prefix (``192.0.2.1/24``).
    """
    if "%" in text:
        msg = "a network has no zone, which is not compared"
        raise ValueError(msg)
    network = ip_network(text)
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped) and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
