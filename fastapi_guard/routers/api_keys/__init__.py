"""Routers for API keys: callers manage their own, and administrators those of service accounts."""

from fastapi_guard.routers.api_keys.routers import api_keys_router, service_accounts_router

__all__ = ["api_keys_router", "service_accounts_router"]
