"""The same-origin rule, for credentials that a browser sends by itself.

A cookie comes along whichever page sent the request. So a request that changes something, and every WebSocket
handshake (which no same-origin policy covers), has to say that it comes from the application's own pages.
"""

import re
from collections.abc import Iterable

from pydantic import AnyUrl
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.hidden import plain

#: An origin as a setting has it.
OriginText = str | AnyUrl

# RFC 9110 9.2.1
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OWN_SITE = frozenset({b"same-origin", b"none"})
# As a browser serialises an origin: lower case, no path, no default port (RFC 6454 6.2).
_ORIGIN = re.compile(r"(?:https(?!.*:443$)|http(?!.*:80$))://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")

# From the root, of visible ASCII without a backslash, not the start of another host's, and no longer than a header.
_PATH = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]{0,2046})?")


def trusted(origins: Iterable[OriginText]) -> frozenset[bytes]:
    """Return the origins as a browser sends them.

    Raises:
        ConfigurationError: One is not spelled as a browser spells it, so it would never match.
    """
    if isinstance(origins, str) or not isinstance(origins, Iterable):
        msg = f"trusted_origins is a list of origins, such as [{origins!r}]"
        raise ConfigurationError(msg)
    listed = tuple(map(plain, origins))
    for origin in listed:
        if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
            msg = (
                f"{origin!r} is not an origin as a browser sends it: scheme and host in lower case, a port only where"
                ' it is not the default, no path, such as "https://app.example"'
            )
            raise ConfigurationError(msg)
    return frozenset(origin.encode("ascii") for origin in listed)


def is_same_origin(connection: HTTPConnection, trusted_origins: frozenset[bytes]) -> bool:
    """Return whether a cookie on this connection may be believed to be sent on purpose.

    On a safe method always; else with ``Sec-Fetch-Site: same-origin`` or ``none``, or with an Origin among the trusted
    ones. Where both fields are missing the client is not a browser. The Host field is the client's own text, and no
    part of the decision.
    """
    scope = connection.scope
    if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
        return True
    sites: list[bytes] = []
    origins: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"sec-fetch-site":
            sites.append(value)
        elif name == b"origin":
            origins.append(value)
    if len(sites) > 1 or len(origins) > 1:
        return False
    if sites and sites[0] in _OWN_SITE:
        return True
    if origins:
        return origins[0] in trusted_origins
    return not sites


def path_within(target: str | None, default: str = "/") -> str:
    """Return ``target`` if it is a path of this origin, else ``default``: where to send a browser after a login.

    A second slash, or a backslash in its place, makes it another host to a browser, which drops tabs and line ends
    before it looks.
    """
    return target if target is not None and _PATH.fullmatch(target) else default
