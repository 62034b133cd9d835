"""A JSON API with a login and rotating refresh tokens.

Serve it with `uvicorn --app-dir examples refresh_api:app`, and call it:

    curl -s http://127.0.0.1:8000/token -d username=ada@example.com -d 'password=analytical engine'
    curl -s http://127.0.0.1:8000/token/refresh -d refresh_token=$REFRESH
    curl -s http://127.0.0.1:8000/token/revoke -d token=$REFRESH
"""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import FastAPI
from joserfc import jwk

from fastapi_guard import JWTConfig, configure_app
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.routers.login import login_router
from fastapi_guard.stores import MemoryStore

# Of the password "analytical engine", as `fastapi-guard password hash` prints it.
USERS = {
    "ada@example.com": {
        "password_hash": "$argon2id$v=19$m=65536,t=3,p=4$f49xrlWqlfI+BwCA8F6rtQ$"
        "3n1UDPjrugfQ3Lp043Zz4yky87HNHloR7vqH7zg2jdA",
        "subject_id": "ada",
        "scopes": ["items:read"],
    },
}

# For one process. With several workers, use a RedisStore or SQLAlchemyStore, and a KeyFile.
store = MemoryStore()
auth = LocalAuth(
    JWTConfig(key=jwk.ECKey.generate_key("P-256"), issuer_url="https://id.example", expiration_seconds=300),
    USERS,
    refresh=RefreshTokens(store, idle_lifetime=timedelta(days=14), absolute_lifetime=timedelta(days=90)),
    revocations=Revocations(store),
)

app = FastAPI()
app.include_router(login_router(auth))  # POST /token, /token/refresh, /token/revoke, /logout


@app.get("/items")
async def items(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> list[str]:
    return ["difference engine", "loom"]


@app.post("/logout-everywhere", status_code=204)
async def logout_everywhere(claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
    await auth.revoke_subject(claims["sub"])


configure_app(app)
