import json

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.testing.issuer import FakeIssuer


async def test_discovery_and_keys_in_process() -> None:
    """The discovery document names the keys, which verify the tokens."""
    issuer = FakeIssuer("https://id.example/realms/one")
    discovered = await issuer.client.get(f"{issuer.url}/.well-known/openid-configuration")
    assert discovered.headers["Cache-Control"] == "public, max-age=300"
    metadata = discovered.json()
    assert metadata["issuer"] == issuer.url
    keys = KeySet.import_key_set((await issuer.client.get(metadata["jwks_uri"])).json())
    token = jwt.decode(issuer.token("ada", scope="a"), keys, ["ES256"])
    assert token.claims["sub"] == "ada"
    assert token.header["typ"] == "at+jwt"
    assert issuer.requests == ["/realms/one/.well-known/openid-configuration", "/realms/one/jwks"]
    assert (await issuer.client.get(f"{issuer.url}/elsewhere")).status_code == 404


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519", "RS256"])
async def test_algorithms(algorithm: str) -> None:
    """Tokens are signed with the algorithm that was named, and the public set holds no private member."""
    issuer = FakeIssuer(algorithm=algorithm)
    keys = RemoteKeySet(issuer.jwks_uri, client=issuer.client)
    auth = JWTAuth(JWTConfig(key=keys, algorithms=[algorithm], audience="https://api.example"))
    assert await auth.validate_token(issuer.token())
    assert not await auth.validate_token(FakeIssuer(algorithm=algorithm).token())
    assert "d" not in issuer.jwks["keys"][0]


def test_an_algorithm_that_it_does_not_have() -> None:
    """Is a ConfigurationError that names those it has."""
    with pytest.raises(ConfigurationError, match="ES256"):
        FakeIssuer(algorithm="HS256")


def test_claims_and_header_are_the_tests() -> None:
    """Given claims replace the issuer's own, `None` leaves one out, in every kind of token."""
    issuer = FakeIssuer(audience=["a", "b"], clock=lambda: 1000.0)
    keys = KeySet.import_key_set(issuer.jwks)  # type: ignore[arg-type]
    access = jwt.decode(issuer.token(jti=None, aud="c", header={"typ": None}, expires_in=60), keys, ["ES256"])
    assert "jti" not in access.claims
    assert "typ" not in access.header
    assert (access.claims["aud"], access.claims["iat"], access.claims["exp"]) == ("c", 1000, 1060)
    identity = jwt.decode(issuer.id_token(nonce=None), keys, ["ES256"])
    assert identity.header["typ"] == "JWT"
    assert identity.claims["aud"] == ["a", "b"]
    assert "at_hash" in identity.claims
    assert "nonce" not in identity.claims


def test_keys_rotate() -> None:
    """A new key signs; the old ones stay published until they are withdrawn."""
    issuer = FakeIssuer()
    first = issuer.kid
    second = issuer.rotate()
    assert [key["kid"] for key in issuer.jwks["keys"]] == [second, first]
    issuer.withdraw(second)
    assert issuer.kid == first
    third = issuer.rotate(withdraw=True)
    issuer.entries = ["broken"]
    assert [entry if isinstance(entry, str) else entry["kid"] for entry in issuer.jwks["keys"]] == [third, "broken"]


async def test_faults_end_with_their_block() -> None:
    """Outage, slowness and another answer last as long as the `with` block, also one within another."""
    issuer = FakeIssuer()
    issuer.max_age = None
    with issuer.outage(), issuer.outage(), pytest.raises(ConnectionError):
        await issuer.client.get(issuer.jwks_uri)
    with issuer.answering("/jwks", b"one", headers={"X-Own": "1"}):
        with issuer.answering("/jwks", b"two", status=500):
            assert (await issuer.client.get(issuer.jwks_uri)).text == "two"
        answer = await issuer.client.get(issuer.jwks_uri)
        assert (answer.text, answer.headers["X-Own"]) == ("one", "1")
    with issuer.slow(0.001, seconds_a_byte=0.000_001):
        assert (await issuer.client.get(issuer.jwks_uri)).json() == issuer.jwks
    answer = await issuer.client.get(issuer.jwks_uri)
    assert answer.json() == issuer.jwks
    assert "Cache-Control" not in answer.headers


def test_over_http() -> None:
    """On loopback it is the issuer at that URL, with the same faults; afterwards it is what it was."""
    issuer = FakeIssuer("https://id.example/realms/one")
    with issuer.serve() as url, httpx2.Client() as client:
        assert issuer.url == url
        assert url.startswith("http://127.0.0.1:")
        assert client.get(f"{url}/.well-known/openid-configuration").json()["issuer"] == url
        assert client.get(issuer.jwks_uri).json() == issuer.jwks
        assert client.get(f"{url}/elsewhere").status_code == 404
        with issuer.outage(), pytest.raises(httpx2.RemoteProtocolError):
            client.get(issuer.jwks_uri)
        with issuer.slow(seconds_a_byte=0.0001):
            assert client.get(issuer.jwks_uri).json() == issuer.jwks
        with issuer.slow(seconds_a_byte=0.05), client.stream("GET", issuer.jwks_uri) as dripping:
            next(dripping.iter_raw())
    assert issuer.url == "https://id.example/realms/one"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/jwks")


async def test_introspection() -> None:
    """Only its client may ask; a token that is unknown, revoked or too old is not active."""
    now = [1000.0]
    issuer = FakeIssuer(clock=lambda: now[0])
    basic = httpx2.BasicAuth(issuer.client_id, issuer.client_secret)
    token = issuer.opaque_token("ada", scope="a", nbf=None)

    async def ask(form: dict[str, str], auth: httpx2.BasicAuth | None = basic) -> httpx2.Response:
        return await issuer.client.post(issuer.introspection_endpoint, data=form, auth=auth)

    answer = (await ask({"token": token})).json()
    assert (answer["active"], answer["sub"], answer["scope"], answer["exp"]) == (True, "ada", "a", 4600)
    posted = {"token": token, "client_id": issuer.client_id, "client_secret": issuer.client_secret}
    assert (await ask(posted, None)).json() == answer
    refused = await ask({"token": token}, None)
    assert refused.status_code == 401
    assert "Basic" in refused.headers["WWW-Authenticate"]
    assert (await ask({"token": token}, httpx2.BasicAuth(issuer.client_id, "wrong"))).status_code == 401
    inactive = {"active": False}
    assert (await ask({"token": "unknown"})).json() == inactive
    assert (await ask({})).json() == inactive
    now[0] = 4600
    assert (await ask({"token": token})).json() == inactive
    other = issuer.opaque_token()
    assert (await ask({"token": other})).json()["active"] is True
    issuer.revoke(other)
    assert (await ask({"token": other})).json() == inactive


def test_the_metadata_is_json() -> None:
    """Its documents can be written to a file."""
    issuer = FakeIssuer()
    assert json.loads(json.dumps(issuer.metadata)) == issuer.metadata
