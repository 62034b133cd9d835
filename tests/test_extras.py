import sys
from importlib import util
from pathlib import Path

import pytest

import fastapi_guard
from fastapi_guard import MissingExtraError

NEEDS = {"fetch": ("httpx2", "http"), "auth0": ("auth0_api_python", "auth0")}


@pytest.mark.parametrize("module", NEEDS)
def test_a_module_without_its_library_names_the_command(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; nothing is left half there."""
    library, extra = NEEDS[module]
    monkeypatch.setitem(sys.modules, library, None)
    path = Path(fastapi_guard.__path__[0], f"{module}.py")
    spec = util.spec_from_file_location(f"without_{library}", path)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(MissingExtraError, match=rf"pip install 'fastapi-guard-auth\[{extra}\]'"):
        spec.loader.exec_module(util.module_from_spec(spec))
