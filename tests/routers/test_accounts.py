"""The routes of accounts, by JSON and by form: their answers and refusals, alike for known and unknown users."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from joserfc import jwk

from fastapi_guard import (
    AnyAuth,
    Auth,
    ConfigurationError,
    Forbidden,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    StaticAPIKeyAuth,
    configure_app,
)
from fastapi_guard.issuers import OIDCAuth
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import User
from fastapi_guard.routers.account_routes import login_user
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.form_pages import FormPage
from fastapi_guard.stores import MemoryStore
from support.accounts import NEW_PASSWORD, Shop
from support.asgi import exchange
from support.clock import Clock
from support.login import PASSWORD

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
PAGES = {
    "register": FormPage(done="/sent", failed="/register"),
    "verify": FormPage(done="/login", failed="/verify?lang=de"),
    "reset": FormPage(done="/login", failed="/reset", kept=("token",)),
    "password": FormPage(done="/settings", failed="/settings"),
}
ADA = {"email": "ada@example.com", "password": PASSWORD, "username": "ada"}


class Site:
    """An application with accounts, sessions and a browser."""

    def __init__(self, shop: Shop, **options: Any) -> None:
        """Serve the accounts of a shop."""
        self.shop = shop
        self.app = FastAPI()
        configure_app(self.app)
        sessions = SessionAuth(shop.store, clock=shop.clock)
        shop.login.ends(sessions)
        inviters = sessions.requires("users:invite")
        options = {"pages": PAGES, "inviters": inviters, **options}
        self.app.include_router(accounts_router(shop.accounts, sessions, **options))

        @self.app.post("/test-login/{subject}")
        async def log_in(subject: str, request: Request, response: Response) -> None:
            user = await shop.user(subject)
            outcome = await shop.login.begin(user, amr=["pwd"], connection=request)
            await sessions.login(response, outcome, connection=request)  # type: ignore[arg-type]

        self.browser = self.another()

    def another(self) -> httpx2.AsyncClient:
        """Return another browser."""
        transport = httpx2.ASGITransport(app=self.app)
        return httpx2.AsyncClient(transport=transport, base_url="https://shop.example", headers=SAME_ORIGIN)

    async def post(self, path: str, body: dict[str, Any], *, form: bool = False, **options: Any) -> httpx2.Response:
        """Post JSON or a form."""
        answer = await self.browser.post(path, **{"data" if form else "json": body}, **options)
        assert answer.headers["cache-control"] == "no-store"
        await self.shop.outbox.drain()
        return answer

    async def log_in(self, subject: str) -> None:
        """Begin a session."""
        assert (await self.browser.post(f"/test-login/{subject}")).status_code == 200


@pytest.fixture
async def site(clock: Clock) -> AsyncIterator[Site]:
    """Return an application."""
    made = Site(Shop(clock))
    yield made
    await made.browser.aclose()


def detail(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and text of a refusal in problem details."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


INVALID = (403, "The link or code is invalid or has expired")
WRONG = (403, "The password is wrong")


async def test_register_and_verify(site: Site) -> None:
    """By JSON: 202, then 204 with the link; the cookie of the browser is Host-only, and is deleted afterwards."""
    answer = await site.post("/register", ADA)
    assert (answer.status_code, answer.json()) == (202, {})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-verify-login=")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax", "Max-Age=86400"} <= {*cookie.split("; ")}
    token = await site.shop.token("verify_address")
    verified = await site.post("/verify", {"token": token})
    assert (verified.status_code, verified.content) == (204, b"")
    assert verified.headers["referrer-policy"] == "no-referrer"
    assert "Max-Age=0" in verified.headers["set-cookie"]
    assert await site.shop.logs_in("ada", PASSWORD)
    assert detail(await site.post("/verify", {"token": token})) == INVALID


async def test_a_cookie_of_another_name(site: Site) -> None:
    """A cookie that a sibling domain can plant, since its name lacks the prefix, is not that of the browser."""
    await site.post("/register", ADA)
    token = {"token": str(site.shop.messages[-1].link).partition("token=")[2]}
    prefixed = f"__Host-verify-login={site.browser.cookies['__Host-verify-login']}".encode()
    headers = [(b"content-type", b"application/json"), *((name.encode(), b"same-origin") for name in SAME_ORIGIN)]
    statuses = []
    for planted in (b"\xa0" + prefixed, prefixed):
        sent = [*headers, (b"cookie", planted)]
        answer = await exchange(site.app, "/verify", sent, method="POST", body=json.dumps(token).encode())
        statuses.append(answer.status)
    assert statuses == [403, 204]


async def test_by_form(site: Site) -> None:
    """By form: 303 to the configured pages, with the code of a refusal, and with the cookie."""
    answer = await site.post("/register", {**ADA, "password": "short"}, form=True)
    assert (answer.status_code, answer.headers["location"]) == (303, "/register?error=password_invalid")
    assert "set-cookie" not in answer.headers
    answer = await site.post("/register", ADA, form=True)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sent")
    assert answer.headers["referrer-policy"] == "no-referrer"
    code = (await site.shop.mail("verify_address")).code
    wrong = await site.post("/verify", {"code": "00000000"}, form=True)
    assert wrong.headers["location"] == "/verify?lang=de&error=invalid_link"
    assert (await site.post("/verify", {"code": code}, form=True)).headers["location"] == "/login"
    taken = await site.post("/register", {**ADA, "email": "eve@example.com"}, form=True)
    assert taken.headers["location"] == "/register?error=username_taken"
    unreadable = await site.post("/register", {"a": ["1", "2"]}, form=True)
    assert unreadable.headers["location"] == "/register?error=unreadable"
    expired = await site.post("/account/password", {"password": NEW_PASSWORD}, form=True)
    assert expired.headers["location"] == "/settings?error=login_required"
    long = await site.post("/register", {"a": "x" * 70_000}, form=True)
    assert long.headers["location"] == "/register?error=too_long"
    cross = await site.post("/register", ADA, form=True, headers={"sec-fetch-site": "cross-site"})
    assert cross.headers["location"] == "/register?error=forbidden"


async def test_resend(site: Site) -> None:
    """Another link goes to the browser that registered; every address has the same answer."""
    await site.post("/register", ADA)
    for email in ("ada@example.com", "nobody@example.com"):
        answer = await site.post("/verify/resend", {"email": email})
        assert (answer.status_code, answer.json()) == (202, {})
    assert await site.shop.kinds() == ["verify_address ada@example.com"] * 2


async def test_known_and_unknown_addresses(site: Site) -> None:
    """A known and an unknown address have the same status, fields and body, at each route."""
    await site.shop.registered()
    for path, name in (("/register", "email"), ("/verify/resend", "email"), ("/forgot", "username")):
        answers = []
        for address in ("ada@example.com", "nobody@example.com"):
            body = {name: address, "password": PASSWORD} if path == "/register" else {name: address}
            answer = await site.post(path, body)
            fields = {key: value.partition("=")[0] for key, value in answer.headers.items()}
            answers.append((answer.status_code, fields, answer.content))
        assert answers[0] == answers[1]
        assert answers[0][0] == 202


async def test_forgot_and_reset(site: Site) -> None:
    """A reset by link ends the session of every browser; the same link does nothing twice."""
    ada = await site.shop.registered()
    await site.log_in(ada.subject_id)
    assert (await site.browser.get("/account")).json() == {
        "username": None,
        "email": "ada@example.com",
        "email_verified": True,
        "has_password": True,
        "tenant_id": None,
        "roles": [],
    }
    answer = await site.post("/forgot", {"email": "ADA@example.com"})
    assert answer.headers["set-cookie"].startswith("__Host-reset-login=")
    body = {"token": await site.shop.token("reset_password"), "password": NEW_PASSWORD}
    short = await site.post("/reset", {**body, "password": "short"})
    assert short.status_code == 422
    assert short.json() == {
        "detail": [
            {"type": "rejected", "loc": ["body", "password"], "msg": "the password has fewer than 15 characters"}
        ]
    }
    assert (await site.post("/reset", body)).status_code == 204
    assert detail(await site.post("/reset", body)) == INVALID
    assert (await site.browser.get("/account")).status_code == 401
    assert await site.shop.logs_in("ada@example.com", NEW_PASSWORD)


async def test_change_the_password(site: Site) -> None:
    """A change needs the current password, and keeps this session alone."""
    ada = await site.shop.registered()
    await site.log_in(ada.subject_id)
    other, site.browser = site.browser, site.another()
    await site.log_in(ada.subject_id)
    body = {"password": NEW_PASSWORD, "current_password": "wrong"}
    assert detail(await site.post("/account/password", body)) == WRONG
    body["current_password"] = PASSWORD
    assert (await site.post("/account/password", {**body, "password": "short"})).status_code == 422
    assert (await site.post("/account/password", body)).status_code == 204
    assert (await site.browser.get("/account")).status_code == 200
    assert (await other.get("/account")).status_code == 401
    await other.aclose()


async def test_change_the_address(site: Site) -> None:
    """The address changes by the link, while logged in as the user who asked."""
    ada, eve = await site.shop.registered(), await site.shop.registered("eve@example.com")
    await site.log_in(ada.subject_id)
    assert detail(await site.post("/account/address", {"email": "new@example.com"})) == WRONG
    body = {"email": "new@example.com", "password": PASSWORD}
    answers = [await site.post("/account/address", {**body, "email": email}) for email in ("EVE@example.com",)]
    answers.append(await site.post("/account/address", body))
    assert [(answer.status_code, answer.json()) for answer in answers] == [(202, {})] * 2
    token = await site.shop.token("change_address")
    await site.log_in(eve.subject_id)
    assert detail(await site.post("/account/address/confirm", {"token": token})) == INVALID
    await site.log_in(ada.subject_id)
    assert (await site.post("/account/address/confirm", {"token": token})).status_code == 204
    assert (await site.browser.get("/account")).json()["email"] == "new@example.com"


async def test_delete(site: Site) -> None:
    """The account goes with the password, and the session with it."""
    ada = await site.shop.registered()
    await site.log_in(ada.subject_id)
    assert detail(await site.post("/account/delete", {})) == WRONG
    assert (await site.post("/account/delete", {"password": PASSWORD})).status_code == 204
    assert (await site.browser.get("/account")).status_code == 401
    assert await site.shop.users.by_subject(ada.subject_id) is None


async def boss(site: Site, scopes: tuple[str, ...] = ("users:invite", "posts:*")) -> None:
    """Log in as a user who may invite."""
    user = User(subject_id="boss", username="boss", scopes=scopes, roles=("editor",), tenant_id="acme")
    await site.shop.users.add(user)
    await site.log_in("boss")


async def test_invitations(site: Site) -> None:
    """A user who may invite invites with no more than the session has; the invited user registers, or joins."""
    ada = await site.shop.registered()
    await site.log_in(ada.subject_id)
    body: dict[str, Any] = {"email": "bob@example.com", "roles": ["editor"], "scopes": ["posts:edit"]}
    refused = await site.post("/invitations", body)
    assert detail(refused) == (403, "Token is missing required scope: users:invite")
    await boss(site)
    for more in ({"roles": ["owner"]}, {"scopes": "users:edit"}, {"tenant_id": "other"}):
        assert detail(await site.post("/invitations", {**body, **more})) == (403, "Forbidden")
    for bad in ({"roles": [1]}, {"scopes": {}}, {"email": "bob"}, {"email": 1}):
        assert (await site.post("/invitations", {**body, **bad})).status_code == 422
    assert (await site.post("/invitations", body)).status_code == 202
    token = await site.shop.token("invitation")
    assert (await site.post("/invitations/accept", {"token": token, "password": "short"})).status_code == 422
    accepted = await site.post("/invitations/accept", {"token": token, "password": PASSWORD, "username": "bob"})
    assert accepted.status_code == 204
    bob = await site.shop.users.by_login("bob@example.com")
    assert (bob.roles, bob.scopes, bob.tenant_id) == (("editor",), ("posts:edit",), "acme")
    form = {"email": "ada@example.com", "roles": "editor", "scopes": "posts:read posts:edit"}
    assert (await site.post("/invitations", form, form=True)).status_code == 202
    token = await site.shop.token("invitation")
    has_account = await site.post("/invitations/accept", {"token": token, "password": PASSWORD})
    assert detail(has_account) == (409, "Log in to accept the invitation")
    assert detail(await site.post("/invitations/join", {"token": token})) == INVALID
    await site.log_in(ada.subject_id)
    assert (await site.post("/invitations/join", {"token": token})).status_code == 204
    assert (await site.shop.user(ada.subject_id)).scopes == ("posts:read", "posts:edit")


async def test_a_session_with_less_than_its_user(site: Site) -> None:
    """A credential that has less than its user invites with no more than it has."""
    await boss(site, ("users:invite",))
    user = await site.shop.user("boss")
    await site.shop.users.update(user, replace(user, scopes=("users:invite", "posts:*"), roles=("editor", "owner")))
    for more in ({"scopes": "posts:edit"}, {"roles": ["owner"]}):
        body = {"email": "bob@example.com", **more}
        assert detail(await site.post("/invitations", body)) == (403, "Forbidden")


POSTS = ["/register", "/verify", "/verify/resend", "/forgot", "/reset", "/invitations/accept"]
OWN = ["/account/password", "/account/address", "/account/address/confirm", "/account/delete", "/invitations/join"]
FULL = {"email": "a@example.com", "username": "a", "password": PASSWORD, "token": "x" * 64, "code": "12345678"}


@pytest.mark.parametrize("path", [*POSTS, *OWN, "/invitations"])
async def test_bodies_that_are_refused(site: Site, path: str) -> None:
    """Bodies that are too long, of another type or malformed are refused, and no answer repeats a secret."""
    await boss(site)
    before = list(site.shop.users)
    bad: list[tuple[int, bytes, str]] = [
        (413, b"{" + b" " * 70_000 + b"}", "application/json"),
        (415, b"<a/>", "text/xml"),
        (422, b'{"password": "s3cret-s3cret", "token": "s3cret"', "application/json"),
        (422, b'{"token": "s3cret", "token": "s3cret"}', "application/json"),
        (422, b'["s3cret"]', "application/json"),
        (422, b"token=s3cret&token=s3cret", "application/x-www-form-urlencoded"),
        (415, b'{"token": "s3cret"}', ""),
    ]
    for status, body, kind in bad:
        answer = await site.browser.post(path, content=body, headers={"content-type": kind})
        has_page = path.strip("/").rpartition("/")[2] in PAGES
        is_form = kind.startswith("application/x-www")
        assert answer.status_code == (303 if has_page and is_form else status)
        assert b"s3cret" not in answer.content
        assert "s3cret" not in str(answer.headers)
        assert answer.headers["cache-control"] == "no-store"
    assert list(site.shop.users) == before


@pytest.mark.parametrize("path", POSTS)
async def test_pages_of_other_sites(site: Site, path: str) -> None:
    """A page of another site cannot post, and no attempt is counted; a client that is not a browser can."""
    for fields in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "", "origin": "https://evil.example"}):
        answer = await site.browser.post(path, json=FULL, headers=fields)
        assert detail(answer) == (403, "Forbidden")
    assert site.shop.messages == []
    del site.browser.headers["sec-fetch-site"]
    answer = await site.browser.post(path, json=FULL)
    assert answer.status_code in (202, 403)
    assert answer.status_code == 202 or detail(answer) == INVALID


async def test_trusted_origins(clock: Clock) -> None:
    """The pages of a trusted origin may post."""
    site = Site(Shop(clock), trusted_origins=["https://app.example"])
    answer = await site.post(
        "/forgot", {"username": "x"}, headers={"sec-fetch-site": "", "origin": "https://app.example"}
    )
    assert answer.status_code == 202
    await site.browser.aclose()


@pytest.mark.parametrize("path", ["/account/password", "/account/address", "/account/delete"])
async def test_an_old_login_without_a_password(site: Site, path: str) -> None:
    """A user without a password needs a login of the last ten minutes (RFC 9470)."""
    await boss(site)
    site.shop.clock.move(601)
    answer = await site.post(path, FULL)
    assert detail(answer) == (401, "More recent authentication is required")
    assert answer.headers["www-authenticate"] == (
        'Session realm="api", error="insufficient_user_authentication", '
        'error_description="More recent authentication is required"'
    )
    await boss(site)
    assert (await site.post(path, FULL)).status_code in (202, 204)


@pytest.mark.parametrize("path", OWN)
async def test_without_a_login(site: Site, path: str) -> None:
    """The routes of a user need a login, and a user who still exists."""
    assert (await site.post(path, FULL)).status_code == 401
    await boss(site)
    await site.shop.users.remove("boss")
    assert detail(await site.post(path, FULL)) == (401, "Not authenticated")


async def test_too_many(site: Site) -> None:
    """Attempts are counted by address before a body is read, and by account, alike for each."""
    for address in ("known@example.com", "unknown@example.com"):
        if address.startswith("known"):
            await site.shop.users.add(User(subject_id="k", email=address))
        for _ in range(5):
            assert (await site.post("/forgot", {"username": address})).status_code == 202
        answer = await site.post("/forgot", {"username": address})
        assert detail(answer) == (429, "Too many requests")
        assert int(answer.headers["retry-after"]) > 0
    for _ in range(38):
        await site.post("/verify", {"token": "x"})
    assert detail(await site.post("/verify", {"token": "x"})) == (429, "Too many requests")
    unread = await site.browser.post(
        "/register", content=b"{" + b" " * 70_000, headers={"content-type": "application/json"}
    )
    assert unread.status_code == 429


async def test_unreachable_users(site: Site) -> None:
    """Users that are unreachable are a 503 with a constant text."""
    await site.post("/register", ADA)
    token = await site.shop.token("verify_address")
    site.shop.users.fails = True
    assert detail(await site.post("/verify", {"token": token})) == (503, "Service temporarily unavailable")


async def test_a_lost_mail_server(clock: Clock) -> None:
    """A message that cannot be sent changes no answer."""

    async def send(_: object) -> None:
        raise ConnectionRefusedError

    site = Site(Shop(clock, {"send": send}))
    assert (await site.post("/register", ADA)).status_code == 202
    await site.browser.aclose()


ISSUER: Final = "https://id.example"
TOKENS: Final = JWTConfig(key=jwk.OctKey.generate_key(256), issuer_url=ISSUER)


@pytest.mark.parametrize(
    ("auth", "is_own"),
    [
        (JWTAuth(TOKENS), True),
        (AnyAuth(JWTAuth(TOKENS, name="own"), OIDCAuth(issuer="https://another.example", audience="shop")), True),
        (JWTAuth(JWTConfig(key=RemoteKeySet(f"{ISSUER}/jwks.json"), issuer_url=ISSUER)), False),
        (JWTAuth(JWTConfig(key=None, algorithms=["RS256"], issuer_url=ISSUER)), False),
        (JWTAuth(replace(TOKENS, issuer_url="https://another.example")), False),
        (OIDCAuth(issuer=ISSUER, audience="shop"), False),
        (AnyAuth(SessionAuth(MemoryStore()), OIDCAuth(issuer=ISSUER, audience="shop")), False),
        (SessionAuth(MemoryStore()), False),
    ],
)
async def test_another_issuer(clock: Clock, auth: Auth[Any], is_own: bool) -> None:
    """The same subject of an issuer whose keys are fetched is not a user of the Login."""
    shop = Shop(clock)
    ada = await shop.registered()
    claims: dict[str, Any] = {"sub": ada.subject_id, "auth_time": clock()}
    assert await login_user(shop.login, claims, auth) == ada
    if is_own:
        assert await login_user(shop.login, {**claims, "iss": ISSUER}, auth) == ada
    else:
        with pytest.raises(Forbidden):
            await login_user(shop.login, {**claims, "iss": ISSUER}, auth)


class Claimed(ScopesAuth):
    """An Auth whose tokens are their claims."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept a subject and an issuer."""
        subject, _, issuer = raw.partition("/")
        return {"sub": subject, "auth_time": 1.0, **({"iss": issuer} if issuer else {})}


async def test_keys_in_a_file(clock: Clock, tmp_path: Path) -> None:
    """Keys that change by themselves are the application's own where it has the private ones."""
    file = KeyFile(tmp_path / "keys.json")
    file.generate()
    shop = Shop(clock)
    ada = await shop.registered()
    claims: dict[str, Any] = {"sub": ada.subject_id, "auth_time": clock(), "iss": ISSUER}
    assert await login_user(shop.login, claims, JWTAuth(JWTConfig(key=file, issuer_url=ISSUER))) == ada


async def test_an_invitation_by_another_issuer(clock: Clock) -> None:
    """A token of another issuer, whose subject is that of a user, may not invite."""
    site = Site(Shop(clock), inviters=Claimed().authenticated())
    ada = await site.shop.registered()
    for raw, status in ((ada.subject_id, 202), (f"{ada.subject_id}/another", 403)):
        headers = {"Authorization": f"Bearer {raw}"}
        assert (await site.post("/invitations", {"email": "bob@example.com"}, headers=headers)).status_code == status
    await site.browser.aclose()


async def test_api_keys_are_no_login(clock: Clock) -> None:
    """A key that acts as the user changes no account."""
    shop = Shop(clock)
    ada = await shop.registered()
    key = "sk-a-key-of-at-least-thirty-two-characters"
    app = FastAPI()
    keys = StaticAPIKeyAuth({key: {"user_id": ada.subject_id}})
    app.include_router(accounts_router(shop.accounts, keys))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        answer = await client.get("/account", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 403


def test_openapi(clock: Clock) -> None:
    """The document has each route with its body and refusals; routes without a guard have no security."""
    site = Site(Shop(clock))
    document = site.app.openapi()["paths"]
    assert {path for path in document if "test" not in path} == {*POSTS, *OWN, "/invitations", "/account"}
    register = document["/register"]["post"]
    schema = register["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    assert schema["required"] == ["email", "password"]
    assert {"202", "403", "409", "422", "429", "503"} <= {*register["responses"]}
    assert "security" not in register
    assert document["/account/password"]["post"]["security"]
    app = FastAPI()
    app.include_router(accounts_router(Shop(clock).accounts, prefix="/users"))
    paths = app.openapi()["paths"]
    assert {*paths} == {f"/users{path}" for path in POSTS}
    # A form of a route with a page has a redirect.
    assert ("303" in register["responses"], "303" in paths["/users/register"]["post"]["responses"]) == (True, False)


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ({"registr": PAGES["register"]}, "there is no route 'registr' for a page"),
    ],
)
def test_pages_that_cannot_be(clock: Clock, pages: Any, message: str) -> None:
    """A page of no route is a mistake, and so is a page of another host."""
    with pytest.raises(ConfigurationError, match=message):
        accounts_router(Shop(clock).accounts, pages=pages)
    for path in ("https://evil.example", "//evil.example", "welcome", "/\\evil.example"):
        with pytest.raises(ConfigurationError, match="a page is a path"):
            FormPage(done=path, failed="/")


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"token": "a b&c", "password": NEW_PASSWORD}, "error=invalid_link&token=a%20b%26c"),
        ({"token": "x" * 129, "password": NEW_PASSWORD}, "error=invalid_link"),
        ({"code": "1", "password": NEW_PASSWORD}, "error=invalid_link"),
        ({"token": "x" * 64 * 1024}, "error=too_long"),
    ],
)
async def test_a_page_keeps_the_link(site: Site, fields: dict[str, str], kept: str) -> None:
    """After a refusal the page has the token of the link again, and nothing else of the form."""
    answer = await site.browser.post("/reset", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/reset?{kept}")
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("token", ["%FF", "%ED%A0%80"])
async def test_a_page_keeps_no_bytes(site: Site, token: str) -> None:
    """A token that is not UTF-8 is refused like any other that is not valid: its bytes cannot be in a URL."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"token={token}&password=wonderland+tea+party"
    answer = await site.browser.post("/reset", content=body, headers=form)
    kept = "%3F" * token.count("%")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/reset?error=invalid_link&token={kept}")


async def test_a_page_after_a_refusal_with_an_object(clock: Clock) -> None:
    """The detail of an application's own HTTPException may be an object; a form has the code of its status."""

    def new_user(user: User) -> User:
        raise HTTPException(403, {"code": "closed"})

    site = Site(Shop(clock, options={"new_user": new_user}))
    await site.post("/register", ADA)
    token = {"token": str(site.shop.messages[-1].link).partition("token=")[2]}
    answer = await site.post("/verify", token, form=True)
    assert (answer.status_code, answer.headers["location"]) == (303, "/verify?lang=de&error=forbidden")
