"""The Authorize button of /docs: log in at a provider by authorization code with PKCE, and call guarded routes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from browser.serving import ELSEWHERE, Screenshot, served
from browser.test_docs import close, dialog, execute, fold


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the application and its provider at a free port."""
    program = Path(__file__).with_name("docs_app.py")
    with served([sys.executable, str(program)], tmp_path_factory.mktemp("docs")) as url:
        yield url


@pytest.fixture
def page(context: BrowserContext, site: str) -> Page:
    """Open the documentation, with Swagger UI's files out of a distribution of theirs."""
    for url in ELSEWHERE:
        context.route(url, lambda route: route.fulfill(path=ELSEWHERE[route.request.url]))
    page = context.new_page()
    page.goto(f"{site}/docs")
    expect(page.get_by_role("button", name="Authorize", exact=True)).to_be_visible()
    return page


def test_log_in(page: Page, screenshot: Screenshot) -> None:
    """A user logs in at the provider, calls a guarded route, lacks a scope that was not ticked, and logs out."""
    assert execute(page, "GET /me")[0] == "401"
    fold(page)
    part = dialog(page, "OAuth2AuthorizationCode")
    expect(part.get_by_label("client_id:")).to_have_value("docs")
    requested: list[str] = []
    page.context.on("request", lambda request: requested.append(request.url))
    with page.context.expect_page() as opened:
        part.locator("button.authorize").click()
    popup = opened.value
    expect(popup.get_by_role("heading", name="Log in")).to_be_visible()
    assert "code_challenge_method=S256" in popup.url
    popup.get_by_label("Name").fill("ada")
    with popup.expect_event("close"):
        popup.get_by_role("button", name="Log in").click()
    expect(part.get_by_text("Logout")).to_be_visible()
    screenshot("logged-in")
    close(page)
    status, body, _ = execute(page, "GET /items")
    assert (status, body) == ("200", {"sub": "ada", "client_id": "docs", "scope": "items:read"})
    screenshot("items")
    fold(page)
    status, body, headers = execute(page, "DELETE /items")
    assert (status, body["detail"]) == ("403", "Token is missing required scope: items:edit")
    assert 'scope="items:edit"' in headers
    fold(page)
    # Neither the verifier nor the token is in a URL.
    assert not any("code_verifier" in url or "access_token" in url for url in requested)
    part = dialog(page, "OAuth2AuthorizationCode")
    part.get_by_text("Logout").click()
    close(page)
    assert execute(page, "POST /items")[0] == "401"
