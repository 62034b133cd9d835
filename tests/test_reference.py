"""The reference has every public name, and nothing else."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import fastapi_guard
from fastapi_guard.cli.app import app as command_line
from test_public_api import NAMES

ROOT = Path(__file__).parent.parent
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")}
DESCRIBED = [name for page in PAGES.values() for name in re.findall(r"^::: ([\w.]+)$", page, flags=re.MULTILINE)]

# Where a user imports from, beside the modules of test_public_api, which export these names and no other.
FROM_MODULES = {
    "fastapi_guard.api_key.database": {"DatabaseAPIKeyAuth"},
    "fastapi_guard.api_key.models": {"APIKey", "APIKeyEvent", "APIKeyMixin", "Base"},
    "fastapi_guard.jwt.remote": {"RemoteKeySet"},
    "fastapi_guard.issuers.auth0": {"Auth0"},
    "fastapi_guard.login.accounts": {"AccountPages", "Accounts", "Invited", "MailedProof", "NewAccount", "Rejected"},
    "fastapi_guard.login.local": {"LocalAuth"},
    "fastapi_guard.login.passwords": {"PasswordHasher"},
    "fastapi_guard.login.refresh": {"RefreshTokens", "TokenPair"},
    "fastapi_guard.login.revocation": {"Revocations"},
    "fastapi_guard.login.session": {"SessionAuth"},
    "fastapi_guard.login.throttle": {"Throttle"},
    "fastapi_guard.stores.sqlalchemy": {"SQLAlchemyStore"},
    "fastapi_guard.stores.redis": {"RedisStore"},
    "fastapi_guard.routers.api_keys": {"api_keys_router", "service_accounts_router"},
    "fastapi_guard.routers.accounts": {"accounts_router"},
    "fastapi_guard.routers.factors": {"factors_router"},
    "fastapi_guard.routers.login": {"login_router"},
    "fastapi_guard.routers.sessions": {"session_router"},
    "fastapi_guard.settings": {"create_auth"},
    "fastapi_guard.app.audit": {"assert_guarded", "guarded_routes"},
    "fastapi_guard.app.starlette": {"GuardBackend", "on_error"},
    "fastapi_guard.app.mcp": {
        "EXPOSED_HEADERS",
        "GuardTokenVerifier",
        "guarded_mcp",
        "guarded_tools",
        "token_verifier",
    },
    "fastapi_guard.app.openapi": {"swagger_login"},
    "fastapi_guard.app.routing": {"GuardedRoute"},
    "fastapi_guard.app.tickets": {"Ticket", "TicketAuth"},
    "fastapi_guard.routers.tickets": {"tickets_router"},
    "fastapi_guard.testing.issuer": {"FakeIssuer"},
    "fastapi_guard.testing.attacks": {"attack_tokens"},
}
# What packages export for each other, not for an application.
INTERNAL = {"Decided", "FlatGuard", "Guard", "Verified"}
INTERNAL |= {"BearerOptions", "CallableScheme", "DPoPScheme", "Scheme", "SchemeCallable"}
INTERNAL |= {"as_scheme", "is_quotable"}
INTERNAL |= {
    "COUNTER",
    "EventCallback",
    "EventName",
    "attributes_of",
    "checked",
    "count",
    "is_logged",
    "logger",
    "place_of",
    "publish",
    "who_of",
}
INTERNAL |= {"known_reason", "record_duration"}


def named(dotted: str) -> object:
    """Return what a dotted name of the reference stands for."""
    module, _, name = dotted.rpartition(".")
    found = getattr(importlib.import_module(module), name, None)
    return importlib.import_module(dotted) if found is None else found


def importable() -> list[str]:
    """Return the names that documents, where a reader sees it, and examples import from the package."""
    sources = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py"), ROOT / "README.md"]
    found = set()
    for source in sources:
        text = re.sub(r"<!--.*?-->", "", source.read_text(encoding="utf-8"), flags=re.DOTALL)
        for module, names in re.findall(r"^from (fastapi_guard[\w.]*) import (\([^)]*\)|.*)$", text, re.MULTILINE):
            found |= {f"{module}.{name}" for name in re.findall(r"\w+", re.sub(r"#.*| as \w+", "", names))}
    return sorted(found)


@pytest.mark.parametrize("module", sorted({**NAMES, **FROM_MODULES}))
def test_the_reference_has_every_public_name(module: str) -> None:
    """Each name that a user imports from a module is described, under that name or the shorter one."""
    described = {id(named(dotted)) for dotted in DESCRIBED}
    public = {**NAMES, **FROM_MODULES}[module]
    assert {name for name in public if id(named(f"{module}.{name}")) not in described} == set()


def test_the_reference_has_what_packages_export() -> None:
    """A name that any package exports is described, or is known to be for the package's own modules."""
    packages = [info.name for info in pkgutil.walk_packages(fastapi_guard.__path__, "fastapi_guard.") if info.ispkg]
    exported = {
        f"{package}.{name}"
        for package in packages
        for name in getattr(importlib.import_module(package), "__all__", ())
        if name not in INTERNAL
    }
    assert exported
    described = {id(named(dotted)) for dotted in DESCRIBED}
    assert {name for name in exported if id(named(name)) not in described} == set()


@pytest.mark.parametrize("dotted", importable())
def test_the_reference_has_what_the_documents_import(dotted: str) -> None:
    """A name that a page or an example imports is described."""
    assert id(named(dotted)) in {id(named(name)) for name in DESCRIBED}


@pytest.mark.parametrize("dotted", DESCRIBED)
def test_what_the_reference_describes(dotted: str) -> None:
    """A name of the reference is there, has a docstring (a type has none), and is described once."""
    described = named(dotted)
    assert dotted == "fastapi_guard.Claims" or getattr(described, "__doc__", None)
    assert DESCRIBED.count(dotted) == 1


def test_the_options_that_docstrings_refer_to() -> None:
    """Keyword arguments that are described once, for several classes, are described where a reader is sent for them."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "fastapi_guard").rglob("*.py")]
    options = {name for source in sources for name in re.findall(r"[Ss]ee (\w+Options)\b", source)}
    assert "ScopesOptions" in options
    assert options - {dotted.rpartition(".")[2] for dotted in DESCRIBED} == set()


def commands(group: Any, *path: str) -> Iterator[tuple[str, str, str]]:
    """Yield each command with its arguments, what it does, and its options, as the page has them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
            continue
        arguments = [
            parameter.metavar or parameter.name.upper()
            for parameter in command.params
            if parameter.param_type_name == "argument"
        ]
        options = [
            parameter.opts[0]
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name != "help"
        ]
        yield " ".join([*path, name, *arguments]), command.help, ", ".join(f"`{option}`" for option in options)


def test_the_command_line() -> None:
    """The page of the command line has each command with its arguments and options, in the words of its help."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| ?(.*?) ?\|$", PAGES["command-line.md"], flags=re.MULTILINE)
    assert rows == list(commands(typer.main.get_command(command_line)))
