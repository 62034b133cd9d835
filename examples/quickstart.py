"""Log in, get a signed token, and call with it.

Serve it with `uvicorn --app-dir examples quickstart:app`.
"""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import OAuth2PasswordRequestForm
from joserfc import jwk

from fastapi_guard import (
    BearerAccessToken,
    BearerScheme,
    JWTAuth,
    JWTConfig,
    Unauthorized,
    configure_app,
    jwks_router,
    no_store,
)

config = JWTConfig(
    key=jwk.ECKey.generate_key("P-256"),
    issuer_url="https://id.example",
    audience="https://api.example",
)
scheme = BearerScheme.password("token", scopes={"items:read": "Read items"})
auth = JWTAuth(config, scheme=scheme)
Reader = Annotated[dict[str, Any], auth.requires("items:read")]
app = FastAPI()

LoginForm = Annotated[OAuth2PasswordRequestForm, Depends()]

# Only for this example: a real application stores hashes of passwords.
USERS = {"ada": "analytical-engine"}


def check(username: str, password: str) -> bool:
    """Compare in constant time; an unknown user costs the same work as a wrong password."""
    expected = USERS.get(username, "").encode()
    received = password.encode("utf-8", "surrogatepass")
    return secrets.compare_digest(received, expected) and username in USERS


@app.post("/token", dependencies=[Depends(no_store)])
async def login(form: LoginForm) -> BearerAccessToken:
    if not check(form.username, form.password):
        raise Unauthorized("Incorrect username or password")
    return auth.create_access_token({"sub": form.username, "scope": "items:read"})


@app.get("/me")
async def me(claims: Annotated[dict[str, Any], auth.authenticated()]) -> dict[str, Any]:
    return {"sub": claims["sub"]}


@app.get("/items")
async def items(claims: Reader) -> list[str]:
    return ["difference engine", "loom"]


admin = APIRouter(prefix="/admin", dependencies=[auth.requires("admin:*")])


@admin.get("/users")
async def users() -> list[str]:
    return sorted(USERS)


app.include_router(admin)
app.include_router(jwks_router(auth))  # GET /.well-known/jwks.json
configure_app(app)
