"""Sign in with oidc-provider-mock, whose answers have no iss, and whose refusals have no state."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from interop.browsing import Browser, location_of, query_of, with_query
from interop.running import running


@pytest.fixture(scope="module")
def site(mock_provider: str) -> Iterator[str]:
    """Serve the application."""
    with running(sys.executable, "serve.py", "sign_in_app.py", mock_provider) as address:
        yield address


def answer_of(browser: Browser, site: str, **form: str) -> str:
    """Send the form of the provider's page, and return the URL to which it sends the browser back."""
    page = browser.follow(browser.send("GET", f"{site}/providers/acme"))
    return location_of(browser.submit(page, until=site, **form))


def test_from_click_to_session(site: str, mock_provider: str) -> None:
    """The answer has no iss, which this provider does not announce, and the claims of the user are used."""
    browser = Browser()
    back = answer_of(browser, site, sub="ada")
    assert sorted(query_of(back)) == ["code", "state"]
    me = browser.follow(browser.send("GET", back)).json()
    assert me["idp"].pop("hint")  # where the ID token is kept for the logout
    assert (me["email"], me["idp"]) == ("ada@example.com", {"provider": "acme", "iss": mock_provider, "sub": "ada"})
    assert me["subject"] == browser.send("GET", f"{site}/me").json()["subject"]
    other = Browser()
    assert other.follow(other.send("GET", answer_of(other, site, sub="mallory"))).json()["email"] is None


def test_refusals(site: str) -> None:
    """A user who refuses, a code that is used again, and an issuer that is another one do not log in."""
    browser = Browser()
    denied = answer_of(browser, site, action="deny")
    # Without a state it is not known which sign-in has ended.
    assert (query_of(denied)["error"], "state" in query_of(denied)) == ("access_denied", False)
    assert browser.send("GET", denied).headers["location"] == "/login?error=expired"
    first = answer_of(browser, site, sub="ada")
    assert browser.send("GET", first).headers["location"] == "/me"
    second = answer_of(browser, site, sub="ada")
    for changes in ({"code": query_of(first)["code"]}, {"iss": "https://evil.example"}):
        changed = with_query(second, **changes)
        assert browser.send("GET", changed).headers["location"] == "/login?error=provider"
        second = answer_of(browser, site, sub="ada")
    assert browser.send("GET", second).headers["location"] == "/me"


def test_a_provider_that_has_gone() -> None:
    """A provider that stops between the click and the way back is a code for a page, and a 503 in JSON."""
    with ExitStack() as application, ExitStack() as provider:
        issuer = provider.enter_context(running(sys.executable, "mock_provider.py"))
        site = application.enter_context(running(sys.executable, "serve.py", "sign_in_app.py", issuer))
        browser = Browser()
        first, second = (answer_of(browser, site, sub="ada") for _ in range(2))
        provider.close()
        assert browser.send("GET", first).headers["location"] == "/login?error=unavailable"
        answer = browser.send("POST", f"{site}/providers/acme/finish", json=query_of(second))
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert issuer not in answer.text
