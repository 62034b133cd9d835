"""Fixtures for pytest, for those who ask for them: ``pytest_plugins = ["fastapi_guard.testing.fixtures"]``."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI

from fastapi_guard.auth import Auth
from fastapi_guard.events import Event, logger
from fastapi_guard.testing import acting

if TYPE_CHECKING:
    from fastapi_guard.testing.issuer import FakeIssuer

ActAs = Callable[[FastAPI, Auth[Any], Any], None]


@pytest.fixture
def act_as() -> Iterator[ActAs]:
    """Return ``act_as(app, auth, claims)``, which is ``acting_as`` from there to the end of the test."""
    with ExitStack() as stack:

        def act(app: FastAPI, auth: Auth[Any], principal: Any) -> None:
            stack.enter_context(acting.acting_as(app, auth, principal))

        yield act


@pytest.fixture
def guard_events() -> Iterator[list[Event]]:
    """Return the list of what every Auth decides during the test, in order."""
    events: list[Event] = []
    names = [field.name for field in fields(Event) if field.name != "name"]

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            name = getattr(record, "event", None)
            if name is not None:
                events.append(Event(name, **{field: getattr(record, field) for field in names}))

    recorder, level = Recorder(), logger.level
    logger.addHandler(recorder)
    logger.setLevel(logging.DEBUG)
    yield events
    logger.setLevel(level)
    logger.removeHandler(recorder)


@pytest.fixture
def fake_issuer() -> "FakeIssuer":
    """Return an issuer of tokens in process; pass its ``client`` to what fetches keys. Needs the extra ``http``."""
    from fastapi_guard.testing.issuer import FakeIssuer  # noqa: PLC0415 - for those who ask for it

    return FakeIssuer()
