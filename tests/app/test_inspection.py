"""The inspection of a token, against the Auths of an application."""

from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey

from fastapi_guard import JWTAuth, JWTConfig, ScopesAuth, ServiceUnavailable
from fastapi_guard.app.inspection import inspect_token
from fastapi_guard.issuers import MultiOIDCAuth, OIDCAuth
from fastapi_guard.jwt.compact import encode_base64url, encode_object

NOW = 1_800_000_000
KEY, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
ISSUER = "https://login.example/tenant-a"
AUTH = JWTAuth(JWTConfig(key=KEY, issuer_url=ISSUER, audience="api"), clock=lambda: NOW)


class Fixed(ScopesAuth):
    """An Auth with a fixed decision."""

    def __init__(self, answer: Any) -> None:
        """Return, or raise, ``answer``."""
        super().__init__(name="fixed")
        self.answer = answer

    async def verify(self, raw: str) -> Any:
        """Return the answer."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def token(claims: dict[str, Any] | None = None, *, header: dict[str, Any] | None = None, key: Any = KEY) -> str:
    """Return a token; other claims and header members replace those of a valid one."""
    issuing = JWTAuth(JWTConfig(key=key, issuer_url=ISSUER, audience="api", header=header or {}), clock=lambda: NOW)
    return issuing.encode({"sub": "ada", **(claims or {})})


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """Return a token whose signature is nothing."""
    parts = encode_object({"alg": "ES256", **header}), encode_object(claims), encode_base64url(b"x")
    return b".".join(parts).decode()


async def test_a_valid_token() -> None:
    """A token that is accepted has its claims in the report, with times that people read, and no finding."""
    found = await inspect_token(token({"exp": NOW + 60, "email": "ada@example.com", "jti": "1"}), [AUTH], NOW)
    assert (found.form, found.findings) == ("signed", ())
    assert found.claims == {
        "iss": ISSUER,
        "sub": "ada",
        "aud": "api",
        "jti": "1",
        "iat": "2027-01-15T08:00:00Z",
        "exp": "2027-01-15T08:01:00Z",
    }
    (verdict,) = found.verdicts
    assert (verdict.auth, verdict.accepted, verdict.reason, verdict.findings) == ("jwt", True, None, ())
    assert "ada@example.com" not in str(found) + repr(found)
    assert str(found).startswith("form: signed\nalg: ES256\nkid: ")
    assert str(found).endswith("\njwt: accepted")


FUTURE = {"exp": NOW + 60, "iss": ISSUER, "aud": "api", "iat": NOW}
FINDINGS: list[Any] = [
    ({"exp": NOW - 30}, "it expired 30 s ago"),
    ({"exp": NOW - 3600}, "it expired 60 min ago"),
    ({"nbf": NOW + 30}, "it is valid in 30 s: compare the clocks"),
    ({"iat": NOW + 30}, "it was issued 30 s in the future: compare the clocks"),
    ({"exp": "x"}, "exp is not a number: str"),
    ({"exp": True}, "exp is not a number: bool"),
    ({"nonce": "n"}, "this is an ID token (nonce): send the access token instead"),
    ({"at_hash": "h", "c_hash": "h"}, "this is an ID token (at_hash, c_hash): send the access token instead"),
    ({"token_use": "id"}, "this is an ID token (by its type): send the access token instead"),
    ({"typ": "Refresh"}, "this is a refresh token: exchange it for an access token"),
    ({"events": {}}, "this is a security event or logout token, not an access token"),
    ({"htm": "GET", "htu": "x"}, "this is a DPoP proof: it belongs into the header DPoP, beside the token"),
    ({"cnf": {"jkt": "x"}}, "it is bound to a key: without its proof (DPoP) it is refused"),
]


@pytest.mark.parametrize(("claims", "finding"), FINDINGS, ids=range(len(FINDINGS)))
async def test_what_is_remarkable(claims: dict[str, Any], finding: str) -> None:
    """Another kind of token and its times are named, whatever the configuration."""
    found = await inspect_token(unsigned({**FUTURE, **claims}), [], NOW)
    assert found.findings == (finding,)
    assert found.verdicts == ()


async def test_a_token_without_an_end() -> None:
    """A token without `exp`, and one that is not signed, are named; a huge time is shown as it is."""
    found = await inspect_token(unsigned({"iat": 10**30, "auth_time": 1.5}, alg="none"), [], NOW)
    assert found.findings[0] == "it is not signed: its alg is 'none'"
    assert found.findings[-1] == "it has no exp, so it never expires"
    assert found.claims == {"iat": 10**30, "auth_time": "1970-01-01T00:00:01.500000Z"}


FORMS = {
    "a.b.c.d.e": ("encrypted", "it is encrypted (JWE): "),
    "sk-0123": ("opaque", "it is not a JWT: "),
    "a.b.c": ("signed", "it is malformed: "),
    "é.b.c": ("signed", "it is malformed: "),
}


@pytest.mark.parametrize("raw", FORMS)
async def test_forms(raw: str) -> None:
    """An encrypted, opaque or malformed token is named, and refused by the Auth."""
    found = await inspect_token(raw, [AUTH], NOW)
    assert (found.form, found.findings[0].startswith(FORMS[raw][1])) == (FORMS[raw][0], True)
    assert [verdict.accepted for verdict in found.verdicts] == [False]
    assert f"\n! {found.findings[0]}\njwt: refused: " in str(found)


DIFFERENCES: list[Any] = [
    ({"iss": "https://login.example/tenant-b"}, "issuer", "it is another tenant's of the same issuer: iss is "),
    ({"iss": "https://other.example"}, "issuer", "it is another issuer's: iss is https://other.example, and "),
    ({"iss": "https://other.example", "tid": "b"}, "issuer", "it is another tenant's (b): iss is https://other.ex"),
    ({"iss": "https://other.example", "tid": "tenant-a"}, "issuer", "it is another issuer's: "),
    ({"iss": "name"}, "issuer", "it is another issuer's: iss is name"),
    ({"aud": "other"}, "audience", "the audience is other, and api is accepted"),
    ({"aud": ["x", "y"]}, "audience", "the audience is ['x', 'y'], and api is accepted"),
]


@pytest.mark.parametrize(("claims", "reason", "finding"), DIFFERENCES, ids=range(len(DIFFERENCES)))
async def test_what_differs(claims: dict[str, Any], reason: str, finding: str) -> None:
    """The issuer, the tenant and the audience are named with what is accepted."""
    (verdict,) = (await inspect_token(token(claims), [AUTH], NOW)).verdicts
    assert (verdict.accepted, verdict.reason) == (False, reason)
    assert len(verdict.findings) == 1
    assert verdict.findings[0].startswith(finding)


async def test_another_key() -> None:
    """A key and an algorithm that the configuration does not have are named."""
    (verdict,) = (await inspect_token(token(key=OTHER), [AUTH], NOW)).verdicts
    assert verdict.findings == (f"kid is {OTHER.thumbprint()}, and the keys are {KEY.thumbprint()}",)
    (verdict,) = (await inspect_token(token(key=OctKey.generate_key(256)), [AUTH], NOW)).verdicts
    assert verdict.findings[0] == "alg is HS256, and ES256 is accepted"


async def test_an_audience_that_is_not_configured() -> None:
    """An audience is named where the configuration has none."""
    auth = JWTAuth(JWTConfig(key=KEY), clock=lambda: NOW)
    (verdict,) = (await inspect_token(token(), [auth], NOW)).verdicts
    assert (verdict.reason, verdict.findings) == ("audience", ("the audience is api, and none is configured",))


async def test_other_auths() -> None:
    """An Auth of another kind has its verdict alone; one that cannot decide is undecided."""
    answers = {"sub": "x"}, None, False, ServiceUnavailable(reason="introspection_unreachable")
    found = await inspect_token("opaque", [Fixed(answer) for answer in answers], NOW)
    assert [(verdict.accepted, verdict.reason) for verdict in found.verdicts] == [
        (True, None),
        (False, "refused"),
        (False, "refused"),
        (None, "introspection_unreachable"),
    ]
    assert str(found).endswith("fixed: undecided: introspection_unreachable")
    assert (await inspect_token(token(), [Fixed({"sub": "x"})], NOW)).verdicts[0].findings == ()


async def test_several_providers() -> None:
    """Each provider of a MultiOIDCAuth is an Auth of its own; remote keys are not compared by their id."""
    providers = {
        name: OIDCAuth(issuer=f"https://{name}.example", audience="api", jwks_uri=f"https://{name}.example/jwks")
        for name in ("one", "two")
    }
    found = await inspect_token("a.b.c", [MultiOIDCAuth(providers)], NOW)
    assert [verdict.auth for verdict in found.verdicts] == ["multi-oidc/one", "multi-oidc/two"]
    for provider in providers.values():
        await provider.aclose()


async def test_a_report_is_ours() -> None:
    """A claim or a header member of a forged token cannot add a line to the report, nor a sequence for a terminal."""
    line = "x\n\x1b[2Jjwt: accepted"
    forged = unsigned({"iss": line, "sub": line, "aud": line, "scope": line}, kid=line)
    report = str(await inspect_token(forged, [AUTH], NOW))
    assert "\x1b" not in report
    assert [text for text in report.splitlines() if text.startswith("jwt: ")] == ["jwt: refused: bad_signature"]
    assert r"sub: x\n\x1b[2Jjwt: accepted" in report


async def test_an_issuer_that_is_not_a_url() -> None:
    """An ``iss`` that cannot be split as a URL is another issuer's."""
    (verdict,) = (await inspect_token(unsigned({"iss": "https://["}), [AUTH], NOW)).verdicts
    assert any(finding.startswith("it is another issuer's: iss is https://[") for finding in verdict.findings)
