"""The types of what a user writes on top of the core: checked by mypy and basedpyright, never run."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, assert_type

from fastapi import Cookie, FastAPI, params
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection

from fastapi_guard import (
    APIKeyScheme,
    Auth,
    BearerScheme,
    Forbidden,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    ServiceUnavailable,
    TokenAuth,
    Unauthorized,
)
from fastapi_guard.events import Event
from fastapi_guard.jwt import KeySource, RevocationCheck
from fastapi_guard.jwt.http import fetch_json
from fastapi_guard.testing import acting_as
from fastapi_guard.testing.site import Site


class User:
    """A principal of the application's own."""

    name: str


class Users(TokenAuth[User]):
    """An Auth whose principal is an object, and depends on the request."""

    async def verify(self, raw: str) -> User:
        raise Unauthorized("Nobody", reason="unknown_user")

    async def verify_request(self, connection: HTTPConnection, raw: str) -> User:
        return await self.verify(raw)


class Sessions(ScopesAuth):
    """An Auth of claims behind a callable scheme."""

    async def verify(self, raw: str) -> dict[str, Any]:
        raise ServiceUnavailable(retry_after=1)


class Shouted:
    """An own strategy for scopes."""

    def has_scope(self, scope: str, granted_scopes: Iterable[str], /) -> bool:
        return scope.upper() in granted_scopes


class Never:
    """Revocations of which there are none."""

    async def is_revoked(self, claims: Mapping[str, Any]) -> bool:
        return False


def session(session: str | None = Cookie(default=None)) -> str | None:
    return session


def note(event: Event) -> None:
    assert_type(event.reason, str | None)


revocations: RevocationCheck = Never()
users = Users(APIKeyScheme("X-User"), name="users", on_event=note)
sessions = Sessions(
    session, Shouted(), cookie=True, roles={"editor": ["content:edit"]}, trusted_origins=["https://a.b"]
)
signed = JWTAuth(JWTConfig(algorithms=["ES256"]), revocations=revocations, scope_claims=["permissions"])
raw = Auth[str](BearerScheme())
app = FastAPI()


def from_elsewhere(source: KeySource) -> JWTAuth:
    return JWTAuth(JWTConfig(key=source, issuer_url="https://id.example", audience=["a", "b"]))


@app.get("/")
async def index(user: Annotated[User, users.authenticated()]) -> str:
    return user.name


async def use(connection: HTTPConnection) -> None:
    assert_type(await users.verify("x"), User)
    assert_type(await users.verify_request(connection, "x"), User)
    assert_type(await sessions.verify("x"), dict[str, Any])
    assert_type(await raw.verify_request(connection, "x"), str)
    assert_type(await signed.fetch_jwks("/jwks"), None)
    assert_type(sessions.has_scope("a:b", ["a:b"]), bool)
    assert_type(sessions.optional(), params.Security)
    assert_type(Unauthorized().error, str | None)
    assert_type(Forbidden().reason, str)
    assert_type(await fetch_json("https://id.example"), Any)


with acting_as(app, users, User()):
    pass
with acting_as(app, sessions, {"scope": "a:b"}):
    pass
Site(client=lambda: TestClient(app, follow_redirects=False))
