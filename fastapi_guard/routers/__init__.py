"""Routers that an application includes."""

from fastapi_guard.routers.jwks import jwks_router
from fastapi_guard.routers.metadata import protected_resource_router

__all__ = ["jwks_router", "protected_resource_router"]
