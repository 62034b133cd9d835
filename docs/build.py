"""Hooks of `mkdocs build`: add the documents of the root, and fail a site that loads anything from another host.

A warning here is an error, since the site is built with `strict`.
"""

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent
FROM_THE_ROOT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
# Attributes whose address a browser fetches while it shows a page. A link is fetched only when it is followed.
FETCHING = {"src", "srcset", "poster", "data", "xlink:href"}
TAGS_THAT_FETCH_BY_HREF = {"link", "use", "image"}
IN_CSS = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s]+)""")
PROMPTED = re.compile(r"^```python$(?=\n>>> )", re.MULTILINE)
FOREIGN = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)

logger = logging.getLogger("mkdocs.site")


class Fetched(HTMLParser):
    """Collect the addresses that a browser fetches to show a page."""

    def __init__(self) -> None:
        """Start without any address."""
        super().__init__()
        self.addresses: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses of one element."""
        self._in_style = tag == "style"
        for name, value in attrs:
            if name in FETCHING or (name == "href" and tag in TAGS_THAT_FETCH_BY_HREF):
                self.addresses += re.split(r"[\s,]+", value or "") if name == "srcset" else [value or ""]
            elif name == "style":
                self.addresses += IN_CSS.findall(value or "")
            elif name == "class" and "mermaid" in (value or "").split():
                self.addresses.append("https://unpkg.com/mermaid")  # the theme would load it from there

    def handle_data(self, data: str) -> None:
        """Collect the addresses of a style element."""
        if self._in_style:
            self.addresses += IN_CSS.findall(data)
            self._in_style = False


def is_foreign(address: str) -> bool:
    """Return whether an address is on another host."""
    return bool(FOREIGN.match(address)) and urlsplit(address).scheme != "data"


def fetched_by(file: Path) -> list[str]:
    """Return the addresses that a browser fetches to show a file of the site."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".css":
        return IN_CSS.findall(text)
    page = Fetched()
    page.feed(text)
    return page.addresses


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the documents at the root of the repository to the site."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the tests run without mkdocs

    for name in FROM_THE_ROOT:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Correct the links to and from documents at the root, and mark Python sessions: the copy button skips prompts."""
    markdown = markdown.replace("](docs/", "](")
    root = rf"\]\(\.\./((?:\.\./)*(?:{'|'.join(map(re.escape, FROM_THE_ROOT))})[)#])"
    return PROMPTED.sub("```pycon", re.sub(root, r"](\1", markdown))


def on_post_build(config: "MkDocsConfig") -> None:
    """Warn of each address on another host that a browser would fetch."""
    site = Path(config.site_dir)
    files = [file for kind in ("html", "css", "svg") for file in sorted(site.rglob(f"*.{kind}"))]
    if not any(fetched_by(file) for file in files):
        logger.warning("no page fetches anything: the check has nothing to check")
    for file in files:
        for address in fetched_by(file):
            if is_foreign(address):
                logger.warning("%s fetches %s from another host", file.relative_to(site), address)
