"""Which URLs are believed: https, or http on this same machine, where nobody is on the way."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi_guard.exceptions import ConfigurationError


def check_url(url: str) -> str:
    """Return ``url`` if what comes from it, such as a key, may be believed.

    Raises:
        ConfigurationError: It is neither https nor http on this same machine, or has a user or a fragment.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except (ValueError, TypeError, AttributeError):
        msg = f"{url!r} is not a URL"
        raise ConfigurationError(msg) from None
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
        msg = f"{url!r} is not an https URL: what anyone on the way could change is worth nothing"
        raise ConfigurationError(msg)
    if parts.username is not None or parts.fragment:
        msg = f"the URL at {parts.hostname} has a user or a fragment: leave these out"
        raise ConfigurationError(msg)
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
