"""Inputs of a login: tickets in a query, credentials of passkeys, mailed secrets; and lockfiles."""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection

from fastapi_guard import ConfigurationError, Unauthorized
from fastapi_guard.app.lock import Authorization
from fastapi_guard.app.ticket_scheme import TicketScheme
from fastapi_guard.login.keyring import mailing_keys
from fastapi_guard.login.mailed_secrets import Issued, Mailed, MailedSecrets
from fastapi_guard.login.relying_party import RelyingParty, presented_in
from fastapi_guard.stores import MemoryStore
from support.asgi import scope_of
from support.factors import KEY

BASE64URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
TICKET = f"{'A' * 43}.e30"
SITE = RelyingParty("shop.example", ["https://shop.example"], "Shop")
NAMES = {"{token}": "token", "{code}": "code"}
PURPOSES = ("reset_password", "log_in")


async def check_ticket(raw: bytes) -> None:
    """A ticket is found where one parameter has its form, and no query keeps one."""
    scope = scope_of("/", [], query=raw)
    connection = HTTPConnection(scope)
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    values = [value for name, value in pairs if name == "ticket"]
    try:
        found = TicketScheme().extract(connection)
    except Unauthorized:
        assert len(values) > 1 or not is_ticket(values[0]), values
    else:
        assert found == (values[0] or None if values else None), values
        assert found is None or is_ticket(found), found
    left = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace")
    assert [pair for pair in pairs if pair[0] != "ticket"] == left, left


def is_ticket(text: str) -> bool:
    """Return whether a text has the form of a ticket, character by character."""
    identity, dot, claims = text.partition(".")
    right = len(identity) == 43 and bool(dot) and bool(claims) and len(text) <= 4096
    return right and BASE64URL.issuperset(identity + claims)


async def check_credential(raw: bytes) -> None:
    """Any JSON of a credential is parsed or refused, and none of it proves anything by itself."""
    try:
        credential = json.loads(raw)
    except (ValueError, RecursionError):
        return
    presented = presented_in({"credential": credential})
    if presented is None:
        return
    response = credential["response"]
    client = json.loads(b64decode(f"{response['clientDataJSON']}==", b"-_"))
    assert client.get("crossOrigin", False) is False
    assert "topOrigin" not in client
    assert 0 < len(presented.credential_id) <= 1023
    assert SITE.registered(presented, b"handle") is None


async def check_secret(raw: bytes) -> None:
    """A mailed secret is found by its own text and for its purpose alone."""
    store = MemoryStore(clock=lambda: 0)
    secrets = MailedSecrets(store, mailing_keys(KEY), name="login", clock=lambda: 0)
    mailed = Mailed(purpose="reset_password", subject="ada", address="ada@example.com")
    issued = await secrets.issue(mailed, "browser")
    assert issued is not None
    text = raw.decode("utf-8", "surrogateescape")
    for name, attribute in NAMES.items():
        text = text.replace(name, str(getattr(issued, attribute)))
    for purpose in PURPOSES:
        for presented in ({"token": text}, {"code": text}, {"token": text, "handle": "browser"}):
            found = await secrets.present(purpose, **presented)  # type: ignore[arg-type]
            assert (found is not None) == (purpose == "reset_password" and is_secret(presented, issued)), presented
    by_code = await secrets.present("reset_password", code=text, handle="browser")
    digits = "".join(character for character in text if character not in " \t\r\n-")
    assert (by_code is not None) == (digits == issued.code and len(text) <= 32), text


def is_secret(presented: Mapping[str, Any], issued: Issued) -> bool:
    """Return whether what is presented without a handle is the secret of the link."""
    return bool(presented.get("token") == issued.token)


async def check_lock(raw: bytes) -> None:
    """A lockfile that is accepted is written as it is read; any other is an error with a reason."""
    try:
        read = Authorization.parse(raw.decode("utf-8", "replace"))
    except ConfigurationError as error:
        assert "lockfile" in str(error)  # noqa: PT017 - the fuzzer runs without pytest
        return
    assert Authorization.parse(read.text) == read
