"""The application with API keys: create a key, use it, and create more keys with it."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.testclient import TestClient

from support.commands import run_program


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the example, on a file of its own."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path / 'api-keys.db'}")
    yield importlib.import_module("api_keys")
    del sys.modules["api_keys"]


def test_the_example(example: ModuleType, tmp_path: Path) -> None:
    """A key of the command line is accepted, creates a key with fewer scopes, and is revoked by its owner."""
    with TestClient(example.app) as client:
        assert client.get("/items").json()["detail"] == "Invalid API Key"
        url = f"sqlite:///{tmp_path / 'api-keys.db'}"
        options = ("--user", "ada", "--scope", "items:*", "--json", "--database-url", url)
        created = run_program("fastapi_guard", "keys", "create", *options)
        ada = {"Authorization": f"Bearer {json.loads(created.stdout)['key']}"}
        assert client.get("/items", headers=ada).json() == {"owner": "ada", "items": ["difference engine", "loom"]}

        lesser = client.post("/api-keys", headers=ada, json={"name": "laptop", "scopes": ["items:read"]})
        assert lesser.status_code == 201
        laptop = {"Authorization": f"Bearer {lesser.json()['key']}"}
        assert client.get("/items", headers=laptop).status_code == 200
        assert client.post("/api-keys", headers=laptop, json={"scopes": ["items:*"]}).status_code == 403
        assert client.delete(f"/api-keys/{lesser.json()['key_id']}", headers=ada).status_code == 204
        refused = client.get("/items", headers=laptop)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (
            401,
            'Bearer realm="api", error="invalid_token", error_description="Invalid API Key"',
        )
