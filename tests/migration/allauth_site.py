"""Serve the headless API of django-allauth, with a database and mails in the folder that it runs in.

It runs in the Python of django-allauth, which has neither this package nor its versions of anything. The first line of
its output is the address, and the releases of django-allauth and Django.
"""

import time
from importlib.metadata import version
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

FOLDER = Path.cwd()
PAGES = "https://shop.example"

settings.configure(
    SECRET_KEY="0f9d5c3b7e1a8642d0c9b8a7f6e5d4c3",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "allauth.sqlite"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.humanize",
        "django.contrib.messages",
        "django.contrib.sessions",
        "allauth",
        "allauth.account",
        "allauth.headless",
        "allauth.mfa",
        "allauth.usersessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "allauth.account.middleware.AccountMiddleware",
        "allauth.usersessions.middleware.UserSessionsMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ],
    AUTHENTICATION_BACKENDS=["allauth.account.auth_backends.AuthenticationBackend"],
    AUTH_PASSWORD_VALIDATORS=[
        {"NAME": f"django.contrib.auth.password_validation.{name}"}
        for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
    ],
    # Their work is not what is compared.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    EMAIL_BACKEND="django.core.mail.backends.filebased.EmailBackend",
    EMAIL_FILE_PATH=FOLDER / "mails",
    # With addresses for names, as the other application has it; what is not named here has its default.
    ACCOUNT_LOGIN_METHODS={"email"},
    ACCOUNT_SIGNUP_FIELDS=["email*", "password1*"],
    ACCOUNT_EMAIL_VERIFICATION="mandatory",
    ACCOUNT_CHANGE_EMAIL=True,
    HEADLESS_ONLY=True,
    HEADLESS_CLIENTS=["browser"],
    HEADLESS_FRONTEND_URLS={
        "account_confirm_email": f"{PAGES}/verify#{{key}}",
        "account_reset_password": f"{PAGES}/forgot",
        "account_reset_password_from_key": f"{PAGES}/reset#{{key}}",
        "account_signup": f"{PAGES}/register",
    },
)
django.setup()

# It stands still until a request moves it, at the beginning of a time step of TOTP.
_clock = time.time() // 30 * 30


def move(_: HttpRequest, seconds: int) -> HttpResponse:
    """Move the clock, and return what it shows."""
    global _clock  # noqa: PLW0603 - that of the process
    _clock += seconds
    return HttpResponse(str(_clock))


time.time = lambda: _clock
urlpatterns = [path("move/<int:seconds>", move), path("_allauth/", include("allauth.headless.urls"))]


class Quiet(WSGIRequestHandler):
    """A handler that logs nothing."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Serve until the process is ended."""
    call_command("migrate", verbosity=0)
    with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet) as server:
        print(f"http://127.0.0.1:{server.server_port}", version("django-allauth"), version("django"), flush=True)  # noqa: T201
        server.serve_forever()


if __name__ == "__main__":
    main()
