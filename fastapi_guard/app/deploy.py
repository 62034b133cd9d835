"""The production checklist, checked on an application: the findings of ``fastapi-guard check``.

``static_findings`` reads the application, ``deploy_services`` calls its stores. Each finding has a remedy and the
section of the documentation that explains it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from logging import INFO
from time import time
from typing import Any, Final, Literal

from fastapi import FastAPI

from fastapi_guard.app.audit import audited, overridden_in, routes_of_app
from fastapi_guard.app.collaborators import collaborators_of, is_a
from fastapi_guard.app.configure import configuration_of
from fastapi_guard.events import is_logged
from fastapi_guard.jwt.algorithms import SYMMETRIC

Severity = Literal["error", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "info")

_CHECKLIST: Final = "how-to/production.md"
_DAY: Final = 86_400
_OLD_KEY_DAYS: Final = 180
_SOON_DAYS: Final = 14
_LONG_SECONDS: Final = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        check: The name of the check, such as "memory-store".
        severity: "error" where it should not be deployed, "warning" for a risk, "info" for a decision to confirm.
        message: What was found.
        remedy: What to do.
        link: The page of the documentation, with its section.
    """

    check: str
    severity: Severity
    message: str
    remedy: str
    link: str

    def as_dict(self) -> dict[str, str]:
        """Return it as a dict of what JSON has."""
        return asdict(self)

    def __str__(self) -> str:
        """Return it as lines of a report."""
        return f"{self.severity:8} {self.check}: {self.message}\n         {self.remedy} ({self.link})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """An application with what surrounds it.

    Attributes:
        app: The application.
        workers: How many worker processes serve it, on all hosts; ``None`` where that is not known.
        parts: The objects of this package that it uses.
    """

    app: FastAPI
    workers: int | None
    parts: Sequence[Any]

    @classmethod
    def of(cls, app: FastAPI, workers: int | None = None) -> "Deployment":
        """Return the deployment of ``app``; without ``workers`` their number is that of ``WEB_CONCURRENCY``."""
        named = os.environ.get("WEB_CONCURRENCY", "")
        number = int(named) if workers is None and named.isdecimal() else workers
        return cls(app=app, workers=number, parts=collaborators_of(app))

    def all(self, *names: str) -> list[Any]:
        """Return the parts of these classes."""
        return [part for part in self.parts if is_a(part, *names)]

    @property
    def severity_of_memory(self) -> Severity:
        """How bad it is that a part keeps its state in the memory of one process."""
        return "warning" if self.workers in (None, 1) else "error"


def found(check: str, severity: Severity, message: str, remedy: str, link: str) -> Finding:
    """Return a finding."""
    return Finding(check=check, severity=severity, message=message, remedy=remedy, link=link)


def static_findings(deployment: Deployment) -> list[Finding]:
    """Return what the application itself shows, the most severe first."""
    return in_order([finding for check in _CHECKS for finding in check(deployment)])


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, each once, the most severe first."""
    return sorted(dict.fromkeys(findings), key=lambda finding: SEVERITIES.index(finding.severity))


def _ways_in(deployment: Deployment) -> Iterator[Finding]:
    link = "how-to/audit.md#findings"
    for route in audited(deployment.app):
        for text in route.findings:
            remedy = "guard it, or list it in configure_app(app, public=[...])"
            yield found("ways-in", "error", f"{route.method} {route.path}: {text}", remedy, link)
    configuration = configuration_of(deployment.app)
    if configuration is None or configuration.unguarded != "refuse":
        remedy = 'call configure_app(app, unguarded="refuse", public=[...])'
        text = "the application starts with a route that is not guarded"
        yield found("ways-in", "warning", text, remedy, f"{_CHECKLIST}#application")
    routes = routes_of_app(deployment.app)
    pages = routes.documentation - {way.path for way in routes.ways if way.is_guarded}
    if pages:
        text = f"every caller can read {', '.join(sorted(pages))}"
        remedy = 'guard them with configure_app(app, docs=auth.requires("docs:read")), or switch them off'
        yield found("documentation", "info", text, remedy, "how-to/guard-docs.md")
    if overridden := overridden_in(routes):
        text = f"app.dependency_overrides replaces {', '.join(overridden)}"
        yield found("overrides", "error", text, "override dependencies in tests alone", f"{_CHECKLIST}#application")
    if deployment.app.debug:
        text = "debug=True shows tracebacks to clients"
        yield found("debug", "error", text, "leave debug out of FastAPI(...)", f"{_CHECKLIST}#application")


def _tokens(deployment: Deployment) -> Iterator[Finding]:
    link = f"{_CHECKLIST}#keys-and-tokens"
    for config in deployment.all("JWTConfig"):
        if config.issuer_url is None or not config.rules.audiences:
            text = "a JWTConfig has no issuer_url or no audience: a token of another service with its key is accepted"
            yield found("audience", "warning", text, "set issuer_url and audience", link)
        if config.expiration_seconds is None:
            text = "tokens without exp are issued and accepted"
            yield found("lifetime", "error", text, "set expiration_seconds", link)
        elif config.can_sign and config.expiration_seconds > _LONG_SECONDS:
            text = f"access tokens are valid for {config.expiration_seconds} s, and cannot be taken back"
            yield found("lifetime", "warning", text, "issue them for minutes, beside refresh tokens", link)
        if not SYMMETRIC.isdisjoint(config.algorithms):
            text = f"{', '.join(config.algorithms)}: every service that verifies these tokens can issue them too"
            remedy = "sign with ES256 where others verify"
            yield found("algorithms", "info", text, remedy, "how-to/jwt-configuration.md")
        if config.can_sign and not is_a(config.key, "KeyFile") and deployment.workers != 1:
            text = "a signing key is not from a key file: workers that generate their own reject each other's tokens"
            yield found("signing-key", "info", text, "read it from a file or the environment", "how-to/key-files.md")


def _key_files(deployment: Deployment) -> Iterator[Finding]:
    for file in deployment.all("KeyFile"):
        try:
            days = (time() - file.path.stat().st_mtime) / _DAY
        except OSError as error:
            text = f"the key file {file.path} cannot be read: {error.strerror}"
            yield found("key-file", "error", text, "fastapi-guard jwk generate", "how-to/key-files.md")
            continue
        if days > _OLD_KEY_DAYS:
            text = f"the keys in {file.path} were last rotated {days:.0f} days ago"
            yield found("key-age", "warning", text, "fastapi-guard jwk rotate", "how-to/key-rotation.md")


def _api_keys(deployment: Deployment) -> Iterator[Finding]:
    for auth in deployment.all("DatabaseAPIKeyAuth"):
        if not any(is_a(part, "Peppers") and part for part in deployment.parts):
            text = f"{auth.name}: keys are stored without a pepper"
            remedy = "pass peppers={...} from the environment"
            yield found("pepper", "warning", text, remedy, "how-to/rotating-api-keys.md#peppers")
    for key in deployment.all("StaticKey"):
        left = None if key.expires_at is None else key.expires_at - time()
        if left is not None and left < _SOON_DAYS * _DAY:
            moment = "has expired" if left < 0 else f"expires in {left / _DAY:.0f} d"
            text = f"an API key of {key.claims['sub']} {moment}"
            yield found("key-age", "warning", text, "replace it", "how-to/static-api-keys.md")


def _memory(deployment: Deployment) -> Iterator[Finding]:
    severity, link = deployment.severity_of_memory, f"{_CHECKLIST}#state"
    # A login without factors keeps nothing that another worker has to know.
    unused = {id(login.store) for login in deployment.all("Login") if not getattr(login.factors, "_strengths", True)}
    sharing = deployment.all("SessionAuth", "RefreshTokens", "Revocations")
    unused -= {id(getattr(part, "_store", None)) for part in sharing}
    if any(id(store) not in unused for store in deployment.all("MemoryStore")):
        text = f"a MemoryStore is lost at a restart, and each worker has its own ({_workers(deployment)})"
        yield found("memory-store", severity, text, "use SQLAlchemyStore or RedisStore", link)
    if deployment.all("MemoryWindows"):
        text = f"a Throttle counts in each worker separately ({_workers(deployment)})"
        yield found("memory-throttle", severity, text, "pass storage=, the URL of a Redis", link)
    unlimited = [limits.name for limits in deployment.all("LoginLimits") if None in (limits.account, limits.address)]
    if unlimited:
        text = f"{', '.join(unlimited)}: passwords and codes can be tried without a limit"
        yield found("throttle", "error", text, "set both limits of LoginLimits", "how-to/throttling.md")


def _cookies(deployment: Deployment) -> Iterator[Finding]:
    for settings in deployment.all("CookieSettings"):
        if not settings.secure:
            text = f"the cookie {settings.name} is sent over http"
            yield found("cookie", "error", text, "leave secure=False out, and serve https", "how-to/sessions.md")
        elif not settings.name.startswith("__Host-"):
            text = f"another host of the domain can set the cookie {settings.name}"
            yield found("cookie", "warning", text, "name it __Host-...", "how-to/sessions.md")
        if settings.samesite == "none":
            text = f"every site can have browsers send the cookie {settings.name}"
            yield found("cookie", "warning", text, 'use samesite="lax"', "how-to/sessions.md")


def _proxies(deployment: Deployment) -> Iterator[Finding]:
    names = ("_trusted_proxies", "trusted_proxies")
    values = [getattr(part, name, None) for part in deployment.parts for name in names]
    counts = {value for value in values if isinstance(value, int)}
    if len(counts) > 1:
        text = f"trusted_proxies is {' and '.join(map(str, sorted(counts)))} in different places"
        yield found("proxies", "warning", text, "set one number everywhere", "how-to/throttling.md#behind-proxies")


def _monitoring(deployment: Deployment) -> Iterator[Finding]:
    del deployment
    if not is_logged(INFO):
        text = "the logger fastapi_guard is not at INFO: refusals are not logged"
        remedy = 'logging.getLogger("fastapi_guard").setLevel(logging.INFO)'
        yield found("logging", "warning", text, remedy, f"{_CHECKLIST}#monitoring")


def _workers(deployment: Deployment) -> str:
    return "the number of workers is not known" if deployment.workers is None else f"{deployment.workers} workers"


_CHECKS: Final[tuple[Callable[[Deployment], Iterator[Finding]], ...]] = (
    _ways_in,
    _tokens,
    _key_files,
    _api_keys,
    _memory,
    _cookies,
    _proxies,
    _monitoring,
)
