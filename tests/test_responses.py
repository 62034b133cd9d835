"""What answers with secrets have in common."""

from fastapi import Depends, FastAPI

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
