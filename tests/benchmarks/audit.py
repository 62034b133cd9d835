"""The duration of an audit of an application with many routes.

Run it as `python -m tests.benchmarks.audit`.
"""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI

from fastapi_guard import ScopesAuth
from fastapi_guard.app.audit import guarded_routes

from .harness import Timings
from .report import Limit, arguments, report, versions

ROUTES = 1_000
LIMIT_SECONDS = 2.0
AUDIT = f"guarded_routes(), {ROUTES:,} routes"
LISTING = f"a list of {ROUTES:,} routes"


class Tokens(ScopesAuth):
    """An Auth of claims; nothing is sent here."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": raw}


def large_application() -> FastAPI:
    """Return an application with guards of every level on each of its routes."""
    auth = Tokens()
    app = FastAPI(dependencies=[auth.authenticated()])

    def database() -> None:
        return None

    def page(limit: int = 10, db: Annotated[None, Depends(database)] = None) -> int:
        return limit

    for number in range(ROUTES // 10):
        router = APIRouter(prefix=f"/r{number}", dependencies=[auth.requires(f"r{number}:read")])

        async def endpoint(
            item_id: int, size: Annotated[int, Depends(page)], claims: Annotated[dict[str, Any], auth.requires("a:b")]
        ) -> None:
            return None

        for route in range(10):
            router.get(f"/{{item_id}}/{route}")(endpoint)
        app.include_router(router, prefix="/v1")
    return app


def main() -> None:
    """Measure, print, and write."""
    options = arguments("The audit of a large application.", "audit")
    app = large_application()
    timed: dict[str, list[float]] = {AUDIT: [], LISTING: []}
    for _ in range(options.rounds):
        start = time.perf_counter()
        list(app.routes)
        listed = time.perf_counter()
        found = len(guarded_routes(app))
        timed[LISTING].append((listed - start) * 1e6)
        timed[AUDIT].append((time.perf_counter() - listed) * 1e6)
        if found != ROUTES:
            msg = f"{found} routes, expected {ROUTES}"
            raise RuntimeError(msg)
    timings = Timings(timed)
    limit = Limit(
        request=AUDIT,
        measured=timings.cost(AUDIT) / 1e3,
        reference=f"{LIMIT_SECONDS:.0f} s",
        cost=LIMIT_SECONDS * 1e3,
        factor=1.0,
        unit="ms",
    )
    report(options.json, timings, LISTING, [limit], versions(("fastapi", "starlette")))


if __name__ == "__main__":
    main()
