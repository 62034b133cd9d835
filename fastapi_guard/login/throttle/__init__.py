"""Throttling: limits on an address, an account or a subject, by moving windows. Needs the extra ``throttle``."""

from fastapi_guard.login.throttle.by import account, client_address, subject
from fastapi_guard.login.throttle.dependency import Throttle

__all__ = ["Throttle", "account", "client_address", "subject"]
