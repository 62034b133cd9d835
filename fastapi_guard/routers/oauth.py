"""The answers of a token endpoint (RFC 6749 5.2): JSON with ``error`` and ``error_description``, whatever happens."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from fastapi_guard.login.tokens import InvalidScope

_MALFORMED: Final = "The body cannot be read, or a field is missing"
# By the status of what was raised: the error code, and the status of the answer.
_CODES: Final[Mapping[int, tuple[str, int]]] = {
    401: ("invalid_grant", 400),
    403: ("invalid_grant", 400),
    413: ("invalid_request", 413),
    415: ("invalid_request", 415),
    429: ("temporarily_unavailable", 429),
    503: ("temporarily_unavailable", 503),
}


class OAuthRefusal(Exception):
    """A refusal by an error code of RFC 6749 5.2, or one of our own."""

    def __init__(self, error: str, description: str, **more: object) -> None:
        """Respond with ``error`` and ``description``, and more members beside them."""
        super().__init__(error)
        self.body: dict[str, object] = _body(error, description) | more


class OAuthRoute(APIRoute):
    """A route whose refusals are those of RFC 6749 5.2, with ``detail`` beside them, in every application."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        handle = super().get_route_handler()

        async def handle_token_request(request: Request) -> Response:
            try:
                return await handle(request)
            except OAuthRefusal as error:
                return _refusal(400, error.body)
            except InvalidScope:
                return _refusal(400, _body("invalid_scope", "The requested scopes are not granted"))
            except RequestValidationError:
                return _refusal(400, _body("invalid_request", _MALFORMED))
            except HTTPException as error:
                if error.status_code not in _CODES:
                    raise
                code, status = _CODES[error.status_code]
                kept = {name: value for name, value in (error.headers or {}).items() if name in _KEPT_HEADERS}
                return _refusal(status, _body(code, str(error.detail)), kept)

        return handle_token_request


_KEPT_HEADERS: Final = ("Retry-After", "set-cookie")


def _body(error: str, description: str) -> dict[str, object]:
    return {"error": error, "error_description": description, "detail": description}


def _refusal(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> JSONResponse:
    # RFC 6749 5.1 for any answer of the endpoint; Pragma for caches of HTTP/1.0.
    return JSONResponse(body, status, headers={"Cache-Control": "no-store", **(headers or {})})
