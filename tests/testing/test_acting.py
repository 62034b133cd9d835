import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient

from fastapi_guard import AnyAuth, Auth, BearerScheme, ConfigurationError, JWTAuth, ScopesAuth, Unauthorized
from fastapi_guard.testing import acting_as
from support.asgi import call
from support.tokens import auth_of, forge, valid_claims

READER, EDITOR = {"sub": "ada", "scope": "items:read"}, {"sub": "grace", "scope": "items:edit"}


class Fixture:
    """An application and its Auth."""

    def __init__(self) -> None:
        """Declare a route for each kind of guard."""
        self.auth: JWTAuth = auth_of("HS256", options={"roles": {"editor": ["items:edit"]}})
        self.app = FastAPI()

        @self.app.get("/")
        async def read(claims: Annotated[dict[str, Any], self.auth.requires("items:read")]) -> Any:
            claims_before = dict(claims)
            claims["sub"] = claims["scope"] = "edited by the endpoint"
            return claims_before

        @self.app.get("/edit", dependencies=[self.auth.requires("items:edit")])
        async def edit() -> None: ...

        @self.app.get("/any", dependencies=[self.auth.requires_any("items:edit", "x")])
        async def anyone() -> None: ...

        @self.app.get("/role", dependencies=[self.auth.requires_role("editor")])
        async def role() -> None: ...

        @self.app.get("/optional")
        async def optional(claims: Annotated[Any, self.auth.optional()]) -> Any:
            return claims and claims["sub"]

        @self.app.get("/lenient")
        async def lenient(claims: Annotated[Any, self.auth.optional(ignore_invalid=True)]) -> Any:
            return claims and claims["sub"]

        @self.app.websocket("/ws")
        async def echo(socket: WebSocket, claims: Annotated[Any, self.auth.requires("items:read")]) -> None:
            await socket.accept()
            await socket.send_json(claims["sub"])
            await socket.close()


@pytest.fixture
def fixture() -> Iterator[Fixture]:
    """Return an application, and make sure that no override is left behind."""
    made = Fixture()
    yield made
    assert made.app.dependency_overrides == {}


async def test_acting_as(fixture: Fixture) -> None:
    """Within the context no credential is needed, and outside of it one is."""
    assert (await call(fixture.app)).status == 401
    with acting_as(fixture.app, fixture.auth, READER):
        assert (await call(fixture.app)).json == READER
    assert (await call(fixture.app)).status == 401
    assert (await call(fixture.app, "/", forge("HS256"))).json == valid_claims()


async def test_the_checks_stay(fixture: Fixture) -> None:
    """Scopes and roles are enforced as usual, with the response that a client would get."""
    with acting_as(fixture.app, fixture.auth, READER):
        for path in ("/edit", "/any"):
            answer = await call(fixture.app, path)
            assert (answer.status, answer.challenges[0].split(", ")[1]) == (403, 'error="insufficient_scope"')
        answer = await call(fixture.app, "/role")
        assert (answer.status, answer.json, answer.challenges) == (403, {"detail": "Forbidden"}, [])
    with acting_as(fixture.app, fixture.auth, {"roles": ["editor"]}):
        assert [(await call(fixture.app, path)).status for path in ("/edit", "/any", "/role", "/")] == [200] * 4


async def test_optional_guards(fixture: Fixture) -> None:
    """Optional guards get the principal too."""
    assert (await call(fixture.app, "/optional")).json is None
    with acting_as(fixture.app, fixture.auth, READER):
        for path in ("/optional", "/lenient"):
            assert (await call(fixture.app, path)).json == "ada"
            assert (await call(fixture.app, path, "a bad one")).json == "ada"


async def test_each_request_gets_claims_of_its_own(fixture: Fixture) -> None:
    """Changes that an endpoint makes to its claims reach neither the test nor the next request."""
    claims = {**READER, "roles": ["reader"]}
    with acting_as(fixture.app, fixture.auth, claims):
        for _ in range(2):
            assert (await call(fixture.app)).json == {**READER, "roles": ["reader"]}
    assert claims == {**READER, "roles": ["reader"]}


@pytest.mark.parametrize("running", [False, True])
def test_the_synchronous_client(fixture: Fixture, running: bool) -> None:
    """It works with the TestClient, whether its lifespan runs or not, and for WebSockets."""
    client = TestClient(fixture.app)
    if running:
        client.__enter__()
    with acting_as(fixture.app, fixture.auth, READER):
        assert client.get("/").json() == READER
        assert client.get("/edit").status_code == 403
        with client.websocket_connect("/ws") as socket:
            assert socket.receive_json() == "ada"
    assert client.get("/").status_code == 401
    if running:
        client.__exit__(None, None, None)


async def test_the_asynchronous_client(fixture: Fixture) -> None:
    """It works with an asynchronous client."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(fixture.app), base_url="http://api.example") as client:
        with acting_as(fixture.app, fixture.auth, READER):
            assert (await client.get("/")).json() == READER
        assert (await client.get("/")).status_code == 401


async def test_tasks_at_once(fixture: Fixture) -> None:
    """Tasks act as different people at once, and one without claims remains an anonymous caller."""
    barrier = asyncio.Barrier(3)

    async def act(principal: dict[str, Any] | None) -> list[int]:
        if principal is None:
            await barrier.wait()
            statuses = [(await call(fixture.app, path)).status for path in ("/", "/edit")]
            await barrier.wait()
            return statuses
        with acting_as(fixture.app, fixture.auth, principal):
            await barrier.wait()
            statuses = [(await call(fixture.app, path)).status for path in ("/", "/edit")]
            await barrier.wait()
            return statuses

    assert await asyncio.gather(act(READER), act(EDITOR), act(None)) == [[200, 403], [200, 200], [401, 401]]


def test_threads_at_once(fixture: Fixture) -> None:
    """Threads do so too."""
    barrier = Barrier(3)

    def act(principal: dict[str, Any] | None) -> list[int]:
        def statuses() -> list[int]:
            client = TestClient(fixture.app)
            barrier.wait()
            found = [client.get(path).status_code for path in ("/", "/edit")]
            barrier.wait()
            return found

        if principal is None:
            return statuses()
        with acting_as(fixture.app, fixture.auth, principal):
            return statuses()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(act, (READER, EDITOR, None))) == [[200, 403], [200, 200], [401, 401]]


async def test_nested(fixture: Fixture) -> None:
    """The innermost context counts, and its end restores the one around it."""
    with acting_as(fixture.app, fixture.auth, READER):
        with acting_as(fixture.app, fixture.auth, EDITOR):
            assert (await call(fixture.app, "/edit")).status == 200
        assert (await call(fixture.app)).json["sub"] == "ada"
        assert (await call(fixture.app, "/edit")).status == 403


async def test_restored_after_an_error(fixture: Fixture) -> None:
    """A test that fails leaves nothing behind."""
    with pytest.raises(ZeroDivisionError), acting_as(fixture.app, fixture.auth, READER):
        _ = 1 / 0
    assert fixture.app.dependency_overrides == {}
    assert (await call(fixture.app)).status == 401


async def test_an_override_is_restored(fixture: Fixture) -> None:
    """An override that was there before is there again."""

    def override() -> dict[str, Any]:
        return {"sub": "overridden", "scope": ""}

    fixture.app.dependency_overrides[fixture.auth.dependency] = override
    with acting_as(fixture.app, fixture.auth, READER):
        assert (await call(fixture.app)).json["sub"] == "ada"
    assert fixture.app.dependency_overrides == {fixture.auth.dependency: override}
    assert (await call(fixture.app)).json["sub"] == "overridden"
    fixture.app.dependency_overrides.clear()


@pytest.mark.parametrize("replace", [False, True])
async def test_overrides_that_a_test_clears(fixture: Fixture, replace: bool) -> None:
    """A test may clear or replace all overrides within the context: what it did is left as it is."""
    with acting_as(fixture.app, fixture.auth, READER):
        if replace:
            fixture.app.dependency_overrides = {fixture.auth.dependency: dict}
        else:
            fixture.app.dependency_overrides.clear()
        with acting_as(fixture.app, fixture.auth, EDITOR):
            assert (await call(fixture.app, "/edit")).status == 200
    assert fixture.app.dependency_overrides == ({fixture.auth.dependency: dict} if replace else {})
    fixture.app.dependency_overrides.clear()


async def test_one_auth_of_several() -> None:
    """Only the guards of the Auth that is named are passed, on the application that is named."""

    class Other(ScopesAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            raise Unauthorized(reason="never")

    one, two = Other(), Other()
    apps = []
    for _ in range(2):
        app = FastAPI()
        app.add_api_route("/one", lambda: None, dependencies=[one.authenticated()])
        app.add_api_route("/both", lambda: None, dependencies=[one.authenticated(), two.authenticated()])
        apps.append(app)
    with acting_as(apps[0], one, READER):
        statuses = [[(await call(app, path, "x")).status for path in ("/one", "/both")] for app in apps]
        assert statuses == [[200, 401], [401, 401]]
        with acting_as(apps[0], two, READER):
            assert (await call(apps[0], "/both")).status == 200


async def test_a_principal_of_any_kind() -> None:
    """The principal is whatever the Auth returns, behind a scheme that FastAPI resolves too."""

    async def scheme() -> str | None:
        return None

    for auth in (Auth[str](BearerScheme()), Auth[str](scheme)):
        app = FastAPI()

        @app.get("/")
        async def index(value: Annotated[str, auth.authenticated()]) -> str:
            return value

        assert (await call(app)).status == 401
        with acting_as(app, auth, "somebody"):
            assert (await call(app)).json == "somebody"


@pytest.mark.parametrize("acting", [False, True])
async def test_what_a_dependency_adds_is_seen(acting: bool) -> None:
    """Guards of one request give the same claims, as with a real credential: what one adds, the endpoint sees."""
    auth = auth_of("HS256")

    async def enrich(claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
        claims["tenant"] = "acme"

    app = FastAPI(dependencies=[Depends(enrich)])

    @app.get("/")
    async def index(claims: Annotated[dict[str, Any], auth.requires()]) -> Any:
        return claims

    @app.get("/scope")
    async def scope(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> Any:
        return claims

    if acting:
        with acting_as(app, auth, READER):
            answers = [await call(app, path) for path in ("/", "/scope", "/")]
        expected = READER
    else:
        expected = valid_claims(scope="items:read")
        answers = [await call(app, path, forge("HS256", expected)) for path in ("/", "/scope", "/")]
    assert [answer.json for answer in answers] == [{**expected, "tenant": "acme"}] * 3
    assert "tenant" not in READER


async def test_a_mounted_application_acts_for_itself() -> None:
    """Each application has overrides of its own: one that is mounted is reached by its own context alone."""
    auth = auth_of("HS256")
    inner, outer = FastAPI(), FastAPI()

    @inner.get("/")
    async def index(claims: Annotated[dict[str, Any], auth.authenticated()]) -> Any:
        return claims["sub"]

    outer.mount("/inner", inner)
    with acting_as(outer, auth, READER):
        assert (await call(outer, "/inner/")).status == 401
        with acting_as(inner, auth, EDITOR):
            assert (await call(outer, "/inner/")).json == "grace"


async def test_one_of_several_auths() -> None:
    """Claims that a dependency adds to those of an AnyAuth are seen by the endpoint too."""
    auth = AnyAuth(auth_of("HS256"), auth_of("ES256", options={"name": "other"}))

    async def enrich(claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
        claims["tenant"] = "acme"

    app = FastAPI(dependencies=[Depends(enrich)])

    @app.get("/")
    async def index(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> Any:
        return claims

    with acting_as(app, auth, READER):
        assert (await call(app)).json == {**READER, "tenant": "acme"}


def test_arguments_in_another_order() -> None:
    """The Auth and the claims, exchanged, or the application left out, are errors that show the order."""
    app, auth, claims = FastAPI(), auth_of("HS256"), {"sub": "ada"}
    order = r"with acting_as\(app, auth, claims\), not"
    wrong: dict[str, Any] = {"app": (auth, claims, app), "auth": (app, claims, auth)}
    for name, arguments in wrong.items():
        with pytest.raises(ConfigurationError, match=f"^{name} is .*, {order} "):
            acting_as(*arguments).__enter__()
