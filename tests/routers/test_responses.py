"""Header fields and bodies of responses with secrets."""

from collections.abc import Sequence

import pytest
from fastapi import Depends, FastAPI, Response
from pydantic import TypeAdapter

from fastapi_guard import BearerAccessToken, no_store
from fastapi_guard.jwt.tokens import TokenPair
from support.asgi import request


def test_no_store() -> None:
    """As a dependency it keeps an answer out of every cache; a response without it has no such field."""
    app = FastAPI()

    @app.get("/token", dependencies=[Depends(no_store)])
    async def token() -> dict[str, str]:
        return {"access_token": "secret"}

    @app.get("/bare")
    async def bare() -> dict[str, str]:
        return {}

    assert request(app, "/token").header("cache-control") == "no-store"
    assert request(app, "/bare").header("cache-control") is None
    assert request(app, "/bare").header("vary") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], "Authorization, Cookie"),
        (["Origin"], "Origin, Authorization, Cookie"),
        (["Origin", "Accept"], "Origin, Accept, Authorization, Cookie"),
        (["Origin, cookie"], "Origin, cookie, Authorization"),
        (["authorization , COOKIE"], "authorization , COOKIE"),
        (["*"], "*"),
    ],
)
def test_an_answer_of_one_caller_varies(before: Sequence[str], after: str) -> None:
    """The fields with a credential are added to Vary, once."""

    def varying(response: Response) -> None:
        for value in before:
            response.headers.append("Vary", value)

    app = FastAPI()
    app.get("/", dependencies=[Depends(varying), Depends(no_store)])(lambda: None)
    assert request(app).header("vary") == after


@pytest.mark.parametrize(("kind", "extra"), [(BearerAccessToken, []), (TokenPair, ["refresh_token"])])
def test_openapi_names_the_members_of_a_token_response(kind: type[BearerAccessToken], extra: list[str]) -> None:
    """A token response has the members that OpenAPI lists, and no other; absent ones are left out."""
    app = FastAPI()

    @app.post("/token")
    async def token() -> kind:  # type: ignore[valid-type]
        return kind(access_token="a", **dict.fromkeys(extra, "r"))

    schema = app.openapi()["components"]["schemas"][kind.__name__]
    assert list(schema["properties"]) == ["access_token", "token_type", "expires_in", "scope", *extra]
    assert schema["required"] == ["access_token", *extra]
    answer = request(app, "/token", method="POST").json
    assert answer == {"access_token": "a", "token_type": "bearer", **dict.fromkeys(extra, "r")}


def test_what_is_absent_is_left_out_at_any_depth() -> None:
    """A response of the application's own with tokens in it, and a list of them, leave out what is absent too."""

    class Linked(TokenPair):
        other: BearerAccessToken | None = None

    linked = Linked(access_token="a", refresh_token="r", other=BearerAccessToken(access_token="b"))
    other = {"access_token": "b", "token_type": "bearer"}
    assert linked.model_dump() == {"access_token": "a", "token_type": "bearer", "refresh_token": "r", "other": other}
    assert TypeAdapter(list[BearerAccessToken]).dump_python([BearerAccessToken(access_token="b")]) == [other]
