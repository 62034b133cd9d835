"""A login of the caller in a list: a session, or a family of tokens."""

from pydantic import BaseModel


class Device(BaseModel):
    """A login of the caller.

    Attributes:
        id: What to end it by.
        address: The address that it was last used from; ``None`` where it is not known.
        user_agent: The user agent.
        created_at: When it began, in seconds since the epoch.
        seen_at: When it was last used.
        expires_at: When it expires unless it is used before.
        current: Whether it is the one that made the request.
    """

    id: str
    address: str | None
    user_agent: str | None
    created_at: float
    seen_at: float
    expires_at: float
    current: bool
