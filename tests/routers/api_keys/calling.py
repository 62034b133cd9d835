"""An application with a router of API keys, and calls of it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, FastAPI
from joserfc.jwk import ECKey, OctKey

from fastapi_guard import JWTAuth, JWTConfig
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.auth import ScopesAuth
from fastapi_guard.routers.api_keys import api_keys_router
from support.asgi import Answer, exchange

EXCEEDS = (403, "The key would exceed the credential that creates it", None)
OUTLIVES = (403, "The key would expire later than the credential that creates it", None)
FORBIDDEN = (403, "Forbidden", None)
MISSING = (404, "No such API key", None)
# The same key for all: the tests look at claims, not at signatures.
CONFIG = JWTConfig(key=OctKey.generate_key(256), algorithms=["HS256"], expiration_seconds=None)

ALICE = {"sub": "alice", "scope": "items:* users:read"}
BOB = {"sub": "bob", "scope": "items:*"}
ADMIN = {"sub": "root", "scope": "api-keys:admin items:*", "is_admin": True}


class Issuer:
    """Another issuer, whose tokens an Auth verifies and cannot sign."""

    def __init__(self, name: str, **options: Any) -> None:
        """Have a name, which is part of the URL."""
        self.url = f"https://{name}.example"
        key = ECKey.generate_key("P-256")
        public = ECKey.import_key(key.as_dict(private=False))
        self._signing = JWTAuth(JWTConfig(key=key, issuer_url=self.url, expiration_seconds=None))
        self.auth = JWTAuth(JWTConfig(key=public, issuer_url=self.url, expiration_seconds=None), name=name, **options)

    def token(self, claims: dict[str, Any]) -> str:
        """Return a token of this issuer."""
        return self._signing.encode({"jti": "1", **claims})


class Service:
    """An application with a router, and a caller of it."""

    def __init__(
        self, keys: DatabaseAPIKeyAuth, auth: ScopesAuth, *, router: APIRouter | None = None, **options: Any
    ) -> None:
        """Include the router, guarded by `auth`."""
        self.keys, self.auth = keys, auth
        self.app = FastAPI()
        self.app.include_router(router or api_keys_router(keys, auth=auth, **options))

    async def call(
        self,
        method: str,
        path: str,
        claims: dict[str, Any] | str,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> Answer:
        """Call with a token of these claims, or with a credential; a body of bytes is sent as it is."""
        raw = claims if isinstance(claims, str) else JWTAuth(CONFIG).encode({"jti": "1", **claims})
        path, _, query = path.partition("?")
        return await exchange(
            self.app,
            path,
            [(b"authorization", b"Bearer " + raw.encode()), (b"content-type", content_type.encode())],
            method=method,
            query=query.encode(),
            body=body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode(),
        )

    async def created(self, claims: dict[str, Any] | str, path: str = "/api-keys", **body: Any) -> dict[str, Any]:
        """Create a key that has to be created, and return the answer."""
        answer = await self.call("POST", path, claims, body)
        assert answer.status == 201, answer
        return dict(answer.json)

    async def listed(self, claims: dict[str, Any] | str, query: str = "") -> Sequence[str]:
        """Return the ids of the keys that a caller lists."""
        answer = await self.call("GET", f"/api-keys?{query}", claims)
        assert answer.status == 200, answer
        return [key["key_id"] for key in answer.json]


def in_future(**duration: float) -> str:
    """Return the moment so much later, as JSON has it."""
    return (datetime.now(UTC) + timedelta(**duration)).isoformat()
