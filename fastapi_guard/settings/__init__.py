"""An Auth from configuration: what stands in it (``reading``), the kinds there are (``kinds``), the Auth it makes."""

from fastapi_guard.settings.create import Collaborators, check_config, create_auth

__all__ = ["Collaborators", "check_config", "create_auth"]
