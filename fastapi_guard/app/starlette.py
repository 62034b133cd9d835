"""GuardBackend: an Auth behind Starlette's AuthenticationMiddleware, for request.user and request.auth.

The decision is remembered on the connection, so that the guards behind it verify nothing again.
"""

from collections.abc import Callable, Mapping
from inspect import isawaitable
from typing import Any, Literal

from fastapi import HTTPException
from fastapi.exception_handlers import http_exception_handler
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.concurrency import run_in_threadpool
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fastapi_guard.auth import Auth, Verified
from fastapi_guard.auth.any_of import members_of
from fastapi_guard.auth.conversion import is_coroutine_function
from fastapi_guard.auth.decision import Decision
from fastapi_guard.exceptions import ConfigurationError, Unauthorized
from fastapi_guard.schemes import CallableScheme
from fastapi_guard.stores.arguments import function_of, instance_of

# The scope by which Starlette's @requires requires any valid credential.
_AUTHENTICATED = "authenticated"


class GuardUser(BaseUser):
    """The user of a valid credential: ``request.user`` where no ``load_user`` is given.

    Attributes:
        claims: The principal, as the Auth verified it.
    """

    def __init__(self, claims: Any, permits: Callable[[str], bool]) -> None:
        """Be the subject of ``claims``; ``permits`` decides about a scope."""
        self.claims = claims
        self._permits = permits

    @property
    def is_authenticated(self) -> bool:
        """True: an anonymous caller is Starlette's UnauthenticatedUser."""
        return True

    @property
    def display_name(self) -> str:
        """The name in the claims, or else the subject."""
        names = ("name", "preferred_username", "username", "sub")
        return next((found for found in map(self._text, names) if found), "")

    @property
    def identity(self) -> str:
        """The subject."""
        return self._text("sub")

    def has_permission(self, scope: str) -> bool:
        """Return whether the granted scopes cover ``scope``, as the guards decide it."""
        return self._permits(scope)

    def _text(self, name: str) -> str:
        value = self.claims.get(name) if isinstance(self.claims, Mapping) else None
        return "" if value is None else str(value)


class GrantedScopes(list[str]):
    """The granted scopes. One is in there where they cover it, so that Starlette's @requires agrees with a guard."""

    def __init__(self, granted: frozenset[str], permits: Callable[[str], bool]) -> None:
        """List ``granted``; ``permits`` decides about a scope."""
        super().__init__(sorted(granted))
        self._permits = permits

    def __contains__(self, scope: object) -> bool:
        """Return whether a scope is covered; ``authenticated`` always is."""
        return isinstance(scope, str) and (scope == _AUTHENTICATED or self._permits(scope))


class RefusedError(AuthenticationError):
    """A refusal, on its way through the middleware to ``on_error``.

    Attributes:
        answer: The response to the client.
    """

    def __init__(self, answer: HTTPException) -> None:
        """Carry ``answer``."""
        super().__init__(answer.detail)
        self.answer = answer


class GuardBackend(AuthenticationBackend):
    """The backend for ``AuthenticationMiddleware``: ``backend=GuardBackend(auth), on_error=on_error``.

    A request without a credential is Starlette's UnauthenticatedUser. An invalid credential is a 401 on every route.
    """

    def __init__(
        self,
        auth: Auth[Any],
        load_user: Callable[[Any], Any] | None = None,
        *,
        missing_user: Literal["anonymous", "refuse"] = "anonymous",
    ) -> None:
        """Authenticate by ``auth``.

        Args:
            auth: The Auth whose credentials count.
            load_user: Returns the ``request.user`` for claims, sync or async, or ``None``. By default GuardUser.
            missing_user: What a ``load_user`` that returns ``None`` or ``False`` makes of the request: an anonymous
                one, as the contract of Starlette, or a 401.

        Raises:
            ConfigurationError: The scheme of ``auth`` has FastAPI parameters, which no middleware can resolve, or
                another argument is malformed.
        """
        instance_of("auth", auth, Auth, "an Auth, such as a SessionAuth")
        if load_user is not None:
            function_of("load_user", load_user, "of the claims", "claims")
        if any(isinstance(member.scheme, CallableScheme) for member in members_of(auth)):
            msg = "the scheme has FastAPI parameters, and a middleware runs before FastAPI: pass APIKeyScheme(...)"
            raise ConfigurationError(msg)
        if missing_user not in ("anonymous", "refuse"):
            msg = f'missing_user is "anonymous" or "refuse", not {missing_user!r}'
            raise ConfigurationError(msg)
        self.auth = auth
        self.load_user = load_user
        self.missing_user = missing_user

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Any] | None:
        """Return scopes and user of the connection, ``None`` for an anonymous request.

        Raises:
            RefusedError: The credential is invalid, or that cannot be decided now.
        """
        guard = self.auth.optional_dependency
        try:
            decided = await self.auth.decide(conn)
            principal = guard.admit(conn, decided, ())
            if not isinstance(decided, Verified):
                return None
            decision: Decision[Any] = decided.auth.dependency.decision

            def permits(scope: str) -> bool:
                return decision.covers(decided.grants, scope)

            user = GuardUser(principal, permits) if self.load_user is None else await self._load(principal)
            if user is None or user is False:
                if self.missing_user == "anonymous":
                    return None
                decision.refusals.refuse(conn, decision.refusals.unknown_user(), principal)
        except HTTPException as error:
            raise RefusedError(error) from error
        credentials = AuthCredentials()
        credentials.scopes = GrantedScopes(decided.grants.scopes, permits)
        return credentials, user

    async def _load(self, principal: Any) -> Any:
        assert self.load_user is not None  # noqa: S101 - asked above
        call = self.load_user
        user = await call(principal) if is_coroutine_function(call) else await run_in_threadpool(call, principal)
        return await user if isawaitable(user) else user


def on_error(conn: HTTPConnection, error: Exception) -> Response:
    """Send a refusal of GuardBackend as that of a guard: through the handlers of the application."""
    answer = error.answer if isinstance(error, RefusedError) else Unauthorized()
    return _Handled(answer, getattr(conn.scope.get("app"), "exception_handlers", {}))


class _Handled(Response):
    """The answer of the handler of an exception, found as Starlette finds it."""

    def __init__(self, error: HTTPException, handlers: Mapping[Any, Any]) -> None:
        super().__init__(status_code=error.status_code)
        self._error = error
        # Starlette calls those for a 500 elsewhere.
        own = {key: handler for key, handler in handlers.items() if key not in (500, Exception)}
        self._handlers: dict[Any, Any] = {HTTPException: http_exception_handler, **own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def refuse(*_: object) -> None:
            raise self._error

        await ExceptionMiddleware(refuse, self._handlers)(scope, receive, send)
