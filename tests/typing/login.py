"""The types that a user of logins and sessions meets: checked by mypy and basedpyright, never run."""

from typing import Annotated, Any, assert_type

from fastapi import Depends, FastAPI, Request, Response
from fastapi.params import Security
from joserfc import jwk

from fastapi_guard import BearerAccessToken, JWTConfig
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.refresh import Family, RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.login.throttle import Throttle, account, client_address, subject
from fastapi_guard.login.users import User
from fastapi_guard.routers.login import login_router
from fastapi_guard.routers.sessions import session_router
from fastapi_guard.stores import MemoryStore, Record, Store

store: Store = MemoryStore()
refresh = RefreshTokens(store, may_continue=lambda claims: claims["sub"] != "mallory")
auth = LocalAuth(
    JWTConfig(key=KeyFile("keys.json")),
    {"ada": {"password_hash": "...", "scopes": ["items:read"]}},
    refresh=refresh,
    revocations=Revocations(store, ends=[refresh]),
)
sessions = SessionAuth(store)
app = FastAPI(dependencies=[Depends(Throttle("5/minute", by=client_address))])
app.include_router(login_router(auth))
app.include_router(session_router(sessions, auth.gate))
Throttle("5/minute", by=account("email"))
Throttle("5/minute", by=subject(sessions))


class Directory:
    """Users of a user."""

    async def by_login(self, login: str) -> User | None:
        return None

    async def by_subject(self, subject: str) -> User | None:
        return None

    async def set_password_hash(self, subject: str, expected: str | None, new: str) -> bool:
        return False

    async def update(self, expected: User, new: User) -> bool:
        return False


LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), Directory())
LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), Login(Directory(), store, name="staff"))


@app.post("/enter")
async def enter(request: Request, response: Response) -> None:
    assert_type(await sessions.login(response, {"sub": "ada"}, connection=request), Session)
    assert_type(await sessions.logout(response, connection=request), bool)


@app.get("/sessions-of-mine")
async def mine(claims: Annotated[dict[str, Any], sessions.requires("items:read")]) -> int:
    assert_type(await sessions.list(claims["sub"]), list[Session])
    return await sessions.end_all(claims["sub"], keep=claims["sid"])


async def everything() -> None:
    assert_type(await auth.login("ada", "secret"), BearerAccessToken | Pending)
    assert_type(await auth.gate.with_password("ada", "secret", connection=None), Complete | Pending)
    assert_type(await auth.refresh("token"), TokenPair)
    assert_type(await refresh.rotate("token"), tuple[dict[str, Any], str])
    assert_type(await refresh.families("ada"), list[Family])
    assert_type(await store.get("key"), list[Record | None])
    assert_type(await PasswordHasher().verify_and_update("secret", None), tuple[bool, str | None])
    assert_type(sessions.authenticated(), Security)
