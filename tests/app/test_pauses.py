"""Pauses of the garbage collector."""

import gc
from collections.abc import Iterator

import pytest

from fastapi_guard.app import tune_gc


@pytest.fixture
def _own_gc() -> Iterator[None]:
    """Restore the garbage collector of the process."""
    thresholds = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*thresholds)
    # As conftest.py does after the collection of the tests.
    gc.unfreeze()
    gc.freeze()


@pytest.mark.usefixtures("_own_gc")
def test_what_was_built_is_exempt() -> None:
    """Existing objects are exempt from collection, and later ones are searched less often."""
    built = [object() for _ in range(3)]
    before = gc.get_threshold()
    tune_gc()
    assert gc.get_freeze_count() > 1000
    assert not any(found is built for found in gc.get_objects())
    assert gc.get_threshold()[0] > before[0]
    later = [built]
    assert any(found is later for found in gc.get_objects())
