"""The flows of django-allauth's headless API, sent to an application of each library, from browsers with cookies."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from email import message_from_string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import httpx2
import pyotp
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool

from fastapi_guard import configure_app
from fastapi_guard.login.accounts import Accounts
from fastapi_guard.login.enrolled import DatabaseFactors
from fastapi_guard.login.login import Login
from fastapi_guard.login.messages import Message
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import DatabaseUsers
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores import MemoryStore
from migration.flows import answer
from support.clock import Clock

SITE = "https://shop.example"
SECRET = "0f9d5c3b7e1a8642d0c9b8a7f6e5d4c3"
ADA, EVE, GRACE, MOVED = (f"{name}@shop.example" for name in ("ada", "eve", "grace", "ada.l"))
# A hash whose work is not what is compared.
QUICK = {"argon2__memory_cost": 64, "argon2__time_cost": 1, "argon2__parallelism": 1}
PASSWORD, NEXT, LAST = "analytical engine", "difference engine no 2", "notes of the translator"


def flows() -> dict[str, tuple[str, str]]:
    """Return the answers of both, by flow."""
    theirs, ours = flows_of_allauth(), flows_of_ours()
    assert list(theirs) == list(ours), theirs.keys() ^ ours.keys()
    return {flow: (theirs[flow], ours[flow]) for flow in theirs}


def code_at(secret: str, moment: float) -> str:
    """Return what an authenticator app shows."""
    return pyotp.TOTP(secret).at(int(moment))


class Browser:
    """A browser with cookies of its own, on the pages of the application behind a client that browsers share."""

    def __init__(self, client: Any) -> None:
        """Begin without cookies."""
        self._client = client
        self._cookies: Any = None

    def get(self, path: str) -> Any:
        """Send a GET."""
        return self.send("GET", path)

    def post(self, path: str, **body: Any) -> Any:
        """Send a POST of JSON."""
        return self.send("POST", path, **body)

    def send(self, method: str, path: str, *, site: str = "same-origin", **body: Any) -> Any:
        """Send a request of a page of this or another site; one of this site adds the CSRF token of Django."""
        self._client.cookies = self._cookies
        token = self._client.cookies.get("csrftoken") if site == "same-origin" else None
        headers = {"Sec-Fetch-Site": site} | ({"X-CSRFToken": token} if token else {})
        sent = {"json": body} if body or method == "POST" else {}
        response = self._client.request(method, path, headers=headers, **sent)
        self._cookies = self._client.cookies
        return response


class Allauth:
    """The project of tests/migration/allauth_site.py, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it, in the Python that the session made for it."""
        site = str(Path(__file__).with_name("allauth_site.py"))
        self._mails = folder / "mails"
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [os.environ["DJANGO_ALLAUTH_PYTHON"], site], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self._address, *self.releases = self._process.stdout.readline().split()
        self._client = httpx2.Client(base_url=f"{self._address}/_allauth/browser/v1/")

    def browser(self) -> Browser:
        """Return a browser that has read its session, and so has a CSRF token."""
        browser = Browser(self._client)
        browser.get("auth/session")
        return browser

    def move(self, seconds: int) -> float:
        """Move the clock of the process, and return what it shows."""
        return float(httpx2.get(f"{self._address}/move/{seconds}").text)

    def mailed_to(self, address: str) -> list[str]:
        """Return the texts of the mails to an address, the oldest first."""
        files = sorted(self._mails.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        # Mails of one second can be in one file, each before a line of dashes.
        texts = [text for file in files for text in file.read_text(encoding="utf-8").split(f"{'-' * 79}\n")]
        mails = [message_from_string(text) for text in texts]
        return [str(mail.get_payload()) for mail in mails if mail["To"] == address]

    def key_of(self, address: str) -> str:
        """Return the key in the link of the last mail to an address."""
        found = re.search(r"#(\S+)", self.mailed_to(address)[-1])
        assert found
        return unquote(found[1])

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._process.terminate()
        self._process.communicate()


@contextmanager
def allauth() -> Iterator[Allauth]:
    """Yield a running project."""
    with TemporaryDirectory() as folder:
        project = Allauth(Path(folder))
        try:
            yield project
        finally:
            project.close()


def answer_of_allauth(response: Any) -> str:
    """Return how the table shows a response: the status, and the code of the error or the step that is needed."""
    if "json" not in response.headers.get("content-type", ""):
        return str(response.status_code)
    body = response.json()
    data = body.get("data")
    steps = data.get("flows", []) if isinstance(data, dict) else []
    # To a user who is logged in they are ways to prove it again; else one of them has begun, or none.
    needed = [step["id"] for step in steps if step.get("is_pending") or body["meta"]["is_authenticated"]]
    codes = [error["code"] for error in body.get("errors", [])] + needed
    return f"{response.status_code} `{codes[0]}`" if codes else str(response.status_code)


def flows_of_allauth() -> dict[str, str]:
    """Return the answers of django-allauth."""
    found: dict[str, Any] = {}
    with allauth() as project:
        assert [release.split(".")[:2] for release in project.releases] == [["65", "22"], ["5", "2"]]
        browser, other = project.browser(), project.browser()
        ada = {"email": ADA, "password": PASSWORD}
        found["sign up"] = browser.post("auth/signup", **ada)
        found["log in before the address is verified"] = other.post("auth/login", **ada)
        found["send the message again"] = browser.post("auth/email/verify/resend")
        key = project.key_of(ADA)
        found["verify the address"] = browser.post("auth/email/verify", key=key)
        found["verify it a second time"] = browser.post("auth/email/verify", key=key)
        # django-allauth sends an address one message in three minutes.
        project.move(180)
        before = len(project.mailed_to(ADA))
        found["sign up with the address of an account"] = project.browser().post("auth/signup", **ada)
        found["messages to its owner"] = str(len(project.mailed_to(ADA)) - before)
        found["sign up with a common password"] = project.browser().post("auth/signup", email=EVE, password="password1")
        browser = project.browser()
        grace = {"email": GRACE, "password": PASSWORD}
        project.browser().post("auth/signup", **grace)
        project.browser().post("auth/email/verify", key=project.key_of(GRACE))
        found["verify in a browser that did not sign up, and log in"] = project.browser().post("auth/login", **grace)
        found["log in"] = browser.post("auth/login", **ada)
        found["log in with a wrong password"] = other.post("auth/login", email=ADA, password="wrong")
        found["log in from the page of another site"] = other.send("POST", "auth/login", site="cross-site", **ada)
        found["read the session"] = browser.get("auth/session")
        found["read it anonymously"] = project.browser().get("auth/session")
        # A browser whose login waits for something shows that in each answer.
        other = project.browser()
        found["forgot, of an unknown address"] = other.post("auth/password/request", email=EVE)
        found["messages to that address"] = str(len(project.mailed_to(EVE)))
        found["forgot"] = other.post("auth/password/request", email=ADA)
        reset = {"key": project.key_of(ADA), "password": NEXT}
        found["reset"] = other.post("auth/password/reset", **reset)
        found["reset a second time"] = other.post("auth/password/reset", **reset)
        found["a session of before the reset"] = browser.get("auth/session")
        ada["password"] = NEXT
        browser, other = project.browser(), project.browser()
        assert browser.post("auth/login", **ada).status_code == other.post("auth/login", **ada).status_code == 200
        found["change the password, with a wrong one"] = browser.post(
            "account/password/change", current_password="wrong", new_password=LAST
        )
        found["change the password"] = browser.post("account/password/change", current_password=NEXT, new_password=LAST)
        found["another session of before"] = other.get("auth/session")
        ada["password"] = LAST
        found["change the address, without the password"] = browser.post("account/email", email=MOVED)
        found["confirm it from the message"] = browser.post("auth/email/verify", key=project.key_of(MOVED))
        ada["email"] = MOVED
        found |= _factors_of_allauth(project, browser, ada)
        for _ in range(5):
            other.post("auth/login", email=EVE, password="wrong")
        found["the sixth wrong password"] = other.post("auth/login", email=EVE, password="wrong")
    return {flow: given if isinstance(given, str) else answer_of_allauth(given) for flow, given in found.items()}


def _factors_of_allauth(project: Allauth, browser: Browser, ada: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    totp, recovery = "account/authenticators/totp", "account/authenticators/recovery-codes"
    found["begin to enrol an authenticator app"] = begun = browser.get(totp)
    secret = begun.json()["meta"]["secret"]
    found["confirm it with a wrong code"] = browser.post(totp, code="000000")
    code = code_at(secret, project.move(30))
    found["confirm it, soon after the login"] = browser.post(totp, code=code)
    assert browser.post("auth/reauthenticate", password=ada["password"]).status_code == 200
    assert browser.post(totp, code=code).status_code == 200
    other = project.browser()
    found["log in with the password alone"] = other.post("auth/login", **ada)
    found["then with the code that confirmed the app"] = other.post("auth/2fa/authenticate", code=code)
    code = code_at(secret, project.move(30))
    other, third = _pending(project, ada), _pending(project, ada)
    found["then with a wrong code"] = other.post("auth/2fa/authenticate", code="000000")
    found["then with the code of the app"] = other.post("auth/2fa/authenticate", code=code)
    found["the same code in another login"] = third.post("auth/2fa/authenticate", code=code)
    found["new recovery codes"] = made = browser.post(recovery)
    codes = made.json()["data"]["unused_codes"]
    assert [len(code) for code in codes] == [8] * 10
    found["they can be read again"] = "yes" if codes[0] in browser.get(recovery).text else "no"
    found["a recovery code"] = third.post("auth/2fa/authenticate", code=codes[0])
    third = _pending(project, ada)
    found["the same recovery code again"] = third.post("auth/2fa/authenticate", code=codes[0])
    assert browser.post(recovery).status_code == 200
    found["one that was replaced by new ones"] = third.post("auth/2fa/authenticate", code=codes[1])
    found["list the sessions"] = listed = browser.get("auth/sessions")
    ended = [session["id"] for session in listed.json()["data"] if not session["is_current"]]
    found["end the others"] = browser.send("DELETE", "auth/sessions", sessions=ended)
    found["a session that was ended"] = other.get("auth/session")
    code = code_at(secret, project.move(900))
    found["remove the app, 15 minutes later"] = browser.send("DELETE", totp)
    found["prove the password again, wrongly"] = browser.post("auth/reauthenticate", password="wrong")
    found["prove the password again"] = browser.post("auth/reauthenticate", password=ada["password"])
    found["new recovery codes, after the password"] = browser.post(recovery)
    found["prove the app again"] = browser.post("auth/2fa/reauthenticate", code=code)
    found["remove the app, after that"] = browser.send("DELETE", totp)
    found["log out"] = browser.send("DELETE", "auth/session")
    found["a session of before the logout"] = browser.get("auth/session")
    return found


def _pending(project: Allauth, ada: dict[str, str]) -> Browser:
    browser = project.browser()
    assert answer_of_allauth(browser.post("auth/login", **ada)) == "401 `mfa_authenticate`"
    return browser


class Ours:
    """An application with the routers of this package for browsers, and the messages that it sends."""

    def __init__(self) -> None:
        """Build it."""
        self.clock = Clock()
        self._engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        factory = async_sessionmaker(self._engine)
        users, self._factors = DatabaseUsers(factory), DatabaseFactors(factory)
        self._users = users
        store = MemoryStore(clock=self.clock)
        second = [TOTP(key=SECRET, issuer="Shop"), RecoveryCodes()]
        passwords = PasswordHasher(["argon2"], settings=QUICK)
        login = Login(users, store, second=second, records=self._factors, passwords=passwords, clock=self.clock)
        sessions = SessionAuth(store, clock=self.clock)
        self.messages: list[Message] = []
        self._accounts = Accounts(login, key=SECRET, pages=SITE, send=self._send)
        app = FastAPI(lifespan=self._lifespan)
        app.include_router(session_router(sessions, login))
        app.include_router(accounts_router(self._accounts, sessions))
        app.include_router(factors_router(login, sessions))
        configure_app(app)
        self.client = TestClient(app, base_url=SITE)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> Any:
        await self._users.create_table()
        await self._factors.create_tables()
        yield
        await self._engine.dispose()

    async def _send(self, message: Message) -> None:
        self.messages.append(message)

    def browser(self) -> Browser:
        """Return a browser without cookies."""
        return Browser(self.client)

    def mailed_to(self, address: str) -> list[Message]:
        """Return the messages to an address, the oldest first."""
        assert self.client.portal is not None
        self.client.portal.call(self._accounts.outbox.drain)
        return [message for message in self.messages if message.address == address]

    def token_of(self, address: str) -> str:
        """Return the token in the link of the last message to an address."""
        link = self.mailed_to(address)[-1].link
        assert link is not None
        return link.partition("#token=")[2]


def flows_of_ours() -> dict[str, str]:
    """Return the answers of this package."""
    found: dict[str, Any] = {}
    ours = Ours()
    ada = {"username": ADA, "password": PASSWORD}
    with ours.client:
        browser, other = ours.browser(), ours.browser()
        found["sign up"] = browser.post("/register", email=ADA, password=PASSWORD)
        found["log in before the address is verified"] = other.post("/login", **ada)
        found["send the message again"] = browser.post("/verify/resend", email=ADA)
        token = ours.token_of(ADA)
        found["verify the address"] = browser.post("/verify", token=token)
        found["verify it a second time"] = browser.post("/verify", token=token)
        ours.clock.move(180)
        before = len(ours.mailed_to(ADA))
        found["sign up with the address of an account"] = other.post("/register", email=ADA, password=PASSWORD)
        found["messages to its owner"] = str(len(ours.mailed_to(ADA)) - before)
        found["sign up with a common password"] = other.post("/register", email=EVE, password="password1")
        ours.browser().post("/register", email=GRACE, password=PASSWORD)
        ours.browser().post("/verify", token=ours.token_of(GRACE))
        found["verify in a browser that did not sign up, and log in"] = ours.browser().post(
            "/login", username=GRACE, password=PASSWORD
        )
        found["log in"] = browser.post("/login", **ada)
        found["log in with a wrong password"] = other.post("/login", username=ADA, password="wrong")
        found["log in from the page of another site"] = other.send("POST", "/login", site="cross-site", **ada)
        found["read the session"] = browser.get("/account")
        found["read it anonymously"] = ours.browser().get("/account")
        found["forgot, of an unknown address"] = other.post("/forgot", username=EVE)
        found["messages to that address"] = str(len(ours.mailed_to(EVE)))
        found["forgot"] = other.post("/forgot", username=ADA)
        reset = {"token": ours.token_of(ADA), "password": NEXT}
        found["reset"] = other.post("/reset", **reset)
        found["reset a second time"] = other.post("/reset", **reset)
        found["a session of before the reset"] = browser.get("/account")
        ada["password"] = NEXT
        browser, other = ours.browser(), ours.browser()
        assert browser.post("/login", **ada).status_code == other.post("/login", **ada).status_code == 204
        found["change the password, with a wrong one"] = browser.post(
            "/account/password", current_password="wrong", password=LAST
        )
        found["change the password"] = browser.post("/account/password", current_password=NEXT, password=LAST)
        found["another session of before"] = other.get("/account")
        found["change the address, without the password"] = browser.post("/account/address", email=MOVED)
        ada["password"] = LAST
        assert browser.post("/account/address", email=MOVED, password=LAST).status_code == 202
        found["confirm it from the message"] = browser.post("/account/address/confirm", token=ours.token_of(MOVED))
        ada["username"] = MOVED
        found |= _factors_of_ours(ours, browser, ada)
        for _ in range(5):
            other.post("/login", username=EVE, password="wrong")
        found["the sixth wrong password"] = other.post("/login", username=EVE, password="wrong")
    return {flow: given if isinstance(given, str) else answer(given) for flow, given in found.items()}


def _factors_of_ours(ours: Ours, browser: Browser, ada: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["begin to enrol an authenticator app"] = begun = browser.post("/factors/totp")
    secret, enrolment = begun.json()["secret"], begun.json()["enrolment"]
    found["confirm it with a wrong code"] = browser.post("/factors/confirm", enrolment=enrolment, code="000000")
    ours.clock.move(30)
    code = code_at(secret, ours.clock())
    found["confirm it, soon after the login"] = confirmed = browser.post(
        "/factors/confirm", enrolment=enrolment, code=code
    )
    app = confirmed.json()["id"]
    other = ours.browser()
    found["log in with the password alone"] = other.post("/login", **ada)
    found["then with the code that confirmed the app"] = other.post("/login/totp", code=code)
    ours.clock.move(30)
    code = code_at(secret, ours.clock())
    found["then with a wrong code"] = other.post("/login/totp", code="000000")
    found["then with the code of the app"] = other.post("/login/totp", code=code)
    third = _pending_here(ours, ada)
    found["the same code in another login"] = third.post("/login/totp", code=code)
    found["new recovery codes"] = made = browser.post("/factors/recovery")
    codes = made.json()["codes"]
    assert [len(code.replace("-", "")) for code in codes] == [25] * 10
    found["they can be read again"] = "yes" if codes[0] in browser.get("/factors").text else "no"
    # A change of the factors ends the logins that wait for one.
    found["a recovery code"] = _pending_here(ours, ada).post("/login/recovery", code=codes[0])
    found["the same recovery code again"] = _pending_here(ours, ada).post("/login/recovery", code=codes[0])
    assert browser.post("/factors/recovery").status_code == 200
    found["one that was replaced by new ones"] = _pending_here(ours, ada).post("/login/recovery", code=codes[1])
    found["list the sessions"] = browser.get("/sessions")
    found["end the others"] = browser.send("DELETE", "/sessions")
    found["a session that was ended"] = other.get("/account")
    ours.clock.move(900)
    found["remove the app, 15 minutes later"] = browser.send("DELETE", f"/factors/{app}")
    found["prove the password again, wrongly"] = browser.post("/login/step-up", factor="password", password="wrong")
    found["prove the password again"] = browser.post("/login/step-up", factor="password", password=ada["password"])
    found["new recovery codes, after the password"] = browser.post("/factors/recovery")
    code = code_at(secret, ours.clock())
    found["prove the app again"] = browser.post("/login/step-up", factor="totp", code=code)
    found["remove the app, after that"] = browser.send("DELETE", f"/factors/{app}")
    found["log out"] = browser.post("/logout")
    found["a session of before the logout"] = browser.get("/account")
    return found


def _pending_here(ours: Ours, ada: dict[str, str]) -> Browser:
    browser = ours.browser()
    assert browser.post("/login", **ada).status_code == 202
    return browser
