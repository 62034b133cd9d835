"""A provider of tokens in place of a real one: its documents at its real URLs, its tokens with their real claims."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx2

from fastapi_guard import ScopesAuth
from fastapi_guard.jwt.http import in_process
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.guarded import guarded_app, send

# Claims that a case leaves out.
WITHOUT = None
NOW = 1_790_000_000


@cache
def _made(algorithm: str, number: int) -> FakeIssuer:
    del number
    return FakeIssuer(algorithm=algorithm, clock=Clock(NOW))


def signer(algorithm: str, number: int = 0) -> FakeIssuer:
    """Return an issuer whose key all tests share, since making an RSA key is slow; ``number`` names another."""
    return _made(algorithm, number)


@dataclass(kw_only=True)
class Case:
    """A preset, and what it accepts and refuses.

    Attributes:
        auth: Makes the Auth, with a client and a clock.
        issuer: The ``iss`` of the tokens.
        keys_at: Where the keys are.
        good: The claims of a token that is accepted; times and issuer are added.
        also_good: Changes of these, by a description, that are accepted too.
        refused: Changes that are refused.
        header: Members of the header beside ``alg`` and ``kid``.
        algorithm: How tokens are signed.
        found: Whether the keys are found by discovery.
        document: Makes the document with the keys from the JWK of one.
        send_in: The header that carries the token, ``None`` for Authorization.
        cookie: The cookie that carries it.
    """

    auth: Callable[..., ScopesAuth]
    issuer: str
    keys_at: str
    good: Mapping[str, Any]
    refused: Mapping[str, Mapping[str, Any]]
    also_good: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=lambda: {"typ": "JWT"})
    algorithm: str = "RS256"
    found: bool = False
    document: Callable[[dict[str, Any]], Any] = lambda jwk: {"keys": [jwk]}
    send_in: str | None = None
    cookie: str | None = None


class Provider:
    """The provider of a case.

    Attributes:
        asked: The URLs that were requested.
        auth: The Auth for its tokens.
    """

    def __init__(self, case: Case, **options: Any) -> None:
        """Answer at the URLs of ``case``."""
        self.case = case
        self.asked: list[str] = []
        self.clock = Clock(NOW)
        self.client = httpx2.AsyncClient(transport=in_process(self._answer))
        self.auth: ScopesAuth = case.auth(client=self.client, clock=self.clock, **options)

    @property
    def jwk(self) -> dict[str, Any]:
        """The JWK of the key that signs."""
        return dict(signer(self.case.algorithm).jwks["keys"][0])

    def token(self, *, forged: bool = False, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Return a token with the claims of the case, and ``changes``; one that is forged has another key's signature.

        Args:
            forged: Whether a key signs that is not the provider's, with the ``kid`` of one that is.
            header: The header beside ``alg`` and ``kid``, by default that of the case.
            changes: Claims in place of those of the case; with the value ``None``, left out.
        """
        times = {"iat": NOW - 10, "exp": NOW + 300}
        claims = {"iss": self.case.issuer, **times, **self.case.good, **changes}
        kid = {"kid": signer(self.case.algorithm).kid}
        other = signer(self.case.algorithm, 1 if forged else 0)
        return other._signed({**kid, **(self.case.header if header is None else header)}, claims)

    async def status(self, token: str, *, method: str = "GET", **fields: str) -> int:
        """Return the status of a request with ``token``, and with header fields (``_`` for ``-``)."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        app = guarded_app(self.auth)
        if self.case.cookie is not None:
            headers["Cookie"] = f"{self.case.cookie}={token}"
        elif self.case.send_in is not None:
            headers[self.case.send_in] = token
        else:
            return (await send(app, token, method=method, headers=headers)).status_code
        return (await send(app, method=method, headers=headers)).status_code

    async def _answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        del method, headers, body
        self.asked.append(url)
        fields = {"Content-Type": "application/json", "Cache-Control": "public, max-age=3600"}
        if url == self.case.keys_at:
            return Answer(200, fields, json.dumps(self.case.document(self.jwk)).encode())
        assert self.case.found
        assert url == self.case.issuer.rstrip("/") + "/.well-known/openid-configuration"
        metadata = {"issuer": self.case.issuer, "jwks_uri": self.case.keys_at}
        return Answer(200, fields, json.dumps(metadata).encode())


async def check_table(case: Case) -> None:
    """Check that the tokens of a case are accepted and refused, each refusal beside a positive control."""
    provider = Provider(case)
    assert provider.asked == []
    assert await provider.status(provider.token()) == 200
    asked = len(provider.asked)
    assert asked == 1 + case.found
    for description, changes in case.also_good.items():
        assert await provider.status(provider.token(**changes)) == 200, description
    every: dict[str, Mapping[str, Any]] = {
        "another issuer": {"iss": "https://attacker.example"},
        "no issuer": {"iss": WITHOUT},
        "expired": {"exp": NOW - 60},
        "without end": {"exp": WITHOUT},
        "an end that is text": {"exp": str(NOW + 300)},
        "issued in the future": {"iat": NOW + 3600},
        "a subject that is a number": {"sub": 7},
        "an empty subject": {"sub": ""},
        "bound to a key": {"cnf": {"jkt": "x"}},
    }
    for description, changes in {**every, **case.refused}.items():
        assert await provider.status(provider.token(**changes)) == 401, description
    assert len(provider.asked) == asked
    assert await provider.status(provider.token(forged=True)) == 401
    assert await provider.status(provider.token(header={"typ": "logout+jwt"})) == 401
    unsigned = ".".join([*provider.token().split(".")[:2], ""])
    assert await provider.status(unsigned) == 401
    assert await provider.status(provider.token()) == 200
