"""The OpenAPI document: what each operation requires, and how it is refused."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI
from fastapi.security import APIKeyHeader, HTTPBasic
from fastapi.testclient import TestClient
from joserfc import jwk
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_guard import (
    AnyAuth,
    APIKeyScheme,
    Auth,
    BearerScheme,
    ConfigurationError,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    configure_app,
)
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.app.openapi import swagger_login
from fastapi_guard.issuers import IntrospectionAuth, MultiOIDCAuth
from fastapi_guard.stores import MemoryStore
from support.asgi import request

PLAIN = 'Bearer realm="api"'


class Tokens(ScopesAuth):
    """An Auth that accepts every credential, which grants ``a``."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": "ada", "scope": "a"}


GOOD = [(b"authorization", b"Bearer good")]
auth = Tokens()


def endpoint() -> None:
    """Return nothing."""


def described(app: FastAPI) -> dict[str, tuple[Any, set[str]]]:
    """Return the security requirement and the documented statuses of each GET operation."""
    configure_app(app)
    return {
        path: (operations["get"].get("security"), set(operations["get"]["responses"]))
        for path, operations in app.openapi()["paths"].items()
    }


REFUSED = {"200", "401", "403", "503"}


def test_only_guarded_operations_document_refusals() -> None:
    """401, 403 and 503 are at exactly the operations that an Auth guards, with schema and headers."""
    app = FastAPI()
    app.get("/free")(endpoint)
    app.get("/guarded", dependencies=[auth.requires("a")])(endpoint)
    app.get("/basic", dependencies=[Depends(HTTPBasic())])(endpoint)
    assert described(app) == {
        "/free": (None, {"200"}),
        "/guarded": ([{"Bearer": ["a"]}], REFUSED),
        "/basic": ([{"HTTPBasic": []}], {"200"}),
    }
    document = app.openapi()
    responses = document["paths"]["/guarded"]["get"]["responses"]
    for status, description, header in (
        ("401", "Unauthorized", "WWW-Authenticate"),
        ("403", "Forbidden", "WWW-Authenticate"),
        ("503", "Service Unavailable", "Retry-After"),
    ):
        assert responses[status] == {
            "description": description,
            "headers": {header: {"schema": {"type": "string"}}},
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/AuthProblem"}}},
        }
    schema = document["components"]["schemas"]["AuthProblem"]
    assert set(schema["properties"]) == set(schema["required"]) == {"type", "title", "status", "detail"}
    assert set(request(app, "/guarded").json) == set(schema["properties"])


def test_an_owner_that_is_not_there_is_documented() -> None:
    """404 is among the refusals where a guard requires an owner."""

    async def load() -> None: ...

    app = FastAPI()
    app.get("/own", dependencies=[auth.owned(load, owner="sub")])(endpoint)
    assert described(app)["/own"][1] == REFUSED | {"404"}
    assert app.openapi()["paths"]["/own"]["get"]["responses"]["404"] == {"description": "Not Found"}


def test_an_application_without_a_guard_has_no_schema_of_refusals() -> None:
    """The document is FastAPI's own if nothing is guarded."""
    app, bare = FastAPI(), FastAPI()
    for made in (app, bare):
        made.get("/")(endpoint)
    configure_app(app)
    assert app.openapi() == bare.openapi()


def test_guards_of_application_include_and_router_count() -> None:
    """Guards that must all pass are one requirement, wherever they are declared, with all their scopes."""
    key: Auth[str] = Auth(APIKeyScheme("X-Key"))
    app = FastAPI(dependencies=[auth.authenticated()])
    router = APIRouter(dependencies=[auth.requires("router")])
    router.get("/files/{path:path}", dependencies=[key.authenticated()])(endpoint)
    app.include_router(router, prefix="/v1", dependencies=[auth.requires("include")])
    security, responses = described(app)["/v1/files/{path}"]
    assert security == [{"Bearer": ["include", "router"], "X-Key": []}]
    assert responses == REFUSED


def test_optional_guards() -> None:
    """An optional guard has an alternative without it, unless another guard of the same Auth requires it."""
    key: Auth[str] = Auth(APIKeyScheme("X-Key"))
    app = FastAPI()
    for path, guards in {
        "/one": [auth.optional()],
        "/lenient": [auth.optional(ignore_invalid=True)],
        "/both": [auth.optional(), key.optional()],
        "/mixed": [auth.optional(), key.authenticated()],
        "/same": [auth.optional(), auth.requires("a")],
        "/reversed": [auth.requires("a"), auth.optional()],
        "/namesake": [auth.optional(), Tokens().authenticated()],
    }.items():
        app.get(path, dependencies=guards)(endpoint)
    assert {path: security for path, (security, _) in described(app).items()} == {
        "/one": [{"Bearer": []}, {}],
        "/lenient": [{"Bearer": []}, {}],
        "/both": [{"Bearer": [], "X-Key": []}, {"Bearer": []}, {"X-Key": []}, {}],
        "/mixed": [{"Bearer": [], "X-Key": []}, {"X-Key": []}],
        "/same": [{"Bearer": ["a"]}],
        "/reversed": [{"Bearer": ["a"]}],
        "/namesake": [{"Bearer": []}],
    }


def test_guards_over_callables() -> None:
    """The schemes of a callable are alternatives; one that reads a parameter itself has no scheme to list."""
    first = APIKeyHeader(name="X-First", scheme_name="first", auto_error=False)
    second = APIKeyHeader(name="X-Second", scheme_name="second", auto_error=False)

    def either(one: Annotated[str | None, Depends(first)], two: Annotated[str | None, Depends(second)]) -> str | None:
        return one or two

    def cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
        return session

    app = FastAPI()
    for path, guards in {
        "/either": [Tokens(either).requires("a")],
        "/perhaps": [Tokens(either).optional()],
        "/and": [Tokens(either).authenticated(), auth.authenticated()],
        "/cookie": [Tokens(cookie).authenticated()],
    }.items():
        app.get(path, dependencies=guards)(endpoint)
    assert described(app) == {
        "/either": ([{"first": ["a"]}, {"second": ["a"]}], REFUSED),
        "/perhaps": ([{"first": []}, {"second": []}, {}], REFUSED),
        "/and": ([{"first": [], "Bearer": []}, {"second": [], "Bearer": []}], REFUSED),
        "/cookie": (None, {*REFUSED, "422"}),
    }
    assert request(app, "/either", [(b"x-second", b"good")]).status == 200
    assert request(app, "/cookie", [(b"cookie", b"session=good")]).status == 200


def test_a_scheme_beside_the_guards_is_required_too() -> None:
    """FastAPI's own security dependency and a guard are one requirement, not alternatives."""
    app = FastAPI()
    app.get("/", dependencies=[Depends(HTTPBasic()), auth.optional()])(endpoint)
    assert described(app)["/"][0] == [{"HTTPBasic": [], "Bearer": []}, {"HTTPBasic": []}]


def test_what_the_application_documents_itself_stays() -> None:
    """A response that the route documents is kept, and a second call of configure_app changes nothing."""
    app = FastAPI()
    app.get("/", dependencies=[auth.optional()], responses={401: {"description": "Who?"}})(endpoint)
    once = described(app)
    assert app.openapi()["paths"]["/"]["get"]["responses"]["401"] == {"description": "Who?"}
    assert described(app) == once


def test_the_document_follows_the_routes() -> None:
    """A route that is added after the document was made is in the next one, which is made once."""
    app = FastAPI()
    app.get("/a", dependencies=[auth.requires("a")])(endpoint)
    configure_app(app)
    assert app.openapi() is app.openapi()
    app.get("/b", dependencies=[auth.requires("b")])(endpoint)
    assert app.openapi()["paths"]["/b"]["get"]["security"] == [{"Bearer": ["b"]}]
    assert request(app, "/openapi.json").json == app.openapi()


def test_a_generator_of_ones_own() -> None:
    """An own ``app.openapi`` is called, and may leave paths out; another application has a document of its own."""
    app, second = FastAPI(), FastAPI()
    generate = app.openapi

    def without_b() -> dict[str, Any]:
        document = generate()
        return {**document, "paths": {path: item for path, item in document["paths"].items() if path != "/b"}}

    app.openapi = without_b  # type: ignore[method-assign]
    for made in (app, second):
        made.get("/a", dependencies=[auth.requires("a")])(endpoint)
        made.get("/b", dependencies=[auth.requires("b")])(endpoint)
    assert described(app) == {"/a": ([{"Bearer": ["a"]}], REFUSED)}
    app.openapi()["components"]["schemas"]["AuthProblem"]["title"] = "changed"
    described(second)
    assert second.openapi()["components"]["schemas"]["AuthProblem"]["title"] == "AuthProblem"


def test_hidden_routes_and_mounts_stay_out() -> None:
    """Routes that FastAPI leaves out of the document are not put back in."""
    inner = FastAPI(dependencies=[auth.authenticated()])
    inner.get("/b")(endpoint)
    app = FastAPI(dependencies=[auth.authenticated()])
    app.get("/a", include_in_schema=False)(endpoint)
    app.mount("/inner", inner)
    assert described(app) == {}
    assert request(app, "/a").header("content-type") == "application/problem+json"
    assert request(app, "/inner/b").refusal == (401, "Not authenticated", PLAIN)


def start(app: FastAPI) -> None:
    """Start and stop the application."""
    with TestClient(app):
        pass


def sharing(*urls: str) -> FastAPI:
    """Return an application with schemes of one name, whose tokens come from these places."""
    app = FastAPI()
    for number, url in enumerate(urls):
        app.get(f"/{number}", dependencies=[Tokens(BearerScheme.password(url)).authenticated()])(endpoint)
    configure_app(app)
    return app


@pytest.mark.parametrize("use", [start, lambda app: app.openapi()], ids=["start", "document"])
def test_schemes_of_one_name_that_differ(use: Callable[[FastAPI], object]) -> None:
    """OpenAPI would keep one of them: refused at startup and in the document, with the remedy."""
    use(sharing("/token", "/token"))
    with pytest.raises(ConfigurationError, match=r"called 'OAuth2PasswordBearer' .* give one another scheme_name"):
        use(sharing("/token", "/token", "/login"))


def test_equal_schemes_of_one_name() -> None:
    """Several Auths may share a scheme, or have equal ones; a callable has none that could clash."""

    def cookie(session: Annotated[str | None, Cookie()] = None) -> str | None:
        return session

    app = FastAPI()
    shared = BearerScheme(scheme_name="shared", description="A JWT")
    for number, scheme in enumerate([shared, shared, None, BearerScheme(), cookie]):
        app.get(f"/{number}", dependencies=[Tokens(scheme).authenticated()])(endpoint)
    assert [security for security, _ in described(app).values()][1:3] == [[{"shared": []}], [{"Bearer": []}]]
    assert request(app, "/4", [(b"cookie", b"session=good")]).status == 200
    start(app)


def schemes(app: FastAPI) -> dict[str, Any]:
    """Return the schemes in the document."""
    configure_app(app)
    found: dict[str, Any] = app.openapi()["components"]["securitySchemes"]
    return found


def test_alternatives_below_a_router_that_takes_either() -> None:
    """A scheme that is enough for two guards is enough: no other is shown as needed beside it."""
    jwt, keys = Tokens(name="jwt"), Tokens(APIKeyScheme("X-Key"), name="keys")
    session = Tokens(APIKeyScheme("sid", "cookie"), name="session")
    either = AnyAuth(jwt, keys)
    app = FastAPI()
    router = APIRouter(dependencies=[either.authenticated()])
    for path, guards in {
        "/either": [either.requires("a")],
        "/one": [jwt.requires("a")],
        "/via": [either.requires("a", via=["keys"])],
        "/overlapping": [AnyAuth(jwt, session).requires("a")],
        "/all": [jwt.requires("a"), keys.authenticated()],
        "/three": [session.authenticated(), jwt.authenticated()],
        "/optional": [session.optional()],
        "/waived": [either.optional()],
    }.items():
        router.get(path, dependencies=guards)(endpoint)
    app.include_router(router)
    optional = APIRouter(prefix="/optional", dependencies=[either.optional()])
    optional.get("/one", dependencies=[jwt.requires("a")])(endpoint)
    optional.get("/other", dependencies=[session.requires("a")])(endpoint)
    app.include_router(optional)
    assert {path: security for path, (security, _) in described(app).items()} == {
        "/either": [{"Bearer": ["a"]}, {"X-Key": ["a"]}],
        "/one": [{"Bearer": ["a"]}],
        "/via": [{"X-Key": ["a"]}],
        "/overlapping": [{"Bearer": ["a"]}, {"X-Key": [], "sid": ["a"]}],
        "/all": [{"Bearer": ["a"], "X-Key": []}],
        "/three": [{"Bearer": [], "sid": []}],
        "/optional": [{"Bearer": [], "sid": []}, {"Bearer": []}, {"X-Key": [], "sid": []}, {"X-Key": []}],
        "/waived": [{"Bearer": []}, {"X-Key": []}],
        "/optional/one": [{"Bearer": ["a"]}],
        "/optional/other": [{"Bearer": [], "sid": ["a"]}, {"X-Key": [], "sid": ["a"]}, {"sid": ["a"]}],
    }


def test_the_scopes_of_a_flow_that_are_alternatives() -> None:
    """Those of which one is enough can be requested too; no operation needs all of them."""
    auth = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), scheme=BearerScheme.password("/token"))
    app = FastAPI()
    configure_app(app)
    app.get("/any", dependencies=[auth.requires_any("a:b", "c,d")])(lambda: None)
    app.get("/role", dependencies=[auth.requires_role("editor")])(lambda: None)
    document = app.openapi()
    flow = document["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]
    assert flow["scopes"] == {"a:b": "", "c,d": ""}
    assert document["paths"]["/any"]["get"]["security"] == [{"OAuth2PasswordBearer": []}]


def test_the_scopes_of_a_flow() -> None:
    """Each flow lists the scopes that guards of its scheme require; a description of the application's own stays."""
    password = Tokens(BearerScheme.password("/token", scopes={"items:read": "Read items"}))
    code = Tokens(BearerScheme.authorization_code("https://id.example/a", "https://id.example/t", scheme_name="code"))
    app = FastAPI(dependencies=[password.requires("base")])
    app.get("/a", dependencies=[password.requires("items:edit", "items:read")])(endpoint)
    app.get("/b", dependencies=[AnyAuth(code, Tokens(APIKeyScheme("X-Key"), name="keys")).requires("c")])(endpoint)
    app.get("/hidden", dependencies=[password.requires("hidden")], include_in_schema=False)(endpoint)
    found = schemes(app)
    assert found["OAuth2PasswordBearer"]["flows"]["password"]["scopes"] == {
        "items:read": "Read items",
        "base": "",
        "items:edit": "",
    }
    assert found["code"]["flows"]["authorizationCode"]["scopes"] == {"c": ""}
    assert "flows" not in found["X-Key"]
    app.get("/c", dependencies=[password.requires("later")])(endpoint)
    assert (
        "later" in app.openapi()["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]["scopes"]
    )
    other = FastAPI()
    other.get("/", dependencies=[password.authenticated()])(endpoint)
    assert schemes(other)["OAuth2PasswordBearer"]["flows"]["password"]["scopes"] == {"items:read": "Read items"}


def test_the_format_of_a_bearer_token() -> None:
    """It is JWT, where every Auth behind the scheme verifies JWTs."""
    config = JWTConfig(key=jwk.OctKey.generate_key(256))
    several = MultiOIDCAuth({"one": {"issuer": "https://id.example", "audience": "api"}})
    opaque = IntrospectionAuth("https://id.example/introspect", client_id="a", client_secret="b")

    def made(*auths: Auth[Any]) -> FastAPI:
        app = FastAPI()
        for number, used in enumerate(auths):
            app.get(f"/{number}", dependencies=[used.authenticated()])(endpoint)
        return app

    jwt = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    assert schemes(made(JWTAuth(config))) == {"Bearer": jwt}
    assert schemes(made(several, JWTAuth(config, name="own"))) == {"Bearer": jwt}
    assert schemes(made(AnyAuth(JWTAuth(config), Tokens(APIKeyScheme("X-Key"))))) == {
        "Bearer": jwt,
        "X-Key": {"type": "apiKey", "in": "header", "name": "X-Key"},
    }
    for others in ([opaque], [JWTAuth(config), opaque], [auth], [AnyAuth(JWTAuth(config), opaque)]):
        assert schemes(made(*others)) == {"Bearer": {"type": "http", "scheme": "bearer"}}
    described_scheme = BearerScheme(scheme_name="own", description="A token")
    assert schemes(made(JWTAuth(config, described_scheme)))["own"] == {**jwt, "description": "A token"}


def test_the_login_of_swagger_ui() -> None:
    """The page has the client, PKCE and the scopes; an Auth without an authorization endpoint is refused."""
    scheme = BearerScheme.authorization_code("https://id.example/authorize", "https://id.example/token")
    browser = Tokens(scheme, name="browser")
    for one in (browser, auth | browser):
        settings = swagger_login(one, "docs", scopes=["a", "b"])
        assert settings == {"clientId": "docs", "usePkceWithAuthorizationCodeGrant": True, "scopes": "a b"}
    page = TestClient(FastAPI(swagger_ui_init_oauth=settings)).get("/docs").text
    assert '"usePkceWithAuthorizationCodeGrant": true' in page
    for other in (
        auth,
        Tokens(BearerScheme.password("token")),
        Tokens(BearerScheme.openid_connect("https://x.example")),
    ):
        with pytest.raises(ConfigurationError, match="no authorization endpoint"):
            swagger_login(other, "docs")
    with pytest.raises(ConfigurationError):
        swagger_login(browser, "docs", scopes=["a b"])


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("several", [True, False])
def test_limits_of_keys(counts: bool, several: bool) -> None:
    """A route whose keys are counted documents 429, and another does not."""
    sessions = sessionmaker(create_engine("sqlite://", poolclass=StaticPool))
    keys = DatabaseAPIKeyAuth(sessions, usage=MemoryStore() if counts else None)
    auth = keys | JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), name="tokens") if several else keys
    app = FastAPI()

    @app.get("/items", dependencies=[auth.authenticated()])
    async def items() -> None: ...

    configure_app(app)
    responses = app.openapi()["paths"]["/items"]["get"]["responses"]
    assert set(responses) == {"200", "401", "403", "503"} | ({"429"} if counts else set())
    assert ("Retry-After" in responses.get("429", {}).get("headers", {})) is counts
