"""Attacks on a sign-in with a provider: open redirects, cookies, nonsense, and addresses that look alike."""

import json
from asyncio import timeout
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_guard import Forbidden
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import User
from fastapi_guard.routers.providers import providers_router
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.providers import Shop

SITE = "https://shop.example"
HOSTILE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nLocation: https://evil.example",
    "https://evil.example",
    "https:evil.example",
    "https://shop.example@evil.example",
    "https://shop.example.evil.example",
    "javascript:alert(1)",
    "/%2f/evil.example",
    "/%2f%2fevil.example",
    "/%5cevil.example",
    "/%09/evil.example",
    "/..//evil.example",
    "/.//evil.example",
    "/\u2044evil.example",
    "/\u3002evil.example",
    "\uff0f\uff0fevil.example",
    "/" + "a" * 9000,
    "",
]


@pytest.fixture
def shop(clock: Clock) -> Shop:
    """Return an application whose provider vouches for addresses."""
    return Shop(MemoryStore(clock=clock), clock, provider={"vouches": True})


@pytest.fixture
def browser(shop: Shop, clock: Clock) -> TestClient:
    """Return a browser, for which an unexpected error is a 500."""
    app = FastAPI()
    app.include_router(providers_router(shop.sign_in, SessionAuth(MemoryStore(clock=clock), clock=clock)))
    return TestClient(app, base_url=SITE, follow_redirects=False, raise_server_exceptions=False)


def come_back(shop: Shop, browser: TestClient, *, target: str | None = None, **claims: Any) -> str:
    """Sign in, and return where the application sends the browser."""
    begun = browser.get("/providers/acme", params={} if target is None else {"next": target})
    assert begun.status_code == 303
    back = urlsplit(shop.issuer.authorize(begun.headers["location"], **{"sub": "u-1", **claims}))
    answer = browser.get(f"{back.path}?{back.query}")
    assert answer.status_code == 303
    return str(answer.headers["location"])


@pytest.mark.parametrize("target", HOSTILE)
def test_open_redirects(shop: Shop, browser: TestClient, target: str) -> None:
    """Whatever the target is, the browser stays at this origin, by a header of ordinary length."""
    location = come_back(shop, browser, target=target)
    # As browsers read it: they drop tabs and line ends, and take a backslash for a slash.
    read = location.translate(dict.fromkeys(map(ord, "\t\r\n"))).replace("\\", "/")
    assert urlsplit(urljoin(f"{SITE}/providers/acme/callback", read)).netloc == "shop.example"
    assert len(location) <= 2048
    assert come_back(shop, browser, target="/orders?page=2") == "/orders?page=2"


@pytest.mark.parametrize("raw", ['"a\\012Set-Cookie: x=y"', '"\\377\\200"', "é", "a,b", '"a\\073 b"', "x" * 65, ""])
def test_cookies_of_others(shop: Shop, browser: TestClient, raw: str) -> None:
    """A cookie that is none of ours is not set again, and the sign-in that begins with it works."""
    cookie = f"__Host-sign-in-login={raw}"
    begun = browser.get("/providers/acme", headers={"cookie": cookie.encode("latin-1")})
    value = begun.headers["set-cookie"].partition("=")[2].partition(";")[0]
    assert (len(value), value.replace("-", "").replace("_", "").isalnum()) == (43, True)
    back = urlsplit(shop.issuer.authorize(begun.headers["location"]))
    assert browser.get(f"{back.path}?{back.query}").headers["location"] == "/"


@pytest.mark.parametrize("query", ["state=%00", "state=%ED%A0%80", "code=1", "", "error=x", "state[]=x", "iss=1&iss=2"])
def test_answers_of_no_sign_in(browser: TestClient, query: str) -> None:
    """An answer to a sign-in that was not begun is the same code, whatever else is in it."""
    answer = browser.get(f"/providers/acme/callback?{query}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?error=expired")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("name", ["%2e%2e", "%0d%0aX", "acme%00", "é", "another", "ACME"])
def test_names_of_no_provider(browser: TestClient, name: str) -> None:
    """A form that was posted for another name is not sent on."""
    answer = browser.post(f"/providers/{name}/callback", data={"state": "x"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?error=forbidden")
    assert browser.post("/providers/acme/callback", data={"state": "x"}).headers["location"].endswith("?state=x")


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "a\0b"},
        {"sub": "a\nb"},
        {"sub": "u\u202e"},
        {"sid": "s" * 256},
        {"sid": "a\0b"},
        {"sid": ""},
        {"sid": ["s-1"]},
        {"sid": 7},
    ],
    ids=repr,
)
def test_identifiers(shop: Shop, browser: TestClient, claims: dict[str, Any]) -> None:
    """A subject or session of the provider that a table could not keep, or of another type, logs no user in."""
    assert come_back(shop, browser, **claims) == "/login?error=provider"
    assert come_back(shop, browser, sub="é", sid="s" * 255) == "/"


@pytest.mark.parametrize("email", ["\uff41da@example.com", "ada@\uff45xample.com", "\u24d0da@example.com"])
def test_addresses_that_look_alike(shop: Shop, browser: TestClient, email: str) -> None:
    """A verified address that only the normal form makes the address of a user does not log that user in."""
    assert come_back(shop, browser, email=email, email_verified=True) == "/login?error=link_first"
    assert come_back(shop, browser, email="ADA@example.com", email_verified=True) == "/"


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        ("kate@example.com", "\u212aate@example.com"),
        ("\u212aate@example.com", "kate@example.com"),
        ("zo\u00eb@example.com", "ZO\u00cb@example.com"),
    ],
)
async def test_addresses_of_one_lower_case(shop: Shop, own: str, shown: str) -> None:
    """A letter outside of ASCII makes another mailbox, also where its lower case is that of the user's address."""
    assert own.lower() == shown.lower()
    shop.house.users._put(User(subject_id="k", email=own))
    with pytest.raises(Forbidden) as refused:
        await shop.enter(sub="u-1", email=shown, email_verified=True)
    assert refused.value.reason == "link_first"
    outcome = (await shop.enter(sub="u-2", email=own, email_verified=True)).outcome
    assert outcome is not None
    assert outcome.user.subject_id == "k"


async def test_users_of_an_application_that_find_a_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an address, whom the users of an application find by one, is not matched."""
    user = User(subject_id="k", username="kate")
    shop.house.users._put(user)

    async def found(_: str) -> User:
        return user

    monkeypatch.setattr(shop.house.users, "by_login", found)
    with pytest.raises(Forbidden) as refused:
        await shop.enter(sub="u-1", email="kate@example.com", email_verified=True)
    assert refused.value.reason == "link_first"


async def test_a_sharp_s(shop: Shop) -> None:
    """A mailbox with a sharp s and one with two letters are two; the very same address is matched."""
    user = User(subject_id="s", email="stra\u00dfe@example.com")
    shop.house.users._put(user)
    with pytest.raises(Forbidden) as refused:
        await shop.enter(sub="u-1", email="strasse@example.com", email_verified=True)
    assert refused.value.reason == "link_first"
    outcome = (await shop.enter(sub="u-2", email="stra\u00dfe@example.com", email_verified=True)).outcome
    assert outcome is not None
    assert outcome.user.subject_id == "s"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "unavailable"),
        (b"null", "unavailable"),
        (b"[]", "unavailable"),
        (b"\xff\xfe", "unavailable"),
        (b'{"id_token":"a","id_token":"b"}', "unavailable"),
        (b"[" * 50_000, "unavailable"),
        (b"x" * 3_000_000, "unavailable"),
        (b'{"id_token":"\\ud800.a.b"}', "unavailable"),
        (b'{"id_token":["a"]}', "provider"),
        (b'{"id_token":null}', "provider"),
        (b'{"error":{"a":1}}', "provider"),
        (b'{"id_token":"' + b"a" * 20_000 + b'"}', "provider"),
    ],
    ids=range(12),
)
def test_token_responses_that_are_nonsense(shop: Shop, browser: TestClient, body: bytes, code: str) -> None:
    """Nonsense of the token endpoint is a code, and nothing of it is in the answer."""
    with shop.issuer.answering("/token", body):
        assert come_back(shop, browser) == f"/login?error={code}"
    assert come_back(shop, browser) == "/"


@pytest.mark.parametrize("status", [204, 301, 307, 401, 403, 404, 429, 500, 503])
def test_statuses_of_the_token_endpoint(shop: Shop, browser: TestClient, status: int) -> None:
    """No redirect of the token endpoint is followed, and its refusals of the client are not the user's."""
    elsewhere = {"Location": "https://evil.example/token"}
    with shop.issuer.answering("/token", b'{"id_token":"x"}', status=status, headers=elsewhere):
        assert come_back(shop, browser) == "/login?error=unavailable"
    assert come_back(shop, browser) == "/"


@pytest.mark.parametrize(
    "change",
    [
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://id.example/authorize"},
        {"authorization_endpoint": "https://id.example/a#b"},
        {"authorization_endpoint": "https://user:password@id.example/a"},
        {"authorization_endpoint": ["https://id.example/a"]},
        {"authorization_endpoint": None},
        {"token_endpoint": "http://169.254.169.254/"},
        {"issuer": "https://id.example/"},
    ],
    ids=range(8),
)
def test_metadata_that_is_nonsense(shop: Shop, browser: TestClient, change: dict[str, Any]) -> None:
    """A browser is sent to an https URL of the provider's metadata alone."""
    document = json.dumps({**shop.issuer.metadata, **change}).encode()
    with shop.issuer.answering("/.well-known/openid-configuration", document):
        assert browser.get("/providers/acme").headers["location"] == "/login?error=unavailable"
    assert come_back(shop, browser) == "/"


def test_a_slow_provider(shop: Shop, browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that answers after the deadline is a code."""
    assert come_back(shop, browser) == "/"
    monkeypatch.setattr("fastapi_guard.jwt.http.timeout", lambda seconds: timeout(0))
    with shop.issuer.slow(60):
        assert come_back(shop, browser) == "/login?error=unavailable"
