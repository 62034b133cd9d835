"""The check by which the site is built: nothing of it asks another host."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

SOURCE = Path(__file__).parent.parent / "docs" / "build.py"
specification = importlib.util.spec_from_file_location("docs_build", SOURCE)
assert specification is not None
assert specification.loader is not None
build = importlib.util.module_from_spec(specification)
specification.loader.exec_module(build)


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<link rel="preconnect" href="HTTPS://fonts.example">',
        '<img src="http://pictures.example/a.png">',
        '<img src="a.png" srcset="a.png 1x, https://pictures.example/b.png 2x">',
        '<video poster="https://pictures.example/a.png"></video>',
        '<object data="https://pictures.example/a.svg"></object>',
        '<svg><use xlink:href="https://pictures.example/a.svg#b"/></svg>',
        "<style>@import 'https://fonts.example/css';</style>",
        '<p style="background: url(https://pictures.example/a.png)">',
        '<pre class="mermaid">stateDiagram</pre>',
    ],
)
def test_what_asks_another_host_is_found(page: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A page that has a browser fetch from another host is a warning, which ends the build."""
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    build.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "index.html fetches" in caplog.text


@pytest.mark.parametrize(
    "page",
    [
        '<script src="assets/a.js"></script><a href="https://elsewhere.example">a link</a>',
        '<img src="data:image/png;base64,iVBORw0KGgo="><p>https://example</p>',
        '<style>p { background: url("../a.png") }</style><p style="color: red">',
    ],
)
def test_what_asks_this_host_or_is_a_link_passes(page: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the site brings along, and what somebody has to follow, is no warning."""
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    build.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert caplog.records == []


def test_a_style_sheet_is_looked_into(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A font that a style sheet fetches from another host is found too."""
    (tmp_path / "a.css").write_text("@font-face { src: url(https://fonts.example/a.woff2) }", encoding="utf-8")
    build.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert "a.css fetches https://fonts.example/a.woff2 from another host" in caplog.text


def test_a_site_without_anything_is_no_success(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is nothing to look at, the check says so instead of passing."""
    build.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert "looks at nothing" in caplog.text


def test_links_to_the_documents_at_the_root() -> None:
    """A link that is right in the repository is right in the site, where these documents are one folder deeper."""
    page = "[a](../../SECURITY.md) [b](../CHANGELOG.md#010) [c](../how-to/errors.md) [d](../../README.md)"
    rewritten = "[a](../SECURITY.md) [b](CHANGELOG.md#010) [c](../how-to/errors.md) [d](../../README.md)"
    assert build.on_page_markdown(page) == rewritten
