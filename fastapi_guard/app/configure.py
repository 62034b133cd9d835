"""configure_app: problem details for refusals (RFC 9457), a check of the guards at startup, a true OpenAPI document."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import FastAPI, params
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_guard.app.asgi import guard_documentation, guarded
from fastapi_guard.app.guards import missing_parameters
from fastapi_guard.app.lifespans import refuse_missed
from fastapi_guard.app.openapi import describe, refuse_clashes
from fastapi_guard.app.problems import answer
from fastapi_guard.app.public_paths import PublicPaths
from fastapi_guard.app.routes import Routes
from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.auth.guard import NAME_SCOPES
from fastapi_guard.auth.placement import handling_request
from fastapi_guard.events import logger
from fastapi_guard.events.place import ORIGINS, Origins
from fastapi_guard.exceptions import AuthError, ConfigurationError
from fastapi_guard.schemes.address import address_of
from fastapi_guard.stores.arguments import check_field_names, instance_of, items_of

# Where an application keeps its configuration.
_ATTRIBUTE: Final = "fastapi_guard_configuration"


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """The arguments of ``configure_app``.

    Attributes:
        unguarded: What happens at startup where a route is unguarded and not public.
        public: The paths that may be unguarded.
        docs: The guards of the pages that FastAPI adds.
        name_scopes: Whether a 401 names the scopes of the route, ``None`` for the default of the scheme.
        trusted_proxies: The number of proxies before the application.
        request_id_header: The header field with the id of a request.
    """

    unguarded: Literal["allow", "refuse"]
    public: PublicPaths
    docs: tuple[params.Depends, ...] = ()
    name_scopes: bool | None = None
    trusted_proxies: int = 0
    request_id_header: str | None = None

    def origins(self) -> Origins | None:
        """Return where events read the client and the id of a request, ``None`` for the peer and no id."""
        if not self.trusted_proxies and self.request_id_header is None:
            return None

        def client_of(connection: HTTPConnection) -> str | None:
            address = address_of(connection, self.trusted_proxies)
            return None if address is None else str(address)

        return Origins(client_of=client_of, request_id_header=self.request_id_header)


def configure_app(
    app: FastAPI,
    *,
    unguarded: Literal["allow", "refuse"] = "allow",
    public: Collection[str] = (),
    docs: params.Depends | Sequence[params.Depends] = (),
    name_scopes: bool | None = None,
    trusted_proxies: int = 0,
    request_id_header: str | None = None,
) -> None:
    """Answer refusals as ``application/problem+json``, check the guards at startup, and complete the OpenAPI document.

    It may be called before or after the routes are added, but before the first request. The application does not start
    with a guard that is written and not run: one in an annotation that FastAPI could not evaluate, inside another type,
    in a default, without its parentheses, or around a mount, for which it does not run. Routes that are added later are
    checked at the next request. The OpenAPI document gets 401, 403 and 503 on exactly the operations that an Auth
    guards, 404 where it requires an owner, 429 and 503 on those that a Throttle guards; guards that must pass together
    are one requirement, and an optional one has ``{}`` as an alternative.

    Args:
        app: The application. Its own handlers for AuthError and its subclasses keep precedence.
        unguarded: ``refuse`` makes the application fail at startup on a route without a guard. Where its lifespan does
            not run, as for a mounted application, each request fails.
        public: The paths that may be unguarded, as written at the route, and prefixes such as ``/pages/*``. FastAPI's
            own documentation pages need not be named.
        docs: The guards of the pages that FastAPI adds, to ``app`` and to applications that are mounted on it:
            ``/docs``, ``/redoc``, ``/openapi.json`` and the redirect page of OAuth, by whatever paths they have.
        name_scopes: Whether the 401 for a request without a credential names the scopes that the route needs (RFC 6750
            3), so that a client requests a sufficient token at once. By default they are named where
            ``protected_resource_router`` is included. Scopes of ``requires_any`` are not named.
        trusted_proxies: For events: how many proxies of yours are in front of the application, each of which appends
            the address that it sees to ``X-Forwarded-For``.
        request_id_header: For events: the header field in which a proxy of yours sends an id of the request, such as
            ``X-Request-Id``.

    Raises:
        ConfigurationError: An argument is not one of these, or the application was configured with others, or has
            already answered a request. At startup: a guard is written and not run, or reads a parameter that its path
            does not have, a route is unguarded, ``public`` names a path that no route has, or two schemes of one name
            differ.
    """
    if instance_of("app", app, FastAPI, "a FastAPI application").middleware_stack is not None:
        msg = "configure_app() comes too late: call it before the application answers its first request"
        raise ConfigurationError(msg)
    if unguarded not in ("allow", "refuse"):
        msg = f'unguarded is "allow" or "refuse", not {unguarded!r}'
        raise ConfigurationError(msg)
    if not isinstance(name_scopes, bool | None):
        msg = f"name_scopes is True, False, or left out, not {name_scopes!r}"
        raise ConfigurationError(msg)
    guards = (docs,) if isinstance(docs, params.Depends) else items_of("docs", docs, "of guards")
    if guards:
        guarded(_no_application, *guards)
    if type(trusted_proxies) is not int or trusted_proxies < 0:
        msg = f"trusted_proxies is a number of proxies from 0 on, not {trusted_proxies!r}"
        raise ConfigurationError(msg)
    check_field_names(request_id_header=request_id_header)
    configuration = Configuration(
        unguarded=unguarded,
        public=PublicPaths(public, "public"),
        docs=guards,
        name_scopes=name_scopes,
        trusted_proxies=trusted_proxies,
        request_id_header=request_id_header,
    )
    before = configuration_of(app)
    if before is not None:
        if before != configuration:
            msg = "configure_app() was called twice for one application, with other arguments: call it once"
            raise ConfigurationError(msg)
        return
    setattr(app, _ATTRIBUTE, configuration)
    app.exception_handlers.setdefault(AuthError, answer)
    _check_before_serving(app, configuration)
    describe(app)


def configuration_of(app: FastAPI) -> Configuration | None:
    """Return what ``configure_app`` was called with, ``None`` where it was not."""
    found: Configuration | None = getattr(app, _ATTRIBUTE, None)
    return found


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
    methods = "mount" if way.methods == ("MOUNT",) else "/".join(way.methods)
    return f"{methods} {way.path}" + (f" ({way.answers})" if way.answers else "")


def _paths(ways: Sequence[RouteGuards]) -> list[str]:
    return sorted({way.public_name for way in ways})


def _weakness(way: RouteGuards) -> str:
    for use in way.guards:
        if use.guard.checks_presence_only:
            return f" ({use.guard.auth.name} only checks that a credential is there)"
    return ""
