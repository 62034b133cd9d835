"""The command line, ``fastapi-guard``: ``app`` is the application, each other module one noun of it."""
