"""Configure the application around the guards: errors, OpenAPI, audit, streams, middleware.

``import fastapi_guard`` loads ``configure`` alone; the other modules are loaded with the first of their names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastapi_guard.app.configure import configure_app

if TYPE_CHECKING:
    from fastapi_guard.app.asgi import guarded
    from fastapi_guard.app.audit import assert_guarded, guarded_routes
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

_MODULES = {
    "GuardBackend": "starlette",
    "GuardedRoute": "routing",
    "assert_guarded": "audit",
    "authorization_of": "lock",
    "expires_with": "streams",
    "guarded": "asgi",
    "guarded_routes": "audit",
    "tune_gc": "pauses",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
