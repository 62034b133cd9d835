"""Usernames and addresses: one normalisation, and what a new one must be."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard.login.users.names import checked_address, checked_username, normalized
from support.examples import scaled


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice", "alice"),
        (" Alice@Example.ORG\t", "alice@example.org"),
        ("\uff21\uff4c\uff49\uff43\uff45", "alice"),
        ("\u00a0STRASSE\u3000", "strasse"),
        ("Stra\u00dfe", "strasse"),
        ("e\u0301", "\u00e9"),
        ("\u00c9", "\u00e9"),
        ("a\ufe6bb", "a@b"),
        ("\ud800", "\ud800"),
        ("", ""),
    ],
)
def test_normalized(text: str, expected: str) -> None:
    """Case, Unicode form and the white space around it do not count."""
    assert normalized(text) == expected


def test_every_character() -> None:
    """A character is normalised for good, and as its lower and upper case are: each, or in `quick` each fourth."""
    for code in range(0, sys.maxunicode + 1, (sys.maxunicode + 1) // scaled(sys.maxunicode + 1)):
        character = chr(code)
        form = normalized(character)
        assert normalized(form) == form
        assert normalized(unicodedata.normalize("NFKC", character)) == form
        assert normalized(character.casefold()) == form


@given(st.text())
def test_normalising_twice(text: str) -> None:
    """A normalised text stays as it is, and so does another case of it."""
    assert normalized(normalized(text)) == normalized(text) == normalized(text.casefold())


@pytest.mark.parametrize("text", ["a", "Ada Lovelace".replace(" ", "."), "x" * 150, "\u00e4da", " ada "])
def test_a_username(text: str) -> None:
    """A username keeps its case."""
    assert checked_username(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", " ", "x" * 151, "\ufdfa" * 20, "a@b", "a\uff20b", "a b", "a\u200bb", "a\tb", "a\0b", "a\ud800", "a\u202eb"],
)
def test_no_username(text: str) -> None:
    """An empty, long or invisible name is rejected, and so is an address."""
    with pytest.raises(ValueError, match="a username has"):
        checked_username(text)


@pytest.mark.parametrize("text", ["a@b", "Ada.Lovelace+x@Example.org", " a@b.c ", "\u00e4@\u00f6.de", "x" * 252 + "@y"])
def test_an_address(text: str) -> None:
    """An address is kept as it was typed."""
    assert checked_address(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "a@", "@b", "a@b@c", "a", "x" * 253 + "@y", "a b@c", "a@b c", "a\n@b", "a@b\r\nBcc: c@d", "a\0@b",
        "<a@b>", "a@b,c@d", "a@b;c", '"a b"@c', "a\uff20b", "a@b\uff20c", "a\u200b@b", "\ud800@b",
    ],
)  # fmt: skip
def test_no_address(text: str) -> None:
    """Text that would be another address, two of them, or a header is rejected."""
    with pytest.raises(ValueError, match="e-mail address"):
        checked_address(text)


@pytest.mark.parametrize("character", ["a", "\ufdfa", "\u1100\u1161\u11a8", "e\u0301"])
def test_a_long_name_is_cut(character: str) -> None:
    """It stays longer than any name of an account, and white space around a name does not count."""
    for text in (character * 20_000, " " * 20_000 + character * 20_000):
        form = normalized(text)
        assert 254 < len(form) <= 1024
        assert normalized(form) == form
    assert normalized(" " * 60_000 + "Ada") == "ada"
