import threading
from functools import partial
from secrets import compare_digest
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket

from fastapi_guard import APIKeyAuth, ConfigurationError, ServiceUnavailable, configure_app
from fastapi_guard.events import Event
from support.asgi import Answer, endpoint, handshake, request

KEY = "the-one-key-of-this-house"
REFUSED = (401, "Invalid API Key", 'ApiKey realm="api"')


def ask(auth: APIKeyAuth, *keys: bytes, name: bytes = b"x-api-key") -> Answer:
    """Return the answer to a request with these keys."""
    app = FastAPI()

    @app.get("/")
    async def echo(key: Annotated[str, auth.authenticated()]) -> str:
        return key

    return request(app, "/", [(name, key) for key in keys])


def is_the_key(raw: str) -> bool:
    """Compare as the documentation does."""
    return compare_digest(raw, KEY)


async def is_the_key_async(raw: str) -> bool:
    """Compare, as a coroutine."""
    return compare_digest(raw, KEY)


class Checker:
    """An object that is called."""

    async def __call__(self, raw: str) -> bool:
        """Compare."""
        return compare_digest(raw, KEY)


CHECKS: dict[str, Any] = {
    "sync": is_the_key,
    "async": is_the_key_async,
    "partial": partial(is_the_key_async),
    "object": Checker(),
    "returns a coroutine": partial(lambda check, raw: check(raw), is_the_key_async),
}


def test_the_principal_is_the_raw_key() -> None:
    """Any key passes where nothing verifies it, and the endpoint gets it; none is a 401 with a challenge."""
    auth = APIKeyAuth()
    assert ask(auth, b"anything").json == "anything"
    assert ask(auth).refusal == REFUSED
    assert ask(auth, b"").refusal == REFUSED
    assert ask(auth, b" \t ").refusal == REFUSED
    assert ask(auth, b"anything", name=b"authorization").refusal == REFUSED


@pytest.mark.parametrize("check", CHECKS)
def test_verify_key(check: str) -> None:
    """A callable of any kind decides, and the principal stays the raw key."""
    auth = APIKeyAuth(verify_key=CHECKS[check])
    assert ask(auth, KEY.encode()).json == KEY
    for wrong in (b"another-key", KEY[:-1].encode(), KEY.upper().encode()):
        assert ask(auth, wrong).refusal == REFUSED


@pytest.mark.parametrize("answer", [None, False, 0, ""])
def test_an_answer_that_is_not_yes(answer: Any) -> None:
    """A verify_key that forgets to return, or returns nothing of worth, refuses."""
    assert ask(APIKeyAuth(verify_key=lambda raw: answer), KEY.encode()).refusal == REFUSED
    assert ask(APIKeyAuth(verify_key=lambda raw: True), KEY.encode()).status == 200


def test_a_sync_verify_key_runs_in_a_worker_thread() -> None:
    """A look-up that blocks does not stop the event loop."""
    threads: list[threading.Thread] = []

    def verify_key(raw: str) -> bool:
        threads.append(threading.current_thread())
        return True

    assert ask(APIKeyAuth(verify_key=verify_key), KEY.encode()).status == 200
    assert threads[0] is not threading.main_thread()


def test_an_error_of_ours_in_verify_key() -> None:
    """A verify_key may raise an AuthError of its own."""

    def verify_key(raw: str) -> bool:
        raise ServiceUnavailable

    assert ask(APIKeyAuth(verify_key=verify_key), KEY.encode()).status == 503


@pytest.mark.parametrize(
    "key",
    ["é".encode(), b"\xe9" * 20, b"a\x00b" * 10, b"a b", b"\x7f" * 20, "\u2028".encode()],
    ids=["UTF-8", "latin-1", "NUL", "space", "DEL", "line separator"],
)
def test_bytes_that_are_no_key(key: bytes) -> None:
    """A key that is not visible ASCII is refused before verify_key is called."""
    seen: list[str] = []
    auth = APIKeyAuth(verify_key=lambda raw: not seen.append(raw))
    assert ask(auth, key).refusal == REFUSED
    assert seen == []
    assert ask(auth, b"x" * 1_000_000).status == 200


def test_two_keys() -> None:
    """More than one key is refused, also where both are the same."""
    answer = ask(APIKeyAuth(verify_key=is_the_key), KEY.encode(), KEY.encode())
    assert answer.refusal == (401, "More than one credential", 'ApiKey realm="api"')


def test_another_header_realm_and_name() -> None:
    """Header, realm, OpenAPI name and description are the application's."""
    seen: list[Event] = []
    auth = APIKeyAuth(
        "X-Service-Key", "ServiceKey", "For services.", realm="services", auth_name="service", on_event=seen.append
    )
    assert ask(auth, b"key", name=b"x-service-key").json == "key"
    assert ask(auth, b"key").refusal == (401, "Invalid API Key", 'ApiKey realm="services"')
    app = FastAPI()
    app.get("/", dependencies=[auth.authenticated()])(endpoint)
    assert app.openapi()["components"]["securitySchemes"] == {
        "ServiceKey": {"type": "apiKey", "in": "header", "name": "X-Service-Key", "description": "For services."}
    }
    assert seen == [Event("authenticated", "service"), Event("refused", "service", 401, "missing")]


def test_presence_only() -> None:
    """Without verify_key and without an override it checks presence only."""

    class Own(APIKeyAuth):
        """Verifies in its own way."""

        async def verify(self, raw: str) -> str:
            """Accept nothing."""
            return await super().verify(raw)

    assert APIKeyAuth().dependency.checks_presence_only
    assert not APIKeyAuth(verify_key=is_the_key).dependency.checks_presence_only
    assert not Own().dependency.checks_presence_only
    assert ask(Own(verify_key=is_the_key), KEY.encode()).status == 200


def test_optional() -> None:
    """For an optional guard no key is None, and a wrong one is refused."""
    auth = APIKeyAuth(verify_key=is_the_key)
    app = FastAPI()

    @app.get("/")
    async def echo(key: Annotated[str | None, auth.optional()]) -> str | None:
        return key

    assert request(app).json is None
    assert request(app, headers=[(b"x-api-key", KEY.encode())]).json == KEY
    assert request(app, headers=[(b"x-api-key", b"wrong")]).refusal == REFUSED


def test_a_websocket() -> None:
    """A handshake without the key is denied with the same answer."""
    auth = APIKeyAuth(verify_key=is_the_key)
    app = FastAPI()

    @app.websocket("/")
    async def echo(socket: WebSocket, key: Annotated[str, auth.authenticated()]) -> None:
        await socket.accept()

    assert handshake(app).refusal == REFUSED
    assert handshake(app, headers=[(b"x-api-key", KEY.encode())]).status == 101


def test_with_problem_details() -> None:
    """An application with configure_app returns the same as problem details."""
    auth = APIKeyAuth()
    app = FastAPI()
    app.get("/", dependencies=[auth.authenticated()])(endpoint)
    configure_app(app)
    assert request(app).json == {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": REFUSED[1]}


async def test_validate_token() -> None:
    """Outside of a request the same decision is a yes or no."""
    auth = APIKeyAuth(verify_key=is_the_key)
    assert await auth.validate_token(KEY)
    assert not await auth.validate_token("wrong")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "X Api Key"}, "cannot be the name of a header"),
        ({"name": ""}, "cannot be the name of a header"),
        ({"verify_key": KEY}, "verify_key is a function"),
        ({"scheme_name": "a b"}, "cannot name an OpenAPI component"),
    ],
    ids=["space", "empty", "a key", "scheme name"],
)
def test_what_could_not_work(arguments: dict[str, Any], message: str) -> None:
    """Arguments that cannot work are an error at construction."""
    with pytest.raises(ConfigurationError, match=message):
        APIKeyAuth(**arguments)
