"""Pages for a browser, with sessions in a cookie. Serve it over https, which the cookie needs:

openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -keyout key.pem -out cert.pem
uvicorn --app-dir examples session_pages:app --ssl-keyfile key.pem --ssl-certfile cert.pem
"""

from html import escape
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from fastapi_guard import Unauthorized, no_store
from fastapi_guard.login.login import Login
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.routers.login_pages import LoginPages
from fastapi_guard.routers.sessions import session_router
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

store = MemoryStore()  # for one process
login = Login(USERS, store)
sessions = SessionAuth(store)
app = FastAPI(dependencies=[Depends(no_store)])  # no cache stores a personal page
# POST /login and /logout: a form post is followed by a redirect, to its field `next` or with ?error=
app.include_router(session_router(sessions, login, pages=LoginPages(done="/", login="/login")))
PROBLEMS = {
    "wrong": "Incorrect username or password",
    "too_many": "Too many attempts, try again later",
    "forbidden": "The form was not sent from a page of this site",
}
NOTES = ["The engine weaves algebraic patterns."]


# Chromium keeps a page with no-store for its back button, mostly until the cookie changes.
RELOAD = '<script>addEventListener("pageshow", event => event.persisted && location.reload())</script>'


def page(body: str) -> HTMLResponse:
    return HTMLResponse(f"<!doctype html><title>Notes</title>{body}", headers={"Cache-Control": "no-store"})


@app.exception_handler(Unauthorized)
async def to_login(request: Request, error: Unauthorized) -> RedirectResponse:
    """Send a browser without a session to the login, and back to where it was going."""
    return RedirectResponse(f"/login?next={quote(request.url.path, safe='/')}", 303)


@app.get("/login")
async def login_form(next: str = "/", error: str = "") -> HTMLResponse:  # noqa: A002 - the parameter's name
    return page(
        f'<form method="post"><p>{PROBLEMS.get(error, "")}<input name="username" type="email" autocomplete="username">'
        '<input name="password" type="password" autocomplete="current-password">'
        f'<input name="next" type="hidden" value="{escape(next)}"><button>Log in</button></form>'
    )


@app.get("/")
async def notes(claims: Annotated[dict[str, Any], sessions.requires("notes:read")]) -> HTMLResponse:
    items = "".join(f"<li>{escape(note)}" for note in NOTES)
    add = '<form method="post" action="/notes"><input name="text"><button>Add</button></form>'
    out = '<form method="post" action="/logout"><button>Log out</button></form>'
    return page(f"{RELOAD}<p>{escape(claims['sub'])}<ul>{items}</ul>{add}{out}")


@app.post("/notes", dependencies=[sessions.requires("notes:edit")])
async def add_note(text: Annotated[str, Form()]) -> RedirectResponse:
    NOTES.append(text)
    return RedirectResponse("/", 303)
