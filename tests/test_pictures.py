"""The pictures of the documents are up to date and self-contained."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import draw

pytestmark = pytest.mark.once

PICTURES = list(draw.pictures())


@pytest.mark.parametrize(("file", "picture"), PICTURES, ids=[file.name for file, _ in PICTURES])
def test_pictures_are_up_to_date(file: Path, picture: str) -> None:
    """A committed picture is equal to the drawing; `python docs/pictures/draw.py` writes it."""
    assert file.read_text(encoding="utf-8") == picture


@pytest.mark.parametrize(("file", "picture"), PICTURES, ids=[file.name for file, _ in PICTURES])
def test_a_picture_is_self_contained(file: Path, picture: str) -> None:
    """A picture is XML with a title and a description, without scripts, images or fonts."""
    root = ET.fromstring(picture)  # noqa: S314 - ours
    names = {element.tag.partition("}")[2] for element in root.iter()}
    assert {"title", "desc"} <= names
    assert names.isdisjoint({"script", "image", "use", "a", "foreignObject"})
    assert "@import" not in picture


def test_the_layers_are_all_drawn() -> None:
    """Each package of the contract of import-linter is drawn once, in the order of the layers."""
    modules = [module for layer in draw.layers() for module in layer]
    shapes, _ = draw.the_layers(0)
    drawn = [shape.partition(">")[2].partition("<")[0] for shape in shapes if 'class="module"' in shape]
    assert drawn == modules
    assert len(modules) > 12


def test_a_module_outside_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture with a module outside the layers is an error."""
    monkeypatch.setattr(draw, "STEPS", {"verify": ("jwt.magic",)})
    with pytest.raises(LookupError, match=r"jwt\.magic"):
        draw.request_and_layers()
