"""Which guards stand before which route, read from the dependency trees that FastAPI resolves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import ismethod
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_typed_signature
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.security.base import SecurityBase
from starlette.routing import BaseRoute, Host, Mount, Route

from fastapi_guard.auth import Auth, Guard


@dataclass(frozen=True, slots=True)
class GuardUse:
    """One guard in a route's dependency tree.

    Attributes:
        guard: The guard.
        scopes: The scopes that are required of it there.
        schemes: The names under which OpenAPI lists where its credential may come from: several, or none, where its
            scheme is a callable.
    """

    guard: Guard[Any]
    scopes: tuple[str, ...]
    schemes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteGuards:
    """A route as a client sees it, and the guards before it.

    Attributes:
        path: The whole path, prefixes and mounts included.
        methods: The methods in upper case, sorted; ``("WEBSOCKET",)`` for a WebSocket, empty for a mounted application
            that cannot be looked into.
        guards: In the order in which FastAPI resolves them.
        schema_path: The path in FastAPI's OpenAPI document of the outermost application; ``None``: it is not in there.
        mistakes: What was meant as a guard and is none, each as a sentence.
    """

    path: str
    methods: tuple[str, ...]
    guards: tuple[GuardUse, ...]
    schema_path: str | None
    mistakes: tuple[str, ...] = ()

    @property
    def is_guarded(self) -> bool:
        """Whether a credential is required: an optional guard lets strangers pass."""
        return any(not use.guard.optional for use in self.guards)


def routes_of(app: FastAPI) -> Iterator[RouteGuards]:
    """Yield every route of ``app``, those of included routers and mounted applications too.

    Dependencies of an application and of an include count. Those of ``app`` do not run for a mounted application, which
    is judged by its own. The pages of FastAPI's documentation are left out.
    """
    yield from _routes(app.routes, prefix="", documentation=_documentation(app), in_schema=True)


def guards_in(dependant: Dependant | None) -> tuple[GuardUse, ...]:
    """Return the guards in a dependency tree, in the order in which they are resolved."""
    return () if dependant is None else tuple(_uses(dependant, ()))


def _routes(
    routes: Sequence[BaseRoute], *, prefix: str, documentation: frozenset[str], in_schema: bool
) -> Iterator[RouteGuards]:
    for context in iter_route_contexts(routes):
        path = prefix + (context.path or "")
        original = context.original_route
        if isinstance(original, Mount | Host):
            mounted = original.app
            inner = _documentation(mounted) if isinstance(mounted, FastAPI) else frozenset()
            below = getattr(mounted, "routes", None)
            if below:
                yield from _routes(below, prefix=path, documentation=inner, in_schema=False)
            else:
                yield RouteGuards(path, (), (), None)
        elif type(original) is not Route or context.path not in documentation:
            described = in_schema and isinstance(original, APIRoute) and context.include_in_schema
            dependant: Dependant | None = getattr(context, "dependant", None)
            yield RouteGuards(
                path,
                _methods(context),
                guards_in(dependant),
                context.path_format if described else None,
                () if dependant is None else tuple(_mistakes(dependant)),
            )


def _methods(context: RouteContext) -> tuple[str, ...]:
    methods = context.methods
    return ("WEBSOCKET",) if methods is None else tuple(sorted(methods))


def _documentation(app: FastAPI) -> frozenset[str]:
    pages = (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url)
    return frozenset(page for page in pages if page)


def _uses(dependant: Dependant, inherited: tuple[str, ...]) -> Iterator[GuardUse]:
    # FastAPI hands the scopes of a dependency down to all that it depends on.
    for part in dependant.dependencies:
        own = (*inherited, *(part.parent_oauth_scopes or ()), *(part.own_oauth_scopes or ()))
        scopes = tuple(dict.fromkeys(own))
        if isinstance(part.call, Guard):
            yield GuardUse(part.call, scopes, tuple(dict.fromkeys(_schemes_of(part.call, part))))
        yield from _uses(part, scopes)


def _schemes_of(guard: Guard[Any], dependant: Dependant) -> Iterator[str]:
    yield from (scheme.scheme_name for scheme in guard.schemes)
    for part in dependant.dependencies:
        if part.name not in guard.ignored:
            yield from _schemes(part)


def _schemes(dependant: Dependant) -> Iterator[str]:
    if isinstance(dependant.call, SecurityBase):
        yield dependant.call.scheme_name
    for part in dependant.dependencies:
        yield from _schemes(part)


def _mistakes(dependant: Dependant) -> Iterator[str]:
    # FastAPI takes a method that was not called for a dependency that always passes, or ignores it in an annotation and
    # reads the claims from the body.
    if dependant.call is not None:  # pragma: no branch - FastAPI builds none without
        parameters = get_typed_signature(dependant.call).parameters.values()
        written = [part for one in parameters for part in (one.default, *getattr(one.annotation, "__metadata__", ()))]
        for each in (dependant.call, *written):
            if ismethod(each) and isinstance(each.__self__, Auth):
                yield f"{each.__self__.name}.{each.__name__} is not called: write {each.__name__}()"
    for part in dependant.dependencies:
        yield from _mistakes(part)
