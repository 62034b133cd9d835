"""``fastapi-guard check``: the production checklist, checked on an application and its environment."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from fastapi import FastAPI

from fastapi_guard.app.checks import refuse_missing_parameters
from fastapi_guard.app.deploy import SEVERITIES, Deployment, Finding, Severity, in_order, static_findings
from fastapi_guard.app.deploy_services import service_findings
from fastapi_guard.app.routes import Routes
from fastapi_guard.cli.audit import load
from fastapi_guard.cli.options import AsJSON, wants_json
from fastapi_guard.cli.output import fail, failures, print_json
from fastapi_guard.exceptions import ConfigurationError, shown


def check(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Such as main:app.", show_default=False)],
    *,
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Start the application, and check its stores, databases and issuers too.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="How many workers serve it, on all hosts; by default WEB_CONCURRENCY."),
    ] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", metavar="SEVERITY", help="The least severity for exit code 1.")
    ] = "error",
    app_dir: Annotated[str, typer.Option("--app-dir", help="The folder of the module.")] = ".",
    factory: Annotated[bool, typer.Option("--factory", help="MODULE:APP is a function that returns it.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Check an application against the production checklist; exit code 1 where a finding is severe."""
    with failures():
        severe = _severe(fail_on)
        app = load(target, app_dir, factory=factory)
        findings = asyncio.run(_deployed(app, workers)) if deploy else static_findings(Deployment.of(app, workers))
    _report(findings, severe, as_json=wants_json(context, as_json))


def _report(findings: Sequence[Finding], severe: tuple[Severity, ...], *, as_json: bool) -> None:
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            typer.echo(str(finding))
    failing = [finding for finding in findings if finding.severity in severe]
    if failing:
        fail(f"{len(failing)} of {len(findings)} findings are of severity {' or '.join(severe)}")
    typer.echo(f"{len(findings)} findings", err=True)


def _severe(least: str) -> tuple[Severity, ...]:
    if least not in SEVERITIES:
        msg = f"--fail-on is {', '.join(SEVERITIES)}, not {shown(least)}"
        raise ConfigurationError(msg)
    return SEVERITIES[: SEVERITIES.index(least) + 1]


async def _deployed(app: FastAPI, workers: int | None) -> list[Finding]:
    refuse_missing_parameters(Routes(app))
    async with app.router.lifespan_context(app):
        deployment = Deployment.of(app, workers)
        try:
            return in_order([*static_findings(deployment), *await service_findings(deployment)])
        finally:
            for store in deployment.all("RedisStore", "RedisClusterStore"):
                await store.aclose()
