"""A burst of requests at once, each with another API key: how many statements the database executes for them."""

import asyncio
import resource
import time
from typing import Any

import httpx2

from support.postgres import PostgresServer

from . import wrk
from .state import Places, Variant, served

REQUESTS, POOL, MOST_STATEMENTS = 1_000, 5, 20
BURST = Variant(kind="key", place="postgres")


def measure(postgres: PostgresServer, *, core: int | None) -> dict[str, Any]:
    """Return the number of statements, and the seconds until the last response began.

    Raises:
        RuntimeError: A request was not answered with 200.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * REQUESTS), hard), hard))
    with (
        Places(postgres, "redis://127.0.0.1:1").new("postgres") as url,
        served(BURST, url, core=core, former="", credentials=REQUESTS, pool=POOL) as server,
    ):
        before = httpx2.get(f"{server.url}/statements").json()
        seconds = asyncio.run(_burst(server.url, server.requests))
        after = httpx2.get(f"{server.url}/statements").json()
    selects, others = (after[kind] - before[kind] for kind in ("select", "other"))
    print(f"{REQUESTS} requests at once: {seconds:.2f} s, {selects} SELECTs, {others} other statements")
    return {
        "requests": REQUESTS,
        "pool": POOL,
        "seconds": seconds,
        "selects": selects,
        "others": others,
        "at_most": MOST_STATEMENTS,
    }


async def _burst(url: str, requests: list[wrk.Request]) -> float:
    host, port = url.removeprefix("http://").split(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in requests]
    start = time.perf_counter()
    for (_, writer), request in zip(connections, requests, strict=True):
        lines = (f"GET {request.path} HTTP/1.1", f"Host: {host}", f"{request.field}: {request.credential}", "", "")
        writer.write("\r\n".join(lines).encode("ascii"))
    statuses = await asyncio.gather(*(reader.readline() for reader, _ in connections))
    elapsed = time.perf_counter() - start
    for _, writer in connections:
        writer.close()
    if set(statuses) != {b"HTTP/1.1 200 OK\r\n"}:
        msg = f"answered {set(statuses)}"
        raise RuntimeError(msg)
    return elapsed
