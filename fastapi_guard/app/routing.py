"""GuardedRoute: refuse an anonymous caller before the body of the request is read."""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from fastapi import Request, Response, routing
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes

from fastapi_guard.auth import Guard


class GuardedRoute(APIRoute):
    """A route whose flat guards run before FastAPI reads the body; for ``APIRouter(route_class=GuardedRoute)``.

    Those of its dependencies, of its router, of an include and of the application count, wherever they stand. FastAPI
    runs them again, when the request remembers what they verified. A guard whose scheme FastAPI has to resolve keeps
    its place, and so does one that a test has overridden.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of FastAPI, behind the guards."""
        handle = super().get_route_handler()
        dependant = _effective(self).dependant
        guards = list(_flat_guards(dependant, (), {}))

        async def guarded(request: Request) -> Response:
            overrides = getattr(request.scope.get("app"), "dependency_overrides", None)
            for guard, scopes in _flat_guards(dependant, (), overrides) if overrides else guards:
                await guard(request, SecurityScopes(list(scopes)))
            return await handle(request)

        return guarded if guards else handle


def _effective(route: APIRoute) -> Any:
    # FastAPI builds a route again for each include, with the dependencies of the routers around it, and has no public
    # name for what it includes at that moment. A route that is not included is its own.
    including = getattr(routing, "_effective_route_context_var", None)
    context = None if including is None else including.get()
    return context if context is not None and context.original_route is route else route


def _flat_guards(
    dependant: Dependant, inherited: tuple[str, ...], overrides: Mapping[Any, Any]
) -> Iterator[tuple[Guard[Any], tuple[str, ...]]]:
    for part in dependant.dependencies:
        if part.call not in overrides:
            scopes = tuple(
                dict.fromkeys((*inherited, *(part.parent_oauth_scopes or ()), *(part.own_oauth_scopes or ())))
            )
            if isinstance(part.call, Guard) and part.call.is_flat:
                yield part.call, scopes
            yield from _flat_guards(part, scopes, overrides)
