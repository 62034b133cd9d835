"""The single-page application in Chromium, copied to an empty folder: password, second step, provider, refresh."""

import ast
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pyotp
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from browser.serving import Screenshot, free_port, served
from fastapi_guard.testing.issuer import FakeIssuer

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "spa"
ADA, GRACE = "ada@example.com", "grace@example.com"
PASSWORD = "wonderland tea party"
KEY = "qV3r9Zk1dY8uW5mB7xN2tC6hJ4pL0sGf"
STEP_SECONDS = 30
# One process runs them, for the server that they share.
pytestmark = pytest.mark.xdist_group("spa")


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    """Serve a provider."""
    issuer = FakeIssuer(audience="notes")
    with issuer.serve():
        yield issuer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, issuer: FakeIssuer) -> Iterator[str]:
    """Serve a copy of the example on localhost, by the commands in its docstring, with a second user."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, folder / "spa", ignore=shutil.ignore_patterns("__pycache__"))
    written = ast.get_docstring(ast.parse((folder / "spa" / "__init__.py").read_text(encoding="utf-8"))) or ""
    commands = [shlex.split(line) for line in written.splitlines() if line.startswith("    ")]
    tables, user, serve = commands[1], commands[2], commands[-1]
    assert ADA in user
    for command in (tables, user, [GRACE if word == ADA else word for word in user]):
        subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-m", "fastapi_guard", *command[1:]],
            cwd=folder,
            check=True,
            capture_output=True,
            input=PASSWORD.encode(),
        )
    port = free_port()
    values = {
        "KEY": KEY,
        "SITE": f"http://localhost:{port}",
        "ISSUER": issuer.url,
        "CLIENT_ID": "notes",
        "CLIENT_SECRET": "a secret of the client",
    }
    command = [sys.executable, "-m", *serve, "--port", str(port)]
    with patch.dict(os.environ, {f"SPA_{name}": value for name, value in values.items()}), served(command, folder):
        yield values["SITE"]


@pytest.fixture
def page(context: BrowserContext, site: str, issuer: FakeIssuer) -> Page:
    """Open the page; the provider's page has one link, back."""

    def authorize(route: Route) -> None:
        back = issuer.authorize(route.request.url, sub="u-1").replace("&", "&amp;")
        route.fulfill(content_type="text/html", body=f'<title>The provider</title><a href="{back}">Agree</a>')

    context.route(f"{issuer.url}/authorize?*", authorize)
    page = context.new_page()
    # A policy that is violated is an error.
    page.on("console", lambda message: pytest.fail(message.text) if "Content Security" in message.text else None)
    page.goto(site)
    expect(page.get_by_role("button", name="Sign in with acme")).to_be_visible()
    return page


def log_in(page: Page, user: str = ADA) -> None:
    """Send the form with the password."""
    page.get_by_label("Address").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_password_and_second_step(page: Page, context: BrowserContext, screenshot: Screenshot) -> None:
    """Log in, reload, turn on two-factor, log out, and log in with a code; no script sees the refresh token."""
    screenshot("login")
    log_in(page, GRACE)
    expect(page.get_by_text("You are logged in (pwd)")).to_be_visible()
    page.get_by_label("Note").fill("<b>A note</b>")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("<b>A note</b>")).to_be_visible()
    [cookie] = [found for found in context.cookies() if "refresh" in found["name"]]
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
        "__Host-refresh-local",
        True,
        True,
        "Strict",
    )
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    page.reload()
    expect(page.get_by_text("<b>A note</b>")).to_be_visible()

    page.get_by_role("button", name="Turn on two-factor").click()
    expect(page.get_by_alt_text("QR code for the authenticator app")).to_be_visible()
    page.evaluate("document.getElementById('qr').decode()")  # rejects what is not an image
    secret = page.locator("#secret").inner_text()
    app = pyotp.TOTP(secret)
    page.get_by_label("Code of the app").fill(app.at(int(time.time())))
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#codes li").first).to_be_visible()
    screenshot("two-factor")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("alert")).to_have_text("You are logged out.")
    assert [found for found in context.cookies() if "refresh" in found["name"]] == []

    log_in(page, GRACE)
    expect(page.get_by_label("Second factor")).to_be_visible()
    page.get_by_label("Code", exact=True).fill("000000")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).not_to_have_text("")
    screenshot("wrong-code")
    # The step of the confirmation is spent; the next one is accepted early.
    page.get_by_label("Code", exact=True).fill(app.at(int(time.time()) + STEP_SECONDS))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("You are logged in (pwd, otp, mfa)")).to_be_visible()


def test_a_provider(page: Page, site: str, screenshot: Screenshot) -> None:
    """From the click to a login: the code leaves the address bar, and a reload stays logged in."""
    page.get_by_role("button", name="Sign in with acme").click()
    page.get_by_role("link", name="Agree").click()
    expect(page.get_by_text("You are logged in (fed)")).to_be_visible()
    expect(page).to_have_url(f"{site}/")
    screenshot("signed-in")
    page.reload()
    expect(page.get_by_text("You are logged in (fed)")).to_be_visible()


def test_a_provider_that_refuses(page: Page, site: str) -> None:
    """An answer to a request of no browser logs no user in, and shows a constant text."""
    page.goto(f"{site}/signed-in/acme?state={'x' * 43}&code=y&error_description=%3Cb%3Etext%3C/b%3E")
    expect(page.get_by_role("alert")).to_have_text("Signing in failed")
    expect(page.get_by_label("Password")).to_be_visible()


def test_an_expired_access_token(page: Page, screenshot: Screenshot) -> None:
    """A call with an access token that is not valid any more is sent again after a silent refresh."""
    log_in(page)
    expect(page.get_by_text("You are logged in (pwd)")).to_be_visible()
    refreshes: list[str] = []
    page.on("request", lambda request: refreshes.append(request.url) if request.url.endswith("/refresh") else None)
    spoilt: list[str] = []

    def spoil(route: Route) -> None:
        spoilt.append(route.request.url)
        headers = {**route.request.headers, "authorization": "Bearer expired"} if len(spoilt) == 1 else None
        route.continue_(headers=headers)

    page.route("**/notes", spoil)
    page.get_by_label("Note").fill("a loom")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("a loom")).to_be_visible()
    assert (len(spoilt), len(refreshes)) == (2, 1)


def test_two_tabs(page: Page, context: BrowserContext, site: str) -> None:
    """Logging out in one tab logs the other out."""
    log_in(page)
    expect(page.get_by_text("You are logged in (pwd)")).to_be_visible()
    other = context.new_page()
    other.goto(site)
    expect(other.get_by_text("You are logged in (pwd)")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(other.get_by_role("alert")).to_have_text("You are logged out.")
    other.reload()
    expect(other.get_by_label("Password")).to_be_visible()
