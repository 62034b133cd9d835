"""Describe guarded operations in the OpenAPI document: what each needs, and how it is refused."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from http import HTTPStatus
from itertools import product
from typing import Any, Final

from fastapi import FastAPI

from fastapi_guard.app.guards import GuardUse, members_of
from fastapi_guard.app.routes import routes_of
from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.auth import Auth, Guard
from fastapi_guard.auth.guard import alternatives_of
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.arguments import check_texts, instance_of, scopes_in

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"

_SCHEMA_NAME = "AuthProblem"
_SCHEMA: dict[str, Any] = {
    "title": _SCHEMA_NAME,
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_HEADERS = {401: "WWW-Authenticate", 403: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
_JWT_KINDS = frozenset(
    {
        ("fastapi_guard.jwt.auth", "JWTAuth"),
        ("fastapi_guard.issuers.multi_oidc", "MultiOIDCAuth"),
        ("fastapi_guard.issuers.auth0", "Auth0"),
    }
)
_GUARDED = (401, 403, 503)
_THROTTLED = (429, 503)


def describe(app: FastAPI) -> None:
    """Complete the OpenAPI document of ``app`` whenever FastAPI generates it."""
    generate = app.openapi
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        nonlocal described
        document = generate()
        if document is not described:  # FastAPI returns the same one until a route is added
            _complete(document, tuple(routes_of(app)))
            described = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def refuse_clashes(guards: Iterable[Guard[Any]]) -> None:
    """Refuse two different schemes of one name.

    Raises:
        ConfigurationError: There are two.
    """
    models: dict[str, Any] = {}
    for scheme in (scheme for guard in guards for scheme in guard.schemes):
        if models.setdefault(scheme.scheme_name, scheme.model) != scheme.model:
            msg = f"two different schemes are called {scheme.scheme_name!r} in OpenAPI: give one another scheme_name"
            raise ConfigurationError(msg)


def _complete(document: dict[str, Any], ways: Sequence[RouteGuards]) -> None:
    refuse_clashes(use.guard for way in ways for use in way.guards)
    for way in ways:
        statuses = {*(_GUARDED if way.guards else ()), *(_THROTTLED if way.is_throttled else ())}
        statuses.update(*(use.statuses for use in way.guards))
        if any(getattr(auth, "counts_usage", False) for use in way.guards for auth in members_of(use.guard)):
            statuses.update(_THROTTLED)
        if statuses and way.schema_path:
            for method in way.methods:
                operation = document["paths"].get(way.schema_path, {}).get(method.lower())
                if operation is not None:
                    _complete_operation(operation, way.guards, statuses)
                    _define(document, way.guards)
    _complete_schemes(document, [use for way in ways if way.schema_path for use in way.guards])


def _complete_operation(operation: dict[str, Any], guards: Sequence[GuardUse], statuses: Iterable[int]) -> None:
    if any(use.schemes for use in guards):
        operation["security"] = _requirements(operation.get("security", []), guards)
    for status in sorted(statuses):
        operation["responses"].setdefault(str(status), _response(status))


def _requirements(listed: list[dict[str, list[str]]], guards: Sequence[GuardUse]) -> list[dict[str, list[str]]]:
    # FastAPI lists each scheme as an alternative of its own, while all its dependencies must pass.
    scopes = {name: scopes for requirement in listed for name, scopes in requirement.items()}
    for use in guards:
        for name in use.schemes:  # FastAPI does not know those of an AnyAuth
            scopes[name] = list(dict.fromkeys([*scopes.get(name, ()), *use.scopes]))
    others = frozenset(scopes).difference(*(use.schemes for use in guards))
    required = [_choices(use) for use in guards if not use.guard.optional]
    # A scheme that is enough for two guards is enough: another one beside it is not needed.
    alternatives = _minimal([others.union(*chosen) for chosen in product(*required)])
    for use in guards:
        if use.guard.optional:
            alternatives = [added for names in alternatives for added in _with_optional(names, _choices(use))]
    return [{name: scopes[name] for name in scopes if name in names} for names in dict.fromkeys(alternatives)]


def _choices(use: GuardUse) -> list[frozenset[str]]:
    return [frozenset({name}) for name in use.schemes] or [frozenset()]


def _minimal(alternatives: list[frozenset[str]]) -> list[frozenset[str]]:
    return [names for names in dict.fromkeys(alternatives) if not any(names > other for other in alternatives)]


def _with_optional(names: frozenset[str], choices: list[frozenset[str]]) -> list[frozenset[str]]:
    # No guard waives what another requires, and what is required is enough for an optional guard too.
    if any(choice <= names for choice in choices):
        return [names]
    return [*(names | choice for choice in choices), names]


def _define(document: dict[str, Any], guards: Sequence[GuardUse]) -> None:
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).setdefault(_SCHEMA_NAME, deepcopy(_SCHEMA))
    definitions = components.setdefault("securitySchemes", {})
    for scheme in (scheme for use in guards for scheme in use.guard.schemes):
        definitions.setdefault(
            scheme.scheme_name, scheme.model.model_dump(mode="json", by_alias=True, exclude_none=True)
        )


def _complete_schemes(document: dict[str, Any], guards: Sequence[GuardUse]) -> None:
    definitions: dict[str, Any] = document.get("components", {}).get("securitySchemes", {})
    for name, definition in definitions.items():
        uses = [use for use in guards if name in use.schemes]
        for flow in definition.get("flows", {}).values():
            described: dict[str, str] = flow.setdefault("scopes", {})
            for scope in sorted({scope for use in uses for scope in (*use.scopes, *alternatives_of(use.rule))}):
                described.setdefault(scope, "")
        auths = [auth for use in uses for auth in members_of(use.guard) if auth.scheme.scheme_name == name]
        is_bearer = definition.get("type") == "http" and definition.get("scheme") == "bearer"
        if is_bearer and auths and all(map(_verifies_jwts, auths)):
            definition.setdefault("bearerFormat", "JWT")


def _verifies_jwts(auth: Auth[Any]) -> bool:
    # By name, since the modules of some need an extra.
    return any((kind.__module__, kind.__name__) in _JWT_KINDS for kind in type(auth).__mro__)


def _response(status: int) -> dict[str, Any]:
    if status not in _HEADERS:  # the 404 of an owner's guard is FastAPI's own
        return {"description": HTTPStatus(status).phrase}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": {_HEADERS[status]: {"schema": {"type": "string"}}},
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{_SCHEMA_NAME}"}}},
    }


def swagger_login(auth: Auth[Any], client_id: str, *, scopes: Iterable[str] = ()) -> dict[str, Any]:
    """Return settings with which the Authorize button of ``/docs`` logs in at the authorization server, with PKCE.

    ::

        app = FastAPI(swagger_ui_init_oauth=swagger_login(auth, "shop-docs", scopes=["items:read"]))

    Args:
        auth: An Auth whose scheme is ``BearerScheme.authorization_code(...)``, or several, one of which has it.
        client_id: The public client, without a secret, that is registered with the redirect URI of the page,
            ``/docs/oauth2-redirect``.
        scopes: The scopes that are ticked at first.

    Raises:
        ConfigurationError: No scheme of ``auth`` has an authorization endpoint, or another argument is malformed.
    """
    instance_of("auth", auth, Auth, "an Auth")
    schemes = [member.scheme for member in getattr(auth, "members", (auth,))]
    flows = [getattr(getattr(scheme.model, "flows", None), "authorizationCode", None) for scheme in schemes]
    if not any(flows):
        msg = f"the scheme of {auth.name} has no authorization endpoint: scheme=BearerScheme.authorization_code(...)"
        raise ConfigurationError(msg)
    check_texts(client_id=instance_of("client_id", client_id, str, "text"))
    return {
        "clientId": client_id,
        "usePkceWithAuthorizationCodeGrant": True,
        "scopes": " ".join(scopes_in("scopes", scopes)),
    }
