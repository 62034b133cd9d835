"""The example's pages with sessions over TLS: a visit, and pages of other sites and origins that try to act in it."""

import ast
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Response, expect

from browser.serving import Screenshot, served

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NOTE = "The engine weaves algebraic patterns."
# The status of a refusal, the page where the browser arrives, and what it shows there.
BY_A_PAGE = (303, "/login?error=forbidden", "The form was not sent from a page of this site")
BY_A_GUARD = (403, "/notes", '{"detail":"Forbidden"}')
# One process runs them, for the server that they share.
pytestmark = pytest.mark.xdist_group("session_pages")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the example at a free port, by the two commands in its docstring."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "examples").symlink_to(EXAMPLES)
    written = ast.get_docstring(ast.parse((EXAMPLES / "session_pages.py").read_text(encoding="utf-8")))
    certificate, serve = [shlex.split(line) for line in (written or "").splitlines()[2:]]
    subprocess.run(certificate, cwd=folder, check=True, capture_output=True)  # noqa: S603 - ours
    with served([sys.executable, "-m", *serve, "--port", "0"], folder) as url:
        yield url.replace("127.0.0.1", "notes.example")


@pytest.fixture
def page(context: BrowserContext, site: str) -> Page:
    """Open the private page, log in where the browser is sent, and be back at the private page."""
    page = context.new_page()
    page.goto(site)
    expect(page).to_have_url(f"{site}/login?next=/")
    page.locator("[name=username]").fill("ada@example.com")
    page.locator("[name=password]").fill("analytical engine")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{site}/")
    expect(page.get_by_text(NOTE)).to_be_visible()
    return page


def submit_from(context: BrowserContext, origin: str, action: str) -> tuple[Page, Response]:
    """Have a page of `origin` send a form to `action`, and return where that leads."""
    fields = {"text": "spam", "username": "ada@example.com", "password": "analytical engine"}
    inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
    form = f'<form method="post" action="{action}">{inputs}<button>A prize</button></form>'
    page = context.new_page()
    page.goto(f"{origin}/login")  # the same server answers to every name of this machine
    page.set_content(form)
    with page.expect_response(action) as answered:
        page.get_by_role("button", name="A prize").click()
    page.wait_for_load_state()
    return page, answered.value


def test_visit(page: Page, site: str, context: BrowserContext, screenshot: Screenshot) -> None:
    """A note is added, no script sees the cookie, and after the logout neither the page nor the way back shows it."""
    screenshot("logged-in")
    page.locator("[name=text]").fill("<b>A note</b> of a visit")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("<b>A note</b> of a visit")).to_be_visible()
    screenshot("noted")
    (cookie,) = context.cookies(site)
    assert (cookie["name"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (
        "__Host-session",
        True,
        True,
        "Lax",
        "/",
    )
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{site}/login")
    screenshot("logged-out")
    assert context.cookies(site) == []
    page.go_back(wait_until="commit")  # the next line waits, whether it is loaded or was kept
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    expect(page.get_by_text(NOTE)).to_have_count(0)
    screenshot("back")
    page.goto(site)
    expect(page).to_have_url(f"{site}/login?next=/")


def test_stolen_cookie(page: Page, site: str, context: BrowserContext, screenshot: Screenshot) -> None:
    """The cookie of a session that was logged out of opens nothing, wherever a copy of it has gone."""
    (cookie,) = context.cookies(site)
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{site}/login")
    context.add_cookies([{"name": cookie["name"], "value": cookie["value"], "url": site, "secure": True}])
    page.goto(site)
    expect(page).to_have_url(f"{site}/login?next=/")
    screenshot("refused")


@pytest.mark.parametrize(
    ("host", "path", "relation", "refusal"),
    [
        pytest.param("elsewhere.example", "/logout", "cross-site", BY_A_PAGE, id="another-site-logout"),
        pytest.param("elsewhere.example", "/login", "cross-site", BY_A_PAGE, id="another-site-login"),
        pytest.param("other.notes.example", "/logout", "same-site", BY_A_PAGE, id="another-origin-logout"),
        pytest.param("other.notes.example", "/notes", "same-site", BY_A_GUARD, id="another-origin-notes"),
    ],
)
def test_forged(
    page: Page,
    site: str,
    context: BrowserContext,
    screenshot: Screenshot,
    host: str,
    path: str,
    relation: str,
    refusal: tuple[int, str, str],
) -> None:
    """A form of another origin is refused, whether or not the browser sends the cookie; the session stays the same."""
    (session,) = context.cookies(site)
    origin = site.replace("notes.example", host)
    forged, answer = submit_from(context, origin, f"{site}{path}")
    headers = answer.request.all_headers()
    assert (headers["sec-fetch-site"], headers["origin"]) == (relation, origin)
    assert ("__Host-session=" in headers.get("cookie", "")) is (relation == "same-site")  # SameSite=Lax
    status, target, text = refusal
    assert answer.status == status
    expect(forged).to_have_url(f"{site}{target}")
    expect(forged.get_by_text(text)).to_be_visible()
    assert "set-cookie" not in answer.all_headers()
    screenshot("refused")
    assert context.cookies(site) == [session]
    page.reload()
    expect(page.get_by_text(NOTE)).to_be_visible()
    expect(page.get_by_text("spam")).to_have_count(0)


def test_forged_without_cookie(page: Page, site: str, context: BrowserContext, screenshot: Screenshot) -> None:
    """A note from another site comes without the cookie: the browser is asked to log in, and there is no note."""
    forged, answer = submit_from(context, site.replace("notes.example", "elsewhere.example"), f"{site}/notes")
    assert (answer.status, "cookie" in answer.request.all_headers()) == (303, False)
    expect(forged).to_have_url(f"{site}/login?next=/notes")
    screenshot("asked")
    page.reload()
    expect(page.get_by_text(NOTE)).to_be_visible()
    expect(page.get_by_text("spam")).to_have_count(0)
