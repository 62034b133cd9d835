"""A guard method that is not called, and the texts of the errors, on each FastAPI that the tests run with."""

import pydoc
from collections.abc import Callable
from functools import partial, wraps
from inspect import signature
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Security
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from fastapi_guard import ConfigurationError, ScopesAuth, configure_app
from fastapi_guard.auth.placement import is_guard_method
from support.asgi import request


class Tokens(ScopesAuth):
    """An Auth that accepts every token."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": raw}  # pragma: no cover - no request gets here


Dict = dict[str, Any]
GOOD = [(b"authorization", b"Bearer good")]
auth = Tokens(name="auth")
either = auth | Tokens(name="other")
GUARD_METHODS = [name for name in dir(Tokens) if is_guard_method(getattr(Tokens, name, None))]


def get(endpoint: Callable[..., Any], **options: Any) -> FastAPI:
    """Return an application with this endpoint at ``/a``."""
    app = FastAPI()
    app.get("/a", response_model=None, **options)(endpoint)
    return app


def read() -> None:
    """Read."""


def read_with(dependency: object) -> Callable[..., None]:
    """Return an endpoint with a parameter ``caller`` that this dependency fills."""

    def read_for(request: Request, caller: Any) -> None:
        """Read for a caller."""

    read_for.__annotations__["caller"] = Annotated[Any, dependency]
    return read_for


def test_what_a_guard_is_not() -> None:
    """An Auth in Depends(), or as a type, is an error with the remedy; what is not there is a plain AttributeError."""
    for kind in (auth, either):
        for made in (Depends(kind), Security(kind)):
            with pytest.raises(
                ConfigurationError, match=r"is not a callable for Depends\(\) or Security\(\): write the"
            ):
                get(read_with(made))
        with pytest.raises(ConfigurationError, match=r"^a guard has no effect here: write the guard, called"):
            TypeAdapter(Annotated[dict[str, Any], kind])
        with pytest.raises(AttributeError, match="object has no attribute 'other'"):
            kind.other  # type: ignore[attr-defined]  # noqa: B018
    for name in GUARD_METHODS:
        with pytest.raises(ConfigurationError, match=r"^a guard has no effect here: write the guard, called"):
            TypeAdapter(Annotated[dict[str, Any], getattr(auth, name)])
    assert not hasattr(Tokens, "__get_pydantic_core_schema__")


def test_a_class_among_dependencies() -> None:
    """An Auth class in place of its object is an error with the remedy; without it FastAPI's has no text."""
    with pytest.raises(ConfigurationError, match=r"^/a: the class Tokens is not an entry of dependencies: write the"):
        get(read, dependencies=[Tokens])


def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorated guard method."""

    @wraps(method)
    def decorated() -> Any:
        """Make a guard."""
        return method()  # pragma: no cover - it is never called

    return decorated


def included(method: Callable[..., Any]) -> None:
    """Include a router with a guard method around it."""
    router = APIRouter()
    router.get("/a")(read)
    app = FastAPI()
    app.include_router(router, dependencies=[Depends(method)])
    app.openapi()


def configured(method: Callable[..., Any]) -> None:
    """Declare a route of an application with a guard method around it."""
    FastAPI(dependencies=[Depends(method)]).get("/a")(read)


NOT_CALLED: dict[str, tuple[Callable[[Callable[..., Any]], object], str]] = {
    "a list": (lambda method: get(read, dependencies=[Depends(method)]), "/a: "),
    "a list, with scopes": (lambda method: get(read, dependencies=[Security(method, scopes=["x"])]), "/a: "),
    "a parameter": (lambda method: get(read_with(Depends(method))), "/a, parameter caller: "),
    "a parameter, for each request": (lambda method: get(read_with(Depends(method, use_cache=False))), "/a, parameter"),
    "a decorated method": (lambda method: get(read, dependencies=[Depends(wrapped(method))]), "/a: "),
    "an application": (configured, "/a: "),
    "a router": (included, "/a: "),
}


@pytest.mark.parametrize("place", NOT_CALLED)
def test_a_guard_method_that_is_not_called(place: str) -> None:
    """FastAPI would call it and drop the guard: each such method is refused with its route, without configure_app."""
    assert len(GUARD_METHODS) == 13
    write, where = NOT_CALLED[place]
    for owner in (auth, either, Tokens):
        for name in GUARD_METHODS:
            with pytest.raises(ConfigurationError) as raised:
                write(getattr(owner, name))
            assert str(raised.value).startswith(where)
            assert str(raised.value).endswith(f"{name} is not called, so that it guards nothing: write {name}()")


@pytest.mark.parametrize("scope", [None, "function"])
@pytest.mark.parametrize("name", ["requires", "authenticated", "granted"])
def test_a_partial_guard_method(name: str, scope: Any) -> None:
    """FastAPI inspects less of a partial: at the latest the request fails, and the endpoint does not run."""
    with pytest.raises(ConfigurationError, match=f"{name} is not called, so that it guards nothing"):
        TestClient(get(read, dependencies=[Depends(partial(getattr(auth, name)), scope=scope)])).get("/a?scopes=x")


@pytest.mark.parametrize("name", GUARD_METHODS)
def test_help(name: str) -> None:
    """``help`` shows a guard method with its documented parameters and its docstring."""
    method = getattr(auth, name)
    shown = pydoc.plain(pydoc.render_doc(method))
    # Python 3.13 wraps a long signature.
    assert "".join(f"{name}{signature(method)}".split()) in "".join(shown.split())
    assert method.__doc__.partition("\n")[0] in shown


def test_what_the_hooks_do_not_show() -> None:
    """An Auth has no more public names for it, and a guard method shows the parameters that it documents alone."""
    assert str(signature(auth.requires)) == "(*scopes: str) -> fastapi.params.Security"
    assert str(signature(auth.authenticated)) == "() -> fastapi.params.Security"
    assert "called" not in str(signature(either.requires))
    assert not hasattr(auth, "scope")
    assert not hasattr(auth.dependency, "dependency")
    assert getattr(auth, "scope", None) is None
    with pytest.raises(AttributeError, match="'Tokens' object has no attribute 'requries'"):
        auth.requries  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(AttributeError):
        Tokens.__get_pydantic_core_schema__  # type: ignore[attr-defined] # noqa: B018
    assert "scope_validator" in signature(Tokens).parameters


MADE_LATE: dict[str, Callable[[], FastAPI]] = {
    "a lambda": lambda: get(read, dependencies=[Depends(lambda: auth.requires("x"))]),
    "a function": lambda: get(read, dependencies=[Depends(make_guard)]),
    "an endpoint": lambda: get(make_guard),
    "a sync endpoint": lambda: get(lambda: auth.granted()),  # noqa: PLW0108 - a method would be found at the start
}


async def make_guard() -> Any:
    """Make a guard, when it is too late."""
    return auth.requires("x")


@pytest.mark.parametrize("spelling", MADE_LATE)
def test_a_guard_that_is_made_during_a_request(spelling: str) -> None:
    """No guard is run that a dependency or an endpoint makes: the request fails, and is not let pass."""
    app = MADE_LATE[spelling]()
    configure_app(app)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="a guard was made during a request"):
            request(app, "/a", GOOD)
    auth.requires("x")  # between requests it is allowed
