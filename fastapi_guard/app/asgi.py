"""guarded: an ASGI application behind guards, for what FastAPI's dependencies do not reach, such as a mount."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

from fastapi import FastAPI, Response, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_parameterless_sub_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.routing import iter_route_contexts
from fastapi.security import SecurityScopes
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_guard.app.guards import GuardUse, body_fields_in, guards_in, parts_in
from fastapi_guard.app.lifespans import Lifespans, behind_middleware
from fastapi_guard.app.lost_guards import lost_guards
from fastapi_guard.callables import accepts
from fastapi_guard.exceptions import ConfigurationError, shown

# Where FastAPI keeps the exit stacks of a request, which solve_dependencies needs.
_STACKS: Final = ("fastapi_inner_astack", "fastapi_function_astack")
_REMEDY: Final = "write guarded(app, auth.requires('files:read')), with the application first and each guard called"
# Where an application keeps the guards of the mount around it, for its OpenAPI document.
AROUND: Final = "fastapi_guard_around"
# The functions of the pages that FastAPI itself adds.
_OWN_PAGES: Final = frozenset(code for code in FastAPI.setup.__code__.co_consts if hasattr(code, "co_code"))
# Ours too: GuardedRoute is a guard itself.
_FRAMEWORKS: Final = ("starlette.", "fastapi.", "fastapi_guard.")
# The packages of MCP servers, whose sessions have owners.
MCP_PACKAGES: Final = ("mcp.", "fastmcp.")


class Guarded:
    """An ASGI application behind guards; see ``guarded``.

    Attributes:
        app: The application.
        uses: The guards before it.
        parts: The dependencies that hold these guards.
        lifespans: The lifespan of the application, and those of what is mounted on it.
    """

    def __init__(
        self, app: ASGIApp, guards: Sequence[params.Depends], within: Callable[[ASGIApp], ASGIApp] | None = None
    ) -> None:
        """Run ``guards`` before ``app``.

        Args:
            app: The application.
            guards: The guards.
            within: Wraps the application behind the guards; by default an MCP server in what names its sessions' owner.

        Raises:
            ConfigurationError: See ``guarded``.
        """
        self.app: ASGIApp = application_of(app)
        within = owned_sessions if within is None and is_mcp_server(app) else within
        self._inner = app if within is None else within(app)
        self._dependant = Dependant(dependencies=[_dependant_of(guard) for guard in guards])
        self.uses: tuple[GuardUse, ...] = guards_in(self._dependant)
        self.parts: tuple[Dependant, ...] = parts_in(self._dependant)
        if not self.uses:
            msg = f"guarded() takes guards: {_REMEDY}"
            raise ConfigurationError(msg)
        if fields := body_fields_in(self._dependant):
            msg = f"a guard of a mount reads no body, which is for the application below it: {', '.join(fields)}"
            raise ConfigurationError(msg)
        # Guards that need the connection alone are called as they are, without FastAPI's solver.
        flat = {id(use.guard) for use in self.uses if use.guard.is_flat}
        self._flat = all(id(part.call) in flat for part in self._dependant.dependencies)
        self.lifespans: Lifespans = Lifespans(app)
        below = innermost(app)
        if isinstance(below, FastAPI):
            setattr(below, AROUND, (*getattr(below, AROUND, ()), *self.uses))

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """The routes of the application, by which ``url_for`` finds their names: ``request.url_for("admin:list")``."""
        routes: Sequence[BaseRoute] = getattr(self.app, "routes", None) or ()
        return routes

    @property
    def tool_guards(self) -> Mapping[str, "Guarded"]:
        """The guards of the tools of an MCP server, by name; empty for any other application."""
        found: Mapping[str, Guarded] = getattr(self._inner, "tool_guards", {})
        return found

    def mistakes(self) -> Iterator[str]:
        """Yield what is wrong with guards that are written in its guards, or in those of its tools, and not run."""
        yield from lost_guards(self._dependant)
        for guarded_tool in self.tool_guards.values():
            yield from guarded_tool.mistakes()

    def lifespan(self, _: object = None) -> AbstractAsyncContextManager[Mapping[str, Any] | None]:
        """Run the lifespan of the application, for that of the outer one: ``FastAPI(lifespan=mounted.lifespan)``.

        The lifespans of what is mounted on the application are run too, unless its own runs them.
        """
        return self.lifespans.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a WebSocket on where the guards admit it.

        Raises:
            HTTPException: A guard refuses it, for the handlers of the outer application.
        """
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif "app" in scope:
            await self.admit(scope, receive, send)
        else:
            # Outside of any application nothing else responds to a refusal.
            await ExceptionMiddleware(self.admit)(scope, receive, send)

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on where the guards admit it, within an application that responds to refusals.

        Raises:
            HTTPException: A guard refuses it.
        """
        connection = _connection(scope, receive, send)
        provider = _overridable(scope.get("app"))
        async with AsyncExitStack() as stack:
            if self._flat and provider is None:
                for part in self._dependant.dependencies:
                    call: Any = part.call
                    await call(connection, SecurityScopes(part.own_oauth_scopes))
            else:
                send = await self._solve(connection, provider, stack, send)
            if self.lifespans.state:
                scope["state"] = {**self.lifespans.state, **scope.get("state", {})}
            await self._inner(scope, receive, send)

    async def _solve(self, connection: Any, provider: object, stack: AsyncExitStack, send: Send) -> Send:
        scope = connection.scope
        before = {name: scope[name] for name in _STACKS if name in scope}
        scope.update(dict.fromkeys(_STACKS, stack))
        try:
            solved = await solve_dependencies(
                request=connection,
                dependant=self._dependant,
                dependency_overrides_provider=provider,
                async_exit_stack=stack,
                embed_body_fields=False,
            )
        finally:
            for name in _STACKS:
                del scope[name]
            scope.update(before)
        if solved.errors:
            kind = WebSocketRequestValidationError if isinstance(connection, WebSocket) else RequestValidationError
            raise kind(solved.errors)
        if solved.background_tasks is not None:
            stack.push_async_callback(solved.background_tasks)
        return _with_headers(send, solved.response)


def guarded(app: ASGIApp, *guards: params.Depends) -> Guarded:
    """Return an ASGI application that runs guards before ``app``.

    ::

        api.mount("/files", guarded(StaticFiles(directory="files"), auth.requires("files:read")))

    Every path and method, and every WebSocket, is refused as a route refuses it before ``app`` sees it. Guards inside
    verify nothing again. The body is not read, and a response is streamed as it is. A session of an MCP server belongs
    to the caller that began it; ``fastapi_guard.app.mcp.guarded_mcp`` guards its tools too.

    Args:
        app: An ASGI application: StaticFiles, a FastAPI or Starlette application, one of another framework. Its
            lifespan is not run by a mount, nor are those of what is mounted on it; pass ``lifespan`` of what is
            returned, which runs them all, to the outer application.
        guards: As for ``dependencies=[...]``: all have to pass.

    Raises:
        ConfigurationError: ``app`` is not callable, there is no guard, one is not a guard that was called, or it reads
            the body.
    """
    return Guarded(app, guards)


def application_of(app: ASGIApp) -> ASGIApp:
    """Return ``app`` if it can be called as an ASGI application is.

    Raises:
        ConfigurationError: It cannot, such as the class of an application, or an endpoint.
    """
    # A class whose instances are awaited is one, such as Starlette's HTTPEndpoint.
    is_one = callable(app) and (not isinstance(app, type) or hasattr(app, "__await__"))
    if not is_one or not accepts(app, 3):
        msg = f"app: guarded() takes an ASGI application, such as StaticFiles(directory=...), not {shown(app)}"
        raise ConfigurationError(msg)
    return app


def innermost(app: Any) -> Any:
    """Return the application behind all middleware and guards."""
    app = behind_middleware(app)
    while isinstance(app, Guarded):
        app = behind_middleware(app.app)
    return app


def overrides(part: object, *names: str) -> bool:
    """Return whether a class of the application's own defines one of these methods of a framework's class."""
    methods = (getattr(type(part), name, None) for name in names)
    return any(not method.__module__.startswith(_FRAMEWORKS) for method in methods if method is not None)


def responds_itself(app: Starlette | Router) -> bool:
    """Return whether a class of the application's own responds for an application or a router that is mounted."""
    router = app.router if isinstance(app, Starlette) else app
    return overrides(app, "__call__", "build_middleware_stack") or overrides(router, "__call__", "app")


def is_mcp_server(app: object) -> bool:
    """Return whether an application is, or has, one of the MCP SDK or of FastMCP, whose sessions have owners."""
    below = behind_middleware(app)
    for route in below.routes if isinstance(below, Starlette) else ():
        endpoint: Any = getattr(route, "endpoint", None)
        if endpoint is None:
            endpoint = behind_middleware(getattr(route, "app", None))
        if str(getattr(endpoint, "__module__", "")).startswith(MCP_PACKAGES) or is_mcp_server(endpoint):
            return True
    return False


def owned_sessions(app: ASGIApp) -> ASGIApp:
    """Return an MCP server to which the caller of each request is named; needs the extra ``mcp``."""
    from fastapi_guard.app.mcp_sessions import OwnedSessions  # noqa: PLC0415 - needs an extra

    return OwnedSessions(app)


def guard_documentation(app: FastAPI, guards: Sequence[params.Depends]) -> None:
    """Put guards before the pages that FastAPI added to ``app`` and to the applications that are mounted on it."""
    if guards:
        _guard_documentation(app, guards, set())


def _guard_documentation(app: Any, guards: Sequence[params.Depends], seen: set[int]) -> None:
    app = innermost(app)
    if id(app) in seen:
        return  # mounted within itself
    seen.add(id(app))
    for route in getattr(app, "routes", ()) if isinstance(app, Starlette | Router) else ():
        for context in iter_route_contexts([route]):
            original: Any = context.original_route
            if isinstance(original, Mount | Host):
                _guard_documentation(original.app, guards, seen)
        if isinstance(app, Starlette) and is_documentation(route, app) and not isinstance(route.app, Guarded):
            route.app = guarded(route.app, *guards)


def is_documentation(route: BaseRoute, app: Starlette) -> bool:
    """Return whether ``route`` is a page that FastAPI itself added to ``app``, and not another at the same path."""
    endpoint: Any = getattr(route, "endpoint", None)
    if type(route) is not Route or getattr(endpoint, "__code__", None) not in _OWN_PAGES:
        return False
    return any(cell.cell_contents is app for cell in endpoint.__closure__ or ()) or not endpoint.__closure__


def _dependant_of(guard: object) -> Dependant:
    if not isinstance(guard, params.Depends):
        msg = f"guarded() takes guards, not {type(guard).__name__}: {_REMEDY}"
        raise ConfigurationError(msg)
    return get_parameterless_sub_dependant(depends=guard, path="")


def _connection(scope: Scope, receive: Receive, send: Send) -> HTTPConnection:
    if scope["type"] == "websocket":
        return WebSocket(scope, receive, send)
    return Request(scope, receive)


def _overridable(app: object) -> object | None:
    # An application whose tests have put something in place of a dependency.
    return app if getattr(app, "dependency_overrides", None) else None


def _with_headers(send: Send, response: Response) -> Send:
    # A dependency may set header fields, as on a route.
    fields = response.headers.raw
    if not fields:
        return send

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *fields]}
        await send(message)

    return send_with_headers
