"""The hooks by which the site is built: nothing is fetched from another host, links and prompts are right."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.once

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
def test_a_fetch_from_another_host_is_a_warning(page: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A page that makes a browser fetch from another host is a warning, which fails the build."""
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
def test_a_link_or_a_fetch_from_the_same_host_passes(
    page: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of the site itself, and links that a reader follows, cause no warning."""
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    build.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert caplog.records == []


def test_style_sheets_are_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A font that a style sheet fetches from another host is a warning too."""
    (tmp_path / "a.css").write_text("@font-face { src: url(https://fonts.example/a.woff2) }", encoding="utf-8")
    build.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert "a.css fetches https://fonts.example/a.woff2 from another host" in caplog.text


def test_an_empty_site_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A site without any fetch is a warning, because the check would pass without checking anything."""
    build.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    assert "has nothing to check" in caplog.text


def test_links_to_the_documents_at_the_root() -> None:
    """Links to and from documents at the root are changed for the site, where these are beside the others."""
    page = "[a](../../SECURITY.md) [b](../CHANGELOG.md#010) [c](../how-to/errors.md) [e](docs/how-to/a.md)"
    rewritten = "[a](../SECURITY.md) [b](CHANGELOG.md#010) [c](../how-to/errors.md) [e](how-to/a.md)"
    assert build.on_page_markdown(page) == rewritten


def test_the_copy_button_skips_prompts() -> None:
    """A block with prompts is marked as a session, in which prompts and output are hidden from the copy button."""
    page = "```python\n>>> 1 + 1\n2\n```\n\n```python\nx = 1\n```\n"
    assert build.on_page_markdown(page) == page.replace("```python\n>>>", "```pycon\n>>>")
    style = (SOURCE.parent / "assets" / "site.css").read_text(encoding="utf-8")
    assert "[data-md-copying] :is(.gp, .go) { display: none; }" in style
