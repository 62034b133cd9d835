"""The pages without a login: log in, register, verify, reset a password."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from fastapi_guard.schemes.origin import path_within

from .html import Html

CHECK = "<p>If that can be, a message is on its way. Follow its link in this browser, or enter its code here.</p>"


def entry_router(html: Html) -> APIRouter:
    """Serve the forms that the routers of the library answer."""
    router = APIRouter(include_in_schema=False)
    home = f"{html.base}/"
    code = html.field("code", "Code", autocomplete="one-time-code", inputmode="numeric")

    @router.get("/login")
    async def login(next: str = "", error: str = "", notice: str = "") -> HTMLResponse:  # noqa: A002 - as in a form
        target = path_within(next, home)
        fields = html.field("username", "Username or address", autocomplete="username")
        fields += html.field("password", "Password", "password", autocomplete="current-password")
        body = html.form("/login", html.hidden("next", target) + fields, "Log in")
        body += html.passkey_button("login", "Log in with a passkey", target)
        body += f"<p>{html.link('/providers/development', 'Sign in with the development provider', next=target)}</p>"
        body += f"<p>{html.link('/forgot', 'Forgot your password?')} {html.link('/register', 'Register')}</p>"
        return html.page("Log in", body, error=error, notice=notice)

    @router.get("/login/second")
    async def second(next: str = "", error: str = "") -> HTMLResponse:  # noqa: A002 - as in a form
        target = path_within(next, home)
        hidden = html.hidden("next", target)
        body = "<p>Your account has a second factor. Use one that you have enrolled.</p>"
        body += "<h2>Authenticator app</h2>" + html.form("/login/totp", hidden + code, "Continue")
        body += "<h2>Passkey</h2>" + html.passkey_button("second", "Use a passkey", target)
        body += "<h2>Recovery code</h2>"
        recovery = html.field("code", "Recovery code", autocomplete="off", ident="recovery-code")
        body += html.form("/login/recovery", hidden + recovery, "Use the recovery code")
        return html.page("Second step", body, error=error)

    @router.get("/register")
    async def register(error: str = "") -> HTMLResponse:
        fields = html.field("email", "E-mail address", "email", autocomplete="email")
        fields += html.field("username", "Username", autocomplete="username", pattern="[^@]+", hint="Without an @.")
        form = html.form("/register", fields + html.new_password(), "Register")
        return html.page("Register", form + f"<p>{html.link('/login', 'I have an account')}</p>", error=error)

    @router.get("/register/sent")
    async def registered() -> HTMLResponse:
        return html.page("Check your mail", CHECK + html.form("/verify", code, "Verify the address"))

    @router.get("/verify")
    async def verify(token: str = "", error: str = "") -> HTMLResponse:
        if not token:
            return html.page("Verify the address", html.form("/verify", code, "Verify the address"), error=error)
        password = html.field(
            "password",
            "Password",
            "password",
            autocomplete="current-password",
            required=False,
            hint="Only in another browser than the one that registered.",
        )
        form = html.form("/verify", html.hidden("token", token) + password, "Verify the address")
        return html.page("Verify the address", form, error=error)

    @router.get("/forgot")
    async def forgot(error: str = "") -> HTMLResponse:
        fields = html.field("username", "Username or address", autocomplete="username")
        return html.page("Forgot the password", html.form("/forgot", fields, "Send a message"), error=error)

    @router.get("/forgot/sent")
    async def sent() -> HTMLResponse:
        form = html.form("/reset", code + html.new_password(), "Set the password")
        return html.page("Check your mail", CHECK + form)

    @router.get("/reset")
    async def reset(token: str = "", error: str = "") -> HTMLResponse:
        proof = html.hidden("token", token) if token else code
        form = html.form("/reset", proof + html.new_password(), "Set the password")
        return html.page("Set a new password", form, error=error)

    return router
