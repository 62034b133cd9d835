"""How often somebody may try: limits on an address, an account or a subject, by moving windows.

All of it needs the extra ``throttle``, so this package cannot be imported without.
"""

from fastapi_guard.login.throttle.by import account, client_address, subject
from fastapi_guard.login.throttle.dependency import Throttle

__all__ = ["Throttle", "account", "client_address", "subject"]
