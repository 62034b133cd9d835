"""An Auth from configuration: its content (``reading``), the kinds and their settings (``kinds``), the Auth."""

from fastapi_guard.settings.create import check_config, create_auth

__all__ = ["check_config", "create_auth"]
