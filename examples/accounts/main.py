"""The application for `uvicorn accounts.main:app`, with settings of the environment."""

import os

from fastapi import FastAPI

from .application import create_app
from .parts import Settings

app: FastAPI = create_app(
    Settings(
        key=os.environ["ACCOUNTS_KEY"],
        site=os.environ.get("ACCOUNTS_SITE", "http://localhost:8000"),
        database=os.environ.get("ACCOUNTS_DATABASE", "sqlite+aiosqlite:///accounts.db"),
    )
)
