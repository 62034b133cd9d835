"""Check the guards of a configured application at startup, and again when its routes have changed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, params
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_guard.app.asgi import guard_documentation, guarded
from fastapi_guard.app.configure import Configuration
from fastapi_guard.app.guards import missing_parameters
from fastapi_guard.app.lifespans import refuse_missed
from fastapi_guard.app.openapi import describe, refuse_clashes
from fastapi_guard.app.problems import answer
from fastapi_guard.app.routes import Routes
from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.auth.guard import NAME_SCOPES
from fastapi_guard.auth.placement import handling_request
from fastapi_guard.events import logger
from fastapi_guard.events.place import ORIGINS
from fastapi_guard.exceptions import AuthError, ConfigurationError
from fastapi_guard.stores.arguments import items_of


def install(app: FastAPI, configuration: Configuration) -> None:
    """Respond with problem details, check the guards before the application serves, and describe them in OpenAPI."""
    app.exception_handlers.setdefault(AuthError, answer)
    _check_before_serving(app, configuration)
    describe(app)


def guards_of_pages(docs: params.Depends | Sequence[params.Depends]) -> tuple[params.Depends, ...]:
    """Return the guards of the pages that FastAPI adds.

    Raises:
        ConfigurationError: One is not a guard that was called, or it reads the body.
    """
    guards = (docs,) if isinstance(docs, params.Depends) else items_of("docs", docs, "of guards")
    if guards:
        guarded(_no_application, *guards)
    return guards


def refuse_missing_parameters(routes: Routes) -> None:
    """Refuse guards of an application that read a parameter which their path does not have.

    Raises:
        ConfigurationError: There is one.
    """
    places = [(mount, mounted.uses) for mount, mounted in routes.guarded]
    places += [(way.path, way.guards) for way in routes.ways]
    missing = [text for path, uses in places for text in missing_parameters(path, uses, routes.host_params)]
    if missing:
        raise ConfigurationError("; ".join(dict.fromkeys(missing)))


class _Checks:
    """The check of an application's guards, at startup and whenever its routes have changed.

    Attributes:
        is_outermost: Whether the server calls the application, so that its paths are whole.
    """

    def __init__(self, app: FastAPI, configuration: Configuration) -> None:
        self._app = app
        self._configuration = configuration
        self._checked: Routes | None = None
        self._warned = False
        self.is_outermost = False

    def run(self) -> None:
        """Check the application, unless that was done and no route has changed since.

        Raises:
            ConfigurationError: Something is not as it should be.
        """
        if self._checked is not None and not self._checked.have_changed():
            return
        self._checked = None
        guard_documentation(self._app, self._configuration.docs)
        routes = Routes(self._app)
        _refuse_lost_guards(routes.ways)
        if self.is_outermost:
            refuse_missing_parameters(routes)
        refuse_clashes(use.guard for way in routes.ways for use in way.guards)
        self._configuration.public.check(routes.ways, routes.documentation)
        open_ways = [way for way in routes.ways if not way.is_guarded and way not in self._configuration.public]
        if self._configuration.unguarded == "refuse":
            _refuse_unguarded(open_ways)
        _refuse_bypassed([way for way in open_ways if way.bypassed and not (way.is_documentation or way.is_metadata)])
        self._warn(routes, open_ways)
        self._checked = routes

    def run_lifespans(self) -> None:
        """Refuse a guarded application, or what is mounted below one, whose lifespan nothing runs.

        Raises:
            ConfigurationError: There is one.
        """
        found = self._checked.guarded if self._checked else []
        refuse_missed(self._app, ((path, mounted.lifespans) for path, mounted in found))

    def _warn(self, routes: Routes, open_ways: Sequence[RouteGuards]) -> None:
        mounted = [way for way in open_ways if way.is_mounted]
        if mounted and not self._warned and any(way.guards for way in routes.ways):
            logger.warning("no guard runs for what is mounted: %s", ", ".join(map(_shown, mounted)))
            self._warned = True


class _Checked:
    """The application behind the check; its middleware is inside."""

    def __init__(self, app: ASGIApp, checks: _Checks, configuration: Configuration) -> None:
        self.app = app
        self._checks = checks
        self._origins = configuration.origins()
        self._name_scopes = configuration.name_scopes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "path_params" not in scope:
            self._checks.is_outermost = True
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        # A mounted application, and one behind a server without a lifespan, is checked at its first request.
        self._checks.run()
        if self._name_scopes is not None:
            scope[NAME_SCOPES] = self._name_scopes
        if self._origins is not None:
            scope[ORIGINS] = self._origins
        token = handling_request.set(True)
        try:
            await self.app(scope, receive, send)
        finally:
            handling_request.reset(token)


def _check_before_serving(app: FastAPI, configuration: Configuration) -> None:
    lifespan = app.router.lifespan_context
    build = app.build_middleware_stack
    checks = _Checks(app, configuration)

    @asynccontextmanager
    async def checked(running: Any) -> AsyncIterator[Any]:
        checks.run()
        async with lifespan(running) as state:
            checks.run()  # once more, if it has added routes
            checks.run_lifespans()
            yield state

    checked.__wrapped__ = lifespan  # type: ignore[attr-defined]  # what is looked at to see whether there is one

    def build_checked() -> ASGIApp:
        return _Checked(build(), checks, configuration)

    app.router.lifespan_context = checked
    app.build_middleware_stack = build_checked  # type: ignore[method-assign]


async def _no_application(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for a page of the documentation, so that its guards are checked early."""


def _refuse_lost_guards(ways: Sequence[RouteGuards]) -> None:
    mistakes = [f"{_shown(way)}: {mistake}" for way in ways for mistake in way.mistakes]
    if mistakes:
        msg = f"guards are written that are not run: {'; '.join(mistakes)}"
        raise ConfigurationError(msg)


def _refuse_unguarded(ways: Sequence[RouteGuards]) -> None:
    if ways:
        listed = ", ".join(f"{_shown(way)}{_weakness(way)}" for way in ways)
        msg = f"no Auth guards {listed}: guard them, or name them in configure_app(app, public={_paths(ways)})"
        raise ConfigurationError(msg)


def _refuse_bypassed(ways: Sequence[RouteGuards]) -> None:
    if ways:
        names = ", ".join(dict.fromkeys(name for way in ways for name in way.bypassed))
        listed = ", ".join(map(_shown, ways))
        msg = (
            f"the guard of {names} around {listed} does not run there, since FastAPI runs dependencies for its own"
            " routes alone: mount guarded(app, ...), guard them apart, or name them in"
            f" configure_app(app, public={_paths(ways)})"
        )
        raise ConfigurationError(msg)


def _shown(way: RouteGuards) -> str:
    methods = "mount" if way.is_mount else "/".join(way.methods)
    return f"{methods} {way.path}" + (f" ({way.answers})" if way.answers else "")


def _paths(ways: Sequence[RouteGuards]) -> list[str]:
    return sorted({way.public_name for way in ways})


def _weakness(way: RouteGuards) -> str:
    for use in way.guards:
        if use.guard.checks_presence_only:
            return f" ({use.guard.auth.name} only checks that a credential is there)"
    return ""
