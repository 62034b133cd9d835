"""Make tickets: single-use credentials in a URL, for EventSource, WebSockets and links to downloads."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.claims import Claims
from fastapi_guard.routers.bodies import described, required, texts_in
from fastapi_guard.routers.responses import described_statuses, never_stored_router
from fastapi_guard.stores.arguments import instance_of


class NewTicket(BaseModel):
    """A new ticket. Its text is in this response and nowhere else.

    Attributes:
        ticket: The value of the query parameter.
        expires_in: How long it can be used, in seconds.
    """

    ticket: str = Field(repr=False)
    expires_in: int


def tickets_router(tickets: TicketAuth, *, prefix: str = "") -> APIRouter:
    """Serve ``POST /tickets`` for the callers that ``tickets.maker`` authenticates.

    The body is a form or JSON: ``path``, the path of the URL that the ticket is for, unless the tickets are for a
    purpose; and ``scope``, the scopes of the ticket, separated by spaces, by default none. The response is
    ``{"ticket": "...", "expires_in": 60}``, and no cache stores it. A scope that the caller's credential does not grant
    is a 403.

    Args:
        tickets: The tickets to make.
        prefix: The prefix of the path.

    Raises:
        ConfigurationError: An argument has the wrong type.
    """
    instance_of("tickets", tickets, TicketAuth, "a TicketAuth")
    router = never_stored_router(prefix, ["tickets"])
    fields = [] if tickets.has_purpose else ["path"]

    @router.post(
        "/tickets",
        summary="Make a ticket",
        status_code=201,
        responses=described_statuses(413, 415, 422),
        openapi_extra=described(fields, "scope"),
    )
    async def make(request: Request, _: Annotated[Claims, tickets.maker.authenticated()]) -> NewTicket:
        """Make a ticket for one request, with some of the scopes of the caller."""
        texts = await texts_in(request)
        path = required(texts, "path") if fields else texts.get("path")
        scopes = [scope for scope in texts.get("scope", "").split(" ") if scope]
        try:
            ticket = await tickets.issue(request, *scopes, path=path)
        except ValueError:
            # Without the input, as for every body here.
            problem = {"type": "value_error", "loc": ("body",), "msg": "The path or a scope is not valid"}
            raise RequestValidationError([problem]) from None
        return NewTicket(ticket=ticket.text, expires_in=ticket.expires_in)

    return router
