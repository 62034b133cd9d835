"""The pages with sessions: redirects to the login and back, and requests of other sites."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

import session_pages

FORM = "application/x-www-form-urlencoded"
GOOD = {"username": "ada@example.com", "password": "analytical engine"}


@pytest.fixture
def browser() -> TestClient:
    """Return a browser over https that does not follow redirects."""
    return TestClient(session_pages.app, base_url="https://notes.example", follow_redirects=False)


def redirected(answer: Any) -> str:
    """Return the target of a redirect."""
    assert answer.status_code == 303
    location: str = answer.headers["location"]
    return location


def test_a_visit(browser: TestClient) -> None:
    """Log in, add a note and log out; no cache stores a page."""
    assert redirected(browser.get("/")) == "/login?next=/"
    form = browser.get("/login?next=/")
    assert 'value="/"' in form.text
    answer = browser.post("/login", data={**GOOD, "next": "/"})
    assert redirected(answer) == "/"
    assert answer.headers["set-cookie"].startswith("__Host-session=")
    page = browser.get("/")
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    assert "algebraic patterns" in page.text
    assert redirected(browser.post("/notes", data={"text": "<b>bold</b>"})) == "/"
    assert "&lt;b&gt;bold" in browser.get("/").text
    assert redirected(browser.post("/logout", headers={"Content-Type": FORM})) == "/login"
    assert redirected(browser.get("/")) == "/login?next=/"


def test_a_wrong_password(browser: TestClient) -> None:
    """A wrong password and too many attempts lead back to the form."""
    wrong = {"username": "eve@example.com", "password": "wrong"}
    seen = [redirected(browser.post("/login", data=wrong)) for _ in range(6)]
    assert seen == ["/login?error=wrong"] * 5 + ["/login?error=too_many"]
    assert "Incorrect username or password" in browser.get(seen[0]).text
    assert "Too many attempts" in browser.get(seen[-1]).text


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example"])
def test_a_target_elsewhere(browser: TestClient, target: str) -> None:
    """A login redirects within the site only, and the address is escaped in the form."""
    assert redirected(browser.post("/login", data={**GOOD, "next": target})) == "/"
    assert "<script>" not in browser.get("/login", params={"next": '"><script>'}).text


def test_another_sites_page(browser: TestClient) -> None:
    """A page of another site can neither log in, nor log out, nor add a note."""
    assert redirected(browser.post("/login", data=GOOD)) == "/"
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    for path in ("/login", "/logout"):
        assert redirected(browser.post(path, data=GOOD, headers=foreign)) == "/login?error=forbidden"
    assert "not sent from a page of this site" in browser.get("/login?error=forbidden").text
    answer = browser.post("/notes", data={"text": "spam"}, headers=foreign)
    assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})
    assert "spam" not in browser.get("/").text
