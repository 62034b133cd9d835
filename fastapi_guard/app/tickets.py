"""TicketAuth: tickets for what cannot send a header: EventSource, WebSockets and links to downloads.

A ticket is a credential for one request. A caller makes it with a credential of its own, and sends it in the query
string. The store has the hash of a ticket, under which its text, random and claims together, cannot be changed; one
``delete`` finds and uses it, so that of several requests with a ticket one passes.
"""

import json
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Unpack
from urllib.parse import unquote

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fastapi_guard.app.ticket_scheme import MAX_CHARACTERS, TicketScheme
from fastapi_guard.auth import AuthOptions, ScopesAuth
from fastapi_guard.auth.any_of import members_of
from fastapi_guard.auth.decision import Verified
from fastapi_guard.auth.guard import check_scopes
from fastapi_guard.auth.scopes import ScopesDecision
from fastapi_guard.claims import TENANT_CLAIMS, Claims
from fastapi_guard.exceptions import (
    AuthError,
    ConfigurationError,
    ServiceUnavailable,
    Unauthorized,
    invalid_token,
    shown,
)
from fastapi_guard.issuers.dpop import paths_of
from fastapi_guard.login.cut import REVOCATION_NUMBER
from fastapi_guard.login.state import check_name, claim, digest_of
from fastapi_guard.scopes import Scope, ScopeValidator, decide_alike
from fastapi_guard.stores.arguments import check_options, clock_of, store_of, texts_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.kinds import TICKET
from fastapi_guard.stores.protocol import Record, Store

_SECRET_BYTES: Final = 32
_LONGEST: Final = timedelta(seconds=60)
# A path from the root, as a URL has it: no query, no fragment.
_PATH: Final = re.compile(r"/[!-\"$->@-~]*")
_MAX_PATH_CHARACTERS: Final = 2048
# The claims by which the maker's Auth finds its credential again, and by which the application identifies the caller.
_KEPT: Final = (
    *("iss", "sub", "sid", "jti", "iat", "key_id", REVOCATION_NUMBER, "auth_time", "amr", "subject_type", "name"),
    *TENANT_CLAIMS,
)
# What a ticket grants is its scopes alone.
_RESERVED: Final = frozenset({"scope", "scp", "roles", "role", "is_admin", "exp", "cnf", "ticket_of"})


@dataclass(frozen=True, slots=True)
class Ticket:
    """A new ticket.

    Attributes:
        text: The ticket, for the query parameter; not in the repr.
        expires_in: How long it can be used, in seconds.
    """

    text: str = field(repr=False)
    expires_in: int


class TicketDecision(ScopesDecision):
    """How a TicketAuth decides: a ticket that was sent is used up, also where another Auth decides."""

    auth: "TicketAuth"
    is_single_use = True

    def withdraw(self, connection: HTTPConnection) -> None:
        """Remove the ticket from the query string."""
        self.auth.scheme.withdraw(connection)

    async def use_up(self, connection: HTTPConnection) -> None:
        """Use the ticket; whether it was valid does not matter."""
        with suppress(HTTPException):
            ticket = self.auth.scheme.extract(connection)
            if ticket is not None:
                await self.auth.verify_request(connection, ticket)


class TicketAuth(ScopesAuth):
    """Tickets: each is valid for one request, for at most 60 seconds, and grants some of its maker's scopes.

    A ticket is bound to the path that it was made for, or to the purpose of this Auth. What it opens ends with the
    credential of its maker: ``expires_with`` closes a WebSocket or a stream at that credential's ``exp``, and when it
    is revoked. A SessionAuth, a JWTAuth with revocations, a MultiOIDCAuth of such, and a DatabaseAPIKeyAuth find the
    credential again by the claims that a ticket keeps; that of another Auth is valid until its ``exp``.

    Its ``name`` is stored with each ticket: a ticket of an Auth of another name is unknown here.

    Attributes:
        maker: The Auth whose callers may make tickets.
    """

    name = "ticket"
    scheme: TicketScheme
    _decision_class = TicketDecision

    def __init__(
        self,
        store: Store,
        maker: ScopesAuth,
        *,
        purpose: str | None = None,
        keeps: Iterable[str] = (),
        lifetime: timedelta = _LONGEST,
        parameter: str = "ticket",
        realm: str = "api",
        clock: Callable[[], float] = time.time,
        **options: Unpack[AuthOptions],
    ) -> None:
        """Store the hashes of tickets in ``store``.

        Args:
            store: Where tickets are that were not used yet.
            maker: The Auth, or the AnyAuth, whose callers may make tickets. Its scope validator counts here too.
            purpose: What the tickets are for, such as ``"chat"``: each is valid on every path that this Auth guards.
                ``None`` binds a ticket to the path that it is made for.
            keeps: Further claims of the maker that a ticket keeps; their values are in the URL, in base64.
            lifetime: How long a ticket can be used, at most 60 seconds.
            parameter: The query parameter.
            realm: The protection space in a challenge.
            clock: Seconds since the epoch.
            options: See AuthOptions.

        Raises:
            ConfigurationError: A setting cannot work, or another TicketAuth in this process has the name on this store.
        """
        check_options("TicketAuth", options, AuthOptions, "a ticket grants its own scopes, and no role")
        self._makers = {auth.name: auth for auth in _members(maker)}
        self._keeps = (*_KEPT, *_extra_claims(keeps))
        if purpose is not None and (not isinstance(purpose, str) or not purpose.isprintable() or not purpose):
            msg = f"purpose is a text such as 'chat', or left out, not {shown(purpose)}"
            raise ConfigurationError(msg)
        self._lifetime = seconds_of("lifetime", lifetime, positive=True)
        if self._lifetime > _LONGEST.total_seconds():
            msg = f"lifetime is at most 60 seconds, not {lifetime}: a ticket is made right before it is used"
            raise ConfigurationError(msg)
        scheme = TicketScheme(parameter, realm=realm)
        super().__init__(scheme, _validator_of(self._makers.values()), role_claims=(), **options)
        claim("TicketAuths", store, check_name(self.name), self, 'pass TicketAuth(store, auth, name="...")')
        self.maker: ScopesAuth = maker
        self._store = store_of("store", store)
        self._purpose = purpose
        self._clock = clock_of(clock)

    @property
    def has_purpose(self) -> bool:
        """Whether its tickets are for a purpose, and not for a path each."""
        return self._purpose is not None

    async def issue(self, connection: HTTPConnection, *scopes: str, path: str | None = None) -> Ticket:
        """Make a ticket for the caller whose credential a guard of ``maker`` verified on ``connection``.

        Args:
            connection: The request of the caller.
            scopes: What the ticket grants, of what the caller's credential grants; by default nothing.
            path: The path of the URL that the ticket is for, without its query; only where there is no purpose.

        Raises:
            ValueError: A scope or the path cannot be one, or the claims are too long for a URL.
            Forbidden: The caller's credential does not grant one of the scopes.
            Unauthorized: No guard of ``maker`` verified a credential, or it has expired.
            ServiceUnavailable: The store cannot be reached.
        """
        if (path is None) != (self._purpose is not None) or (path is not None and not _is_path(path)):
            msg = "a ticket for a purpose has no path: leave path out"
            if self._purpose is None:
                msg = "a ticket is for a path such as /files/1, without a query"
            raise ValueError(msg)
        required = [Scope(scope) for scope in scopes]
        verified = self.maker.dependency.decision.recall(connection)
        if not isinstance(verified, Verified):
            raise Unauthorized(reason="missing")
        check_scopes(connection, verified, required)
        now = self._clock()
        expires = _expiry_of(verified.principal)
        lifetime = self._lifetime if expires is None else min(self._lifetime, expires - now)
        if lifetime <= 0:
            raise invalid_token("expired")
        claims = {name: verified.principal[name] for name in self._keeps if name in verified.principal}
        claims |= {"scope": " ".join(required), "ticket_of": verified.auth.name}
        claims |= {} if expires is None else {"exp": expires}
        text = _written({"claims": claims, "until": now + lifetime, "path": path, "purpose": self._purpose})
        await self._in_store(self._store.add(Record(self._key(text), b"", expires_at=now + lifetime)))
        return Ticket(text, max(1, int(lifetime)))

    async def verify(self, raw: str) -> Claims:
        """Use a ticket that is for a purpose, outside of a request, and return its claims; see ``verify_request``."""
        return await self._use(raw, None)

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Use a ticket, and return its claims: ``sub`` and others of its maker, ``scope``, and the maker's ``exp``.

        Raises:
            Unauthorized: It is unknown, was used, has expired, is for another path, or came with another method than
                GET; or the credential of its maker is no longer valid.
            ServiceUnavailable: A store cannot be reached.
        """
        return await self._use(raw, connection)

    async def still_valid(self, claims: Claims) -> bool:
        """Return whether the credential of a ticket's maker is valid, and grants what the ticket does.

        ``expires_with`` calls it for a connection that a ticket opened.

        Raises:
            ServiceUnavailable: That cannot be decided now.
        """
        try:
            await self._check_maker(claims, None)
        except Unauthorized:
            return False
        return True

    async def _use(self, raw: str, connection: HTTPConnection | None) -> Claims:
        # First of all, so that whatever else is wrong with it, a ticket that came once is of no use in a log.
        if not await self._in_store(self._store.delete(self._key(raw))):
            raise invalid_token("unknown_ticket")
        # Its hash was stored, so the text is ours.
        ticket = json.loads(urlsafe_b64decode(raw.partition(".")[2] + "=="))
        if self._clock() >= ticket["until"]:
            raise invalid_token("expired")
        if ticket["purpose"] != self._purpose or not _is_for(ticket["path"], connection):
            raise invalid_token("other_target")
        claims: Claims = ticket["claims"]
        await self._check_maker(claims, connection)
        return claims

    async def _check_maker(self, claims: Claims, connection: HTTPConnection | None) -> None:
        auth = self._makers.get(claims["ticket_of"])
        if auth is None:
            raise invalid_token("unknown_maker")
        if "exp" in claims and self._clock() >= claims["exp"]:
            raise invalid_token("expired")
        try:
            current = await auth._current(claims, connection)  # noqa: SLF001 - of this package, for tickets
        except Unauthorized as error:
            reason = f"maker_{error.reason}"
            raise invalid_token(reason) from None
        # An Auth that looks its credential up returns what it grants now.
        if current is not claims and not auth.covers(current, *claims["scope"].split()):
            raise invalid_token("scope_taken_away")

    async def _in_store(self, change: Any) -> bool:
        try:
            return bool(await change)
        except AuthError:
            raise
        except Exception as error:
            raise ServiceUnavailable(reason="tickets_unreachable") from error

    def _key(self, text: str) -> str:
        return TICKET + digest_of(f"{self.name}|{text}")


def _members(maker: ScopesAuth) -> Iterator[ScopesAuth]:
    for auth in members_of(maker):
        if not isinstance(auth, ScopesAuth) or isinstance(auth, TicketAuth):
            msg = f"maker is an Auth with scopes, such as a SessionAuth or a JWTAuth, not {shown(auth)}"
            raise ConfigurationError(msg)
        yield auth


def _extra_claims(names: Iterable[str]) -> tuple[str, ...]:
    listed = texts_of("keeps", names, "of claims")
    if not _RESERVED.isdisjoint(listed):
        msg = f"keeps is a list of claims, none of {', '.join(sorted(_RESERVED))}: a ticket grants its scopes alone"
        raise ConfigurationError(msg)
    return listed


def _validator_of(makers: Iterable[ScopesAuth]) -> ScopeValidator:
    first, *others = (auth.scope_validator for auth in makers)
    if not all(decide_alike(first, other) for other in others):
        msg = "a ticket grants what its maker's scopes cover: give all members the same scope validator"
        raise ConfigurationError(msg)
    return first


def _expiry_of(claims: Claims) -> float | None:
    expires = claims.get("exp")
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float)):
        raise invalid_token("malformed_claim")
    return expires


def _is_path(path: object) -> bool:
    return isinstance(path, str) and len(path) <= _MAX_PATH_CHARACTERS and _PATH.fullmatch(path) is not None


def _is_for(path: str | None, connection: HTTPConnection | None) -> bool:
    if path is not None and connection is None:
        return False
    if connection is None:
        return True
    scope = connection.scope
    is_get = scope["type"] == "websocket" or scope["method"] == "GET"
    return is_get and (path is None or unquote(path) in paths_of(scope))


def _written(ticket: Mapping[str, Any]) -> str:
    encoded = json.dumps(ticket, separators=(",", ":")).encode("ascii")
    text = f"{secrets.token_urlsafe(_SECRET_BYTES)}.{urlsafe_b64encode(encoded).decode('ascii').rstrip('=')}"
    if len(text) > MAX_CHARACTERS:
        msg = "the claims, the scopes and the path are too long for a ticket, which is part of a URL"
        raise ValueError(msg)
    return text
