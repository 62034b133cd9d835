"""configure_app: problem details for refusals (RFC 9457), a check of the guards at startup, a true OpenAPI document.

Only an application that is configured loads the modules that do this: a worker or a script that verifies tokens does
not.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fastapi import FastAPI, params
from starlette.requests import HTTPConnection

from fastapi_guard.events.place import Origins
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes.address import address_of, check_proxies
from fastapi_guard.stores.arguments import check_field_names, instance_of

if TYPE_CHECKING:
    from fastapi_guard.app.public_paths import PublicPaths

# Where an application keeps its configuration.
_ATTRIBUTE: Final = "fastapi_guard_configuration"


class Configuration(NamedTuple):
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
    public: "PublicPaths"
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
    from fastapi_guard.app.checks import guards_of_pages, install  # noqa: PLC0415 - see the docstring of the module
    from fastapi_guard.app.public_paths import PublicPaths  # noqa: PLC0415 - as above

    guards = guards_of_pages(docs)
    check_proxies(trusted_proxies)
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
    install(app, configuration)


def configuration_of(app: FastAPI) -> Configuration | None:
    """Return what ``configure_app`` was called with, ``None`` where it was not."""
    found: Configuration | None = getattr(app, _ATTRIBUTE, None)
    return found
