"""Sessions in a browser: begin one with a password, end it, look at one's own."""

from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import FORBIDDEN
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.routers.bodies import described, required, texts_in
from fastapi_guard.routers.responses import NeverStoredRoute, never_stored


class PasswordCheck(Protocol):
    """Who knows the passwords: a LocalAuth."""

    async def check_password(self, username: str, password: str, *, connection: HTTPConnection | None = None) -> Claims:
        """Return the claims of the user, or raise."""
        ...  # pragma: no cover


class OwnSession(BaseModel):
    """One of the caller's sessions.

    Attributes:
        id: What to end it by.
        created_at: Seconds since the epoch.
        seen_at: Seconds since the epoch, to the minute.
        expires_at: Seconds since the epoch.
        current: Whether it is the one that asks.
    """

    id: str
    created_at: float
    seen_at: float
    expires_at: float
    current: bool


def session_router(sessions: SessionAuth, auth: PasswordCheck | None = None, *, prefix: str = "") -> APIRouter:
    """Serve ``POST /login`` and ``/logout``, ``GET`` and ``DELETE /sessions``, ``DELETE /sessions/{id}``.

    None of the answers is to be stored, and whatever changes something has to come from the application's own pages.

    Args:
        sessions: Whose sessions.
        auth: Who checks the password; without it there is no ``/login``.
        prefix: Put before each path.
    """
    router = APIRouter(
        prefix=prefix, route_class=NeverStoredRoute, dependencies=[Depends(never_stored)], tags=["sessions"]
    )
    cross_origin: dict[int | str, dict[str, Any]] = {403: {"description": FORBIDDEN}}
    if auth is not None:
        _serve_login(router, sessions, auth)

    @router.post("/logout", summary="Log out", status_code=204, responses=cross_origin)
    async def logout(request: Request, response: Response) -> None:
        """End the session that came with the request, where there is one."""
        sessions.check_origin(request)
        await sessions.logout(response, connection=request)

    @router.get("/sessions", summary="List one's sessions")
    async def own(claims: Annotated[Claims, sessions.authenticated()]) -> list[OwnSession]:
        return [_shown(each, claims.get("sid")) for each in await sessions.list(claims["sub"])]

    @router.delete("/sessions", summary="End one's other sessions")
    async def end_others(claims: Annotated[Claims, sessions.authenticated()]) -> dict[str, int]:
        return {"ended": await sessions.end_all(claims["sub"], keep=claims["sid"])}

    @router.delete(
        "/sessions/{session_id}",
        summary="End one of one's sessions",
        status_code=204,
        responses={404: {"description": "Not Found"}},
    )
    async def end_one(session_id: str, claims: Annotated[Claims, sessions.authenticated()]) -> None:
        if session_id not in {each.id for each in await sessions.list(claims["sub"])}:
            raise HTTPException(404)
        await sessions.end(session_id)

    return router


def _serve_login(router: APIRouter, sessions: SessionAuth, auth: PasswordCheck) -> None:
    statuses: dict[int | str, dict[str, Any]] = {
        401: {"description": "Unauthorized"},
        403: {"description": FORBIDDEN},
        422: {"description": "Unprocessable Content"},
        429: {"description": "Too Many Requests"},
        503: {"description": "Service Unavailable"},
    }

    @router.post(
        "/login",
        summary="Log in",
        status_code=204,
        responses=statuses,
        openapi_extra=described(["username", "password"]),
    )
    async def login(request: Request, response: Response) -> None:
        """Begin a session with a username, in JSON also called ``email``, and a password."""
        # Another site's page must not log somebody in as somebody else.
        sessions.check_origin(request)
        texts = await texts_in(request)
        username, password = required(texts, "username", "email"), required(texts, "password")
        claims = await auth.check_password(username, password, connection=request)
        await sessions.login(response, claims, connection=request)


def _shown(session: Session, current: object) -> OwnSession:
    return OwnSession(
        id=session.id,
        created_at=session.created_at,
        seen_at=session.seen_at,
        expires_at=session.expires_at,
        current=session.id == current,
    )
