"""List every way into an application, with the guards before it.

The guards are read from the dependency trees that FastAPI resolves. The checks of ``configure_app``, the audit and the
OpenAPI document are made of this list.
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from types import CodeType
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.exception_handlers import http_exception_handler
from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute, RouteContext
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Host, Mount, Router, WebSocketRoute

from fastapi_guard.app.asgi import AROUND, Guarded, is_documentation, overrides, responds_itself
from fastapi_guard.app.guards import GuardUse, early_in, guards_in, guards_of, is_throttled, parts_in
from fastapi_guard.app.hidden import reaches
from fastapi_guard.app.lifespans import behind_middleware
from fastapi_guard.app.lost_guards import misconfigured, mistakes_in, never_run
from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.schemes.bearer import METADATA_MARK

UNMATCHED = "/{unmatched:path}"  # the paths that no route has: what answers there is a way in too


async def _endpoint() -> None:
    """Stand for an endpoint."""


# The functions in the attribute app of FastAPI's routes, which resolve the dependencies.
_RESOLVING: Final = {kind("/", _endpoint).app.__code__ for kind in (APIRoute, APIWebSocketRoute)}
# The function that a handler of FastAPI is; one of the application has to call it.
_HANDLING: Final[CodeType] = APIRoute("/", _endpoint).get_route_handler().__code__


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
        applications: The application, and those that are mounted on it.
    """

    def __init__(self, app: FastAPI) -> None:
        """List the ways into ``app``."""
        self._app = app
        self._seen: list[tuple[Router, Starlette | None, list[object]]] = []
        self._open: set[int] = set()
        self._uses: dict[int, tuple[GuardUse, ...]] = {}
        self.documentation: set[str] = set()
        self.guarded: list[tuple[str, Guarded]] = []
        self.host_params: set[str] = set()
        self.tools: list[tuple[str, str, tuple[GuardUse, ...]]] = []
        self.applications: list[Starlette] = []
        self.ways: tuple[RouteGuards, ...] = tuple(self._application(app, _Around(guards=getattr(app, AROUND, ()))))

    def have_changed(self) -> bool:
        """Return whether a route was added or removed since."""
        # At each request: a loop without a generator and a further call is twice as fast.
        for router, app, before in self._seen:
            found = _responding(router, app)
            # By identity: routes that differ in their guards alone are equal.
            if len(found) != len(before) or not all(map(is_, found, before)):
                return True
        return False

    def _application(self, app: Starlette, around: _Around) -> Iterator[RouteGuards]:
        self.applications.append(app)
        yield from _mistaken(misconfigured(app), around)
        yield from self._router(app.router, around, app)
        for status in (404, 405):
            handler = _handler_of(app, status)
            if handler is not None:
                yield _fallback(handler, f"the handler of {status}", around)
        if app is self._app and responds_itself(app):
            found = RouteGuards("/{any:path}", ("ANY",), around.guards, None, parts=around.parts)
            yield found._replace(answers=f"{type(app).__name__} itself")

    def _router(self, router: Router, around: _Around, app: Starlette | None = None) -> Iterator[RouteGuards]:
        if id(router) in self._open:
            return  # mounted within itself: more guards may run there, and never fewer
        self._open.add(id(router))
        # The handlers of the outermost application are fixed once it runs, those of others at their first request.
        self._watch(router, None if app is self._app else app)
        written = self._guards_of(getattr(router, "dependencies", ()))
        for route in router.routes:
            yield from self._route(route, around, written, app)
        if isinstance(router, APIRouter):
            # FastAPI tries these after all others, and lists them nowhere in public.
            for candidate in router._iter_low_priority_routes():  # noqa: SLF001
                yield from self._frontends(candidate, around, written)
        if getattr(router.default, "__func__", None) is not Router.not_found:
            yield _fallback(router.default, "the default of the router", around)
        self._open.discard(id(router))

    def _frontends(self, candidate: Any, around: _Around, written: tuple[GuardUse, ...]) -> Iterator[RouteGuards]:
        group = getattr(candidate, "original_route", candidate)
        prefix = around.prefix + getattr(candidate, "frontend_prefix", "")
        dependant: Dependant = candidate.dependant
        guards = (*around.guards, *guards_in(dependant))
        wanted = (*written, *self._guards_of(candidate.dependencies))
        for route in group.routes:
            found = RouteGuards(prefix + route.path, ("GET",), guards, None, mistakes_in(dependant, wanted, guards))
            found = found._replace(bypassed=_names(around.written), is_mounted=around.is_mounted)
            yield found._replace(parts=(*around.parts, *parts_in(dependant)))

    def _add_tools(self, path: str, app: object) -> None:
        guards: Mapping[str, Guarded] = getattr(app, "tool_guards", {})
        self.tools += [(path or "/", name, guard.uses) for name, guard in guards.items()]

    def _watch(self, router: Router, app: Starlette | None = None) -> None:
        self._seen.append((router, app, _responding(router, app)))

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
        written = (*written, *self._guards_of((*included.dependencies, *router.dependencies)))
        if overrides(router, "matches", "handle"):
            yield _unknown(around, included.prefix + router.prefix)
        for candidate in route.effective_candidates():
            if hasattr(candidate, "include_context"):
                yield from self._route(candidate, around, written, None)
            else:
                yield from self._of(RouteContext(candidate.original_route, candidate), around, written, None)

    def _of(
        self, context: RouteContext, around: _Around, written: tuple[GuardUse, ...], app: Starlette | None
    ) -> Iterator[RouteGuards]:
        original = context.original_route
        if isinstance(original, Mount | Host):
            if overrides(original, "handle"):
                yield _unknown(around, context.path or "")
            prefix = around.prefix + (context.path or "")
            self.host_params.update(original.param_convertors if isinstance(original, Host) else ())
            inner = around._replace(prefix=prefix, written=(*around.written, *written), is_mounted=True)
            host = original.host if isinstance(original, Host) else None
            # Below the prefix of an include, for a host too.
            yield from (way._replace(host=way.host or host) for way in self._mounted(context.app, inner))
            return
        if isinstance(original, APIRoute | APIWebSocketRoute) and not _resolves(original, context.app):
            written = (*written, *guards_in(context.dependant))
            answers = f"a handler of {type(original).__name__} without FastAPI's" if _is_own(original) else None
            # Whether they run is unknown: it may respond by itself.
            for way in self._foreign(context, around, written, app):
                yield way._replace(mistakes=(), answers=answers)
            return
        if not isinstance(original, APIRoute | APIWebSocketRoute):
            yield from self._foreign(context, around, written, app)
            return
        dependant: Dependant = context.dependant
        guards = (*around.guards, *guards_in(dependant))
        wanted = (*written, *self._guards_of(getattr(context, "dependencies", ())))
        described = not around.is_mounted and isinstance(original, APIRoute) and context.include_in_schema
        yield RouteGuards(
            around.prefix + (context.path or ""),
            _methods(context),
            guards,
            context.path_format if described else None,
            mistakes_in(dependant, wanted, guards),
            is_throttled(dependant),
            () if any(use.is_effective for use in around.guards) else _early(original, dependant, guards),
            _names(around.written),
            around.is_mounted,
            parts=(*around.parts, *parts_in(dependant)),
        )

    def _foreign(
        self, context: RouteContext, around: _Around, written: tuple[GuardUse, ...], app: Starlette | None
    ) -> Iterator[RouteGuards]:
        # Starlette's, or of another kind: FastAPI runs nothing before it.
        route: Any = context.original_route
        inner = None if overrides(route, "handle") else getattr(context, "app", None)
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
        if not isinstance(app, Starlette | Router) or responds_itself(app):
            yield _unknown(around)


def routes_of(app: FastAPI) -> Iterator[RouteGuards]:
    """Yield every way into ``app``, those of included routers and mounted applications too; see ``Routes``."""
    yield from Routes(app).ways


def _names(uses: Iterable[GuardUse]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(use.guard.auth.name for use in uses if not use.guard.optional))


def _resolves(route: object, app: object) -> bool:
    # What is put in the place of the app of a route runs no dependency, unless it is middleware around it.
    app = behind_middleware(app)
    return getattr(app, "__code__", None) in _RESOLVING and (not _is_own(route) or reaches(app, _HANDLING))


def _is_own(route: object) -> bool:
    return isinstance(route, APIRoute) and overrides(route, "get_route_handler")


def _methods(context: RouteContext) -> tuple[str, ...]:
    if isinstance(context.original_route, WebSocketRoute):
        return ("WEBSOCKET",)
    methods = context.methods
    return tuple(sorted(methods)) if methods else ("ANY",)


def _early(route: object, dependant: Dependant, guards: Iterable[GuardUse]) -> tuple[str, ...]:
    # A class of the application's own may respond before FastAPI resolves anything.
    is_own = overrides(route, "handle", "get_route_handler") and any(use.is_effective for use in guards)
    return (*((type(route).__name__,) if is_own else ()), *early_in(dependant))


def _responding(router: Router, app: Starlette | None) -> list[object]:
    # All that a router has to respond with, and the handlers of its application; at each request.
    found: list[Any] = [router.default, *router.routes]
    groups: Iterable[Any] = getattr(router, "_low_priority_routes", ())
    for group in groups:
        found += group.routes
    if app is not None:
        found += app.exception_handlers.values()
    return found


def _unknown(around: _Around, path: str = "") -> RouteGuards:
    found = RouteGuards(around.prefix + path or "/", ("MOUNT",), around.guards, None, parts=around.parts)
    return found._replace(bypassed=_names(around.written), is_mounted=True)


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
