"""The pages of the demo in Chromium: every page and flow, as a user with a mouse, a keyboard and an authenticator."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect

from browser.serving import Screenshot, served

PASSWORD = "wonderland tea party"
NEW_PASSWORD = "through the looking glass"
# The pictures of README and documentation are among the screenshots.
LARGEST_PICTURE_BYTES = 150 * 1024


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the demo at a free port, with a database and limits of its own."""
    command = [sys.executable, "-m", "fastapi_guard", "demo", "--port", "0"]
    with served(command, tmp_path_factory.mktemp("demo")) as url:
        yield url.replace("127.0.0.1", "localhost") + "/accounts"


@pytest.fixture
def page(context: BrowserContext, site: str) -> Page:
    """Open the demo, which leads to the login, with an authenticator of the platform plugged in."""
    page = context.new_page()
    page.goto(site.removesuffix("/accounts"))
    expect(page).to_have_url(f"{site}/login?next=/accounts/")
    return page


def authenticator(context: BrowserContext, page: Page) -> CDPSession:
    """Plug an authenticator in, which verifies the user."""
    session = context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "internal", "automaticPresenceSimulation": True}
    verified = {"hasResidentKey": True, "hasUserVerification": True, "isUserVerified": True}
    session.send("WebAuthn.addVirtualAuthenticator", {"options": {**options, **verified}})
    return session


def fill(page: Page, button: str, **fields: str) -> None:
    """Fill in the fields of the form with a button, and click it."""
    form = page.locator("form").filter(has=page.get_by_role("button", name=button, exact=True))
    for name, value in fields.items():
        form.locator(f"[name={name}]").fill(value)
    form.get_by_role("button", name=button, exact=True).click()


def follow(page: Page, name: str) -> None:
    """Click a link of the navigation, and wait until its page is loaded."""
    with page.expect_navigation():
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()


def titled(page: Page, title: str) -> None:
    """Wait for a page with this heading."""
    expect(page.get_by_role("heading", level=1)).to_have_text(title)


def message(page: Page, subject: str) -> Any:
    """Return the latest message with a subject, on the page of messages."""
    follow(page, "Messages")
    article = page.locator("article").filter(has=page.get_by_role("heading", name=subject)).first
    if not article.count():  # it is sent after the answer
        page.wait_for_timeout(1000)
        page.reload()
    return article


def register(page: Page) -> None:
    """Register, and verify the address by the link of the message."""
    follow(page, "Register")
    fill(page, "Register", email="ada@accounts.example", username="ada", password=PASSWORD)
    titled(page, "Check your mail")
    message(page, "Confirm your address").get_by_role("link", name="Open the link").click()
    titled(page, "Verify the address")
    fill(page, "Verify the address")
    expect(page.get_by_role("status")).to_have_text("The address is verified. Log in.")


def log_in(page: Page, password: str = PASSWORD) -> None:
    """Log in with the password."""
    fill(page, "Log in", username="ada", password=password)


def log_out(page: Page) -> None:
    """Log out."""
    page.get_by_role("button", name="Log out", exact=True).click()
    titled(page, "Log in")


def new_code(device: pyotp.TOTP, used: list[str]) -> str:
    """Return a code that was not used: of this step, or of the next one, which clocks may be ahead by."""
    code = next(code for code in (device.at(int(time.time()) + 30 * step) for step in (0, 1, -1)) if code not in used)
    used.append(code)
    return code


def enrol_totp(page: Page) -> tuple[pyotp.TOTP, list[str]]:
    """Add an authenticator app; return it with the codes that were used."""
    follow(page, "Security")
    fill(page, "Add an authenticator app")
    titled(page, "Authenticator app")
    expect(page.get_by_role("img", name="QR code of the secret")).to_be_visible()
    device, used = pyotp.TOTP(page.locator("p code").first.inner_text()), []
    fill(page, "Confirm", code=new_code(device, used))
    expect(page.get_by_role("status")).to_have_text("The second factor was added.")
    return device, used


def test_register_and_log_in(page: Page, screenshot: Screenshot) -> None:
    """A user registers, verifies the address, logs in and out; the page goes back to no private page."""
    screenshot("login")
    follow(page, "Register")
    screenshot("register")
    page.get_by_label("E-mail address").focus()
    register(page)
    log_in(page, "wrong")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text("Incorrect username or password.")
    expect(page.get_by_role("alert").filter(visible=True)).to_be_focused()
    log_in(page)
    titled(page, "Hello, ada")
    screenshot("home")
    log_out(page)
    page.go_back(wait_until="commit")  # the next line waits, whether it is loaded or was kept
    titled(page, "Log in")


def test_authenticator_app_and_recovery_codes(page: Page, screenshot: Screenshot) -> None:
    """A code of the app, and then a recovery code, is the second step; an old login confirms itself."""
    register(page)
    log_in(page)
    device, used = enrol_totp(page)
    fill(page, "Make recovery codes")
    titled(page, "Recovery codes")
    codes = page.locator("li code").all_inner_texts()
    assert len(codes) == 10
    screenshot("recovery-codes")
    page.get_by_role("link", name="I have stored them").click()
    screenshot("security")
    log_out(page)
    log_in(page)
    titled(page, "Second step")
    screenshot("second-step")
    fill(page, "Continue", code=new_code(device, used))
    titled(page, "Hello, ada")
    log_out(page)
    log_in(page)
    fill(page, "Use the recovery code", code=codes[0])
    titled(page, "Hello, ada")
    page.goto(f"{page.url}step-up?next=/accounts/devices")
    titled(page, "Confirm that it is you")
    screenshot("step-up")
    form = page.locator("form").filter(has=page.locator("[value=recovery]"))
    form.locator("[name=code]").fill(codes[1])
    form.get_by_role("button").click()
    titled(page, "Devices")
    follow(page, "Security")
    fill(page, "Remove Authenticator app")
    expect(page.get_by_role("status")).to_have_text("It was removed.")


def test_passkey(page: Page, context: BrowserContext, screenshot: Screenshot) -> None:
    """A passkey is added, is the only factor of a login, the second one after a password, and a step-up."""
    authenticator(context, page)
    register(page)
    log_in(page)
    follow(page, "Security")
    page.get_by_label("Name of the new passkey").fill("Laptop")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_role("button", name="Remove Laptop")).to_be_visible()
    screenshot("added")
    log_out(page)
    page.get_by_role("button", name="Log in with a passkey").click()
    titled(page, "Hello, ada")
    expect(page.locator("dl")).to_contain_text("user, mfa")
    log_out(page)
    log_in(page)
    page.get_by_role("button", name="Use a passkey").click()
    titled(page, "Hello, ada")
    page.goto(f"{page.url}step-up?next=/accounts/keys")
    page.get_by_role("button", name="Use a passkey").click()
    titled(page, "API keys")


def test_no_passkey(page: Page, context: BrowserContext, screenshot: Screenshot) -> None:
    """A login with an authenticator that has no passkey fails with a text on the page."""
    authenticator(context, page)
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.locator("#passkey-status")).to_have_text("No passkey was used.")
    screenshot("refused")


def test_provider(page: Page, screenshot: Screenshot) -> None:
    """A user signs in with the provider, cannot unlink the only way in, and deletes the account."""
    page.get_by_role("link", name="Sign in with the development provider").click()
    titled(page, "Development provider")
    screenshot("provider")
    fill(page, "Sign in and agree", name="grace", email="grace@accounts.example")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Hello, development-")
    follow(page, "Security")
    expect(page.get_by_text("development: grace@accounts.example")).to_be_visible()
    fill(page, "Unlink")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text(
        "That is the only way to log in to the account."
    )
    follow(page, "Home")
    page.get_by_role("link", name="Delete the account").click()
    fill(page, "Delete the account")
    expect(page.get_by_role("status")).to_have_text("The account was deleted.")


def test_link_and_unlink(page: Page, screenshot: Screenshot) -> None:
    """A user who is logged in links the provider, signs in with it, and unlinks it."""
    register(page)
    log_in(page)
    follow(page, "Security")
    fill(page, "Link the development provider")
    fill(page, "Sign in and agree", name="ada")
    titled(page, "Security")
    expect(page.get_by_text("development: ada")).to_be_visible()
    screenshot("linked")
    log_out(page)
    page.get_by_role("link", name="Sign in with the development provider").click()
    fill(page, "Sign in and agree", name="ada")
    titled(page, "Hello, ada")
    follow(page, "Security")
    fill(page, "Unlink")
    expect(page.get_by_role("status")).to_have_text("It was removed.")


def test_forgotten_password(page: Page, screenshot: Screenshot) -> None:
    """A password is reset by the link of a message, changed with the current one, and logs in."""
    register(page)
    page.get_by_role("link", name="Forgot your password?").click()
    titled(page, "Forgot the password")
    fill(page, "Send a message", username="ada")
    titled(page, "Check your mail")
    article = message(page, "Reset your password")
    screenshot("messages")
    article.get_by_role("link", name="Open the link").click()
    titled(page, "Set a new password")
    fill(page, "Set the password", password="password1234567")
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("Choose a longer password")
    fill(page, "Set the password", password=NEW_PASSWORD)
    expect(page.get_by_role("status")).to_have_text("The password is set. Log in.")
    log_in(page, NEW_PASSWORD)
    follow(page, "Password")
    fill(page, "Change the password", current_password=NEW_PASSWORD, password=PASSWORD)
    expect(page.get_by_role("status")).to_contain_text("The password was changed.")


def test_devices(page: Page, chromium: Browser, site: str, screenshot: Screenshot) -> None:
    """A user sees two devices, and ends the other one."""
    register(page)
    log_in(page)
    phone = chromium.new_context()
    other = phone.new_page()
    other.goto(f"{site}/login")
    log_in(other)
    titled(other, "Hello, ada")
    follow(page, "Devices")
    expect(page.get_by_role("listitem").filter(has_text="on Linux")).to_have_count(2)
    screenshot("two")
    fill(page, "End this login")
    expect(page.get_by_role("status")).to_have_text("The device was logged out.")
    other.reload()
    titled(other, "Log in")
    phone.close()
    fill(page, "Log out all other devices")
    expect(page.get_by_text("This device")).to_be_visible()


def test_api_keys(page: Page, site: str, screenshot: Screenshot) -> None:
    """A key is made and shown once, opens the route for programs, and is revoked."""
    register(page)
    log_in(page)
    follow(page, "API keys")
    page.get_by_label("May").select_option("Read the profile")
    fill(page, "Make the key", name="backup")
    titled(page, "The new key")
    key = page.locator("pre").first.inner_text()
    screenshot("made")
    page.get_by_role("link", name="All keys").click()
    screenshot("listed")
    headers = {"Authorization": f"Bearer {key}"}
    assert page.request.get(f"{site}/api/profile", headers=headers).json()["key"] == "backup"
    fill(page, "Revoke")
    expect(page.get_by_role("status")).to_have_text("The key was revoked.")
    assert page.request.get(f"{site}/api/profile", headers=headers).status == 401


def test_delete(page: Page, screenshot: Screenshot) -> None:
    """The account is deleted with the password, and logs in no more."""
    register(page)
    log_in(page)
    page.get_by_role("link", name="Delete the account").click()
    titled(page, "Delete the account")
    screenshot("asked")
    fill(page, "Delete the account", password=PASSWORD)
    expect(page.get_by_role("status")).to_have_text("The account was deleted.")
    log_in(page)
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text("Incorrect username or password.")


def test_without_script(chromium: Browser, site: str) -> None:
    """Everything but passkeys works without JavaScript, and the button of passkeys is not shown."""
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/login")
    expect(page.get_by_role("button", name="Log in", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Log in with a passkey")).to_have_count(0)
    register(page)
    log_in(page)
    titled(page, "Hello, ada")
    enrol_totp(page)
    context.close()


CONTRAST = """
() => {
  const parse = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (color) => {
    const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parse(color).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (element) => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const shown = [...document.querySelectorAll("body *")].filter((e) => e.offsetParent && e.textContent.trim());
  return Math.min(...shown.filter((e) => !e.closest("svg")).map(ratio));
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures(page: Page, context: BrowserContext, screenshots: Path, scheme: Any) -> None:
    """The pictures of README and documentation; in both colour schemes the contrast is at least 4.5 (WCAG 1.4.3)."""
    context.pages[-1].emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 900, "height": 640})

    def picture(name: str) -> None:
        page.wait_for_load_state()  # with the style sheet
        assert page.evaluate(CONTRAST) >= 4.5
        path = screenshots / f"demo-{name}-{scheme}.png"
        page.screenshot(path=path)
        assert path.stat().st_size < LARGEST_PICTURE_BYTES

    picture("login")
    page.locator("[name=username]").focus()
    register(page)
    picture("verified")
    log_in(page, "wrong")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text("Incorrect username or password.")
    picture("error")
    log_in(page)
    titled(page, "Hello, ada")
    picture("home")
    follow(page, "Security")
    fill(page, "Add an authenticator app")
    titled(page, "Authenticator app")
    picture("totp")
    device = pyotp.TOTP(page.locator("p code").first.inner_text())
    fill(page, "Confirm", code=device.now())
    expect(page.get_by_role("status")).to_have_text("The second factor was added.")
    picture("security")
    follow(page, "Devices")
    picture("devices")
    follow(page, "API keys")
    picture("keys")
    follow(page, "Messages")
    picture("messages")
