"""The application: the library's routers answer the forms, and the pages here show them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse
from starlette.middleware.base import RequestResponseEndpoint

from fastapi_guard import AuthError, Unauthorized, configure_app
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.form_pages import FormPage
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.routers.sessions import session_router

from .account_pages import account_router
from .development import development_router
from .entry_pages import entry_router
from .html import Html
from .key_pages import keys_router
from .parts import Parts, Settings
from .security_pages import security_router

STATIC = Path(__file__).parent / "static"
# Scripts and styles are files of the application. A provider elsewhere is one more origin after form-action: its
# pages are where the form of "Link" leads.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PUBLIC = [
    "/static/{name}",
    "/login",
    "/login/*",
    "/logout",
    "/register",
    "/register/sent",
    "/verify",
    "/verify/resend",
    "/forgot",
    "/forgot/sent",
    "/reset",
    "/invitations/accept",
    "/providers",
    "/providers/*",
    "/messages",
    "/development/authorize",
]


def create_app(settings: Settings) -> FastAPI:
    """Return the application. It does not start with an unguarded route that is not in the list of public ones."""
    parts, html = Parts(settings), Html(settings.base)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await parts.create_tables()
        yield
        await parts.aclose()

    app = FastAPI(title="Accounts", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.parts = parts
    _add_routers(app, parts, html)
    _add_files(app)
    _add_answers(app, html, settings)
    configure_app(app, unguarded="refuse", public=PUBLIC)
    return app


def _add_routers(app: FastAPI, parts: Parts, html: Html) -> None:
    base = html.base
    pages = LoginPages(
        done=f"{base}/",
        login=f"{base}/login",
        second=f"{base}/login/second",
        logged_out=f"{base}/login",
        step_up=f"{base}/step-up",
    )
    factors = FormPage(done=f"{base}/security?notice=removed", failed=f"{base}/security")
    forms = {
        "register": FormPage(done=f"{base}/register/sent", failed=f"{base}/register"),
        "verify": FormPage(done=f"{base}/login?notice=verified", failed=f"{base}/verify", kept=("token",)),
        "forgot": FormPage(done=f"{base}/forgot/sent", failed=f"{base}/forgot"),
        "reset": FormPage(done=f"{base}/login?notice=reset", failed=f"{base}/reset", kept=("token",)),
        "password": FormPage(done=f"{base}/password?notice=password", failed=f"{base}/password"),
        "delete": FormPage(done=f"{base}/login?notice=deleted", failed=f"{base}/delete"),
    }
    # The pages come first: /login/second is one, and /login/{kind} a route of the library.
    app.include_router(entry_router(html))
    app.include_router(account_router(html, parts))
    app.include_router(security_router(html, parts))
    app.include_router(keys_router(html, parts))
    app.include_router(development_router(html, parts.mailbox, parts.provider, parts.sessions))
    app.include_router(session_router(parts.sessions, parts.login, pages=pages))
    app.include_router(accounts_router(parts.accounts, parts.sessions, pages=forms))
    app.include_router(factors_router(parts.login, parts.sessions, pages={"remove": factors}))
    app.include_router(providers_router(parts.sign_in, parts.sessions, pages=pages))


def _add_files(app: FastAPI) -> None:
    files = {path.name: path for path in STATIC.iterdir()}

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        return FileResponse(files[name]) if name in files else Response(status_code=404)


def _add_answers(app: FastAPI, html: Html, settings: Settings) -> None:
    host = urlsplit(settings.site).netloc

    @app.middleware("http")
    async def protect(request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Answer the one host alone, on which cookies, links and passkeys depend, with a strict policy."""
        if request.headers.get("host") != host:
            return RedirectResponse(f"{settings.site}{html.base}/", 303)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.exception_handler(AuthError)
    async def refused(request: Request, error: AuthError) -> Response:
        """Send a browser without a login to the login, and one with an old login to the step-up."""
        if not _is_page(request):
            return await http_exception_handler(request, error)
        if not isinstance(error, Unauthorized):
            return html.failure(error.status_code, str(error.detail))
        path = request.url.path
        section = path.removeprefix(html.base).split("/")[1]
        # A form cannot be sent again by a redirect: the browser goes back to its page.
        back = {"identities": "security", "account": ""}.get(section, section)
        target = path if request.method == "GET" else f"{html.base}/{back}"
        page = "/step-up" if error.error == "insufficient_user_authentication" else "/login"
        return RedirectResponse(f"{html.base}{page}?next={quote(target, safe='/')}", 303)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        """Show a browser that a form was not filled in as it should be."""
        if not _is_page(request):
            return await request_validation_exception_handler(request, error)
        return html.failure(422, "The form was not filled in as it should be.")


def _is_page(request: Request) -> bool:
    # A navigation of a browser, and no fetch of a script.
    return "text/html" in request.headers.get("accept", "")
