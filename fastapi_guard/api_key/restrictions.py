"""Check a request with a valid key: its network, its origin, the rate and the quota of the key."""

import logging
from ipaddress import IPv4Network
from typing import Final

from starlette.requests import HTTPConnection

from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.api_key.limits import RATE_LIMITS, Limits, LimitState, parse_rate
from fastapi_guard.api_key.usage import KeyUsage
from fastapi_guard.exceptions import Forbidden, ServiceUnavailable
from fastapi_guard.schemes.address import Address, Network, address_of, parse_network
from fastapi_guard.stores.bounds import BoundedCache

_KNOWN_NETWORKS: Final = 1024
# The address of no client (RFC 6890).
_NOWHERE: Final = IPv4Network("0.0.0.0/32")

logger: logging.Logger = logging.getLogger("fastapi_guard")


class Restrictions:
    """Checks requests against the restrictions of their keys."""

    def __init__(self, *, trusted_proxies: int, usage: KeyUsage | None) -> None:
        """Find the address of a client behind ``trusted_proxies``; count the requests by ``usage``."""
        self._trusted_proxies = trusted_proxies
        self._usage = usage
        self._networks: BoundedCache[str, Network] = BoundedCache(_KNOWN_NETWORKS)

    async def check(self, connection: HTTPConnection, key: StoredKey) -> Address | None:
        """Check a request with a valid key, and count it; return the address that it comes from, where that is known.

        Raises:
            Forbidden: It comes from another network or another origin.
            TooManyRequests: The rate or the quota of the key is reached.
            ServiceUnavailable: It cannot be counted.
        """
        address = address_of(connection, self._trusted_proxies)
        if key.allowed_networks and not self._is_within(address, key.allowed_networks):
            raise Forbidden(reason="network")
        if key.allowed_origins and not _is_from(connection, key.allowed_origins):
            raise Forbidden(reason="origin")
        if key.is_limited:
            connection.scope.setdefault("state", {})[RATE_LIMITS] = await self.spend(key)
        return address

    async def spend(self, key: StoredKey) -> list[LimitState]:
        """Count one request with a key that has limits.

        Raises:
            TooManyRequests: The rate or the quota of the key is reached.
            ServiceUnavailable: It cannot be counted.
        """
        if self._usage is None:
            logger.error("the API key %s has a rate or a quota: pass usage= to the Auth that verifies it", key.key_id)
            raise ServiceUnavailable(reason="no_usage_store")
        return await self._usage.spend(key.usage_id, limits_of(key))

    def _is_within(self, address: Address | None, networks: list[str]) -> bool:
        return address is not None and any(address in self._network(network) for network in networks)

    def _network(self, text: str) -> Network:
        network = self._networks.get(text)
        if network is None:
            network = network_of(text)
            self._networks.put(text, network)
        return network


def network_of(text: str) -> Network:
    """Return the network in a stored text; one that was edited by hand and cannot be read has no client in it."""
    try:
        return parse_network(text)
    except ValueError:
        return _NOWHERE


def limits_of(key: StoredKey) -> Limits:
    """Return the limits of a key.

    Raises:
        ServiceUnavailable: The rate was edited by hand, and cannot be read.
    """
    try:
        rates = parse_rate(key.rate)
    except ValueError:
        logger.error("the rate of the API key %s cannot be read", key.key_id)  # noqa: TRY400 - the traceback adds nothing
        raise ServiceUnavailable(reason="rate_invalid") from None
    return Limits(rates=rates, quota=key.quota, quota_seconds=key.quota_seconds)


def _is_from(connection: HTTPConnection, origins: list[str]) -> bool:
    sent = connection.headers.getlist("origin")
    return len(sent) == 1 and sent[0] in origins
