import asyncio
import json
import re
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jws import JWSRegistry
from starlette.requests import Request

from fastapi_guard import ConfigurationError, SimpleScopeValidator, Unauthorized
from fastapi_guard.issuers import DPoP, MultiOIDCAuth, OIDCAuth
from fastapi_guard.issuers.discovery import metadata_urls
from fastapi_guard.jwt.http import in_process
from fastapi_guard.jwt.responses import Answer
from fastapi_guard.schemes import BearerScheme
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.dpop import bound_token_and_proof
from support.examples import scaled
from support.guarded import assert_refused, assert_unavailable, guarded_app, send

API = "https://api.example"
DISCOVERY = "/.well-known/openid-configuration"
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"


def auth_of(issuer: FakeIssuer, /, **options: Any) -> OIDCAuth:
    """Return an Auth for the tokens of ``issuer``."""
    return OIDCAuth(**{"issuer": issuer.url, "audience": API, "client": issuer.client, **options})


# --- discovery


async def test_the_keys_are_found_by_discovery() -> None:
    """One discovery and one fetch of keys, at the first request and never before."""
    issuer = FakeIssuer()
    auth = auth_of(issuer)
    assert issuer.requests == []
    app = guarded_app(auth, "items:read")
    for _ in range(3):
        answer = await send(app, issuer.token(scope="items:read"))
        assert answer.status_code == 200
        assert answer.json() == {"sub": "user-1", "provider": None, "by": "oidc"}
    assert issuer.requests == [DISCOVERY, "/jwks"]
    assert_refused(await send(app, FakeIssuer().token(scope="items:read")))


async def test_over_http_and_with_a_path() -> None:
    """An issuer with a path has its discovery document below it."""
    issuer = FakeIssuer("https://id.example/realms/one")
    with issuer.serve() as url:
        assert url.endswith("/realms/one")
        auth = OIDCAuth(issuer=url, audience=API)
        async with auth as started:
            assert started is auth
            assert issuer.requests == [f"/realms/one{DISCOVERY}", "/realms/one/jwks"]
            assert await auth.validate_token(issuer.token())
            assert not await auth.validate_token(FakeIssuer(url).token())


async def test_a_trailing_slash_is_part_of_the_issuer() -> None:
    """`iss` is compared character by character; the discovery document of both spellings is at one place."""
    issuer = FakeIssuer("https://id.example/")
    assert (await send(guarded_app(auth_of(issuer)), issuer.token())).status_code == 200
    assert issuer.requests[0] == DISCOVERY
    other = auth_of(issuer, issuer="https://id.example")
    assert_unavailable(await send(guarded_app(other), issuer.token()))


async def test_a_cold_start_with_many_requests() -> None:
    """Thousands of requests at once cause exactly one discovery and one fetch of keys."""
    issuer = FakeIssuer()
    auth = auth_of(issuer)
    token = issuer.token()
    with issuer.slow(0.01):
        accepted = await asyncio.gather(*(auth.validate_token(token) for _ in range(scaled(10_000))))
    assert all(accepted)
    assert issuer.requests == [DISCOVERY, "/jwks"]


async def test_without_discovery() -> None:
    """With a `jwks_uri` nothing else is asked for."""
    issuer = FakeIssuer()
    auth = auth_of(issuer, jwks_uri=issuer.jwks_uri)
    assert await auth.validate_token(issuer.token())
    assert issuer.requests == ["/jwks"]


def _with(issuer: FakeIssuer, /, **changes: Any) -> bytes:
    changed = {**issuer.metadata, **changes}
    return json.dumps({name: value for name, value in changed.items() if value is not ...}).encode()


BAD_DISCOVERY: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://attacker.example"},
    "the issuer with a slash": {"issuer": "https://id.example/"},
    "the issuer in another case": {"issuer": "https://ID.example"},
    "no issuer": {"issuer": ...},
    "a huge issuer": {"issuer": "x" * 100_000},
    "a list of issuers": {"issuer": ["https://id.example"]},
    "no jwks_uri": {"jwks_uri": ...},
    "jwks_uri null": {"jwks_uri": None},
    "jwks_uri a list": {"jwks_uri": ["https://id.example/jwks"]},
    "jwks_uri over http": {"jwks_uri": "http://id.example/jwks"},
    "jwks_uri on this machine": {"jwks_uri": "http://127.0.0.1:8080/jwks"},
    "jwks_uri a file": {"jwks_uri": "file:///etc/passwd"},
    "jwks_uri relative": {"jwks_uri": "/jwks"},
}


@pytest.mark.parametrize("changes", BAD_DISCOVERY.values(), ids=BAD_DISCOVERY)
async def test_a_discovery_document_that_is_not_the_issuers(changes: dict[str, Any]) -> None:
    """Nothing of it is used, so no key is fetched: 503, and 200 as soon as the document is right."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer))
    with issuer.answering(DISCOVERY, _with(issuer, **changes)):
        assert_unavailable(await send(app, issuer.token()))
        assert issuer.requests == [DISCOVERY]
    assert (await send(app, issuer.token())).status_code == 200


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b'"text"', b"{"])
async def test_a_discovery_document_that_is_none(body: bytes) -> None:
    """A page of a proxy is not a document: 503, then 200."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer))
    with issuer.answering(DISCOVERY, body):
        assert_unavailable(await send(app, issuer.token()))
    assert (await send(app, issuer.token())).status_code == 200


OAUTH = "/.well-known/oauth-authorization-server"


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        ("https://id.example", [f"https://id.example{DISCOVERY}", f"https://id.example{OAUTH}"]),
        ("https://id.example/", [f"https://id.example{DISCOVERY}", f"https://id.example{OAUTH}"]),
        (
            "https://id.example:8443/realms/one/",
            [
                f"https://id.example:8443/realms/one{DISCOVERY}",
                f"https://id.example:8443{OAUTH}/realms/one",
                f"https://id.example:8443{DISCOVERY}/realms/one",
            ],
        ),
    ],
)
def test_the_places_of_metadata(issuer: str, urls: list[str]) -> None:
    """Below the issuer for OpenID Connect, between host and path for RFC 8414."""
    assert list(metadata_urls(issuer)) == urls


@pytest.mark.parametrize("path", [f"{OAUTH}/realms/one", f"{DISCOVERY}/realms/one"])
@pytest.mark.parametrize("missing", [Answer(404), Answer(400), Answer(403), Answer(200, {}, b"<html>")])
async def test_metadata_of_an_authorization_server(path: str, missing: Answer) -> None:
    """The metadata of an authorization server is found too, and from then on at its place at once (RFC 8414)."""
    clock = Clock()
    issuer = FakeIssuer("https://id.example/realms/one", clock=clock)
    metadata = json.dumps(issuer.metadata).encode()
    asked: list[str] = []

    async def answer(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        asked.append(urlsplit(url).path)
        if asked[-1] == path:
            return Answer(200, {}, metadata)
        return await issuer._answer_in_process(method, url, headers, body) if url == issuer.jwks_uri else missing

    client = httpx2.AsyncClient(transport=in_process(answer))
    auth = auth_of(issuer, client=client, clock=clock, max_ttl=100)
    assert (await send(guarded_app(auth), issuer.token())).status_code == 200
    tried = [f"/realms/one{DISCOVERY}", f"{OAUTH}/realms/one", f"{DISCOVERY}/realms/one"]
    assert asked == [*tried[: tried.index(path) + 1], "/realms/one/jwks"]
    asked.clear()
    clock.move(100)
    await auth.key_set.refresh()
    assert asked == [path, "/realms/one/jwks"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_outage_is_not_taken_for_missing_metadata(status: int) -> None:
    """A server that fails gets one request, not three."""
    issuer = FakeIssuer()
    with issuer.answering(DISCOVERY, b"", status=status):
        assert_unavailable(await send(guarded_app(auth_of(issuer)), issuer.token()))
    assert issuer.requests == [DISCOVERY]


async def test_an_issuer_without_metadata() -> None:
    """If no place has any, the answer is a 503."""
    issuer = FakeIssuer()
    with issuer.answering(DISCOVERY, b"", status=404):
        assert_unavailable(await send(guarded_app(auth_of(issuer)), issuer.token()))
    assert issuer.requests == [DISCOVERY, OAUTH]


async def test_the_log_of_another_issuer_names_both(caplog: pytest.LogCaptureFixture) -> None:
    """So that the operator sees the slash that is missing."""
    issuer = FakeIssuer("https://id.example/")
    with caplog.at_level("WARNING", "fastapi_guard"):
        await auth_of(issuer, issuer="https://id.example").start()
    assert "has the issuer 'https://id.example/', not 'https://id.example'" in caplog.text


async def test_keys_may_be_at_another_host_over_https() -> None:
    """Google's are: the discovery document has their URL, over https."""
    issuer = FakeIssuer()
    keys = FakeIssuer("https://keys.example")
    keys._keys = issuer._keys

    async def route(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Any:
        return await (keys if "keys.example" in url else issuer)._answer_in_process(method, url, headers, body)

    auth = auth_of(issuer, client=httpx2.AsyncClient(transport=in_process(route)))
    with issuer.answering(DISCOVERY, _with(issuer, jwks_uri=keys.jwks_uri)):
        assert (await send(guarded_app(auth), issuer.token())).status_code == 200
    assert keys.requests == ["/jwks"]


async def test_keys_that_move_are_found_again() -> None:
    """After a failed fetch of keys discovery is repeated; so it is after the longest lifetime."""
    clock = Clock()
    issuer = FakeIssuer(clock=clock)
    auth = auth_of(issuer, clock=clock, max_ttl=1000)
    assert await auth.validate_token(issuer.token())
    moved = _with(issuer, jwks_uri="https://id.example/new")
    with issuer.answering(DISCOVERY, moved), issuer.answering("/jwks", b"", status=404):
        clock.move(300)
        assert await auth.validate_token(issuer.token())
        issuer.requests.clear()
        with issuer.answering("/new", json.dumps(issuer.jwks).encode()):
            await auth.key_set.refresh()
        assert issuer.requests == [DISCOVERY, "/new"]
    clock.move(1000)
    issuer.requests.clear()
    await auth.key_set.refresh()
    assert issuer.requests == [DISCOVERY, "/jwks"]


async def test_a_discovery_that_fails_later_leaves_the_keys_where_they_were() -> None:
    """Once the place of the keys is known, an outage of discovery alone has no effect."""
    clock = Clock()
    issuer = FakeIssuer(clock=clock)
    auth = auth_of(issuer, clock=clock, max_ttl=100)
    assert await auth.validate_token(issuer.token())
    with issuer.answering(DISCOVERY, b"", status=500):
        clock.move(100)
        issuer.rotate(withdraw=True)
        assert await auth.validate_token(issuer.token())


# --- kinds of tokens


async def test_an_id_token_is_no_access_token() -> None:
    """Each of the marks that only an ID token has refuses it; an access token passes."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer))
    assert_refused(await send(app, issuer.id_token()))
    for claims in (
        {"nonce": "n"},
        {"at_hash": "h"},
        {"c_hash": "h"},
        {"nonce": 1},
        {"token_use": "id"},
        {"typ": "ID"},
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"events": {}},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    ):
        assert_refused(await send(app, issuer.token(**claims)))
    assert_refused(await send(app, issuer.token(header={"typ": "logout+jwt"})))
    assert_refused(await send(app, issuer.token(header={"typ": "dpop+jwt"})))
    for claims in ({}, {"token_use": "access"}, {"typ": "Bearer"}, {"typ": 7}, {"nonce": None}):
        assert (await send(app, issuer.token(**claims))).status_code == 200
    for header in ({"typ": "JWT"}, {"typ": None}, {"typ": "application/at+jwt"}):
        assert (await send(app, issuer.token(header=header))).status_code == 200


async def test_an_id_token_without_any_mark() -> None:
    """A code flow without nonce returns {iss, sub, aud, exp, iat}: refused as an access token (13)."""
    plain: dict[str, Any] = {"nonce": None, "at_hash": None}
    issuer = FakeIssuer(audience="client-1", algorithm="RS256")
    several = MultiOIDCAuth({"one": {"issuer": issuer.url, "audience": "client-1", "client": issuer.client}})
    for auth in (auth_of(issuer, audience="client-1"), several):
        for header in ({}, {"typ": None}):
            assert_refused(await send(guarded_app(auth), issuer.id_token(header=header, **plain)))
            assert_refused(await send(guarded_app(auth), issuer.id_token(header=header, azp="client-1", **plain)))
        for mark in ({"scope": "a"}, {"scp": ["a"]}, {"token_use": "access"}, {"typ": "Bearer"}, {"client_id": "web"}):
            assert (await send(guarded_app(auth), issuer.id_token(**{**plain, **mark}))).status_code == 200
        assert_refused(await send(guarded_app(auth), issuer.id_token(**{**plain, "azp": "other"})))
        for mark in ({"scope": ""}, {"scp": []}, {"scp": 7}, {"token_use": "x"}, {"typ": "x"}, {"client_id": ["x"]}):
            assert_refused(await send(guarded_app(auth), issuer.id_token(**{**plain, **mark})))
        for blank in ({"scope": " "}, {"scp": [""]}, {"scope": ["", " "]}):
            assert_refused(await send(guarded_app(auth), issuer.id_token(**{**plain, **blank})))
        assert (await send(guarded_app(auth), issuer.id_token(header={"typ": "at+jwt"}, **plain))).status_code == 200
    assert await auth_of(issuer, audience="client-1", accept="id").validate_token(issuer.id_token(**plain))


async def test_entra_tells_an_id_token_from_an_access_token() -> None:
    """There the audience of both may be the client's id: `azpacr` is in access tokens alone."""
    entra = FakeIssuer(f"https://login.microsoftonline.com/{TENANT}/v2.0", audience="api", algorithm="RS256")
    app = guarded_app(OIDCAuth.entra(TENANT, "api", client=entra.client))
    claims: dict[str, Any] = {"tid": TENANT, "ver": "2.0", "nonce": None, "at_hash": None}
    assert_refused(await send(app, entra.id_token(**claims)))
    assert_refused(await send(app, entra.id_token(**claims, azp="api")))
    assert (await send(app, entra.id_token(**claims, azp="api", azpacr="1"))).status_code == 200


async def test_a_mark_of_ones_own() -> None:
    """A claim that names access tokens takes the place of the usual marks, and a nonce may be there (B2C)."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer, access_mark={"kind": "access"}))
    plain: dict[str, Any] = {"header": {"typ": "JWT"}, "at_hash": None}
    assert (await send(app, issuer.id_token(**plain, kind="access"))).status_code == 200
    for claims in ({}, {"kind": "id"}, {"kind": 1}, {"scope": "a"}, {"client_id": "x"}):
        assert_refused(await send(app, issuer.id_token(**plain, **claims)))
    assert_refused(await send(app, issuer.id_token(kind="access")))  # at_hash
    for marks in ({}, [], {"kind": None}, {"kind": []}):
        with pytest.raises(ConfigurationError):
            auth_of(issuer, access_mark=marks)
    with pytest.raises(ConfigurationError, match="access_mark"):
        auth_of(issuer, access_mark={"kind": "access"}, accept="id")


@pytest.mark.parametrize(
    "name", ["http://adfs.example/adfs/services/trust", "acme.com", "kubernetes/serviceaccount", "https://id.example?x"]
)
async def test_an_issuer_that_is_a_name(name: str) -> None:
    """With a `jwks_uri`, the issuer is any text, and no discovery document is announced or fetched."""
    issuer = FakeIssuer()
    auth = auth_of(issuer, issuer=name, jwks_uri=issuer.jwks_uri)
    assert (await send(guarded_app(auth), issuer.token(iss=name))).status_code == 200
    assert_refused(await send(guarded_app(auth), issuer.token()))
    assert issuer.requests == ["/jwks"]
    assert not hasattr(auth.scheme.model, "openIdConnectUrl")
    with pytest.raises(ConfigurationError):
        auth_of(issuer, issuer=name)


async def test_several_spellings_of_an_issuer() -> None:
    """Each is accepted exactly; discovery uses the first."""
    issuer = FakeIssuer("https://accounts.example")
    auth = auth_of(issuer, issuer=[issuer.url, "accounts.example"])
    assert auth.issuers == (issuer.url, "accounts.example")
    assert await auth.validate_token(issuer.token())
    assert await auth.validate_token(issuer.token(iss="accounts.example"))
    assert not await auth.validate_token(issuer.token(iss="accounts"))
    several = MultiOIDCAuth({"one": auth})
    assert await several.validate_token(issuer.token(iss="accounts.example"))
    for wrong in ([], [""], [7], None):
        with pytest.raises(ConfigurationError):
            OIDCAuth(wrong, API)  # type: ignore[arg-type]


async def test_http_between_containers() -> None:
    """With the keyword, issuer and keys may be at http in a private network."""
    issuer = FakeIssuer("http://keycloak:8080/realms/main")
    assert await auth_of(issuer, private_http=True).validate_token(issuer.token())
    with pytest.raises(ConfigurationError, match="https"):
        auth_of(issuer)


async def test_an_audience_under_another_name() -> None:
    """The client's id may be the audience, and a type may be required."""
    issuer = FakeIssuer()
    auth = auth_of(issuer, audience="client-1", audience_claim="client_id", requires_type=True)
    assert await auth.validate_token(issuer.token(aud=None))
    assert not await auth.validate_token(issuer.token(aud=None, client_id="client-2"))
    assert not await auth.validate_token(issuer.token(aud=None, header={"typ": None}))


async def test_an_access_token_is_no_id_token() -> None:
    """`accept="id"` refuses at+jwt, what names itself an access token, and what an ID token has to have."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer, accept="id"))
    assert_refused(await send(app, issuer.token()))
    for claims in (
        {"token_use": "access"},
        {"typ": "Bearer"},
        {"events": {}},
        {"iat": None},
        {"aud": [API, "https://other.example"]},
        {"aud": [API, "https://other.example"], "azp": "https://other.example"},
    ):
        assert_refused(await send(app, issuer.id_token(**claims)))
    assert_refused(await send(app, issuer.id_token(sub=None)))  # type: ignore[arg-type]
    assert_refused(await send(app, issuer.id_token(header={"typ": "at+jwt"})))
    for claims in ({}, {"token_use": "id"}, {"typ": "ID"}, {"aud": [API]}, {"aud": [API, "other"], "azp": API}):
        assert (await send(app, issuer.id_token(**claims))).status_code == 200


async def test_the_authorized_party_of_several_audiences() -> None:
    """Of several configured clients, the token was issued to one."""
    issuer = FakeIssuer()
    auth = auth_of(issuer, accept="id", audience=["web", "app"])
    assert await auth.validate_token(issuer.id_token(aud=["web", "app"], azp="app"))
    assert not await auth.validate_token(issuer.id_token(aud=["web", "app"], azp="other"))


REFUSED_TOKENS: dict[str, dict[str, Any]] = {
    "another client's audience": {"aud": "other-client"},
    "no audience": {"aud": None},
    "an audience that is a number": {"aud": 7},
    "another issuer": {"iss": "https://attacker.example"},
    "no issuer": {"iss": None},
    "not yet valid": {"nbf": 4_000_000_000},
    "issued in the future": {"iat": 4_000_000_000},
    "without end": {"exp": None},
    "an end that is text": {"exp": "4000000000"},
    "a subject that is a number": {"sub": 7},
    "bound to a key": {"cnf": {"jkt": "x"}},
}


@pytest.mark.parametrize("claims", REFUSED_TOKENS.values(), ids=REFUSED_TOKENS)
@pytest.mark.parametrize("accept", ["access", "id"])
async def test_claims_that_do_not_hold(claims: dict[str, Any], accept: str) -> None:
    """The claims that a JWTAuth refuses are refused here, for access and for ID tokens."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer, accept=accept))
    make = issuer.token if accept == "access" else issuer.id_token
    assert_refused(await send(app, make(**claims)))
    assert (await send(app, make())).status_code == 200


async def test_the_profile_of_rfc_9068() -> None:
    """With it, at+jwt is required, and so are the claims of section 2.2."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer, profile="rfc9068"))
    assert (await send(app, issuer.token())).status_code == 200
    assert (await send(app, issuer.token(header={"typ": "application/at+jwt"}))).status_code == 200
    for header in ({"typ": "JWT"}, {"typ": None}):
        assert_refused(await send(app, issuer.token(header=header)))
    for claims in ({"client_id": None}, {"client_id": ""}, {"client_id": 7}, {"jti": None}, {"iat": None}):
        assert_refused(await send(app, issuer.token(**claims)))
    plain = guarded_app(auth_of(issuer))
    assert (await send(plain, issuer.token(header={"typ": "JWT"}))).status_code == 200


async def test_required_claims() -> None:
    """A token has to have each, with one of the accepted values, of the same type."""
    issuer = FakeIssuer()
    app = guarded_app(auth_of(issuer, require={"tid": "one", "tier": ["gold", "silver"], "verified": True, "v": 2}))
    good = {"tid": "one", "tier": "gold", "verified": True, "v": 2}
    assert (await send(app, issuer.token(**good))).status_code == 200
    assert (await send(app, issuer.token(**{**good, "tier": "silver"}))).status_code == 200
    for change in (
        {"tid": None},
        {"tid": "two"},
        {"tid": "One"},
        {"tid": ["one"]},
        {"tier": "iron"},
        {"tier": ["gold", "silver"]},
        {"verified": 1},
        {"verified": "true"},
        {"v": 2.0},
        {"v": "2"},
    ):
        assert_refused(await send(app, issuer.token(**{**good, **change})))


async def test_bound_tokens_of_a_provider() -> None:
    """With `dpop` a bound token passes beside its proof, and without it is refused."""
    issuer = FakeIssuer()
    auth = auth_of(issuer, dpop=DPoP(MemoryStore(), origin=API))
    token, proof = bound_token_and_proof(issuer)
    app = guarded_app(auth)
    assert (await send(app, token, scheme="DPoP", headers={"DPoP": proof})).status_code == 200
    assert (await send(app, token)).status_code == 401
    assert (await send(guarded_app(auth_of(issuer)), token)).status_code == 401


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": "http://id.example"},
        {"issuer": "id.example"},
        {"issuer": ""},
        {"issuer": "https://id.example?tenant=1"},
        {"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {"issuer": None},
        {"audience": ""},
        {"audience": []},
        {"audience": None},
        {"jwks_uri": "http://id.example/jwks"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"accept": "both"},
        {"accept": "id", "profile": "rfc9068"},
        {"profile": "rfc9000"},
        {"require": {"tid": None}},
        {"require": {"tid": ""}},
        {"require": {"tid": []}},
        {"require": {"tid": ["one", None]}},
        {"cooldown": -1},
        {"leeway_seconds": 3600},
    ],
    ids=repr,
)
def test_a_mistake_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    """A text that is not an issuer, no audience, an option that makes no sense."""
    with pytest.raises(ConfigurationError):
        OIDCAuth(**{"issuer": "https://id.example", "audience": API, **options})


def test_an_option_that_does_not_exist() -> None:
    """A misspelled option is a TypeError that names it, for one provider and for several."""
    with pytest.raises(TypeError, match="acept"):
        OIDCAuth("https://id.example", API, acept="id")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"provider 'one': .*acept"):
        MultiOIDCAuth({"one": {"issuer": "https://id.example", "audience": API, "acept": "id"}})
    with pytest.raises(ConfigurationError, match="provider 'one'"):
        MultiOIDCAuth({"one": {"audience": API}})
    with pytest.raises(TypeError, match="acept"):
        MultiOIDCAuth({}, acept="id")  # type: ignore[call-arg]


def test_openapi_names_the_discovery_document() -> None:
    """The scheme is OpenID Connect, unless another is given."""
    model = OIDCAuth("https://id.example/", API).scheme.model
    assert model.openIdConnectUrl == "https://id.example/.well-known/openid-configuration"  # type: ignore[attr-defined]


# --- a real provider


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Serve an OpenID provider of another project."""
    with warnings.catch_warnings(record=True):  # it imports a part of Authlib that is to go
        from oidc_provider_mock import run_server_in_thread  # noqa: PLC0415 - see above
    with run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


def _log_in(provider: str, client_id: str, sub: str) -> dict[str, Any]:
    redirect = "https://app.example/callback"
    query = {
        "client_id": client_id,
        "redirect_uri": redirect,
        "response_type": "code",
        "scope": "openid email",
        "state": "s",
        "nonce": "n",
    }
    with httpx2.Client() as client:
        page = client.post(f"{provider}/oauth2/authorize", params=query, data={"sub": sub})
        code = parse_qs(urlsplit(page.headers["Location"]).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "client_id": client_id}
        answer = client.post(f"{provider}/oauth2/token", data={**form, "client_secret": "any"})
    return dict(answer.json())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the provider, which runs in this process
async def test_a_provider_that_nobody_here_wrote(provider: str) -> None:
    """oidc-provider-mock over loopback HTTP: its ID token passes as what it is, for whom it is, and nothing else."""
    tokens = _log_in(provider, "client-1", "ada")
    options: dict[str, Any] = {"issuer": provider, "accept": "id"}
    app = guarded_app(OIDCAuth(audience="client-1", **options))
    answer = await send(app, tokens["id_token"])
    assert answer.status_code == 200
    assert answer.json()["sub"] == "ada"
    assert_refused(await send(app, tokens["access_token"]))
    assert_refused(await send(guarded_app(OIDCAuth(audience="client-2", **options)), tokens["id_token"]))
    assert_refused(await send(guarded_app(OIDCAuth(provider, "client-1")), tokens["id_token"]))
    several = MultiOIDCAuth({"mock": {"audience": "client-1", **options}})
    assert (await send(guarded_app(several), tokens["id_token"])).json()["provider"] == "mock"


# --- presets


def test_presets_say_what_their_pages_say() -> None:
    """Issuer, algorithms, claims of roles and scopes, and the kind of token of each."""
    google = OIDCAuth.google("client.apps.googleusercontent.com", hosted_domain="example.com")
    assert google.issuers == ("https://accounts.google.com",)
    assert google._required == {"hd": ("example.com",)}
    assert OIDCAuth.google(["a", "b"])._required == {}
    entra = OIDCAuth.entra(TENANT, "api-client-id")
    assert entra.issuers == (f"https://login.microsoftonline.com/{TENANT}/v2.0",)
    assert entra._required == {"tid": (TENANT,), "ver": ("2.0",)}
    assert OIDCAuth.entra(TENANT, "x", require={"azp": "y"})._required.keys() == {"azp", "tid", "ver"}
    auth0 = OIDCAuth.auth0("tenant.eu.auth0.com", API)
    assert auth0.issuers == ("https://tenant.eu.auth0.com/",)
    assert auth0.covers({"iss": "x", "permissions": ["items:read"]}, "items:read")
    keycloak = OIDCAuth.keycloak("https://sso.example/auth/", "main", API, client_id="api")
    assert keycloak.issuers == ("https://sso.example/auth/realms/main",)
    claims = {
        "realm_access": {"roles": ["one"]},
        "resource_access": {"api": {"roles": ["two"]}, "x": {"roles": ["no"]}},
    }
    assert keycloak.grants_of(claims).roles == {"one", "two"}
    assert OIDCAuth.keycloak("https://sso.example", "main", API).grants_of(claims).roles == {"one"}
    actions = OIDCAuth.github_actions(API, require={"repository_id": "1"})
    assert actions.issuers == ("https://token.actions.githubusercontent.com",)
    for auth in (google, entra, auth0, actions):
        assert tuple(auth.config.algorithms) == ("RS256",)


@pytest.mark.parametrize("tenant", ["common", "organizations", "consumers", "", TENANT.upper(), f"{TENANT}/", "x"])
def test_entra_takes_one_tenant(tenant: str) -> None:
    """Anything but a directory's id is refused: "common" would let in the users of every directory."""
    with pytest.raises(ConfigurationError, match=r"presets\.entra_tenants"):
        OIDCAuth.entra(tenant, "client")


@pytest.mark.parametrize("domain", ["https://tenant.auth0.com", "tenant.auth0.com/", "Tenant.auth0.com", "tenant", ""])
def test_auth0_takes_a_domain(domain: str) -> None:
    """A URL, another case, a word: none of them is the domain of a tenant."""
    with pytest.raises(ConfigurationError, match="domain"):
        OIDCAuth.auth0(domain, API)


@pytest.mark.parametrize(("realm", "client"), [("", None), ("a/b", None), ("a", "")])
def test_keycloak_takes_names(realm: str, client: str | None) -> None:
    """A realm is part of a URL, a client part of a path of claims."""
    with pytest.raises(ConfigurationError, match="realm"):
        OIDCAuth.keycloak("https://sso.example", realm, API, client_id=client)


def test_github_actions_needs_to_know_whose() -> None:
    """Every repository has the same issuer, so that an audience alone would accept any workflow."""
    with pytest.raises(ConfigurationError, match="any workflow"):
        OIDCAuth.github_actions(API)
    with pytest.raises(ConfigurationError, match="any workflow"):
        OIDCAuth.github_actions(API, require={"ref": "refs/heads/main"})


async def test_presets_at_work() -> None:
    """The tokens of each provider, as its page describes them, of an issuer in its place; a neighbour's refused."""
    cases: list[tuple[FakeIssuer, Any, str, dict[str, Any], dict[str, Any]]] = []
    google = FakeIssuer("https://accounts.google.com", audience="web", algorithm="RS256")
    cases.append(
        (
            google,
            OIDCAuth.google("web", hosted_domain="example.com", client=google.client),
            "id",
            {"hd": "example.com"},
            {"hd": "other.example"},
        )
    )
    entra = FakeIssuer(f"https://login.microsoftonline.com/{TENANT}/v2.0", audience="api", algorithm="RS256")
    good = {"tid": TENANT, "ver": "2.0", "scp": "items:read"}
    cases.append((entra, OIDCAuth.entra(TENANT, "api", client=entra.client), "access", good, {**good, "ver": "1.0"}))
    auth0 = FakeIssuer("https://tenant.eu.auth0.com/", audience=API, algorithm="RS256")
    cases.append(
        (
            auth0,
            OIDCAuth.auth0("tenant.eu.auth0.com", API, client=auth0.client),
            "access",
            {"gty": "password"},
            {"aud": "other"},
        )
    )
    actions = FakeIssuer("https://token.actions.githubusercontent.com", audience=API, algorithm="RS256")
    auth = OIDCAuth.github_actions(API, require={"repository": "octo-org/app"}, client=actions.client)
    cases.append((actions, auth, "id", {"repository": "octo-org/app"}, {"repository": "octo-org/app-fork"}))
    keycloak = FakeIssuer("https://sso.example/realms/main", audience=API)
    cases.append(
        (
            keycloak,
            OIDCAuth.keycloak("https://sso.example", "main", API, client=keycloak.client),
            "access",
            {"typ": "Bearer"},
            {"typ": "ID"},
        )
    )
    for issuer, preset, kind, held, refused in cases:
        app = guarded_app(preset)
        make = issuer.token if kind == "access" else issuer.id_token
        header = {"typ": "JWT"}
        assert (await send(app, make(header=header, **held))).status_code == 200, issuer.url
        assert_refused(await send(app, make(header=header, **refused)))


# --- several providers


class Several:
    """Two providers and an Auth for both."""

    def __init__(self, **options: Any) -> None:
        """Begin."""
        self.one = FakeIssuer("https://one.example")
        self.two = FakeIssuer("https://two.example")
        self.auth = MultiOIDCAuth(
            {
                "one": {"issuer": self.one.url, "audience": API, "client": self.one.client},
                "two": {"issuer": self.two.url, "audience": API, "client": self.two.client, "scope_claims": ["grants"]},
            },
            **options,
        )
        self.app = guarded_app(self.auth, "items:read")


async def test_the_issuer_of_a_token_chooses_its_provider() -> None:
    """Each token is verified by its own provider, which the request's state names; the other is not asked."""
    several = Several()
    answer = await send(several.app, several.one.token(scope="items:read"))
    assert answer.json() == {"sub": "user-1", "provider": "one", "by": "multi-oidc"}
    assert several.two.requests == []
    answer = await send(several.app, several.two.token(grants="items:read"))
    assert answer.json()["provider"] == "two"
    assert several.auth.issuers == ("https://one.example", "https://two.example")


async def test_the_rules_of_a_provider_grant() -> None:
    """Which claims hold scopes is the provider's matter, in `requires` and in `covers`."""
    several = Several()
    assert (await send(several.app, several.two.token(scope="items:read"))).status_code == 403
    assert several.auth.covers({"iss": several.two.url, "grants": "a"}, "a")
    assert not several.auth.covers({"iss": several.two.url, "scope": "a"}, "a")
    assert several.auth.covers({"iss": several.one.url, "scope": "a"}, "a")
    assert several.auth.covers({"iss": ["x"], "scope": "a"}, "a")
    assert several.auth.covers({"scope": "a"}, "a")


async def test_a_key_of_one_provider_signs_nothing_of_the_other() -> None:
    """Keys belong to their issuer: a token of the one in the name of the other is refused."""
    several = Several()
    assert_refused(await send(several.app, several.one.token(iss=several.two.url, scope="items:read")))
    assert (await send(several.app, several.one.token(scope="items:read"))).status_code == 200


@pytest.mark.parametrize(
    "iss",
    [
        "https://attacker.example",
        "https://one.example/",
        "https://ONE.example",
        "",
        None,
        7,
        ["https://one.example"],
        {},
    ],
    ids=repr,
)
async def test_an_unknown_issuer_is_refused_without_any_request(iss: Any) -> None:
    """Exact equality, or nothing happens at all."""
    several = Several()
    assert_refused(await send(several.app, several.one.token(iss=iss, scope="items:read")))
    assert several.one.requests == several.two.requests == []
    assert (await send(several.app, several.one.token(scope="items:read"))).status_code == 200


@pytest.mark.parametrize("raw", ["", "a", "a.b", "a.b.c", "..", "e30.e30.AA", "é.é.é", "e30." + "A" * 20_000 + ".AA"])
async def test_what_is_no_token_names_nobody(raw: str) -> None:
    """Whatever the text: a refusal, and no request."""
    several = Several()
    with pytest.raises(Unauthorized) as caught:
        several.auth.find(raw)
    assert caught.value.error == "invalid_token"
    assert not await several.auth.validate_token(raw)
    assert several.auth.find(several.one.token())[0] == "one"


@given(st.text())
def test_finding_a_provider_is_total(raw: str) -> None:
    """For any text the answer is a refusal, never another exception."""
    with pytest.raises(Unauthorized):
        MULTI.find(raw)


@pytest.mark.parametrize(
    "payload",
    [
        '{"iss":"https://one.example"}',
        '{ "iss" : "https://one.example" }',
        '{"iss":\t"https://one.example"}',
        '{"iss":"https:\\/\\/one.example"}',
        '{"\\u0069ss":"https://one.example"}',
        '{"act":{"iss":"https://two.example"},"iss":"https://one.example"}',
        '{"iss":"https://one.example","note":"\\"iss\\":\\"https://two.example\\""}',
    ],
)
def test_spellings_of_an_issuer(payload: str) -> None:
    """However JSON writes it, the provider of the token's own `iss` is found."""
    assert MULTI.find(f"e30.{_encoded(payload)}.AA")[0] == "one"


@pytest.mark.parametrize(
    "payload",
    [
        '{"iss":"https://two.example"}',
        '{"iss":"https://one.example","iss":"https://one.example"}',
        '{"act":{"iss":"https://one.example"},"iss":7}',
        '{"note":"\\"iss\\":\\"https://one.example\\""}',
        '["https://one.example"]',
        '"iss"',
    ],
)
def test_payloads_that_name_nobody(payload: str) -> None:
    """A name in another object, twice, or outside of an object is not the issuer."""
    with pytest.raises(Unauthorized):
        MULTI.find(f"e30.{_encoded(payload)}.AA")


@pytest.mark.parametrize("payload", ['{"act":{"iss":"https://one.example"}}', '"iss":"https://one.example"'])
async def test_a_provider_refuses_what_is_not_its_own(payload: str) -> None:
    """If the issuer is only in another object, the provider's Auth does not find it, and refuses."""
    issuer = FakeIssuer("https://one.example")
    auth = MultiOIDCAuth({"one": {"issuer": issuer.url, "audience": API, "client": issuer.client}})
    segments = issuer.token().split(".")
    signing_input = f"{segments[0]}.{_encoded(payload)}"
    algorithm = JWSRegistry.algorithms["ES256"]
    signature = urlsafe_b64encode(algorithm.sign(signing_input.encode(), issuer._keys[0])).rstrip(b"=").decode()
    assert not await auth.validate_token(f"{signing_input}.{signature}")
    assert await auth.validate_token(issuer.token())


def _encoded(payload: str) -> str:
    return urlsafe_b64encode(payload.encode()).rstrip(b"=").decode()


MULTI = MultiOIDCAuth({"one": {"issuer": "https://one.example", "audience": API}})


async def test_one_providers_outage_leaves_the_others_working() -> None:
    """The tokens of the unreachable one are a 503, all others are decided."""
    several = Several()
    with several.one.outage():
        async with several.auth:
            assert_unavailable(await send(several.app, several.one.token(scope="items:read")))
            assert (await send(several.app, several.two.token(grants="items:read"))).status_code == 200
            assert_refused(await send(several.app, several.two.token(iss="x", grants="items:read")))
    assert (await send(several.app, several.one.token(scope="items:read"))).status_code == 200


async def test_a_refused_token_names_no_provider() -> None:
    """`request.state.auth_provider` is set only after the token was verified."""
    several = Several()
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    with pytest.raises(Unauthorized):
        await several.auth.verify_request(request, several.one.token(aud="other"))
    assert not hasattr(request.state, "auth_provider")
    claims = await several.auth.verify_request(request, several.one.token())
    assert request.state.auth_provider == "one"
    assert (await several.auth.verify(several.one.token()))["sub"] == claims["sub"]


async def test_providers_may_be_auths() -> None:
    """An OIDCAuth, such as a preset, is a provider as it is; options are for those that are spelled out."""
    issuer = FakeIssuer("https://accounts.google.com", audience="web", algorithm="RS256")
    other = FakeIssuer("https://other.example", audience="web")
    auth = MultiOIDCAuth(
        {
            "google": OIDCAuth.google("web", client=issuer.client),
            "other": {"issuer": other.url, "audience": "web", "client": other.client},
        },
        accept="id",
    )
    for provider in (issuer, other):
        assert await auth.validate_token(provider.id_token())
        assert not await auth.validate_token(provider.token())


@pytest.mark.parametrize(
    "options",
    [
        {"require": {"a": "b"}},
        {"profile": "rfc9068"},
        {"accept": "id"},
        {"algorithms": ["ES256"]},
        {"cooldown": 5},
        {"roles": {"a": ["b:c"]}},
        {"revocations": object()},
        {"dpop": DPoP(MemoryStore(), origin=API)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_would_not_reach_a_provider(options: dict[str, Any]) -> None:
    """Beside an OIDCAuth it is refused, and not dropped; one that the provider has itself is applied already."""
    with pytest.raises(ConfigurationError, match=r"OIDCAuth"):
        MultiOIDCAuth({"one": OIDCAuth("https://id.example", API)}, **options)
    if "revocations" not in options:
        assert MultiOIDCAuth({"one": OIDCAuth("https://id.example", API, **options)}, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": BearerScheme(realm="orders")},
        {"scope_validator": SimpleScopeValidator()},
        {"name": "one"},
        {"on_event": print},
        {"cookie": True},
        {"trusted_origins": ["https://app.example"]},
        {"missing_detail": "Log in"},
        {"invalid_detail": "Log in again"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_of_a_provider_that_counts_for_the_whole(options: dict[str, Any]) -> None:
    """A guard calls the MultiOIDCAuth, so that these would be dropped: rejected, for mappings and for instances."""
    place = {"issuer": "https://id.example", "audience": API}
    for provider in ({**place, **options}, OIDCAuth(**place, **options)):
        with pytest.raises(ConfigurationError, match=f"{next(iter(options))} would not apply"):
            MultiOIDCAuth({"one": provider})
    assert MultiOIDCAuth({"one": place}, **options)


async def test_the_tenant_of_a_token_of_several_providers() -> None:
    """Each provider names its claims; a claim that another provider would read counts for nothing."""
    one, two = FakeIssuer("https://one.example"), FakeIssuer("https://two.example")
    auth = MultiOIDCAuth({"one": auth_of(one, tenant_claims=["org"]), "two": auth_of(two)})
    app = FastAPI()

    @app.get("/tenants/{tenant}", dependencies=[auth.requires_tenant()])
    async def of_tenant(tenant: str) -> str:
        return tenant

    for issuer, claims, status in (
        (one, {"org": "acme"}, 200),
        (one, {"tenant_id": "acme"}, 403),
        (two, {"tenant_id": "acme"}, 200),
        (two, {"org": "acme"}, 403),
        (two, {}, 403),
    ):
        assert (await send(app, issuer.token(**claims), path="/tenants/acme")).status_code == status
    assert auth.dependency.decision.tenants({"tenant": "acme"}) == {"acme"}


async def test_a_provider_that_checks_proofs() -> None:
    """The DPoP of the one provider counts for the scheme too; one of several is refused."""
    issuer = FakeIssuer()
    auth = MultiOIDCAuth({"one": auth_of(issuer, dpop=DPoP(MemoryStore(), origin=API))})
    token, proof = bound_token_and_proof(issuer)
    assert (await send(guarded_app(auth), token, scheme="DPoP", headers={"DPoP": proof})).status_code == 200
    with pytest.raises(ConfigurationError, match="dpop"):
        MultiOIDCAuth({**auth.providers, "two": OIDCAuth("https://two.example", API)})


async def test_the_claims_of_a_ticket_of_several_providers() -> None:
    """A ticket has the claims alone: their provider decides whether they are valid, another issuer is refused."""
    several = Several()
    claims = await several.auth.verify(several.one.token())
    assert await several.auth._current(claims, None) == claims
    with pytest.raises(Unauthorized):
        await several.auth._current({**claims, "iss": "https://attacker.example"}, None)


async def test_administrators_of_several_providers() -> None:
    """`is_admin` counts from the providers that are named, and from no other issuer."""
    one, two = FakeIssuer("https://one.example"), FakeIssuer("https://two.example")
    providers = {"one": auth_of(one), "two": auth_of(two)}
    auth = MultiOIDCAuth(providers, admin_providers=["one"])
    claims = [await auth.verify(issuer.token(is_admin=True)) for issuer in (one, two)]
    assert [auth.grants_of(found).is_admin for found in claims] == [True, False]
    assert not MultiOIDCAuth(providers).grants_of(claims[0]).is_admin
    for wrong in (["three"], "one"):
        with pytest.raises(ConfigurationError, match="admin_providers"):
            MultiOIDCAuth(providers, admin_providers=wrong)


async def test_bound_tokens_of_several_providers() -> None:
    """The scheme is offered for all, and the proof checked by the provider's own Auth."""
    several = Several(dpop=DPoP(MemoryStore(), origin=API))
    token, proof = bound_token_and_proof(several.one, scope="items:read")
    assert (await send(several.app, token, scheme="DPoP", headers={"DPoP": proof})).status_code == 200
    refused = await send(several.app, token)
    assert refused.status_code == 401
    assert re.match(r"Bearer .*, DPoP .*algs=", refused.headers["WWW-Authenticate"])


def test_providers_have_issuers_of_their_own() -> None:
    """No provider, and two with one issuer, are errors when constructed."""
    entry = {"issuer": "https://one.example", "audience": "a"}
    with pytest.raises(ConfigurationError, match="at least one"):
        MultiOIDCAuth({})
    with pytest.raises(ConfigurationError, match="providers maps names of your own"):
        MultiOIDCAuth([entry])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="each issuer once"):
        MultiOIDCAuth({"a": entry, "b": {**entry, "audience": "b"}})


async def test_a_hundred_issuers() -> None:
    """Each of many is found, and only its keys are fetched."""
    issuers = [FakeIssuer(f"https://id{number}.example") for number in range(100)]
    auth = MultiOIDCAuth({i.url: {"issuer": i.url, "audience": API, "client": i.client} for i in issuers})
    assert await auth.validate_token(issuers[57].token())
    assert [bool(issuer.requests) for issuer in issuers].index(True) == 57
    assert sum(bool(issuer.requests) for issuer in issuers) == 1


def test_a_scheme_of_the_application() -> None:
    """A scheme that is passed is used as it is, and announces no discovery document."""
    scheme = BearerScheme(realm="orders")
    auth = OIDCAuth("https://id.example", "https://api.example", scheme, access_mark={"token_use": "access"})
    assert auth.scheme is scheme


@pytest.mark.parametrize("path", ["", "/realms/shop"])
@pytest.mark.parametrize("name", ["openid-configuration", "oauth-authorization-server"])
def test_the_document_in_place_of_the_issuer(path: str, name: str) -> None:
    """The URL of the discovery document is not an issuer: nothing would be found below it."""
    with pytest.raises(ConfigurationError, match=r"^issuer is not the URL of its discovery document: pass what stands"):
        OIDCAuth(issuer=f"https://id.example{path}/.well-known/{name}", audience="a")
