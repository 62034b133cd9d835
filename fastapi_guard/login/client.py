"""The client of a login: its address and user agent, for throttles, lists of devices and events."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.requests import HTTPConnection

UNKNOWN_ADDRESS: Final = "unknown"
# One host of IPv6 has every address of its /64 network, so they count as one.
_IPV6_HOST_PREFIX: Final = 64
_MAX_AGENT_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a login.

    Attributes:
        address: The address, of IPv6 the network of 64 bits; ``None`` where it is not known.
        agent: The ``User-Agent``, at most 256 printable characters; ``None`` without one.
    """

    address: str | None = None
    agent: str | None = None

    @classmethod
    def of(cls, connection: HTTPConnection | None, trusted_proxies: int = 0) -> "Client":
        """Return the client of ``connection``; of ``None`` nothing is known."""
        if connection is None:
            return cls()
        address = address_of(connection, trusted_proxies)
        agent = connection.headers.get("user-agent", "")[:_MAX_AGENT_CHARACTERS]
        printable = "".join(character for character in agent if character.isprintable())
        return cls(None if address == UNKNOWN_ADDRESS else address, printable or None)


def address_of(connection: HTTPConnection, trusted_proxies: int = 0) -> str:
    """Return the address of the client, ``trusted_proxies`` hops before the application.

    Each trusted proxy appends the address that it sees to ``X-Forwarded-For``, so the client's is the one that many
    from the right, whatever the client wrote before it. Where the field has fewer, or no address at that position, it
    is the address of the peer.
    """
    peer = UNKNOWN_ADDRESS if connection.client is None else connection.client.host
    address = None
    if trusted_proxies:
        hops = [hop for value in connection.headers.getlist("x-forwarded-for") for hop in value.split(",")]
        if len(hops) >= trusted_proxies:
            address = _parsed(hops[-trusted_proxies].strip())
    return _network(address or _parsed(peer)) or peer


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    # Some proxies append the port: 192.0.2.1:4711, [2001:db8::1]:4711.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(address: IPv4Address | IPv6Address | None) -> str | None:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), _IPV6_HOST_PREFIX), strict=False))
    return None if address is None else str(address)
