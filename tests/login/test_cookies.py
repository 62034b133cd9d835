"""Cookies that a login set are read by their exact names, each once."""

import ast
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection

import fastapi_guard
from fastapi_guard.login.cookies import CookieSettings, browser_in, cookie_in

OWN = CookieSettings(name="__Host-browser-login")
VALUE = "a" * 43


def connection(*fields: bytes) -> HTTPConnection:
    """Return a request with these ``Cookie`` fields."""
    return HTTPConnection({"type": "http", "headers": [(b"cookie", field) for field in fields]})


@pytest.mark.parametrize(
    "fields",
    [
        (f"__Host-browser-login={VALUE}".encode(),),
        (f' other=1;\t__Host-browser-login ="{VALUE}" '.encode(),),
        (b"other=1", f"__Host-browser-login={VALUE}".encode()),
    ],
)
def test_a_cookie(fields: tuple[bytes, ...]) -> None:
    """A cookie is found among others, in one field or in several (RFC 9113 8.2.3)."""
    assert cookie_in(connection(*fields), OWN) == VALUE
    assert browser_in(connection(*fields), OWN) == VALUE


@pytest.mark.parametrize("space", [b"\xa0", b"\x85", b"\x1c", b"\x1f", b"\x0b", b"\x0c", b"\xe2\x80\x80"])
def test_a_name_after_other_white_space(space: bytes) -> None:
    """A sibling domain can set a cookie whose name begins with white space of Unicode: it is another."""
    planted = space + b"__Host-browser-login=" + VALUE.encode()
    trailing = b"__Host-browser-login" + space + b"=" + VALUE.encode()
    for field in (planted, b"other=1; " + planted, trailing):
        assert cookie_in(connection(field), OWN) is None
        assert browser_in(connection(field), OWN) != VALUE
    own = b"__Host-browser-login=own"
    assert cookie_in(connection(own + b"; " + planted), OWN) == "own"


def test_two_cookies_of_one_name() -> None:
    """Of two cookies of one name one is another's, whichever comes first."""
    two = b"__Host-browser-login=a; __Host-browser-login=b"
    assert cookie_in(connection(two), OWN) is None
    assert cookie_in(connection(*two.split(b"; ")), OWN) is None
    assert cookie_in(connection(), OWN) is None


def test_no_other_reader_of_cookies() -> None:
    """The package reads no cookie from the dictionary of Starlette; the clients in `testing` have cookies of theirs."""
    package = Path(fastapi_guard.__file__).parent
    files = [path for path in package.rglob("*.py") if path.parent.name != "testing"]
    readers = {
        path.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "cookies"
    }
    assert len(files) > 100
    assert readers == set()
