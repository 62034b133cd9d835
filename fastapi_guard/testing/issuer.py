"""FakeIssuer: an issuer for tests, with the faults of real ones, in process or over HTTP; needs the extra ``http``."""

import asyncio
import json
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote_plus, urlsplit

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.compact import encode_base64url
from fastapi_guard.jwt.http import client_on, in_process
from fastapi_guard.jwt.keys import signing_algorithm
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.stores.arguments import clock_of, instance_of
from fastapi_guard.testing.codes import Codes
from fastapi_guard.testing.loopback import Faults, serving

if TYPE_CHECKING:
    from httpx2 import AsyncBaseTransport, AsyncClient

_NEW_KEY: Final[Mapping[str, Callable[[], Key]]] = {
    "ES256": lambda: ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519", {"use": "sig", "alg": "EdDSA"}, auto_kid=True),
    "Ed25519": lambda: OKPKey.generate_key("Ed25519", {"use": "sig", "alg": "Ed25519"}, auto_kid=True),
    "RS256": lambda: RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True),
}
_ENDPOINTS: Final = {"authorization": "authorize", "token": "token", "end_session": "logout"}


class FakeIssuer:
    """Discovery, JWKS, tokens and introspection of an issuer under the control of a test.

    In process, pass its ``client`` to the code under test: ``RemoteKeySet(issuer.jwks_uri, client=issuer.client)``.
    Over HTTP, ``with issuer.serve():`` gives it a URL on loopback. ``requests`` lists the paths that were requested.

    Attributes:
        url: The issuer, as in ``iss``.
        audience: The ``aud`` of its tokens, unless one is named.
        transport: An httpx2 transport that it answers in process.
        client: A client on that transport. It has no connection, so it need not be closed.
        client_id: The client that may use its introspection endpoint.
        client_secret: The secret of that client.
        max_age: The ``max-age`` of its answers, ``None`` for no Cache-Control at all.
        entries: Further entries of its JWK Set, such as broken ones.
        requests: The paths that were requested, in order.
    """

    def __init__(
        self,
        url: str = "https://id.example",
        *,
        audience: str | Sequence[str] = "https://api.example",
        algorithm: str = "ES256",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Issue tokens as ``url``, signed with ``algorithm``: ES256, EdDSA, Ed25519 or RS256.

        Raises:
            ConfigurationError: It is another algorithm.
        """
        if algorithm not in _NEW_KEY:
            msg = f"algorithm is one of {', '.join(_NEW_KEY)}, not {algorithm!r}"
            raise ConfigurationError(msg)
        self.url: str = instance_of("url", url, str, "the URL of an issuer")
        self.audience = audience
        self.transport: AsyncBaseTransport = in_process(self._answer_in_process)
        self.client: AsyncClient = client_on(self.transport)
        self.client_id = "resource-server"
        self.client_secret: str = secrets.token_urlsafe(24)
        self.max_age: int | None = 300
        self.entries: list[Any] = []
        self.requests: list[str] = []
        self._algorithm = algorithm
        self._clock = clock_of(clock)
        self._keys: list[Key] = [_NEW_KEY[algorithm]()]
        self._opaque: dict[str, Claims] = {}
        self._answers: dict[str, Answer] = {}
        self._faults = Faults()
        self._codes = Codes(
            lambda claims: self.id_token(**{"at_hash": None, **claims}), lambda claims: self.token(**claims)
        )

    @property
    def jwks_uri(self) -> str:
        """The URL of its keys."""
        return self.url.rstrip("/") + "/jwks"

    @property
    def introspection_endpoint(self) -> str:
        """The URL of its introspection endpoint (RFC 7662)."""
        return self.url.rstrip("/") + "/introspect"

    @property
    def kid(self) -> str:
        """The ``kid`` of the key that signs."""
        return str(self._keys[0].kid)

    @property
    def metadata(self) -> dict[str, Any]:
        """Its discovery document (OpenID Connect Discovery 3)."""
        return {
            "issuer": self.url,
            "jwks_uri": self.jwks_uri,
            "introspection_endpoint": self.introspection_endpoint,
            **{f"{name}_endpoint": f"{self.url.rstrip('/')}/{path}" for name, path in _ENDPOINTS.items()},
            "authorization_response_iss_parameter_supported": True,
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self._algorithm],
        }

    @property
    def jwks(self) -> dict[str, list[Any]]:
        """Its JWK Set, with ``entries`` at the end."""
        return {"keys": [*(key.as_dict(private=False) for key in self._keys), *self.entries]}

    def token(
        self, sub: str = "user-1", *, header: Mapping[str, Any] | None = None, expires_in: float = 3600, **claims: Any
    ) -> str:
        """Return an access token of RFC 9068.

        Args:
            sub: The subject.
            header: Members of the header in place of its own; with the value ``None``, left out.
            expires_in: Seconds from now.
            claims: Claims in place of its own; with the value ``None``, left out.
        """
        now = int(self._clock())
        own = {
            "iss": self.url,
            "sub": sub,
            "aud": self.audience,
            "client_id": "client-1",
            "iat": now,
            "exp": now + int(expires_in),
            "jti": secrets.token_urlsafe(16),
        }
        return self._signed({"typ": "at+jwt", **(header or {})}, {**own, **claims})

    def id_token(
        self, sub: str = "user-1", *, header: Mapping[str, Any] | None = None, expires_in: float = 3600, **claims: Any
    ) -> str:
        """Return an ID token (OpenID Connect Core 2); the arguments are those of ``token``."""
        now = int(self._clock())
        own = {
            "iss": self.url,
            "sub": sub,
            "aud": self.audience,
            "iat": now,
            "exp": now + int(expires_in),
            "nonce": secrets.token_urlsafe(16),
            "at_hash": secrets.token_urlsafe(16),
        }
        return self._signed({"typ": "JWT", **(header or {})}, {**own, **claims})

    def opaque_token(self, sub: str = "user-1", *, expires_in: float = 3600, **claims: Any) -> str:
        """Return a token that only its introspection endpoint understands; ``claims`` as for ``token``."""
        token = secrets.token_urlsafe(24)
        now = int(self._clock())
        own = {
            "active": True,
            "iss": self.url,
            "sub": sub,
            "aud": self.audience,
            "client_id": "client-1",
            "token_type": "Bearer",
            "iat": now,
            "exp": now + int(expires_in),
        }
        self._opaque[token] = _without_none({**own, **claims})
        return token

    def authorize(self, url: str, sub: str = "user-1", **claims: Any) -> str:
        """Return the URL to which the browser is sent back, for a user who logged in and agreed at ``url``.

        For its code, the token endpoint responds with an ID token and an access token with the requested scopes.

        Args:
            url: An authorization request, with PKCE.
            sub: The subject.
            claims: Claims of the ID token in place of its own, such as ``email``; with ``None``, left out.

        Raises:
            ValueError: It is not such a request.
        """
        return self._codes.authorize(url, self.url, {"sub": sub, **claims})

    def revoke(self, token: str) -> None:
        """Make an opaque token inactive."""
        self._opaque.pop(token, None)

    def rotate(self, *, withdraw: bool = False) -> str:
        """Sign with a new key from now on, and return its ``kid``.

        Args:
            withdraw: Take the old keys out of the JWK Set at once, as after a theft.
        """
        self._keys = [_NEW_KEY[self._algorithm](), *(() if withdraw else self._keys)]
        return self.kid

    def withdraw(self, kid: str) -> None:
        """Remove a key from the JWK Set; the first of those that are left signs."""
        self._keys = [key for key in self._keys if key.kid != kid]

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Answer nothing: connections are broken off."""
        before, self._faults.is_down = self._faults.is_down, True
        try:
            yield
        finally:
            self._faults.is_down = before

    @contextmanager
    def slow(self, seconds: float = 0.0, *, seconds_a_byte: float = 0.0) -> Iterator[None]:
        """Answer after so many ``seconds``, and then byte by byte."""
        faults = self._faults
        before = faults.delay_seconds, faults.drip_seconds
        faults.delay_seconds, faults.drip_seconds = seconds, seconds_a_byte
        try:
            yield
        finally:
            faults.delay_seconds, faults.drip_seconds = before

    @contextmanager
    def answering(
        self, path: str, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """Answer with ``body`` at ``path``, such as ``/jwks``: a page of a proxy, a redirect, 50 megabytes."""
        before, answer = self._answers, Answer(status, dict(headers or {}), body)
        self._answers = {**before, path: answer}
        try:
            yield
        finally:
            self._answers = before

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Answer over HTTP on loopback, and be the issuer at that URL meanwhile."""
        before = self.url
        with serving(self._answer, self._faults) as origin:
            self.url = origin + urlsplit(before).path
            try:
                yield self.url
            finally:
                self.url = before

    def _signed(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        key = self._keys[0]
        algorithm = signing_algorithm(key, [self._algorithm])
        assert algorithm is not None  # noqa: S101 - the key was made for it
        members = {"alg": self._algorithm, "kid": key.kid, **header}
        signing_input = b".".join(encode_base64url(_dumped(_without_none(part))) for part in (members, claims))
        return b".".join((signing_input, encode_base64url(algorithm.sign(signing_input, key)))).decode("ascii")

    def _answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.requests.append(path)
        below = path.removeprefix(urlsplit(self.url).path.rstrip("/"))
        if below in self._answers:
            return self._answers[below]
        documents = {"/.well-known/openid-configuration": self.metadata, "/jwks": self.jwks}
        if below in documents:
            return self._json(documents[below])
        if below == "/introspect":
            return self._introspect(headers, body)
        if below == "/token":
            answer = self._codes.exchange(headers, _form(body))
            return self._json(answer) if answer else Answer(400, {}, b'{"error":"invalid_grant"}')
        return Answer(404)

    def _introspect(self, headers: Mapping[str, str], body: bytes) -> Answer:
        form = _form(body)
        basic = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}".encode()
        posted = form.get("client_id") == self.client_id and form.get("client_secret") == self.client_secret
        if headers.get("Authorization") != f"Basic {b64encode(basic).decode()}" and not posted:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="introspection"'})
        claims = self._opaque.get(form.get("token", ""))
        if claims is None or claims.get("exp", self._clock() + 1) <= self._clock():
            claims = {"active": False}
        return Answer(200, {"Content-Type": "application/json", "Cache-Control": "no-store"}, _dumped(claims))

    def _json(self, value: object) -> Answer:
        caching = {} if self.max_age is None else {"Cache-Control": f"public, max-age={self.max_age}"}
        return Answer(200, {"Content-Type": "application/json", **caching}, _dumped(value))

    async def _answer_in_process(self, _: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = self._answer(urlsplit(url).path, headers, body)
        await asyncio.sleep(self._faults.delay_seconds)
        if self._faults.is_down:
            msg = "the issuer is down"
            raise ConnectionError(msg)
        assert isinstance(answer.body, bytes)  # noqa: S101 - it is ours
        if self._faults.drip_seconds:
            return Answer(answer.status, answer.headers, self._dripped(answer.body))
        return answer

    async def _dripped(self, body: bytes) -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes((byte,))
            await asyncio.sleep(self._faults.drip_seconds)


def _form(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode("ascii")).items()}


def _without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode("utf-8")
