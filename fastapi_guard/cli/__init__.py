"""The command line, ``fastapi-guard``: ``app`` is the application, each other module one noun of it.

All of it needs the extra ``cli``. What a command needs besides, it imports when it runs.
"""

from fastapi_guard.exceptions import MissingExtraError

try:
    import rich  # noqa: F401 - the modules below import what they use
    import typer  # noqa: F401
except ImportError:
    raise MissingExtraError("typer", "cli") from None
