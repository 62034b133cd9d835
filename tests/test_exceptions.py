"""The error tree: statuses, texts, headers, and that each error survives a pickle."""

import copy
import pickle

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from fastapi_guard import (
    AuthError,
    ConfigurationError,
    Forbidden,
    GuardError,
    MissingExtraError,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
)
from fastapi_guard.exceptions import Conflict
from support.asgi import request

REFUSALS = [
    (Unauthorized, 401, "Not authenticated", {"WWW-Authenticate": 'Bearer realm="api"'}, "refused"),
    (Forbidden, 403, "Forbidden", {}, "refused"),
    (Conflict, 409, "Conflict", {}, "refused"),
    (TooManyRequests, 429, "Too many requests", {"Retry-After": "5"}, "throttled"),
    (ServiceUnavailable, 503, "Service temporarily unavailable", {"Retry-After": "5"}, "unavailable"),
]


@pytest.mark.parametrize(("kind", "bases"), [(ConfigurationError, ValueError), (MissingExtraError, ImportError)])
def test_errors_of_the_application_have_a_builtin_base(kind: type[Exception], bases: type[Exception]) -> None:
    """An error before any request is a GuardError and a builtin error, and never a response to a client."""
    assert issubclass(kind, GuardError)
    assert issubclass(kind, bases)
    assert not issubclass(kind, HTTPException)


@pytest.mark.parametrize(("kind", "status", "detail", "headers", "reason"), REFUSALS)
def test_a_refusal_has_its_status_and_constant_text(
    kind: type[AuthError], status: int, detail: str, headers: dict[str, str], reason: str
) -> None:
    """Each refusal is an HTTPException with a status, a text and headers of its class."""
    error = kind()
    assert isinstance(error, GuardError)
    assert isinstance(error, HTTPException)
    assert (error.status_code, error.detail, error.headers, error.reason) == (status, detail, headers, reason)


@pytest.mark.parametrize(("kind", "status", "detail", "headers", "reason"), REFUSALS)
def test_a_refusal_needs_no_handler(
    kind: type[AuthError], status: int, detail: str, headers: dict[str, str], reason: str
) -> None:
    """A refusal raised in an endpoint of an application that configures nothing keeps its status and body."""
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> None:
        raise kind(reason="secret_reason")

    answer = request(app)
    assert (answer.status, answer.json) == (status, {"detail": detail})
    assert {name: answer.header(name.lower()) for name in headers} == headers
    assert b"secret_reason" not in answer.body


def test_own_text_reason_and_headers() -> None:
    """A text, a reason and headers of one's own take the place of those of the class; an empty text is a text."""
    error = Forbidden("No", reason="owner", headers={"X-Why": "owner"})
    assert (error.detail, error.reason, error.headers) == ("No", "owner", {"X-Why": "owner"})
    assert Forbidden("").detail == ""
    assert ServiceUnavailable(reason="keys_not_loaded").reason == "keys_not_loaded"


def test_every_401_has_a_challenge() -> None:
    """A 401 that no scheme has claimed answers Bearer; a scheme puts its own challenge there, any number of times."""
    error = Unauthorized("Incorrect username or password", headers={"X-Why": "login"})
    assert error.headers == {"X-Why": "login", "WWW-Authenticate": 'Bearer realm="api"'}
    error.challenge('ApiKey realm="keys"')
    error.challenge('ApiKey realm="api"')
    assert error.headers == {"X-Why": "login", "WWW-Authenticate": 'ApiKey realm="api"'}


@pytest.mark.parametrize("name", ["WWW-Authenticate", "www-authenticate"])
def test_a_challenge_of_ones_own_stays(name: str) -> None:
    """A challenge among the headers, in whatever case, is not replaced and not doubled."""
    error = Unauthorized(headers={name: 'Negotiate realm="x"'})
    error.challenge('Bearer realm="api"')
    assert error.headers == {name: 'Negotiate realm="x"'}


@pytest.mark.parametrize(("seconds", "answered"), [(0, "1"), (0.2, "1"), (1.01, "2"), (60, "60"), (-3, "1")])
@pytest.mark.parametrize("kind", [TooManyRequests, ServiceUnavailable])
def test_retry_after_is_whole_seconds(
    kind: type[TooManyRequests | ServiceUnavailable], seconds: float, answered: str
) -> None:
    """Retry-After is rounded up, and at least one second."""
    assert kind(retry_after=seconds).headers == {"Retry-After": answered}


def test_retry_after_among_the_headers_wins() -> None:
    """A Retry-After among the headers, such as a date, is the one that is sent."""
    error = TooManyRequests(headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "X-Why": "login"})
    assert error.headers == {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "X-Why": "login"}


def test_a_missing_extra_names_the_command() -> None:
    """The text of a missing extra is the command that installs it, and the module is named."""
    error = MissingExtraError("httpx2", "http")
    assert str(error) == "httpx2 is not installed: pip install 'fastapi-guard-auth[http]'"
    assert error.name == "httpx2"


@pytest.mark.parametrize(
    "error",
    [
        Unauthorized("No", error="invalid_token", reason="expired", headers={"X-Why": "x"}),
        Unauthorized(headers={"www-authenticate": "Negotiate"}),
        Forbidden("No", reason="owner"),
        TooManyRequests(retry_after=7),
        ServiceUnavailable(),
        ConfigurationError("No"),
        MissingExtraError("httpx2", "http"),
    ],
    ids=repr,
)
def test_errors_survive_pickle_and_copy(error: GuardError) -> None:
    """An error that comes back from another process, or out of a copy, is the one that was raised."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_own_handlers_by_class() -> None:
    """An application's own handlers for Unauthorized and for its base AuthError are called, the closer class first."""
    app = FastAPI()

    @app.exception_handler(Unauthorized)
    async def unauthorized(_: Request, error: Unauthorized) -> JSONResponse:
        return JSONResponse({"detail": "who?", "why": error.reason}, 401, headers=error.headers)

    @app.exception_handler(AuthError)
    async def refused(_: Request, error: AuthError) -> JSONResponse:
        return JSONResponse({"detail": "no"}, error.status_code)

    @app.get("/{status}")
    async def endpoint(status: int) -> None:
        raise Unauthorized(reason="expired") if status == 401 else Forbidden

    assert request(app, "/401").json == {"detail": "who?", "why": "expired"}
    assert request(app, "/401").refusal == (401, "who?", 'Bearer realm="api"')
    assert request(app, "/403").refusal == (403, "no", None)
