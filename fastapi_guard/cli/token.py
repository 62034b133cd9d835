"""``fastapi-guard token``: revoke one, or all of a subject's."""

import sys
from typing import Annotated, Any

import typer

from fastapi_guard.cli.options import AsJSON, database_url, wants_json
from fastapi_guard.cli.output import failures, print_json
from fastapi_guard.cli.records import (
    StorePrefix,
    StoreURLs,
    end_user,
    ended_lines,
    in_store,
    is_database,
)
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.stores import Store

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Tokens.")


@app.callback()
def tokens() -> None:
    """Look after tokens."""


# One refresh token in 64 begins with a hyphen.
@app.command(context_settings={"ignore_unknown_options": True})
def revoke(
    context: typer.Context,
    token: Annotated[
        str | None,
        typer.Argument(help="An access or a refresh token; better leave it out, and it is read from standard input."),
    ] = None,
    *,
    subject: Annotated[
        str | None, typer.Option("--subject", help="All tokens, sessions and API keys of this sub.")
    ] = None,
    jti: Annotated[str | None, typer.Option("--jti", help="The access token with this jti, permanently.")] = None,
    store: StoreURLs = None,
    store_prefix: StorePrefix = None,
    as_json: AsJSON = False,
) -> None:
    """Revoke a token, or all that a subject has, in the store of the application."""
    with failures():
        if token is not None and token.startswith("--"):
            msg = f"there is no option {token.partition('=')[0]}; a token that begins so is read from standard input"
            raise ConfigurationError(msg)
        if sum(option is not None for option in (token, subject, jti)) > 1:
            msg = "name a token, --subject or --jti, one of them"
            raise ConfigurationError(msg)
        urls = store or [url for url in (database_url(context, None),) if url is not None]
        if not urls:
            msg = "which store? Pass --store or set FASTAPI_GUARD_STORE_URL"
            raise ConfigurationError(msg)
        if subject is not None:
            ended, keys = end_user([url for url in urls if is_database(url)], urls, store_prefix, subject)
            answer: dict[str, Any] = {"revoked": "subject", "subject": subject, "ended": ended, "api_keys": keys}
        else:
            if len(urls) > 1:
                msg = "a token is in one store: name several with --subject alone"
                raise ConfigurationError(msg)
            raw = None if jti is not None else (token or sys.stdin.readline()).strip()
            answer = in_store(urls[0], store_prefix, lambda store: _revoked(store, jti, raw))
    if wants_json(context, as_json):
        print_json(answer)
    else:
        typer.echo(f"revoked {answer['revoked']}" if answer["revoked"] else "there was nothing to revoke")
        for line in ended_lines(answer.get("ended", {})):
            typer.echo(line)
        if answer.get("api_keys"):
            typer.echo(f"revoked {answer['api_keys']} API keys")


async def _revoked(store: Store, jti: str | None, raw: str | None) -> dict[str, Any]:
    if jti is not None:
        await Revocations(store).revoke_id(jti)
        return {"revoked": "access token", "jti": jti}
    assert raw is not None  # noqa: S101 - one of them is there
    if raw.count(".") != 2:
        ended = await RefreshTokens(store).revoke(raw)
        return {"revoked": "refresh token" if ended else None}
    # An operator may revoke any jti, so the signature does not matter.
    try:
        claims = decode_object(decode_base64url(split(raw.encode("ascii", "replace"))[2]))
    except MalformedToken:
        msg = "this is not a token that can be read"
        raise ConfigurationError(msg) from None
    await Revocations(store).revoke(claims)
    return {"revoked": "access token", "jti": claims["jti"]}
