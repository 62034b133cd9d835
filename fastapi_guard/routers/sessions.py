"""Log in with a session in a cookie, by JSON or by the forms of pages, and list and end one's sessions."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from fastapi_guard.claims import Claims
from fastapi_guard.login.cookies import CookieSettings, cookie_in, cookie_name
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.login.state import issuer_of
from fastapi_guard.routers.devices import Device
from fastapi_guard.routers.form_pages import PageRoute
from fastapi_guard.routers.login_pages import LoginPages, form_of
from fastapi_guard.routers.responses import PathText, Responses, described_statuses, never_stored_router
from fastapi_guard.routers.steps import SecondStepNeeded, add_login, add_step_up
from fastapi_guard.stores.arguments import instance_of


def session_router(
    sessions: SessionAuth, login: Login | LocalAuth | None = None, *, prefix: str = "", pages: LoginPages | None = None
) -> APIRouter:
    """Serve ``/login`` and its steps, ``/logout``, and ``/sessions``, where callers list and end their sessions.

    Each response has ``Cache-Control: no-store``. A request of another site's page that changes something is a 403.

    Args:
        sessions: The sessions. A change of password of a user of ``login`` ends those of the user.
        login: The Login, or a LocalAuth for its Login; without it there are only ``/logout`` and ``/sessions``.
        prefix: Put before each path.
        pages: The pages that a form post is redirected to; without them a form post has the same answer as JSON.

    Raises:
        ConfigurationError: An argument has the wrong type.
    """
    instance_of("sessions", sessions, SessionAuth, "a SessionAuth")
    instance_of("login", login, (Login, LocalAuth, type(None)), "a Login, a LocalAuth or None")
    instance_of("pages", pages, (LoginPages, type(None)), "LoginPages or None")
    router = never_stored_router(prefix, ["sessions"], route_class=PageRoute)
    if isinstance(login, LocalAuth):
        login = login.gate
    if login is not None:
        login.ends(sessions)
        answers = SessionAnswers(sessions, login, pages)
        add_login(router, login, answers)
        add_step_up(router, login, answers, sessions.authenticated())

    @router.post("/logout", summary="Log out", status_code=204, responses=described_statuses(403, 503))
    @form_of("logout", pages)
    async def logout(request: Request, response: Response) -> None:
        """End the session that came with the request, where there is one."""
        sessions.check_origin(request)
        await sessions.logout(response, connection=request)

    @router.get("/sessions", summary="List one's sessions")
    async def own(claims: Annotated[Claims, sessions.authenticated()]) -> list[Device]:
        """Return the sessions of the caller, the oldest first."""
        return [_device(session, claims.get("sid")) for session in await _own(sessions, claims)]

    @router.delete("/sessions", summary="End one's other sessions")
    async def end_others(request: Request, claims: Annotated[Claims, sessions.authenticated()]) -> dict[str, int]:
        """End every session of the caller but this one."""
        ended = await sessions.end_all(claims["sub"], keep=claims["sid"], issuer=issuer_of(claims), connection=request)
        return {"ended": ended}

    @router.delete(
        "/sessions/{session_id}",
        summary="End one of one's sessions",
        status_code=204,
        responses=described_statuses(404),
    )
    async def end_one(
        session_id: PathText, request: Request, claims: Annotated[Claims, sessions.authenticated()]
    ) -> None:
        """End a session of the caller."""
        if session_id not in {session.id for session in await _own(sessions, claims)}:
            raise HTTPException(404)
        await sessions.end(session_id, connection=request)

    return router


class SessionAnswers:
    """Responds to a login with a session; the pending login is in a cookie."""

    def __init__(self, sessions: SessionAuth, login: Login, pages: LoginPages | None = None) -> None:
        """Begin ``sessions`` of the users of ``login``, and redirect forms to ``pages``."""
        self.pages: LoginPages | None = pages
        self._sessions = sessions
        self._pending = CookieSettings(name=cookie_name("pending", f"{sessions.name}-{login.name}"))

    @property
    def responses(self) -> Responses:
        """A response without a body."""
        return {204: {"description": "No Content"}}

    @property
    def renewed(self) -> Responses:
        """A response without a body, as to a login."""
        return self.responses

    def check(self, request: Request, *, sets_cookie: bool = False) -> None:  # noqa: ARG002 - each of them does
        """Reject a request of another site's page."""
        self._sessions.check_origin(request)

    async def complete(self, request: Request, outcome: Complete, fields: Mapping[str, Any]) -> Response:  # noqa: ARG002
        """Begin a session."""
        response = Response(status_code=204)
        await self._sessions.login(response, outcome, connection=request)
        if cookie_in(request, self._pending) is not None:
            self._pending.delete(response)
        return response

    def pending(self, pending: Pending) -> Response:
        """Put the pending login into a cookie."""
        needed = SecondStepNeeded(factors=pending.factors, expires_in=pending.expires_in)
        response = JSONResponse(needed.model_dump(exclude_none=True), 202)
        self._pending.set(response, pending.id, max_age=pending.expires_in)
        return response

    def pending_id(self, request: Request, fields: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - in a cookie
        """Return the id in the cookie."""
        return cookie_in(request, self._pending)

    async def renew(self, request: Request, claims: Claims, outcome: Complete) -> Response:
        """Put a session with a new id in the place of this one."""
        response = Response(status_code=204)
        renewed = await self._sessions.renew(response, claims["sid"], outcome.kept, connection=request)
        try:
            # The listeners of a Login end sessions by their id, as a logout at a provider does.
            await outcome.confirm(renewed.id, renewed=renewed.claims)
        except BaseException:
            await self._sessions.end(renewed.id, connection=request)
            raise
        return response

    async def is_valid(self, claims: Claims) -> bool:
        """Return whether the session is there."""
        return claims["sid"] in {session.id for session in await _own(self._sessions, claims)}


async def _own(sessions: SessionAuth, claims: Claims) -> list[Session]:
    # The same subject of another issuer is another one.
    return await sessions.list(claims["sub"], issuer=issuer_of(claims))


def _device(session: Session, current: object) -> Device:
    return Device(
        id=session.id,
        address=session.client.address,
        user_agent=session.client.agent,
        created_at=session.created_at,
        seen_at=session.seen_at,
        expires_at=session.expires_at,
        current=session.id == current,
    )
