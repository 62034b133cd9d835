"""The memo of a decision belongs to what was presented: method, header fields, query string, or what a scheme read."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Path, Request
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from fastapi_guard import APIKeyScheme, BearerScheme, ScopesAuth, Unauthorized
from fastapi_guard.app.starlette import GuardBackend, on_error
from fastapi_guard.auth import Verified
from fastapi_guard.login.session_schemes import StarletteSessionScheme
from fastapi_guard.schemes import Scheme
from support.asgi import call, call_scope, request


class Subjects(ScopesAuth):
    """An Auth whose credential is the subject; ``eve`` is refused."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Return the credential as the subject, with all scopes where it is ``root``."""
        if raw == "eve":
            raise Unauthorized("Refused")
        return {"sub": raw, "scope": "*"}


class Stored(Subjects):
    """The same, where a bare ``*`` is every scope."""

    _trusts_everything = True


class Unfamiliar(Subjects):
    """The same for credentials that begin with ``x-``."""

    def recognises(self, raw: str) -> bool:
        """Return whether it begins so."""
        return raw.startswith("x-")


Middleware = Callable[[dict[str, Any]], None]


def behind(auth: ScopesAuth, middleware: Middleware, **session: Any) -> FastAPI:
    """Return an application with GuardBackend outside of a middleware that changes the scope."""
    app = FastAPI()

    class Changing:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            middleware(scope)
            await self.inner(scope, receive, send)

    class Session:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["session"] = dict(session)
            await self.inner(scope, receive, send)

    app.add_middleware(Changing)
    app.add_middleware(AuthenticationMiddleware, backend=GuardBackend(auth), on_error=on_error)
    app.add_middleware(Session)

    @app.get("/")
    @app.delete("/")
    async def index(claims: Annotated[Any, auth.authenticated()]) -> Any:
        return claims["sub"]

    return app


@pytest.mark.parametrize("several", [False, True])
def test_a_method_that_is_overridden(several: bool) -> None:
    """A cookie that was verified on a safe method is decided again on another one, by the same-origin rule."""
    auth: Any = Subjects(APIKeyScheme("sid", "cookie"))
    auth = auth | Subjects(name="bearer") if several else auth
    fields = [(b"cookie", b"sid=ada"), (b"sec-fetch-site", b"cross-site")]
    assert request(behind(auth, lambda _: None), "/", fields).json == "ada"
    answer = request(behind(auth, lambda scope: scope.update(method="DELETE")), "/", fields)
    assert (answer.status, answer.json) == (403, {"detail": "Forbidden"})


@pytest.mark.parametrize("several", [False, True])
def test_a_session_that_is_changed(several: bool) -> None:
    """A user that a middleware removed from the session, or put into it, counts for the guards behind it."""
    auth: Any = Subjects(StarletteSessionScheme())
    auth = auth | Subjects(name="bearer") if several else auth
    statuses = {
        "none": request(behind(auth, lambda _: None, user="ada")).status,
        "cleared": request(behind(auth, lambda scope: scope["session"].clear(), user="ada")).status,
        "malformed": request(behind(auth, lambda scope: scope["session"].update(user=[]), user="ada")).status,
        "other": request(behind(auth, lambda scope: scope["session"].update(user="bob"), user="ada")).json,
        "added": request(behind(auth, lambda scope: scope["session"].update(user="bob"))).json,
        "refused": request(behind(auth, lambda scope: scope["session"].update(user="eve"), user="ada")).status,
    }
    expected = {"none": 200, "cleared": 401, "malformed": 401, "other": "bob", "added": "bob", "refused": 401}
    assert statuses == expected


async def test_a_scheme_of_the_application() -> None:
    """A scheme that reads anything else of the connection is read again, unless it declares that it reads fields."""

    class Certificate(Scheme):
        def extract(self, connection: HTTPConnection) -> str | None:
            name: str | None = connection.scope["extensions"].get("subject")
            return name

    class Marked(Certificate):
        reads_fields_alone = True

    model = APIKeyScheme("X-Key").model
    for kind, seen in ((Certificate, "bob"), (Marked, "ada")):
        auth = Subjects(kind(model, "Certificate", "api"))
        connection = HTTPConnection({"type": "http", "headers": [], "extensions": {"subject": "ada"}})
        first = await auth.decide(connection)
        assert await auth.decide(connection) is first
        connection.scope["extensions"]["subject"] = "bob"
        again = await auth.decide(connection)
        assert isinstance(again, Verified)
        assert again.principal["sub"] == seen


class FromElsewhere:
    """A mixin whose credential is somewhere else."""

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the credential."""


@pytest.mark.parametrize("parent", [BearerScheme, APIKeyScheme])
def test_another_extract(parent: type[Scheme]) -> None:
    """A subclass whose `extract` is another one is not taken to read fields alone, unless it declares it again."""
    overriding = type("Overriding", (parent,), {"extract": FromElsewhere.extract})
    mixed = type("Mixed", (FromElsewhere, parent), {})
    plain = type("Plain", (parent,), {"realm": "own"})
    again = type("Again", (overriding,), {"reads_fields_alone": True})
    kinds: list[Any] = [plain, overriding, mixed, again, type("Below", (overriding,), {})]
    assert [kind.reads_fields_alone for kind in kinds] == [True, False, False, True, False]


async def in_the_path(token: Annotated[str, Path()]) -> str:
    """Return the credential, a part of the path; ``-`` stands for a missing one."""
    return "" if token == "-" else token


@pytest.mark.parametrize("several", [False, True])
def test_a_credential_that_fastapi_resolves(several: bool) -> None:
    """A copied scope with another path has the credential of that path."""
    auth: Any = Subjects(in_the_path)
    auth = auth | Unfamiliar(name="bearer") if several else auth
    app = FastAPI(dependencies=[auth.authenticated()])

    @app.get("/{token}")
    async def index(claims: Annotated[Any, auth.requires_any("*")], token: str) -> Any:
        return claims["sub"]

    @app.get("/{token}/batch")
    async def batch(request_: Request, token: str) -> list[Any]:
        answers = []
        for other in ("ada", "bob", "eve", "-"):
            scope = {"path": f"/{other}", "raw_path": f"/{other}".encode()}
            kept = {key: value for key, value in request_.scope.items() if key.startswith("fastapi_guard")}
            copied = {name: request_.scope[name] for name in ("type", "method", "headers", "query_string", "root_path")}
            answer = await call_scope(app, {**copied, **kept, **scope})
            answers.append(answer.json if answer.status == 200 else answer.status)
        return answers

    assert request(app, "/ada/batch").json == ["ada", "bob", 401, 401]


async def test_requests_at_the_same_time() -> None:
    """Requests with copies of one scope are decided apart: each by the member that verified it, while others run."""
    stored = Stored(APIKeyScheme("X-Key"), name="stored")
    auth = stored | Subjects(name="plain")
    app = FastAPI(dependencies=[auth.authenticated()])
    both = asyncio.Barrier(2)

    async def load() -> Any:
        await both.wait()
        return SimpleNamespace(owner="somebody")

    @app.get("/")
    async def index(post: Annotated[Any, auth.owned(load, owner="owner", or_scope="posts:edit")]) -> str:
        return str(post.owner)

    @app.get("/batch")
    async def batch(request_: Request) -> list[int]:
        names = ("type", "method", "headers", "query_string", "root_path", "fastapi_guard.decided")
        base = {name: request_.scope[name] for name in names}
        fields = ([(b"authorization", b"Bearer carol")], [(b"x-key", b"ada")])
        scopes = [{**base, "path": "/", "raw_path": b"/", "headers": headers, "state": {}} for headers in fields]
        answers = await asyncio.gather(*(call_scope(app, scope) for scope in scopes))
        return [answer.status for answer in answers]

    assert (await call(app, "/batch", None, (b"x-key", b"ada"))).json == [403, 200]
