"""An application whose /docs log in at a provider, and that provider at another origin of the same port."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.middleware.cors import CORSMiddleware

from fastapi_guard import BearerScheme, configure_app
from fastapi_guard.app.openapi import swagger_login
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.testing.issuer import FakeIssuer

PAGE = "<h1>Log in</h1><form method='post'><label>Name <input name='name'></label><button>Log in</button></form>"


def provider_of(issuer: FakeIssuer, origin: str) -> FastAPI:
    """Return the pages of an issuer: a form to log in with, and a token endpoint for pages of `origin`."""
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=[origin], allow_methods=["POST"], allow_headers=["*"])

    @app.get("/authorize")
    async def form() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.post("/authorize")
    async def log_in(request: Request, name: Annotated[str, Form()]) -> RedirectResponse:
        return RedirectResponse(issuer.authorize(str(request.url), name), status_code=303)

    @app.post("/token")
    async def token(request: Request) -> Response:
        answer = await issuer.client.post(f"{issuer.url}/token", content=await request.body(), headers=request.headers)
        return Response(answer.content, answer.status_code, media_type="application/json")

    return app


def application(port: int) -> FastAPI:
    """Return the application at 127.0.0.1, with the provider at localhost."""
    issuer = FakeIssuer(f"http://localhost:{port}/id")
    scheme = BearerScheme.authorization_code(
        f"{issuer.url}/authorize",
        f"{issuer.url}/token",
        scopes={"items:read": "Read items", "items:edit": "Edit items"},
    )
    auth = OIDCAuth(issuer=issuer.url, audience="https://api.example", scheme=scheme, client=issuer.client)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        print(f"Serving at http://127.0.0.1:{port}", flush=True)  # noqa: T201 - for the test
        yield

    app = FastAPI(lifespan=lifespan, swagger_ui_init_oauth=swagger_login(auth, "docs", scopes=["items:read"]))

    @app.get("/items")
    async def items(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> dict[str, Any]:
        return {name: claims[name] for name in ("sub", "client_id", "scope")}

    @app.get("/me")
    async def me(claims: Annotated[dict[str, Any], auth.authenticated()]) -> str:
        return str(claims["sub"])

    @app.post("/items")
    @app.delete("/items")
    async def edit(claims: Annotated[dict[str, Any], auth.requires("items:edit")]) -> None:
        """Edit the items of the caller."""

    configure_app(app, public=["/id/*"])
    app.mount("/id", provider_of(issuer, f"http://127.0.0.1:{port}"))
    return app


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as server:
        uvicorn.Server(uvicorn.Config(application(server.getsockname()[1]))).run(sockets=[server])
