"""A certified provider as the issuer for OIDCAuth, introspection and DPoP, with clients that others wrote."""

import json

import httpx2
import pytest

from interop.running import Serve, node

API = "resource_app.py"


def test_openid_client(serve: Serve, provider: str) -> None:
    """Access tokens of the code flow and of a refresh are accepted, the ID token and the refresh token are not."""
    did = json.loads(node("oidc_client.mjs", provider, serve(API)))
    assert did == {"access": 200, "refreshed": 200, "id": 401, "refresh": 401}


@pytest.mark.parametrize("path", ["/bound", "/opaque-bound"])
def test_bound_tokens(serve: Serve, provider: str, path: str) -> None:
    """oauth4webapi calls with proofs; without one, with another key's, or with one that was used, it is a 401."""
    did = json.loads(node("dpop_client.mjs", provider, serve(API), path))
    expected = {"first": 200, "again": 200, "foreign": 401, "plain": 401, "replayed": 401, "unbound": 401}
    assert did == expected


def test_introspection(serve: Serve, provider: str) -> None:
    """An opaque token is accepted until it is revoked, and one for another resource is not."""
    api = serve(API)
    machine = ("machine", "the-secret-of-the-machine")
    with httpx2.Client() as client:

        def token_for(path: str, scope: str = "items:read") -> str:
            body = {"grant_type": "client_credentials", "scope": scope, "resource": api + path}
            answer = client.post(f"{provider}/token", auth=machine, data=body)
            return str(answer.json()["access_token"])

        def call(token: str) -> tuple[int, str]:
            answer = client.get(f"{api}/opaque", headers={"Authorization": f"Bearer {token}"})
            return answer.status_code, answer.headers.get("www-authenticate", "")

        token = token_for("/opaque")
        assert token.count(".") == 0
        assert call(token) == (200, "")
        status, challenge = call(token_for("/opaque", "items:write"))
        assert (status, 'error="insufficient_scope"' in challenge) == (403, True)
        assert call(token_for("/opaque-bound"))[0] == 401
        assert call("unknown")[0] == 401
        client.post(f"{provider}/token/revocation", auth=machine, data={"token": token}).raise_for_status()
        assert call(token)[0] == 401
