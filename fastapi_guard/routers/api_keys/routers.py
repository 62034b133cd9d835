"""Routers with which callers manage API keys, none of which can do more than the credential that creates it.

Needs the extra ``sqlalchemy``.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.auth import ScopesAuth
from fastapi_guard.auth.any_of import members_of
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError, Forbidden, KeyConflict, KeyNotFound, shown
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.routers.api_keys.authority import Lifetimes
from fastapi_guard.routers.api_keys.bodies import CreatedKey, KeyInfo, KeyRequest, LimitInfo, Name, RotationRequest
from fastapi_guard.routers.api_keys.callers import ACCOUNT_NAME, Caller, Callers
from fastapi_guard.routers.api_keys.managed import ManagedKeys, Page
from fastapi_guard.routers.bodies import json_body, model_in
from fastapi_guard.routers.issuers import check_issuers, own_issuer_of
from fastapi_guard.routers.responses import LONGEST_PATH_TEXT, NeverStoredRoute, Responses, never_stored_router
from fastapi_guard.scopes import decide_alike
from fastapi_guard.stores.arguments import check_flags, instance_of, scopes_in

logger: logging.Logger = logging.getLogger("fastapi_guard")

_BODY: Final[Responses] = {
    413: {"description": "The body is too long"},
    415: {"description": "Send application/json"},
    422: {"description": "Unprocessable Content"},
}
_MISSING: Final[Responses] = {404: {"description": "No such API key"}}
_CONFLICT: Final[Responses] = {409: {"description": "It has expired, was revoked, paused or rotated before"}}
_REFUSED: Final[Responses] = {409: {"description": "A constraint of the database is violated"}}
_CONFLICTS: Final = "The API key has expired, was revoked, paused or rotated before"

KeyId = Annotated[str, Path(max_length=LONGEST_PATH_TEXT, description="The id of a key, which is not a secret.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
Account = Annotated[str, Path(pattern=f"^{ACCOUNT_NAME.pattern}$", description="The name of a service account.")]


def api_keys_router(  # noqa: PLR0913 - keywords, each with a default
    keys: DatabaseAPIKeyAuth,
    *,
    auth: ScopesAuth,
    prefix: str = "/api-keys",
    scopes: Sequence[str] = (),
    admin_scope: str = "api-keys:admin",
    tenant_param: str | None = None,
    allow_outliving: bool = False,
    max_lifetime: timedelta | None = None,
    families: RefreshTokens | None = None,
) -> APIRouter:
    """Let callers create, list, get, rotate, pause, resume and revoke their own API keys.

    Owner and tenant of a key are those of the credential: its issuer, subject, ``subject_type`` and tenant. A key has
    no more scopes, no more roles, no ``is_admin``, no other tenant and no later expiry than the credential that creates
    it; one that an API key creates has its networks, origins, environment and limits too, and shares its quota.

    With ``admin_scope`` a caller can list, get, pause, resume and revoke the keys of other owners in the same tenant,
    or in none, whose issuer is the same. Only an owner rotates a key, since the new one acts as the owner.

    Args:
        keys: The Auth of the keys.
        auth: The Auth that guards every route: ``keys`` itself, another, or several: ``jwt | keys``.
        prefix: The path before all paths.
        scopes: The scopes that each caller needs.
        admin_scope: The scope of administrators.
        tenant_param: The parameter of the path that names the tenant, as in ``/tenants/{tenant}/api-keys``: the routes
            are guarded by ``requires_tenant``, and a caller of several tenants can have keys in each.
        allow_outliving: Whether keys may expire later than the credential that creates them, or never.
        max_lifetime: The longest lifetime of a key, which is that of a key without another expiry.
        families: The refresh tokens of the login that ``auth`` belongs to: keys that an access token creates may live
            as long as its login can last, and not just as long as the token.

    Raises:
        ConfigurationError: An argument has the wrong type; ``auth`` has no scopes that a key can be compared with,
            decides them in another way than ``keys``, or ``keys`` reads the tenant from another claim than that of its
            keys.
    """
    _check(keys, auth)
    check_flags(allow_outliving=allow_outliving)
    instance_of("families", families, (RefreshTokens, type(None)), "RefreshTokens or None")
    if allow_outliving:
        logger.warning("api_keys_router: allow_outliving lets API keys live longer than the credential that made them")
    lifetimes = Lifetimes(
        allow_outliving=allow_outliving, longest=_positive("max_lifetime", max_lifetime), families=families
    )
    managed = ManagedKeys(keys=keys, lifetimes=lifetimes)
    callers, required = _callers(keys, auth, admin_scope, tenant_param), scopes_in("scopes", scopes)

    async def caller(connection: HTTPConnection, claims: Annotated[Claims, auth.requires(*required)]) -> Caller:
        return callers.read(connection, claims)

    by = Annotated[Caller, Depends(caller)]
    router = _router(auth, prefix, tenant_param)

    @router.get("", summary="List keys")
    async def list_keys(
        caller: by,
        user_id: Annotated[Name | None, Query(description="The keys of this owner, for administrators.")] = None,
        issuer: Annotated[Name | None, Query(description="The issuer of that owner, by default the caller's.")] = None,
        everyone: Annotated[bool, Query(description="The keys of every owner, for administrators.")] = False,  # noqa: FBT002 - a parameter of the query
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> Sequence[KeyInfo]:
        with _answering(caller):
            page = Page(user_id=user_id, issuer=issuer, everyone=everyone, limit=limit, offset=offset)
            return await managed.list(caller, page)

    _add_routes(router, managed, by)
    return router


def service_accounts_router(
    keys: DatabaseAPIKeyAuth,
    *,
    auth: ScopesAuth,
    prefix: str = "/service-accounts",
    scopes: Sequence[str] = (),
    admin_scope: str = "api-keys:admin",
    tenant_param: str | None = None,
    max_lifetime: timedelta | None = None,
) -> APIRouter:
    """Let administrators manage the API keys of service accounts, which outlive the administrator who created them.

    A service account is a name in a tenant, or in none, and exists as long as it has keys, which are at
    ``/service-accounts/ci/keys``. They have the ``subject_type`` ``service`` and a ``sub`` such as
    ``service:acme/ci``, so they act as no user. A key has no more scopes, roles or rights than the credential that
    creates or rotates it, but its expiry is its own.

    Args:
        keys: The Auth of the keys.
        auth: The Auth that guards every route.
        prefix: The path before all paths.
        scopes: The scopes that each caller needs beside ``admin_scope``.
        admin_scope: The scope of administrators.
        tenant_param: The parameter of the path that names the tenant; see ``api_keys_router``.
        max_lifetime: The longest lifetime of a key, which is that of a key without another expiry.

    Raises:
        ConfigurationError: As for ``api_keys_router``.
    """
    _check(keys, auth)
    managed = ManagedKeys(keys=keys, lifetimes=Lifetimes(longest=_positive("max_lifetime", max_lifetime)))
    callers = _callers(keys, auth, admin_scope, tenant_param)
    required = (*scopes_in("scopes", scopes), callers.admin_scope)

    async def administrator(connection: HTTPConnection, claims: Annotated[Claims, auth.requires(*required)]) -> Caller:
        return callers.read(connection, claims)

    async def of_account(
        account: Account, connection: HTTPConnection, claims: Annotated[Claims, auth.requires(*required)]
    ) -> Caller:
        return callers.read(connection, claims, account)

    router = _router(auth, prefix, tenant_param)

    @router.get("", summary="List the keys of service accounts")
    async def list_accounts(
        caller: Annotated[Caller, Depends(administrator)], limit: Limit = 100, offset: Offset = 0
    ) -> Sequence[KeyInfo]:
        return await managed.list_service_accounts(caller, _page(limit, offset))

    by = Annotated[Caller, Depends(of_account)]
    below = APIRouter(prefix="/{account}/keys", route_class=NeverStoredRoute)

    @below.get("", summary="List the keys of a service account")
    async def list_keys(caller: by, limit: Limit = 100, offset: Offset = 0) -> Sequence[KeyInfo]:
        return await managed.list(caller, _page(limit, offset))

    _add_routes(below, managed, by)
    router.include_router(below)
    return router


def _add_routes(router: APIRouter, managed: ManagedKeys, by: Any) -> None:
    @router.post(
        "",
        status_code=201,
        summary="Create a key",
        responses={**_BODY, **_REFUSED},
        openapi_extra=json_body(KeyRequest),
    )
    async def create(caller: by, request: Request) -> CreatedKey:
        with _answering(caller):
            return await managed.create(caller, await model_in(request, KeyRequest))

    @router.get("/{key_id}", summary="Get a key", responses=_MISSING)
    async def get(caller: by, key_id: KeyId) -> KeyInfo:
        with _answering(caller):
            return await managed.show(caller, key_id)

    @router.get("/{key_id}/usage", summary="Get the rate and the quota of a key as they are now", responses=_MISSING)
    async def usage(caller: by, key_id: KeyId) -> Sequence[LimitInfo]:
        with _answering(caller):
            return await managed.usage(caller, key_id)

    @router.post(
        "/{key_id}/rotate",
        status_code=201,
        summary="Rotate a key",
        responses={**_BODY, **_MISSING, **_CONFLICT},
        openapi_extra=json_body(RotationRequest, required=False),
    )
    async def rotate(caller: by, key_id: KeyId, request: Request) -> CreatedKey:
        with _answering(caller):
            return await managed.rotate(caller, key_id, await model_in(request, RotationRequest, RotationRequest()))

    @router.post("/{key_id}/pause", status_code=204, summary="Pause a key", responses={**_MISSING, **_CONFLICT})
    async def pause(caller: by, key_id: KeyId) -> None:
        with _answering(caller):
            await managed.pause(caller, key_id)

    @router.post("/{key_id}/resume", status_code=204, summary="Resume a key", responses={**_MISSING, **_CONFLICT})
    async def resume(caller: by, key_id: KeyId) -> None:
        with _answering(caller):
            await managed.resume(caller, key_id)

    @router.delete("/{key_id}", status_code=204, summary="Revoke a key", responses=_MISSING)
    async def revoke(caller: by, key_id: KeyId) -> None:
        with _answering(caller):
            await managed.revoke(caller, key_id)


def _callers(keys: DatabaseAPIKeyAuth, auth: ScopesAuth, admin_scope: str, tenant_param: str | None) -> Callers:
    [scope] = scopes_in("admin_scope", [admin_scope])
    return Callers(auth=auth, admin_scope=scope, tenant_param=tenant_param, own_issuer=own_issuer_of(keys, auth))


def _router(auth: ScopesAuth, prefix: str, tenant_param: str | None) -> APIRouter:
    dependencies: list[Any] = []
    if tenant_param is not None:
        if not isinstance(tenant_param, str) or not tenant_param.isidentifier():
            msg = f'tenant_param is the name of a parameter of the path, such as "tenant", not {shown(tenant_param)}'
            raise ConfigurationError(msg)

        async def tenant(_: Annotated[str, Path(alias=tenant_param, description="The tenant of the keys.")]) -> None:
            """Describe the parameter of the path."""

        dependencies += [auth.requires_tenant(tenant_param), Depends(tenant)]
    return never_stored_router(prefix, ["API keys"], *dependencies)


def _check(keys: DatabaseAPIKeyAuth, auth: ScopesAuth) -> None:
    instance_of("keys", keys, DatabaseAPIKeyAuth, "a DatabaseAPIKeyAuth")
    members = members_of(auth)
    # A key has the issuer of its owner: it adds no subjects of its own.
    if len([member for member in members if member is not keys]) > 1:
        check_issuers(auth)
    for member in members:
        if not isinstance(member, ScopesAuth):
            msg = f"auth guards these routes by its scopes: pass a ScopesAuth, such as keys itself, not {shown(member)}"
            raise ConfigurationError(msg)
        if not decide_alike(member.scope_validator, keys.scope_validator):
            msg = (
                "auth and keys decide scopes in two ways, so that a key could do more than its creator:"
                " use one validator"
            )
            raise ConfigurationError(msg)
    if keys.dependency.decision.tenants({"tenant_id": "1"}) != {"1"}:
        msg = "a key has its tenant in the claim tenant_id: keep it first among the tenant_claims of keys"
        raise ConfigurationError(msg)


def _positive(name: str, duration: timedelta | None) -> timedelta | None:
    if duration is not None and (not isinstance(duration, timedelta) or duration <= timedelta()):
        msg = f"{name} is a positive timedelta, such as timedelta(days=90)"
        raise ConfigurationError(msg)
    return duration


def _page(limit: int, offset: int) -> Page:
    return Page(user_id=None, issuer=None, everyone=False, limit=limit, offset=offset)


@contextmanager
def _answering(caller: Caller) -> Iterator[None]:
    try:
        yield
    except Forbidden as error:
        caller.refuse(error)
    except KeyNotFound:
        raise HTTPException(404, "No such API key") from None
    except KeyConflict:
        raise HTTPException(409, _CONFLICTS) from None
    except ValueError as error:
        # In the form that FastAPI documents. The texts are constant.
        raise RequestValidationError([{"type": "value_error", "loc": ("body",), "msg": str(error)}]) from None
