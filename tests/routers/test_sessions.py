"""The routes of a login with a session: JSON, the forms of pages, and one's own sessions."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import ConfigurationError, JWTConfig
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.schemes.origin import path_within
from fastapi_guard.stores import MemoryStore
from support.clock import Clock
from support.login import PASSWORD
from support.logins import House

USER = {"username": "ada", "password": PASSWORD}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Site:
    """An application with sessions, and its parts."""

    def __init__(self, clock: Clock, *, pages: LoginPages | None = None, **options: Any) -> None:
        """Build the application."""
        store = MemoryStore(clock=clock)
        self.home = House(store, clock, options)
        self.sessions = SessionAuth(store, trusted_origins=["https://shop.example"], clock=clock)
        self.app = FastAPI()
        self.app.include_router(session_router(self.sessions, self.home.login, pages=pages))

    def browser(self) -> TestClient:
        """Return a browser at the application, which does not follow redirects."""
        return TestClient(self.app, base_url="https://app.example", follow_redirects=False)


@pytest.fixture
def site(clock: Clock) -> Site:
    """Return an application."""
    return Site(clock)


def login(client: TestClient, name: str = "ada", **options: Any) -> int:
    """Return the status of a login."""
    return client.post("/login", data={"username": name, "password": PASSWORD}, **options).status_code


def redirected(answer: httpx2.Response) -> str:
    """Return the target of a redirect that no cache stores."""
    assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store")
    location: str = answer.headers["location"]
    return location


@pytest.mark.parametrize("sent", [{"data": USER}, {"json": {"email": "ada@example.com", "password": PASSWORD}}])
def test_log_in_and_out(site: Site, sent: dict[str, Any]) -> None:
    """A form and JSON log in; the cookie is that of the session, and a logout ends it."""
    client = site.browser()
    answer = client.post("/login", **sent)
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")
    assert answer.headers["set-cookie"].startswith("__Host-session=")
    [session] = client.get("/sessions").json()
    assert (session["current"], session["address"], session["user_agent"]) == (
        True,
        "testclient",
        "testclient",
    )
    answer = client.post("/logout")
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    refused = client.get("/sessions")
    assert (refused.status_code, refused.json()) == (401, {"detail": "Not authenticated"})
    assert client.post("/logout").status_code == 204


def test_a_login_that_fails(site: Site) -> None:
    """A wrong password sets no cookie."""
    client = site.browser()
    answer = client.post("/login", data={"username": "ada", "password": "wrong"})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Incorrect username or password"})
    assert "set-cookie" not in answer.headers
    assert login(client) == 204


async def test_a_second_factor(site: Site) -> None:
    """The pending login is in a cookie, never in the answer, and opens nothing; a code makes it a session."""
    await site.home.enrol("totp")
    client = site.browser()
    answer = client.post("/login", json=USER)
    assert (answer.status_code, answer.json()) == (202, {"factors": ["totp"], "expires_in": 600})
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-pending-session-login"
    assert rest.partition("; ")[2] == "HttpOnly; Max-Age=600; Path=/; SameSite=lax; Secure"
    assert client.get("/sessions").status_code == 401
    in_the_body = {"pending": client.cookies[name], "code": site.home.code()}
    assert site.browser().post("/login/totp", json=in_the_body).status_code == 401
    assert client.post("/login/challenge", json={"factor": "totp"}).json() == {}
    assert client.post("/login/totp", json={"code": "x"}).status_code == 401
    done = client.post("/login/totp", json={"code": site.home.code()})
    assert (done.status_code, done.headers["cache-control"]) == (204, "no-store")
    assert name not in client.cookies
    assert client.get("/sessions").status_code == 200


async def test_a_passkey_alone(site: Site) -> None:
    """A passkey begins a session without a password."""
    device = await site.home.enrol("passkey")
    client = site.browser()
    options = client.post("/login/passkey/begin", json={}).json()
    assert (
        client.post("/login/passkey/finish", json={"credential": device.get(options["publicKey"])}).status_code == 204
    )
    assert client.get("/sessions").status_code == 200


async def test_step_up(site: Site) -> None:
    """A step-up is a session with a new id and the proof; the old id is worthless."""
    client = site.browser()
    assert login(client) == 204
    old = client.cookies["__Host-session"]
    await site.home.enrol("totp")
    assert client.get("/login/step-up").json() == {"factors": ["totp", "password"]}
    answer = client.post("/login/step-up", json={"factor": "totp", "code": site.home.code()})
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    new = client.cookies["__Host-session"]
    assert new != old
    claims = await site.sessions.verify(new)
    assert (claims["amr"], claims["auth_time"]) == (["pwd", "otp", "mfa"], int(site.home.clock()))
    thief = site.browser()
    thief.cookies.set("__Host-session", old)
    assert thief.get("/sessions").status_code == 401


async def test_a_step_up_while_the_password_changes(site: Site) -> None:
    """A step-up that was begun before a change of password does not become a session after it."""
    client = site.browser()
    assert login(client) == 204
    step_up = site.home.login.step_up.complete

    async def complete_and_change(*arguments: Any, **options: Any) -> Any:
        outcome = await step_up(*arguments, **options)
        await site.home.login.change(await site.home.user(), username="lovelace")
        return outcome

    site.home.login.step_up.complete = complete_and_change  # type: ignore[method-assign]
    answer = client.post("/login/step-up", json={"factor": "password", "password": PASSWORD})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Login failed"})
    assert await site.sessions.list("ada") == []


async def test_a_change_of_password_ends_the_others(site: Site) -> None:
    """The sessions of the router end with the password, except the one that changed it."""
    mine, other = site.browser(), site.browser()
    assert [login(client) for client in (mine, other)] == [204, 204]
    claims = await site.sessions.verify(mine.cookies["__Host-session"])
    await site.home.login.change(await site.home.user(), keep=claims["sid"], password_hash="newer")
    assert [client.get("/sessions").status_code for client in (mine, other)] == [200, 401]


FOREIGN = [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}]


@pytest.mark.parametrize("headers", FOREIGN, ids=range(len(FOREIGN)))
def test_another_sites_page(site: Site, headers: dict[str, str]) -> None:
    """Another site's page can neither log in, nor out, nor step up, nor end a session; one that is trusted can."""
    client = site.browser()
    steps = ("challenge", "totp", "passkey", "mail", "recovery", "mail/begin", "mail/finish", "passkey/begin")
    for path in ("/login", *(f"/login/{step}" for step in steps)):
        answer = client.post(path, json=USER, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"}), path
        assert "set-cookie" not in answer.headers
    assert login(client, headers={"Origin": "https://shop.example"}) == 204
    (own,) = client.get("/sessions").json()
    changes = [("POST", "/logout"), ("DELETE", "/sessions"), ("DELETE", f"/sessions/{own['id']}")]
    for method, path in (*changes, ("POST", "/login/step-up"), ("POST", "/login/step-up/challenge")):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})
    assert client.get("/sessions").status_code == 200


def test_ones_own_sessions(site: Site) -> None:
    """A user lists and ends sessions, and no one else's; the current one stays when the others end."""
    phone, laptop, tablet, bob = (site.browser() for _ in range(4))
    for client in (phone, laptop, tablet):
        assert login(client) == 204
        site.home.clock.move(1)
    assert login(bob, "bob") == 204
    listed = phone.get("/sessions").json()
    assert [session["current"] for session in listed] == [True, False, False]
    (theirs,) = bob.get("/sessions").json()
    answer = phone.delete(f"/sessions/{theirs['id']}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert phone.delete(f"/sessions/{listed[1]['id']}").status_code == 204
    assert phone.delete(f"/sessions/{listed[1]['id']}").status_code == 404
    assert phone.delete("/sessions").json() == {"ended": 1}
    assert [client.get("/sessions").status_code for client in (phone, laptop, tablet, bob)] == [200, 401, 401, 200]


PAGES = LoginPages(done="/home", login="/in", second="/in/code?step=2", logged_out="/bye", step_up="/again")


async def test_forms_of_pages(clock: Clock) -> None:
    """The response to a form post is a redirect: to the second step, to `next`, or back with an error code."""
    site = Site(clock, pages=PAGES, trusted_devices=timedelta(days=30))
    client = site.browser()
    assert redirected(client.post("/login", data=USER)) == "/home"
    assert redirected(client.post("/logout", headers=FORM)) == "/bye"
    assert client.get("/sessions").status_code == 401
    assert redirected(client.post("/login", data={**USER, "next": "/cart?a=b"})) == "/cart?a=b"
    await site.home.enrol("totp")
    begun = client.post("/login", data={**USER, "next": "/cart?a=b&c"})
    assert redirected(begun) == "/in/code?step=2&next=/cart%3Fa%3Db%26c"
    assert "__Host-pending-session-login" in client.cookies
    wrong = client.post("/login/totp", data={"code": "x", "next": "/cart"})
    assert redirected(wrong) == "/in/code?step=2&error=wrong_factor&next=/cart"
    done = client.post("/login/totp", data={"code": site.home.code(), "next": "/cart", "trust": "on"})
    assert redirected(done) == "/cart"
    names = [cookie.partition("=")[0] for cookie in done.headers.get_list("set-cookie")]
    assert names == ["__Host-session", "__Host-pending-session-login", "__Host-device-login"]
    assert client.get("/sessions").status_code == 200
    again = client.post("/login/totp", data={"code": site.home.code()})
    assert redirected(again) == "/in?error=expired"


async def test_a_mailed_code_by_forms(clock: Clock) -> None:
    """The form that has a code sent leads to the page where it is typed in, as a second step and to step up."""
    site = Site(clock, pages=PAGES)
    client = site.browser()
    await site.home.enrol("mail")
    await site.home.outbox.drain()
    assert redirected(client.post("/login", data={**USER, "next": "/cart"})) == "/in/code?step=2&next=/cart"
    asked = client.post("/login/challenge", data={"factor": "mail", "next": "/cart"})
    assert redirected(asked) == "/in/code?step=2&begun=mail&next=/cart"
    assert redirected(client.post("/login/challenge", data={"factor": "sms"})) == "/in?error=forbidden"
    assert redirected(client.post("/login/challenge", headers=FORM)) == "/in?error=malformed"
    await site.home.outbox.drain()
    wrong = client.post("/login/mail", data={"code": "x", "next": "/cart"})
    assert redirected(wrong) == "/in/code?step=2&error=wrong_factor&next=/cart"
    done = client.post("/login/mail", data={"code": site.home.messages[-1].code, "next": "/cart"})
    assert redirected(done) == "/cart"
    same_site = {"Sec-Fetch-Site": "same-origin"}
    asked = client.post("/login/step-up/challenge", data={"factor": "mail", "next": "/pay"}, headers=same_site)
    assert redirected(asked) == "/again?begun=mail&next=/pay"
    refused = client.post("/login/step-up/challenge", data={"factor": "sms"}, headers=same_site)
    assert redirected(refused) == "/again?error=forbidden"


async def test_a_login_by_mail_by_forms(clock: Clock) -> None:
    """The form that begins a login by mail leads to the page of the login, where the code is typed in."""
    site = Site(clock, pages=PAGES)
    client = site.browser()
    asked = client.post("/login/mail/begin", data={"username": "ada@example.com", "next": "/cart"})
    assert redirected(asked) == "/in?begun=mail&next=/cart"
    assert "__Host-browser-login" in client.cookies
    await site.home.outbox.drain()
    assert redirected(client.post("/login/mail/finish", data={"code": "x"})).startswith("/in?error=")
    code = site.home.messages[-1].code
    assert redirected(client.post("/login/mail/finish", data={"code": code, "next": "/cart"})) == "/cart"
    assert client.get("/sessions").status_code == 200


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"data": {**USER, "password": "wrong"}}, "/in?error=wrong"),
    ({"data": {**USER, "password": "wrong", "next": "/a"}}, "/in?error=wrong&next=/a"),
    ({"data": {**USER, "password": "wrong", "next": "//evil.example"}}, "/in?error=wrong"),
    ({"data": {"username": "ada"}}, "/in?error=malformed"),
    ({"content": b"a=b&a=c", "headers": FORM}, "/in?error=malformed"),
    ({"content": b"x" * 70_000, "headers": FORM}, "/in?error=malformed"),
    ({"data": USER, "headers": {"Sec-Fetch-Site": "cross-site"}}, "/in?error=forbidden"),
]


@pytest.mark.parametrize(("sent", "target"), ERRORS, ids=range(len(ERRORS)))
def test_errors_of_forms(clock: Clock, sent: dict[str, Any], target: str) -> None:
    """The cause of a failure is a code in the URL of a page of the application; no target of another site is kept."""
    site = Site(clock, pages=PAGES)
    assert redirected(site.browser().post("/login", **sent)) == target


async def test_more_errors_of_forms(clock: Clock) -> None:
    """Too many attempts, and a factor that is needed and missing, have codes of their own."""
    client = Site(clock, pages=PAGES, needs_second="always").browser()
    assert redirected(client.post("/login", data=USER)) == "/in?error=no_second_factor"
    for _ in range(5):
        assert redirected(client.post("/login", data={**USER, "password": "x"})) == "/in?error=wrong"
    assert redirected(client.post("/login", data=USER)) == "/in?error=too_many"


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"factor": "password", "password": PASSWORD, "next": "/pay"}, "/pay"),
        ({"factor": "password", "password": PASSWORD}, "/home"),
        ({"factor": "password", "password": "x", "next": "/pay"}, "/again?error=wrong_factor&next=/pay"),
        ({"factor": "sms"}, "/again?error=forbidden"),
        ({"password": PASSWORD}, "/again?error=malformed"),
    ],
)
def test_step_up_by_a_form(clock: Clock, fields: dict[str, str], target: str) -> None:
    """A step-up that failed leads back to its own page, where the user is still logged in."""
    client = Site(clock, pages=PAGES).browser()
    assert redirected(client.post("/login", data=USER)) == "/home"
    answer = client.post("/login/step-up", data=fields, headers={"Sec-Fetch-Site": "same-origin"})
    assert redirected(answer) == target


def test_json_beside_pages(clock: Clock) -> None:
    """The content type decides: JSON has answers without a redirect."""
    client = Site(clock, pages=PAGES).browser()
    assert client.post("/login", json={**USER, "password": "x"}).status_code == 401
    assert client.post("/login", json=USER).status_code == 204


def test_only_posts_are_forms(clock: Clock) -> None:
    """Only POST accepts a form: other methods respond as without pages, and OpenAPI has 303 for POST alone."""
    client = Site(clock, pages=PAGES).browser()
    client.post("/login", json=USER)
    assert client.get("/sessions", headers=FORM).status_code == 200
    assert client.delete("/sessions", headers=FORM).json() == {"ended": 0}
    operations = client.get("/openapi.json").json()["paths"]
    found = [(method, "303" in item[method]["responses"]) for item in operations.values() for method in item]
    assert {has for method, has in found if method == "post"} == {True}
    assert {has for method, has in found if method != "post"} == {False}


@pytest.mark.parametrize("page", ["", "home", "//evil.example", "https://shop.example", "/a b", None])
def test_pages_that_are_elsewhere(page: Any) -> None:
    """A page is a path of the application."""
    for name in ("done", "login", "second", "logged_out", "step_up"):
        with pytest.raises(ConfigurationError, match="a page is a path of the application"):
            LoginPages(**{name: page})


def test_without_a_login() -> None:
    """Without a Login there is no route for it."""
    app = FastAPI()
    app.include_router(session_router(SessionAuth(MemoryStore()), prefix="/web"))
    assert set(app.openapi()["paths"]) == {"/web/logout", "/web/sessions", "/web/sessions/{session_id}"}


def test_the_login_of_a_local_auth(clock: Clock) -> None:
    """A LocalAuth stands for its Login."""
    home = House(MemoryStore(clock=clock), clock)
    auth = LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), home.login)
    app = FastAPI()
    app.include_router(session_router(SessionAuth(MemoryStore()), auth))
    assert login(TestClient(app, base_url="https://app.example")) == 204


@pytest.mark.parametrize("target", ["/", "/a", "/a/b?c=d#e", "/a//b", "/-", "/~", "/[", "/]"])
def test_a_path_within(target: str) -> None:
    """A path from the root is where a browser may be sent after a login."""
    assert path_within(target, "/home") == target


ELSEWHERE = [
    "//evil.example",
    "/\\evil.example",
    "https://evil.example",
    "evil",
    "",
    "/\t/evil",
    "/a\n",
    "/ä",
    "/a b",
    "/a\\b",
    None,
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_target_elsewhere(target: str | None) -> None:
    """Whatever a browser may take for another host is not (open redirect)."""
    assert path_within(target, "/home") == "/home"
    assert path_within(target) == "/"


def test_the_longest_path_within() -> None:
    """A path that is longer than a header field may be is not one."""
    assert path_within(f"/{'a' * 2047}", "/home") == f"/{'a' * 2047}"
    assert path_within(f"/{'a' * 2048}", "/home") == "/home"


def test_the_statuses_in_openapi(site: Site) -> None:
    """A login with a session and a step-up have no body, and no other success is in the document."""
    paths = site.app.openapi()["paths"]
    successes = {
        path: [status for status in paths[path]["post"]["responses"] if status.startswith("2")]
        for path in ("/login", "/login/totp", "/login/mail/finish", "/login/step-up")
    }
    assert successes == {
        "/login": ["204", "202"],
        "/login/totp": ["204"],
        "/login/mail/finish": ["204", "202"],
        "/login/step-up": ["204"],
    }


def test_the_same_subject_of_another_issuer(clock: Clock) -> None:
    """A session of another issuer's subject neither lists nor ends those of the user of the same name."""
    sessions = SessionAuth(MemoryStore(clock=clock), clock=clock)
    app = FastAPI()
    app.include_router(session_router(sessions))

    @app.post("/enter")
    async def enter(request: Request, response: Response, iss: str | None = None) -> None:
        issuer = {} if iss is None else {"iss": iss}
        await sessions.login(response, {"sub": "ada", **issuer}, connection=request)

    def browser(**params: str) -> TestClient:
        client = TestClient(app, base_url="https://app.example")
        assert client.post("/enter", params=params).status_code == 200
        return client

    own, other, third = browser(), browser(iss="https://id.example"), browser(iss="https://id.example")
    assert [len(client.get("/sessions").json()) for client in (own, other)] == [1, 2]
    [mine] = own.get("/sessions").json()
    assert other.delete(f"/sessions/{mine['id']}").status_code == 404
    assert other.delete("/sessions").json() == {"ended": 1}
    assert [client.get("/sessions").status_code for client in (own, other, third)] == [200, 200, 401]
