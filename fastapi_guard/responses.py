"""What every answer that carries a token, a key or a cookie has in common."""

from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer


async def no_store(response: Response) -> None:
    """Set ``Cache-Control: no-store`` on the answer (RFC 6749 5.1): ``dependencies=[Depends(no_store)]``.

    It reaches what FastAPI serialises for the endpoint; a Response object that the endpoint returns itself keeps its
    own headers.
    """
    response.headers["Cache-Control"] = "no-store"


class BearerAccessToken(BaseModel):
    """A token response (RFC 6749 5.1). The token is not in its repr.

    Attributes:
        access_token: The token.
        token_type: Always ``bearer``.
        expires_in: Seconds until it expires; left out of the answer where it never does.
    """

    access_token: str = Field(repr=False)
    token_type: Literal["bearer"] = "bearer"
    expires_in: int | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class TokenPair(BearerAccessToken):
    """A token response with a refresh token (RFC 6749 5.1). Neither token is in its repr.

    Attributes:
        refresh_token: What the next pair is got with.
    """

    refresh_token: str = Field(repr=False)
