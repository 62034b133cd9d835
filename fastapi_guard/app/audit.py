"""Which route of an application is guarded by what, and which is not as it should be.

It reads the dependency trees that FastAPI resolves, so that guards of the application, of an include, a router, a route
and a parameter count alike. It knows nothing of a middleware: what is protected by one alone is listed as unguarded.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import unwrap
from types import CodeType
from typing import Any, Final

from fastapi import FastAPI

from fastapi_guard.app.routes import GuardUse, RouteGuards, documentation_of, routes_of
from fastapi_guard.auth import Auth, Guard
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes import CallableScheme

UNGUARDED: Final = "unguarded"
PRESENCE_ONLY: Final = "presence only"
NO_ORIGIN_RULE: Final = "cookie without the origin rule"
NO_GUARD: Final = "no guard"

# What a page of another site can have a browser send, and what changes nothing by its definition (RFC 9110 9.2.1).
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class NotGuarded(ConfigurationError, AssertionError):
    """Routes are not guarded as they should be; each is named in the message."""


@dataclass(frozen=True, slots=True)
class AuditedGuard:
    """One guard before a route.

    Attributes:
        auth: The name of its Auth.
        scopes: The scopes that it requires, all of them.
        rule: What it asks for beyond: "any of a, b", "role editor", "admin".
        schemes: The names of its schemes in OpenAPI.
        optional: Whether it lets strangers pass.
    """

    auth: str
    scopes: tuple[str, ...]
    rule: str | None
    schemes: tuple[str, ...]
    optional: bool


@dataclass(frozen=True, slots=True)
class AuditedRoute:
    """A route for one method, with what guards it.

    Attributes:
        method: In upper case; ``WEBSOCKET``; ``MOUNT`` for a mounted application that cannot be looked into.
        path: The whole path, prefixes and mounts included.
        guards: In the order in which they are asked.
        findings: What is wrong with it, each beginning with "unguarded", "presence only", "cookie without the origin
            rule" or "no guard".
        notes: What is worth a look: the dependencies that run before a stranger is refused.
    """

    method: str
    path: str
    guards: tuple[AuditedGuard, ...]
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def guard(self) -> str:
        """The names of the Auths that guard it, empty where none does."""
        names = (f"{guard.auth} (optional)" if guard.optional else guard.auth for guard in self.guards)
        return ", ".join(dict.fromkeys(names))

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that are required, and other rules in words."""
        asked = (each for guard in self.guards for each in (*guard.scopes, guard.rule) if each is not None)
        return tuple(dict.fromkeys(asked))

    @property
    def schemes(self) -> tuple[str, ...]:
        """The names of the schemes in OpenAPI."""
        return tuple(dict.fromkeys(name for guard in self.guards for name in guard.schemes))

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON says it."""
        return {
            "method": self.method,
            "path": self.path,
            "guard": self.guard,
            "scopes": list(self.scopes),
            "schemes": list(self.schemes),
            "findings": list(self.findings),
            "notes": list(self.notes),
        }


def guarded_routes(app: FastAPI) -> list[AuditedRoute]:
    """Return every route of ``app`` with what guards it, an entry for each method, in the order of the routes.

    Routes of included routers and mounted applications are among them, those of FastAPI's documentation are not. The
    dependencies of ``app`` do not run for a mounted application: it is judged by its own guards.
    """
    return list(_audited(app))


def assert_guarded(app: FastAPI, allow: Collection[str] = ()) -> None:
    """Raise unless every route of ``app`` is guarded as it should be: for a test of the application.

    Args:
        app: The application.
        allow: Paths, as written at the route, of which nothing is asked.

    Raises:
        NotGuarded: A route lets strangers pass, nothing verifies its credential, it changes something on behalf of a
            cookie without the origin rule, or has a guard without its parentheses. It is an AssertionError too.
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
    if isinstance(allow, str):
        msg = f"allow is a list of paths: [{allow!r}]"
        raise ConfigurationError(msg)
    routes = guarded_routes(app)
    unknown = set(allow).difference((route.path for route in routes), documentation_of(app))
    if unknown:
        msg = f"allow names {', '.join(sorted(unknown))}, which no route has: remove it, or correct it"
        raise ConfigurationError(msg)
    return [
        AuditedRoute(route.method, route.path, route.guards, (), route.notes) if route.path in allow else route
        for route in routes
    ]


def _audited(app: FastAPI) -> Iterator[AuditedRoute]:
    for route in routes_of(app):
        guards = tuple(_guard(use) for use in route.guards)
        notes = (f"runs before the guard: {', '.join(route.early)}",) if route.early else ()
        # Starlette answers HEAD wherever it answers GET.
        methods = [name for name in route.methods if name != "HEAD" or "GET" not in route.methods] or ["MOUNT"]
        for method in methods:
            yield AuditedRoute(method, route.path, guards, tuple(_findings(route, method)), notes)


def _guard(use: GuardUse) -> AuditedGuard:
    return AuditedGuard(use.guard.auth.name, use.scopes, use.rule, use.schemes, use.guard.optional)


def _findings(route: RouteGuards, method: str) -> Iterator[str]:
    # A guard that verifies nothing has a finding of its own, below.
    if all(use.guard.optional for use in route.guards):
        yield f"{UNGUARDED}: its guard is optional" if route.guards else UNGUARDED
    auths = dict.fromkeys(part for use in route.guards for auth in _asked(use.guard) for part in _parts(auth))
    for auth in auths:
        if auth.checks_presence_only:
            yield f"{PRESENCE_ONLY}: {auth.name} verifies nothing"
        if method not in _SAFE_METHODS and not auth.proves_origin and _takes_cookies(auth):
            yield f"{NO_ORIGIN_RULE}: {auth.name}"
    for mistake in route.mistakes:
        yield f"{NO_GUARD}: {mistake}"


def _asked(guard: Guard[Any]) -> Sequence[Auth[Any]]:
    # Of an AnyAuth, a guard may take the credentials of some members alone.
    members: Sequence[Auth[Any]] = getattr(guard, "members", ())
    return members or (guard.auth,)


def _parts(auth: Auth[Any]) -> Iterator[Auth[Any]]:
    members = getattr(auth, "members", ())
    for member in members:
        yield from _parts(member)
    if not members:
        yield auth


def _takes_cookies(auth: Auth[Any]) -> bool:
    scheme = auth.scheme
    if scheme.is_cookie:
        return True
    # What a signature does not say, the code may: a callable that looks for a cookie in the request.
    own: list[Any] = [type(auth).verify_request]
    own += scheme.calls if isinstance(scheme, CallableScheme) else [type(scheme).extract]
    return any(_names_cookies(code) for call in own for code in _codes(call))


def _codes(call: Any) -> Iterator[CodeType]:
    while isinstance(call, partial):
        call = call.func
    call = unwrap(call)
    function = call if hasattr(call, "__code__") else type(call).__call__
    code = getattr(function, "__code__", None)
    # Our own schemes say what they take.
    if code is not None and not function.__module__.startswith("fastapi_guard."):
        yield code


def _names_cookies(code: CodeType) -> bool:
    return (
        "cookies" in code.co_names
        or any(isinstance(each, str) and each.lower() == "cookie" for each in code.co_consts)
        or any(isinstance(each, CodeType) and _names_cookies(each) for each in code.co_consts)
    )
