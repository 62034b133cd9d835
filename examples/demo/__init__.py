"""Posts behind a login: the application that `fastapi-guard demo` serves.

With a database it has users with passwords, refresh tokens, roles, owners of posts, and API keys that users create for
themselves. It can also be guarded by one API key, or by the API keys of a database alone.
"""

from .application import (
    PASSWORDS,
    create_app,
    create_key,
    database_parts,
    fill,
    local_parts,
    static_parts,
)
from .calls import after_login, with_key

__all__ = [
    "PASSWORDS",
    "after_login",
    "create_app",
    "create_key",
    "database_parts",
    "fill",
    "local_parts",
    "static_parts",
    "with_key",
]
