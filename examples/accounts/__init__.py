"""Accounts with pages: everything that a user does with a login, on SQLite; passkeys alone need a script.

Copy the folder, and serve it; the key of mailed codes and of authenticator apps is in the environment, always the same:

    export ACCOUNTS_KEY=...  # python -c 'import secrets; print(secrets.token_urlsafe(32))'
    uvicorn accounts.main:app

Then open http://localhost:8000. Messages are written to the terminal, and shown at /messages. The provider to sign in
with is one for development, in `development.py`: leave that module out where others can reach the application.
"""

from .application import create_app
from .parts import Parts, Settings

__all__ = ["Parts", "Settings", "create_app"]
