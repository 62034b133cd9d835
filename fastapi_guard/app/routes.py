"""List every way into an application, with the guards before it.

The guards are read from the dependency trees that FastAPI resolves. The checks of ``configure_app``, the audit and the
OpenAPI document are made of this list.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import FastAPI, params
from fastapi.dependencies.models import Dependant
from fastapi.exception_handlers import http_exception_handler
from fastapi.routing import APIRoute, APIRouter, RouteContext, iter_route_contexts
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute

from fastapi_guard.app.asgi import AROUND, Guarded, guarded, innermost
from fastapi_guard.app.guards import GuardUse, early_in, guards_in, guards_of, is_throttled, parts_in
from fastapi_guard.app.lifespans import behind_middleware
from fastapi_guard.app.lost_guards import ADDED_LATE, are_among, lost_guards, misconfigured, never_run

UNMATCHED = "/{unmatched:path}"  # the paths that no route has: what answers there is a way in too
# The attribute of an endpoint that serves the metadata of a protected resource, which is public (RFC 9728).
METADATA_MARK: Final = "fastapi_guard_metadata"
_OWN_PAGES = frozenset(code for code in FastAPI.setup.__code__.co_consts if hasattr(code, "co_code"))
_KNOWN_CALLS = (Starlette.__call__, FastAPI.__call__, Router.__call__)


class RouteGuards(NamedTuple):
    """A way into an application as a client sees it, and the guards before it.

    Attributes:
        path: The whole path, prefixes and mounts included.
        methods: The methods in upper case, sorted; ``("WEBSOCKET",)``; ``("MOUNT",)`` for a mounted application whose
            routes are not known; ``("ANY",)`` for what answers every method.
        guards: In the order in which they run.
        schema_path: The path in FastAPI's OpenAPI document of the outermost application; ``None``: it is not in there.
        mistakes: Guards that are written and not run, each as a sentence.
        is_throttled: Whether a Throttle stands before it.
        early: The application's dependencies that run before an anonymous caller is refused, by name.
        bypassed: The names of the Auths that guard an application or a router around it, and that do not run for it.
        is_mounted: Whether it belongs to an application that is mounted on another.
        is_documentation: Whether FastAPI itself added it, a page of the documentation or the OpenAPI document.
        is_metadata: Whether it serves the metadata of a protected resource.
        answers: What answers where no route of an application matches, such as "the handler of 404".
        parts: The dependencies that hold its guards, in the order in which FastAPI resolves them.
    """

    path: str
    methods: tuple[str, ...]
    guards: tuple[GuardUse, ...]
    schema_path: str | None
    mistakes: tuple[str, ...] = ()
    is_throttled: bool = False
    early: tuple[str, ...] = ()
    bypassed: tuple[str, ...] = ()
    is_mounted: bool = False
    is_documentation: bool = False
    is_metadata: bool = False
    answers: str | None = None
    parts: tuple[Dependant, ...] = ()

    @property
    def is_guarded(self) -> bool:
        """Whether a valid credential is required: other guards let an anonymous caller pass."""
        return any(use.is_effective for use in self.guards)


class _Around(NamedTuple):
    """The surroundings of a route.

    Attributes:
        prefix: The path of the mounts around it.
        guards: The guards of the mounts around it, which run before it.
        written: The guards of applications around its own, which do not run for it.
        is_mounted: Whether its application is mounted on another, so that its routes are not in the OpenAPI document.
        parts: The dependencies that hold the guards of the mounts around it.
    """

    prefix: str = ""
    guards: tuple[GuardUse, ...] = ()
    written: tuple[GuardUse, ...] = ()
    is_mounted: bool = False
    parts: tuple[Dependant, ...] = ()


class Routes:
    """Every way into an application.

    Attributes:
        ways: One for each route, in the order in which they are tried.
        documentation: The paths of the pages that FastAPI itself serves for the outermost application.
        guarded: The guarded applications that are mounted, each with its path.
        host_params: The parameters of the hosts by which applications are mounted.
        tools: The tools of MCP servers that have guards of their own: path of the mount, name, guards.
    """

    def __init__(self, app: FastAPI) -> None:
        """List the ways into ``app``."""
        self._app = app
        self._seen: list[tuple[Router, list[BaseRoute], object]] = []
        self._uses: dict[int, tuple[GuardUse, ...]] = {}
        self.documentation: set[str] = set()
        self.guarded: list[tuple[str, Guarded]] = []
        self.host_params: set[str] = set()
        self.tools: list[tuple[str, str, tuple[GuardUse, ...]]] = []
        self.ways: tuple[RouteGuards, ...] = tuple(self._application(app, _Around(guards=getattr(app, AROUND, ()))))

    def have_changed(self) -> bool:
        """Return whether a route was added or removed since."""
        return any(router.routes != routes or router.default != default for router, routes, default in self._seen)

    def _application(self, app: Starlette, around: _Around) -> Iterator[RouteGuards]:
        yield from _mistaken(misconfigured(app), around)
        yield from self._router(app.router, around, app)
        for status in (404, 405):
            handler = _handler_of(app, status)
            if handler is not None:
                yield _fallback(handler, f"the handler of {status}", around)

    def _router(self, router: Router, around: _Around, app: Starlette | None = None) -> Iterator[RouteGuards]:
        self._watch(router)
        written = self._guards_of(getattr(router, "dependencies", ()))
        for route in router.routes:
            yield from self._route(route, around, written, app)
        if isinstance(router, APIRouter):
            # FastAPI tries these after all others, and lists them nowhere in public.
            for candidate in router._iter_low_priority_routes():  # noqa: SLF001
                yield from _frontends(candidate, around)
        if getattr(router.default, "__func__", None) is not Router.not_found:
            yield _fallback(router.default, "the default of the router", around)

    def _add_tools(self, path: str, app: object) -> None:
        guards: Mapping[str, Guarded] = getattr(app, "tool_guards", {})
        self.tools += [(path or "/", name, guard.uses) for name, guard in guards.items()]

    def _watch(self, router: Router) -> None:
        self._seen.append((router, list(router.routes), router.default))

    def _guards_of(self, dependencies: Iterable[Any]) -> tuple[GuardUse, ...]:
        uses: list[GuardUse] = []
        for depends in dependencies:
            if id(depends) not in self._uses:
                self._uses[id(depends)] = guards_of(depends)
            uses += self._uses[id(depends)]
        return tuple(uses)

    def _route(
        self, route: Any, around: _Around, written: tuple[GuardUse, ...], app: Starlette | None
    ) -> Iterator[RouteGuards]:
        included = getattr(route, "include_context", None)
        if included is None:
            yield from self._of(RouteContext(route), around, written, app)
            return
        # An included router: FastAPI makes its routes again, with the dependencies of all that is around them.
        router: APIRouter = route.original_router
        self._watch(router)
        written = self._guards_of((*included.dependencies, *router.dependencies))
        for candidate in route.effective_candidates():
            if hasattr(candidate, "include_context"):
                yield from self._route(candidate, around, (), None)
            else:
                yield from self._of(RouteContext(candidate.original_route, candidate), around, written, None)

    def _of(
        self, context: RouteContext, around: _Around, written: tuple[GuardUse, ...], app: Starlette | None
    ) -> Iterator[RouteGuards]:
        original = context.original_route
        if isinstance(original, Mount | Host):
            prefix = around.prefix + (context.path or "")
            self.host_params.update(original.param_convertors if isinstance(original, Host) else ())
            inner = around._replace(prefix=prefix, written=(*around.written, *written), is_mounted=True)
            yield from self._mounted(original.app, inner)
            return
        dependant: Dependant | None = getattr(context, "dependant", None)
        if dependant is None:
            yield from self._foreign(context, around, written, app)
            return
        guards = (*around.guards, *guards_in(dependant))
        wanted = (*written, *self._guards_of(getattr(context, "dependencies", ())))
        described = not around.is_mounted and isinstance(original, APIRoute) and context.include_in_schema
        yield RouteGuards(
            around.prefix + (context.path or ""),
            _methods(context),
            guards,
            context.path_format if described else None,
            (*lost_guards(dependant), *(() if are_among(wanted, guards) else (ADDED_LATE,))),
            is_throttled(dependant),
            () if any(use.is_effective for use in around.guards) else early_in(dependant),
            _names(around.written),
            around.is_mounted,
            parts=(*around.parts, *parts_in(dependant)),
        )

    def _foreign(
        self, context: RouteContext, around: _Around, written: tuple[GuardUse, ...], app: Starlette | None
    ) -> Iterator[RouteGuards]:
        # Starlette's, or of another kind: FastAPI runs nothing before it.
        route: Any = context.original_route
        inner = getattr(context, "app", None)
        guards = (*around.guards, *(inner.uses if isinstance(inner, Guarded) else ()))
        parts = (*around.parts, *(inner.parts if isinstance(inner, Guarded) else ()))
        path = context.path if isinstance(context.path, str) else f"/{{{type(route).__name__}}}"
        is_page = app is not None and is_documentation(route, app)
        if is_page and app is self._app:
            self.documentation.add(path)
            if not guards:
                return
        yield RouteGuards(
            around.prefix + path,
            _methods(context),
            guards,
            None,
            tuple(never_run(context.endpoint)) if context.endpoint is not None else (),
            bypassed=_names((*around.written, *written)),
            is_mounted=around.is_mounted,
            is_documentation=is_page,
            is_metadata=getattr(context.endpoint, METADATA_MARK, False),
            parts=parts,
        )

    def _mounted(self, app: Any, around: _Around) -> Iterator[RouteGuards]:
        app = behind_middleware(app)
        while isinstance(app, Guarded):
            self.guarded.append((around.prefix or "/", app))
            self._add_tools(around.prefix, app)
            yield from _mistaken(app.mistakes(), around)
            around = around._replace(guards=(*around.guards, *app.uses), parts=(*around.parts, *app.parts))
            app = behind_middleware(app.app)
        self._add_tools(around.prefix, app)
        if isinstance(app, Starlette):
            yield from self._application(app, around)
        elif isinstance(app, Router):
            yield from self._router(app, around)
        if not isinstance(app, Starlette | Router) or type(app).__call__ not in _KNOWN_CALLS:
            bypassed = _names(around.written)
            path = around.prefix or "/"
            found = RouteGuards(path, ("MOUNT",), around.guards, None, bypassed=bypassed, is_mounted=True)
            yield found._replace(parts=around.parts)


def routes_of(app: FastAPI) -> Iterator[RouteGuards]:
    """Yield every way into ``app``, those of included routers and mounted applications too.

    Dependencies of an application and of an include count. Those of ``app`` do not run for a mounted application, which
    is judged by its own. FastAPI's own documentation pages of ``app`` are left out.
    """
    yield from Routes(app).ways


def guard_documentation(app: FastAPI, guards: Sequence[params.Depends]) -> None:
    """Put guards before the pages that FastAPI added to ``app`` and to the applications that are mounted on it."""
    if guards:
        _guard_documentation(app, guards)


def _guard_documentation(app: Any, guards: Sequence[params.Depends]) -> None:
    app = innermost(app)
    for route in getattr(app, "routes", ()) if isinstance(app, Starlette | Router) else ():
        for context in iter_route_contexts([route]):
            original: Any = context.original_route
            if isinstance(original, Mount | Host):
                _guard_documentation(original.app, guards)
        if isinstance(app, Starlette) and is_documentation(route, app) and not isinstance(route.app, Guarded):
            route.app = guarded(route.app, *guards)


def is_documentation(route: BaseRoute, app: Starlette) -> bool:
    """Return whether ``route`` is a page that FastAPI itself added to ``app``, and not another at the same path."""
    endpoint: Any = getattr(route, "endpoint", None)
    if type(route) is not Route or getattr(endpoint, "__code__", None) not in _OWN_PAGES:
        return False
    return any(cell.cell_contents is app for cell in endpoint.__closure__ or ()) or not endpoint.__closure__


def _names(uses: Iterable[GuardUse]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(use.guard.auth.name for use in uses if not use.guard.optional))


def _methods(context: RouteContext) -> tuple[str, ...]:
    if isinstance(context.original_route, WebSocketRoute):
        return ("WEBSOCKET",)
    methods = context.methods
    return tuple(sorted(methods)) if methods else ("ANY",)


def _frontends(candidate: Any, around: _Around) -> Iterator[RouteGuards]:
    group = getattr(candidate, "original_route", candidate)
    prefix = around.prefix + getattr(candidate, "frontend_prefix", "")
    dependant: Dependant | None = getattr(candidate, "dependant", None)
    for route in getattr(group, "routes", ()):
        guards = (*around.guards, *guards_in(dependant))
        bypassed = _names(around.written)
        found = RouteGuards(prefix + route.path, ("GET",), guards, None, bypassed=bypassed)
        yield found._replace(is_mounted=around.is_mounted, parts=(*around.parts, *parts_in(dependant)))


def _fallback(answering: object, what: str, around: _Around) -> RouteGuards:
    path, mistakes = around.prefix + UNMATCHED, tuple(never_run(answering))
    found = RouteGuards(path, ("ANY",), around.guards, None, mistakes, is_mounted=around.is_mounted, answers=what)
    return found._replace(parts=around.parts)


def _handler_of(app: Starlette, status: int) -> object | None:
    # As Starlette finds it: by the status, then by the class. Handlers of 500 and Exception are for other errors.
    handlers = app.exception_handlers
    keys = (status, *(kind for kind in HTTPException.__mro__ if kind is not Exception))
    found = next((handlers[key] for key in keys if key in handlers), None)
    return None if found is http_exception_handler else found


def _mistaken(mistakes: Iterable[str], around: _Around) -> Iterator[RouteGuards]:
    found = tuple(dict.fromkeys(mistakes))
    if found:
        yield RouteGuards(around.prefix or "/", ("APPLICATION",), (), None, found)
