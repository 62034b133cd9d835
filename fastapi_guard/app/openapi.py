"""Describe guarded operations in the OpenAPI document: what each needs, and how it is refused."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from http import HTTPStatus
from itertools import product
from typing import Any, Final

from fastapi import FastAPI

from fastapi_guard.app.guards import GuardUse
from fastapi_guard.app.routes import RouteGuards, routes_of
from fastapi_guard.auth import Auth, Guard
from fastapi_guard.exceptions import ConfigurationError

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
            _complete(document, list(routes_of(app)))
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


def _complete(document: dict[str, Any], routes: list[RouteGuards]) -> None:
    refuse_clashes(use.guard for route in routes for use in route.guards)
    for route in routes:
        statuses = {*(_GUARDED if route.guards else ()), *(_THROTTLED if route.is_throttled else ())}
        statuses.update(*(use.statuses for use in route.guards))
        if statuses and route.schema_path:
            for method in route.methods:
                operation = document["paths"].get(route.schema_path, {}).get(method.lower())
                if operation is not None:
                    if any(use.schemes for use in route.guards):
                        operation["security"] = _requirements(operation.get("security", []), route.guards)
                        _define(document, route.guards)
                    for status in sorted(statuses):
                        operation["responses"].setdefault(str(status), _response(status))
                    schemas = document.setdefault("components", {}).setdefault("schemas", {})
                    schemas.setdefault(_SCHEMA_NAME, deepcopy(_SCHEMA))


def _requirements(listed: list[dict[str, list[str]]], guards: Sequence[GuardUse]) -> list[dict[str, list[str]]]:
    # FastAPI lists each scheme as an alternative of its own, while all its dependencies must pass.
    scopes = {name: scopes for requirement in listed for name, scopes in requirement.items()}
    choices: dict[Auth[Any], list[frozenset[str]]] = {}
    for use in sorted(guards, key=lambda use: use.guard.optional):  # no guard waives what another requires
        for name in use.schemes:  # FastAPI does not know those of an AnyAuth
            scopes[name] = list(dict.fromkeys([*scopes.get(name, ()), *use.scopes]))
        any_of = [frozenset({name}) for name in use.schemes] or [frozenset()]
        found = choices.setdefault(use.guard.auth, [*any_of, frozenset()] if use.guard.optional else any_of)
        if not use.guard.optional:  # an AnyAuth may be narrowed to some of its members
            choices[use.guard.auth] = [names for names in found if names in any_of] or found
    others = frozenset(scopes).difference(*(use.schemes for use in guards))
    alternatives = dict.fromkeys(others.union(*chosen) for chosen in product(*choices.values()))
    return [{name: scopes[name] for name in scopes if name in names} for names in alternatives]


def _define(document: dict[str, Any], guards: Sequence[GuardUse]) -> None:
    definitions = document.setdefault("components", {}).setdefault("securitySchemes", {})
    for scheme in (scheme for use in guards for scheme in use.guard.schemes):
        definitions.setdefault(
            scheme.scheme_name, scheme.model.model_dump(mode="json", by_alias=True, exclude_none=True)
        )


def _response(status: int) -> dict[str, Any]:
    if status not in _HEADERS:  # the 404 of an owner's guard is FastAPI's own
        return {"description": HTTPStatus(status).phrase}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": {_HEADERS[status]: {"schema": {"type": "string"}}},
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{_SCHEMA_NAME}"}}},
    }
