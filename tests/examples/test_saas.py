"""Tenants, invitations, roles, service keys and step-up in one application, and the operators' commands on it."""

import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import time_machine
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from fastapi_guard.cli.app import app as commands
from fastapi_guard.jwt.key_file import KeyFile
from support.factors import KEY
from support.login import PASSWORD
from support.passwords import quick_hasher

SOURCE = Path(__file__).parents[2] / "examples" / "saas"
SITE = "https://saas.example"
PROJECTS = "/tenants/acme/projects"
ACCOUNT = "/tenants/acme/service-accounts/ci/keys"
READS = 'dependencies=[auth.requires("projects:read")]'


@pytest.fixture
def saas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the application in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("fastapi_guard.login.login.PasswordHasher", quick_hasher)
    monkeypatch.setenv("SAAS_SITE", SITE)
    monkeypatch.setenv("FASTAPI_GUARD_STORE_URL", f"sqlite+aiosqlite:///{tmp_path}/saas.db")
    monkeypatch.setenv("FASTAPI_GUARD_MAIL_KEY", json.dumps({"1": KEY}))
    KeyFile("saas-keys.json").generate()
    yield importlib.import_module("saas.main")
    # The next test has an application of its own, on another database.
    for name in [name for name in sys.modules if name.partition(".")[0] in ("saas", "loosened_saas")]:
        del sys.modules[name]


@pytest.fixture
def client(saas: ModuleType) -> Iterator[TestClient]:
    """Return a client of the application, which is started."""
    with TestClient(saas.app, base_url=SITE) as started:
        yield started


def run(*arguments: str, text: str = "") -> Result:
    """Run a command of the operator."""
    return CliRunner().invoke(commands, arguments, input=text)


def bearer(token: str) -> dict[str, str]:
    """Return the header field with a token or a key."""
    return {"Authorization": f"Bearer {token}"}


def accept(client: TestClient, link: str, email: str) -> str:
    """Accept an invitation, log in, and return the access token."""
    body = {"token": link.strip().partition("#token=")[2], "password": PASSWORD}
    assert client.post("/invitations/accept", json=body).status_code == 204
    answer = client.post("/token", data={"username": email, "password": PASSWORD})
    assert answer.status_code == 200
    return str(answer.json()["access_token"])


def owner(client: TestClient, tenant: str = "acme") -> str:
    """Return the access token of the first owner of a tenant, whom the operator invites."""
    email = f"owner@{tenant}.example"
    invited = run("users", "invite", email, "--site", SITE, "--role", f"{tenant}:owner")
    assert invited.exit_code == 0, invited.output
    return accept(client, invited.stdout, email)


def mailed_link(
    saas: ModuleType,
    client: TestClient,
    capsys: pytest.CaptureFixture[str],
    caller: dict[str, str],
    email: str,
    role: str,
) -> str:
    """Invite a user with a role, and return the link of the message."""
    answer = client.post("/invitations", json={"email": email, "roles": [role]}, headers=caller)
    assert answer.status_code == 202
    assert client.portal is not None
    client.portal.call(saas.accounts.outbox.drain)
    (link,) = re.findall(r"https://\S+#token=\S+", capsys.readouterr().err)
    return str(link)


@pytest.fixture
def ada(client: TestClient) -> dict[str, str]:
    """Return the credential of the owner of a tenant."""
    return bearer(owner(client))


@pytest.fixture
def invite(saas: ModuleType, client: TestClient, ada: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that invites a user with a role, and returns the credential."""

    def invited(role: str) -> dict[str, str]:
        email = f"{role}@acme.example"
        return bearer(accept(client, mailed_link(saas, client, capsys, ada, email, f"acme:{role}"), email))

    return invited


def create(client: TestClient, caller: dict[str, str], path: str = PROJECTS) -> str:
    """Create a project, and return its path."""
    made = client.post(path, json={"name": "engine"}, headers=caller)
    assert made.status_code == 201
    return f"{path}/{made.json()['id']}"


def test_roles_and_owners(client: TestClient, ada: dict[str, str], invite: Any) -> None:
    """An invited user has the role in the tenant; editors rename their own projects, owners all, readers none."""
    grace, alan = invite("editor"), invite("reader")
    assert client.get("/account", headers=grace).json()["roles"] == ["acme:editor"]
    first, second = create(client, ada), create(client, grace)
    new = {"name": "compiler"}
    seen = [client.put(second, json=new, headers=caller).status_code for caller in (grace, ada, alan, {})]
    assert seen == [200, 200, 403, 401]
    assert client.put(first, json=new, headers=grace).status_code == 403
    assert client.post(PROJECTS, json=new, headers=alan).status_code == 403
    listed = client.get(PROJECTS, headers=alan).json()
    assert sorted(project["name"] for project in listed) == ["compiler", "engine"]


def test_another_tenant(client: TestClient, ada: dict[str, str]) -> None:
    """The owner of another tenant is refused below this one, and finds no project of it below the own one."""
    eve, project = bearer(owner(client, "evil")), create(client, ada)
    assert client.get(PROJECTS, headers=eve).status_code == 403
    assert client.put(project, json={"name": "x"}, headers=eve).status_code == 403
    assert client.post(ACCOUNT, json={"scopes": ["projects:read"]}, headers=eve).status_code == 403
    below_own = project.replace("acme", "evil")
    assert client.put(below_own, json={"name": "x"}, headers=eve).status_code == 404
    assert client.get("/tenants/evil/projects", headers=eve).json() == []


@pytest.mark.parametrize(
    "rights",
    [
        {"roles": ["acme:reader", "evil:reader"]},
        {"roles": ["acme:superuser"]},
        {"roles": ["owner"]},
        {"roles": ["acme:reader"], "scopes": ["projects:read"]},
        {"roles": ["acme:reader"], "tenant_id": "evil"},
        {},
    ],
    ids=["tenant", "role", "no-tenant", "scope", "tenant-id", "nothing"],
)
def test_an_invitation_that_gives_more(client: TestClient, ada: dict[str, str], rights: dict[str, Any]) -> None:
    """An owner invites into tenants of the own alone, with roles of the application and without scopes."""
    answer = client.post("/invitations", json={"email": "eve@evil.example", **rights}, headers=ada)
    assert (answer.status_code, answer.json()["detail"]) == (403, "Forbidden")


def test_a_member_of_two_tenants(
    saas: ModuleType, client: TestClient, ada: dict[str, str], invite: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user who joins another tenant has a role of its own in each, with the token of before."""
    grace, eve = invite("editor"), bearer(owner(client, "other"))
    link = mailed_link(saas, client, capsys, eve, "editor@acme.example", "other:reader")
    joined = client.post("/invitations/join", json={"token": link.partition("#token=")[2]}, headers=grace)
    assert joined.status_code == 204
    create(client, grace)
    elsewhere = "/tenants/other/projects"
    assert client.get(elsewhere, headers=grace).json() == []
    refused = client.post(elsewhere, json={"name": "x"}, headers=grace)
    assert (refused.status_code, refused.json()["detail"]) == (403, "Token is missing required scope: projects:edit")
    members = ("/tenants/acme/members/editor@acme.example", "/tenants/other/members/editor@acme.example")
    assert [client.delete(path, headers=eve).status_code for path in members] == [403, 204]
    assert [client.get(path, headers=grace).status_code for path in (PROJECTS, elsewhere)] == [200, 403]


def test_the_end_of_a_membership(saas: ModuleType, client: TestClient, ada: dict[str, str], invite: Any) -> None:
    """An owner removes other members, at once; not the own membership, and not while the user changes."""
    grace = invite("editor")
    path = "/tenants/acme/members/{}".format
    removed = [
        client.delete(path(email), headers=ada).status_code for email in ("x@acme.example", "owner@acme.example")
    ]
    assert removed == [404, 409]
    assert client.delete(path("owner@acme.example"), headers=grace).status_code == 403
    update, saas.users.update = saas.users.update, never_updated
    assert client.delete(path("editor@acme.example"), headers=ada).status_code == 409
    saas.users.update = update
    assert client.get(PROJECTS, headers=grace).status_code == 200
    assert client.delete(path("editor@acme.example"), headers=ada).status_code == 204
    assert client.delete(path("editor@acme.example"), headers=ada).status_code == 404
    assert client.get(PROJECTS, headers=grace).status_code == 403


async def never_updated(expected: Any, new: Any) -> bool:
    """Answer as where another request changes the user first, each time."""
    return False


def test_a_user_who_is_gone(client: TestClient, ada: dict[str, str], invite: Any) -> None:
    """A token of a deleted account is refused, although it has not expired."""
    grace = invite("editor")
    assert client.post("/account/delete", json={"password": PASSWORD}, headers=grace).status_code == 204
    assert client.get(PROJECTS, headers=grace).status_code == 401


def test_a_disabled_user(saas: ModuleType, client: TestClient, ada: dict[str, str], invite: Any) -> None:
    """A user whom something else than the package has disabled is refused at the next request."""
    grace = invite("editor")
    assert client.portal is not None
    user = client.portal.call(saas.login.find, "editor@acme.example")
    assert client.portal.call(saas.users.update, user, replace(user, disabled=True))
    refused = client.get(PROJECTS, headers=grace)
    assert (refused.status_code, refused.json()["detail"]) == (401, "The access token is invalid")


def test_a_service_key(client: TestClient, ada: dict[str, str], invite: Any) -> None:
    """A key of the tenant works on the routes of users, within its scopes, and cannot do what needs a login."""
    grace = invite("editor")
    body = {"name": "deploy", "scopes": ["projects:read"]}
    assert client.post(ACCOUNT, json=body, headers=grace).status_code == 403
    made = client.post(ACCOUNT, json=body, headers=ada)
    assert made.status_code == 201
    key = bearer(made.json()["key"])
    assert client.get(PROJECTS, headers=key).status_code == 200
    refused = client.post(PROJECTS, json={"name": "x"}, headers=key)
    assert (refused.status_code, "projects:edit" in refused.json()["detail"]) == (403, True)
    assert client.get("/tenants/evil/projects", headers=key).status_code == 403
    assert client.delete(PROJECTS, headers=key).status_code == 403
    guest = {"email": "x@acme.example", "roles": ["acme:reader"]}
    assert [client.post("/invitations", json=guest, headers=caller).status_code for caller in (key, grace)] == [
        401,
        403,
    ]


def test_step_up(client: TestClient) -> None:
    """Projects are deleted after a recent login only, which the password renews."""
    with time_machine.travel(1_800_000_000, tick=False) as traveller:
        ada = bearer(owner(client))
        create(client, ada)
        traveller.shift(320)
        refused = client.delete(PROJECTS, headers=ada)
        assert refused.status_code == 401
        assert 'error="insufficient_user_authentication"' in refused.headers["www-authenticate"]
        proof = {"factor": "password", "password": PASSWORD}
        renewed = client.post("/login/step-up", json=proof, headers=ada).json()
        ada = bearer(renewed["access_token"])
        assert client.delete(PROJECTS, headers=ada).status_code == 204
        assert client.get(PROJECTS, headers=ada).json() == []


def test_the_lockfile(saas: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lockfile passes, and a copy of the application without one guard fails it."""
    lock = str(tmp_path / "authz.lock")
    assert run("audit", "saas.main:app", "--lock", lock).exit_code == 0
    assert run("audit", "saas.main:app", "--lock", lock, "--check").exit_code == 0
    copy = tmp_path / "loosened_saas"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "projects.py").read_text()
    assert text.count(READS) == 1
    (copy / "projects.py").write_text(text.replace(READS, "dependencies=[]"))
    importlib.invalidate_caches()
    # A second application in this process has a database of its own.
    monkeypatch.setenv("FASTAPI_GUARD_STORE_URL", f"sqlite+aiosqlite:///{tmp_path}/loosened.db")
    loosened = run("audit", "loosened_saas.main:app", "--lock", lock, "--check")
    assert loosened.exit_code == 1
    assert "! weakened  GET /tenants/{tenant}/projects\n" in loosened.stdout
    assert "1 weakened" in loosened.stderr


def test_explain_check_and_inspect(saas: ModuleType) -> None:
    """A refusal is explained with what would do, the checklist has no error, and a token is accepted by its Auth."""
    with TestClient(saas.app, base_url=SITE) as client:
        token = owner(client)
    allowed = run("explain", "saas.main:app", "GET", PROJECTS, "--token", "-", "--json", text=token)
    assert json.loads(allowed.stdout)["allowed"] is True
    other = run("explain", "saas.main:app", "GET", "/tenants/evil/projects", "--token", "-", "--json", text=token)
    found = json.loads(other.stdout)
    refused = [check for check in found["checks"] if check["passed"] is False]
    assert (other.exit_code, refused[0]["status"], refused[0]["reason"]) == (1, 403, "other_tenant")
    checked = run("check", "saas.main:app", "--workers", "1", "--json")
    assert (checked.exit_code, "error" in {row["severity"] for row in json.loads(checked.stdout)}) == (0, False)
    inspected = run("token", "inspect", "-", "--app", "saas.main:app", "--json", text=token)
    verdicts = {row["auth"]: row["accepted"] for row in json.loads(inspected.stdout)["verdicts"]}
    assert (inspected.exit_code, verdicts["local"]) == (0, True)
