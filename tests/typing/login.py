"""The types that a user of logins and sessions meets: checked by mypy and basedpyright, never run."""

from typing import Annotated, Any, assert_type

from fastapi import Depends, FastAPI, Request, Response
from fastapi.params import Security
from joserfc import jwk

from fastapi_guard import BearerAccessToken, JWTConfig
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.login.accounts import AccountPages, Accounts, MailedProof
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import ConsoleSender, Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.refresh import Family, RefreshTokens, TokenPair
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.login.throttle import Throttle, account, client_address, subject
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import User
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.routers.form_pages import FormPage
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
Login(
    {},
    store,
    second=[
        TOTP(key="...", issuer="Shop"),
        Passkeys(rp_id="shop.example", origin="https://shop.example", rp_name="Shop"),
        MailedCode(Outbox(ConsoleSender()), key="..."),
        RecoveryCodes(),
    ],
)
Throttle("5/minute", by=account("email"))
Throttle("5/minute", by=subject(sessions))


class Directory:
    """Users of a user, who register."""

    async def add(self, user: User) -> bool:
        return True

    async def remove(self, subject: str) -> bool:
        return False

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


accounts = Accounts(
    Login(Directory(), store, name="shop"),
    key={"2": "...", "1": b"..."},
    pages=AccountPages(site="https://shop.example"),
    send=ConsoleSender(),
    new_user=lambda user: user,
    may_invite=lambda inviter, invited: inviter.is_admin and not invited.scopes,
)
app.include_router(accounts_router(accounts, sessions, inviters=sessions.requires("users:invite")))
app.include_router(factors_router(accounts.login, sessions, pages={"confirm": FormPage(done="/", failed="/enrol")}))


async def everything_of_accounts() -> None:
    proof = MailedProof(token="...", browser=None)
    user = await accounts.registration.verify(proof, password="secret", connection=None)
    assert_type(user, User)
    assert_type(await accounts.passwords.reset(proof, "secret", connection=None), User)
    assert_type(await accounts.addresses.confirm(user, proof, connection=None), User)
    assert_type(await accounts.invitations.join("token", user, connection=None), User)
    assert_type(await accounts.disable(user, actor="ada"), User)


async def everything() -> None:
    assert_type(await auth.login("ada", "secret"), BearerAccessToken | Pending)
    assert_type(await auth.gate.with_password("ada", "secret", connection=None), Complete | Pending)
    assert_type(await auth.refresh("token"), TokenPair)
    assert_type(await refresh.rotate("token"), tuple[dict[str, Any], str])
    assert_type(await refresh.families("ada"), list[Family])
    assert_type(await store.get("key"), list[Record | None])
    assert_type(await PasswordHasher().verify_and_update("secret", None), tuple[bool, str | None])
    assert_type(sessions.authenticated(), Security)
