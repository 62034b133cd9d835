"""Sign in with a certified provider, oidc-provider: front channel, codes, keys, and both kinds of logout."""

from base64 import urlsafe_b64encode
from hashlib import sha256
from urllib.parse import parse_qs

import httpx2
import pytest

from interop.browsing import Browser, location_of, query_of, with_query
from interop.running import Serve

APP = "sign_in_app.py"


@pytest.fixture
def site(serve_sign_in: Serve) -> str:
    """Serve the application."""
    return serve_sign_in(APP)


@pytest.fixture
def browser() -> Browser:
    """Return a new browser."""
    return Browser()


def begin(browser: Browser, site: str) -> str:
    """Begin a sign-in, and return the URL of the authorization request."""
    return location_of(browser.send("GET", f"{site}/providers/acme"))


def answer_of(browser: Browser, site: str, *, user: str = "ada") -> str:
    """Sign in at the provider, and return the URL to which it sends the browser back."""
    page = browser.follow(browser.send("GET", begin(browser, site)), until=site)
    if "location" not in page.headers:
        page = browser.click(page, user, until=site)
    return location_of(page)


def enter(browser: Browser, site: str, *, user: str = "ada") -> httpx2.Response:
    """Sign in, and return the page where the browser arrives."""
    return browser.follow(browser.send("GET", answer_of(browser, site, user=user)))


def outcome(browser: Browser, url: str) -> str:
    """Come back from the provider, and return the path to which the application sends the browser."""
    return browser.send("GET", url).headers["location"]


def test_from_click_to_session(browser: Browser, site: str, sign_in_provider: str) -> None:
    """The request has PKCE, the answer has iss, and userinfo adds an address to the claims of the ID token."""
    url = begin(browser, site)
    request = query_of(url)
    assert url.startswith(f"{sign_in_provider}/auth?")
    assert (request["code_challenge_method"], request["response_type"]) == ("S256", "code")
    back = answer_of(browser, site)
    assert query_of(back)["iss"] == sign_in_provider
    me = browser.follow(browser.send("GET", back)).json()
    assert (me["amr"], me["email"]) == (["fed"], "ada@example.com")
    assert (me["idp"]["iss"], me["idp"]["sub"]) == (sign_in_provider, "ada")
    assert me["idp"]["sid"]
    again = enter(Browser(), site).json()
    assert again["subject"] == me["subject"]


def test_an_address_that_is_not_verified(browser: Browser, site: str) -> None:
    """The account of a user whose address the provider does not mark as verified has none."""
    assert enter(browser, site, user="mallory").json()["email"] is None


@pytest.mark.parametrize(
    "removed", [{"code_challenge": None, "code_challenge_method": None}, {"code_challenge_method": "plain"}]
)
def test_pkce_is_required(browser: Browser, site: str, removed: dict[str, str | None]) -> None:
    """The provider refuses a request whose PKCE was removed or weakened, and its refusal is a constant code here."""
    refused = browser.follow(browser.send("GET", with_query(begin(browser, site), **removed)), until=site)
    assert query_of(location_of(refused))["error"] == "invalid_request"
    assert outcome(browser, location_of(refused)) == "/login?error=provider"


def test_a_user_who_refuses(browser: Browser, site: str) -> None:
    """A refusal of the user is a code, without the text of the provider."""
    page = browser.follow(browser.send("GET", begin(browser, site)))
    back = location_of(browser.click(page, "Refuse", until=site))
    assert query_of(back)["error"] == "access_denied"
    assert outcome(browser, back) == "/login?error=provider"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": None}, "provider"),
        ({"iss": "https://evil.example"}, "provider"),
        ({"code": "not-a-code"}, "provider"),
        ({"code": None}, "provider"),
        ({"state": "x" * 43}, "expired"),
        ({"state": None}, "expired"),
    ],
)
def test_an_answer_that_was_changed(browser: Browser, site: str, changes: dict[str, str | None], code: str) -> None:
    """Another issuer, code or state is refused; the attempt is over where the state was right."""
    back = answer_of(browser, site)
    assert outcome(browser, with_query(back, **changes)) == f"/login?error={code}"
    assert outcome(browser, back) == ("/login?error=expired" if code == "provider" else "/me")


def test_codes(browser: Browser, site: str) -> None:
    """A code is used once, and by the attempt that it belongs to: another attempt has another PKCE verifier."""
    first, second = answer_of(browser, site), answer_of(browser, site)
    assert outcome(browser, with_query(first, code=query_of(second)["code"])) == "/login?error=provider"
    third = answer_of(browser, site)
    assert outcome(browser, third) == "/me"
    fourth = answer_of(browser, site)
    assert outcome(browser, with_query(fourth, code=query_of(third)["code"])) == "/login?error=provider"
    assert outcome(browser, third) == "/login?error=expired"


def test_another_browser(browser: Browser, site: str) -> None:
    """An answer for one browser does not log another one in; the first can still use it."""
    back = answer_of(browser, site)
    other = Browser()
    begin(other, site)
    assert outcome(other, back) == "/login?error=expired"
    assert outcome(Browser(), back) == "/login?error=expired"
    assert outcome(browser, back) == "/me"


def test_key_rotation(site: str, sign_in_provider: str) -> None:
    """An ID token that is signed with a key of after the first sign-in is accepted."""
    assert enter(Browser(), site).status_code == 200
    httpx2.post(f"{sign_in_provider}/rotate").raise_for_status()
    assert enter(Browser(), site).status_code == 200


def test_back_channel_logout(site: str, sign_in_provider: str) -> None:
    """A logout at the provider ends the session that came from that login, and no other one of the user."""
    ends, stays = Browser(), Browser()
    for browser in (ends, stays):
        assert enter(browser, site).status_code == 200
    page = ends.send("GET", f"{sign_in_provider}/session/end")
    ends.submit(page, logout="yes")
    assert [browser.send("GET", f"{site}/me").status_code for browser in (ends, stays)] == [401, 200]
    # The token that the provider sent is used up.
    body = Browser().send("GET", f"{site}/logout-bodies").json()[-1]
    again = httpx2.post(f"{site}/providers/acme/logout", data={"logout_token": parse_qs(body)["logout_token"][0]})
    assert again.status_code == 400


def test_logout_token_of_another_client(browser: Browser, site: str, sign_in_provider: str) -> None:
    """A logout token for another client of the provider ends nothing here, and nor does its ID token."""
    recorder = f"{site}/recorder"
    registration = {
        "redirect_uris": [recorder],
        "backchannel_logout_uri": f"{recorder}/logout",
        "backchannel_logout_session_required": True,
        "token_endpoint_auth_method": "client_secret_post",
    }
    client = httpx2.post(f"{sign_in_provider}/reg", json=registration).raise_for_status().json()
    assert enter(browser, site).status_code == 200
    verifier = "v" * 43
    request = {
        "client_id": client["client_id"],
        "redirect_uri": recorder,
        "response_type": "code",
        "scope": "openid",
        "code_challenge": urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
    }
    own = with_query(begin(browser, site), **request)
    back = location_of(browser.follow(browser.send("GET", own), until=recorder))
    form = {
        "grant_type": "authorization_code",
        "code": query_of(back)["code"],
        "redirect_uri": recorder,
        "code_verifier": verifier,
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
    }
    id_token = httpx2.post(f"{sign_in_provider}/token", data=form).raise_for_status().json()["id_token"]
    seen = len(Browser().send("GET", f"{site}/logout-bodies").json())
    browser.submit(browser.send("GET", f"{sign_in_provider}/session/end"), logout="yes")
    bodies = Browser().send("GET", f"{site}/logout-bodies").json()[seen:]
    assert len(bodies) == 2
    tokens = [parse_qs(body)["logout_token"][0] for body in bodies]
    assert enter(browser, site).status_code == 200
    for token in (*tokens, id_token):
        answer = httpx2.post(f"{site}/providers/acme/logout", data={"logout_token": token})
        assert answer.status_code == 400
    assert browser.send("GET", f"{site}/me").status_code == 200


@pytest.mark.parametrize("kept", [True, False])
def test_logout_at_the_provider(browser: Browser, site: str, kept: bool) -> None:
    """A logout that begins here goes on at the provider, which sends the browser back; also without an ID token."""
    assert enter(browser, site).status_code == 200
    url = location_of(browser.send("POST", f"{site}/leave"))
    assert query_of(url)["id_token_hint"].count(".") == 2
    page = browser.send("GET", url if kept else with_query(url, id_token_hint=None))
    assert "Log out of the provider?" in page.text
    back = browser.submit(page, until=site, logout="yes")
    assert location_of(back) == f"{site}/bye?state=a+state"
    assert browser.send("GET", f"{site}/me").status_code == 401
    # The provider has forgotten the user too.
    assert "Sign in" in browser.follow(browser.send("GET", begin(browser, site))).text
