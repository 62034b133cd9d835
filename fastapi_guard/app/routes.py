"""Which guards stand before which route, read from the dependency trees that FastAPI resolves.

The audit, and the OpenAPI that tells the truth (``problems``), are made of this.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter, ismethod
from typing import Any, ForwardRef, NamedTuple, get_args

from fastapi import FastAPI, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_typed_signature
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.security.base import SecurityBase
from starlette.routing import BaseRoute, Host, Mount, Route

from fastapi_guard.auth import Auth, Guard
from fastapi_guard.auth.guard import rule_of, statuses_of
from fastapi_guard.auth.placement import PLACED, Placed
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.scopes import Scope


class GuardUse(NamedTuple):
    """One guard in a route's dependency tree.

    Attributes:
        guard: The guard.
        scopes: The scopes that are required of it there.
        schemes: The names under which OpenAPI lists where its credential may come from: several, or none, where its
            scheme is a callable.
        rule: What a dependency around the guard asks for beyond these scopes, in words: "any of a, b", "role editor".
        statuses: With what that dependency answers, beside what a guard does.
    """

    guard: Guard[Any]
    scopes: tuple[str, ...]
    schemes: tuple[str, ...]
    rule: str | None = None
    statuses: frozenset[int] = frozenset()


class RouteGuards(NamedTuple):
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
        """Whether a credential that holds is required: other guards let strangers pass."""
        return any(not use.guard.optional and not use.guard.checks_presence_only for use in self.guards)


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
                () if dependant is None else (*_mistakes(dependant), *_no_scopes(dependant)),
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
            schemes = tuple(dict.fromkeys(_schemes_of(part.call, part)))
            yield GuardUse(part.call, scopes, schemes, rule_of(dependant.call), statuses_of(dependant.call))
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


def _parameters(call: Callable[..., Any]) -> Mapping[str, Parameter]:
    try:
        return get_typed_signature(call).parameters
    except ValueError:  # a builtin such as dict has no signature, nor a guard in it
        return {}


def _mistakes(dependant: Dependant) -> Iterator[str]:
    # What FastAPI overlooks has no effect, and the claims come from the client.
    if dependant.call is not None:  # pragma: no branch - FastAPI builds none without
        yield from _uncalled(dependant.call)
        for name, parameter in _parameters(dependant.call).items():
            if isinstance(parameter.annotation, ForwardRef):
                yield f"the annotation of {name} cannot be evaluated: define the names in it at the top of the module"
            kind, metadata = _annotated(parameter.annotation)
            below = tuple(_below(kind, set()))
            for each in (parameter.default, *metadata, *below):
                yield from _uncalled(each)
            taken = [each for each in metadata if isinstance(each, params.Depends | params.Param | params.Body)][-1:]
            if any(each not in taken and _is_guard(each) for each in metadata):
                yield f"a guard at {name} has no effect: of several in one Annotated[...] FastAPI takes the last"
            nested = any(isinstance(each, params.Depends | Auth | Guard) for each in below)
            if nested or isinstance(parameter.default, Auth | Guard):
                yield f"the guard at {name} has no effect: {PLACED}"
    for part in dependant.dependencies:
        yield from _mistakes(part)


def _no_scopes(dependant: Dependant) -> Iterator[str]:
    # A Security() of the application's own has not been through requires().
    for use in guards_in(dependant):
        for scope in use.scopes:
            try:
                Scope(scope)
            except ConfigurationError as error:
                yield f"{use.guard.auth.name}: {error}"


def _uncalled(each: object) -> Iterator[str]:
    # A method that was not called is a dependency that always passes, or nothing at all.
    if ismethod(each) and isinstance(each.__self__, Auth):
        yield f"{each.__self__.name}.{each.__name__} is not called: write {each.__name__}()"


def _is_guard(each: object) -> bool:
    depends = isinstance(each, params.Depends) and isinstance(each.dependency, Guard)
    return depends or isinstance(each, Placed)


def _annotated(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    # An alias of Python 3.12 stands for its value.
    while hasattr(annotation, "__value__"):
        annotation = annotation.__value__
    metadata: tuple[Any, ...] = getattr(annotation, "__metadata__", ())
    return (annotation.__origin__ if metadata else annotation), metadata


def _below(annotation: Any, seen: set[int]) -> Iterator[object]:
    for part in get_args(annotation):
        kind, metadata = _annotated(part)
        yield from metadata
        if id(kind) not in seen:  # an alias may name itself
            seen.add(id(kind))
            yield from _below(kind, seen)
