"""The schemes of sessions: the id in a cookie, and the session of Starlette's SessionMiddleware."""

from fastapi.openapi import models
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError, Unauthorized
from fastapi_guard.schemes import APIKeyScheme, Scheme
from fastapi_guard.stores.arguments import check_texts


class SessionScheme(APIKeyScheme):
    """The id of a session in a cookie."""

    auth_scheme = "Session"

    def __init__(self, name: str, *, realm: str = "api", scheme_name: str = "Session") -> None:
        """Read the id from the cookie ``name``."""
        super().__init__(name, "cookie", realm=realm, scheme_name=scheme_name)


class StarletteSessionScheme(Scheme):
    """The user that the application put into the session of Starlette's SessionMiddleware.

    For an application that has one: ``request.session["user"] = user.id`` logs in, and an Auth with this scheme
    verifies that id. The middleware signs its cookie and stores nothing, so such a session cannot be ended from
    elsewhere.
    """

    auth_scheme = "Session"
    is_cookie = True

    def __init__(
        self,
        user_key: str = "user",
        *,
        cookie_name: str = "session",
        realm: str = "api",
        scheme_name: str = "StarletteSession",
    ) -> None:
        """Read the user from ``request.session[user_key]``.

        Args:
            user_key: Where the application puts the user's id, a text or a whole number.
            cookie_name: The ``session_cookie`` of the middleware, for OpenAPI.
            realm: The protection space in a challenge.
            scheme_name: The name in OpenAPI.
        """
        check_texts(user_key=user_key, cookie_name=cookie_name)
        model = models.APIKey.model_validate({"in": models.APIKeyIn.cookie, "name": cookie_name})
        super().__init__(model, scheme_name, realm)
        self.user_key = user_key

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the user's id, ``None`` without a login.

        Raises:
            ConfigurationError: There is no SessionMiddleware.
        """
        if "session" not in connection.scope:
            msg = "there is no request.session: app.add_middleware(SessionMiddleware, secret_key=...)"
            raise ConfigurationError(msg)
        user = connection.session.get(self.user_key)
        if isinstance(user, str) or type(user) is int:
            return str(user) or None
        if user is None:
            return None
        raise Unauthorized(reason="malformed")

    def refusal(self, error: str | None, description: str) -> str:  # noqa: ARG002 - the codes are Bearer's
        """Return the plain challenge: the error codes of RFC 6750 belong to its own scheme."""
        return self.plain_challenge
