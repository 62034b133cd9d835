"""Which route of an application is guarded by what, and which is not as it should be.

The guards of the application, of an include, a router, a route, a parameter and a mount count alike. A middleware is
not seen: what it alone protects is listed as unguarded.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from fastapi_guard.app.annotations import parameters_of
from fastapi_guard.app.asgi import guard_documentation
from fastapi_guard.app.configure import Configuration, configuration_of
from fastapi_guard.app.guards import GuardUse, members_of, missing_parameters
from fastapi_guard.app.openapi import refuse_clashes
from fastapi_guard.app.public_paths import PublicPaths
from fastapi_guard.app.routes import Routes
from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.auth import Auth, Guard
from fastapi_guard.auth.conversion import name_of
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes import CallableScheme
from fastapi_guard.stores.arguments import instance_of

UNGUARDED: Final = "unguarded"
PRESENCE_ONLY: Final = "presence only"
NO_ORIGIN_RULE: Final = "cookie without the origin rule"
NO_GUARD: Final = "no guard"
NOT_STARTED: Final = "does not start"

# Methods that change nothing by definition (RFC 9110 9.2.1): a page of another site may have a browser send them.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class NotGuarded(ConfigurationError, AssertionError):
    """Routes are not guarded as they should be; each is named in the message."""


@dataclass(frozen=True, slots=True)
class AuditedGuard:
    """One guard before a route.

    Attributes:
        auth: The name of its Auth.
        scopes: The scopes that it requires, all of them.
        rule: What it requires beyond: "any of a, b", "role editor", "admin".
        schemes: The names of its schemes in OpenAPI.
        optional: Whether it lets an anonymous caller pass.
        via: The names of the members of an AnyAuth whose credentials it accepts, where these are not all.
    """

    auth: str
    scopes: tuple[str, ...]
    rule: str | None
    schemes: tuple[str, ...]
    optional: bool
    via: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return its name for a table: ``any via jwt (optional)``."""
        via = f" via {' or '.join(self.via)}" if self.via else ""
        return f"{self.auth}{via}{' (optional)' if self.optional else ''}"


@dataclass(frozen=True, slots=True)
class AuditedRoute:
    """A route for one method, with what guards it.

    Attributes:
        method: In upper case; ``WEBSOCKET``; ``MOUNT`` for a mounted application whose routes are not known; ``ANY``;
            ``APPLICATION`` for what belongs to no route.
        path: The whole path, prefixes and mounts included.
        guards: In the order in which they run.
        findings: What is wrong with it, each beginning with "unguarded", "presence only", "cookie without the origin
            rule", "no guard" or "does not start".
        notes: What is worth a look: the dependencies that run before an anonymous caller is refused, a scheme that may
            read a cookie.
        public: Whether it may be unguarded.
    """

    method: str
    path: str
    guards: tuple[AuditedGuard, ...]
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    public: bool = False

    @property
    def guard(self) -> str:
        """The names of the Auths that guard it, empty where none does."""
        return ", ".join(dict.fromkeys(map(str, self.guards)))

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that are required, and other rules in words."""
        required = (rule for guard in self.guards for rule in (*guard.scopes, guard.rule) if rule is not None)
        return tuple(dict.fromkeys(required))

    @property
    def schemes(self) -> tuple[str, ...]:
        """The names of the schemes in OpenAPI."""
        return tuple(dict.fromkeys(name for guard in self.guards for name in guard.schemes))

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict of what JSON has."""
        return {
            "method": self.method,
            "path": self.path,
            "guard": self.guard,
            "scopes": list(self.scopes),
            "schemes": list(self.schemes),
            "public": self.public,
            "findings": list(self.findings),
            "notes": list(self.notes),
        }


def guarded_routes(app: FastAPI) -> list[AuditedRoute]:
    """Return every way into ``app`` with what guards it, an entry for each method, in the order of the routes.

    Routes of included routers and mounted applications are among them; FastAPI's own documentation pages of ``app`` are
    not. The dependencies of ``app`` do not run for a mounted application, which is judged by its own guards. Paths that
    ``configure_app`` names as public have no finding for being unguarded.
    """
    return audited(app)


def assert_guarded(app: FastAPI, allow: Collection[str] = ()) -> None:
    """Raise unless every route of ``app`` is guarded as it should be: for a test of the application.

    Args:
        app: The application.
        allow: Paths as written at the route, and prefixes such as ``/pages/*``, that are not checked, beside those that
            ``configure_app`` names as public.

    Raises:
        NotGuarded: A route lets an anonymous caller pass, its credential is not verified, it changes something by a
            cookie without the origin rule, a guard is written that is not run or reads a parameter that the path does
            not have, or ``configure_app`` does not let the application start. It is an AssertionError too.
        ConfigurationError: ``allow`` names a path that no route has.
    """
    failing = [route for route in audited(app, allow) if route.findings]
    if failing:
        lines = [f"{route.method} {route.path}: {'; '.join(route.findings)}" for route in failing]
        raise NotGuarded("\n".join(lines))


def audited(app: FastAPI, allow: Collection[str] = ()) -> list[AuditedRoute]:
    """Return what ``guarded_routes`` does, without the findings of the paths in ``allow``.

    Raises:
        ConfigurationError: ``allow`` names a path that no route has.
    """
    allowed = PublicPaths(allow, "allow")
    routes, configuration = routes_of_app(app), configuration_of(app)
    allowed.check(routes.ways, routes.documentation)
    audited_routes: list[AuditedRoute] = [] if configuration is None else [*_not_started(routes, configuration)]
    for way in (*_mounts(routes), *routes.ways):
        missing = missing_parameters(way.path, way.guards, routes.host_params)
        mistaken = way._replace(mistakes=tuple(dict.fromkeys((*way.mistakes, *missing))))
        public = configuration is not None and way in configuration.public
        audited_routes += _audited(mistaken, allowed=way in allowed, public=public)
    return audited_routes


def routes_of_app(app: FastAPI) -> Routes:
    """Return every way into ``app``, with the guards of its documentation pages in place.

    Raises:
        ConfigurationError: ``app`` is not an application.
    """
    configuration = configuration_of(instance_of("app", app, FastAPI, "a FastAPI application"))
    if configuration is not None:
        guard_documentation(app, configuration.docs)
    return Routes(app)


def methods_of(way: RouteGuards) -> tuple[str, ...]:
    """Return the methods of a way in, without the HEAD that Starlette serves beside GET."""
    return tuple(name for name in way.methods if name != "HEAD" or "GET" not in way.methods)


def overridden_in(routes: Routes) -> list[str]:
    """Return the names of what the ``dependency_overrides`` replace, of the application and of those mounted on it.

    Guards among it are not run.
    """
    names = {
        f"a guard of {call.auth.name}" if isinstance(call, Guard) else name_of(call)
        for app in routes.applications
        for call in getattr(app, "dependency_overrides", ())
    }
    return sorted(names)


def _not_started(routes: Routes, configuration: Configuration) -> Iterator[AuditedRoute]:
    checks: list[Callable[[], None]] = [
        lambda: refuse_clashes(use.guard for way in routes.ways for use in way.guards),
        lambda: configuration.public.check(routes.ways, routes.documentation),
    ]
    for check in checks:
        try:
            check()
        except ConfigurationError as error:
            yield AuditedRoute("APPLICATION", "/", (), (f"{NOT_STARTED}: {error}",))


def _mounts(routes: Routes) -> Iterator[RouteGuards]:
    # The guards of a mount run before the path below it is known.
    for path, mounted in routes.guarded:
        if any(missing_parameters(path, mounted.uses, routes.host_params)):
            yield RouteGuards(path, ("APPLICATION",), mounted.uses, None)


def _audited(way: RouteGuards, *, allowed: bool, public: bool) -> Iterator[AuditedRoute]:
    guards = tuple(_guard(use) for use in way.guards)
    for method in methods_of(way):
        findings = () if allowed else tuple(_findings(way, method, public=public))
        yield AuditedRoute(method, way.path, guards, findings, tuple(_notes(way, method)), allowed or public)


def _guard(use: GuardUse) -> AuditedGuard:
    guard = use.guard
    every = getattr(guard.auth, "members", ())
    members = [member.name for member in members_of(guard)]
    via = () if len(members) == len(every) or not every else tuple(members)
    return AuditedGuard(guard.auth.name, use.scopes, use.rule, use.schemes, guard.optional, via)


def _findings(way: RouteGuards, method: str, *, public: bool) -> Iterator[str]:
    # A guard that verifies nothing has a finding of its own, below.
    if not public and all(use.guard.optional for use in way.guards):
        yield f"{UNGUARDED}: {_reason(way)}" if _reason(way) else UNGUARDED
    for auth in _auths(way):
        if auth.dependency.checks_presence_only and not public:
            yield f"{PRESENCE_ONLY}: {auth.name} verifies nothing"
        if method not in _SAFE_METHODS and not auth.dependency.decision.is_cookie and auth.scheme.is_cookie:
            yield f"{NO_ORIGIN_RULE}: {auth.name}"
    for mistake in way.mistakes:
        yield f"{NO_GUARD}: {mistake}"


def _reason(way: RouteGuards) -> str:
    if way.guards:
        return "its guard is optional"
    if way.answers:
        return f"it is {way.answers}"
    return f"the guard of {', '.join(way.bypassed)} around it does not run for it" if way.bypassed else ""


def _notes(way: RouteGuards, method: str) -> Iterator[str]:
    if way.early:
        yield f"runs before the guard: {', '.join(way.early)}"
    for auth in _auths(way):
        if method not in _SAFE_METHODS and not auth.dependency.decision.is_cookie and _sees_cookies(auth):
            yield f"{auth.name} sees the whole request: where it reads a cookie, pass cookie=True"


def _auths(way: RouteGuards) -> Iterable[Auth[Any]]:
    return dict.fromkeys(auth for use in way.guards for auth in members_of(use.guard))


def _sees_cookies(auth: Auth[Any]) -> bool:
    # A declared cookie is in the scheme. Code of the application that sees the request may read one all the same.
    scheme = auth.scheme
    if scheme.is_cookie:
        return False
    if isinstance(scheme, CallableScheme):
        return any(_is_connection(parameter.kind) for call in scheme.calls for parameter in parameters_of(call))
    own = (type(scheme).extract, type(auth).verify_request)
    return not all(method.__module__.startswith("fastapi_guard.") for method in own)


def _is_connection(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, HTTPConnection)
