"""Serve the metadata of a protected resource, in which a client finds the authorization server (RFC 9728)."""

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import AnyUrl

from fastapi_guard.auth import Auth
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.schemes import BearerScheme, DPoPScheme
from fastapi_guard.schemes.bearer import METADATA_MARK
from fastapi_guard.stores.arguments import check_numbers, check_texts, instance_of, items_of, scopes_in
from fastapi_guard.stores.hidden import plain

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_URL: Final = re.compile(r"https?://[^/?#\s]+\S*")


def protected_resource_router(
    auth: Auth[Any],
    *,
    resource: str | AnyUrl,
    scopes: Iterable[str] = (),
    authorization_servers: Iterable[str | AnyUrl] | None = None,
    name: str | None = None,
    documentation: str | AnyUrl | None = None,
    max_age_seconds: int = 300,
) -> APIRouter:
    """Serve the metadata of the API that ``auth`` guards, and name it in the challenges of ``auth``.

    The metadata is at ``/.well-known/oauth-protected-resource``, followed by the path of ``resource`` where it has one;
    where that ends in a slash, also without it. Include the router without a prefix in the outermost application: it is
    public there, whatever guards the application has. Nothing in the metadata is read from a request.

    Args:
        auth: The Auth that guards the API; its scheme is a BearerScheme.
        resource: The identifier of the API: the https URL at which clients reach it.
        scopes: The scopes that a client may need.
        authorization_servers: The issuers of tokens for the API; by default those that ``auth`` accepts.
        name: The name of the API for people.
        documentation: The URL of a page for developers.
        max_age_seconds: How long a client may cache the metadata, in seconds.

    Raises:
        ConfigurationError: The resource is not an https URL, the authorization servers are not known, another argument
            has the wrong type, or the challenges of ``auth`` name other metadata already.
    """
    from fastapi_guard.jwt.urls import check_url  # noqa: PLC0415 - only for the few APIs with metadata

    scheme = instance_of("auth", auth, Auth, "an Auth with a BearerScheme").scheme
    if not isinstance(scheme, BearerScheme):
        msg = "protected_resource_router() is for an Auth whose scheme is a BearerScheme"
        raise ConfigurationError(msg)
    if authorization_servers is None:
        # Where keys are configured, an issuer may be a name, at which a client can find nothing.
        servers = [issuer for issuer in getattr(auth, "issuers", ()) if _URL.fullmatch(issuer)]
    else:
        servers = plain([*items_of("authorization_servers", authorization_servers, "of the issuers of tokens")])
    if not servers:
        msg = "name the issuers of tokens: authorization_servers=[...]"
        raise ConfigurationError(msg)
    resource, documentation, name = check_url(resource), plain(documentation), plain(name)
    check_texts(name=name)
    for argument, url in (("documentation", documentation), *(("authorization_servers", server) for server in servers)):
        if url is not None and not (isinstance(url, str) and _URL.fullmatch(url)):
            msg = f"{argument}: the URL of a page or an issuer begins with https://, unlike {shown(url)}"
            raise ConfigurationError(msg)
    check_numbers(max_age_seconds=max_age_seconds)
    origin, path = _split(resource)
    proofs = auth.scheme
    document = {
        "resource": resource,
        "authorization_servers": servers,
        "scopes_supported": [*scopes_in("scopes", scopes)],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(proofs.algorithms) if isinstance(proofs, DPoPScheme) else None,
        "resource_name": name,
        "resource_documentation": documentation,
    }
    answer = {member: value for member, value in document.items() if value}
    # The one change of a scheme after its construction: so that the two cannot name different places.
    scheme.announce(f"{origin}{_WELL_KNOWN}{path}")

    async def metadata(_: Request) -> JSONResponse:
        return JSONResponse(answer, headers={"Cache-Control": f"public, max-age={max_age_seconds}"})

    setattr(metadata, METADATA_MARK, True)
    router = APIRouter()
    # A route of Starlette's: dependencies of an application or of an include, guards among them, do not run for it.
    for known in dict.fromkeys((_WELL_KNOWN + path, _WELL_KNOWN + path.rstrip("/"))):
        router.add_route(known, metadata, methods=["GET"], include_in_schema=False)
    return router


def _split(resource: str) -> tuple[str, str]:
    parts = urlsplit(resource)
    if parts.query:
        msg = f"resource {resource!r} has a query, which an identifier should not have (RFC 9728 1.2)"
        raise ConfigurationError(msg)
    if "{" in parts.path:
        msg = f"resource {resource!r} has a placeholder: each resource has metadata of its own"
        raise ConfigurationError(msg)
    # A slash alone is removed, and one at the end of a path stays (RFC 9728 3.1).
    return f"{parts.scheme}://{parts.netloc}", "" if parts.path == "/" else parts.path
