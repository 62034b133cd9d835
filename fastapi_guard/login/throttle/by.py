"""The keys that requests count for: an address, an account, a subject."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect, HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.login.client import address_of
from fastapi_guard.login.state import issuer_of, owner_of
from fastapi_guard.login.users.names import normalized
from fastapi_guard.stores.arguments import function_of

if TYPE_CHECKING:
    from fastapi_guard.auth import ScopesAuth

# A dependency of FastAPI that returns the key that a request counts for, None for no key.
Key = str | int | UUID
By = Callable[..., Key | Awaitable[Key | None] | None]

_FILLED_WITH_AN_ANNOTATION: Final = ("request", "connection", "websocket", "claims")
_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_MAX_BODY_BYTES: Final = 64 * 1024


def checked_by(by: By) -> By:
    """Return ``by`` if FastAPI can call it as it is meant.

    Raises:
        ConfigurationError: It cannot be called, or has a parameter such as ``request`` without an annotation, which
            FastAPI would read from the query string.
    """
    if isinstance(function_of("by", by, "that returns the key of a request"), type):
        msg = f"by is a function of parameters that FastAPI resolves, not {shown(by)}"
        raise ConfigurationError(msg)
    for name, parameter in signature(by).parameters.items():
        if name in _FILLED_WITH_AN_ANNOTATION and parameter.annotation is Parameter.empty:
            msg = (
                f"by is a dependency of FastAPI, which reads {name} from the query string where it has no annotation:"
                " def by(request: Request) -> str, or by=subject(auth) for claims"
            )
            raise ConfigurationError(msg)
    return by


def client_address(connection: HTTPConnection) -> str:
    """Return the address that the connection comes from, as the server sees it, whatever its header fields are."""
    return address_of(connection)


def account(field: str = "username") -> By:
    """Count for the account that a form or a JSON body names in ``field``.

    Names are normalised as a login does it: white space around them, case and Unicode form do not count. A body of more
    than 64 KiB is a 413 before it is parsed.
    """

    async def by_account(request: Request) -> str | None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind == _FORM:
                # Kept, so that an endpoint can read it too; where the endpoint has a form, FastAPI has read it already.
                with suppress(RuntimeError):
                    await _bounded_body(request)
            # Any other media type may be JSON: an endpoint may accept other names for it than these.
            fields = await request.form() if kind in (_FORM, _MULTIPART) else await _json_of(request)
        except ClientDisconnect:
            raise HTTPException(400, "The body is incomplete") from None
        value = fields.get(field)
        return normalized(value) if isinstance(value, str) else None

    return by_account


def subject(auth: "ScopesAuth") -> By:
    """Count for the ``sub``, and the ``iss`` where there is one, of the claims that ``auth`` verified."""

    async def by_subject(claims: Annotated[Claims, auth.authenticated()]) -> str | None:
        value = claims.get("sub")
        # The same subject of another issuer is another one.
        return owner_of(value, issuer_of(claims)) if isinstance(value, str) else None

    return by_subject


def behind(trusted_proxies: int) -> By:
    """Count for the address of the client behind so many proxies."""

    def client_address_behind_proxies(connection: HTTPConnection) -> str:
        return address_of(connection, trusted_proxies)

    return client_address_behind_proxies


async def _bounded_body(request: Request) -> bytes:
    # As for the routes of a login: to parse and to normalise megabytes would stop every other request for seconds.
    body = await request.body()
    if len(body) > _MAX_BODY_BYTES:
        raise HTTPException(413, "The body is too long")
    return body


async def _json_of(request: Request) -> Mapping[str, object]:
    try:
        body = json.loads(await _bounded_body(request))
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
