"""The client of a login: its address and user agent, for throttles, lists of devices and events."""

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from starlette.requests import HTTPConnection

from fastapi_guard.schemes.address import address_of as client_address

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
    """Return the address of the client as text, ``trusted_proxies`` hops before the application.

    Of IPv6 it is the network of 64 bits. An address that cannot be parsed, as of a Unix socket, is returned as it is.
    """
    address = client_address(connection, trusted_proxies)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, _IPV6_HOST_PREFIX), strict=False))
    if address is not None:
        return str(address)
    return UNKNOWN_ADDRESS if connection.client is None else connection.client.host
