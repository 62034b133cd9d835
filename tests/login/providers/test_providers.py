"""Kinds of providers: OpenID Connect, GitHub, the presets, and the metadata they are found by."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

import httpx2
import pytest
from joserfc.jwk import ECKey
from pydantic import HttpUrl, SecretStr
from redis.asyncio import Redis

from fastapi_guard import ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.exceptions import AuthError
from fastapi_guard.jwt.compact import decode_base64url, decode_object
from fastapi_guard.jwt.http import client_on, in_process
from fastapi_guard.jwt.responses import Answer, FetchError
from fastapi_guard.login.login import Complete
from fastapi_guard.login.providers import GitHub, Identity, OpenIDProvider, presets
from fastapi_guard.login.providers.client import ProviderClient
from fastapi_guard.login.providers.provider import AuthorizationRequest, CodeExchange, ResponseMode
from fastapi_guard.stores import MemoryStore
from fastapi_guard.testing.issuer import FakeIssuer
from support.clock import Clock
from support.providers import BROWSER, Shop, parameters_of

REQUEST = AuthorizationRequest(redirect_uri="https://shop.example/cb", state="s", nonce="n", challenge="c")
EXCHANGE = CodeExchange(code="code", redirect_uri="https://shop.example/cb", verifier="v", nonce="n")


async def test_metadata_is_kept_for_an_hour(clock: Clock) -> None:
    """Endpoints are fetched once an hour, and the last ones stay valid while the provider is down."""
    issuer = FakeIssuer(clock=clock)
    provider = OpenIDProvider("acme", issuer.url, "shop", client=issuer.client, clock=clock)
    for _ in range(2):
        assert (await provider.authorization_url(REQUEST)).startswith(f"{issuer.url}/authorize?")
    assert issuer.requests == ["/.well-known/openid-configuration"]
    clock.now += 3601
    with issuer.outage():
        assert (await provider.metadata.endpoints()).end_session_endpoint == f"{issuer.url}/logout"
    before = issuer.requests.count("/.well-known/openid-configuration")
    clock.now += 3601
    await provider.metadata.endpoints()
    assert issuer.requests.count("/.well-known/openid-configuration") == before + 1
    await provider.aclose()


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": None},
        {"token_endpoint": "http://id.example/token"},
        {"token_endpoint": 7},
    ],
)
async def test_metadata_that_is_not_used(clock: Clock, changed: dict[str, Any]) -> None:
    """Metadata of another issuer, or without https endpoints, is not used."""
    issuer = FakeIssuer(clock=clock)
    provider = OpenIDProvider("acme", issuer.url, "shop", client=issuer.client, clock=clock)
    document = json.dumps({**issuer.metadata, **changed}).encode()
    with issuer.answering("/.well-known/openid-configuration", document), pytest.raises(FetchError):
        await provider.authorization_url(REQUEST)
    with issuer.answering("/.well-known/openid-configuration", b"[]"), pytest.raises(FetchError):
        await provider.authorization_url(REQUEST)


async def test_the_response_mode(clock: Clock) -> None:
    """The authorization request names it where the answer is not in the query."""
    issuer = FakeIssuer(clock=clock)
    modes: list[ResponseMode] = ["query", "form_post"]
    providers = [OpenIDProvider("a", issuer.url, "shop", response_mode=mode, client=issuer.client) for mode in modes]
    queries = [parameters_of(await provider.authorization_url(REQUEST)) for provider in providers]
    assert [query.get("response_mode") for query in queries] == [None, "form_post"]


async def test_a_provider_in_a_private_network(clock: Clock) -> None:
    """With ``private_http`` the metadata, the tokens and the keys are fetched without TLS."""
    issuer = FakeIssuer("http://id:8080", audience="shop", clock=clock)
    options: Any = {"private_http": True, "client": issuer.client, "clock": clock}
    provider = OpenIDProvider("private", issuer.url, "shop", "secret", **options)
    shop = Shop(MemoryStore(clock=clock), clock, more=[provider])
    answer = issuer.authorize(await shop.sign_in.start("private", browser=BROWSER), sub="u-1")
    signed_in = await shop.sign_in.finish("private", parameters_of(answer), browser=BROWSER, connection=None)
    assert signed_in.identity.issuer == "http://id:8080"
    with pytest.raises(ConfigurationError, match="not an https URL"):
        OpenIDProvider("private", issuer.url, "shop", "secret")


async def test_userinfo(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of the userinfo endpoint are used where they are about the same user (OpenID Connect Core 5.3.2)."""
    shop = Shop(MemoryStore(clock=clock), clock, provider={"userinfo": True})
    read, tokens = shop.provider.client.read, []

    async def noted(url: str, access_token: str) -> Any:
        tokens.append(access_token)
        return await read(url, access_token)

    monkeypatch.setattr(shop.provider.client, "read", noted)
    metadata = json.dumps({**shop.issuer.metadata, "userinfo_endpoint": f"{shop.issuer.url}/userinfo"}).encode()
    with shop.issuer.answering("/.well-known/openid-configuration", metadata):
        with shop.issuer.answering("/userinfo", b'{"sub":"u-1","name":"Ada"}'):
            assert (await shop.enter(sub="u-1")).identity.name == "Ada"
        assert [decode_object(decode_base64url(token.split(".")[1].encode()))["sub"] for token in tokens] == ["u-1"]
        for body in (b'{"sub":"u-2"}', b"[]", b'{"name":"Ada"}'):
            with shop.issuer.answering("/userinfo", body), pytest.raises(Unauthorized):
                await shop.enter(sub="u-1")
            assert shop.happened()[-1] == "provider_failed:userinfo_subject"
        with shop.issuer.answering("/userinfo", b"{"), pytest.raises(AuthError) as refusal:
            await shop.enter(sub="u-1")
        assert refusal.value.status_code == 503
    without = Shop(MemoryStore(clock=clock), clock, provider={"userinfo": True})
    assert (await without.enter(sub="u-1")).outcome is not None


async def test_userinfo_is_not_read_by_default(clock: Clock) -> None:
    """The claims of the ID token are enough, unless userinfo is wanted."""
    shop = Shop(MemoryStore(clock=clock), clock)
    metadata = json.dumps({**shop.issuer.metadata, "userinfo_endpoint": f"{shop.issuer.url}/userinfo"}).encode()
    with (
        shop.issuer.answering("/.well-known/openid-configuration", metadata),
        shop.issuer.answering("/userinfo", b'{"sub":"u-1","name":"Ada"}'),
    ):
        assert (await shop.enter(sub="u-1")).identity.name is None


async def test_an_issuer_parameter_that_was_not_announced(clock: Clock) -> None:
    """An answer without one is accepted from such a provider, and one of another provider is not (RFC 9207 2.4)."""
    shop = Shop(MemoryStore(clock=clock), clock)
    metadata = {**shop.issuer.metadata, "authorization_response_iss_parameter_supported": False}
    with shop.issuer.answering("/.well-known/openid-configuration", json.dumps(metadata).encode()):
        answer = await shop.answer(sub="u-1")
        with pytest.raises(Unauthorized):
            await shop.finish({**answer, "iss": "https://evil.example"})
        assert shop.happened()[-1] == "provider_failed:issuer_parameter"
        answer = await shop.answer(sub="u-1")
        assert (await shop.finish({key: answer[key] for key in ("state", "code")})).outcome is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scopes": "openid"}, "a list with"),
        ({"scopes": ["email"]}, "a list with"),
        ({"parameters": {"state": "x"}}, "cannot set state"),
        ({"response_mode": "fragment"}, "response_mode is"),
        ({"vouches": "yes"}, "vouches is"),
        ({"authentication": "private_key_jwt"}, "authentication is one of"),
        ({"colour": "red"}, "no option colour"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    """Everything configured is applied or refused."""
    with pytest.raises(ConfigurationError, match=message):
        OpenIDProvider("acme", "https://id.example", "shop", "secret", **options)


@pytest.mark.parametrize(("client_id", "secret"), [("", "secret"), (7, "secret"), ("shop", ""), ("shop", 7)])
def test_a_client_without_an_identity(client_id: Any, secret: Any) -> None:
    """A client has an identifier, and a secret or none."""
    with pytest.raises(ConfigurationError, match=r"client_(id|secret) is"):
        ProviderClient(client_id, secret)
    assert "secret" not in repr(ProviderClient("shop", "a secret"))


async def test_a_public_client(clock: Clock) -> None:
    """A public client sends its identifier in the form, and a posted secret beside it."""
    for authentication, secret in (("client_secret_basic", None), ("client_secret_post", lambda: "made anew")):
        shop = Shop(MemoryStore(clock=clock), clock)
        shop.provider.client = ProviderClient(
            "shop",
            secret,
            authentication=authentication,  # type: ignore[arg-type]
            client=shop.issuer.client,
        )
        assert isinstance((await shop.enter(sub="u-1")).outcome, Complete)


@pytest.mark.parametrize("secret", [None, "", b"bytes", 5])
async def test_a_function_that_returns_no_secret(clock: Clock, secret: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is not a public client then: the sign-in is a 503, and the log has the cause."""
    shop = Shop(MemoryStore(clock=clock), clock)
    shop.provider.client = ProviderClient("shop", lambda: secret, client=shop.issuer.client)
    with pytest.raises(ServiceUnavailable):
        await shop.enter(sub="u-1")
    assert "client_secret returned" in caplog.text
    shop.provider.client = ProviderClient("shop", lambda: SecretStr("a secret"), client=shop.issuer.client)  # type: ignore[arg-type, return-value]
    assert isinstance((await shop.enter(sub="u-1")).outcome, Complete)


class Hub:
    """GitHub's endpoints, in process."""

    def __init__(self, **answers: Any) -> None:
        """Answer with these documents by the end of the path."""
        self.answers: dict[str, Any] = {
            "access_token": {"access_token": "t"},
            "user": {"id": 7, "login": "ada", "name": "Ada"},
            "emails": [
                {"email": "old@example.com", "verified": True, "primary": False},
                {"email": "ada@example.com", "verified": True, "primary": True},
            ],
            **answers,
        }
        self.requests: list[tuple[str, str | None]] = []

    async def answer(self, _: str, url: str, headers: Any, __: bytes) -> Answer:
        """Answer a request."""
        self.requests.append((url, headers.get("Authorization")))
        return Answer(200, {}, json.dumps(self.answers[url.rsplit("/", 1)[1]]).encode())

    def provider(self, **options: Any) -> GitHub:
        """Return the provider."""
        return GitHub("shop", "secret", client=client_on(in_process(self.answer)), **options)


async def test_github() -> None:
    """GitHub identifies by its numeric id, and names the verified primary address."""
    hub = Hub()
    provider = hub.provider(parameters={"allow_signup": "false"})
    url = await provider.authorization_url(REQUEST)
    assert url.startswith("https://github.com/login/oauth/authorize?")
    assert parameters_of(url)["allow_signup"] == "false"
    identity = await provider.identify(EXCHANGE, issuer=None)
    assert (identity.issuer, identity.subject, identity.name) == ("https://github.com", "7", "Ada")
    assert (identity.email, identity.email_verified) == ("ada@example.com", True)
    assert not provider.vouches(identity)
    assert [request[1] for request in hub.requests] == [None, "Bearer t", "Bearer t"]
    enterprise = Hub()
    await enterprise.provider(host="https://git.example", vouches=True).identify(EXCHANGE, issuer=None)
    assert enterprise.requests[1][0] == "https://git.example/api/v3/user"
    await provider.aclose()


@pytest.mark.parametrize(
    ("answers", "email"),
    [
        ({"emails": [{"email": "ada@example.com", "verified": False, "primary": True}]}, None),
        ({"emails": [{"email": "not an address", "verified": True, "primary": True}]}, None),
        ({"emails": {"message": "x"}}, None),
        ({"emails": ["x"]}, None),
        ({"user": {"id": 7, "name": 5}}, "ada@example.com"),
    ],
)
async def test_addresses_of_github(answers: dict[str, Any], email: str | None) -> None:
    """Only a verified primary address counts."""
    identity = await Hub(**answers).provider().identify(EXCHANGE, issuer=None)
    assert (identity.email, identity.email_verified) == (email, email is not None)


@pytest.mark.parametrize(
    ("answers", "issuer", "error"),
    [
        ({"access_token": {"error": "bad_verification_code"}}, None, Unauthorized),
        ({"access_token": {"access_token": 7}}, None, Unauthorized),
        ({"user": {"id": "7"}}, None, FetchError),
        ({"user": {"id": True}}, None, FetchError),
        ({"user": []}, None, FetchError),
        ({}, "https://evil.example", Unauthorized),
    ],
)
async def test_github_refuses(answers: dict[str, Any], issuer: str | None, error: type[Exception]) -> None:
    """A refused code, an answer of another issuer and a strange account identify no user."""
    with pytest.raises(error):
        await Hub(**answers).provider().identify(EXCHANGE, issuer=issuer)


def test_github_needs_a_secret() -> None:
    """GitHub has no public clients."""
    with pytest.raises(ConfigurationError, match="client_secret"):
        GitHub("shop", None)


GUID = "12345678-1234-1234-1234-123456789abc"
PRESETS: dict[str, tuple[Callable[[], Any], str]] = {
    "google": (lambda: presets.google("c", "s", hosted_domain="example.com"), "https://accounts.google.com"),
    "entra": (lambda: presets.entra(GUID, "c", "s"), f"https://login.microsoftonline.com/{GUID}/v2.0"),
    "gitlab": (lambda: presets.gitlab("c", "s"), "https://gitlab.com"),
    "keycloak": (lambda: presets.keycloak("https://sso.example/", "shop", "c"), "https://sso.example/realms/shop"),
    "okta": (lambda: presets.okta("acme.okta.com", "c"), "https://acme.okta.com"),
    "okta, a custom server": (
        lambda: presets.okta("acme.okta.com", "c", authorization_server="default"),
        "https://acme.okta.com/oauth2/default",
    ),
    "auth0": (lambda: presets.auth0("acme.eu.auth0.com", "c"), "https://acme.eu.auth0.com/"),
    "cognito": (
        lambda: presets.cognito("eu-west-1", "eu-west-1_abc", "c"),
        "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc",
    ),
    "github": (lambda: presets.github("c", "s"), "https://github.com"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    """Each preset has the issuer of its provider."""
    make, issuer = PRESETS[name]
    assert make().issuer == issuer


def test_presets_that_are_refused() -> None:
    """A tenant that is not a GUID, and a realm with a slash, are refused."""
    with pytest.raises(ConfigurationError, match="GUID"):
        presets.entra("common", "c", "s")
    with pytest.raises(ConfigurationError, match="slash"):
        presets.keycloak("https://sso.example", "a/b", "c")


@pytest.mark.parametrize(
    ("claims", "email", "verified", "expected"),
    [
        ({}, "ada@gmail.com", True, True),
        ({}, "ada@gmail.com", False, False),
        ({}, "ada@example.com", True, False),
        ({"hd": "example.com"}, "ada@example.com", True, True),
        ({"hd": "example.com"}, "ada@other.example", True, False),
        ({}, None, True, False),
    ],
)
def test_google_vouches(claims: dict[str, Any], email: str | None, verified: bool, expected: bool) -> None:
    """Google vouches for gmail.com and the domain of the user's Workspace."""
    identity = Identity(issuer="i", subject="s", email=email, email_verified=verified, claims=claims)
    assert presets.google("c", "s").vouches(identity) is expected


async def test_apple(clock: Clock) -> None:
    """Apple's client secret is a token of five minutes, signed with the key that Apple has given out."""
    key = ECKey.generate_key("P-256")
    pem = key.as_pem(private=True).decode()
    provider = presets.apple("com.shop", team_id="TEAM", key_id="KEY", private_key=pem, clock=clock)
    assert provider.response_mode == "form_post"
    secret: Any = provider.client._secret
    from joserfc import jwt  # noqa: PLC0415 - of this test alone

    token = jwt.decode(secret(), key, algorithms=["ES256"])
    assert (token.header["kid"], token.claims["iss"], token.claims["sub"]) == ("KEY", "TEAM", "com.shop")
    assert token.claims["aud"] == "https://appleid.apple.com"
    assert token.claims["exp"] - token.claims["iat"] == 300
    public = ECKey.generate_key("P-256").as_pem(private=False).decode()
    with pytest.raises(ConfigurationError):
        presets.apple("com.shop", team_id="TEAM", key_id="KEY", private_key=public)


PRIVATE: Final = ECKey.generate_key("P-256").as_pem(private=True)
APPLE: Final = {"client_id": "c", "team_id": "T", "key_id": "K", "private_key": PRIVATE.decode()}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: presets.apple(**{**APPLE, "private_key": PRIVATE}), "the text of a PEM file, not bytes: decode"),
        (lambda: presets.apple(**{**APPLE, "team_id": None}), "team_id is the id that Apple has given out, not None"),
        (lambda: presets.apple(**{**APPLE, "key_id": 5}), "key_id is the id that Apple has given out, not 5"),
        (lambda: presets.gitlab("c", "s", url=None), "not an https URL"),  # type: ignore[arg-type]
        (lambda: presets.keycloak("https://sso.example", 5, "c"), "realm is a name without a slash"),  # type: ignore[arg-type]
        (lambda: presets.google("c", "s", hosted_domain=5), "hosted_domain is text"),  # type: ignore[arg-type]
        (
            lambda: presets.google("c", "s", hosted_domain="a.example", require={"hd": "b.example"}),
            "this preset requires hd itself, with other values",
        ),
        (
            lambda: presets.google("c", "s", hosted_domain="a.example", require=["hd"]),  # type: ignore[arg-type]
            "require is a mapping",
        ),
        (
            lambda: presets.google("c", "s", hosted_domain="a.example", parameters=5),  # type: ignore[arg-type]
            "parameters is a mapping",
        ),
        (lambda: presets.entra(GUID, "c", "s", require={"tid": "other"}), "this preset requires tid itself"),
        (lambda: presets.okta("acme.okta.com", "c", authorization_server=""), "authorization_server is its id"),
        (
            lambda: presets.okta("acme.okta.com", "c", authorization_server="https://acme.okta.com/oauth2/default"),
            "authorization_server is its id",
        ),
        (lambda: presets.cognito("eu-west-1", None, "c"), "user_pool_id begins with the region"),  # type: ignore[arg-type]
        (lambda: presets.cognito("eu-west-1", "us-east-1_abc", "c"), "such as eu-west-1_Ab12Cd34E"),
        (lambda: GitHub("c", "s", parameters={"state": "x"}), "parameters cannot set state: every request has its own"),
        (lambda: GitHub("c", "s", parameters={"scope": ["repo"]}), "parameters: scope is text, not list"),  # type: ignore[dict-item]
        (lambda: GitHub("c", "s", parameters=[]), "parameters is a mapping"),  # type: ignore[arg-type]
        (
            lambda: OpenIDProvider("a", "https://id.example", "c", parameters={"a": True}),  # type: ignore[dict-item]
            "parameters: a is text, not True",
        ),
        (
            lambda: OpenIDProvider("a", "https://id.example", "c", scopes=["openid", None]),  # type: ignore[list-item]
            "scopes is a list with openid in it, .* not of None",
        ),
        (
            lambda: OpenIDProvider("a", "https://id.example", "c", client=httpx2.AsyncClient),  # type: ignore[arg-type]
            "client is an httpx2.AsyncClient, not the class AsyncClient",
        ),
        (
            lambda: OpenIDProvider("a", "https://id.example", "c", client=Redis()),  # type: ignore[arg-type]
            "client is an httpx2.AsyncClient, not Redis",
        ),
    ],
    ids=range(21),
)
def test_a_mistake_of_a_newcomer(build: Callable[[], object], message: str) -> None:
    """An argument of the wrong type, or one that would not apply, is refused with the remedy."""
    with pytest.raises(ConfigurationError, match=message):
        build()


def test_arguments_of_pydantic() -> None:
    """URLs and secrets of settings are accepted as they are."""
    url: Any = HttpUrl("https://sso.example")
    key: Any = SecretStr(PRIVATE.decode())
    assert presets.gitlab("c", "s", url=url).issuer == "https://sso.example"
    assert presets.keycloak(url, "shop", "c").issuer == "https://sso.example/realms/shop"
    assert presets.apple(**{**APPLE, "private_key": key}).issuer == "https://appleid.apple.com"
    domain = presets.google(
        "c", "s", hosted_domain="a.example", require={"email_verified": True}, parameters={"p": "q"}
    )
    assert domain.id_tokens._required == {"email_verified": (True,), "hd": ("a.example",)}
    assert domain._parameters == {"scope": "openid email profile", "hd": "a.example", "p": "q"}


async def test_userinfo_in_a_private_network() -> None:
    """The option ``private_http`` counts for the userinfo endpoint, too."""

    async def answer(method: str, url: str, headers: Any, body: bytes) -> Answer:
        return Answer(body=b'{"sub": "u-1"}')

    for private_http in (True, False):
        client = ProviderClient("c", "s", client=client_on(in_process(answer)), private_http=private_http)
        read = client.read("http://keycloak:8080/userinfo", "token")
        if private_http:
            assert await read == {"sub": "u-1"}
        else:
            with pytest.raises(ConfigurationError):
                await read


@pytest.mark.parametrize(
    ("claims", "found", "address"),
    [
        ({}, {"email": "a@a.example", "email_verified": True}, ("a@a.example", True)),
        ({"email": "a@a.example"}, {"email": "b@b.example", "email_verified": True}, ("a@a.example", False)),
        ({"email_verified": True}, {"email": "b@b.example", "email_verified": False}, (None, True)),
    ],
    ids=range(3),
)
async def test_an_address_and_its_mark(
    clock: Clock, claims: dict[str, Any], found: dict[str, Any], address: tuple[str | None, bool]
) -> None:
    """The mark of the userinfo response is not about the address in the ID token, nor the reverse."""
    shop = Shop(MemoryStore(clock=clock), clock, provider={"userinfo": True})

    async def read(url: str, access_token: str) -> Any:
        return {"sub": "u-1", "name": "Ada", **found}

    shop.provider.client.read = read  # type: ignore[method-assign]
    metadata = json.dumps({**shop.issuer.metadata, "userinfo_endpoint": f"{shop.issuer.url}/userinfo"}).encode()
    with shop.issuer.answering("/.well-known/openid-configuration", metadata):
        identity = (await shop.enter(sub="u-1", **claims)).identity
    assert (identity.email, identity.email_verified, identity.name) == (*address, "Ada")


async def test_metadata_by_a_clock_that_is_set_back() -> None:
    """Metadata and keys are kept by a clock that is never set back, unless another one is passed."""
    issuer = FakeIssuer()
    provider = OpenIDProvider("acme", issuer.url, "shop", client=issuer.client)
    assert provider.metadata._clock is provider.id_tokens.key_set._clock is time.monotonic


async def test_a_null_error(clock: Clock) -> None:
    """A member ``error`` that is null is absent (SECURITY 13a)."""
    hub = Hub(access_token={"access_token": "t", "error": None})
    assert (await hub.provider().identify(EXCHANGE, issuer=None)).subject == "7"
