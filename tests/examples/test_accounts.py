"""The pages of accounts: every flow by their forms, as a browser without script sends them."""

import html as escaping
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest
import time_machine
from fastapi import FastAPI
from fastapi.testclient import TestClient

import accounts
from accounts.application import PUBLIC
from accounts.html import ERRORS
from fastapi_guard.app.audit import assert_guarded
from fastapi_guard.exceptions import ConfigurationError
from support.authenticator import Authenticator
from support.factors import KEY
from support.passwords import quick_hasher
from support.visitor import Visitor

SITE = "https://accounts.example"
PASSWORD = "wonderland tea party"
NEW_PASSWORD = "through the looking glass"
FOREIGN = {"Sec-Fetch-Site": "cross-site"}

Clock = Any


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Move the time."""
    with time_machine.travel(1_800_000_000, tick=True) as moved:
        yield moved


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> FastAPI:
    """Return the application, on a database of its own."""
    monkeypatch.setattr("fastapi_guard.login.login.PasswordHasher", quick_hasher)
    database = f"sqlite+aiosqlite:///{tmp_path}/accounts.db"
    return accounts.create_app(accounts.Settings(key=KEY, site=SITE, database=database, development=True))


@pytest.fixture
def browser(app: FastAPI) -> Iterator[Callable[..., Visitor]]:
    """Return a function that starts another browser."""
    with TestClient(app, base_url=SITE) as started:

        def start(agent: str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0") -> Visitor:
            client = TestClient(app, base_url=SITE, headers={"User-Agent": agent})
            client.portal = started.portal
            return Visitor(client)

        yield start


@pytest.fixture
def visitor(browser: Callable[..., Visitor]) -> Visitor:
    """Return a browser that is logged in as ada."""
    return logged_in(register(browser()))


def message(visitor: Visitor, subject: str, name: str = "ada") -> str:
    """Return the latest message to a user with a subject, from the page of messages."""
    app: Any = visitor.client.app
    portal: Any = visitor.client.portal
    portal.call(app.state.parts.accounts.outbox.drain)  # it is sent after the answer
    wanted = rf"<article><h2>{subject}</h2><p>To: {name}@.*?</article>"
    found = re.search(wanted, visitor.open("/messages"), flags=re.DOTALL)
    assert found is not None
    return found[0]


def link_in(shown: str) -> str:
    """Return the path of the link in a message."""
    found = re.search(r'href="([^"]+)"', shown)
    assert found is not None
    return escaping.unescape(found[1]).removeprefix(SITE)


def code_in(shown: str) -> str:
    """Return the code in a message."""
    found = re.search(r"<code>(\d+)</code>", shown)
    assert found is not None
    return found[1]


def register(visitor: Visitor, name: str = "ada") -> Visitor:
    """Register, and verify the address by the link of the message."""
    visitor.open("/register")
    visitor.submit("/register", email=f"{name}@accounts.example", username=name, password=PASSWORD)
    assert visitor.path == "/register/sent"
    visitor.open(link_in(message(visitor, "Confirm your address", name)))
    visitor.submit("/verify")
    assert (visitor.path, visitor.query) == ("/login", "notice=verified")
    return visitor


def logged_in(visitor: Visitor, password: str = PASSWORD, name: str = "ada") -> Visitor:
    """Log in by the form."""
    visitor.open("/login")
    visitor.submit("/login", username=name, password=password)
    return visitor


def test_register_and_log_in(browser: Callable[..., Visitor]) -> None:
    """A user registers, verifies by the link, logs in where the way was, and logs out."""
    visitor = register(browser())
    visitor.open("/devices")
    assert (visitor.path, visitor.query) == ("/login", "next=/devices")
    visitor.submit("/login", username="ada", password=PASSWORD)
    assert visitor.path == "/devices"
    assert "Hello, ada" in visitor.open("/")
    visitor.submit("/logout")
    visitor.open("/")
    assert visitor.path == "/login"


def test_register_by_the_code(browser: Callable[..., Visitor]) -> None:
    """The code of the message verifies in the browser that registered, and a wrong one does not."""
    visitor = browser()
    visitor.open("/register")
    visitor.submit("/register", email="ada@accounts.example", username="ada", password=PASSWORD)
    code = code_in(message(visitor, "Confirm your address"))
    visitor.open("/register/sent")
    visitor.submit("/verify", code="00000000" if code != "00000000" else "1")
    assert ERRORS["invalid_link"] in visitor.text
    visitor.submit("/verify", code=code)
    assert visitor.query == "notice=verified"


def test_the_link_in_another_browser(browser: Callable[..., Visitor]) -> None:
    """In another browser the link needs the password, and the page keeps the link until it is right."""
    first, second = browser(), browser()
    first.open("/register")
    first.submit("/register", email="ada@accounts.example", username="ada", password=PASSWORD)
    second.open(link_in(message(first, "Confirm your address")))
    second.submit("/verify")
    assert ERRORS["other_browser"] in second.text
    second.submit("/verify", password=PASSWORD)
    assert second.query == "notice=verified"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"password": "short"}, "password_invalid"),
        ({"password": "password1234567"}, "password_invalid"),
        ({"email": "nothing"}, "email_invalid"),
        ({"username": "a@b"}, "username_invalid"),
        ({"username": "ada"}, "username_taken"),
    ],
)
def test_what_cannot_be_registered(browser: Callable[..., Visitor], fields: dict[str, str], code: str) -> None:
    """The page shows the constant text of the library's code."""
    visitor = register(browser())
    visitor.open("/register")
    visitor.submit("/register", **{"email": "eve@accounts.example", "username": "eve", "password": PASSWORD, **fields})
    assert (visitor.path, visitor.query) == ("/register", f"error={code}")
    assert ERRORS[code] in visitor.text


def test_a_known_address(browser: Callable[..., Visitor]) -> None:
    """The page after a registration is the same for an address that has an account."""
    visitor = register(browser())
    pages = []
    for email in ("ada@accounts.example", "eve@accounts.example"):
        visitor.open("/register")
        pages.append(visitor.submit("/register", email=email, username="eve", password=PASSWORD))
    assert pages[0] == pages[1]
    assert "ada@accounts.example" in message(visitor, "You have an account already")


def test_a_wrong_password(browser: Callable[..., Visitor]) -> None:
    """A wrong password, of a known user or not, and too many of them, have texts of their own."""
    visitor = register(browser())
    for name in ("ada", "nobody"):
        logged_in(visitor, "wrong", name)
        assert ERRORS["wrong"] in visitor.text
    for _ in range(5):
        logged_in(visitor, "wrong")
    assert ERRORS["too_many"] in visitor.text
    assert "That did not work." in visitor.open("/login?error=%3Cscript%3E")


def enrol_totp(visitor: Visitor) -> pyotp.TOTP:
    """Add an authenticator app, with a wrong code first."""
    visitor.open("/security")
    visitor.submit("/security/totp")
    assert "<svg" in visitor.text
    found = re.search(r"secret: <code>([A-Z2-7]+)</code>", visitor.text)
    assert found is not None
    device = pyotp.TOTP(found[1])
    visitor.submit("/security/totp/confirm", code="000000" if device.now() != "000000" else "1")
    assert ERRORS["wrong_code"] in visitor.text
    visitor.submit("/security/totp/confirm", code=device.now())
    assert (visitor.path, visitor.query) == ("/security", "notice=factor")
    return device


def test_an_authenticator_app(visitor: Visitor, clock: Clock) -> None:
    """A code of the app is the second step, and the next page is where the way was."""
    device = enrol_totp(visitor)
    clock.shift(60)
    visitor.submit("/logout")
    visitor.open("/keys")
    visitor.submit("/login", username="ada", password=PASSWORD)
    assert (visitor.path, visitor.query) == ("/login/second", "next=/keys")
    visitor.submit("/login/totp", code="wrong")
    assert (visitor.path, ERRORS["wrong_factor"] in visitor.text) == ("/login/second", True)
    visitor.submit("/login/totp", code=device.now())
    assert visitor.path == "/keys"
    assert "pwd, otp, mfa" in visitor.open("/")


def test_recovery_codes(visitor: Visitor) -> None:
    """A recovery code is the second step once, and the page of factors shows how many are left."""
    enrol_totp(visitor)
    visitor.submit("/security/recovery")
    codes = re.findall(r"<li><code>([^<]+)</code>", visitor.text)
    assert len(codes) == 10
    for expected in ("/", "/login/second"):
        visitor.open("/")
        visitor.submit("/logout")
        logged_in(visitor)
        visitor.submit("/login/recovery", code=codes[0])
        assert visitor.path == expected
        if expected == "/":
            assert "9 codes left" in visitor.open("/security")


def test_two_enrolments_at_once(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery codes that another request replaced at the same time are not shown."""

    async def none(*_: Any, **__: Any) -> None:
        return None

    visitor.open("/security")
    monkeypatch.setattr("fastapi_guard.login.enrolment.Enrolments.begin", none)
    visitor.submit("/security/recovery", 409)


def test_removing_a_factor_needs_a_proof(visitor: Visitor, clock: Clock) -> None:
    """After a while the page of factors leads to the step-up, by app, recovery code or password, and then removes."""
    device = enrol_totp(visitor)
    visitor.submit("/security/recovery")
    code = re.findall(r"<li><code>([^<]+)</code>", visitor.text)[0]
    clock.shift(timedelta(minutes=11))
    visitor.open("/security")
    [remove] = [action for action in visitor.actions() if action.endswith("/remove")][:1]
    visitor.submit(remove)
    assert ERRORS["log_in_again"] in visitor.text
    visitor.open("/step-up?next=/security")
    visitor.submit("/login/step-up", factor="totp", code="wrong")
    assert (visitor.path, ERRORS["wrong_factor"] in visitor.text) == ("/step-up", True)
    visitor.submit("/login/step-up", factor="totp", code=device.now())
    assert visitor.path == "/security"
    visitor.submit(remove)
    assert visitor.query == "notice=removed"
    clock.shift(timedelta(minutes=11))
    visitor.submit("/security/recovery")
    assert (visitor.path, visitor.query) == ("/step-up", "next=/security")
    visitor.submit("/login/step-up", factor="recovery", code=code)
    assert visitor.path == "/security"


def test_a_passkey(visitor: Visitor) -> None:
    """Passkeys are enrolled by the script; the step-up offers one, and the files are there."""
    device = Authenticator(SITE, "accounts.example")
    begun = visitor.client.post("/factors/passkey", json={"name": "<Laptop>"}).json()
    proof = {"enrolment": begun["enrolment"], "credential": device.create(begun["publicKey"])}
    assert visitor.client.post("/factors/confirm", json=proof).status_code == 200
    assert "Remove &lt;Laptop&gt;" in visitor.open("/security")
    assert 'data-passkey="confirm"' in visitor.open("/step-up")
    for name in ("passkeys.js", "back.js", "style.css", "icon.svg"):
        assert visitor.client.get(f"/static/{name}").status_code == 200
    assert visitor.client.get("/static/application.py").status_code == 404


def test_reset_by_the_link(visitor: Visitor, browser: Callable[..., Visitor]) -> None:
    """A password that is rejected keeps the link; the new one ends every session."""
    other = browser()
    other.open("/forgot")
    other.submit("/forgot", username="ada")
    assert other.path == "/forgot/sent"
    other.open(link_in(message(other, "Reset your password")))
    other.submit("/reset", password="short")
    assert ERRORS["password_invalid"] in other.text
    other.submit("/reset", password=NEW_PASSWORD)
    assert (other.path, other.query) == ("/login", "notice=reset")
    visitor.open("/")
    assert visitor.path == "/login"
    assert "Hello" in logged_in(other, NEW_PASSWORD).text


def test_reset_by_the_code(browser: Callable[..., Visitor]) -> None:
    """The code works in the browser that asked; an unknown name has the same page."""
    visitor = register(browser())
    pages = []
    for name in ("nobody", "ada"):
        visitor.open("/forgot")
        pages.append(visitor.submit("/forgot", username=name))
    assert pages[0] == pages[1]
    code = code_in(message(visitor, "Reset your password"))
    visitor.open("/forgot/sent")
    visitor.submit("/reset", code="1", password=NEW_PASSWORD)
    assert ERRORS["invalid_link"] in visitor.text
    visitor.submit("/reset", code=code, password=NEW_PASSWORD)
    assert visitor.query == "notice=reset"


def test_a_change_of_password(visitor: Visitor) -> None:
    """The current password is needed, and this session goes on."""
    visitor.open("/password")
    visitor.submit("/account/password", current_password="wrong", password=NEW_PASSWORD)
    assert ERRORS["wrong_password"] in visitor.text
    visitor.submit("/account/password", current_password=PASSWORD, password=NEW_PASSWORD)
    assert visitor.query == "notice=password"


def test_devices(visitor: Visitor, browser: Callable[..., Visitor]) -> None:
    """A user sees where they are logged in, ends one or all others, and no session of another user."""
    phone = logged_in(browser("Mozilla/5.0 (iPhone) Version/20.0 Safari/604.1"))
    visitor.open("/devices")
    assert "Safari on iPhone" in visitor.text
    assert visitor.text.count("This device") == 1
    visitor.submit("/devices/end")
    assert visitor.query == "notice=ended"
    phone.open("/")
    assert phone.path == "/login"
    logged_in(phone)
    visitor.open("/devices")
    eve = logged_in(register(browser(), "eve"), name="eve")
    eve.open("/devices")
    [session] = re.findall(r'name="session" value="([^"]+)"', visitor.text)
    assert eve.client.post("/devices/end", data={"session": session}).status_code == 404
    visitor.submit("/devices/end-others")
    phone.open("/")
    assert phone.path == "/login"


def test_api_keys(visitor: Visitor, browser: Callable[..., Visitor]) -> None:
    """A key is shown once, opens the route for programs, and is revoked by its owner alone."""
    visitor.open("/keys")
    visitor.submit("/keys", name="backup", scope="profile:read")
    [key, call] = re.findall(r"<pre>([^<]+)</pre>", visitor.text)
    assert f"{SITE}/api/profile" in call
    header = {"Authorization": f"Bearer {key}"}
    program = TestClient(visitor.client.app, base_url=SITE)
    assert program.get("/api/profile", headers=header).json()["key"] == "backup"
    visitor.open("/keys")
    assert key not in visitor.text
    [key_id] = re.findall(r'name="key_id" value="([^"]+)"', visitor.text)
    eve = logged_in(register(browser(), "eve"), name="eve")
    assert eve.client.post("/keys/revoke", data={"key_id": key_id}).status_code == 404
    visitor.submit("/keys/revoke")
    assert "There is no key" in visitor.text
    refused = program.get("/api/profile", headers=header)
    assert (refused.status_code, refused.json()) == (401, {"detail": "Invalid API Key"})
    assert "WWW-Authenticate" in refused.headers


def test_a_key_can_do_no_more_than_its_maker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Callable[..., Visitor]
) -> None:
    """A scope that the user does not have is refused, and so is a form that the page does not have."""
    monkeypatch.setitem(accounts.parts.ROLES, "member", ["profile:read"])
    database = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    settings = accounts.Settings(key=KEY, site=SITE, database=database, development=True)
    with TestClient(accounts.create_app(settings), base_url=SITE) as client:
        visitor = logged_in(register(Visitor(client)))
        visitor.open("/keys")
        visitor.submit("/keys", 403, name="backup", scope="profile:edit")
        visitor.open("/keys")
        assert "filled in" in visitor.submit("/keys", 422, name="<b>", scope="profile:read")
        answer = client.post("/keys", data={"name": "x", "scope": "*"}, headers={"Accept": "application/json"})
        assert answer.status_code == 422


def sign_in(visitor: Visitor, name: str = "ada", email: str = "") -> Visitor:
    """Sign in with the provider by the form of its page."""
    visitor.open("/providers/development?next=/security")
    assert visitor.path == "/development/authorize"
    visitor.submit("/development/authorize", name=name, email=email)
    return visitor


def test_sign_in_with_the_provider(browser: Callable[..., Visitor], clock: Clock) -> None:
    """A new identity is a new user, who cannot unlink the only way in, and deletes the account after a new sign-in."""
    visitor = sign_in(browser())
    assert visitor.path == "/security"
    assert "development: ada" in visitor.text
    visitor.submit("/security/unlink")
    assert ERRORS["last_way_in"] in visitor.text
    assert "current_password" not in visitor.open("/password")
    clock.shift(timedelta(minutes=11))
    visitor.open("/delete")
    visitor.submit("/account/delete")
    assert ERRORS["log_in_again"] in visitor.text
    assert "Sign in again" in visitor.open("/step-up")
    sign_in(visitor)
    visitor.open("/delete")
    visitor.submit("/account/delete")
    assert visitor.query == "notice=deleted"


def test_link_and_unlink(visitor: Visitor, browser: Callable[..., Visitor], clock: Clock) -> None:
    """A user links the provider, signs in with it, and unlinks it after a recent login."""
    other = sign_in(browser(), email="ada@accounts.example")
    assert ERRORS["link_first"] in other.text
    visitor.open("/security")
    visitor.submit("/identities/development/start")
    visitor.submit("/development/authorize", name="ada", email="ada@accounts.example")
    assert (visitor.path, "development: ada@accounts.example" in visitor.text) == ("/security", True)
    assert "Hello, ada" in sign_in(other).open("/")
    clock.shift(timedelta(minutes=11))
    visitor.submit("/identities/development/start")
    assert (visitor.path, visitor.query) == ("/step-up", "next=/security")
    visitor.submit("/login/step-up", factor="password", password=PASSWORD)
    assert visitor.path == "/security"
    visitor.submit("/security/unlink")
    assert visitor.query == "notice=removed"
    assert visitor.client.post("/security/unlink", data={"identity": "unknown"}).status_code == 404


def test_the_provider_refuses_what_is_no_request(browser: Callable[..., Visitor]) -> None:
    """The page of the provider continues an authorization request alone, and from this site alone."""
    visitor = browser()
    visitor.open("/development/authorize?x=1")
    visitor.submit("/development/authorize", 400, name="ada")
    visitor.send("/development/authorize", {"request": "x=1", "name": "ada"}, 403, **FOREIGN)


def test_the_end_of_an_account(visitor: Visitor) -> None:
    """The password is needed, and then the account is gone."""
    visitor.open("/delete")
    visitor.submit("/account/delete", password="wrong")
    assert ERRORS["wrong_password"] in visitor.text
    visitor.submit("/account/delete", password=PASSWORD)
    assert visitor.query == "notice=deleted"
    assert ERRORS["wrong"] in logged_in(visitor).text


def test_another_sites_page(visitor: Visitor) -> None:
    """A form of another site changes nothing, and a request for another host is led to this one."""
    visitor.send("/security/totp", {}, 403, **FOREIGN)
    answer = visitor.client.get("/login", headers={"Host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{SITE}/")


def test_messages_are_for_this_machine() -> None:
    """A site that other machines may reach is refused: it would show every message."""
    with pytest.raises(ConfigurationError, match="replace Mailbox"):
        accounts.Settings(key=KEY, site=SITE)


def test_every_way_in_is_guarded_or_named(app: FastAPI) -> None:
    """The list of public paths is complete, and no page of a user is in it."""
    assert_guarded(app, allow=PUBLIC)


def test_the_module_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`uvicorn accounts.main:app` needs the key alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCOUNTS_KEY", KEY)
    main = importlib.import_module("accounts.main")
    monkeypatch.delitem(sys.modules, "accounts.main")
    with TestClient(main.app, base_url="http://localhost:8000") as client:
        assert client.get("/login").status_code == 200
    assert (tmp_path / "accounts.db").is_file()
