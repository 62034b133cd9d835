"""A browser without script: it opens pages, checks each of them, and submits their forms."""

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

from fastapi.testclient import TestClient

LONGEST_PAGE_BYTES = 30 * 1024
# Attributes by which a page loads or links something, or sends a form.
_REFERENCES = ("href", "src", "action", "srcset", "poster", "formaction", "data")
_CONTROLS = ("input", "select", "textarea")


class _Reader(HTMLParser):
    """Reads what a page refers to, its forms, and the labels of its controls."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.references: list[str] = []
        self.inline: list[str] = []
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.controls: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read an element."""
        values = dict(attrs)
        self.references += [value or "" for name, value in attrs if name in _REFERENCES]
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag == "script" and "src" not in values else []
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "label":
            self.labelled.add(str(values["for"]))
        if tag == "form":
            self.forms.append((str(values["action"]), {}))
        if tag in _CONTROLS and values.get("type") != "hidden":
            self.controls.append(values)
        if tag == "input" and values.get("type") == "hidden":
            self.forms[-1][1][str(values["name"])] = values.get("value") or ""


class Visitor:
    """A browser that follows redirects.

    Attributes:
        client: Sends the requests.
        path: The path of the page that is shown.
        query: The query of its URL.
        text: The page.
        seen: The paths of all pages that were shown.
    """

    def __init__(self, client: TestClient) -> None:
        """Begin with an empty page."""
        self.client = client
        self.path, self.query, self.text = "", "", ""
        self.seen: set[str] = set()

    def open(self, path: str) -> str:
        """Open a page; return its text."""
        return self._show(self.client.get(path, headers={"Accept": "text/html"}, follow_redirects=True))

    def submit(self, action: str, status: int = 200, **fields: str) -> str:
        """Fill in the first form that is posted to `action`, and send it; return the text of the next page."""
        [hidden, *_] = [hidden for target, hidden in _Reader(self.text).forms if target == action]
        return self.send(action, {**hidden, **fields}, status)

    def send(self, action: str, fields: Mapping[str, str], status: int = 200, **headers: str) -> str:
        """Send a form, whatever the page shows."""
        sent = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", **headers}
        form = {"Content-Type": "application/x-www-form-urlencoded"} if not fields else {}
        answer = self.client.post(action, data=dict(fields), headers={**sent, **form}, follow_redirects=True)
        return self._show(answer, status)

    def actions(self) -> list[str]:
        """Return where the forms of the page are posted to."""
        return [action for action, _ in _Reader(self.text).forms]

    def _show(self, answer: Any, status: int = 200) -> str:
        assert answer.status_code == status, (answer.status_code, answer.text)
        self.path, self.query, self.text = answer.url.path, answer.url.query.decode(), answer.text
        self.seen.add(re.sub(r"[0-9a-f-]{16,}", "...", self.path))
        self._check(answer)
        return self.text

    def _check(self, answer: Any) -> None:
        """Check what is true of every page: small, complete, of one host, without inline script, with labels."""
        assert len(answer.content) < LONGEST_PAGE_BYTES
        reader, origin = _Reader(self.text), f"{answer.url.scheme}://{answer.url.netloc.decode()}"
        hosts = {urlsplit(urljoin(str(answer.url), reference)).netloc for reference in reader.references}
        assert hosts == {urlsplit(origin).netloc}
        assert reader.inline == []
        assert len(set(reader.ids)) == len(reader.ids)
        assert [control for control in reader.controls if control.get("id") not in reader.labelled] == []
        assert (self.text.count("<h1>"), self.text.count("<main"), 'lang="en"' in self.text) == (1, 1, True)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
