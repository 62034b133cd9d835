"""URLs that are safe to fetch keys from: https, and http on this machine or in a private network."""

import logging
import re
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from pydantic import AnyUrl

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.hidden import plain

_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")
logger: logging.Logger = logging.getLogger("fastapi_guard")

# Names that the public DNS does not have, and addresses that no router of the Internet forwards.
_PRIVATE_SUFFIXES: Final = (".internal", ".local", ".localhost", ".svc", ".lan", ".home.arpa")
_PRIVATE_NETWORKS: Final = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def check_url(url: str | AnyUrl, *, private_http: bool = False) -> str:
    """Return ``url`` as text if it is safe to fetch keys from: https, or http on this machine.

    Args:
        url: The URL. It is not repeated in an error, since it may be a secret in the wrong place.
        private_http: Whether http is accepted in a private network too: for host names without a dot or with a suffix
            that is reserved for such networks, and for private addresses.

    Raises:
        ConfigurationError: It is neither, or has a user or a fragment.
    """
    text: str = plain(url)
    try:
        # urlsplit() removes line ends, and a client of HTTP would not.
        parts = urlsplit(text if text.isprintable() and " " not in text else "")
        _ = parts.port
    except (ValueError, TypeError, AttributeError):
        msg = "this is not a URL: pass one such as https://id.example/jwks.json"
        raise ConfigurationError(msg) from None
    host = parts.hostname or ""
    is_near = _is_loopback(host) or (private_http and _is_private(host))
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_near)):
        shown = f"{parts.scheme}://{host}" if parts.scheme and host else "this"
        msg = (
            f"{shown} is not an https URL, such as https://id.example: keys and tokens that anyone on the way can"
            " change are worth nothing"
        )
        raise ConfigurationError(msg)
    if parts.username is not None or parts.fragment:
        msg = f"the URL at {host} has a user or a fragment: leave these out"
        raise ConfigurationError(msg)
    return text


def is_secure(url: str) -> bool:
    """Return whether ``url`` is safe to send a browser to with a secret: https, or http on this machine."""
    try:
        check_url(url)
    except ConfigurationError:
        return False
    return True


def warn_about_http(url: str) -> None:
    """Log once, when something is constructed, that ``url`` is fetched without TLS from another machine."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(str(parts.hostname)):
        logger.warning(
            "%s is fetched over http (private_http=True): who is in that network can forge it", without_query(url)
        )


def without_query(url: str) -> str:
    """Return ``url`` as it may be logged: a query may hold a secret."""
    return url.partition("?")[0]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_private(host: str) -> bool:
    if not host.isascii():  # a digit of another script could be one of an address
        return False
    try:
        address = ip_address(host)
    except ValueError:
        # A number without dots is an address of any network (inet_aton), not a name.
        is_number = _NUMBER.fullmatch(host) is not None
        return ("." not in host and not is_number) or host.endswith(_PRIVATE_SUFFIXES)
    return any(address in network for network in _PRIVATE_NETWORKS)
