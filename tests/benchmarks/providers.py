"""Cost of a sign-in with a provider: the time of the processor for it, without the answers of the provider.

Run it as `python -m tests.benchmarks.providers`.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from urllib.parse import parse_qsl, urlsplit

import httpx2
from fastapi import FastAPI

from fastapi_guard.jwt.http import in_process
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.login.login import Login, LoginLimits
from fastapi_guard.login.providers import OpenIDProvider, ProviderLogin
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer

from .report import Limit, arguments, machine, show, versions

sys.path.insert(0, str(Path(__file__).parent.parent))
from support.accounts import MemoryUsers

TAKES_PART = ("fastapi", "httpx2", "joserfc")
CALLBACK_MILLISECONDS = 3.0
SITE = "https://shop.example"


class Provider:
    """A provider in process, which measures the time of its own answers.

    Attributes:
        issuer: The provider.
        spent: The seconds of its answers.
        client: The HTTP client for the application.
    """

    def __init__(self) -> None:
        """Answer nothing yet."""
        self.issuer = FakeIssuer(audience="shop")
        self.spent = 0.0
        self.client = httpx2.AsyncClient(transport=in_process(self._answer))

    async def _answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        start = time.thread_time()
        answer = await self.issuer._answer_in_process(method, url, headers, body)
        self.spent += time.thread_time() - start
        return answer


async def bare() -> None:
    """Answer as a route without a guard does."""


class Site:
    """An application whose users sign in with the provider, and are in memory as all else: no database is measured."""

    def __init__(self) -> None:
        """Begin without users."""
        self.provider = Provider()
        store = MemoryStore()
        login = Login(MemoryUsers(), store, passwords=None, limits=LoginLimits(account=None, address=None))
        acme = OpenIDProvider("acme", self.provider.issuer.url, "shop", "a secret", client=self.provider.client)
        sign_in = ProviderLogin(login, [acme], callback=f"{SITE}/providers/{{provider}}/callback")
        self.app = FastAPI()
        self.app.include_router(providers_router(sign_in, SessionAuth(store)))
        self.app.get("/bare")(bare)

    async def milliseconds(self, count: int) -> dict[str, float]:
        """Return the medians of ``count`` requests each, without the answers of the provider and a bare route."""
        ways: dict[str, list[float]] = {"to the provider": [], "callback": [], "bare": []}
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url=SITE) as browser:
            for _ in range(count + 1):
                start = time.thread_time()
                begun = await browser.get("/providers/acme")
                ways["to the provider"].append(self._ours(start))
                back = urlsplit(self.provider.issuer.authorize(begun.headers["location"]))
                start = time.thread_time()
                answer = await browser.get(back.path, params=dict(parse_qsl(back.query)))
                ways["callback"].append(self._ours(start))
                assert answer.headers["location"] == "/"
                start = time.thread_time()
                await browser.get("/bare")
                ways["bare"].append(self._ours(start))
        # The first one reads the metadata and the keys of the provider, and registers the user.
        medians = {way: median(spent[1:]) for way, spent in ways.items()}
        bare = medians.pop("bare")
        return {way: spent - bare for way, spent in medians.items()}

    def _ours(self, start: float) -> float:
        spent = time.thread_time() - start - self.provider.spent
        self.provider.spent = 0.0
        return spent * 1e3


async def measured(count: int) -> list[Limit]:
    """Return the rows."""
    return [
        Limit(
            request=f"sign-in, {way}",
            measured=spent,
            reference="3 ms",
            cost=CALLBACK_MILLISECONDS,
            factor=1,
            unit="ms",
        )
        for way, spent in (await Site().milliseconds(count)).items()
    ]


def main() -> None:
    """Measure, print, and write."""
    options = arguments("Cost of a sign-in with a provider, without the provider.", "providers")
    logging.getLogger("fastapi_guard").setLevel(logging.ERROR)
    installed = versions(TAKES_PART)
    print(*(f"{name} {number}" for name, number in installed.items()), sep=", ", end="\n\n")
    limits = asyncio.run(measured(options.requests))
    header = ("request", "measured", "reference", "its cost", "ratio", "at most", "")
    show(header, [limit.cells() for limit in limits])
    written = [asdict(limit) | {"ratio": limit.ratio, "verdict": limit.verdict} for limit in limits]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine(), "versions": installed, "limits": written}, indent=1))
    print("written to", options.json)


if __name__ == "__main__":
    main()
