"""Token responses (RFC 6749 5.1), as pydantic models."""

from typing import Any, Literal

from pydantic import BaseModel, Field, GetCoreSchemaHandler, SerializerFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema


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
