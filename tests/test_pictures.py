"""The pictures of the documents are what their source draws."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import draw

PICTURES = list(draw.pictures())


@pytest.mark.parametrize(("file", "picture"), PICTURES, ids=[file.name for file, _ in PICTURES])
def test_a_picture_is_what_its_source_draws(file: Path, picture: str) -> None:
    """What is committed is drawn anew to the letter; `python docs/pictures/draw.py` writes it."""
    assert file.read_text(encoding="utf-8") == picture


@pytest.mark.parametrize(("file", "picture"), PICTURES, ids=[file.name for file, _ in PICTURES])
def test_a_picture_is_self_contained(file: Path, picture: str) -> None:
    """A picture is XML that names itself and asks for nothing else: no script, no image, no font."""
    root = ET.fromstring(picture)  # noqa: S314 - ours
    names = {element.tag.partition("}")[2] for element in root.iter()}
    assert {"title", "desc"} <= names
    assert names.isdisjoint({"script", "image", "use", "a", "foreignObject"})
    assert "@import" not in picture


def test_the_layers_are_all_drawn() -> None:
    """Each package of the contract of import-linter stands once in the stack, in the order of the layers."""
    modules = [module for layer in draw.layers() for module in layer]
    shapes, _ = draw.the_layers(0)
    drawn = [shape.partition(">")[2].partition("<")[0] for shape in shapes if 'class="module"' in shape]
    assert drawn == modules
    assert len(modules) > 12


def test_a_module_that_is_not_there_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that names a module of no layer is refused."""
    monkeypatch.setattr(draw, "ON_THE_WAY", {"verify": ("jwt.magic",)})
    with pytest.raises(LookupError, match=r"jwt\.magic"):
        draw.request_and_layers()
