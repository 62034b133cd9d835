"""A browser for servers on loopback: it keeps cookies, also those for https alone, and goes where it is sent."""

import html
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2


class Browser:
    """The browser of a user."""

    def __init__(self) -> None:
        """Begin without cookies."""
        self._cookies: dict[tuple[str, str], str] = {}

    def send(self, method: str, url: str, **options: Any) -> httpx2.Response:
        """Send a request, and return the answer, be it a redirect."""
        host = urlsplit(url).netloc
        own = {name: value for (owner, name), value in self._cookies.items() if owner == host}
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in own.items())} if own else {}
        answer = httpx2.request(method, url, headers=headers, follow_redirects=False, **options)
        for field in answer.headers.get_list("set-cookie"):
            name, _, rest = field.partition("=")
            value = rest.partition(";")[0]
            if value.strip('"') and "expires=thu, 01 jan 1970" not in rest.lower():
                self._cookies[host, name] = value
            else:
                self._cookies.pop((host, name), None)
        return answer

    def follow(self, answer: httpx2.Response, *, until: str | None = None) -> httpx2.Response:
        """Go where the browser is sent, until a page comes, or before a URL that begins with ``until``."""
        while "location" in answer.headers and not (until and location_of(answer).startswith(until)):
            answer = self.send("GET", location_of(answer))
        return answer

    def click(self, page: httpx2.Response, label: str, *, until: str | None = None) -> httpx2.Response:
        """Follow a link of a page."""
        found = re.search(rf'<a href="([^"]+)">{label}</a>', page.text)
        assert found is not None, page.text
        return self.follow(self.send("GET", urljoin(str(page.url), html.unescape(found[1]))), until=until)

    def submit(self, page: httpx2.Response, *, until: str | None = None, **fields: str) -> httpx2.Response:
        """Send the first form of a page, with ``fields`` beside its hidden ones."""
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
        target = urljoin(str(page.url), html.unescape(action[1])) if action else str(page.url)
        form = {name: html.unescape(value) for name, value in hidden.items()} | fields
        return self.follow(self.send("POST", target, data=form), until=until)


def location_of(answer: httpx2.Response) -> str:
    """Return the absolute URL to which an answer sends the browser."""
    return urljoin(str(answer.url), answer.headers["location"])


def query_of(url: str) -> dict[str, str]:
    """Return the parameters in a URL."""
    return dict(parse_qsl(urlsplit(url).query))


def with_query(url: str, **changes: str | None) -> str:
    """Return a URL with other parameters; with ``None``, without them."""
    query = {name: value for name, value in {**query_of(url), **changes}.items() if value is not None}
    return urlsplit(url)._replace(query=urlencode(query)).geturl()
