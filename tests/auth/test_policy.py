from __future__ import annotations  # noqa: I001 - string annotations, as an application may have them

import contextlib
import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import inf, nan
from threading import current_thread, main_thread
from typing import Annotated, Any, TYPE_CHECKING, cast
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, HTTPException, Path, Request, Security, WebSocket
from fastapi.security import SecurityScopes
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from fastapi_guard import (
    APIKeyScheme,
    Auth,
    BearerScheme,
    ConfigurationError,
    Forbidden,
    JWTAuth,
    ScopesAuth,
    Unauthorized,
    configure_app,
)
from fastapi_guard.events import Event
from fastapi_guard.auth.guard import rule_of
from fastapi_guard.auth.policy import is_recent, is_subject, used_factor
from fastapi_guard.testing import acting_as
from support.asgi import Answer
from support.tokens import NOW, auth_of, forge, valid_claims
from support.asgi import call

if TYPE_CHECKING:
    from decimal import Decimal

PLAIN = 'Bearer realm="api"'
INVALID = f'{PLAIN}, error="invalid_token", error_description="The access token is invalid"'
UNKNOWN_USER = (401, "The access token is invalid", [INVALID])
STRANGER = (401, "Not authenticated", [PLAIN])
FORBIDDEN = (403, "Forbidden", [])


@dataclass(frozen=True)
class User:
    """A user."""

    name: str


@dataclass
class Post:
    """An object with an owner."""

    author_id: Any


ADA = forge("HS256", valid_claims(scope="items:read documents:edit"))
EVE = forge("HS256", valid_claims(sub="eve", scope="items:read"))
ROOT = forge("HS256", valid_claims(sub="root", scope="posts:*"))

POSTS: dict[int, Any] = {
    1: Post("ada"),
    2: Post("eve"),
    3: {"author_id": "ada"},
    4: Post(None),
    5: Post(""),
    6: Post(True),
    7: Post(b"ada"),
    8: object(),
    9: {},
}


def seen(answer: Answer) -> tuple[int, Any, list[str]]:
    """Return what matters of a refusal."""
    return answer.status, answer.json["detail"], answer.challenges


def get_post(post_id: int) -> Any:
    """Look a post up."""
    return POSTS.get(post_id)


def giving(dependency: Any) -> FastAPI:
    """Return an application that returns the text of a dependency's value."""
    app = FastAPI()

    async def show(value: Any) -> str:
        return str(value)

    show.__annotations__["value"] = Annotated[Any, dependency]
    app.get("/")(show)
    app.get("/posts/{post_id}")(show)
    return app


# --- user ------------------------------------------------------------------------------------------------------------


def sync_load(claims: dict[str, Any]) -> User | None:
    """Load in a thread."""
    assert current_thread() is not main_thread()
    return None if claims["sub"] == "eve" else User(claims["sub"])


async def async_load(claims: dict[str, Any]) -> User | None:
    """Load on the loop."""
    assert current_thread() is main_thread()
    return None if claims["sub"] == "eve" else User(claims["sub"])


class Loader:
    """Instances that load."""

    def __init__(self, prefix: str = "") -> None:
        """Load with a prefix."""
        self.prefix = prefix

    async def __call__(self, claims: dict[str, Any], request: Request) -> User | None:
        """Load."""
        assert request.method == "GET"
        return None if claims["sub"] == "eve" else User(self.prefix + claims["sub"])

    def method(self, claims: dict[str, Any]) -> User | None:
        """Load too."""
        return None if claims["sub"] == "eve" else User(self.prefix + claims["sub"])


async def with_prefix(prefix: str, claims: dict[str, Any]) -> User | None:
    """Load with a prefix."""
    return None if claims["sub"] == "eve" else User(prefix + claims["sub"])


async def other_name(principal: dict[str, Any], /, extra: str = "") -> User | None:
    """Load by another name, and by position alone."""
    return None if principal["sub"] == "eve" else User(extra + principal["sub"])


def positional(principal: dict[str, Any], /, *rest: str, **more: str) -> User | None:
    """Have more parameters than FastAPI fills."""
    assert (rest, more) == ((), {})
    return None if principal["sub"] == "eve" else User(principal["sub"])


async def after_request(request: Request, who: dict[str, Any]) -> User | None:
    """Have the request as the first parameter."""
    assert request.method == "GET"
    return None if who["sub"] == "eve" else User(who["sub"])


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function as decorators do."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    return wrapper


def run_to_its_end(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a sync function of an async one as decorators do."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return asyncio.run(function(*arguments, **keywords))

    return wrapper


async def without_await(claims: dict[str, Any]) -> Any:
    """Return the coroutine of another loader, which nothing awaited yet."""
    return async_load(claims)


LOADERS = {
    "sync": sync_load,
    "async": async_load,
    "instance": Loader(),
    "method": Loader().method,
    "partial": functools.partial(with_prefix, ""),
    "partial of a partial": functools.partial(functools.partial(with_prefix), prefix=""),
    "other name": other_name,
    "positional": positional,
    "behind the request": after_request,
    "async without await": without_await,
    "decorated async": decorated(async_load),
    "decorated sync": decorated(sync_load),
    "async run to its end": run_to_its_end(other_name),
    "lambda": lambda c: None if c["sub"] == "eve" else User(c["sub"]),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
async def test_user(load: Callable[..., Any]) -> None:
    """Whatever loads it, sync or async: the user of the claims, and a 401 where there is none, or no credential."""
    app = giving(auth_of("HS256").user(load))
    assert (await call(app, "/", ADA)).json == "User(name='ada')"
    assert seen(await call(app, "/", EVE)) == UNKNOWN_USER
    assert seen(await call(app)) == STRANGER
    assert seen(await call(app, "/", "a.b.c")) == UNKNOWN_USER


async def test_a_class_as_a_loader() -> None:
    """A class is a loader of its instances."""

    class Found:
        def __init__(self, claims: dict[str, Any]) -> None:
            self.sub = claims["sub"]

        def __str__(self) -> str:
            return str(self.sub)

    assert (await call(giving(auth_of("HS256").user(Found)), "/", ADA)).json == "ada"


async def test_user_with_scopes() -> None:
    """Scopes may be required beside the user; the loader does not run without them."""
    loaded: list[Any] = []

    async def load(claims: dict[str, Any]) -> User:
        loaded.append(claims)
        return User(claims["sub"])

    app = giving(auth_of("HS256").user(load, "documents:edit", "items:read"))
    assert (await call(app, "/", ADA)).json == "User(name='ada')"
    status, detail, [challenge] = seen(await call(app, "/", EVE))
    assert (status, detail) == (403, "Token is missing required scope: documents:edit")
    assert challenge == f'{PLAIN}, error="insufficient_scope", scope="documents:edit items:read"'
    assert (await call(app)).status == 401
    assert len(loaded) == 1
    with pytest.raises(ConfigurationError, match="is not a scope"):
        auth_of("HS256").user(load, "")


async def test_dependencies_of_a_loader() -> None:
    """A loader has FastAPI dependencies and parameters of its own, which tests can override; the claims come first."""
    order: list[str] = []

    async def get_db() -> Any:
        order.append("db")
        yield "db"

    async def load(post_id: int, db: Annotated[str, Depends(get_db)], claims: dict[str, Any], q: str = "-") -> User:
        return User(f"{claims['sub']} {post_id} {db} {q}")

    load.__annotations__["db"] = Annotated[str, Depends(get_db)]
    app = giving(auth_of("HS256").user(load))
    assert (await call(app, "/posts/7", ADA)).json == "User(name='ada 7 db -')"
    assert order == ["db"]
    assert seen(await call(app, "/posts/7")) == STRANGER
    assert seen(await call(app, "/posts/seven")) == STRANGER
    assert order == ["db"]
    assert (await call(app, "/posts/seven", ADA)).status == 422
    app.dependency_overrides[get_db] = lambda: "test"
    assert (await call(app, "/posts/7", ADA)).json == "User(name='ada 7 test -')"


async def test_a_loader_asks_for_the_connection_and_the_scopes() -> None:
    """Objects that our dependency gets from FastAPI, a loader and a policy get as well."""
    filled: list[Any] = []

    async def load(
        claims: dict[str, Any],
        connection: HTTPConnection,
        maybe: HTTPConnection | None,
        described: Annotated[HTTPConnection | None, "which is there"],
        request: Request,
        scopes: Annotated[SecurityScopes, "of whom it stands below"],
        other: Annotated[HTTPConnection, Depends(lambda: 7)],
    ) -> bool:
        filled.append((connection is request is maybe is described, claims["sub"], scopes.scopes, other))
        return True

    auth = auth_of("HS256")
    for write in (auth.user, auth.allows, functools.partial(auth.owned, owner=lambda _: "ada")):
        app = FastAPI()
        guard = Security(write(load, "items:read").dependency, scopes=["documents:edit"])
        app.get("/", dependencies=[guard])(lambda: None)
        assert (await call(app, "/", ADA)).status == 200
    assert filled == [(True, "ada", ["documents:edit"], 7)] * 3


async def test_a_loader_that_has_a_guard_of_its_own() -> None:
    """A loader that is a dependency by itself works as one."""
    auth = auth_of("HS256")

    async def load(found: dict[str, Any]) -> User:
        return User(found["scope"])

    load.__annotations__["found"] = Annotated[dict[str, Any], auth.requires("documents:edit")]
    app = giving(auth.user(load))
    assert (await call(app, "/", ADA)).json == "User(name='items:read documents:edit')"
    assert (await call(app, "/", EVE)).status == 403
    assert (await call(app)).status == 401


async def test_one_alias_loads_once_a_request() -> None:
    """An alias that is used in several places is loaded once a request, and again in the next one."""
    loaded: list[str] = []

    async def load(claims: dict[str, Any]) -> User:
        loaded.append(claims["sub"])
        return User(claims["sub"])

    current = Annotated[User, auth_of("HS256").user(load)]

    async def name(user: Any) -> str:
        return str(user.name)

    name.__annotations__["user"] = current
    app = giving(Depends(name))
    app.router.dependencies.append(current.__metadata__[0])  # type: ignore[attr-defined]
    assert (await call(app, "/", ADA)).json == "ada"
    assert (await call(app, "/", EVE)).json == "eve"
    assert loaded == ["ada", "eve"]


async def test_two_users_of_one_loader_are_two() -> None:
    """The user of one guard is not taken for that of another, which may require more."""
    auth = auth_of("HS256")
    app = FastAPI(dependencies=[auth.user(async_load)])
    app.get("/", dependencies=[auth.user(async_load, "documents:edit")])(lambda: "passed")
    assert (await call(app, "/", ADA)).status == 200
    assert (await call(app, "/", forge("HS256", valid_claims(scope="items:read")))).status == 403


@pytest.mark.parametrize("scopes", [(), ("documents:edit",)])
async def test_the_hand_written_equivalent(scopes: tuple[str, ...]) -> None:
    """A factory that returns Depends around `auth.requires(*scopes)` works as well, without scopes too."""
    auth = auth_of("HS256")

    def current_user(*required: str) -> Any:
        async def load(claims: dict[str, Any]) -> User:
            return User(claims["sub"])

        load.__annotations__["claims"] = Annotated[dict[str, Any], auth.requires(*required)]
        return Depends(load)

    app = giving(current_user(*scopes))
    assert (await call(app, "/", ADA)).json == "User(name='ada')"
    assert (await call(app, "/", EVE)).status == (403 if scopes else 200)
    assert seen(await call(app)) == STRANGER


# --- allows ----------------------------------------------------------------------------------------------------------


def owns(claims: dict[str, Any], post: Annotated[Any, Depends(get_post)]) -> bool:
    """Own the post."""
    return post is not None and post.author_id == claims["sub"]


async def owns_async(post: Annotated[Any, Depends(get_post)], claims: dict[str, Any]) -> bool:
    """Own the post."""
    return owns(claims, post)


@pytest.mark.parametrize(
    "policy",
    [owns, owns_async, functools.partial(owns), decorated(owns_async)],
    ids=["sync", "async", "partial", "decorated"],
)
async def test_allows(policy: Callable[..., Any]) -> None:
    """A policy decides by the claims and by what FastAPI resolves; False is a 403."""
    app = giving(auth_of("HS256").allows(policy))
    assert "'sub': 'ada'" in (await call(app, "/posts/1", ADA)).json
    assert seen(await call(app, "/posts/2", ADA)) == FORBIDDEN
    assert seen(await call(app, "/posts/404", ADA)) == FORBIDDEN
    for stranger in ("/posts/1", "/posts/404", "/posts/x"):
        assert seen(await call(app, stranger)) == STRANGER


@pytest.mark.parametrize("answer", [False, None, 0, "", []])
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_is_false_is_a_refusal(answer: Any, is_async: bool) -> None:
    """A policy that forgets to return has refused, as has one that returns something false."""

    async def later(claims: dict[str, Any]) -> Any:
        return answer if claims["sub"] == "eve" else True

    app = giving(auth_of("HS256").allows(later if is_async else lambda c: answer if c["sub"] == "eve" else True))
    assert (await call(app, "/", ADA)).status == 200
    assert seen(await call(app, "/", EVE)) == FORBIDDEN


@pytest.mark.parametrize("answer", [1, "no", [False], object()])
async def test_what_is_merely_true_is_a_mistake(answer: Any) -> None:
    """A policy that returns something else than a bool is a mistake of the application, never a pass."""
    app = giving(auth_of("HS256").allows(lambda claims: answer))
    with pytest.raises(TypeError, match=r"the policy .*<lambda> returned (int|str|list|object): return"):
        await call(app, "/", ADA)


async def test_a_policy_without_claims() -> None:
    """A policy may look at something else alone; the credential is required all the same, and the claims are given."""

    def is_open(post: Annotated[Any, Depends(get_post)]) -> bool:
        return post is not None

    is_open.__annotations__["post"] = Annotated[Any, Depends(get_post)]
    app = giving(auth_of("HS256").allows(is_open))
    assert "'sub': 'ada'" in (await call(app, "/posts/1", ADA)).json
    assert seen(await call(app, "/posts/404", ADA)) == FORBIDDEN
    assert seen(await call(app, "/posts/1")) == STRANGER


async def test_two_policies_are_two() -> None:
    """Each policy is called, though the other has passed; scopes are required beside it."""
    auth = auth_of("HS256")
    yes, no = auth.allows(lambda claims: True, "items:read"), auth.allows(lambda claims: False)
    for first, second in ((yes, no), (no, yes)):
        app = FastAPI(dependencies=[first])
        app.get("/", dependencies=[second])(lambda: None)
        assert seen(await call(app, "/", ADA)) == FORBIDDEN
    assert (await call(giving(yes), "/", ADA)).status == 200
    assert (await call(giving(yes), "/", ROOT)).status == 403


@pytest.mark.parametrize("write", ["user", "allows"])
@pytest.mark.parametrize(
    ("error", "status"), [(HTTPException(418), 418), (Forbidden("No"), 403), (Unauthorized("Who?"), 401)]
)
async def test_an_http_exception_is_kept(write: str, error: HTTPException, status: int) -> None:
    """An HTTPException of a loader or a policy is the answer."""

    async def fail(claims: dict[str, Any]) -> Any:
        raise error

    answer = await call(giving(getattr(auth_of("HS256"), write)(fail)), "/", ADA)
    assert (answer.status, answer.json["detail"]) == (status, error.detail)


@pytest.mark.parametrize("write", ["user", "allows", "owned"])
async def test_another_exception_is_a_fault(write: str) -> None:
    """Any other exception is the application's 500, never a pass."""

    def fail(claims: dict[str, Any]) -> Any:
        raise ZeroDivisionError

    options = {"owner": "author_id"} if write == "owned" else {}
    app = giving(getattr(auth_of("HS256"), write)(fail, **options))
    with pytest.raises(ZeroDivisionError):
        await call(app, "/", ADA)
    assert seen(await call(app)) == STRANGER


# --- owned -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hide", [False, True])
async def test_owned(hide: bool) -> None:
    """An object or a mapping is given to its owner; what is not there is a 404, what is another's a 403 or hidden."""
    app = giving(auth_of("HS256").owned(get_post, owner="author_id", hide=hide))
    assert (await call(app, "/posts/1", ADA)).json == "Post(author_id='ada')"
    assert (await call(app, "/posts/2", EVE)).json == "Post(author_id='eve')"
    assert (await call(app, "/posts/3", ADA)).json == "{'author_id': 'ada'}"
    missing = (404, "Not Found", [])
    assert seen(await call(app, "/posts/404", ADA)) == missing
    for post in (2, 4, 5, 6, 7):
        assert seen(await call(app, f"/posts/{post}", ADA)) == (missing if hide else FORBIDDEN)
    for post in (1, 2, 404, "x"):
        assert seen(await call(app, f"/posts/{post}")) == STRANGER
    for post, kind in ((8, "object"), (9, "dict")):
        with pytest.raises(ConfigurationError) as refused:
            await call(app, f"/posts/{post}", ADA)
        message = "owner='author_id' names neither a key nor an attribute of what get_post returned: "
        assert str(refused.value) == message + kind


async def test_owned_or_by_scope() -> None:
    """A scope may stand in for ownership, by the validator of the Auth; other scopes may be required beside it."""
    auth = auth_of("HS256")
    app = giving(auth.owned(get_post, owner="author_id", or_scope="posts:*"))
    assert [(await call(app, f"/posts/{post}", ROOT)).status for post in (1, 2, 4, 404)] == [200, 200, 200, 404]
    assert seen(await call(app, "/posts/1", EVE)) == FORBIDDEN
    posts_edit = forge("HS256", valid_claims(sub="root", scope="posts:edit"))
    assert seen(await call(app, "/posts/1", posts_edit)) == FORBIDDEN
    both = giving(auth.owned(get_post, "documents:edit", owner=lambda post: post.author_id))
    assert [(await call(both, f"/posts/{post}", ADA)).status for post in (1, 2)] == [200, 403]
    assert (await call(both, "/posts/2", EVE)).json["detail"] == "Token is missing required scope: documents:edit"
    with pytest.raises(ConfigurationError, match="is not a scope"):
        auth.owned(get_post, owner="author_id", or_scope="a b")


@pytest.mark.parametrize("owner", ["", 5, None])
def test_what_is_no_owner(owner: Any) -> None:
    """An owner is a name or a callable."""
    with pytest.raises(ConfigurationError, match=r"^owner is the name of an attribute or a key"):
        auth_of("HS256").owned(get_post, owner=owner)


class Author:
    """Read the owner, and await."""

    async def __call__(self, post: Post) -> str:
        """Return the author."""
        return post.author_id  # pragma: no cover - refused before


@pytest.mark.parametrize("owner", [Author(), Author().__call__, functools.partial(Author())])
def test_an_owner_is_not_awaited(owner: Any) -> None:
    """An async callable as an owner would refuse every caller, and is refused when the guard is made."""
    with pytest.raises(ConfigurationError, match=r"^Author\S* is async: owner reads"):
        auth_of("HS256").owned(get_post, owner=owner)


def test_what_owned_cannot_work_with() -> None:
    """An owner of two parameters fails at every request, and a text as `hide` counts as true."""
    options: Any
    for options, message in (
        (
            {"owner": lambda post, claims: post.author_id == claims["sub"]},
            r"^owner has other parameters than it is called with: \(loaded\)$",
        ),
        ({"owner": "author_id", "hide": "false"}, r"^hide is True or False, not text of 5"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            auth_of("HS256").owned(get_post, **options)


async def test_what_owned_loads_is_loaded_once() -> None:
    """The loader is a dependency of FastAPI: loaded once beside a policy that uses it, overridden in one place."""
    loaded: list[int] = []

    def load(post_id: int) -> Any:
        loaded.append(post_id)
        return POSTS.get(post_id)

    def policy(claims: dict[str, Any], post: Any) -> bool:
        return post is not None

    policy.__annotations__["post"] = Annotated[Any, Depends(load)]
    auth = auth_of("HS256")
    app = giving(auth.owned(load, owner="author_id"))
    app.router.routes.clear()
    app.get("/posts/{post_id}", dependencies=[auth.allows(policy), auth.owned(load, owner="author_id")])(lambda: 1)
    assert (await call(app, "/posts/1", ADA)).status == 200
    assert loaded == [1]
    app.dependency_overrides[load] = lambda: Post("ada")
    assert (await call(app, "/posts/2", ADA)).status == 200
    assert loaded == [1]


class Finder:
    """Instances that find posts, with string annotations that FastAPI does not evaluate."""

    def __call__(self, post_id: int, request: Request) -> Any:
        """Find."""
        assert request.method == "GET"
        return POSTS.get(post_id)


async def find_for(post_id: int, claims: dict[str, Any], **ignored: Any) -> Any:
    """Find an object of a user."""
    return Post("ada") if claims["sub"] == "ada" else None


def find_any(post_id: Annotated[int, Path()], *ignored: Any) -> Any:
    """Find, with more parameters than FastAPI fills."""
    return POSTS.get(post_id)


@pytest.mark.parametrize(
    "load",
    [Finder(), functools.partial(Finder()), find_for, find_any],
    ids=["instance", "partial", "with claims", "variadic"],
)
async def test_loaders_of_owned(load: Callable[..., Any]) -> None:
    """Instances and partials with string annotations load too, and a loader with a parameter `claims` gets them."""
    app = giving(auth_of("HS256").owned(load, owner="author_id"))
    assert (await call(app, "/posts/1", ADA)).json == "Post(author_id='ada')"
    assert (await call(app, "/posts/1", EVE)).status == (404 if load is find_for else 403)
    assert seen(await call(app, "/posts/1")) == STRANGER


@given(st.one_of(st.none(), st.text(), st.integers(), st.uuids(), st.booleans(), st.binary()), st.text())
def test_ownership_is_equality_of_texts(owner: Any, sub: str) -> None:
    """The owner is the caller whose sub is the same text, and an object without an owner has none."""
    equal = isinstance(owner, str | int | UUID) and not isinstance(owner, bool) and str(owner) == sub != ""
    assert is_subject(owner, {"sub": sub}) is equal
    assert is_subject(owner, {"sub": owner}) is (owner not in (None, "") and not isinstance(owner, bool | bytes))


@pytest.mark.parametrize("principal", [{}, {"sub": None}, {"sub": ""}, "ada", None])
def test_who_owns_nothing(principal: Any) -> None:
    """A principal without a subject owns nothing."""
    assert is_subject("ada", {"sub": "ada"})
    assert not any(is_subject(owner, principal) for owner in ("ada", "", None, "None"))


# --- what cannot be a loader -----------------------------------------------------------------------------------------


def yielding(claims: dict[str, Any]) -> Any:
    """Yield."""
    yield claims  # pragma: no cover - it is refused


async def yielding_later(claims: dict[str, Any]) -> Any:
    """Yield."""
    yield claims  # pragma: no cover - it is refused


class Yielding:
    """Instances that yield."""

    def __call__(self, claims: dict[str, Any]) -> Any:
        """Yield."""
        yield claims  # pragma: no cover - it is refused


def unresolvable(claims: dict[str, Any], post: Annotated[Nowhere, Depends(get_post)]) -> Any:  # type: ignore[name-defined]  # noqa: F821
    """Name a type that is nowhere."""


def only_for_checkers(claims: dict[str, Any], price: Decimal) -> Any:
    """Name a type that is imported for a type checker alone."""


@pytest.mark.parametrize(("write", "role"), [("user", "a loader"), ("allows", "a policy"), ("owned", "a loader")])
@pytest.mark.parametrize(
    ("call_", "message"),
    [
        (yielding, "yielding yields: ROLE returns. "),
        (yielding_later, "yielding_later yields: "),
        (Yielding(), "Yielding yields: "),
        (functools.partial(yielding), "yielding yields: "),
        (contextlib.contextmanager(yielding), "yielding yields: "),
        (decorated(yielding_later), "yielding_later yields: "),
        (unresolvable, r"^the annotation .* of post, a parameter of unresolvable, cannot be evaluated: name 'Nowhere'"),
        (only_for_checkers, "^the annotation 'Decimal' of price, a parameter of only_for_checkers, cannot be"),
        (None, "^None is not callable"),
        (Depends(get_post), "is not callable: pass ROLE itself"),
        (iter, "iter has no signature that can be read"),
    ],
    ids=[
        "yielding",
        "async yielding",
        "yielding instance",
        "partial",
        "context manager",
        "decorated",
        "unresolvable",
        "for checkers",
        "none",
        "a marker",
        "no signature",
    ],
)
def test_what_cannot_be_called(write: str, role: str, call_: Any, message: str) -> None:
    """A generator, a callable whose annotations cannot be evaluated, and an object that is not callable are refused."""
    options = {"owner": "author_id"} if write == "owned" else {}
    with pytest.raises(ConfigurationError, match=message.replace("ROLE", role)):
        getattr(auth_of("HS256"), write)(call_, **options)


async def test_string_annotations_of_local_names() -> None:
    """A string annotation may use names of the module, and names of a function around that the body uses too."""

    class Local:
        """A local type."""

    async def local_post(post_id: int) -> Any:
        return POSTS.get(post_id)

    def policy(claims: dict[str, Any], post: Annotated[Any, Depends(local_post)]) -> bool:
        return local_post is not None and bool(post.author_id == claims["sub"])

    app = giving(auth_of("HS256").allows(policy))
    assert (await call(app, "/posts/1", ADA)).status == 200
    assert (await call(app, "/posts/1", EVE)).status == 403
    owned = giving(auth_of("HS256").owned(local_post, owner="author_id"))
    assert (await call(owned, "/posts/1", ADA)).status == 200

    def unknown(claims: dict[str, Any], post: Annotated[Local, Depends(local_post)]) -> bool: ...  # type: ignore[empty-body]

    with pytest.raises(ConfigurationError, match="name 'Local' is not defined; define its names at the top of the"):
        auth_of("HS256").allows(unknown)


async def test_a_local_name_that_is_another_thing_globally() -> None:
    """FastAPI would evaluate the annotation by the globals, where it is not an annotation."""
    INVALID = Annotated  # noqa: N806 - as the text of this module is called

    def load(post_id: INVALID[int, Path()]) -> Any:  # type: ignore[valid-type]
        return POSTS.get(post_id) if INVALID else None

    app = giving(auth_of("HS256").owned(load, owner="author_id"))
    assert [(await call(app, f"/posts/{post}", ADA)).status for post in (1, 2)] == [200, 403]


def test_names_that_come_later() -> None:
    """A name of an enclosing function that has no value yet cannot be evaluated."""

    def declare() -> None:
        def load(claims: dict[str, Any], later: Later) -> Any:
            return Later  # pragma: no cover - it is not called

        with pytest.raises(ConfigurationError, match=r"load, cannot be evaluated: name 'Later' is not defined; define"):
            auth_of("HS256").user(load)

        class Later:
            """Too late."""

        assert auth_of("HS256").user(load)

    declare()


# --- requires_recent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth_time", "passes"),
    [
        (NOW, True),
        (NOW - 300, True),
        (NOW - 300.5, False),
        (NOW - 301, False),
        (NOW + 30, True),
        (NOW + 61, False),
        (..., False),
        (None, False),
        (str(NOW), False),
        (True, False),
        ([NOW], False),
        (0, False),
    ],
)
async def test_requires_recent(auth_time: Any, passes: bool) -> None:
    """A login that is too long ago, or is not in the token, is a 401 with the challenge of RFC 9470."""
    token = forge("HS256", valid_claims(auth_time=auth_time))
    for max_age in (300, timedelta(minutes=5)):
        app = giving(auth_of("HS256").requires_recent(max_age))
        answer = await call(app, "/", token)
        if passes:
            assert answer.status == 200
        else:
            challenge = (
                f'{PLAIN}, error="insufficient_user_authentication",'
                ' error_description="More recent authentication is required", max_age="300"'
            )
            assert seen(answer) == (401, "More recent authentication is required", [challenge])
        assert seen(await call(app)) == STRANGER


async def test_requires_recent_on_every_auth() -> None:
    """It is there on an Auth of any kind: a principal that is not a mapping is never recent."""
    plain = Auth[str](APIKeyScheme("X-Key"))
    answer = await call(giving(plain.requires_recent(5)), "/", None, (b"x-key", b"k"))
    assert (answer.status, answer.challenges[0][:16]) == (401, 'ApiKey realm="ap')
    either = plain | auth_of("HS256")
    app = giving(either.requires_recent(300))
    assert (await call(app, "/", forge("HS256", valid_claims(auth_time=NOW - 10)))).status == 200
    stale = await call(app, "/", forge("HS256", valid_claims(auth_time=NOW - 400)))
    assert (stale.status, stale.challenges[0].count("insufficient_user_authentication")) == (401, 1)
    assert (await call(app, "/", None, (b"x-key", b"k"))).status == 401


@pytest.mark.parametrize("max_age", [-1, 1.5, True, "300", None, float("inf"), float("nan"), timedelta(seconds=-1)])
def test_what_is_no_duration(max_age: Any) -> None:
    """A duration is a number of whole seconds, or a timedelta of them."""
    rules = [auth_of("HS256").requires_recent(age).dependency for age in (0, 5, 5.0, timedelta(minutes=1))]
    assert [rule_of(rule) for rule in rules] == [f"login within {seconds} s" for seconds in (0, 5, 5, 60)]
    with pytest.raises(ConfigurationError, match=r"^max_age is a timedelta or a number of"):
        auth_of("HS256").requires_recent(max_age)


@given(st.one_of(st.floats(), st.integers(), st.text(), st.none(), st.booleans()), st.integers(0, 10**6))
def test_what_is_recent(auth_time: Any, max_age: int) -> None:
    """Whatever the claim holds, only a number within the time is recent, and nothing fails."""
    number = isinstance(auth_time, int | float) and not isinstance(auth_time, bool)
    recent = number and 0 <= NOW - auth_time <= max_age
    assert is_recent({"auth_time": auth_time}, max_age, NOW) is (recent or (number and 0 < auth_time - NOW <= 60))


@pytest.mark.parametrize("principal", ["ada", None, 5, ["otp"]], ids=repr)
def test_a_principal_without_claims(principal: object) -> None:
    """It has no login, no factor and no subject, and nothing fails."""
    assert not is_recent(principal, 300, NOW)
    assert not used_factor(principal, "otp", None, NOW)
    assert not used_factor(principal, "otp", 300, NOW)
    assert not is_subject("ada", principal)


@pytest.mark.parametrize(
    "auth_time", [pytest.param(10**400, id="larger"), pytest.param(-(10**400), id="smaller"), 1e308, -1e308, inf, nan]
)
def test_a_moment_beyond_any_clock_is_not_recent(auth_time: float) -> None:
    """A whole number of JSON may be larger than any float; such a login is not recent, and nothing fails."""
    assert is_recent({"auth_time": 999.5}, 300, 1000.5)
    assert is_recent({"auth_time": 1060.5}, 300, 1000.5)
    assert not is_recent({"auth_time": 1061}, 300, 1000.5)
    assert not is_recent({"auth_time": auth_time}, 300, 1000.5)


def test_what_openapi_says() -> None:
    """Only the rule of an owner documents the 404 of a missing or foreign object."""
    auth = auth_of("HS256")
    app = FastAPI()
    for path, dependency in {
        "/user": auth.user(async_load),
        "/allows": auth.allows(lambda claims: True),
        "/posts/{post_id}": auth.owned(get_post, owner="author_id"),
    }.items():
        app.get(path, dependencies=[dependency])(lambda: None)
    configure_app(app)
    paths = app.openapi()["paths"]
    assert [path for path in paths if "404" in paths[path]["get"]["responses"]] == ["/posts/{post_id}"]


# --- events, overrides, WebSockets -----------------------------------------------------------------------------------


async def test_events() -> None:
    """Each refusal is one event, with its reason."""
    events: list[Event] = []
    auth = auth_of("HS256", options={"on_event": events.append})
    for dependency, path in (
        (auth.user(async_load), "/"),
        (auth.allows(lambda claims: False), "/"),
        (auth.owned(get_post, owner="author_id"), "/posts/1"),
        (auth.owned(get_post, owner="author_id", hide=True), "/posts/1"),
        (auth.requires_recent(5), "/"),
    ):
        await call(giving(dependency), path, EVE)
    refused = [(event.status, event.reason) for event in events if event.name == "refused"]
    assert refused == [
        (401, "unknown_user"),
        (403, "policy"),
        (403, "not_owner"),
        (404, "not_owner"),
        (401, "stale_login"),
    ]


async def test_overrides() -> None:
    """One override of `auth.dependency` reaches users, policies and owners; so does acting_as, with its scopes."""
    auth: JWTAuth = auth_of("HS256")
    app = FastAPI()
    for path, dependency in {
        "/user": auth.user(async_load, "documents:edit"),
        "/allows": auth.allows(lambda claims: claims["sub"] == "test"),
        "/posts/{post_id}": auth.owned(get_post, owner="author_id", or_scope="posts:*"),
    }.items():
        app.get(path, dependencies=[dependency])(lambda: None)
    paths = ("/user", "/allows", "/posts/1")
    app.dependency_overrides[auth.dependency] = lambda: {"sub": "test", "scope": "posts:*"}
    assert [(await call(app, path)).status for path in paths] == [200, 200, 200]
    app.dependency_overrides.clear()
    with acting_as(app, auth, {"sub": "ada", "scope": "items:read"}):
        assert [(await call(app, path)).status for path in paths] == [403, 403, 200]
    assert [(await call(app, path)).status for path in paths] == [401] * 3


async def test_enclosing_scopes() -> None:
    """Scopes above a user reach the guard below it."""
    auth = auth_of("HS256")

    async def outer(user: Any) -> str:
        return str(user)

    outer.__annotations__["user"] = Annotated[User, auth.user(async_load)]
    app = giving(Security(outer, scopes=["documents:edit"]))
    assert (await call(app, "/", ADA)).status == 200
    assert (await call(app, "/", forge("HS256", valid_claims(scope="items:read")))).status == 403


def test_no_guard_is_equal_to_another() -> None:
    """Each call makes a dependency of its own."""
    auth = auth_of("HS256")
    made = [
        *(auth.user(async_load).dependency for _ in range(2)),
        *(auth.allows(owns).dependency for _ in range(2)),
        *(auth.owned(get_post, owner="author_id").dependency for _ in range(2)),
        *(auth.requires_recent(5).dependency for _ in range(2)),
    ]
    assert len(set(made)) == len(made)
    assert all(inspect.iscoroutinefunction(call) for call in made)


def test_websockets() -> None:
    """A user is loaded on a WebSocket as well."""
    auth = auth_of("HS256")
    app = FastAPI()

    async def greet(websocket: WebSocket, user: Any) -> None:
        await websocket.accept()
        await websocket.send_json(user.name)
        await websocket.close()

    greet.__annotations__["user"] = Annotated[User, auth.user(functools.partial(with_prefix, "Dr. "))]
    app.websocket("/")(greet)
    with TestClient(app).websocket_connect("/", headers={"Authorization": f"Bearer {ADA}"}) as session:
        assert session.receive_json() == "Dr. ada"


# --- tenants ---------------------------------------------------------------------------------------------------------


class Tenants(ScopesAuth):
    """Claims as the test wants them."""

    def __init__(self, claims: dict[str, Any], **options: Any) -> None:
        """Verify everything as these claims."""
        super().__init__(**options)
        self.claims = claims

    async def verify(self, raw: str) -> dict[str, Any]:
        """Return the claims."""
        return dict(self.claims)


@pytest.mark.parametrize(
    ("claims", "passes"),
    [
        ({"tenant_id": "acme"}, True),
        ({"tenant": "acme"}, True),
        ({"tenant_id": ["other", "acme"]}, True),
        ({"tenant_id": None, "tenant": "acme"}, True),
        ({"tenant_id": "other", "tenant": "acme"}, False),
        ({"tenant_id": "Acme"}, False),
        ({"tenant_id": "acme "}, False),
        ({"tenant_id": ""}, False),
        ({"tenant_id": True}, False),
        ({"tenant_id": {"acme": 1}}, False),
        ({}, False),
    ],
)
async def test_requires_tenant(claims: dict[str, Any], passes: bool) -> None:
    """The tenant in the path has to be the caller's, as an exact text."""
    auth = Tenants(claims)
    app = FastAPI()
    app.get("/tenants/{tenant}", dependencies=[auth.requires_tenant()])(lambda: None)
    answer = await call(app, "/tenants/acme", "x")
    assert answer.status == 200 if passes else seen(answer) == FORBIDDEN
    assert seen(await call(app, "/tenants/acme")) == STRANGER


@pytest.mark.parametrize(
    ("held", "path"),
    [(True, "True"), (None, "None"), (1.5, "1.5"), ({"acme": 1}, "{'acme': 1}"), ("", "")],
    ids=["bool", "none", "number", "object", "empty"],
)
async def test_what_names_no_tenant(held: Any, path: str) -> None:
    """Only a text with something in it and a whole number name a tenant, in a list as well."""
    app = FastAPI()
    auth = Tenants({"tenant_id": [held, 7, "acme"]})
    app.get("/tenants/{tenant:path}", dependencies=[auth.requires_tenant()])(lambda: None)
    assert [(await call(app, f"/tenants/{name}", "x")).status for name in ("acme", "7", path)] == [200, 200, 403]


async def test_other_names_of_a_tenant() -> None:
    """The parameter of the path and the claim have names of the application; a number is compared as text."""
    auth = Tenants({"org": 7}, tenant_claims=["org"])
    app = FastAPI()
    guard = auth.requires_tenant(path_param="org_id")
    app.get("/orgs/{org_id:int}", dependencies=[guard])(lambda: None)
    app.get("/none", dependencies=[guard])(lambda: None)
    assert [(await call(app, f"/orgs/{org}", "x")).status for org in (7, 8)] == [200, 403]
    assert auth.dependency.decision.tenants({"org": ["a", 5], "tenant": "b"}) == {"a", "5"}
    assert Auth(BearerScheme()).dependency.decision.tenants({"tenant": "b"}) == frozenset()
    with pytest.raises(
        ConfigurationError, match=r"^requires_tenant\(\) guards a path without \{org_id\}: pass path_param=$"
    ):
        await call(app, "/none", "x")
    for names in ((), "org"):
        with pytest.raises(ConfigurationError) as refused:
            Tenants({}, tenant_claims=names)
        assert str(refused.value) == f"tenant_claims is a sequence of claim names, such as ({names!r},)"


@pytest.mark.parametrize("name", [5, None, "", "{tenant}", "tenant:int", ["tenant"]], ids=repr)
def test_a_path_parameter_that_cannot_be(name: Any) -> None:
    """A name that no path can have for a parameter is an error when the guard is made."""
    with pytest.raises(ConfigurationError, match=r"^path_param is the name of a parameter of the path, such as"):
        Tenants({}).requires_tenant(name)


async def test_roles_as_the_page_has_them() -> None:
    """Roles stand for scopes, and a bare star in one for all of them; a role can be asked for by name."""
    roles = {"admin": ["*"], "moderator": ["users:read", "posts:*"], "user": ["posts:read"]}
    auth = auth_of("HS256", options={"roles": roles})
    app = FastAPI()
    for path, dependency in {
        "/role": auth.requires_role("admin", "moderator"),
        "/read": auth.requires("posts:read"),
        "/delete": auth.requires("posts:delete"),
        "/other": auth.requires("other:thing"),
    }.items():
        app.get(path, dependencies=[dependency])(lambda: None)
    statuses = {
        role: [
            (await call(app, path, forge("HS256", valid_claims(scope=..., roles=[role])))).status
            for path in ("/role", "/read", "/delete", "/other")
        ]
        for role in (*roles, "stranger")
    }
    assert statuses == {
        "admin": [200, 200, 200, 200],
        "moderator": [200, 200, 200, 403],
        "user": [403, 200, 403, 403],
        "stranger": [403, 403, 403, 403],
    }


@pytest.mark.parametrize(
    ("claims", "options", "challenge"),
    [
        ({"amr": ["pwd", "otp"]}, {}, None),
        ({"amr": ["otp"], "factors": {"otp": NOW - 5}}, {"max_age": 5}, None),
        ({"amr": ["otp"], "factors": {"otp": NOW - 6}}, {"max_age": 5}, 'max_age="5"'),
        ({"amr": ["otp"], "factors": {"otp": True}}, {"max_age": 5}, 'max_age="5"'),
        ({"amr": ["otp"], "factors": ["otp"]}, {"max_age": 5}, 'max_age="5"'),
        ({"amr": ["otp"]}, {"max_age": timedelta(minutes=1)}, 'max_age="60"'),
        ({"amr": ["pwd"]}, {}, ""),
        (
            {"amr": ["pwd"]},
            {"acr_values": "urn:mfa urn:hwk", "max_age": 5},
            'acr_values="urn:mfa urn:hwk", max_age="5"',
        ),
        ({"amr": "otp"}, {}, ""),
        ({"amr": None}, {}, ""),
        ({}, {}, ""),
    ],
)
async def test_requires_factor(claims: dict[str, Any], options: dict[str, Any], challenge: str | None) -> None:
    """A login without the factor, or with too old a one, is a 401 with the challenge of RFC 9470."""
    auth = auth_of("HS256")
    app = FastAPI(dependencies=[auth.requires_factor("otp", **options)])
    app.get("/")(lambda: "in")
    answer = await call(app, "/", forge("HS256", valid_claims(**claims)))
    if challenge is None:
        assert answer.status == 200
        return
    error = 'error="insufficient_user_authentication", error_description="More recent authentication is required"'
    expected = ", ".join(filter(None, ['Bearer realm="api"', error, challenge]))
    assert answer.refusal == (401, "More recent authentication is required", expected)


def test_factors_that_cannot_be() -> None:
    """The name of a factor is text, and its age a number of whole seconds."""
    auth = auth_of("HS256")
    for factor in ("", None, 5):
        with pytest.raises(ConfigurationError, match="factor is the name of an authentication method"):
            auth.requires_factor(cast("str", factor))
    with pytest.raises(ConfigurationError, match=r"^max_age is"):
        auth.requires_factor("otp", max_age=-1)
