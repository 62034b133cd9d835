"""configure_app: problem details for every refusal (RFC 9457), and an OpenAPI document that says what really holds."""

import json
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from copy import deepcopy
from functools import lru_cache
from http import HTTPStatus
from http.client import responses
from itertools import product
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_guard.app.routes import GuardUse, RouteGuards, documentation_of, routes_of
from fastapi_guard.auth import Auth, Guard
from fastapi_guard.exceptions import AuthError, ConfigurationError

PROBLEM_MEDIA_TYPE = "application/problem+json"

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


def configure_app(
    app: FastAPI, *, unguarded: Literal["allow", "refuse"] = "allow", public: Collection[str] = ()
) -> None:
    """Answer refusals as ``application/problem+json``, and make the OpenAPI document of ``app`` true.

    It may be called before or after the routes are added, but before the first request. The OpenAPI document gets 401,
    403 and 503 on exactly the operations that an Auth guards, 404 where it asks for an owner, 429 and 503 on those that
    a Throttle guards; guards that must hold together are one requirement, and ``{}`` stands beside an optional one.

    Args:
        app: The application. Handlers of its own for AuthError and its subclasses keep precedence.
        unguarded: ``refuse`` makes the application fail at startup on a route that no Auth guards. Where its lifespan
            does not run, as for a mounted application, each request fails.
        public: The paths, as written at the route, that may be unguarded. FastAPI's own documentation pages need not
            be named.

    Raises:
        ConfigurationError: ``unguarded`` is neither, or the application has already answered a request. At startup: a
            route is unguarded, ``public`` names a path that no route has, a guard was written without its parentheses,
            or two schemes of one name differ.
    """
    if app.middleware_stack is not None:
        msg = "configure_app() comes too late: call it before the application answers its first request"
        raise ConfigurationError(msg)
    if unguarded not in ("allow", "refuse"):
        msg = f'unguarded is "allow" or "refuse", not {unguarded!r}'
        raise ConfigurationError(msg)
    if isinstance(public, str):
        msg = f"public is a list of paths: [{public!r}]"
        raise ConfigurationError(msg)
    app.exception_handlers.setdefault(AuthError, _answer)
    _check_before_serving(app, frozenset(public) if unguarded == "refuse" else None)
    _describe(app)


class _Problem(Response):
    """Problem details. What Starlette would look for in the headers is known here: a third of what a stranger costs."""

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(self, error: AuthError) -> None:
        """Say what ``error`` says."""
        detail: object = error.detail
        self.status_code = error.status_code
        self.background = None
        self.body, fields = _content(error.status_code, detail if isinstance(detail, str) else None)
        self.raw_headers = [_field(name, value) for name, value in error.headers.items()]
        self.raw_headers += fields


async def _answer(_: Request, error: Exception) -> Response:
    assert isinstance(error, AuthError)  # noqa: S101 - it is registered for these alone
    return _Problem(error)


@lru_cache(maxsize=256)
def _field(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")


@lru_cache(maxsize=256)
def _content(status: int, detail: str | None) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    title = responses.get(status, "Error")
    # It is text (RFC 9457 3.1.4); what else the application has put there is not.
    problem = {"type": "about:blank", "title": title, "status": status, "detail": title if detail is None else detail}
    # In ASCII, since half of a surrogate pair has no UTF-8.
    body = json.dumps(problem, separators=(",", ":")).encode("ascii")
    return body, (_field("Content-Length", str(len(body))), _field("Content-Type", PROBLEM_MEDIA_TYPE))


def _check_before_serving(app: FastAPI, public: frozenset[str] | None) -> None:
    lifespan = app.router.lifespan_context
    build = app.build_middleware_stack

    @asynccontextmanager
    async def checked(running: Any) -> AsyncIterator[Any]:
        _check(app, public)
        async with lifespan(running) as state:
            yield state

    def build_checked() -> ASGIApp:
        stack = build()

        async def first(scope: Scope, receive: Receive, send: Send) -> None:
            # A mounted application, and one behind a server that knows no lifespan, is checked at its first request.
            if scope["type"] != "lifespan":
                _check(app, public)
                app.middleware_stack = stack
            await stack(scope, receive, send)

        return first

    app.router.lifespan_context = checked
    app.build_middleware_stack = build_checked  # type: ignore[method-assign]


def _check(app: FastAPI, public: frozenset[str] | None) -> None:
    routes = list(routes_of(app))
    _refuse_mistakes(routes)
    _refuse_clashes(use.guard for route in routes for use in route.guards)
    if public is not None:
        _refuse_unguarded(routes, public)
        _refuse_unknown(public, {route.path for route in routes} | documentation_of(app))


def _refuse_mistakes(routes: Iterable[RouteGuards]) -> None:
    mistakes = [f"{route.path}: {mistake}" for route in routes for mistake in route.mistakes]
    if mistakes:
        msg = f"what looks like a guard lets everybody pass: {'; '.join(mistakes)}"
        raise ConfigurationError(msg)


def _refuse_unguarded(routes: Sequence[RouteGuards], public: frozenset[str]) -> None:
    bare = [route for route in routes if not route.is_guarded and route.path not in public]
    if bare:
        listed = ", ".join(f"{'/'.join(route.methods) or 'mount'} {route.path}{_weakness(route)}" for route in bare)
        paths = sorted({route.path for route in bare})
        msg = f"no Auth guards {listed}: guard them, or name them in configure_app(app, public={paths})"
        raise ConfigurationError(msg)


def _weakness(route: RouteGuards) -> str:
    for use in route.guards:
        if use.guard.checks_presence_only:
            return f" ({use.guard.auth.name} only checks that a credential is there)"
    return ""


def _refuse_unknown(public: frozenset[str], paths: AbstractSet[str]) -> None:
    unknown = sorted(public - paths)
    if unknown:
        msg = f"public names {', '.join(unknown)}, which no route has: remove it, or correct it"
        raise ConfigurationError(msg)


def _refuse_clashes(guards: Iterable[Guard[Any]]) -> None:
    models: dict[str, Any] = {}
    for scheme in (scheme for guard in guards for scheme in guard.schemes):
        if models.setdefault(scheme.scheme_name, scheme.model) != scheme.model:
            msg = f"two different schemes are called {scheme.scheme_name!r} in OpenAPI: give one another scheme_name"
            raise ConfigurationError(msg)


def _describe(app: FastAPI) -> None:
    generate = app.openapi
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        nonlocal described
        document = generate()
        if document is not described:  # FastAPI hands out the same one until a route is added
            _tell_the_truth(document, list(routes_of(app)))
            described = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _tell_the_truth(document: dict[str, Any], routes: list[RouteGuards]) -> None:
    _refuse_clashes(use.guard for route in routes for use in route.guards)
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
    # FastAPI lists each scheme as an alternative of its own, while its dependencies must all hold.
    scopes = {name: scopes for requirement in listed for name, scopes in requirement.items()}
    choices: dict[Auth[Any], list[frozenset[str]]] = {}
    for use in sorted(guards, key=lambda use: use.guard.optional):  # what one guard requires, no other waives
        for name in use.schemes:  # those of an AnyAuth FastAPI does not know
            scopes[name] = list(dict.fromkeys([*scopes.get(name, ()), *use.scopes]))
        any_of = [frozenset({name}) for name in use.schemes] or [frozenset()]
        found = choices.setdefault(use.guard.auth, [*any_of, frozenset()] if use.guard.optional else any_of)
        if not use.guard.optional:  # an AnyAuth may be narrowed to some of its members
            choices[use.guard.auth] = [each for each in found if each in any_of] or found
    others = frozenset(scopes).difference(*(use.schemes for use in guards))
    alternatives = dict.fromkeys(others.union(*chosen) for chosen in product(*choices.values()))
    return [{name: scopes[name] for name in scopes if name in each} for each in alternatives]


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
