"""The shop's passkeys in Chromium, with authenticators that it simulates (WebAuthn level 3, section 11)."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiosmtpd.controller import Controller
from playwright.sync_api import BrowserContext, CDPSession, Page

from browser.serving import free_port, served

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PASSWORD = "wonderland tea party"
# The page has no script of its own; this is what one would have.
SCRIPT = """
window.post = async (path, body) => {
  const headers = {"content-type": "application/json"};
  const answer = await fetch(path, {method: "POST", headers, body: JSON.stringify(body)});
  const text = await answer.text();
  return {status: answer.status, ...(text ? JSON.parse(text) : {})};
};
window.enrol = async () => {
  const begun = await post("/factors/passkey", {});
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(begun.publicKey);
  const credential = await navigator.credentials.create({publicKey});
  return post("/factors/confirm", {enrolment: begun.enrolment, credential: credential.toJSON()});
};
window.sign = async (options) => {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey);
  return (await navigator.credentials.get({publicKey})).toJSON();
};
window.second = async () => {
  const options = await post("/login/challenge", {factor: "passkey"});
  return post("/login/passkey", {credential: await sign(options)});
};
window.first = async () => {
  const options = await post("/login/passkey/begin", {});
  try { return await post("/login/passkey/finish", {credential: await sign(options)}); }
  catch (error) { return {status: error.name}; }
};
"""


class Mailbox:
    """The handler of a mail server."""

    def __init__(self) -> None:
        """Begin empty."""
        self.texts: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's
        """Keep a mail."""
        self.texts.append(envelope.content.decode())
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[Controller]:
    """Run a mail server."""
    server = Controller(Mailbox(), hostname="127.0.0.1", port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path: Path, mailbox: Controller) -> Iterator[str]:
    """Serve the shop on localhost, which browsers trust without TLS."""
    port = free_port()
    site = f"http://localhost:{port}"
    values = {"KEY": "k9" * 20 + "Zq", "HOST": "localhost", "SITE": site, "SMTP": f"127.0.0.1:{mailbox.port}"}
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "shop:app", "--port", str(port)]
    with patch.dict(os.environ, {f"SHOP_{name}": value for name, value in values.items()}), served(command, tmp_path):
        yield site


@pytest.fixture
def page(context: BrowserContext, site: str, mailbox: Controller) -> Page:
    """Register and log in."""
    page = context.new_page()
    page.add_init_script(SCRIPT)
    page.goto(f"{site}/openapi.json")
    body = {"email": "ada@shop.example", "username": "ada", "password": PASSWORD}
    assert post(page, "/register", **body) == 202
    while not mailbox.handler.texts:
        page.evaluate("fetch('/openapi.json').then((answer) => answer.text())")
    text = mailbox.handler.texts[0].replace("=\r\n", "").replace("=3D", "=")
    found = re.search(r"#token=(\S+)", text)
    assert found is not None
    assert post(page, "/verify", token=found[1]) == 204
    assert post(page, "/login", **body) == 204
    return page


def post(page: Page, path: str, **body: Any) -> Any:
    """Return the status of a post by the page."""
    return page.evaluate("([path, body]) => post(path, body)", [path, body])["status"]


def authenticator(context: BrowserContext, page: Page, **options: Any) -> tuple[CDPSession, str]:
    """Plug an authenticator in."""
    session = context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    values = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        **options,
    }
    added = session.send("WebAuthn.addVirtualAuthenticator", {"options": values})
    return session, added["authenticatorId"]


def test_a_discoverable_passkey(context: BrowserContext, page: Page) -> None:
    """A passkey of the platform is the second factor, and the only one where it verifies the user."""
    session, device = authenticator(context, page)
    assert page.evaluate("enrol()")["kind"] == "passkey"
    [credential] = session.send("WebAuthn.getCredentials", {"authenticatorId": device})["credentials"]
    assert (credential["isResidentCredential"], credential["rpId"]) == (True, "localhost")
    assert post(page, "/logout") == 204
    assert post(page, "/login", username="ada", password=PASSWORD) == 202
    assert page.evaluate("second()")["status"] == 204
    assert post(page, "/logout") == 204
    assert page.evaluate("first()")["status"] == 204
    methods = page.evaluate("fetch('/me').then((answer) => answer.json())")
    assert {"user", "mfa"} <= {*methods}
    assert post(page, "/logout") == 204
    session.send("WebAuthn.setUserVerified", {"authenticatorId": device, "isUserVerified": False})
    assert page.evaluate("first()")["status"] == "NotAllowedError"


def test_a_security_key(context: BrowserContext, page: Page) -> None:
    """A key that stores no passkey and verifies no user is the second factor alone."""
    options = {"transport": "usb", "hasResidentKey": False, "hasUserVerification": False, "isUserVerified": False}
    session, device = authenticator(context, page, **options)
    assert page.evaluate("enrol()")["kind"] == "passkey"
    [credential] = session.send("WebAuthn.getCredentials", {"authenticatorId": device})["credentials"]
    assert credential["isResidentCredential"] is False
    assert post(page, "/logout") == 204
    assert page.evaluate("first()")["status"] == "NotAllowedError"
    assert post(page, "/login", username="ada", password=PASSWORD) == 202
    assert page.evaluate("second()")["status"] == 204
    assert "mfa" in page.evaluate("fetch('/me').then((answer) => answer.json())")
