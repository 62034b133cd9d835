"""Keep answers that carry a token, a key or a cookie out of every cache (RFC 9111 5.2.2.5)."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from inspect import isawaitable
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from fastapi_guard.routers.bodies import without_input
from fastapi_guard.stores.arguments import path_of, texts_of


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
