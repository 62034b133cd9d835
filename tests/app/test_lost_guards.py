"""Guards that are written and not run: the application does not start, with the place and the remedy in the error."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from textwrap import dedent
from types import ModuleType
from typing import Annotated, Any, NamedTuple, NewType

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Security, WebSocket
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from typing_extensions import TypeAliasType, TypedDict

from fastapi_guard import AnyAuth, APIKeyScheme, BearerScheme, ConfigurationError, ScopesAuth, configure_app
from fastapi_guard.app import guarded
from fastapi_guard.app.asgi import Guarded
from fastapi_guard.app.mcp_tools import GuardedTools
from fastapi_guard.app.routes import routes_of
from fastapi_guard.login.throttle import Throttle


class Tokens(ScopesAuth):
    """An Auth that accepts every token."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": raw}  # pragma: no cover - no request gets here


auth = Tokens(name="auth")
either = auth | Tokens(name="other")
Dict = dict[str, Any]
NESTED = "a dependency inside another type is not run: write the guard, called, at the top of Annotated"
NO_EFFECT = "a guard has no effect here: write the guard, called, at the top of Annotated"


def load(claims: Dict) -> Any:
    """Load something."""


def refusal(app: FastAPI) -> str:
    """Return why the application does not start; empty where it does."""
    configure_app(app)
    try:
        with TestClient(app):
            return ""
    except ConfigurationError as error:
        return str(error)


def module(text: str) -> ModuleType:
    """Return a module of this text, with postponed annotations and an application ``app`` and an Auth ``auth``."""
    made = ModuleType("postponed")
    made.__dict__.update(auth=auth, app=FastAPI(), Annotated=Annotated, Any=Any, Depends=Depends, APIRouter=APIRouter)
    made.__dict__.update(Security=Security, WebSocket=WebSocket, dataclass=dataclass, BaseModel=BaseModel)
    sys.modules["postponed"] = made
    exec(compile("from __future__ import annotations\n" + dedent(text), "postponed", "exec"), made.__dict__)  # noqa: S102
    return made


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Forget the module afterwards."""
    yield
    sys.modules.pop("postponed", None)


# What each module has: an annotation that FastAPI cannot evaluate when the route is declared.
POSTPONED = {
    "below": (
        """
        @app.delete("/users/{n}")
        async def delete(n: int, caller: Admin = None) -> str:
            return "gone"

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "DELETE /users/{n}: parameter caller of delete()",
    ),
    "below, required": (
        """
        @app.get("/a")
        async def read(caller: Admin): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "GET /a: parameter caller of read()",
    ),
    "the Auth below": (
        """
        @app.get("/a")
        async def read(caller: Annotated[dict, later.requires("x")] = None): ...

        later = auth
        """,
        "GET /a: parameter caller of read()",
    ),
    "in a function": (
        """
        def make():
            Admin = Annotated[dict, auth.requires("x")]
            @app.get("/a")
            async def read(caller: Admin = None): ...

        make()
        """,
        "GET /a: parameter caller of read(): Admin cannot be evaluated",
    ),
    "the Auth in a function": (
        """
        def make():
            inner = auth
            @app.get("/a")
            async def read(caller: Annotated[dict, inner.requires("x")] = None): ...

        make()
        """,
        "parameter caller of read(): inner cannot be evaluated",
    ),
    "beside a name of the type checker": (
        """
        @app.get("/a")
        async def read(caller: Annotated[User, auth.requires("x")] = None): ...
        """,
        "GET /a: parameter caller of read()",
    ),
    "in a union": (
        """
        @app.get("/a")
        async def read(caller: Admin | None = None): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        NESTED,
    ),
    "quoted twice": (
        """
        @app.get("/a")
        async def read(caller: "Admin" = None): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "GET /a: parameter caller of read()",
    ),
    "quoted within": (
        """
        @app.get("/a")
        async def read(caller: list["Admin"] | None = None): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        NESTED,
    ),
    "any of": (
        """
        @app.get("/a")
        async def read(caller: Admin = None): ...

        Admin = Annotated[dict, auth.requires_any("x", "y")]
        """,
        "GET /a: parameter caller of read()",
    ),
    "a dependency below": (
        """
        @app.get("/a")
        async def read(user: User = None): ...

        def get_user(claims: Annotated[dict, auth.requires("x")]): ...
        User = Annotated[Any, Depends(get_user)]
        """,
        "GET /a: parameter user of read()",
    ),
    "a sub-dependency": (
        """
        def get_user(claims: Admin = None): ...

        @app.get("/a")
        async def read(user: Annotated[Any, Depends(get_user)]): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "GET /a: parameter claims of get_user()",
    ),
    "a class": (
        """
        class Users:
            def __init__(self, claims: Admin = None): ...

        Admin = Annotated[dict, auth.requires("x")]

        @app.get("/a")
        async def read(users: Annotated[Users, Depends()]): ...
        """,
        "",  # it is defined by then
    ),
    "a class, below": (
        """
        class Users:
            def __init__(self, claims: Admin = None): ...

        @app.get("/a")
        async def read(users: Users = Depends(Users)): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "GET /a: parameter claims of Users()",
    ),
    "a class with a name of its own": (
        """
        class Users:
            Admin = Annotated[dict, auth.requires("x")]
            def __init__(self, claims: Admin = None): ...

        @app.get("/a")
        async def read(users: Users = Depends(Users)): ...
        """,
        "GET /a: parameter claims of Users()",
    ),
    "an instance": (
        """
        class Users:
            def __call__(self, claims: Admin = None): ...

        @app.get("/a", dependencies=[Depends(Users())])
        async def read(): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "GET /a: parameter claims of Users()",
    ),
    "a dataclass": (
        """
        @dataclass
        class Users:
            claims: Admin = None

        @app.get("/a", dependencies=[Depends(Users)])
        async def read(): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "GET /a: parameter claims of Users()",
    ),
    "a WebSocket": (
        """
        @app.websocket("/ws")
        async def talk(websocket: WebSocket, caller: Admin = None): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "WEBSOCKET /ws: parameter caller of talk()",
    ),
    "a name that changes its meaning": (
        """
        Admin = Annotated[dict, auth.requires("weak")]

        @app.get("/a")
        async def read(caller: Admin): ...

        Admin = Annotated[dict, auth.requires("strong")]
        """,
        "GET /a: parameter caller of read()",
    ),
    "a type that becomes a guard": (
        """
        Admin = str

        @app.get("/a")
        async def read(caller: Admin = ""): ...

        Admin = Annotated[dict, auth.requires("x")]
        """,
        "GET /a: parameter caller of read()",
    ),
    "Depends of a guard, below": (
        """
        @app.get("/a")
        async def read(caller: Admin = None): ...

        Admin = Annotated[dict, Depends(auth.requires("x"))]
        """,
        "GET /a: parameter caller of read(): FastAPI does not run this dependency",
    ),
    "what is returned": (
        """
        def get_user() -> Annotated[dict, auth.requires("x")]: ...

        @app.get("/a", dependencies=[Depends(get_user)])
        async def read(): ...
        """,
        "GET /a: what get_user() returns",
    ),
    "a method that is not called": (
        """
        @app.get("/a")
        async def read(caller: Annotated[dict, later.requires] = None): ...

        later = auth
        """,
        "auth.requires is not called, so that it guards nothing: write requires()",
    ),
    "an Auth below": (
        """
        @app.get("/a")
        async def read(caller: later = None): ...

        later = auth
        """,
        NO_EFFECT,
    ),
    "a guard without Annotated": (
        """
        @app.get("/a")
        async def read(caller: later.requires("x") = None): ...

        later = auth
        """,
        NO_EFFECT,
    ),
    # These work, and start.
    "above": (
        """
        Admin = Annotated[dict, auth.requires("x")]

        @app.get("/a")
        async def read(caller: Admin): ...
        """,
        "",
    ),
    "a router that is included below": (
        """
        router = APIRouter()

        @router.get("/a")
        async def read(caller: Admin): ...

        Admin = Annotated[dict, auth.requires("x")]
        app.include_router(router)
        """,
        "",
    ),
    "a name of the type checker that is not needed": (
        """
        def session(): ...

        @app.get("/a", dependencies=[auth.requires("x")])
        async def read(db: Session = Depends(session)): ...
        """,
        "",
    ),
    "a name that is gone": (
        """
        Limit = int

        @app.get("/a", dependencies=[auth.requires("x")])
        async def read(limit: Limit = 5, user: list[Limit] = ()): ...

        del Limit
        """,
        "",
    ),
    "what is returned is the type checker's": (
        """
        @app.get("/a", dependencies=[auth.requires("x")], response_model=None)
        async def read() -> Session: ...
        """,
        "",
    ),
}


@pytest.mark.parametrize("spelling", POSTPONED)
def test_an_annotation_that_fastapi_could_not_evaluate(spelling: str) -> None:
    """The annotations as evaluated at the start are compared with what FastAPI built, in sub-dependencies too."""
    text, expected = POSTPONED[spelling]
    message = refusal(module(text).app)
    if expected:
        assert expected in message
        assert "define the names" in message or "at the top of" in message or "write requires()" in message
    else:
        assert message == ""


def get(endpoint: Callable[..., Any], path: str = "/a", **options: Any) -> FastAPI:
    """Return an application with this endpoint."""
    app = FastAPI()
    app.get(path, response_model=None, **options)(endpoint)
    return app


def default(value: Any) -> FastAPI:
    """Return an application whose endpoint has a parameter with this default."""

    def read(caller: Any = value) -> None:
        """Read, with a caller."""

    return get(read)


def annotated(annotation: Any, value: Any = None) -> FastAPI:
    """Return an application whose endpoint has a parameter with this annotation."""

    def read(request: Request, caller: Any = value) -> None:
        """Read, with a caller."""

    read.__annotations__["caller"] = annotation
    return get(read)


def in_list(*dependencies: Any) -> FastAPI:
    """Return an application whose endpoint has these dependencies."""

    def read() -> None:
        """Read."""

    return get(read, dependencies=list(dependencies))


class Model(BaseModel):
    """A body with a guard in it."""

    caller: Any = auth.requires("x")


class Called:
    """A dependency whose instances guard, and the class does not."""

    def __call__(self, claims: Annotated[Dict, auth.requires("x")]) -> None:
        """Guard."""


class Made:
    """A dependency whose class guards, and an instance does not."""

    def __init__(self, claims: Annotated[Dict | None, auth.requires("x")] = None) -> None:
        """Guard."""

    def __call__(self) -> None:
        """Guard nothing."""


class Attributes:
    """A class whose attributes nothing reads, since it is not a dataclass."""

    claims: Annotated[Dict, auth.requires("x")]


@dataclass
class Field:
    """A dataclass whose field has a guard for a default factory."""

    claims: Any = field(default_factory=partial(auth.requires, "x"))


class Holder:
    """A dependency that FastAPI calls, with values that it does not read."""

    def __init__(self, *values: Any) -> None:
        """Store values."""
        self.values = values

    def __call__(self) -> None:
        """Guard nothing."""


class Slotted:
    """The same without a dict."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        """Store a value."""
        self.value = value

    def __call__(self) -> None:
        """Guard nothing."""


class View:
    """A view whose attributes nothing reads."""

    claims: Annotated[Dict, auth.requires("x")]

    def read(self) -> None:
        """Read."""


class ByClass:
    """A dependency with a guard as an attribute of its class."""

    guard = auth.requires("x")


class Guards(Enum):
    """Guards by name."""

    READER = auth.requires("x")


class Lazy:
    """A value that cannot be read before a request."""

    def __getattribute__(self, name: str) -> Any:
        """Fail."""
        raise RuntimeError(name)


def closing(*values: Any) -> Callable[[], Any]:
    """Return a function that closes over values, and a name that is never assigned."""

    def closed() -> Any:
        """Use the values."""
        return values, later  # pragma: no cover - no request gets here

    if not values:
        later = None  # pragma: no cover - there are some
    return closed


def decorator(guard: Any) -> Callable[..., Any]:
    """Guard a function, as it seems."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def guarded_function() -> Any:
            return guard and function()  # pragma: no cover - no request gets here

        return guarded_function

    return decorate


class Simple(Tokens):
    """An Auth that can be made without an argument."""

    def __init__(self) -> None:
        """Be called simple."""
        super().__init__(name="simple")  # pragma: no cover - no request gets here


def takes(claims: Annotated[Dict, auth.requires("x")]) -> None:
    """Read, with claims."""


def hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hide the parameters of a function."""

    @wraps(function)
    def hidden(request: Request) -> None:
        """Call the function with nothing."""

    hidden.__signature__ = signature(hidden, follow_wrapped=False)  # type: ignore[attr-defined]
    return hidden


def calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function, as a decorator without functools.wraps."""

    def called(request: Request) -> Any:
        return function()  # pragma: no cover - no request gets here

    return called


class Calling:
    """A decorator that is a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Decorate a function."""
        self.function = function

    def __call__(self, request: Request) -> Any:
        """Call it."""
        return self.function()  # pragma: no cover - no request gets here


def signed(*parameters: Parameter) -> Callable[..., Any]:
    """Return a function whose signature was set by hand."""

    def function(claims: Annotated[Dict | None, auth.requires("x")] = None, *, other: int = 5) -> None:
        """Read, with claims."""

    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return function


def among_others(guard: Any) -> FastAPI:
    """Return an application with an endpoint that calls another, which was made beside it."""
    app = FastAPI()

    def listing(claims: Annotated[Dict, auth.requires("x")]) -> None:
        """List."""

    def creating(claims: Annotated[Dict, guard]) -> Any:
        """Create, and list."""
        return listing(claims)  # pragma: no cover - no request gets here

    app.get("/a")(listing)
    app.post("/a")(creating)
    return app


class InModel(BaseModel):
    """A model of which FastAPI resolves no field."""

    caller: Annotated[str | None, Depends(takes)] = None


class AroundModel(BaseModel):
    """A model with such a model in it."""

    inner: list[InModel] = []


@dataclass
class InDataclass:
    """A dataclass of which FastAPI resolves no field, where it is a body."""

    caller: Annotated[str | None, Depends(auth.dependency)] = None


@dataclass
class Unknown:
    """A dataclass with an annotation that cannot be evaluated."""

    caller: "nowhere" = None  # type: ignore[name-defined] # noqa: F821


class InDict(TypedDict, total=False):
    """A dictionary."""

    caller: Annotated[str | None, Depends(takes)]


class InTuple(NamedTuple):
    """A tuple."""

    caller: Annotated[str | None, Depends(takes)] = None


def endless() -> list[Any]:
    """Return a list that holds itself, and a guard."""
    values: list[Any] = [auth.authenticated()]
    values.append(values)
    return values


LIST = "a list of guards as the default of a parameter is not run: write it in the decorator"
LAST = "of several dependencies in one Annotated[...] FastAPI runs the last alone"
CALLER = "GET /a: parameter caller of read()"
HELD = "holds a guard as a value, which FastAPI does not run: write the guard, called, at the top of Annotated"
UNSEEN = "FastAPI does not see the parameter, so its guard is not run"
FOREIGN = "FastAPI does not resolve this function, so its guard is not run"

# Spellings that FastAPI takes without a word, and what is wrong with each.
WRITTEN: dict[str, tuple[Callable[[], FastAPI], tuple[str, ...]]] = {
    "a list as a default": (lambda: default([auth.authenticated()]), (CALLER, LIST)),
    "a tuple as a default": (lambda: default((auth.requires("x"),)), (CALLER, LIST)),
    "a set as a default": (lambda: default({"guard": [auth.requires_any("x")]}), (CALLER, LIST)),
    "Depends in a list as a default": (lambda: default([Depends(auth.dependency)]), (CALLER, LIST)),
    "Depends of a method in a list": (lambda: default([Depends(auth.requires)]), (CALLER, "requires is not called")),
    "deep in lists": (lambda: default([[[[[auth.requires("x")]]]]]), (CALLER, LIST)),
    "in a list that holds itself": (lambda: default(endless()), (CALLER, LIST)),
    "an Auth as a default": (lambda: default(auth), (CALLER, NO_EFFECT)),
    "a guard's callable as a default": (lambda: default(auth.dependency), (CALLER, NO_EFFECT)),
    "a method as a default": (lambda: default(auth.requires), (CALLER, "auth.requires is not called")),
    "a partial as a default": (lambda: default(partial(auth.requires, "x")), (CALLER, "requires is not called")),
    "a class as a default": (lambda: default(Tokens), (CALLER, "Tokens is a class, which guards nothing")),
    "the default of a query": (lambda: default(Query(auth.requires("x"))), (CALLER, NO_EFFECT)),
    "beside Request": (lambda: annotated(Annotated[Request, auth]), (CALLER, NO_EFFECT)),
    "a method beside Request": (
        lambda: annotated(Annotated[Request, auth.requires]),
        (CALLER, "auth.requires is not called"),
    ),
    "a list in Annotated": (lambda: annotated(Annotated[Dict, [auth.requires("x")]]), (CALLER, NO_EFFECT)),
    "in another object": (lambda: annotated(Annotated[Dict, Field(auth.requires)]), (CALLER, "requires is not called")),
    "a class in Annotated": (lambda: annotated(Annotated[Dict, Tokens]), (CALLER, "Tokens is a class")),
    "the first of two": (
        lambda: annotated(Annotated[Dict, auth.requires("x"), auth.requires("y")]),
        (CALLER, LAST),
    ),
    "before another dependency": (
        lambda: annotated(Annotated[Dict, auth.requires("x"), Depends(load)]),
        (CALLER, LAST),
    ),
    "a dependency before another": (
        lambda: annotated(Annotated[Dict, Depends(takes), Depends(load)]),
        (CALLER, LAST),
    ),
    "before a body": (
        lambda: annotated(Annotated[Dict, Security(auth.dependency, scopes=["x"]), Body()]),
        (CALLER, LAST),
    ),
    "Depends in a union": (lambda: annotated(Annotated[Any, Depends(takes)] | None), (CALLER, NESTED)),
    "Depends in a list": (lambda: annotated(list[Annotated[str, Depends(takes)]], []), (CALLER, NESTED)),
    "a model": (lambda: annotated(Annotated[Model, Body()]), (CALLER, NO_EFFECT)),
    "models": (lambda: annotated(dict[str, Model] | None), (CALLER, NO_EFFECT)),
    "Depends of a partial": (lambda: in_list(Depends(partial(auth.requires, "x"))), ("requires is not called",)),
    "Depends of a function": (
        lambda: in_list(Depends(partial(Tokens.requires, auth, "x"))),
        ("GET /a: requires is not called",),
    ),
    "Depends of the class of a scheme": (
        lambda: in_list(Depends(BearerScheme)),
        ("GET /a: BearerScheme is a class, whose",),
    ),
    "Depends of the class of a Throttle": (
        lambda: in_list(Depends(Throttle)),
        ("GET /a: Throttle is a class, whose arguments FastAPI reads from the request: pass an object of it",),
    ),
    "Depends of a class": (lambda: in_list(Depends(Simple)), ("GET /a: Simple is a class, which guards nothing",)),
    "Depends of another method": (lambda: in_list(Depends(auth.verify)), ("GET /a: auth.verify is not a guard",)),
    "a scheme": (
        lambda: in_list(Depends(auth.scheme)),
        ("GET /a: BearerScheme in dependencies finds a credential and verifies none", "[auth.authenticated()]"),
    ),
    "a scheme beside a dependency": (
        lambda: in_list(Depends(load), Security(APIKeyScheme("X-Key"))),
        ("APIKeyScheme in",),
    ),
    "Depends of a class with __call__": (
        lambda: in_list(Depends(Called)),
        ("GET /a: parameter claims of Called.__call__()", UNSEEN),
    ),
    "Depends of an instance with __init__": (
        lambda: in_list(Depends(Made())),
        ("GET /a: parameter claims of Made.__init__()", UNSEEN),
    ),
    "attributes of a class": (lambda: in_list(Depends(Attributes)), ("parameter claims of Attributes()", UNSEEN)),
    "the factory of a dataclass": (
        lambda: in_list(Depends(Field)),
        ("parameter claims of Field()", "auth.requires is not called"),
    ),
    "filled by partial": (lambda: get(partial(takes, {})), ("GET /a: parameter claims of takes()", UNSEEN)),
    "a list as a default of a partial": (lambda: get(partial(takes_list, other=5)), ("takes_list(): a list of",)),
    "filled by partial, with Depends": (lambda: get(partial(takes_wrongly, {})), (UNSEEN,)),
    "held by an instance": (lambda: in_list(Depends(Holder(auth.requires("x")))), ("GET /a: Holder() holds", HELD)),
    "Depends held by an instance": (
        lambda: in_list(Depends(Holder([Depends(auth)]))),
        ("Holder() holds a guard", HELD),
    ),
    "held in a slot": (lambda: in_list(Depends(Slotted(auth.requires("x")))), ("GET /a: Slotted() holds", HELD)),
    "held by a class": (lambda: in_list(Depends(ByClass)), ("GET /a: ByClass() holds", HELD)),
    "held by a closure": (lambda: in_list(Depends(closing(auth.requires("x")))), ("GET /a: closed() holds", HELD)),
    "held by a partial": (lambda: in_list(Depends(partial(Holder, auth.requires("x")))), ("GET /a: Holder", HELD)),
    "held by a decorator": (lambda: get(decorator(auth.requires("x"))(read)), ("GET /a: read() holds", HELD)),
    "held beside another": (
        lambda: in_list(Depends(Holder(auth.requires("x"))), auth.requires("y")),
        ("GET /a: Holder() holds", HELD),
    ),
    "attributes of a view": (lambda: get(View().read), ("GET /a: parameter claims of View()", UNSEEN)),
    "a member of an Enum": (lambda: annotated(Annotated[str, Guards.READER], "x"), (CALLER, NO_EFFECT)),
    "a member of an Enum as a default": (lambda: default(Guards.READER), (CALLER, NO_EFFECT)),
    "a field of a query": (lambda: annotated(Annotated[InModel, Query()]), (CALLER, NESTED)),
    "a field of a model in a model": (lambda: annotated(AroundModel | None), (CALLER, NESTED)),
    "a field of a dataclass": (lambda: annotated(Annotated[InDataclass, Body()]), (CALLER, NESTED)),
    "a field of a dictionary": (lambda: annotated(Annotated[list[InDict], Body()]), (CALLER, NESTED)),
    "a field of a tuple": (lambda: annotated(Annotated[InTuple, Body()]), (CALLER, NESTED)),
    "hidden by a decorator without wraps": (lambda: get(calling(takes)), ("parameter claims of takes()", UNSEEN)),
    "hidden by two of them": (lambda: get(calling(calling(takes))), ("parameter claims of takes()", UNSEEN)),
    "hidden by a class": (lambda: get(Calling(takes)), ("parameter claims of takes()", UNSEEN)),
    "hidden by a class, partly": (lambda: get(Calling(partial(takes_other, 5))), ("claims of takes_other()", UNSEEN)),
    "hidden by a partial": (lambda: get(partial(print, takes)), ("parameter claims of takes()", UNSEEN)),
    "hidden by a signature": (lambda: get(signed()), ("parameter claims of function()", UNSEEN)),
    "an alias of an alias": (
        lambda: annotated(TypeAliasType("B", TypeAliasType("A", Annotated[Dict, Depends(takes)]))),
        (CALLER, "not an alias of an alias"),
    ),
    "hidden by a decorator": (lambda: get(hiding(takes)), ("GET /a: parameter claims of takes()", UNSEEN)),
}


def test_functions_that_an_endpoint_may_hold() -> None:
    """One whose guard is run, one that was made beside it, a method of an Auth; a signature that shows the guard."""
    assert refusal(get(calling(takes), dependencies=[Depends(takes)])) == ""
    assert refusal(among_others(auth.requires("y"))) == ""
    assert refusal(get(calling(auth.requires))) == ""
    claims = Parameter("claims", Parameter.KEYWORD_ONLY, annotation=Annotated[Dict, auth.requires("x")])
    assert refusal(get(signed(claims))) == ""


def test_types_whose_fields_fastapi_resolves() -> None:
    """Those of a class that is a dependency are its parameters; a type that cannot be read has no guard in it."""
    for kind in (InModel, InDataclass):
        app = annotated(Annotated[kind, Depends()])
        assert refusal(app) == ""
        assert [way.is_guarded for way in routes_of(app)] == [True]
    assert refusal(annotated(Annotated[Any, Depends(load_unknown)])) == ""


def load_unknown(claims: Annotated[Dict, auth.requires("x")], *found: list[Unknown]) -> None:
    """Load something of a type that cannot be read."""


def test_a_dependency_that_fastapi_would_refuse() -> None:
    """It has no guard to lose, where FastAPI runs another in its place."""

    def invalid(unknown: ModuleType) -> None:
        """Read a module."""

    assert refusal(annotated(Annotated[Dict, Depends(invalid), Depends(load)])) == ""


def test_a_scheme_beside_a_guard() -> None:
    """A scheme in a list describes the credential in the OpenAPI document; as a parameter it is the raw credential."""
    assert refusal(in_list(Depends(auth.scheme), auth.authenticated())) == ""
    assert refusal(annotated(Annotated[Any, Depends(auth.scheme)])) == ""


def test_a_method_of_an_auth_that_has_a_guard() -> None:
    """It is a dependency like any other."""

    class Own(Tokens):
        """An Auth with a dependency of its own."""

        async def subject(self, claims: Annotated[Dict, auth.requires("x")]) -> Any:
            """Return the subject."""
            return claims["sub"]  # pragma: no cover - no request gets here

    assert refusal(in_list(Depends(Own().subject))) == ""


def test_what_a_dependency_may_hold() -> None:
    """An Auth, a guard that runs, one of another method's, and what cannot be read."""
    guard = auth.requires("x")
    holders = (Holder(auth), Holder(Lazy()), Holder(list(range(5000)), [guard, *range(5000)]))
    assert refusal(get(holders[0], dependencies=[Depends(holders[1])])) == ""
    assert "holds a guard" in refusal(get(holders[2]))
    assert refusal(get(holders[2], dependencies=[guard])) == ""
    assert refusal(in_list(Depends(ByClass().__init__), Depends(Holder(guard).__init__))) == ""


@pytest.mark.parametrize("spelling", WRITTEN)
def test_a_guard_that_fastapi_does_not_run(spelling: str) -> None:
    """The message names the route, the parameter and the remedy."""
    make, expected = WRITTEN[spelling]
    message = refusal(make())
    for part in expected:
        assert part in message


def page(request: Any, claims: Annotated[Dict, auth.requires("x")] | Annotated[None, 0] = None) -> PlainTextResponse:
    """Answer, as a page of Starlette's."""
    return PlainTextResponse("open")  # pragma: no cover - the application does not start


def takes_wrongly(claims: Annotated[Dict, Depends(auth.requires("x"))]) -> None:
    """Read, with claims."""


def takes_other(other: int, claims: Annotated[Dict, auth.requires("x")]) -> None:
    """Read, with claims."""


def takes_list(other: int, caller: Any = [auth.requires("x")]) -> None:  # noqa: B006, B008
    """Read, with a caller."""


class Page(HTTPEndpoint):
    """Pages of Starlette's."""

    name = "page"

    async def get(self, request: Request, claims: Any = auth.requires("x")) -> PlainTextResponse:  # noqa: B008
        """Answer."""
        return PlainTextResponse("open")  # pragma: no cover - the application does not start


class Socket(WebSocketEndpoint):
    """A WebSocket of Starlette's."""

    async def on_connect(self, websocket: WebSocket, claims: Any = auth.requires("x")) -> None:  # noqa: B008
        """Accept."""


async def dispatch(request: Request, call_next: Any, claims: Annotated[Dict, Depends(takes)]) -> Any:
    """Pass on, as a middleware."""


class Passing(BaseHTTPMiddleware):
    """A middleware of Starlette's."""

    async def dispatch(self, request: Request, call_next: Any, claims: Annotated[Dict, Depends(takes)] = None) -> Any:  # type: ignore[assignment]
        """Pass on."""


async def handle(request: Request, error: Exception, claims: Any = auth.requires("x")) -> Any:  # noqa: B008
    """Answer an error."""


def read() -> None:
    """Return nothing."""


def of_starlette(path: str, endpoint: Any) -> FastAPI:
    """Return an application with a page of Starlette's."""
    app = FastAPI()
    app.add_route(path, endpoint)
    return app


def with_socket() -> FastAPI:
    """Return an application with a WebSocket of Starlette's."""
    app = FastAPI()
    app.router.add_websocket_route("/ws", Socket)
    return app


def with_middleware() -> FastAPI:
    """Return an application with a middleware that is a function."""
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    return app


class Dispatching:
    """The same function as an object."""

    async def __call__(self, request: Request, call_next: Any, claims: Annotated[Dict, Depends(takes)]) -> Any:
        """Pass on."""


def with_positional(*arguments: Any) -> FastAPI:
    """Return an application with a middleware that has positional arguments."""
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, *arguments)
    return app


def with_class_of_middleware() -> FastAPI:
    """Return an application with a middleware that is a class."""
    app = FastAPI()
    app.add_middleware(Passing)
    return app


def with_handler() -> FastAPI:
    """Return an application with a handler of 404."""
    app = FastAPI()
    app.add_exception_handler(404, handle)
    return app


def with_attribute() -> FastAPI:
    """Return an application to which dependencies were assigned."""
    app = FastAPI()
    app.dependencies = [auth.requires("x")]  # type: ignore[attr-defined]
    return app


def appended_to_route() -> FastAPI:
    """Return an application to whose route a guard was added late."""
    app = get(read)
    route = app.routes[-1]
    assert isinstance(route, APIRoute)
    route.dependencies.append(auth.requires("x"))
    return app


def appended_to_router(include: bool = False) -> FastAPI:
    """Return an application to whose router a guard was added late."""
    app, router = FastAPI(), APIRouter()
    router = router if include else app.router
    router.get("/a")(read)
    router.websocket("/ws")(read)
    router.dependencies.append(auth.requires_any("x"))
    if include:
        app.include_router(router)
    return app


LATE = (
    "a guard in dependencies is not run, since it was added after the route was declared, or beside add_api_route:"
    " pass it where the application, the router or the route is made, as in APIRouter(dependencies=[...])"
)


def appended_around(app_too: bool = False) -> FastAPI:
    """Return an application that includes routers, to one of which, or to whose own, a guard was added late."""
    app, outer, inner = FastAPI(), APIRouter(), APIRouter()
    inner.get("/a")(read)
    inner.frontend("/pages", directory="none", check_dir=False)
    outer.include_router(inner)
    app.include_router(outer)
    (app.router if app_too else outer).dependencies.append(auth.requires("x"))
    return app


def with_pages(*dependencies: Any) -> FastAPI:
    """Return an application that serves the files of a folder, with these dependencies added late."""
    app = FastAPI(dependencies=[Depends(auth.scheme)])
    app.frontend("/", directory="none", check_dir=False)
    app.router.dependencies += dependencies
    return app


def wrongly_included() -> FastAPI:
    """Return an application that includes a router with an Auth in place of a guard."""
    app, router = FastAPI(), APIRouter()
    router.get("/a")(read)
    app.include_router(router, prefix="/r", dependencies=[auth])  # type: ignore[list-item]
    return app


def mounted(*guards: Any) -> FastAPI:
    """Return an application with a guarded mount."""
    app = FastAPI()
    app.mount("/m", guarded(FastAPI(openapi_url=None), *guards))
    return app


def with_tool(*guards: Any) -> FastAPI:
    """Return an application with a guarded server, and a tool with guards of its own."""
    app, server = FastAPI(), FastAPI(openapi_url=None)
    tools = {"delete": guarded(server, *guards)}
    app.mount("/m", Guarded(server, [auth.authenticated()], lambda inner: GuardedTools(inner, tools, hide=False)))
    return app


AROUND: dict[str, tuple[Callable[[], FastAPI], tuple[str, ...]]] = {
    "a page of Starlette's": (lambda: of_starlette("/p", page), ("GET/HEAD /p: parameter claims of page()", FOREIGN)),
    "pages of Starlette's": (lambda: of_starlette("/p", Page), ("ANY /p: parameter claims of Page.get()", FOREIGN)),
    "a WebSocket of Starlette's": (with_socket, ("WEBSOCKET /ws: parameter claims of Socket.on_connect()", FOREIGN)),
    "a middleware": (with_middleware, ("APPLICATION /: parameter claims of dispatch()", FOREIGN)),
    "a middleware as an argument": (
        lambda: with_positional(dispatch),
        ("APPLICATION /: parameter claims of dispatch()",),
    ),
    "a middleware as a partial": (lambda: with_positional(partial(dispatch)), ("parameter claims of dispatch()",)),
    "a middleware as an object": (lambda: with_positional(Dispatching()), ("claims of Dispatching()", FOREIGN)),
    "a class of middleware": (
        with_class_of_middleware,
        ("APPLICATION /: parameter claims of Passing.dispatch()", FOREIGN),
    ),
    "a mount": (
        lambda: mounted(auth.authenticated(), Depends(Holder(auth.requires("x")))),
        ("APPLICATION /m: Holder() holds", HELD),
    ),
    "a tool": (
        lambda: with_tool(auth.authenticated(), Depends(Holder(auth.requires("x")))),
        ("APPLICATION /m: ", HELD),
    ),
    "a handler": (with_handler, ("parameter claims of handle()", FOREIGN)),
    "an attribute": (with_attribute, ("write FastAPI(dependencies=[...])",)),
    "added to a route": (appended_to_route, (f"GET /a: {LATE}",)),
    "added to the application's router": (appended_to_router, (f"GET /a: {LATE}", f"WEBSOCKET /ws: {LATE}")),
    "added to a router": (lambda: appended_to_router(include=True), (f"GET /a: {LATE}", f"WEBSOCKET /ws: {LATE}")),
    "added to a router around an included one": (appended_around, (f"GET /a: {LATE}",)),
    "added to the application's router around included ones": (
        lambda: appended_around(app_too=True),
        (f"GET /a: {LATE}", f"GET /pages: {LATE}"),
    ),
    "a scheme around files": (with_pages, ("GET /: BearerScheme in dependencies finds a credential",)),
    "added to a router with files": (lambda: with_pages(auth.requires("x")), (f"GET /: {LATE}",)),
    "Depends in a page of Starlette's": (lambda: of_starlette("/p", takes_wrongly), (FOREIGN,)),
    "an Auth around an include": (wrongly_included, ("/r/a: Tokens is not an entry of dependencies", "at the top of")),
    "routes that were made before": (
        lambda: FastAPI(routes=[APIRoute("/a", read)], dependencies=[auth.authenticated()]),
        (f"GET /a: {LATE}",),
    ),
}


@pytest.mark.parametrize("spelling", AROUND)
def test_a_guard_beside_the_routes(spelling: str) -> None:
    """Starlette resolves no dependency, and FastAPI reads lists of dependencies when a route is declared."""
    make, expected = AROUND[spelling]
    message = refusal(make())
    for part in expected:
        assert part in message


def test_an_auth_as_an_argument_of_a_middleware() -> None:
    """It is a value like any other."""

    class Own(BaseHTTPMiddleware):
        """A middleware with an Auth."""

        def __init__(self, app: Any, auth: Any) -> None:
            """Store it."""
            super().__init__(app)
            self.auth = auth

    app = FastAPI()
    app.add_middleware(Own, auth=auth)
    assert refusal(app) == ""


# Spellings that FastAPI refuses with an error of its own when the route is declared, or takes for the client's.
DECLARED: dict[str, Callable[[], object]] = {
    "Depends of a guard": lambda: in_list(Depends(auth.requires("x"))),
    "Depends of what is granted": lambda: in_list(Depends(auth.granted())),
    "Depends of an Auth": lambda: in_list(Depends(auth)),
    "Depends of an AnyAuth": lambda: in_list(Depends(either)),
    "Security of an Auth": lambda: in_list(Security(auth, scopes=["x"])),
    "an Auth in the list": lambda: in_list(auth),
    "a guard's callable in the list": lambda: in_list(auth.dependency),
    "a method in the list": lambda: in_list(auth.requires),
    "no list, but a guard": lambda: get(read, dependencies=auth.requires("x")),
    "no list, but an Auth": lambda: get(read, dependencies=auth),
    "Depends in Annotated": lambda: annotated(Annotated[Dict, Depends(auth.requires("x"))]),
    "Depends of an Auth in Annotated": lambda: annotated(Annotated[Dict, Depends(auth)]),
    "Depends as a default": lambda: default(Depends(auth.requires("x"))),
    "an Auth in Annotated": lambda: annotated(Annotated[Dict, auth]),
    "a method in Annotated": lambda: annotated(Annotated[Dict, auth.requires]),
    "a callable in Annotated": lambda: annotated(Annotated[Dict, auth.dependency]),
    "a guard without Annotated": lambda: annotated(auth.requires("x")),
    "an Auth without Annotated": lambda: annotated(auth),
    "a union": lambda: annotated(Annotated[Dict, auth.requires("x")] | None),
    "a list": lambda: annotated(list[Annotated[Dict, auth.requires("x")]]),
    "a new type": lambda: annotated(NewType("Claims", Annotated[Dict, auth.requires("x")])),  # type: ignore[valid-newtype]
    "a router": lambda: APIRouter(dependencies=[auth]).get("/a")(read),  # type: ignore[list-item]
    "a WebSocket": lambda: FastAPI().websocket("/a", dependencies=[Depends(auth.requires("x"))])(read),
}


@pytest.mark.parametrize("spelling", DECLARED)
def test_a_guard_that_is_refused_when_the_route_is_declared(spelling: str) -> None:
    """The message names the path, the parameter and the remedy, without configure_app too."""
    with pytest.raises(ConfigurationError) as refused:
        DECLARED[spelling]()
    message = str(refused.value)
    assert message.startswith("/a")
    assert "write the guard, called, at the top of Annotated" in message
    assert ("parameter caller" in message) is (spelling.endswith(("Annotated", "default", "type", "union", "a list")))


@pytest.mark.parametrize(
    "write",
    [
        lambda: auth.requires("x")(read),
        lambda: auth(read),
        lambda: list(auth.requires("x")),
        lambda: auth.requires("x")["sub"],
        lambda: FastAPI(dependencies=auth.requires("x")),
        lambda: APIRouter(dependencies=auth),
    ],
    ids=["decorator", "decorator of an Auth", "iterated", "claims", "application", "router"],
)
def test_a_guard_that_is_used_as_something_else(write: Callable[[], object]) -> None:
    """A guard is not a decorator, not a list, and not the claims: the remedy is in the error."""
    with pytest.raises(ConfigurationError, match=r"^a guard is (not a decorator|neither a list)"):
        write()


@pytest.mark.parametrize(
    "write",
    [
        lambda: Tokens.requires("x"),  # type: ignore[arg-type, call-arg]
        Tokens.requires,
        lambda: AnyAuth.requires("x"),  # type: ignore[arg-type, call-arg]
    ],
    ids=["with a scope", "without", "AnyAuth"],
)
def test_a_method_of_a_class(write: Callable[[], object]) -> None:
    """Called on a class it has no Auth to guard by."""
    with pytest.raises(ConfigurationError, match=r"^requires\(\) was called on a class: construct an Auth, and call"):
        write()


@pytest.mark.parametrize("owner", [auth, either], ids=["auth", "either"])
@pytest.mark.parametrize(
    "name", ["authenticated", "optional", "requires", "requires_admin", "requires_role", "granted"]
)
def test_a_method_as_a_decorator(owner: ScopesAuth, name: str) -> None:
    """Without its parentheses it would be called with the endpoint."""
    with pytest.raises(ConfigurationError, match=f"^{name} is not a decorator: write the guard, called, at the top of"):
        getattr(owner, name)(read)
