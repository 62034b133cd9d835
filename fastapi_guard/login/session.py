"""Sessions in a cookie: a random id in the browser, everything else in a store.

Only the hash of the id is stored. The id is new at each login and each step-up. A session expires some time after it
was last used, and in any case some time after the login.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, Unpack

from fastapi import Response
from starlette.requests import HTTPConnection

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, EventName, place_of, publish, who_of
from fastapi_guard.exceptions import NOT_AUTHENTICATED, Forbidden, Unauthorized, invalid_token
from fastapi_guard.login.client import Client
from fastapi_guard.login.cookies import CookieSettings
from fastapi_guard.login.lookup import ended_by
from fastapi_guard.login.outcome import Complete
from fastapi_guard.login.session_record import Lifetimes, Session, Sessions, end_or_successor
from fastapi_guard.login.session_schemes import SessionScheme, StarletteSessionScheme
from fastapi_guard.login.state import EXPIRY_SLACK_SECONDS, check_name, claim, digest_of, owner_of
from fastapi_guard.schemes.origin import is_same_origin
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import clock_of, instance_of, store_of
from fastapi_guard.stores.cached import CacheLimits, reader
from fastapi_guard.stores.kinds import SESSION
from fastapi_guard.stores.later import LaterReplacements
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import readable

__all__ = ["Session", "SessionAuth", "SessionScheme", "StarletteSessionScheme"]

_ID_BYTES: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class SessionAuth(ScopesAuth):
    """Sessions: ``login`` begins one, and from then on its claims are what the guards of this Auth return.

    Its ``name`` is stored with each session: a session of an Auth of another name is unknown here.
    """

    name = "session"
    _missing_detail = NOT_AUTHENTICATED
    _invalid_detail = NOT_AUTHENTICATED

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        store: Store,
        scope_validator: ScopeValidator | None = None,
        *,
        cookie_settings: CookieSettings | None = None,
        idle_lifetime: timedelta = timedelta(hours=1),
        absolute_lifetime: timedelta = timedelta(hours=12),
        cache_ttl: timedelta | float | None = None,
        cache_size: int | None = None,
        fresh_within: timedelta | float | None = None,
        realm: str = "api",
        clock: Callable[[], float] = time.time,
        **options: Unpack[ScopesOptions],
    ) -> None:
        """Store sessions in ``store``, and set their ids as a cookie.

        Args:
            store: Where the sessions are.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            cookie_settings: The attributes of the cookie, by default CookieSettings().
            idle_lifetime: How long a session is valid that is not used.
            absolute_lifetime: How long a session is valid, however much it is used; the ``Max-Age`` of the cookie.
            cache_ttl: How long a session is cached, at most an hour. Off by default.
            cache_size: How many sessions are cached, by default 10,000.
            fresh_within: How soon the end of a cached session in another process counts, by default a second.
            realm: The protection space in a challenge.
            clock: Seconds since the epoch.
            options: See ScopesOptions.

        Raises:
            ConfigurationError: An argument has the wrong type, a lifetime is not positive, another SessionAuth has the
                name on this store, or a cache is out of its range or on a store whose changes cannot be read.
        """
        cookie = cookie_settings or CookieSettings()
        self.cookie_settings: CookieSettings = instance_of("cookie_settings", cookie, CookieSettings, "CookieSettings")
        super().__init__(SessionScheme(cookie.name, realm=realm), scope_validator, **options)
        self._lifetimes = Lifetimes.of(idle_lifetime, absolute_lifetime)
        claim("SessionAuths", store, check_name(self.name), self, 'pass SessionAuth(store, name="...")')
        self._store = store_of("store", store)
        limits = CacheLimits.of(cache_ttl, cache_size, fresh_within)
        self._read = reader(store, limits, slack_seconds=EXPIRY_SLACK_SECONDS, clock=clock)
        self._uses = LaterReplacements(store)
        self._clock = clock_of(clock)

    async def verify(self, raw: str) -> Claims:
        """Return the claims of the session with this id, and note that it was used, at most once a minute.

        Uses are stored together, one to two seconds later; ``aclose`` stores what was noted last.

        Raises:
            Unauthorized: There is no such session, or it has expired.
            ServiceUnavailable: The store cannot be reached, or the record of the session cannot be read.
        """
        return await self._claims_of(self._id_of(raw))

    async def aclose(self) -> None:
        """Store the uses of sessions that were noted, at the end of the application."""
        await self._uses.aclose()

    async def login(
        self, response: Response, claims: Mapping[str, Any] | Complete, *, connection: HTTPConnection
    ) -> Session:
        """Begin a session with these claims, under a new id; the session that the connection came with ends.

        The response is not stored by a cache (``Cache-Control: no-store``).

        Args:
            response: Receives the cookie.
            claims: A login that is complete, or claims of another kind of login, JSON throughout. ``sub`` is whose
                session it is; ``sid``, ``iat``, ``exp`` and ``auth_time`` are added.
            connection: The request of the login.

        Raises:
            ValueError: There is no ``sub``, or a claim is not JSON.
            Unauthorized: The user of the login has changed in the meantime; there is no session.
            ServiceUnavailable: The store cannot be reached.
        """
        outcome, now = claims if isinstance(claims, Complete) else None, self._clock()
        client = Client.of(connection) if outcome is None else outcome.client
        given = claims.claims if isinstance(claims, Complete) else dict(claims)
        raw, session = self._new(given, client, now, now)
        record = session.record(self.name)
        await self._end_presented(connection)
        await self._store.add(record)
        if outcome is not None:
            try:
                await outcome.confirm(session.id)
            except BaseException:
                await self._store.delete(record.key)
                raise
        self._publish("session_started", session, connection)
        self.cookie_settings.set(response, raw, max_age=int(self._lifetimes.absolute))
        return session

    async def renew(
        self, response: Response, session_id: str, changes: Mapping[str, Any], *, connection: HTTPConnection
    ) -> Session:
        """Replace a session by one with a new id and changed claims, as after a step-up.

        Args:
            response: Receives the cookie.
            session_id: The claim ``sid`` of the session.
            changes: Claims that take the place of those of the session, such as ``amr``.
            connection: The request, whose client the session has from now on.

        Raises:
            Unauthorized: The session was revoked or has expired in the meantime.
            ServiceUnavailable: The store cannot be reached.
        """
        now = self._clock()
        [record] = await self._store.get(SESSION + session_id)
        old = None if record is None else self._valid(record, now)
        if old is None:
            raise Unauthorized(NOT_AUTHENTICATED, reason="unknown_session")
        raw, renewed = self._new({**old.claims, **changes}, Client.of(connection), old.created_at, now)
        await self._store.add(renewed.record(self.name))
        await self._store.add(old.replaced(renewed))
        if not await self._end(old, connection):
            await self._store.delete(SESSION + renewed.id)
            raise Unauthorized(NOT_AUTHENTICATED, reason="unknown_session")
        self._publish("session_started", renewed, connection)
        self.cookie_settings.set(response, raw, max_age=max(0, int(old.created_at + self._lifetimes.absolute - now)))
        return renewed

    async def logout(self, response: Response, *, connection: HTTPConnection) -> bool:
        """End the session that the connection came with, as ``end`` does, and delete the cookie.

        Raises:
            ServiceUnavailable: The store cannot be reached; the session is still valid.
        """
        ended = await self._end_presented(connection)
        self.cookie_settings.delete(response)
        return ended

    def check_origin(self, connection: HTTPConnection) -> None:
        """Reject a request from another site's page: for a login and a logout, which have no guard of this Auth.

        Raises:
            Forbidden: It does not come from the application's own pages, nor from a trusted origin.
        """
        if not is_same_origin(connection, self._trusted_origins):
            raise Forbidden(reason="cross_origin")

    async def list(self, subject: str, *, issuer: str | None = None) -> Sessions:
        """Return the valid sessions of ``subject``, the oldest first, without those that cannot be read.

        Args:
            subject: The ``sub`` of their claims.
            issuer: The ``iss`` of their claims, where they have one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        now = self._clock()
        found = await self._store.find(owner_of(subject, issuer))
        own = (record for record in found if record.key.startswith(SESSION))
        valid = readable(own, lambda record: self._valid(record, now))
        return sorted([session for session in valid if session is not None], key=lambda session: session.created_at)

    async def end(self, session_id: str, *, connection: HTTPConnection | None = None) -> bool:
        """End a session by its ``id``, or what a step-up has put in its place; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """

        async def end(known: str) -> bool:
            [record] = await self._store.get(SESSION + known)
            return record is not None and await self._end(self._endable(record), connection)

        return await end_or_successor(session_id, self._store, end)

    async def end_device(self, sid: str) -> bool:
        """End a session by its ``sid``, as ``end`` does: the method that a logout at a provider calls.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self.end(sid)

    async def end_all(
        self,
        subject: str,
        *,
        keep: str | None = None,
        issuer: str | None = None,
        connection: HTTPConnection | None = None,
    ) -> int:
        """End the sessions of ``subject``; return how many there were. One that cannot be read ends uncounted.

        Args:
            subject: The ``sub`` of their claims.
            keep: The id of a session that continues, such as the ``sid`` of the caller's claims.
            issuer: The ``iss`` of their claims, where they have one.
            connection: The request, for the events.

        Raises:
            ServiceUnavailable: The store cannot be reached; some sessions may not have ended.
        """
        found = await self._store.find(owner_of(subject, issuer))
        own = [self._endable(record) for record in found if record.key.startswith(SESSION)]
        rest = [session for session in own if session is not None and session.id != keep]
        return await ended_by(partial(self.end, one.id, connection=connection) for one in rest)

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """End the sessions of ``subject``: the method that Login and Revocations call.

        Raises:
            ServiceUnavailable: The store cannot be reached; some sessions may not have ended.
        """
        return await self.end_all(subject, keep=keep, issuer=issuer)

    async def _current(self, principal: Claims, connection: HTTPConnection | None) -> Claims:  # noqa: ARG002
        return await self._claims_of(str(principal.get("sid")))

    async def _claims_of(self, session_id: str) -> Claims:
        [record] = await self._read(SESSION + session_id)
        now = self._clock()
        session = None if record is None else self._valid(record, now)
        if record is None or session is None:
            raise invalid_token("unknown_session")
        if now - session.seen_at >= self._lifetimes.written_every:
            await self._see(record, session, now)
        return session.claims

    def _new(self, claims: Claims, client: Client, created_at: float, seen_at: float) -> tuple[str, Session]:
        raw = secrets.token_urlsafe(_ID_BYTES)
        return raw, Session.begun(self._id_of(raw), claims, client, self._lifetimes, (created_at, seen_at))

    def _endable(self, record: Record) -> Session | None:
        return Session.read_to_end(record, self.name, self._lifetimes.expiry)

    def _valid(self, record: Record, now: float) -> Session | None:
        session = Session.read(record, self.name, self._lifetimes.expiry)
        return session if session is not None and now < session.expires_at else None

    def _id_of(self, raw: str) -> str:
        # With the name: an id that was issued by another SessionAuth is unknown here, and cannot be ended here.
        return digest_of(f"{self.name}|{raw}")

    async def _see(self, record: Record, session: Session, now: float) -> None:
        expires_at = self._lifetimes.expiry(session.created_at, now)
        seen = replace(session, seen_at=now, expires_at=expires_at).record(self.name)
        # Compared and swapped: a session that ends in this moment does not come back, and of several requests one
        # writes.
        if self._lifetimes.is_written_later(session.expires_at, now):
            self._uses.replace(record, seen)
        else:
            await self._uses.replace_now(record, seen)

    async def _end_presented(self, connection: HTTPConnection) -> bool:
        try:
            raw = self.scheme.extract(connection)
        except Unauthorized:
            return False
        return raw is not None and bool(_ID.fullmatch(raw)) and await self.end(self._id_of(raw), connection=connection)

    async def _end(self, session: Session | None, connection: HTTPConnection | None) -> bool:
        if session is None or not await self._store.delete(SESSION + session.id) or session.expires_at <= self._clock():
            return False
        self._publish("session_ended", session, connection)
        return True

    def _publish(self, name: EventName, session: Session, connection: HTTPConnection | None) -> None:
        publish(Event(name, self.name, **who_of(session.claims), **place_of(connection)), self._on_event)
