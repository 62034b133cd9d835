"""Describe refusals in OpenAPI, and keep answers that carry a token, a key or a cookie out of every cache."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from inspect import isawaitable
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from fastapi_guard.exceptions import CONFLICT, FORBIDDEN
from fastapi_guard.stores.arguments import path_of, texts_of

Responses = dict[int | str, dict[str, Any]]
# A longer text in a path is a 422, before it reaches a database.
LONGEST_PATH_TEXT: Final = 255
PathText = Annotated[str, Path(max_length=LONGEST_PATH_TEXT)]

# HTTPStatus has other phrases in Python 3.11 and 3.12 (RFC 9110 15.5).
_PHRASES: Final[Mapping[int, str]] = {
    303: "See Other",
    400: "Bad Request",
    401: "Unauthorized",
    403: FORBIDDEN,
    404: "Not Found",
    409: CONFLICT,
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


def described_statuses(*statuses: int) -> Responses:
    """Return the description of responses for OpenAPI: only of those that an operation can have."""
    return {status: {"description": _PHRASES[status]} for status in statuses}


def with_query(target: str, query: Mapping[str, str]) -> str:
    """Return a URL or path with parameters, among which may be what was sent: bytes that are not UTF-8 become ``?``."""
    if not query:
        return target
    parameters = urlencode(query, safe="/", errors="replace", quote_via=quote)
    return f"{target}{'&' if '?' in target else '?'}{parameters}"


async def no_store(response: Response) -> None:
    """Keep the response out of every cache (RFC 9111 5.2.2.5): ``dependencies=[Depends(no_store)]``.

    Sets ``Cache-Control: no-store``, and adds ``Authorization`` and ``Cookie`` to ``Vary``, so that a cache that is
    configured to store the response does not return it to another caller.

    An endpoint that returns a Response object sets these fields itself: FastAPI does not add them to such an object.
    """
    response.headers["Cache-Control"] = "no-store"
    varies = ", ".join(response.headers.getlist("Vary"))
    named = {name.strip().lower() for name in varies.split(",")}
    missing = [name for name in ("Authorization", "Cookie") if name.lower() not in named and "*" not in named]
    if missing:
        response.headers["Vary"] = ", ".join([varies, *missing] if varies else missing)


async def never_stored(response: Response) -> AsyncIterator[None]:
    """Keep a refusal out of every cache too: for the routers here, whose answers are each about one caller."""
    await no_store(response)
    try:
        yield
    except HTTPException as error:
        error.headers = {**(error.headers or {}), "Cache-Control": "no-store"}
        raise


class NeverStoredRoute(APIRoute):
    """The ``route_class`` of those routers: the answer to a malformed request is not stored, and repeats nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that handles a request."""
        from fastapi_guard.routers.bodies import without_input  # noqa: PLC0415 - no_store is for every application

        handle = super().get_route_handler()

        async def never_stored_handle(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                # The handler that FastAPI would call: its own, or the application's in its place.
                refused = RequestValidationError(without_input(error.errors()))
                answer: Any = request.app.exception_handlers[RequestValidationError](request, refused)
                response: Response = await answer if isawaitable(answer) else answer
                response.headers["Cache-Control"] = "no-store"
                return response

        return never_stored_handle


def never_stored_router(
    prefix: str,
    tags: Iterable[str],
    *dependencies: params.Depends,
    route_class: type[APIRoute] = NeverStoredRoute,
) -> APIRouter:
    """Return a router whose answers are not stored.

    Raises:
        ConfigurationError: The prefix is not that of a path, or the tags are not a list of texts.
    """
    return APIRouter(
        prefix=path_of("prefix", prefix, prefix=True),
        route_class=route_class,
        dependencies=[Depends(never_stored), *dependencies],
        tags=[*texts_of("tags", tags, 'of texts, such as ["login"]')],
    )
