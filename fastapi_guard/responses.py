"""What every answer that carries a token, a key or a cookie has in common."""

from collections.abc import AsyncIterator, Callable, Coroutine
from inspect import isawaitable
from typing import Any, Literal

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, GetCoreSchemaHandler, SerializerFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema


async def no_store(response: Response) -> None:
    """Keep the answer out of every cache (RFC 6749 5.1): ``dependencies=[Depends(no_store)]``.

    Sets ``Cache-Control: no-store``, and adds Authorization and Cookie to ``Vary``, for a cache that was told to store
    all the same: it is one caller's answer.

    It reaches what FastAPI serialises for the endpoint; a Response object that the endpoint returns itself keeps its
    own headers.
    """
    response.headers["Cache-Control"] = "no-store"
    varies = ", ".join(response.headers.getlist("Vary"))
    named = {name.strip().lower() for name in varies.split(",")}
    missing = [name for name in ("Authorization", "Cookie") if name.lower() not in named and "*" not in named]
    if missing:
        response.headers["Vary"] = ", ".join([varies, *missing] if varies else missing)


async def never_stored(response: Response) -> AsyncIterator[None]:
    """Keep a refusal out of every cache too: for the routers here, each of whose answers is about one caller."""
    await no_store(response)
    try:
        yield
    except HTTPException as error:
        error.headers = {**(error.headers or {}), "Cache-Control": "no-store"}
        raise


class NeverStoredRoute(APIRoute):
    """The ``route_class`` of those routers: no cache keeps what they answer to a malformed request either."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()

        async def never_stored_handle(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                # FastAPI would ask the same, out of our reach: its own, or the application's in its place.
                answer: Any = request.app.exception_handlers[RequestValidationError](request, error)
                response: Response = await answer if isawaitable(answer) else answer
                response.headers["Cache-Control"] = "no-store"
                return response

        return never_stored_handle


# Built with the first route or token that needs it, and not with the import.
class BearerAccessToken(BaseModel, defer_build=True):
    """A token response (RFC 6749 5.1). The token is not in its repr.

    Attributes:
        access_token: The token.
        token_type: Always ``bearer``.
        expires_in: Seconds until it expires; left out of the answer where it never does.
    """

    access_token: str = Field(repr=False)
    token_type: Literal["bearer"] = "bearer"
    expires_in: int | None = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Leave out what is ``None``; a serializer that says no type leaves the description of the fields as it is."""
        schema = handler(source)
        model: Any = handler.resolve_ref_schema(schema)
        model["serialization"] = core_schema.wrap_serializer_function_ser_schema(_present)
        return schema


class TokenPair(BearerAccessToken):
    """A token response with a refresh token (RFC 6749 5.1). Neither token is in its repr.

    Attributes:
        refresh_token: What the next pair is got with.
    """

    refresh_token: str = Field(repr=False)


def _present(model: BaseModel, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
    return {name: value for name, value in serialize(model).items() if value is not None}
