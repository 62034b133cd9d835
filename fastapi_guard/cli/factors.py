"""``fastapi-guard factors``: encrypt the secrets of second factors with another key."""

from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_guard.cli.options import AsJSON, DatabaseURL, database_url, secrets_in, wants_json
from fastapi_guard.cli.output import failures, print_json
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable
from fastapi_guard.login.enrolled import DatabaseFactors, EnrolledFactor

if TYPE_CHECKING:
    from fastapi_guard.login.totp import TOTP

KEYS_VARIABLE = "FASTAPI_GUARD_TOTP_KEYS"
_ATTEMPTS = 5

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Second factors in a database.")


@app.command()
def rekey(
    context: typer.Context,
    *,
    url: DatabaseURL = None,
    as_json: AsJSON = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
) -> None:
    """Encrypt TOTP secrets with the first key of FASTAPI_GUARD_TOTP_KEYS, a JSON object of keys by id."""

    async def work(factors: DatabaseFactors) -> dict[str, int]:
        from fastapi_guard.login.totp import TOTP  # noqa: PLC0415 - the other commands need no such extra

        totp = TOTP(key=keys, issuer="rekey")
        counts = {"factors": 0, "rekeyed": 0}
        for found in await factors.every(totp.name):
            counts["factors"] += 1
            factor = found
            for _ in range(_ATTEMPTS):
                rekeyed = _rekeyed(totp, factor)
                if rekeyed is None:
                    break
                if dry_run or await factors.replace(factor, rekeyed):
                    counts["rekeyed"] += 1
                    break
                # A login stored its moment, or the user renamed it.
                current = await factors.get(factor.id)
                if current is None:
                    break
                factor = current
        return counts

    with failures():
        from fastapi_guard.cli.database import FACTORS, run  # noqa: PLC0415 - so that --help needs no extra

        keys = secrets_in(KEYS_VARIABLE)
        counts = run(database_url(context, url), lambda factory: work(DatabaseFactors(factory)), tables=FACTORS)
        if wants_json(context, as_json):
            print_json(counts)
        else:
            verb = "would be encrypted" if dry_run else "encrypted"
            typer.echo(f"{counts['factors']} TOTP secrets, {counts['rekeyed']} {verb} with the first key")


def _rekeyed(totp: "TOTP", factor: EnrolledFactor) -> EnrolledFactor | None:
    try:
        return totp.rekey(factor)
    except ServiceUnavailable:
        msg = f"a secret is encrypted with a key that is not in {KEYS_VARIABLE}: add it behind the first"
        raise ConfigurationError(msg) from None
