"""Clients of OAuth 2.0 at the token endpoint of the login router, and a generated client of the whole API."""

import importlib
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from httpx_auth import InvalidGrantRequest, OAuth2, OAuth2ResourceOwnerPasswordCredentials
from oauthlib.oauth2 import InvalidGrantError, InvalidScopeError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from interop.running import Serve, node

API = "login_app.py"
ALICE = {"username": "alice", "password": "wonderland tea party"}


@pytest.fixture
def insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients talk http, on loopback."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


def test_authlib(serve: Serve, insecure: None) -> None:
    """It logs in with a scope, refreshes, and raises an error for each refusal."""
    api = serve(API)
    with AuthlibSession("interop", token_endpoint_auth_method="none", scope="items:read") as session:
        token = session.fetch_token(f"{api}/token", grant_type="password", **ALICE)
        assert token["scope"] == "items:read"
        assert session.get(f"{api}/items").status_code == 200
        assert session.get(f"{api}/changes").status_code == 403
        renewed = session.refresh_token(f"{api}/token", refresh_token=token["refresh_token"])
        assert renewed["access_token"] != token["access_token"]
        assert session.get(f"{api}/items").status_code == 200
        for change, error in (({"password": "guess"}, "invalid_grant"), ({"scope": "admin"}, "invalid_scope")):
            with pytest.raises(OAuthError) as refused:
                session.fetch_token(f"{api}/token", grant_type="password", **{**ALICE, **change})
            assert refused.value.error == error
        with pytest.raises(OAuthError) as refused:
            session.refresh_token(f"{api}/token", refresh_token="unknown")
        assert refused.value.error == "invalid_grant"


def test_requests_oauthlib(serve: Serve, insecure: None) -> None:
    """It logs in, refreshes by itself when the token has expired, and raises its own errors."""
    api = serve(API)
    saved: list[dict[str, Any]] = []
    session = OAuth2Session(
        client=LegacyApplicationClient("interop"),
        auto_refresh_url=f"{api}/token",
        auto_refresh_kwargs={"client_id": "interop"},
        token_updater=saved.append,
    )
    token = session.fetch_token(f"{api}/token", **ALICE)
    assert session.get(f"{api}/changes").status_code == 200
    session.token = {**token, "expires_at": 1}
    assert session.get(f"{api}/items").status_code == 200
    assert len(saved) == 1
    with pytest.raises(InvalidGrantError):
        session.fetch_token(f"{api}/token", username="alice", password="guess")
    with pytest.raises(InvalidScopeError):
        OAuth2Session(client=LegacyApplicationClient("interop", scope="admin")).fetch_token(f"{api}/token", **ALICE)


def test_httpx_auth(serve: Serve) -> None:
    """It logs in on the way of a request, and raises its own error."""
    api = serve(API)
    OAuth2.token_cache.clear()
    auth = OAuth2ResourceOwnerPasswordCredentials(f"{api}/token", scope="items:read", **ALICE)
    with httpx.Client(auth=auth) as client:
        assert client.get(f"{api}/items").status_code == 200
        assert client.get(f"{api}/changes").status_code == 403
    wrong = OAuth2ResourceOwnerPasswordCredentials(f"{api}/token", username="alice", password="guess")
    with httpx.Client(auth=wrong) as client, pytest.raises(InvalidGrantRequest, match="invalid_grant"):
        client.get(f"{api}/items")


def test_oauth4webapi_and_openid_client(serve: Serve) -> None:
    """They log in with a scope, refresh, and read the errors."""
    did = json.loads(node("token_client.mjs", serve(API)))
    assert did == {
        "type": "bearer",
        "scope": "items:read",
        "items": 200,
        "changes": 403,
        "refreshed": 200,
        "wrong": {"error": "invalid_grant", "status": 400},
        "unsupported": {"error": "unsupported_grant_type", "status": 400},
        "exceeding": {"error": "invalid_scope", "status": 400},
    }


def test_a_generated_client(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that openapi-python-client generates logs in, refreshes, and makes an API key that works."""
    api = serve(API)
    (tmp_path / "config.yml").write_text("post_hooks: []\npackage_name_override: generated\n")
    (tmp_path / "openapi.json").write_text(requests.get(f"{api}/openapi.json", timeout=60).text)
    command = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--meta", "none"]
    command += ["--path", "openapi.json", "--config", "config.yml", "--output-path", "generated", "--fail-on-warning"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    generated = importlib.import_module("generated")
    models = importlib.import_module("generated.models")
    get_token = importlib.import_module("generated.api.login.token_token_post")
    refresh = importlib.import_module("generated.api.login.refresh_token_refresh_post")
    create_key = importlib.import_module("generated.api.api_keys.create_api_keys_post")
    items = importlib.import_module("generated.api.default.items_items_get")
    with ExitStack() as stack:
        anonymous = stack.enter_context(generated.Client(base_url=api))

        def authenticated(token: str) -> Any:
            return stack.enter_context(generated.AuthenticatedClient(base_url=api, token=token))

        tokens = get_token.sync(client=anonymous, body=models.TokenTokenPostBody(**ALICE))
        body = models.RefreshTokenRefreshPostBody(refresh_token=tokens.refresh_token)
        renewed = refresh.sync(client=anonymous, body=body)
        assert renewed.access_token != tokens.access_token
        by_token = authenticated(renewed.access_token)
        assert items.sync(client=by_token) == "items:read items:write"
        wanted = models.CreateApiKeysPostKeyRequest(name="of a script", scopes=["items:read"])
        created = create_key.sync(client=by_token, body=wanted)
        assert items.sync(client=authenticated(created.key)) == "items:read"
        assert items.sync_detailed(client=authenticated("a.b.c")).status_code == 401
