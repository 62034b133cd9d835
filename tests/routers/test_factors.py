"""The routes of factors, by JSON and by form: who may enrol and remove what, and what they answer."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response

from fastapi_guard import ConfigurationError, configure_app
from fastapi_guard.login.login import Login
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import User
from fastapi_guard.routers.factors import WRONG, factors_router
from fastapi_guard.routers.form_pages import FormPage
from fastapi_guard.stores import MemoryStore
from support.accounts import Shop
from support.authenticator import Authenticator
from support.clock import Clock
from support.factors import KEY, totp_code

PAGES = {
    "confirm": FormPage(done="/settings", failed="/enrol"),
    "rename": FormPage(done="/settings", failed="/settings"),
    "remove": FormPage(done="/settings", failed="/settings"),
}
STALE = (401, "More recent authentication is required")


class Site:
    """An application with every kind of factor, and a browser in which `ada` has just logged in."""

    def __init__(self, clock: Clock) -> None:
        """Serve the factors."""
        self.clock = clock
        self.outbox = Outbox(self.keep)
        self.messages: list[Any] = []
        kinds = [
            TOTP(key=KEY, issuer="Shop"),
            Passkeys(rp_id="shop.example", origin="https://shop.example"),
            RecoveryCodes(count=2),
            MailedCode(self.outbox, key=KEY),
        ]
        self.shop = Shop(clock, login_options={"second": kinds})
        self.sessions = SessionAuth(self.shop.store, clock=clock)
        self.app = FastAPI()
        configure_app(self.app)
        self.app.include_router(factors_router(self.shop.login, self.sessions, pages=PAGES))

        @self.app.post("/test-login/{subject}")
        async def log_in(subject: str, request: Request, response: Response) -> None:
            claims = {"sub": subject, "auth_time": int(clock()), "amr": ["pwd"], "factors": {"pwd": int(clock())}}
            await self.sessions.login(response, claims, connection=request)

        transport = httpx2.ASGITransport(app=self.app)
        fields = {"sec-fetch-site": "same-origin"}
        self.browser = httpx2.AsyncClient(transport=transport, base_url="https://shop.example", headers=fields)

    async def keep(self, message: Any) -> None:
        """Keep a message."""
        self.messages.append(message)

    async def log_in(self, subject: str = "ada") -> None:
        """Log a user in."""
        await self.shop.users.add(User(subject_id=subject, username=subject, email=f"{subject}@example.com"))
        assert (await self.browser.post(f"/test-login/{subject}")).status_code == 200

    async def post(self, path: str, body: Any, *, form: bool = False) -> httpx2.Response:
        """Post JSON or a form."""
        answer = await self.browser.post(path, **{"data" if form else "json": body})
        assert answer.headers["cache-control"] == "no-store"
        return answer

    async def begin(self, kind: str, **body: Any) -> dict[str, Any]:
        """Begin to enrol a factor."""
        answer = await self.post(f"/factors/{kind}", body)
        assert answer.status_code == 200
        begun: dict[str, Any] = answer.json()
        return begun

    async def enrol_totp(self) -> dict[str, Any]:
        """Enrol an authenticator app."""
        begun = await self.begin("totp", name="Phone")
        proof = {"enrolment": begun["enrolment"], "code": totp_code(begun["secret"], self.clock())}
        confirmed = await self.post("/factors/confirm", proof)
        assert confirmed.status_code == 200
        factor: dict[str, Any] = confirmed.json()
        return factor

    async def listed(self) -> list[dict[str, Any]]:
        """Return what is enrolled."""
        factors: list[dict[str, Any]] = (await self.browser.get("/factors")).json()["factors"]
        return factors


@pytest.fixture
async def site(clock: Clock) -> AsyncIterator[Site]:
    """Return an application."""
    made = Site(clock)
    await made.log_in()
    yield made
    await made.outbox.drain()
    await made.browser.aclose()


def detail(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and text of a refusal."""
    return answer.status_code, answer.json()["detail"]


async def test_totp(site: Site) -> None:
    """An app is enrolled with a secret that is shown once, confirmed by its code, listed, renamed and removed."""
    begun = await site.begin("totp", name="Phone")
    assert {"secret", "uri", "qr"} <= {*begun}
    assert begun["expires_in"] == 600
    wrong = await site.post("/factors/confirm", {"enrolment": begun["enrolment"], "code": "000000"})
    assert detail(wrong) == (403, WRONG)
    assert await site.listed() == []
    proof = {"enrolment": begun["enrolment"], "code": totp_code(begun["secret"], site.clock())}
    factor = (await site.post("/factors/confirm", proof)).json()
    assert detail(await site.post("/factors/confirm", proof)) == (403, WRONG)
    expected = {"id": begun["factor"]["id"], "kind": "totp", "name": "Phone", "used_at": None}
    assert factor == {**expected, "created_at": site.clock()}
    listing = (await site.browser.get("/factors")).json()
    assert listing == {"factors": [factor], "kinds": ["totp", "passkey", "recovery", "mail"]}
    renamed = await site.browser.patch(f"/factors/{factor['id']}", json={"name": "Tablet"})
    assert renamed.status_code == 204
    assert (await site.listed())[0]["name"] == "Tablet"
    assert (await site.shop.user("ada")).credentials_version == 1
    assert (await site.browser.delete(f"/factors/{factor['id']}")).status_code == 204
    assert await site.listed() == []
    assert (await site.shop.user("ada")).credentials_version == 2


async def test_passkey(site: Site) -> None:
    """A passkey is enrolled by JSON alone, and the list shows whether it is synchronised."""
    assert (await site.post("/factors/passkey", {"name": "x"}, form=True)).status_code == 415
    begun = await site.begin("passkey")
    credential = Authenticator().create(begun["publicKey"])
    proof = {"enrolment": begun["enrolment"], "credential": credential}
    factor = (await site.post("/factors/confirm", proof)).json()
    assert (factor["kind"], factor["name"]) == ("passkey", "Passkey")
    assert "synchronised" in factor
    assert await site.listed() == [factor]


async def test_recovery_codes(site: Site) -> None:
    """Recovery codes are complete at once; new ones replace them, and the list shows how many are left."""
    first = await site.begin("recovery")
    assert (first["enrolment"], len(first["codes"])) == (None, 2)
    second = await site.begin("recovery")
    assert set(first["codes"]).isdisjoint(second["codes"])
    [factor] = await site.listed()
    assert (factor["kind"], factor["remaining"]) == ("recovery", 2)
    user = await site.shop.user("ada")
    for code, is_right in ((first["codes"][0], False), (second["codes"][0], True)):
        proof = await site.shop.login.factors.verify("recovery", user, {"code": code}, binding="p")
        assert (proof is not None) is is_right


async def test_mailed_codes(site: Site) -> None:
    """A mailbox is confirmed by the code that it receives."""
    begun = await site.begin("mail")
    await site.outbox.drain()
    proof = {"enrolment": begun["enrolment"], "code": site.messages[-1].code}
    assert (await site.post("/factors/confirm", proof)).status_code == 200


async def test_by_form(site: Site) -> None:
    """Forms are redirected to the pages; a factor is begun by JSON or by a form alike."""
    begun = (await site.post("/factors/totp", {"name": "Phone"}, form=True)).json()
    proof = {"enrolment": begun["enrolment"], "code": "000000"}
    answer = await site.post("/factors/confirm", proof, form=True)
    assert (answer.status_code, answer.headers["location"]) == (303, "/enrol?error=wrong_code")
    proof["code"] = totp_code(begun["secret"], site.clock())
    assert (await site.post("/factors/confirm", proof, form=True)).headers["location"] == "/settings"
    path = f"/factors/{begun['factor']['id']}"
    for name, location in (("\0", "/settings?error=name_invalid"), ("Tablet", "/settings")):
        answer = await site.post(f"{path}/rename", {"name": name}, form=True)
        assert answer.headers["location"] == location
    await site.log_in()
    answer = await site.post(f"{path}/remove", {"sent": "1"}, form=True)
    assert answer.headers["location"] == "/settings?error=log_in_again"
    answer = await site.post("/factors/x/remove", {"sent": "1"}, form=True)
    assert answer.headers["location"] == "/settings?error=failed"


async def test_a_stolen_session(site: Site) -> None:
    """An old session adds no factor; one without a proof of the factor neither removes nor replaces it."""
    factor = await site.enrol_totp()
    site.clock.move(601)
    stale = await site.post("/factors/recovery", {})
    assert detail(stale) == STALE
    assert 'error="insufficient_user_authentication"' in stale.headers["www-authenticate"]
    await site.log_in()
    for kind in ("totp", "passkey", "recovery"):
        assert detail(await site.post(f"/factors/{kind}", {})) == STALE
    assert detail(await site.browser.delete(f"/factors/{factor['id']}")) == STALE
    assert [known["id"] for known in await site.listed()] == [factor["id"]]


async def test_another_user_and_another_session(site: Site) -> None:
    """A factor and an enrolment of another user, or of another session, are unknown."""
    factor, begun = await site.enrol_totp(), await site.begin("totp")
    proof = {"enrolment": begun["enrolment"], "code": totp_code(begun["secret"], site.clock())}
    await site.log_in()
    assert detail(await site.post("/factors/confirm", proof)) == (403, WRONG)
    await site.log_in("eve")
    assert await site.listed() == []
    path = f"/factors/{factor['id']}"
    assert detail(await site.post("/factors/confirm", proof)) == (403, WRONG)
    assert (await site.browser.patch(path, json={"name": "Mine"})).status_code == 404
    assert (await site.browser.delete(path)).status_code == 404
    assert (await site.post(f"{path}/remove", {})).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/factors/sms", {}, 404),
        ("/factors/totp", {"name": "x" * 65}, 422),
        ("/factors/confirm", {}, 422),
        ("/factors/confirm", {"enrolment": 7}, 422),
        ("/factors/confirm", {"enrolment": "x", "code": 7}, 403),
        ("/factors/confirm", {"enrolment": "s3cret", "credential": {"a": [[[]]]}}, 403),
        ("/factors/confirm", {"enrolment": "s3cret" * 20_000}, 413),
        ("/factors/totp", {"name": "s3cret" * 20_000}, 413),
        ("/factors/x/rename", {}, 422),
    ],
)
async def test_bodies_that_are_refused(site: Site, path: str, body: Any, status: int) -> None:
    """A malformed body is a 4xx that repeats nothing."""
    answer = await site.post(path, body)
    assert answer.status_code == status
    assert "s3cret" not in answer.text


async def test_without_a_login(site: Site) -> None:
    """Every route needs a login, and the pages of the application itself."""
    cross = {"sec-fetch-site": "cross-site"}
    for method, path in (("POST", "/factors/totp"), ("POST", "/factors/confirm"), ("DELETE", "/factors/x")):
        assert (await site.browser.request(method, path, json={}, headers=cross)).status_code == 403
    site.browser.cookies.clear()
    for method, path in (
        ("GET", "/factors"),
        ("POST", "/factors/totp"),
        ("PATCH", "/factors/x"),
        ("DELETE", "/factors/x"),
    ):
        assert (await site.browser.request(method, path)).status_code == 401


async def test_guesses(site: Site) -> None:
    """An enrolment has five tries, and an address 50 requests in 15 minutes."""
    begun = await site.begin("totp")
    proof = {"enrolment": begun["enrolment"], "code": "000000"}
    for _ in range(5):
        assert (await site.post("/factors/confirm", proof)).status_code == 403
    proof["code"] = totp_code(begun["secret"], site.clock())
    assert (await site.post("/factors/confirm", proof)).status_code == 403
    for _ in range(43):
        await site.post("/factors/confirm", proof)
    assert detail(await site.post("/factors/confirm", proof)) == (429, "Too many requests")


def test_openapi(clock: Clock) -> None:
    """Each operation is guarded, and has its refusals."""
    document = Site(clock).app.openapi()["paths"]
    found = {(path, method) for path, item in document.items() if "test" not in path for method in item}
    assert found == {
        ("/factors", "get"),
        ("/factors/confirm", "post"),
        ("/factors/{kind}", "post"),
        ("/factors/{factor_id}", "patch"),
        ("/factors/{factor_id}", "delete"),
        ("/factors/{factor_id}/rename", "post"),
        ("/factors/{factor_id}/remove", "post"),
    }
    for path, method in found:
        operation = document[path][method]
        assert operation["security"]
        assert "401" in operation["responses"]
    # Of the routes with pages, those for forms.
    redirected = {(path, method) for path, method in found if "303" in document[path][method]["responses"]}
    posts = {(path, method) for path, method in found if method == "post"}
    assert redirected == posts - {("/factors/{kind}", "post")}


def test_a_login_without_factors(clock: Clock) -> None:
    """There is nothing to enrol without kinds of factors."""
    store = MemoryStore(clock=clock)
    login = Login({}, store, passwords=None, clock=clock)
    with pytest.raises(ConfigurationError, match="the Login has no factors to enrol"):
        factors_router(login, SessionAuth(store))
