"""An Auth from configuration: what stands in it (``reading``), the kinds there are (``kinds``), the Auth it makes."""

from fastapi_guard.settings.create import check_config, create_auth

__all__ = ["check_config", "create_auth"]
