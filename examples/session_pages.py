"""Pages for a browser, with sessions in a cookie. Serve it over https, which the cookie needs:

openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -keyout key.pem -out cert.pem
uvicorn --app-dir examples session_pages:app --ssl-keyfile key.pem --ssl-certfile cert.pem
"""

from html import escape
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from joserfc import jwk

from fastapi_guard import JWTConfig, TooManyRequests, Unauthorized, no_store
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.schemes.origin import path_within
from fastapi_guard.stores import MemoryStore

# Of the password "analytical engine", as `fastapi-guard password hash` prints it.
USERS = {
    "ada@example.com": {
        "password_hash": "$argon2id$v=19$m=65536,t=3,p=4$f49xrlWqlfI+BwCA8F6rtQ$"
        "3n1UDPjrugfQ3Lp043Zz4yky87HNHloR7vqH7zg2jdA",
        "subject_id": "ada",
        "scopes": ["notes:read", "notes:edit"],
    },
}

passwords = LocalAuth(JWTConfig(key=jwk.OctKey.generate_key(256)), USERS)
sessions = SessionAuth(MemoryStore())
app = FastAPI(dependencies=[Depends(no_store)])  # no cache stores a personal page
NOTES = ["The engine weaves algebraic patterns."]


def page(body: str) -> HTMLResponse:
    return HTMLResponse(f"<!doctype html><title>Notes</title>{body}", headers={"Cache-Control": "no-store"})


@app.exception_handler(Unauthorized)
async def to_login(request: Request, error: Unauthorized) -> RedirectResponse:
    """Send a browser without a session to the login, and back to where it was going."""
    return RedirectResponse(f"/login?next={quote(request.url.path, safe='/')}", 303)


@app.get("/login")
async def login_form(next: str = "/", problem: str = "") -> HTMLResponse:  # noqa: A002 - the parameter's name
    message = {"wrong": "Incorrect username or password", "often": "Too many attempts, try again later"}.get(
        problem, ""
    )
    return page(
        f'<form method="post"><p>{message}<input name="username" type="email" autocomplete="username">'
        '<input name="password" type="password" autocomplete="current-password">'
        f'<input name="next" type="hidden" value="{escape(next)}"><button>Log in</button></form>'
    )


@app.post("/login")
async def login(
    request: Request,
    username: Annotated[str, Form()],
    password: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",  # noqa: A002 - the field's name
) -> RedirectResponse:
    sessions.check_origin(request)  # no login from a page of another site (login CSRF)
    target = path_within(next)  # redirect to a page of this site only
    try:
        claims = await passwords.check_password(username, password, connection=request)
    except (Unauthorized, TooManyRequests) as error:
        problem = "wrong" if isinstance(error, Unauthorized) else "often"
        return RedirectResponse(f"/login?problem={problem}&next={quote(target, safe='/')}", 303)
    response = RedirectResponse(target, 303)
    await sessions.login(response, claims, connection=request)
    return response


@app.post("/logout")
async def logout(request: Request) -> RedirectResponse:
    sessions.check_origin(request)
    response = RedirectResponse("/login", 303)
    await sessions.logout(response, connection=request)
    return response


@app.get("/")
async def notes(claims: Annotated[dict[str, Any], sessions.requires("notes:read")]) -> HTMLResponse:
    items = "".join(f"<li>{escape(note)}" for note in NOTES)
    add = '<form method="post" action="/notes"><input name="text"><button>Add</button></form>'
    out = '<form method="post" action="/logout"><button>Log out</button></form>'
    return page(f"<p>{escape(claims['sub'])}<ul>{items}</ul>{add}{out}")


@app.post("/notes", dependencies=[sessions.requires("notes:edit")])
async def add_note(text: Annotated[str, Form()]) -> RedirectResponse:
    NOTES.append(text)
    return RedirectResponse("/", 303)
