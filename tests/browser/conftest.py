"""A real browser, on loopback alone, and a screenshot of each step."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from browser.serving import ELSEWHERE, Screenshot

ROOT = Path(__file__).parent.parent.parent
SCREENSHOTS = ROOT / ".screenshots"

# Names of this machine, by which pages have different sites and origins; no other name has an address.
SITES = ("notes.example", "other.notes.example", "elsewhere.example", "localhost")
_RESOLVER = [*(f"MAP {site} 127.0.0.1" for site in SITES), "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"]
_FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    f"--host-resolver-rules={','.join(_RESOLVER)}",
]

# In milliseconds: for a machine that has something else to do; nothing waits for longer than it has to.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start the Chromium on PATH; pages may come back from its back-forward cache, as they do for a user."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=_FLAGS,
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """Yield a new browser without state; a request to elsewhere and an error in a page fail the test."""
    context = chromium.new_context(viewport={"width": 1100, "height": 1300}, ignore_https_errors=True)
    context.set_default_timeout(PATIENCE)
    problems: list[str] = []
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("request", lambda request: None if _is_known(request.url) else problems.append(request.url))
    yield context
    context.close()
    assert problems == []


def _is_known(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", *SITES) or url in ELSEWHERE


def pytest_configure(config: pytest.Config) -> None:
    """Empty the folder of screenshots, which git ignores, before the processes of the tests start."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(SCREENSHOTS, ignore_errors=True)
        SCREENSHOTS.mkdir()


@pytest.fixture
def screenshots() -> Path:
    """Return the folder of screenshots."""
    return SCREENSHOTS


@pytest.fixture
def screenshot(request: pytest.FixtureRequest, context: BrowserContext) -> Screenshot:
    """Return what keeps a picture of the page in front, named by test, number and step."""
    story = request.node.name.removeprefix("test_").replace("_", "-").translate({ord("["): "-", ord("]"): None})
    taken = 0

    def take(step: str) -> None:
        nonlocal taken
        taken += 1
        context.pages[-1].screenshot(path=SCREENSHOTS / f"{story}-{taken}-{step}.png")

    return take
