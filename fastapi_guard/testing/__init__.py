"""For the tests of an application."""

from fastapi_guard.testing.acting import acting_as

__all__ = ["acting_as"]
