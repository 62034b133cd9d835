"""The single-page application, copied to an empty folder: its page, logins, providers, and the refresh cookie."""

import importlib
import re
import shutil
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from fastapi_guard.cli.app import app as commands
from fastapi_guard.testing.issuer import FakeIssuer
from fastapi_guard.testing.site import Site
from fastapi_guard.testing.site_attacks import site_attacks
from support.factors import KEY, totp_code
from support.login import PASSWORD
from support.passwords import quick_hasher
from support.providers import parameters_of

SOURCE = Path(__file__).parents[2] / "examples" / "spa"
SITE = "https://notes.example"
CREDENTIALS = {"username": "ada@example.com", "password": PASSWORD}


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    """Serve a provider."""
    issuer = FakeIssuer(audience="notes")
    with issuer.serve():
        yield issuer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Copy the example to an empty folder."""
    shutil.copytree(SOURCE, tmp_path / "spa", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("fastapi_guard.login.login.PasswordHasher", quick_hasher)
    for name, value in {"KEY": KEY, "SITE": SITE}.items():
        monkeypatch.setenv(f"SPA_{name}", value)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "spa"]:
        del sys.modules[name]


def served(folder: Path) -> ModuleType:
    """Return the application of the copy."""
    main = importlib.import_module("spa.main")
    assert main.__file__ == str(folder / "spa" / "main.py")
    return main


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    """Return a browser of the application, which has one user and no provider."""
    for command in (["init-db"], ["users", "create", "ada@example.com"]):
        ran = CliRunner().invoke(commands, [*command, "--database-url", "sqlite:///spa.db"], input=PASSWORD)
        assert ran.exit_code == 0, ran.output
    with TestClient(served(folder).app, base_url=SITE) as started:
        yield started


@pytest.fixture
def with_provider(folder: Path, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Return a browser of the application, which has a provider and no user."""
    for name, value in {"ISSUER": issuer.url, "CLIENT_ID": "notes", "CLIENT_SECRET": "a secret of the client"}.items():
        monkeypatch.setenv(f"SPA_{name}", value)
    with TestClient(served(folder).app, base_url=SITE) as started:
        yield started


def bearer(answer: Any) -> dict[str, str]:
    """Return the header field with the access token of an answer, which has no refresh token."""
    assert answer.status_code == 200, answer.text
    assert sorted(answer.json()) == ["access_token", "expires_in", "token_type"]
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.mark.parametrize("path", ["/", "/signed-in/acme?code=x&state=y"])
def test_the_page(client: TestClient, path: str) -> None:
    """The page has one script and one style, which the policy names by their hashes, and nothing of another host."""
    answer = client.get(path)
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    directives = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    for directive, element in (("script-src", "script"), ("style-src", "style")):
        [text] = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", answer.text, flags=re.DOTALL)
        assert directives[directive] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
    assert directives["default-src"] == "'none'"
    assert directives["frame-ancestors"] == "'none'"
    assert re.findall(r"https?:|//[a-z]|\son\w+=|\sstyle=|innerHTML", answer.text.replace("// ", "")) == []
    assert len(answer.content) < 30 * 1024


def test_a_login(client: TestClient) -> None:
    """The refresh token is in a cookie for the page alone, which logging out ends."""
    answer = client.post("/login", json=CREDENTIALS)
    token = bearer(answer)
    name, _, attributes = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-refresh-local"
    assert attributes.partition("; ")[2] == "HttpOnly; Max-Age=1209600; Path=/; SameSite=strict; Secure"
    assert client.post("/notes", json={"text": "a loom"}, headers=token).status_code == 201
    assert client.get("/notes", headers=bearer(client.post("/token/refresh"))).json() == [{"text": "a loom"}]
    assert client.get("/me", headers=token).json()["amr"] == ["pwd"]
    forged = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    refused = client.post("/token/refresh", headers=forged)
    assert (refused.status_code, refused.json()["detail"]) == (400, "Forbidden")
    cookie = client.cookies["__Host-refresh-local"]
    assert client.post("/logout", headers=token).status_code == 204
    assert "__Host-refresh-local" not in client.cookies
    client.cookies.set("__Host-refresh-local", cookie)
    assert client.post("/token/refresh").status_code == 400


def test_attacks_on_tokens(client: TestClient) -> None:
    """No token is valid after the logout of its login, or after one that was used twice."""

    def another() -> TestClient:
        browser = TestClient(client.app, base_url=SITE, follow_redirects=False)
        browser.portal = client.portal
        return browser

    site = Site(client=another, username="ada@example.com", password=PASSWORD)
    for attack in site_attacks("tokens"):
        attack.on(site)


def test_a_second_step(client: TestClient) -> None:
    """With two-factor turned on, the password leads to the second step alone, and a recovery code works once."""
    token = bearer(client.post("/login", json=CREDENTIALS))
    begun = client.post("/factors/totp", json={}, headers=token).json()
    assert begun["qr"].startswith("<svg")
    confirmation = {"enrolment": begun["enrolment"], "code": totp_code(begun["secret"], time.time())}
    assert client.post("/factors/confirm", json=confirmation, headers=token).status_code == 200
    codes = client.post("/factors/recovery", json={}, headers=token).json()["codes"]
    for status in (200, 401):
        needed = client.post("/login", json=CREDENTIALS)
        assert (needed.status_code, needed.json()["factors"]) == (202, ["recovery", "totp"])
        assert "set-cookie" not in needed.headers
        proof = {"pending": needed.json()["pending"], "code": codes[0]}
        assert client.post("/login/recovery", json=proof).status_code == status


def test_without_a_provider(client: TestClient) -> None:
    """Without a provider there is no route for one, and the page has no button."""
    assert client.get("/providers").status_code == 404


def test_a_provider(with_provider: TestClient, issuer: FakeIssuer) -> None:
    """The page begins and finishes a sign-in; the refresh token is in the same cookie as after a password."""
    client = with_provider
    assert client.get("/providers").json() == ["acme"]
    url = client.post("/providers/acme/start", json={}).json()["authorization_url"]
    back = issuer.authorize(url, sub="u-1")
    assert back.startswith(f"{SITE}/signed-in/acme?")
    assert client.get(back).status_code == 200
    answer = client.post("/providers/acme/finish", json=parameters_of(back))
    assert client.get("/me", headers=bearer(answer)).json()["amr"] == ["fed"]
    assert client.get("/me", headers=bearer(client.post("/token/refresh"))).json()["amr"] == ["fed"]
    assert client.post("/providers/acme/finish", json=parameters_of(back)).status_code == 401


def test_a_linked_provider(with_provider: TestClient, issuer: FakeIssuer) -> None:
    """A user who is logged in links another identity; the answer is empty."""
    client = with_provider
    url = client.post("/providers/acme/start", json={}).json()["authorization_url"]
    token = bearer(client.post("/providers/acme/finish", json=parameters_of(issuer.authorize(url, sub="u-1"))))
    url = client.post("/identities/acme/start", headers=token).json()["authorization_url"]
    linked = client.post("/providers/acme/finish", json=parameters_of(issuer.authorize(url, sub="u-2")))
    assert (linked.status_code, linked.content) == (204, b"")
    assert len(client.get("/identities", headers=token).json()) == 2
