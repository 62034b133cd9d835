"""Make a guarded application, send requests to it, and check its refusals."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import httpx2
from fastapi import FastAPI, Request

from fastapi_guard import Auth

INVALID = {"detail": "The access token is invalid"}
EXPIRED = {"detail": "The access token has expired"}
UNAVAILABLE = {"detail": "Service temporarily unavailable"}
INVALID_CHALLENGE = 'Bearer realm="api", error="invalid_token", error_description="The access token is invalid"'
EXPIRED_CHALLENGE = 'Bearer realm="api", error="invalid_token", error_description="The access token has expired"'


def guarded_app(auth: Auth[Any], *scopes: str) -> FastAPI:
    """Return an application with a guarded route that returns the subject, the provider and the name of the Auth."""
    app = FastAPI()

    @app.get("/items")
    @app.post("/items")
    async def items(
        request: Request, claims: Annotated[Any, auth.requires(*scopes) if scopes else auth.authenticated()]
    ) -> dict[str, Any]:
        state = request.state
        return {"sub": claims["sub"], "provider": getattr(state, "auth_provider", None), "by": state.auth_method}

    return app


async def send(
    app: Any,
    token: str | None = None,
    *,
    scheme: str = "Bearer",
    method: str = "GET",
    path: str = "/items",
    headers: Mapping[str, Any] | Sequence[tuple[str, str]] = (),
) -> httpx2.Response:
    """Return the response to one request."""
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    if token is not None:
        fields.append(("Authorization", f"{scheme} {token}"))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://api.example") as client:
        return await client.request(method, path, headers=fields)


def run_in_new_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a new event loop, in a thread that ends with it, and return its result."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def assert_refused(
    response: httpx2.Response, body: Mapping[str, str] = INVALID, challenge: str = INVALID_CHALLENGE
) -> None:
    """Assert a 401 with this body and this challenge."""
    assert response.status_code == 401, response.text
    assert response.json() == body
    assert response.headers["WWW-Authenticate"] == challenge


def assert_unavailable(response: httpx2.Response) -> None:
    """Assert a 503 with a Retry-After field and no challenge."""
    assert response.status_code == 503, response.text
    assert response.json() == UNAVAILABLE
    assert int(response.headers["Retry-After"]) >= 1
    assert "WWW-Authenticate" not in response.headers
