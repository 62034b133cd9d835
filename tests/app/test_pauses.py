"""Pauses of the garbage collector."""

import gc
from collections.abc import Iterator

import pytest

from fastapi_guard.app import tune_gc


@pytest.fixture
def _own_gc() -> Iterator[None]:
    """Restore how often this process collects; what other tests have built is exempt already, and stays so."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_own_gc")
def test_what_was_built_is_exempt() -> None:
    """Existing objects are exempt from collection, and later ones are searched less often."""
    built = [object() for _ in range(3)]
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    tune_gc()
    assert gc.get_freeze_count() > frozen
    assert not any(found is built for found in gc.get_objects())
    assert gc.get_threshold()[0] > before[0]
    later = [built]
    assert any(found is later for found in gc.get_objects())
