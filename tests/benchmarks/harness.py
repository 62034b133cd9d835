"""Time one request through each of several ASGI applications.

Every table is a module of its own (`core` is the first): it builds `Variant`s, hands them to `measure`, and states
limits over the `Timings` (`report`).
"""

import asyncio
import gc
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Annotated, Any

from fastapi import FastAPI, params
from starlette.types import ASGIApp, Message, Scope

PATH = "/items"
# Requests of one variant in a row. A server answers with one application, so its own caches are warm; in a tight loop
# over the guard alone everything is, which flatters.
SLICE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to answer the request.

    Attributes:
        name: its row in the table.
        app: the application that answers.
        credential: value of the Authorization field; None: the field is not sent.
        status: what the timed request must answer.
        controls: further credentials and the status that each must answer, asked before the timing and after it: they
            show that the variant decides, and does not accept every request.
    """

    name: str
    app: ASGIApp
    credential: str | None = None
    status: int = 200
    controls: Mapping[str | None, int]


@dataclass(frozen=True, slots=True)
class Timings:
    """Cost of one run of each variant, by name and then by round."""

    rounds: Mapping[str, Sequence[float]]

    def cost(self, name: str) -> float:
        """Return the median over the rounds."""
        return median(self.rounds[name])

    def added(self, name: str, over: str) -> float:
        """Return the median, over the rounds, of what the variant cost beyond another in the same round."""
        return median(mine - other for mine, other in zip(self.rounds[name], self.rounds[over], strict=True))

    def spread(self, name: str) -> float:
        """Return the distance between the quartiles: how far to trust the median."""
        lower, _, upper = quantiles(self.rounds[name], n=4)
        return upper - lower


def application(guard: params.Depends | None = None, *, everywhere: Sequence[params.Depends] = ()) -> FastAPI:
    """Return an application with one route, the same for every variant but for what guards it.

    Args:
        guard: declared at the endpoint's parameter; None: the bare route.
        everywhere: dependencies of the application.
    """
    app = FastAPI(dependencies=everywhere)

    async def bare() -> list[str]:
        return ["hammer", "nail"]

    async def guarded(claims: Annotated[Any, guard]) -> list[str]:
        return ["hammer", "nail"]

    app.get(PATH)(bare if guard is None else guarded)
    return app


class Client:
    """Calls an ASGI application directly: no server, no test client, no thread in between."""

    def __init__(self) -> None:
        """Start without an answer."""
        self.status = 0

    async def get(self, app: ASGIApp, credential: str | None) -> int:
        """Return the status that one request answers."""
        await app(self.scope(credential), self.receive, self.send)
        return self.status

    @staticmethod
    def scope(credential: str | None) -> Scope:
        """Return the scope of a new request, as an HTTP server makes it for an ordinary API client."""
        headers = [(b"host", b"api.example"), (b"user-agent", b"bench/1"), (b"accept", b"application/json")]
        if credential is not None:
            headers.append((b"authorization", credential.encode("ascii")))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "GET",
            "root_path": "",
            "path": PATH,
            "raw_path": PATH.encode("ascii"),
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }

    @staticmethod
    async def receive() -> Message:
        """Hand an empty body to the application."""
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """Keep the status of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]


async def ask(client: Client, variant: Variant, requests: int) -> float:
    """Return the seconds that so many requests took.

    Raises:
        RuntimeError: the last answer is not the expected one, so that the time means nothing.
    """
    # The time of this thread: what else the machine does meanwhile is not the variant's.
    start = time.thread_time()
    for _ in range(requests):
        await client.get(variant.app, variant.credential)
    elapsed = time.thread_time() - start
    _expect(variant, client.status, variant.status)
    return elapsed


async def check(client: Client, variants: Sequence[Variant]) -> None:
    """Send what is timed, and the controls, once each.

    Raises:
        RuntimeError: an answer is not the expected one.
    """
    for variant in variants:
        for credential, status in {**variant.controls, variant.credential: variant.status}.items():
            _expect(variant, await client.get(variant.app, credential), status)


def _expect(variant: Variant, answered: int, status: int) -> None:
    if answered != status:
        msg = f"{variant.name}: answered {answered}, expected {status}"
        raise RuntimeError(msg)


async def _measure(variants: Sequence[Variant], rounds: int, requests: int) -> Timings:
    client, order, slices = Client(), list(variants), max(1, requests // SLICE)
    timed: dict[str, list[float]] = {variant.name: [] for variant in variants}
    await check(client, variants)
    for variant in variants:
        await ask(client, variant, requests)  # warms up
    gc.collect()
    gc.freeze()  # no variant pays for a full collection of what the others have built
    for _ in range(rounds):
        spent = dict.fromkeys(timed, 0.0)
        for _ in range(slices):
            random.shuffle(order)
            for variant in order:
                spent[variant.name] += await ask(client, variant, SLICE)
        for name, seconds in spent.items():
            timed[name].append(seconds / (slices * SLICE) * 1e6)
    await check(client, variants)
    return Timings(timed)


def measure(variants: Sequence[Variant], *, rounds: int, requests: int) -> Timings:
    """Return the microseconds a request, for each variant and round, on one event loop.

    Within a round the variants take turns in short slices, shuffled again each time, so that a disturbance of the
    machine meets them all alike.

    Args:
        variants: what to compare; names are unique.
        rounds: how many times everything is measured.
        requests: how many of each variant in a round.
    """
    return asyncio.run(_measure(variants, rounds, requests))
