"""TicketScheme: a ticket in the query string, which is removed from it."""

import re
from typing import Final
from urllib.parse import unquote_plus

from starlette.requests import HTTPConnection

from fastapi_guard.auth.decision import replace_query
from fastapi_guard.schemes import APIKeyScheme
from fastapi_guard.schemes.base import malformed, two_credentials

# A URL of more than some thousand characters is refused on the way.
MAX_CHARACTERS: Final = 4096
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]+")
# Where a connection's scope keeps the tickets that were taken out of its query string.
_PRESENTED: Final = "fastapi_guard.tickets"


class TicketScheme(APIKeyScheme):
    """A ticket in a query parameter, which is removed from the connection: no access log that is written later has it.

    The response to a request is logged when it begins, by servers such as uvicorn, so after the guards.
    """

    auth_scheme = "Ticket"

    def __init__(self, name: str = "ticket", *, realm: str = "api", scheme_name: str | None = None) -> None:
        """Read the ticket from the query parameter ``name``; OpenAPI has that name too, unless it is the usual one."""
        named = scheme_name or ("Ticket" if name == "ticket" else None)
        super().__init__(name, "query", realm=realm, scheme_name=named)

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the ticket, ``None`` where there is none; the query string no longer has it.

        Raises:
            Unauthorized: There are several, or it has a character that no ticket has.
        """
        self.withdraw(connection)
        tickets: list[str] = connection.scope[_PRESENTED].get(self.name, [])
        if len(tickets) > 1:
            raise two_credentials()
        if not tickets or not tickets[0]:
            return None
        if len(tickets[0]) > MAX_CHARACTERS or not _TEXT.fullmatch(tickets[0]):
            raise malformed()
        return tickets[0]

    def withdraw(self, connection: HTTPConnection) -> None:
        """Remove the tickets from the query string; ``extract`` finds them all the same."""
        scope = connection.scope
        query = bytes(scope.get("query_string", b""))
        kept: list[bytes] = []
        found: list[str] = []
        for pair in query.split(b"&"):
            name, _, value = pair.decode("latin-1").partition("=")
            if unquote_plus(name) == self.name:
                found.append(unquote_plus(value))
            else:
                kept.append(pair)
        presented: dict[str, list[str]] = scope.get(_PRESENTED, {})
        # A new dict, as for the memo of a decision: a copy of the scope may get another ticket.
        scope[_PRESENTED] = {**presented, self.name: found} if found else presented
        if found:
            replace_query(scope, b"&".join(kept))
