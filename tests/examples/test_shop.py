"""The shop from registration to the list of devices, with a mail server that the test reads from."""

import importlib
import re
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path
from queue import Queue
from time import time
from types import ModuleType
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from fastapi.testclient import TestClient

from support.authenticator import Authenticator
from support.factors import KEY, totp_code
from support.login import PASSWORD
from support.passwords import quick_hasher

SOURCE = Path(__file__).parents[2] / "examples" / "shop.py"
ORIGIN = {"origin": "https://shop.example", "sec-fetch-site": "same-origin"}
NEW_PASSWORD = "a quite different pass phrase"
PATIENCE_SECONDS = 60


class Mailbox:
    """The handler of a real mail server."""

    def __init__(self) -> None:
        """Begin empty."""
        self.mails: Queue[EmailMessage] = Queue()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's
        """Keep a mail."""
        self.mails.put(BytesParser(EmailMessage, policy=SMTP).parsebytes(envelope.content))  # type: ignore[arg-type]
        return "250 OK"

    def read(self, subject: str) -> str:
        """Return the text of the next mail, which has this subject and goes to Ada."""
        mail = self.mails.get(timeout=PATIENCE_SECONDS)
        assert (mail["Subject"], mail["To"]) == (subject, "ada@shop.example")
        return str(mail.get_content())


class MailServer(Controller):
    """A server at a free port."""

    def _trigger_server(self) -> None:
        # It connects to itself, to see that it serves.
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture(scope="module")
def mail_server() -> Iterator[MailServer]:
    """Run a mail server."""
    server = MailServer(Mailbox(), hostname="127.0.0.1", port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mailbox(mail_server: MailServer) -> Mailbox:
    """Return the mails."""
    found: Mailbox = mail_server.handler
    return found


@pytest.fixture
def shop(mail_server: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the application in an empty folder."""
    monkeypatch.chdir(tmp_path)
    values = {
        "KEY": KEY,
        "HOST": "shop.example",
        "SITE": "https://shop.example",
        "SMTP": f"127.0.0.1:{mail_server.port}",
    }
    monkeypatch.setattr("fastapi_guard.login.login.PasswordHasher", quick_hasher)
    for name, value in values.items():
        monkeypatch.setenv(f"SHOP_{name}", value)
    sys.modules.pop("shop", None)
    return importlib.import_module("shop")


def browser_of(shop: ModuleType) -> TestClient:
    """Return a browser."""
    return TestClient(shop.app, base_url="https://shop.example", headers=ORIGIN, follow_redirects=False)


class Visitor:
    """A user with a browser who sends JSON or forms."""

    def __init__(self, browser: TestClient, body: str) -> None:
        """Send bodies as ``json`` or as ``data``."""
        self.browser = browser
        self.body = body

    def post(self, path: str, expected: int, **fields: Any) -> Any:
        """Return the JSON of an answer."""
        answer = self.browser.post(path, **{self.body: fields})  # type: ignore[arg-type]
        assert answer.status_code == expected, answer.text
        return answer.json() if answer.content else None

    def log_in(self, password: str, expected: int = 204) -> Any:
        """Log in with a password."""
        return self.post("/login", expected, username="ada", password=password)


def secret_in(text: str) -> dict[str, str]:
    """Return the token of the link in a mail."""
    found = re.search(r"#token=(\S+)", text)
    assert found is not None
    return {"token": found[1]}


def test_the_application_is_short() -> None:
    """The application has fewer than 50 lines of Python."""
    _, _, code = SOURCE.read_text(encoding="utf-8").partition('"""\n')
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert 40 < len(lines) < 50


@pytest.mark.parametrize("body", ["json", "data"])
def test_the_front_door(shop: ModuleType, mailbox: Mailbox, body: str) -> None:
    """A user registers, enrols, logs in with each factor, loses the phone, resets the password and ends devices."""
    with browser_of(shop) as browser:
        ada = Visitor(browser, body)
        ada.post("/register", 202, email="ada@shop.example", username="ada", password=PASSWORD)
        link = secret_in(mailbox.read("Confirm your address"))
        ada.log_in(PASSWORD, 401)
        ada.post("/verify", 204, **link)
        ada.log_in(PASSWORD)
        secret, device, codes = enrol(ada, mailbox)
        ada.post("/logout", 204)
        log_in_with_each(ada, secret, device, codes, mailbox)
        ada.post("/forgot", 202, username="ada")
        link = secret_in(mailbox.read("Reset your password"))
        ada.post("/reset", 204, password=NEW_PASSWORD, **link)
        mailbox.read("Your password was changed")
        assert browser.get("/account").status_code == 401
        ada.log_in(PASSWORD, 401)
        assert "recovery" in ada.log_in(NEW_PASSWORD, 202)["factors"]
        ada.post("/login/recovery", 204, code=codes[1])
        mailbox.read("A recovery code was used")
        see_devices(shop, ada, device)


def enrol(ada: Visitor, mailbox: Mailbox) -> tuple[str, Authenticator, list[str]]:
    """Enrol an app, a passkey (by JSON) and recovery codes."""
    begun = ada.post("/factors/totp", 200, name="Phone")
    ada.post("/factors/confirm", 200, enrolment=begun["enrolment"], code=totp_code(begun["secret"], time()))
    passkey = ada.browser.post("/factors/passkey", json={"name": "Laptop"}).json()
    device = Authenticator(rp_id="shop.example", origin="https://shop.example")
    proof = {"enrolment": passkey["enrolment"], "credential": device.create(passkey["publicKey"])}
    assert ada.browser.post("/factors/confirm", json=proof).status_code == 200
    codes = ada.post("/factors/recovery", 200, name="Codes")["codes"]
    for _ in range(3):
        mailbox.read("A second factor was added")
    listed = ada.browser.get("/factors").json()["factors"]
    assert [factor["name"] for factor in listed] == ["Phone", "Laptop", "Codes"]
    return begun["secret"], device, codes


def log_in_with_each(ada: Visitor, secret: str, device: Authenticator, codes: list[str], mailbox: Mailbox) -> None:
    """Log in with the app, with the passkey as second and as only factor, and without the phone."""
    assert ada.log_in(PASSWORD, 202)["factors"] == ["passkey", "recovery", "totp"]
    # The step of the enrolment is spent; the next is within the drift.
    ada.post("/login/totp", 204, code=totp_code(secret, time() + 30))
    assert ada.browser.get("/me").json() == ["pwd", "otp", "mfa"]
    ada.post("/logout", 204)
    ada.log_in(PASSWORD, 202)
    options = ada.browser.post("/login/challenge", json={"factor": "passkey"}).json()
    assert ada.browser.post("/login/passkey", json={"credential": device.get(options["publicKey"])}).status_code == 204
    ada.post("/logout", 204)
    options = ada.browser.post("/login/passkey/begin", json={}).json()
    credential = device.get(options["publicKey"])
    assert ada.browser.post("/login/passkey/finish", json={"credential": credential}).status_code == 204
    assert "mfa" in ada.browser.get("/me").json()
    ada.post("/logout", 204)
    ada.log_in(PASSWORD, 202)
    ada.post("/login/recovery", 204, code=codes[0])
    mailbox.read("A recovery code was used")


def see_devices(shop: ModuleType, ada: Visitor, device: Authenticator) -> None:
    """List the devices, and end the other one."""
    other = browser_of(shop)
    other.headers["user-agent"] = "another device"
    options = other.post("/login/passkey/begin", json={}).json()
    finished = other.post("/login/passkey/finish", json={"credential": device.get(options["publicKey"])})
    assert finished.status_code == 204
    devices = ada.browser.get("/sessions").json()
    assert [known["current"] for known in devices] == [True, False]
    assert ada.browser.delete(f"/sessions/{devices[1]['id']}").status_code == 204
    assert other.get("/me").status_code == 401
    assert ada.browser.get("/me").status_code == 200
