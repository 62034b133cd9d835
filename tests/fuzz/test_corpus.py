"""Findings and seeds of the fuzzer, replayed: `nox -s fuzz` looks for more."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fuzz import scopes
from fuzz.targets import CORPUS, TARGETS

INPUTS = {name: {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())} for name in TARGETS}


@pytest.mark.parametrize(
    ("name", "raw"),
    [pytest.param(name, raw, id=f"{name}: {of}") for name in INPUTS for of, raw in INPUTS[name].items()],
)
async def test_corpus(name: str, raw: bytes) -> None:
    """The package does with this input what the slow reading does."""
    await TARGETS[name](raw)


async def findings(name: str) -> list[str]:
    """Return the inputs with which a target finds a fault."""
    found = []
    for of, raw in INPUTS[name].items():
        try:
            await TARGETS[name](raw)
        except Exception:  # noqa: BLE001 - whatever a fault leads to
            found.append(of)
    return found


def first_field(connection: Any, name: bytes) -> bytes | None:
    """Return the first of several fields, as Starlette does."""
    return next((value for field, value in connection.scope["headers"] if field == name), None)


def words_of(value: object) -> frozenset[str]:
    """Split at every white space, and take numbers for text."""
    return frozenset(str(value).split())


@pytest.mark.parametrize(
    ("name", "place", "fault"),
    [
        ("tokens", "fastapi_guard.jwt.verifier.decode_object", json.loads),
        ("tokens", "fastapi_guard.jwt.rules.ClaimRules.check", lambda *_, **__: None),
        ("tokens", "fastapi_guard.jwt.rules.ClaimRules.check_type", lambda *_: None),
        ("tokens", "fastapi_guard.jwt.compact._ENDINGS", ((b"", None), (None, None), (b"==", None), (b"=", None))),
        ("tokens", "fastapi_guard.jwt.compact.MAX_DEPTH", 33),
        ("tokens", "fastapi_guard.jwt.verifier._CONTAINERS", frozenset({set})),
        ("requests", "fastapi_guard.schemes.bearer.single_field", first_field),
        ("requests", "fastapi_guard.auth.decision.is_same_origin", lambda *_: True),
        ("requests", "fastapi_guard.exceptions.Unauthorized.challenge", lambda *_: None),
        ("keys", "fastapi_guard.api_key.format.checksum", lambda _: "0" * 6),
        (
            "keys",
            "fastapi_guard.api_key.format.KeyFormat.parse",
            lambda self, raw: raw[3:19] if len(raw) == 69 else None,
        ),
        ("scopes", "fastapi_guard.claims.scopes_of", words_of),
        ("scopes", "fastapi_guard.scopes.HierarchicalScopeValidator._actions_that_cover", lambda *_: set()),
        ("proofs", "fastapi_guard.issuers.dpop.DPoP._is_here", lambda *_: True),
        ("proofs", "fastapi_guard.issuers.dpop._hash", lambda _: "x"),
        ("proofs", "fastapi_guard.issuers.dpop.DPoP._remember", None),
        ("tickets", "fastapi_guard.app.ticket_scheme.replace_query", lambda *_: None),
        ("tickets", "fastapi_guard.app.ticket_scheme.MAX_CHARACTERS", 9999),
        ("credentials", "fastapi_guard.login.relying_party._MOST_ID", 9999),
        ("secrets", "fastapi_guard.login.keyring.Keyring.matches", lambda *_: True),
        ("locks", "fastapi_guard.app.lock._text", str),
        ("logouts", "fastapi_guard.jwt.rules._check_logout_token", lambda _: None),
        ("logouts", "fastapi_guard.jwt.rules.ClaimRules._check_texts", lambda *_: None),
    ],
)
async def test_a_planted_fault_is_found(
    name: str, place: str, fault: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each target notices where a check is taken out, so that a run without findings is meaningful."""

    async def forgetful(*_: object) -> None: ...

    assert await findings(name) == []
    monkeypatch.setattr(place, fault or forgetful)
    monkeypatch.setattr(scopes, "AUTHS", scopes.auths())  # which remember nothing of before
    assert await findings(name)
