"""Which guards stand before which route, read from the dependency trees that FastAPI resolves."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter, ismethod
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_typed_signature
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.security.base import SecurityBase
from starlette.routing import BaseRoute, Host, Mount, Route

from fastapi_guard.auth import Auth, Guard
from fastapi_guard.auth.guard import rule_of


@dataclass(frozen=True, slots=True)
class GuardUse:
    """One guard in a route's dependency tree.

    Attributes:
        guard: The guard.
        scopes: The scopes that are required of it there.
        schemes: The names under which OpenAPI lists where its credential may come from: several, or none, where its
            scheme is a callable.
        rule: What a dependency around the guard asks for beyond these scopes, in words: "any of a, b", "role editor".
    """

    guard: Guard[Any]
    scopes: tuple[str, ...]
    schemes: tuple[str, ...]
    rule: str | None = None


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
        is_throttled: Whether a Throttle stands before it.
        early: The application's dependencies that run before a stranger is refused, by name.
    """

    path: str
    methods: tuple[str, ...]
    guards: tuple[GuardUse, ...]
    schema_path: str | None
    mistakes: tuple[str, ...] = ()
    is_throttled: bool = False
    early: tuple[str, ...] = ()

    @property
    def is_guarded(self) -> bool:
        """Whether a credential is required: an optional guard lets strangers pass."""
        return any(not use.guard.optional for use in self.guards)


def routes_of(app: FastAPI) -> Iterator[RouteGuards]:
    """Yield every route of ``app``, those of included routers and mounted applications too.

    Dependencies of an application and of an include count. Those of ``app`` do not run for a mounted application, which
    is judged by its own. The pages of FastAPI's documentation are left out.
    """
    yield from _routes(app.routes, prefix="", documentation=documentation_of(app), in_schema=True)
    yield from _frontends(app)


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
            inner = documentation_of(mounted) if isinstance(mounted, FastAPI) else frozenset()
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
                dependant is not None and _is_throttled(dependant),
                () if dependant is None else _early(dependant),
            )


def _is_throttled(dependant: Dependant) -> bool:
    # A Throttle is known by its mark: its module needs an extra.
    return getattr(dependant.call, "is_throttle", False) or any(map(_is_throttled, dependant.dependencies))


def _frontends(app: FastAPI) -> Iterator[RouteGuards]:
    # FastAPI tries what app.frontend() serves after all routes, and lists it nowhere in public.
    for candidate in app.router._iter_low_priority_routes():  # noqa: SLF001
        group: Any = getattr(candidate, "original_route", candidate)
        prefix: str = getattr(candidate, "frontend_prefix", "")
        for route in getattr(group, "routes", ()):
            guards = guards_in(getattr(candidate, "dependant", None))
            yield RouteGuards(prefix + route.path, ("GET",), guards, None)


def _methods(context: RouteContext) -> tuple[str, ...]:
    methods = context.methods
    return ("WEBSOCKET",) if methods is None else tuple(sorted(methods))


def documentation_of(app: FastAPI) -> frozenset[str]:
    """Return the paths of the pages that FastAPI adds by itself."""
    pages = (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url)
    return frozenset(page for page in pages if page)


def _uses(dependant: Dependant, inherited: tuple[str, ...]) -> Iterator[GuardUse]:
    # FastAPI hands the scopes of a dependency down to all that it depends on.
    for part in dependant.dependencies:
        own = (*inherited, *(part.parent_oauth_scopes or ()), *(part.own_oauth_scopes or ()))
        scopes = tuple(dict.fromkeys(own))
        if isinstance(part.call, Guard):
            yield GuardUse(
                part.call, scopes, tuple(dict.fromkeys(_schemes_of(part.call, part))), rule_of(dependant.call)
            )
        yield from _uses(part, scopes)


def _schemes_of(guard: Guard[Any], dependant: Dependant) -> Iterator[str]:
    yield from (scheme.scheme_name for scheme in guard.schemes)
    for part in dependant.dependencies:
        if part.name not in guard.ignored:
            yield from _schemes(part)


def _early(dependant: Dependant) -> tuple[str, ...]:
    early: list[str] = []
    for call in _resolved(dependant):
        if isinstance(call, Guard) and not call.optional:
            return tuple(dict.fromkeys(early))
        if not _module_of(call).startswith("fastapi_guard"):
            early.append(getattr(call, "__name__", type(call).__name__))
    return ()


def _resolved(dependant: Dependant) -> Iterator[Any]:
    # What a dependency depends on is resolved before it; below a guard stands only its scheme.
    for part in dependant.dependencies:
        if not isinstance(part.call, Guard):
            yield from _resolved(part)
        yield part.call


def _module_of(call: object) -> str:
    return getattr(call, "__module__", None) or type(call).__module__


def _schemes(dependant: Dependant) -> Iterator[str]:
    if isinstance(dependant.call, SecurityBase):
        yield dependant.call.scheme_name
    for part in dependant.dependencies:
        yield from _schemes(part)


def _parameters(call: Callable[..., Any]) -> Collection[Parameter]:
    try:
        return get_typed_signature(call).parameters.values()
    except ValueError:  # a builtin such as dict has no signature, nor a guard in it
        return ()


def _mistakes(dependant: Dependant) -> Iterator[str]:
    # FastAPI takes a method that was not called for a dependency that always passes, or ignores it in an annotation and
    # reads the claims from the body.
    if dependant.call is not None:  # pragma: no branch - FastAPI builds none without
        parameters = _parameters(dependant.call)
        written = [part for one in parameters for part in (one.default, *getattr(one.annotation, "__metadata__", ()))]
        for each in (dependant.call, *written):
            if ismethod(each) and isinstance(each.__self__, Auth):
                yield f"{each.__self__.name}.{each.__name__} is not called: write {each.__name__}()"
    for part in dependant.dependencies:
        yield from _mistakes(part)
