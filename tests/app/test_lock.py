"""The authorization lockfile: what is written of an application, and read again."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles

from fastapi_guard import AnyAuth, APIKeyScheme, Auth, ConfigurationError, ScopesAuth, configure_app
from fastapi_guard.app import guarded
from fastapi_guard.app.lock import Authorization, authorization_of
from fastapi_guard.app.mcp import guarded_mcp, guarded_tools
from support.asgi import endpoint


class Tokens(ScopesAuth):
    """An Auth with scopes."""

    name = "tokens"

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept every credential."""
        return {"sub": raw}


def application() -> FastAPI:
    """Return an application with every kind of way in."""
    tokens = Tokens(roles={"editor": ["items:edit"], "all": ["*"]}, default_role="editor")
    keys = Tokens(APIKeyScheme("X-Key"), name="keys")
    either = AnyAuth(tokens, keys)
    app = FastAPI(dependencies=[tokens.optional()])
    app.get("/health")(endpoint)
    app.get("/items", dependencies=[tokens.requires("items:read")])(endpoint)
    app.api_route("/items/{item_id}", methods=["PUT", "HEAD", "GET"], dependencies=[either.requires("items:edit")])(
        endpoint
    )
    own = tokens.owned(endpoint, "items:edit", owner="author", or_scope="items:*", hide=True)
    app.delete("/items/{item_id}", dependencies=[own, tokens.requires_role("editor")])(endpoint)
    app.get("/keys", dependencies=[either.authenticated(via=["keys"])])(endpoint)
    app.get("/present", dependencies=[Auth(APIKeyScheme("X-Any"), name="present").authenticated()])(endpoint)
    router = APIRouter(prefix="/late", dependencies=[Depends(endpoint)])
    router.get("/", dependencies=[tokens.requires_any("b", "a")])(endpoint)
    app.include_router(router)

    @app.websocket("/ws")
    async def socket(socket: WebSocket, claims: Annotated[Any, tokens.requires("items:read")]) -> None: ...

    app.mount("/files", guarded(StaticFiles(directory="."), tokens.requires("files:read")))
    app.mount("/inner", FastAPI(redoc_url=None, openapi_url="/o.json"))
    configure_app(app, public=["/health", "/inner/*"])
    return app


LOCK = """\
# Every way into the application, and what it requires.
# Written by fastapi-guard audit --lock, compared by --check: review a change as a change of permissions.
version = 1

[ways]
"GET /docs" = "documentation"
"GET /docs/oauth2-redirect" = "documentation"
"MOUNT /files" = [{ auth = "tokens", scopes = ["files:read"] }]
"GET /health" = [{ auth = "tokens", optional = true }]
"GET /inner/docs" = "public"
"GET /inner/docs/oauth2-redirect" = "public"
"GET /inner/o.json" = "public"
"GET /items" = [{ auth = "tokens", optional = true }, { auth = "tokens", scopes = ["items:read"] }]
"DELETE /items/{item_id}" = [{ auth = "tokens", optional = true }, { auth = "tokens", scopes = ["items:edit"],\
 rules = ["owner author or items:*, else 404", "role editor"] }]
"GET /items/{item_id}" = [{ auth = "tokens", optional = true }, { auth = "any", via = ["tokens", "keys"],\
 scopes = ["items:edit"] }]
"PUT /items/{item_id}" = [{ auth = "tokens", optional = true }, { auth = "any", via = ["tokens", "keys"],\
 scopes = ["items:edit"] }]
"GET /keys" = [{ auth = "tokens", optional = true }, { auth = "any", via = ["keys"] }]
"GET /late/" = [{ auth = "tokens", optional = true }, { auth = "tokens", rules = ["any of b, a"] }]
"GET /openapi.json" = "documentation"
"GET /present" = [{ auth = "tokens", optional = true }, { auth = "present", presence_only = true }]
"GET /redoc" = "documentation"
"WEBSOCKET /ws" = [{ auth = "tokens", optional = true }, { auth = "tokens", scopes = ["items:read"] }]

[auths."tokens"]
default_role = "editor"
roles."all" = ["*"]
roles."editor" = ["items:edit"]
"""


def test_the_lockfile() -> None:
    """Every way in has a line with what it requires, in the order of paths, and the roles follow."""
    authorization = authorization_of(application())
    assert authorization.text == LOCK
    assert Authorization.parse(LOCK) == authorization


def test_as_json() -> None:
    """JSON has the members of the file."""
    found = authorization_of(application()).as_dict()
    assert (found["version"], len(found["ways"])) == (1, 17)
    assert found["ways"]["GET /keys"] == [{"auth": "tokens", "optional": True}, {"auth": "any", "via": ["keys"]}]
    assert found["ways"]["GET /redoc"] == "documentation"
    assert found["auths"] == {
        "tokens": {"default_role": "editor", "roles": {"all": ["*"], "editor": ["items:edit"]}},
    }


def test_documentation_behind_a_guard() -> None:
    """Pages of the documentation are listed with the guards that `configure_app` puts before them."""
    app = FastAPI(redoc_url=None)
    configure_app(app, docs=Tokens().requires("docs:read"))
    ways = authorization_of(app).ways
    assert {str(access) for access in ways.values()} == {"tokens: docs:read"}
    assert list(ways) == ["GET /docs", "GET /docs/oauth2-redirect", "GET /openapi.json"]


@pytest.mark.parametrize("behind", [True, False], ids=["guarded", "by itself"])
def test_tools_of_an_mcp_server(behind: bool) -> None:
    """Tools with guards of their own are listed below the mount, with the scopes that are required beside it."""
    tokens = Tokens()
    server, tools = PlainTextResponse("an MCP server"), {"delete": tokens.requires("items:delete")}
    app = FastAPI(openapi_url=None)
    mounted = guarded_mcp(server, tokens.requires("use"), tools=tools) if behind else guarded_tools(server, tools)
    app.mount("/mcp", mounted)
    ways = authorization_of(app).ways
    scopes = ("items:delete", "use") if behind else ("items:delete",)
    assert list(ways) == ["MOUNT /mcp", "TOOL /mcp#delete"]
    assert ways["TOOL /mcp#delete"].requirements[0].scopes == scopes
    assert Authorization.parse(authorization_of(app).text) == authorization_of(app)


def test_two_routes_of_one_path() -> None:
    """Both are listed, the first of them first: FastAPI serves that one."""
    app = FastAPI(openapi_url=None)
    app.get("/a", dependencies=[Tokens().requires("a")])(endpoint)
    app.get("/a")(endpoint)
    text = authorization_of(app).text
    assert '"GET /a" = [{ auth = "tokens", scopes = ["a"] }]\n"GET /a #2" = "unguarded"\n' in text
    assert Authorization.parse(text) == authorization_of(app)


def test_a_path_with_quotes() -> None:
    """A path is quoted, whatever is in it."""
    app = FastAPI(openapi_url=None)
    app.get('/"\\\x7f\x01ü😀')(endpoint)
    authorization = authorization_of(app)
    assert Authorization.parse(authorization.text) == authorization


def test_an_auth_without_a_name() -> None:
    """A lockfile can be read again, whatever the name of an Auth is."""
    text = 'version = 1\n\n[ways]\n"GET /" = [{ auth = "", scopes = ["a"] }]\n'
    read = Authorization.parse(text)
    assert Authorization.parse(read.text) == read


NO_LOCK = {
    "version = ": "the lockfile is not TOML: ",
    "[ways]": "the lockfile cannot be read: version: Field required",
    "version = 2\n[ways]": "the lockfile cannot be read: version: Input should be 1",
    "version = 1": "the lockfile cannot be read: ways: Field required",
    'version = 1\nways = "x"': "the lockfile cannot be read: ways: Input should be a valid dictionary",
    'version = 1\n[ways]\n"GET /" = "open"': "the lockfile cannot be read: ways.GET /.",
    'version = 1\n[ways]\n"GET /" = []': "the lockfile cannot be read: ways.GET /.",
    'version = 1\n[ways]\n"GET /" = [{ scopes = ["a"] }]': "the lockfile cannot be read: ways.GET /.",
    'version = 1\n[ways]\n"GET /" = [{ auth = "a", scopes = "a" }]': "the lockfile cannot be read: ways.GET /.",
    'version = 1\n[ways]\n"GET /" = [{ auth = "a", optional = 1 }]': "the lockfile cannot be read: ways.GET /.",
    'version = 1\n[ways]\n"GET /" = [{ auth = "a", scope = ["a"] }]': "the lockfile cannot be read: ways.GET /.",
    'version = 1\n[ways]\n[auths.a]\nroles.b = "c"': "the lockfile cannot be read: auths.a.roles.b: ",
}


@pytest.mark.parametrize("text", NO_LOCK)
def test_what_is_not_a_lockfile(text: str) -> None:
    """A text that is not a lockfile of this version is refused, and the place is named."""
    with pytest.raises(ConfigurationError) as raised:
        Authorization.parse(text)
    assert str(raised.value).startswith(NO_LOCK[text])


async def test_what_the_application_accepts() -> None:
    """The Auth of the application accepts any credential."""
    assert await Tokens().verify("ada") == {"sub": "ada"}
