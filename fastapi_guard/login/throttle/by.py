"""Whom a request counts for: an address, an account, a subject."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Request
from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.login.users.names import normalized

if TYPE_CHECKING:
    from fastapi_guard.auth import ScopesAuth

# A dependency of FastAPI that says whom a request counts for; None for nobody.
By = Callable[..., str | Awaitable[str | None] | None]

_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_UNKNOWN_ADDRESS: Final = "unknown"
# An IPv6 host has the whole of its network's addresses to itself, so they count as one.
_IPV6_HOST_PREFIX: Final = 64


def client_address(connection: HTTPConnection) -> str:
    """Return the address that the connection comes from: what the server saw, no header."""
    return address_of(connection)


def account(field: str = "username") -> By:
    """Count for the account that a form or a JSON body names in ``field``.

    Names count as one that differ in case, in white space around them, or in their Unicode form.
    """

    async def by_account(request: Request) -> str | None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == _FORM:
            # Kept, so that an endpoint can read it too; where the endpoint has a form, FastAPI has read it already.
            with suppress(RuntimeError):
                await request.body()
        # What is no form may be JSON, whatever it is called: an endpoint may take other names for it than these.
        fields = await request.form() if kind in (_FORM, _MULTIPART) else await _json_of(request)
        value = fields.get(field)
        return normalized(value) if isinstance(value, str) else None

    return by_account


def subject(auth: "ScopesAuth") -> By:
    """Count for the ``sub`` of the claims that ``auth`` verified."""

    async def by_subject(claims: Annotated[Claims, auth.authenticated()]) -> str | None:
        value = claims.get("sub")
        return value if isinstance(value, str) else None

    return by_subject


def address_of(connection: HTTPConnection, trusted_proxies: int = 0) -> str:
    """Return the address of the client, ``trusted_proxies`` hops before the application.

    Each trusted proxy appends the address that it sees, so the client's is the one that many from the right, whatever
    the client wrote before it. Where the field has fewer, or no address there, it is the address of the peer.
    """
    peer = _UNKNOWN_ADDRESS if connection.client is None else connection.client.host
    address = None
    if trusted_proxies:
        hops = [hop for value in connection.headers.getlist("x-forwarded-for") for hop in value.split(",")]
        if len(hops) >= trusted_proxies:
            address = _parsed(hops[-trusted_proxies].strip())
    return _network(address or _parsed(peer)) or peer


async def _json_of(request: Request) -> Mapping[str, object]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def behind(trusted_proxies: int) -> By:
    """Count for the address that so many proxies stand before."""

    def client_address_behind_proxies(connection: HTTPConnection) -> str:
        return address_of(connection, trusted_proxies)

    return client_address_behind_proxies


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
