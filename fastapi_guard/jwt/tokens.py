"""Token responses (RFC 6749 5.1), as pydantic models."""

from typing import Literal

from pydantic import BaseModel, Field


def _is_none(value: int | None) -> bool:
    return value is None


# defer_build: pydantic builds the validator with the first token or route, not when this module is imported.
class BearerAccessToken(BaseModel, defer_build=True):
    """A token response (RFC 6749 5.1). The token is not in its repr.

    Attributes:
        access_token: The token.
        token_type: Always ``bearer``.
        expires_in: Seconds until the token expires; left out of the response where it never does.
        scope: The granted scopes, separated by spaces, where the client requested some.
    """

    access_token: str = Field(repr=False)
    token_type: Literal["bearer"] = "bearer"
    expires_in: int | None = Field(None, exclude_if=_is_none)
    scope: str | None = Field(default=None, exclude_if=_is_none)


class TokenPair(BearerAccessToken):
    """A token response with a refresh token (RFC 6749 5.1). Neither token is in its repr.

    Attributes:
        refresh_token: The token that the next pair is requested with.
    """

    refresh_token: str = Field(repr=False)
