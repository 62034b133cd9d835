"""The demo's /docs, as a user with a mouse and a keyboard uses it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from browser.serving import ELSEWHERE, Screenshot, served
from demo import PASSWORDS

LARGEST_PICTURE_BYTES = 120 * 1024
# One process runs them, for the server that they share.
pytestmark = pytest.mark.xdist_group("docs")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the demo at a free port."""
    command = [sys.executable, "-m", "fastapi_guard", "demo", "--port", "0"]
    with served(command, tmp_path_factory.mktemp("demo")) as url:
        yield url


@pytest.fixture
def page(context: BrowserContext, demo: str) -> Page:
    """Open the documentation of the demo, with Swagger UI's files out of a distribution of theirs."""
    for url in ELSEWHERE:
        context.route(url, lambda route: route.fulfill(path=ELSEWHERE[route.request.url]))
    page = context.new_page()
    page.goto(f"{demo}/docs")
    expect(page.get_by_role("button", name="Authorize", exact=True)).to_be_visible()
    return page


def dialog(page: Page, scheme: str) -> Locator:
    """Open the Authorize dialog, and return the part of a scheme."""
    page.get_by_role("button", name="Authorize", exact=True).click()
    part = page.locator(".auth-container").filter(has_text=scheme)
    expect(part).to_have_count(1)
    part.scroll_into_view_if_needed()
    return part


def close(page: Page) -> None:
    """Close the Authorize dialog."""
    page.locator(".close-modal").click()
    expect(page.locator(".dialog-ux")).to_have_count(0)


def log_in(page: Page, username: str, password: str) -> Locator:
    """Type a name and a password into the Authorize dialog, and send them."""
    part = dialog(page, "OAuth2PasswordBearer")
    part.get_by_label("username:").fill(username)
    part.get_by_label("password:").fill(password)
    part.locator("button.authorize").click()
    return part


def execute(page: Page, operation: str, body: Any = None) -> tuple[str, Any, str]:
    """Try an operation out; return the status, the body and the headers that the page shows."""
    method, path = operation.split()
    block = page.locator(f".opblock-{method.lower()}").filter(has=page.locator(f'[data-path="{path}"]'))
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    if body is not None:
        block.locator("textarea.body-param__text").fill(json.dumps(body))
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response").last
    expect(answer).to_be_visible()
    answer.scroll_into_view_if_needed()
    shown = answer.locator("pre")
    status = answer.locator(".response-col_status").inner_text().split()[0]
    return status, json.loads(shown.first.inner_text()), shown.last.inner_text()


def fold(page: Page) -> None:
    """Fold the open operation."""
    page.locator(".opblock.is-open .opblock-summary-control").click()
    expect(page.locator(".opblock.is-open")).to_have_count(0)


def test_stranger(page: Page, screenshot: Screenshot) -> None:
    """Without a login a protected operation shows the 401 and its challenge, and an open one its answer."""
    screenshot("open")
    status, body, headers = execute(page, "GET /posts")
    screenshot("refused")
    assert (status, body["detail"]) == ("401", "Not authenticated")
    assert 'www-authenticate: Bearer realm="api"' in headers
    fold(page)
    assert execute(page, "GET /health")[:2] == ("200", {"status": "ok"})


def test_author(page: Page, screenshot: Screenshot) -> None:
    """An author logs in, calls what she may, is refused what she lacks the scope for, and logs out."""
    part = log_in(page, "grace", PASSWORDS["grace"])
    expect(part.get_by_text("Logout")).to_be_visible()
    screenshot("logged-in")
    close(page)
    status, body, _ = execute(page, "GET /me")
    screenshot("me")
    assert (status, body) == ("200", {"sub": "grace", "scopes": ["posts:edit"]})
    fold(page)
    status, body, _ = execute(page, "POST /posts", {"title": "On Bugs"})
    screenshot("written")
    assert (status, body["author_id"], body["title"]) == ("201", "grace", "On Bugs")
    fold(page)
    status, body, headers = execute(page, "GET /admin/users")
    screenshot("scope-missing")
    assert (status, body["detail"]) == ("403", "Token is missing required scope: users:read")
    assert 'error="insufficient_scope",scope="users:read"' in headers
    fold(page)
    part = dialog(page, "OAuth2PasswordBearer")
    part.get_by_text("Logout").click()
    expect(part.get_by_label("username:")).to_be_visible()
    close(page)
    assert execute(page, "GET /posts")[0] == "401"
    screenshot("logged-out")


def test_administrator(page: Page, screenshot: Screenshot) -> None:
    """The administrator gets a response where the author is refused."""
    expect(log_in(page, "ada", PASSWORDS["ada"]).get_by_text("Logout")).to_be_visible()
    close(page)
    assert execute(page, "GET /admin/users")[:2] == ("200", ["ada", "alan", "grace"])
    screenshot("users")


def test_wrong_password(page: Page, screenshot: Screenshot) -> None:
    """The dialog shows the refusal of a wrong password, and the caller stays anonymous."""
    part = log_in(page, "alan", "wrong")
    expect(part.locator(".errors")).to_contain_text("error: invalid_grant, description: Incorrect username or password")
    expect(part.get_by_text("Logout")).to_have_count(0)
    screenshot("refused")
    close(page)
    assert execute(page, "GET /me")[0] == "401"


def test_api_key(page: Page, screenshot: Screenshot) -> None:
    """A key that was made on the page is pasted into the dialog's other part, and does what it was made for."""
    expect(log_in(page, "grace", PASSWORDS["grace"]).get_by_text("Logout")).to_be_visible()
    close(page)
    status, body, _ = execute(page, "POST /keys", {"name": "ci", "scopes": ["posts:read"]})
    screenshot("made")
    assert status == "201"
    fold(page)
    page.reload()
    part = dialog(page, "APIKey")
    part.get_by_label("auth-bearer-value").fill(body["key"])
    screenshot("pasted")
    part.locator("button.authorize").click()
    close(page)
    assert execute(page, "GET /posts")[0] == "200"
    screenshot("read")
    fold(page)
    assert execute(page, "POST /posts", {"title": "Not with this one"})[0] == "403"
    screenshot("refused")


def test_picture(page: Page, screenshots: Path) -> None:
    """The picture of the README: an operation with a guard has a lock, which a login closes; a public one has none."""
    page.set_viewport_size({"width": 900, "height": 640})
    locks = page.locator(".opblock button.authorization__btn")
    guarded = locks.count()
    assert 0 < guarded < page.locator(".opblock").count()
    expect(locks.locator("svg.unlocked")).to_have_count(guarded)
    expect(log_in(page, "grace", PASSWORDS["grace"]).get_by_text("Logout")).to_be_visible()
    close(page)
    expect(locks.locator("svg.locked")).to_have_count(guarded)
    page.locator(".opblock-tag-section").first.scroll_into_view_if_needed()
    page.mouse.move(0, 0)
    path = screenshots / "demo-docs.png"
    page.screenshot(path=path)
    assert path.stat().st_size < LARGEST_PICTURE_BYTES
