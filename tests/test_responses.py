"""What answers with secrets have in common."""

from collections.abc import Sequence

import pytest
from fastapi import Depends, FastAPI, Response

from asgi import request
from fastapi_guard import no_store


def test_no_store() -> None:
    """As a dependency it keeps an answer out of every cache; an answer without it says nothing (E.22)."""
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
    """What carries a credential joins what the answer varies by already, once (E.22)."""

    def varying(response: Response) -> None:
        for value in before:
            response.headers.append("Vary", value)

    app = FastAPI()
    app.get("/", dependencies=[Depends(varying), Depends(no_store)])(lambda: None)
    assert request(app).header("vary") == after
