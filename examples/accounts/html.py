"""Pages as text: a frame, forms with labels, and the texts of errors. Every value in a page is escaped."""

from html import escape
from urllib.parse import quote

from fastapi.responses import HTMLResponse

__all__ = ["Html", "escape"]

# By the code that a redirect of the library's routers has in ?error=, or that of the pages themselves.
ERRORS = {
    "wrong": "Incorrect username or password.",
    "wrong_factor": "That is not right. Try again.",
    "wrong_code": "The code is wrong, or it took too long.",
    "wrong_password": "The password is wrong.",
    "expired": "That took too long. Begin again.",
    "too_many": "Too many attempts. Try again later.",
    "throttled": "Too many attempts. Try again later.",
    "forbidden": "That is not allowed.",
    "invalid_link": "The link or code is invalid or has expired.",
    "other_browser": "Open the link in the browser that registered, or enter the password.",
    "username_taken": "That username is taken.",
    "username_invalid": "That cannot be a username.",
    "email_invalid": "That is not an e-mail address.",
    "password_invalid": "Choose a longer password, of at least 15 characters, that is not a common one.",
    "log_in_again": "Confirm first that it is you.",
    "link_first": "The address belongs to an account. Log in, and link the provider at Security.",
    "identity_taken": "That sign-in belongs to another account.",
    "last_way": "That is the only way to log in to the account.",
    "last_way_in": "That is the only way to log in to the account.",
    "provider": "Signing in failed.",
    "unavailable": "That is unavailable for the moment. Try again later.",
}
NOTICES = {
    "verified": "The address is verified. Log in.",
    "reset": "The password is set. Log in.",
    "password": "The password was changed. Other devices were logged out.",
    "factor": "The second factor was added.",
    "removed": "It was removed.",
    "ended": "The device was logged out.",
    "revoked": "The key was revoked.",
    "deleted": "The account was deleted.",
}
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class Html:
    """Makes pages for an application that is mounted at ``base``."""

    def __init__(self, base: str) -> None:
        """Put ``base`` before the path of each link."""
        self.base = base

    def page(
        self,
        title: str,
        body: str,
        *,
        user: str | None = None,
        error: str = "",
        notice: str = "",
        status: int = 200,
    ) -> HTMLResponse:
        """Return a page; ``user`` is the name of the user who is logged in."""
        alert = f'<p class="error" role="alert" tabindex="-1" autofocus>{_text(ERRORS, error)}</p>' if error else ""
        note = f'<p class="notice" role="status">{_text(NOTICES, notice)}</p>' if notice else ""
        return HTMLResponse(
            f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} - Accounts</title>
<link rel="icon" href="{self.base}/static/icon.svg">
<link rel="stylesheet" href="{self.base}/static/style.css">
<script src="{self.base}/static/back.js" defer></script>
<script src="{self.base}/static/passkeys.js" data-base="{self.base}" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><strong>Accounts</strong>{self._navigation(user)}</header>
<main id="main">
<h1>{escape(title)}</h1>
{alert}{note}{body}
</main>
</body>
</html>
""",
            status,
            HEADERS,
        )

    def failure(self, status: int, text: str) -> HTMLResponse:
        """Return a page about a refusal."""
        back = f'<p><a href="{self.base}/">Go on</a></p>'
        return self.page("That did not work", f'<p class="error" role="alert">{escape(text)}</p>{back}', status=status)

    def form(self, action: str, fields: str, button: str, *, kind: str = "") -> str:
        """Return a form that is posted to ``action``."""
        style = f' class="{kind}"' if kind else ""
        return (
            f'<form method="post" action="{self.base}{escape(action)}"{style}>{fields}'
            f"<button>{escape(button)}</button></form>"
        )

    def field(  # noqa: PLR0913 - the attributes of an input
        self,
        name: str,
        label: str,
        kind: str = "text",
        *,
        autocomplete: str,
        required: bool = True,
        hint: str = "",
        inputmode: str = "",
        pattern: str = "",
        minlength: int = 0,
        ident: str = "",
    ) -> str:
        """Return an input with its label, and a hint that screen readers read with it."""
        ident = ident or name
        attributes = {
            "inputmode": inputmode,
            "pattern": pattern,
            "minlength": str(minlength or ""),
            "aria-describedby": f"{ident}-hint" if hint else "",
        }
        more = "".join(f' {attribute}="{value}"' for attribute, value in attributes.items() if value)
        more += " required" if required else ""
        note = f'<small id="{ident}-hint">{escape(hint)}</small>' if hint else ""
        return (
            f'<p><label for="{ident}">{escape(label)}</label>'
            f'<input id="{ident}" name="{name}" type="{kind}" autocomplete="{autocomplete}"{more}>{note}</p>'
        )

    def new_password(self) -> str:
        """Return the input of a new password."""
        return self.field(
            "password",
            "New password",
            "password",
            autocomplete="new-password",
            minlength=15,
            hint="At least 15 characters; a sentence is easy to remember.",
        )

    def hidden(self, name: str, value: str) -> str:
        """Return a hidden input."""
        return f'<input type="hidden" name="{name}" value="{escape(value)}">'

    def link(self, path: str, text: str, **query: str) -> str:
        """Return a link to a page of the application."""
        parameters = "&amp;".join(f"{name}={quote(value, safe='/')}" for name, value in query.items() if value)
        return f'<a href="{self.base}{escape(path)}{"?" if parameters else ""}{parameters}">{escape(text)}</a>'

    def passkey_button(self, action: str, text: str, target: str) -> str:
        """Return a button of passkeys.js, which goes on to ``target``, and the place of its messages."""
        return (
            f'<p><button type="button" hidden data-passkey="{action}" data-next="{escape(target)}">{escape(text)}'
            '</button></p><p class="error" role="alert" id="passkey-status" hidden></p>'
            "<noscript><p>Passkeys need JavaScript.</p></noscript>"
        )

    def _navigation(self, user: str | None) -> str:
        if user is None:
            pages = {"/login": "Log in", "/register": "Register", "/messages": "Messages"}
        else:
            pages = {
                "/": "Home",
                "/security": "Security",
                "/devices": "Devices",
                "/keys": "API keys",
                "/password": "Password",
                "/messages": "Messages",
            }
        links = "".join(f"<li>{self.link(path, text)}</li>" for path, text in pages.items())
        out = "" if user is None else self.form("/logout", "", "Log out", kind="inline")
        return f'<nav aria-label="Pages"><ul>{links}</ul></nav>{out}'


def _text(texts: dict[str, str], code: str) -> str:
    return escape(texts.get(code, "That did not work."))
