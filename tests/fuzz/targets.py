"""Fuzz targets: each accepts any bytes, and raises where the package differs from a slow and plain reading."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fuzz import keys, logins, logouts, proofs, requests, scopes, tokens

CORPUS = Path(__file__).parent / "corpus"
TARGETS: dict[str, Callable[[bytes], Awaitable[None]]] = {
    "requests": requests.check,
    "tokens": tokens.check,
    "proofs": proofs.check,
    "keys": keys.check,
    "scopes": scopes.check,
    "tickets": logins.check_ticket,
    "credentials": logins.check_credential,
    "secrets": logins.check_secret,
    "locks": logins.check_lock,
    "logouts": logouts.check,
}
