"""Routers that an application includes."""

from fastapi_guard.routers.jwks import jwks_router

__all__ = ["jwks_router"]
