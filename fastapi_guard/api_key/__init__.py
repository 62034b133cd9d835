"""API keys: in a header, in a file, in a database (``.database`` and ``.models``)."""

from fastapi_guard.api_key.header import APIKeyAuth
from fastapi_guard.api_key.static import StaticAPIKeyAuth

__all__ = ["APIKeyAuth", "StaticAPIKeyAuth"]
