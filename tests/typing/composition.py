"""The types that a user of several Auths, users and policies meets: checked by mypy and basedpyright, never run."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, assert_type

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.params import Security
from joserfc import jwk
from starlette.middleware.authentication import AuthenticationMiddleware

from fastapi_guard import AnyAuth, APIKeyScheme, Auth, JWTAuth, JWTConfig, ScopesAuth
from fastapi_guard.app.routing import GuardedRoute
from fastapi_guard.app.starlette import GuardBackend, GuardUser, on_error
from fastapi_guard.app.streams import expires_with


@dataclass
class User:
    name: str


@dataclass
class Post:
    author_id: str


class Keys(ScopesAuth):
    name = "keys"

    def recognises(self, raw: str) -> bool:
        return raw.startswith("sk-")

    async def verify(self, raw: str) -> dict[str, Any]:
        return {"sub": raw}


def get_user(claims: dict[str, Any]) -> User | None:
    return User(claims["sub"])


async def get_post(post_id: int) -> Post:
    return Post(str(post_id))


def owns_post(claims: dict[str, Any], post: Annotated[Post, Depends(get_post)]) -> bool:
    return post.author_id == str(claims["sub"])


jwt = JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), roles={"admin": ["*"]})
either = jwt | Keys()
key = Auth[str](APIKeyScheme("X-Key"))

assert_type(either, AnyAuth)
assert_type(either | key, AnyAuth)
assert_type(AnyAuth(jwt, Keys(), key, name="any"), AnyAuth)
assert_type(either.members, tuple[Auth[Any], ...])
assert_type(either.authenticated(via=["jwt"]), Security)
assert_type(either.requires("items:read", via=["jwt", "keys"]), Security)
assert_type(either.optional(), Security)
assert_type(either.covers({"sub": "ada"}, "items:read"), bool)
for auth in (jwt, either):
    assert_type(auth.user(get_user), Security)
    assert_type(auth.user(get_user, "documents:edit"), Security)
    assert_type(auth.allows(owns_post, "documents:edit"), Security)
    assert_type(auth.owned(get_post, owner="author_id", or_scope="posts:*", hide=True), Security)
    assert_type(auth.requires_recent(timedelta(minutes=5)), Security)
    assert_type(auth.requires_tenant(path_param="tenant"), Security)
assert_type(key.requires_recent(300), Security)
assert_type(key.user(User), Security)

CurrentUser = Annotated[User, either.user(get_user)]
app = FastAPI()
app.router.route_class = GuardedRoute
app.add_middleware(AuthenticationMiddleware, backend=GuardBackend(either, get_user), on_error=on_error)
router = APIRouter(route_class=GuardedRoute, dependencies=[jwt.allows(owns_post)])


@router.put("/posts/{post_id}")  # noqa: FAST003 - the loader takes it
async def update(post: Annotated[Post, jwt.owned(get_post, owner="author_id")], user: CurrentUser) -> str:
    assert_type(user, User)
    assert_type(post, Post)
    return user.name


@router.websocket("/feed")
async def feed(websocket: WebSocket, claims: Annotated[dict[str, Any], either.authenticated()]) -> None:
    async with expires_with(websocket, claims) as watch:
        assert_type(watch, expires_with)


assert_type(GuardUser({"sub": "ada"}, bool).has_permission("items:read"), bool)
