"""Configure the application around the guards: errors, OpenAPI, audit, streams, middleware."""

from fastapi_guard.app.asgi import guarded
from fastapi_guard.app.audit import assert_guarded, guarded_routes
from fastapi_guard.app.configure import configure_app
from fastapi_guard.app.lock import authorization_of
from fastapi_guard.app.pauses import tune_gc
from fastapi_guard.app.routing import GuardedRoute
from fastapi_guard.app.starlette import GuardBackend
from fastapi_guard.app.streams import expires_with

__all__ = [
    "GuardBackend",
    "GuardedRoute",
    "assert_guarded",
    "authorization_of",
    "configure_app",
    "expires_with",
    "guarded",
    "guarded_routes",
    "tune_gc",
]
