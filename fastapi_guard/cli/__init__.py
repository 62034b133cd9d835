"""The command line, ``fastapi-guard``: the application in ``app``, and one module for each group of commands.

It needs the extra ``cli``. A command imports the modules that need another extra when it runs.
"""

from fastapi_guard.exceptions import MissingExtraError

try:
    import rich  # noqa: F401 - the modules of this package use it
    import typer  # noqa: F401
except ImportError:
    raise MissingExtraError("typer", "cli") from None
