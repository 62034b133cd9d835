"""One test for each published vulnerability of this field: what the class is, and that it is closed here.

Where an advisory is about a component that this package does not have, the test shows what its core must hold for any
application that builds such a component on it. Where it has one of the kind, a second test shows that one.
"""

import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import pytest
from cryptography.hazmat.primitives import serialization
from fastapi import Depends, FastAPI, Response
from joserfc.jwk import ECKey, JWKRegistry, OctKey, RSAKey
from joserfc.jws import JWSRegistry
from sqlalchemy import make_url
from starlette.requests import HTTPConnection

from api_key.databases import Database
from fastapi_guard import (
    APIKeyScheme,
    Auth,
    ConfigurationError,
    JWTAuth,
    JWTConfig,
    ScopesAuth,
    StaticAPIKeyAuth,
    Unauthorized,
)
from fastapi_guard.api_key.format import checksum
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.jwt.verification_keys import VerificationKeys
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.login.users import MappingUsers
from fastapi_guard.routers.api_keys import api_keys_router
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer
from support.asgi import call, exchange, scope_of
from support.passwords import CountingContext, quick_hasher
from support.tokens import (
    AUDIENCE,
    FOREIGN_KEYS,
    ISSUER,
    KEYS,
    NOW,
    auth_of,
    base64url,
    config_of,
    fixed_clock,
    forge,
    sign,
    valid_claims,
)

INVALID = "The access token is invalid"


@pytest.fixture
async def database(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield a database with empty tables."""
    database = Database.of(make_url(f"sqlite:///{tmp_path / 'keys.db'}"))
    await database.create_tables()
    yield database
    await database.dispose()


async def refused(auth: JWTAuth, token: str, reason: str) -> None:
    """Make sure that a token is refused for this reason, by an Auth that accepts a good one."""
    with pytest.raises(Unauthorized) as refusal:
        await auth.verify(token)
    assert (refusal.value.detail, refusal.value.error, refusal.value.reason) == (INVALID, "invalid_token", reason)


def segment(members: Mapping[str, Any]) -> str:
    """Return an object in base64url."""
    return base64url(json.dumps(members).encode())


def hmac_token(secret: bytes, algorithm: str = "HS256") -> str:
    """Return a token with an HMAC under any bytes at all."""
    head = f"{segment({'alg': algorithm})}.{segment(valid_claims())}"
    return f"{head}.{base64url(hmac.digest(secret, head.encode(), f'sha{algorithm[2:]}'))}"


def public_forms(key: RSAKey | ECKey) -> dict[str, bytes]:
    """Return every way in which the public half of a key may be written down."""
    encoding, public = serialization.Encoding, serialization.PublicFormat
    native = key.public_key
    forms = {
        "spki": native.public_bytes(encoding.PEM, public.SubjectPublicKeyInfo),
        "der": native.public_bytes(encoding.DER, public.SubjectPublicKeyInfo),
        "openssh": native.public_bytes(encoding.OpenSSH, public.OpenSSH),
        "jwk": json.dumps(key.as_dict(private=False)).encode(),
    }
    if isinstance(key, RSAKey):
        forms["pkcs1"] = key.public_key.public_bytes(encoding.PEM, public.PKCS1)
    return forms


async def no_confusion(name: str) -> None:
    """Make sure that no public form of a key verifies an HMAC, nor can be configured as a secret."""
    key = KEYS[name]
    assert isinstance(key, RSAKey | ECKey)
    auth = auth_of(name)
    assert await auth.verify(forge(name)) == valid_claims()
    for form in public_forms(key).values():
        # A byte of DER may well look like a line break: without it, it would be no key.
        for written in (form, form.strip() if form.isascii() else form, b"\n" + form, form + b"\n"):
            for algorithm in ("HS256", "HS384", "HS512"):
                await refused(auth, hmac_token(written, algorithm), "algorithm")
            with pytest.raises(ConfigurationError, match="is a public key, a private key or a certificate"):
                JWTConfig(key=OctKey(written, written), algorithms=["HS256"])
    with pytest.raises(ConfigurationError, match="use one configuration for each"):
        JWTConfig(key=key, algorithms=[name, "HS256"])


async def test_cve_2015_9235() -> None:
    """The jsonwebtoken of Node.js: a token signed by HMAC with the RSA public key passed where RS256 was meant."""
    await no_confusion("RS256")


async def test_cve_2017_11424() -> None:
    """PyJWT: `BEGIN RSA PUBLIC KEY` was not seen as a public key, and served as an HMAC secret."""
    pkcs1 = public_forms(KEYS["RS256"])["pkcs1"]  # type: ignore[arg-type]
    assert pkcs1.startswith(b"-----BEGIN RSA PUBLIC KEY-----")
    await no_confusion("PS256")


async def test_cve_2018_0114() -> None:
    """node-jose: the key that a token carries in `jwk` was used to verify it."""
    foreign = FOREIGN_KEYS["RS256"]
    auth = auth_of("RS256")
    members = {"jwk": foreign.as_dict(private=False)}
    await refused(auth, forge("RS256", header=members, key=foreign), "bad_signature")
    assert await auth.verify(forge("RS256", header=members)) == valid_claims()


async def test_cve_2018_1000519() -> None:
    """aiohttp-session: what had been invalidated still counted, because being empty was not being absent."""
    keys: dict[str, dict[str, Any] | None] = {"live": {"sub": "ada"}, "ended": None}

    class Sessions(ScopesAuth):
        async def verify(self, raw: str) -> dict[str, Any]:
            return keys.get(raw)  # type: ignore[return-value]

    auth = Sessions(APIKeyScheme("session", "cookie"))
    app = FastAPI()

    @app.get("/")
    async def index(claims: Annotated[dict[str, Any], auth.authenticated()]) -> Any:
        return claims

    assert (await call(app, "/", None, (b"cookie", b"session=live"))).json == {"sub": "ada"}
    for cookie in (b"session=ended", b"session=unknown", b"session=", b"session"):
        assert (await call(app, "/", None, (b"cookie", cookie))).status == 401


async def test_cve_2018_1000519_sessions() -> None:
    """The same of our own sessions: one that ended, planted in another browser, does not live again at its login."""
    sessions = SessionAuth(MemoryStore(clock=fixed_clock), clock=fixed_clock)
    app = FastAPI(dependencies=[sessions.authenticated()])
    app.add_api_route("/", lambda: None)

    async def logged_in(*fields: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        response = Response()
        await sessions.login(response, {"sub": "ada"}, connection=HTTPConnection(scope_of("/", list(fields))))
        return b"cookie", response.headers["set-cookie"].partition(";")[0].encode()

    planted = await logged_in()
    assert (await call(app, "/", None, planted)).status == 200
    assert await sessions.logout(Response(), connection=HTTPConnection(scope_of("/", [planted])))
    own = await logged_in(planted)
    assert own != planted
    assert [(await call(app, "/", None, cookie)).status for cookie in (own, planted)] == [200, 401]


async def test_cve_2022_29217() -> None:
    """PyJWT: public keys in OpenSSH's form were not seen as such, and served as HMAC secrets."""
    ssh = public_forms(KEYS["ES256"])["openssh"]  # type: ignore[arg-type]
    assert ssh.startswith(b"ecdsa-sha2-nistp256 ")
    await no_confusion("ES256")


async def test_cve_2022_39227() -> None:
    """python-jwt: one text was a compact token to the verification and a JSON one to the reader of its claims."""
    good = forge("PS256")
    head, payload, code = good.split(".")
    evil = segment(valid_claims(sub="root"))
    auth = auth_of("PS256")
    assert await auth.verify(good) == valid_claims()
    polyglot = json.dumps({f"  {head}.{evil}.": "", "protected": head, "payload": payload, "signature": code})
    await refused(auth, polyglot, "base64url")
    await refused(auth, json.dumps({"protected": head, "payload": payload, "signature": code}), "not_three_parts")
    await refused(auth, f"{head}.{payload}.{evil}.{code}", "not_three_parts")


async def test_cve_2023_48309() -> None:
    """next-auth: a token of another purpose of the same issuer (state, PKCE, nonce) passed for a session."""
    auth = auth_of("HS256")
    assert await auth.verify(forge("HS256")) == valid_claims()
    for kind in ("state+jwt", "refresh+jwt", "reset+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt"):
        await refused(auth, forge("HS256", header={"typ": kind}), "token_type")
    await refused(auth, forge("HS256", valid_claims(aud="oauth-state")), "audience")
    await refused(auth, forge("HS256", valid_claims(aud=...)), "audience_missing")
    state = JWTAuth(config_of("HS256", token_types=["state+jwt"], audience="oauth-state"))
    with pytest.raises(Unauthorized):
        await JWTAuth(config_of("HS256")).verify(state.encode({"state": "x"}))


async def test_cve_2024_33663() -> None:
    """python-jose: an elliptic public key, in OpenSSH's and other forms, served as an HMAC secret."""
    await no_confusion("ES512")


async def test_cve_2024_53861() -> None:
    """PyJWT: the issuer was looked for within the expected one, so that a part of it, or a list, passed."""
    auth = auth_of("ES256")
    assert await auth.verify(forge("ES256")) == valid_claims()
    for issuer in (ISSUER[:-1], ISSUER[8:], ISSUER[:8], "h", "", ISSUER + "/", [ISSUER], {ISSUER: 1}, None):
        await refused(auth, forge("ES256", valid_claims(iss=issuer)), "issuer")
    for audience in (AUDIENCE[:-1], "h", AUDIENCE + "x"):
        await refused(auth, forge("ES256", valid_claims(aud=audience)), "audience")


async def test_cve_2025_22228() -> None:
    """Spring Security: what stood behind the 72nd byte of a password did not count.

    Every byte of a credential counts here, wherever it stands.
    """
    seen: list[str] = []

    class Keys(Auth[str]):
        async def verify(self, raw: str) -> str:
            seen.append(raw)
            return raw

    app = FastAPI(dependencies=[Keys(APIKeyScheme("X-Key")).authenticated()])
    app.add_api_route("/", lambda: None)
    long = "k" * 5_000
    assert (await call(app, "/", None, (b"x-key", long.encode()))).status == 200
    assert (await call(app, "/", None, (b"x-key", long.encode() + b"x"))).status == 200
    assert seen == [long, f"{long}x"]
    secret = bytes(range(1, 101))
    auth = auth_of("HS256", key=OctKey(secret, secret))
    assert await auth.verify(forge("HS256", key=OctKey(secret, secret))) == valid_claims()
    await refused(auth, forge("HS256", key=OctKey(secret[:-1], secret[:-1])), "bad_signature")


async def test_cve_2025_22228_passwords() -> None:
    """The same of passwords: with bcrypt a longer one cannot be set, and no shorter one stands for it."""
    hasher = quick_hasher("bcrypt")
    whole = "k" * 72
    stored = await hasher.hash(whole)
    assert await hasher.verify(whole, stored)
    for other in (whole[:-1], f"{whole}x", f"{whole}\0", whole + whole):
        assert not await hasher.verify(other, stored)
    with pytest.raises(ValueError, match="too long for its hash"):
        await hasher.hash(f"{whole}x")
    hasher.close()
    long = quick_hasher("argon2")
    stored = await long.hash(f"{whole}x")
    assert [await long.verify(password, stored) for password in (f"{whole}x", whole, f"{whole}y")] == [
        True,
        False,
        False,
    ]
    long.close()


async def test_cve_2025_22234() -> None:
    """Spring Security: a limit of length answered before the work that hides which users there are.

    The client gets the same refusal whatever the cause, so that it reveals nothing about what is known here.
    """
    app = FastAPI(dependencies=[auth_of("ES256").authenticated()])
    app.add_api_route("/", lambda: None)
    assert (await call(app, "/", forge("ES256"))).status == 200
    answers = [
        await call(app, "/", token)
        for token in (
            "x" * 100_000,
            "x",
            forge("ES256", header={"kid": "unknown"}, key=FOREIGN_KEYS["ES256"]),
            forge("ES256", header={"kid": KEYS["ES256"].thumbprint()}, key=FOREIGN_KEYS["ES256"]),
            forge("ES256", valid_claims(sub=1)),
            forge("ES256", valid_claims(iss="x")),
        )
    ]
    assert answers[0].status == 401
    assert all(answer == answers[0] for answer in answers)


async def test_cve_2025_22234_passwords() -> None:
    """The same of a login: a password beyond every limit costs the work of one hash, whether there is such a user."""
    hasher = quick_hasher()
    users = MappingUsers({"ada": {"password_hash": await hasher.hash("analytical engine")}})
    auth = LocalAuth(config_of("HS256"), Login(users, MemoryStore(), passwords=hasher), clock=fixed_clock)
    assert await auth.login("ada", "analytical engine")
    counted = CountingContext(hasher)
    for number, (username, password) in enumerate(product(("ada", "nobody"), ("x", "x" * 73, "x" * 1_000_000)), 1):
        with pytest.raises(Unauthorized, match="Incorrect username or password"):
            await auth.login(username, password)
        assert counted.calls == {"verify": number}
    hasher.close()


@pytest.mark.parametrize(
    "build",
    [
        lambda: "." * 5_000_000,
        lambda: f"{'A' * 5_000_000}.e30.AAAA",
        lambda: f"{segment({'alg': 'ES256'})}.e30.{'A' * 5_000_000}",
        lambda: forge("ES256", header={"x": "x" * 12_000}),
        lambda: forge("ES256", header={"x5c": ["x" * 5_000_000]}),
    ],
    ids=["dots", "header", "signature", "a header that just fits", "certificates"],
)
async def test_cve_2025_61920(build: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Authlib: segments of any size were decoded and parsed before anything was checked."""
    auth, token = auth_of("ES256"), build()
    assert await auth.verify(forge("ES256")) == valid_claims()
    parsed: list[int] = []
    loads = json.JSONDecoder.raw_decode
    monkeypatch.setattr(json.JSONDecoder, "raw_decode", lambda *a, **k: parsed.append(1) or loads(*a, **k))
    with pytest.raises(Unauthorized) as refusal:
        await auth.verify(token)
    assert refusal.value.reason in {"oversized", "oversized_header"}
    assert parsed == []


async def test_cve_2025_61928() -> None:
    """better-auth: a request without a session, with a user's id in its body, was taken for that user.

    The identity of a caller comes from the credential alone; bodies, queries and other headers have no influence.
    """
    auth = auth_of("ES256")
    app = FastAPI()

    @app.get("/")
    async def whoami(claims: Annotated[dict[str, Any], auth.authenticated()], user_id: str | None = None) -> Any:
        return claims["sub"]

    @app.get("/optional")
    async def maybe(claims: Annotated[Any, auth.optional()], user_id: str | None = None) -> Any:
        return claims and claims["sub"]

    fields = [(b"x-user", b"root"), (b"x-forwarded-user", b"root"), (b"user-id", b"root"), (b"cookie", b"user_id=root")]
    assert (await call(app, "/?user_id=root&access_token=" + forge("ES256"), None, *fields)).status == 401
    assert (await call(app, "/?user_id=root", None, *fields)).status == 401
    assert (await call(app, "/optional?user_id=root", None, *fields)).json is None
    assert (await call(app, "/?user_id=root", forge("ES256"), *fields)).json == "ada"


async def test_cve_2025_61928_keys(database: Database) -> None:
    """The same of the router of API keys: without a credential there is no key, and with one it is the caller's own."""
    keys, auth = database.auth(), auth_of("ES256")
    app = FastAPI()
    app.include_router(api_keys_router(keys, auth=auth))
    body = json.dumps({"name": "n", "scopes": [], "user_id": "root", "userId": "root"}).encode()
    kind = (b"content-type", b"application/json")
    token = (b"authorization", b"Bearer " + forge("ES256").encode())
    refusal = await exchange(app, "/api-keys", [kind], method="POST", body=body)
    assert refusal.refusal == (401, "Not authenticated", 'Bearer realm="api"')
    assert (await exchange(app, "/api-keys", [kind, token], method="POST", body=body)).status == 422
    assert await keys.list(user_id="root") == []
    made = await exchange(app, "/api-keys", [kind, token], method="POST", body=b'{"name": "n", "scopes": []}')
    assert made.status == 201
    assert (await keys.verify(made.json["key"]))["sub"] == "ada"


async def test_cve_2025_65015(caplog: pytest.LogCaptureFixture) -> None:
    """joserfc: the error about an oversized token contained all of it, and filled the log."""
    auth = auth_of("ES256")
    app = FastAPI(dependencies=[auth.authenticated()])
    app.add_api_route("/", lambda: None)
    with caplog.at_level(logging.DEBUG):
        for token in ("x" * 1_000_000, forge("ES256", header={"x": "x" * 10_000}), "x" * 10_000 + ".e30."):
            with pytest.raises(Unauthorized) as refusal:
                await auth.verify(token)
            assert len(f"{refusal.value!r} {refusal.value}") < 200
            assert len((await call(app, "/", token)).body) < 200
    assert caplog.messages
    assert max(len(message) for message in caplog.messages) < 200


async def test_cve_2025_68481() -> None:
    """fastapi-users: the state of a login was a token that anyone could have, bound to no browser.

    A login needs a cookie of its own beside it, and a request with a cookie is believed from the own origin alone.
    """
    auth = Auth[str](APIKeyScheme("login", "cookie"), trusted_origins=["https://app.example"])
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    async def index(state: Annotated[str, auth.authenticated()]) -> None: ...

    async def post(*fields: tuple[bytes, bytes]) -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]: ...

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        await app(scope_of("/", list(fields), method="POST"), receive, send)
        return statuses[0]

    cookie = (b"cookie", b"login=x")
    assert await post(cookie, (b"sec-fetch-site", b"same-origin")) == 200
    assert await post(cookie, (b"origin", b"https://app.example")) == 200
    assert await post(cookie, (b"sec-fetch-site", b"cross-site")) == 403
    assert await post(cookie, (b"origin", b"https://evil.example")) == 403
    assert await post(cookie, (b"sec-fetch-site", b"same-site"), (b"origin", b"https://evil.app.example")) == 403


async def test_cve_2026_23996() -> None:
    """fastapi-api-key: a random delay on failures alone told valid keys from invalid ones.

    No code waits: there is no sleep and no random delay behind a refusal, and HMACs are compared in constant time.
    """
    verify = JWSRegistry.algorithms["HS256"].verify
    assert "compare_digest" in verify.__code__.co_names
    auth = auth_of("HS256")
    coroutine = auth.verify(forge("HS256", key=FOREIGN_KEYS["HS256"]))
    with pytest.raises(Unauthorized, match=INVALID):
        coroutine.send(None)  # a refusal that waited for anything would hand control back here
    coroutine = auth.verify(forge("HS256"))
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == valid_claims()


async def test_cve_2026_23996_keys(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of API keys: nothing sleeps, and an unknown key costs the queries and comparisons of a wrong one."""
    compared: list[bool] = []
    compare = hmac.compare_digest
    monkeypatch.setattr("hmac.compare_digest", lambda *digests: compared.append(True) or compare(*digests))
    for sleep in ("time.sleep", "asyncio.sleep", "anyio.sleep"):
        monkeypatch.setattr(sleep, None)
    static = StaticAPIKeyAuth({"k" * 40: {"user_id": "ada"}})
    coroutine = static.verify("w" * 40)
    with pytest.raises(Unauthorized):
        coroutine.send(None)
    keys = database.auth()
    _, raw = await keys.create(user_id="ada")
    unknown = keys.format.generate().raw
    body = f"{raw[:-7]}{'0' if raw[-7] != '0' else '1'}"
    costs = []
    compared.clear()
    for key in (unknown, body + checksum(body)):
        with database.statements() as statements, pytest.raises(Unauthorized):
            await keys.verify(key)
        costs.append((len(statements), len(compared)))
        compared.clear()
    assert costs[0] == costs[1] == (1, 1)
    assert (await keys.verify(raw))["sub"] == "ada"


async def test_cve_2026_25537() -> None:
    """The jsonwebtoken of Rust: a time of a wrong type was taken for an absent one."""
    auth = auth_of("ES256")
    assert await auth.verify(forge("ES256", valid_claims(nbf=NOW))) == valid_claims(nbf=NOW)
    for name in ("exp", "nbf", "iat"):
        for value in (str(NOW + 60), "never", None, True, False, [NOW], {"value": NOW}, "", []):
            await refused(auth, forge("ES256", valid_claims(**{name: value})), f"{name}_type")


async def test_cve_2026_27962() -> None:
    """Authlib: where no key was found for a `kid`, the `jwk` of the token itself was used."""
    foreign = ECKey.generate_key("P-256")
    known = JWKRegistry.import_key({**KEYS["ES256"].as_dict(private=True), "kid": "known"})
    members = {"kid": "unknown", "jwk": foreign.as_dict(private=False)}
    auth = auth_of("ES256", key=known)
    assert await auth.verify(forge("ES256", header={"kid": "known"}, key=known)) == valid_claims()
    await refused(auth, forge("ES256", header=members, key=foreign), "unknown_key")
    await refused(auth, forge("ES256", header={**members, "kid": "known"}, key=foreign), "bad_signature")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "none ", "", "\u017fone"])
async def test_cve_2026_28802(algorithm: str) -> None:
    """Authlib: `alg` none passed with an empty signature, for want of a closed list."""
    auth = auth_of("ES256")
    assert await auth.verify(forge("ES256")) == valid_claims()
    for code in ("", forge("ES256").split(".")[2]):
        await refused(auth, f"{segment({'alg': algorithm})}.{segment(valid_claims())}.{code}", "algorithm")
    with pytest.raises(ConfigurationError, match="algorithms needs names among"):
        config_of("ES256", algorithms=["ES256", algorithm])


@pytest.mark.parametrize(
    "members",
    [
        {"crit": ["urn:example:policy"], "urn:example:policy": "strict"},
        {"crit": ["exp"]},
        {"crit": ["cnf"], "cnf": {"jkt": "x"}},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": "exp"},
        {"crit": None},
    ],
)
async def test_cve_2026_32597(members: dict[str, Any]) -> None:
    """PyJWT: a token with critical members that no code understood was accepted."""
    auth = auth_of("ES256")
    assert await auth.verify(forge("ES256", header={"urn:example:policy": "strict"})) == valid_claims()
    await refused(auth, forge("ES256", header=members), "critical_header")


async def test_cve_2026_35039() -> None:
    """fast-jwt: two tokens could share an entry of the cache, and one got the claims of the other.

    The entry is of a digest of the whole token, and there is no setting to make it of less.
    """
    auth = auth_of("ES256", cache_size=100)
    assert not {"key", "key_builder"}.intersection(signature(JWTAuth).parameters)
    tokens = {name: forge("ES256", valid_claims(sub=name)) for name in ("ada", "grace", "eve")}
    for _ in range(2):
        for name, token in tokens.items():
            assert (await auth.verify(token))["sub"] == name
    head, payload, _ = tokens["ada"].split(".")
    await refused(auth, f"{head}.{payload}.{tokens['eve'].split('.')[2]}", "bad_signature")
    await refused(auth, f"{head}.{tokens['eve'].split('.')[1]}.{tokens['ada'].split('.')[2]}", "bad_signature")
    evil = f"{head}.{segment(valid_claims(sub='ada', scope='admin:*'))}"
    await refused(auth, f"{evil}.{sign('ES256', FOREIGN_KEYS['ES256'], evil)}", "bad_signature")


async def test_cve_2026_48524() -> None:
    """PyJWT: each token with an unknown `kid` caused a request to the issuer, and a failed one threw the keys away.

    A source is queried with the checked header, only for an unknown key, and what it has stays in use when that fails.
    """
    named = JWKRegistry.import_key({**KEYS["ES256"].as_dict(private=True), "kid": "known"})
    asked: list[Header | None] = []

    class Source:
        def peek(self) -> VerificationKeys:
            return VerificationKeys([named], ["ES256"])

        async def load(self, header: Header | None = None) -> VerificationKeys:
            asked.append(header)
            raise OSError

    app = FastAPI(dependencies=[auth_of("ES256", key=Source()).authenticated(), Depends(lambda: None)])
    app.add_api_route("/", lambda: None)
    for _ in range(3):
        assert (await call(app, "/", forge("ES256", header={"kid": "unknown"}))).status == 503
        assert (await call(app, "/", forge("ES256", header={"kid": "known"}))).status == 200
        assert (await call(app, "/", forge("ES256", header={"kid": ["known"]}))).status == 401
        assert (await call(app, "/", forge("HS256", header={"kid": "unknown"}))).status == 401
    assert asked == [Header("ES256", "unknown", None)] * 3


async def test_cve_2026_48524_remote() -> None:
    """The same of a fetched set: a hundred unknown names cost one fetch, and one that fails changes nothing."""
    issuer = FakeIssuer(clock=fixed_clock)
    keys = RemoteKeySet(issuer.jwks_uri, client=issuer.client, clock=fixed_clock)
    auth = JWTAuth(JWTConfig(key=keys, issuer_url=issuer.url, audience="https://api.example"), clock=fixed_clock)
    assert await auth.validate_token(issuer.token())
    foreign = FakeIssuer(clock=fixed_clock)
    for number in range(100):
        assert not await auth.validate_token(foreign.token(header={"kid": f"made-up-{number}"}))
    assert len(issuer.requests) == 2
    assert await auth.validate_token(issuer.token())
    assert len(issuer.requests) == 2
    await keys.aclose()
