"""The page about the flow of a request lists the functions that requests really pass."""

import asyncio
import gc
import logging
import re
import sys
from pathlib import Path
from types import FrameType

import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from joserfc import jwk
from starlette.authentication import requires
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.types import Message

import fastapi_guard
from fastapi_guard import APIKeyScheme, JWTAuth, JWTConfig, StaticAPIKeyAuth
from fastapi_guard.app.routing import GuardedRoute
from fastapi_guard.app.starlette import GuardBackend, on_error
from support.asgi import scope_of

PACKAGE = Path(fastapi_guard.__file__).parent
PAGE = (Path(__file__).parent.parent / "docs" / "explanation" / "the-flow.md").read_text(encoding="utf-8")
WAYS = {
    "HTTP": "/http",
    "WebSocket": "/websocket",
    "AnyAuth": "/any",
    "GuardBackend": "/backend",
    "GuardedRoute": "/route",
}
auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)))


def valid_token() -> str:
    """Return a token that every way accepts."""
    return auth.encode({"sub": "ada", "scope": "items:read"})


def tampered_token() -> str:
    """Return a token with the signature of another one."""
    signing_input, _, _ = valid_token().rpartition(".")
    return f"{signing_input}.{valid_token().rpartition('.')[2]}"


def application() -> FastAPI:
    """Return an application with a route for each way, apart from that of the middleware."""
    keys = StaticAPIKeyAuth({"sk-0123456789abcdef0123": {"user_id": "robot"}}, scheme=APIKeyScheme("X-Key"))
    app = FastAPI()

    @app.get("/http", dependencies=[auth.requires("items:read")])
    async def over_http() -> None: ...

    @app.websocket("/websocket", dependencies=[auth.requires("items:read")])
    async def over_websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    @app.get("/any", dependencies=[(auth | keys).requires("items:read")])
    async def by_any() -> None: ...

    router = APIRouter(route_class=GuardedRoute)

    @router.get("/route", dependencies=[auth.requires("items:read")])
    async def before_the_body() -> None: ...

    app.include_router(router)
    return app


def application_with_middleware() -> FastAPI:
    """Return an application behind Starlette's middleware, with a route by Starlette's decorator."""
    app = FastAPI()
    app.add_middleware(AuthenticationMiddleware, backend=GuardBackend(auth), on_error=on_error)

    @app.get("/backend")
    @requires("items:read")
    async def behind_middleware(request: Request) -> None: ...

    return app


APPLICATIONS = {way: application() for way in WAYS} | {"GuardBackend": application_with_middleware()}


def passed(way: str, token: str) -> tuple[list[int], list[str]]:
    """Return the statuses that a request on one way leads to, and the functions of the package that it passes.

    A function is listed at its first call, by its module and its qualified name.
    """
    functions: dict[str, None] = {}
    statuses: list[int] = []
    is_websocket = way == "WebSocket"
    sent = ["websocket.connect", "websocket.disconnect"] if is_websocket else ["http.request", "http.disconnect"]
    scope = scope_of(WAYS[way], [(b"authorization", f"Bearer {token}".encode())])
    if is_websocket:
        scope |= {"type": "websocket", "subprotocols": [], "extensions": {"websocket.http.response": {}}}

    def profile(frame: FrameType, event: str, _: object) -> None:  # pragma: no cover - a profiler is not measured
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
            functions[f"{module}.{frame.f_code.co_qualname}"] = None

    async def receive() -> Message:
        return {"type": sent.pop(0), "body": b"", "more_body": False, "code": 1000}

    async def send(message: Message) -> None:
        if "status" in message or message["type"] == "websocket.accept":
            statuses.append(message.get("status", 200))

    async def call() -> None:
        # A collection would run the finalizers of other tests in between.
        gc.disable()
        sys.setprofile(profile)
        try:
            await APPLICATIONS[way](scope, receive, send)
        finally:
            sys.setprofile(None)
            gc.enable()

    asyncio.run(call())
    # A comprehension is a function of its own before Python 3.12.
    return statuses, [name for name in functions if "<locals>.<" not in name]


def listed(title: str, way: str) -> list[str]:
    """Return the functions that the table under a title lists for one way."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| .*? \| ?(.*?) ?\|$", section, flags=re.MULTILINE)
    assert {name for _, only in rows for name in only.split(", ") if name} <= set(WAYS)
    return [function for function, only in rows if not only or way in only.split(", ")]


@pytest.fixture(autouse=True)
def without_log(caplog: pytest.LogCaptureFixture) -> None:
    """Log warnings alone, as an application that has configured nothing."""
    caplog.set_level(logging.WARNING, "fastapi_guard")


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Fill the caches of the process, which a first request does."""
    for way in WAYS:
        passed(way, valid_token())
        passed(way, tampered_token())


@pytest.mark.parametrize("way", WAYS)
def test_an_accepted_request(way: str) -> None:
    """A request with a valid token passes the functions of the page, in their order."""
    statuses, functions = passed(way, valid_token())
    assert statuses == [200]
    assert functions == listed("The functions, in one order", way)


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_request(way: str) -> None:
    """A request with an invalid signature passes the same functions up to the signature, then those of a refusal."""
    statuses, functions = passed(way, tampered_token())
    assert statuses == [401]
    accepted, refused = listed("The functions, in one order", way), listed("A refusal", way)
    common = accepted[: accepted.index("jwt.rules.ClaimRules.check_type")]
    assert functions == common + refused


@pytest.mark.parametrize("title", ["The functions, in one order", "A refusal"])
def test_one_decision_and_one_extraction(title: str) -> None:
    """Each way passes the one decision; in a refusal, the one place that raises it."""
    center = "auth.refusals.Refusals.refuse" if title == "A refusal" else "auth.decision.Decision.decide"
    assert all(listed(title, way).count(center) == 1 for way in WAYS)
