"""Posts with owners, guarded by users and roles, by API keys, or by both."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from joserfc import jwk
from pydantic import BaseModel, Field
from starlette.types import Lifespan

from fastapi_guard import (
    AnyAuth,
    BearerScheme,
    JWTConfig,
    ScopesAuth,
    StaticAPIKeyAuth,
    configure_app,
    jwks_router,
)
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.users import DatabaseUsers, User
from fastapi_guard.routers.api_keys import api_keys_router
from fastapi_guard.routers.login import login_router
from fastapi_guard.stores import MemoryStore, Record, Store
from fastapi_guard.stores.database import SessionFactory
from fastapi_guard.stores.sqlalchemy import SQLAlchemyStore

ROLES: Final = {"admin": ["*"], "author": ["posts:edit"], "reader": ["posts:read"]}
# These passwords are public. A real application stores hashes only.
PASSWORDS: Final = {
    "ada": "analytical-engine",
    "grace": "nanoseconds-of-wire",
    "alan": "bombe-at-hut-eight",
}
_ROLE_OF: Final = {"ada": "admin", "grace": "author", "alan": "reader"}
_ISSUER: Final = "fastapi-guard-demo"
# Shown in the Authorize dialog of /docs.
_LOGIN: Final = f"Log in as grace with the password {PASSWORDS['grace']}. Leave the client fields empty."
_KEY: Final = "An API key, instead of a login."
# FastAPI sends a 400 for a body that is not text, and does not document it.
_UNREADABLE: Final[dict[int | str, dict[str, Any]]] = {400: {"description": "Bad Request"}}
_PUBLIC: Final = (
    "/health",
    "/login",
    "/token",
    "/token/refresh",
    "/token/revoke",
    "/.well-known/jwks.json",
)
# The pages have a list of their own.
_PAGES: Final = ("/", "/accounts/*")


class Draft(BaseModel):
    """The title of a post, as its author sends it."""

    title: Annotated[str, Field(min_length=1, max_length=200)]


class Post(BaseModel):
    """A post, with its number and its author."""

    id: int
    author_id: str
    title: str


class Posts:
    """Posts in a store, one record a post."""

    def __init__(self, store: Store) -> None:
        """Keep posts in ``store``."""
        self._store = store

    async def all(self) -> list[Post]:
        """Return all posts, oldest first."""
        found = [_post(record) for record in await self._store.find("posts")]
        return sorted(found, key=lambda post: post.id)

    async def get(self, post_id: int) -> Post | None:
        """Return a post, or ``None``."""
        (record,) = await self._store.get(str(post_id))
        return None if record is None else _post(record)

    async def add(self, title: str, author_id: str) -> Post:
        """Store a new post under the next free number."""
        post_id = max((post.id for post in await self.all()), default=0)
        while True:
            post_id += 1
            post = Post(id=post_id, title=title, author_id=author_id)
            if await self._store.add(_record(post)):
                return post

    async def retitle(self, post: Post, title: str) -> Post:
        """Change the title of a post."""
        renamed = post.model_copy(update={"title": title})
        await self._store.replace(str(post.id), _record(post), _record(renamed))
        return renamed

    async def remove(self, post: Post) -> None:
        """Delete a post."""
        await self._store.delete(str(post.id))


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of the application.

    Attributes:
        auth: The Auth that guards the posts.
        posts: The posts.
        usernames: Returns the names of all users, for administrators.
        login: The login of users with passwords, or ``None``.
        keys: The API keys that callers create, or ``None``.
    """

    auth: ScopesAuth
    posts: Posts
    usernames: Callable[[], Awaitable[list[str]]]
    login: LocalAuth | None = None
    keys: DatabaseAPIKeyAuth | None = None


def local_parts(sessions: SessionFactory) -> Parts:
    """Return the parts for users with passwords and API keys: a request has one or the other."""
    store = SQLAlchemyStore(sessions)
    users = DatabaseUsers(sessions)
    key = jwk.ECKey.generate_key("P-256")
    login = LocalAuth(
        JWTConfig(key=key, issuer_url=_ISSUER, audience=_ISSUER),
        users,
        BearerScheme.password("token", refresh_url="token/refresh", description=_LOGIN),
        refresh=RefreshTokens(store),
        revocations=Revocations(store),
        roles=ROLES,
    )
    keys = DatabaseAPIKeyAuth(sessions, _key_scheme(), roles=ROLES)

    async def usernames() -> list[str]:
        return [user.login_name for user in await users.all()]

    return Parts(
        auth=AnyAuth(login, keys),
        posts=Posts(SQLAlchemyStore(sessions, prefix="demo:")),
        usernames=usernames,
        login=login,
        keys=keys,
    )


def database_parts(sessions: SessionFactory) -> Parts:
    """Return the parts for the API keys of a database."""
    keys = DatabaseAPIKeyAuth(sessions, _key_scheme(), roles=ROLES)

    async def usernames() -> list[str]:
        return sorted({key.user_id for key in await keys.list()})

    posts = Posts(SQLAlchemyStore(sessions, prefix="demo:"))
    return Parts(auth=keys, posts=posts, usernames=usernames, keys=keys)


def static_parts(api_key: str) -> Parts:
    """Return the parts for one API key with all scopes, without a database.

    Raises:
        ConfigurationError: The key is too short, or has characters that a header cannot contain.
    """
    entries = {api_key: {"user_id": "demo", "scopes": ["*"]}}
    auth = StaticAPIKeyAuth(entries, _key_scheme(), roles=ROLES)

    async def usernames() -> list[str]:
        return ["demo"]

    return Parts(auth=auth, posts=Posts(MemoryStore()), usernames=usernames)


async def fill(sessions: SessionFactory) -> None:
    """Store the users, and one post of each author, in a database that has the tables."""
    users, posts = DatabaseUsers(sessions), Posts(SQLAlchemyStore(sessions, prefix="demo:"))
    hasher = PasswordHasher()
    for name, password in PASSWORDS.items():
        hashed = await hasher.hash(password)
        roles = [_ROLE_OF[name]]
        await users.add(User(username=name, password_hash=hashed, subject_id=name, roles=roles))
    hasher.close()
    await posts.add("On the Analytical Engine", "ada")
    await posts.add("On the Compiling Routine", "grace")


async def create_key(sessions: SessionFactory) -> str:
    """Create an API key with all scopes that expires in a day, and return its text."""
    keys = DatabaseAPIKeyAuth(sessions)
    expires_at = datetime.now(UTC) + timedelta(days=1)
    _, raw = await keys.create(user_id="demo", name="demo", scopes=["*"], expires_at=expires_at)
    return raw


def create_app(parts: Parts, lifespan: Lifespan[FastAPI] | None = None, *, pages: FastAPI | None = None) -> FastAPI:
    """Return the application. It does not start with an unguarded route that is not in the list of public ones.

    Args:
        parts: Its parts.
        lifespan: What starts and ends with it.
        pages: Mounted at ``/accounts``: an application of its own, with guards of its own.
    """
    app = FastAPI(title="fastapi-guard demo", lifespan=lifespan)
    auth, posts = parts.auth, parts.posts
    caller, granted = auth.authenticated(), auth.granted()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/me")
    async def me(
        claims: Annotated[dict[str, Any], caller], scopes: Annotated[frozenset[str], granted]
    ) -> dict[str, Any]:
        return {"sub": claims["sub"], "scopes": sorted(scopes)}

    @app.get("/admin/users", dependencies=[auth.requires("users:read")])
    async def users() -> list[str]:
        return await parts.usernames()

    _add_posts(app, auth, posts)
    if parts.login is not None:
        app.include_router(login_router(parts.login))
        app.include_router(jwks_router(parts.login))
    if parts.keys is not None:
        app.include_router(api_keys_router(parts.keys, auth=auth, prefix="/keys"))
    paths: tuple[str, ...] = ("/health",) if parts.login is None else _PUBLIC
    if pages is not None:
        app.mount("/accounts", pages)

        @app.get("/", include_in_schema=False)
        async def home() -> RedirectResponse:
            return RedirectResponse("/accounts/")

        paths += _PAGES
    configure_app(app, unguarded="refuse", public=paths)
    return app


def _add_posts(app: FastAPI, auth: ScopesAuth, posts: Posts) -> None:
    async def one(post_id: int) -> Post | None:
        return await posts.get(post_id)

    own = auth.owned(one, "posts:edit", owner="author_id", or_scope="posts:*")
    author = auth.requires("posts:edit")

    @app.get("/posts", dependencies=[auth.requires("posts:read")])
    async def every_post() -> list[Post]:
        return await posts.all()

    @app.post("/posts", status_code=201, responses=_UNREADABLE)
    async def write(draft: Draft, claims: Annotated[dict[str, Any], author]) -> Post:
        return await posts.add(draft.title, claims["sub"])

    @app.put("/posts/{post_id}", responses=_UNREADABLE)  # noqa: FAST003 - the loader has the parameter
    async def rewrite(draft: Draft, post: Annotated[Post, own]) -> Post:
        return await posts.retitle(post, draft.title)

    @app.delete("/posts/{post_id}", status_code=204)  # noqa: FAST003 - the loader has the parameter
    async def remove(post: Annotated[Post, own]) -> None:
        await posts.remove(post)


def _key_scheme() -> BearerScheme:
    return BearerScheme(scheme_name="APIKey", description=_KEY)


def _post(record: Record) -> Post:
    return Post.model_validate(json.loads(record.value))


def _record(post: Post) -> Record:
    return Record(str(post.id), post.model_dump_json().encode(), "posts")
