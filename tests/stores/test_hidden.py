"""Secrets that nothing shows."""

import pytest
from pydantic import SecretBytes, SecretStr

from fastapi_guard.stores.hidden import HiddenBytes, HiddenText, revealed, without_password


def test_hidden_values() -> None:
    """The repr of a hidden value is a constant; the value itself is what it was."""
    assert (repr(HiddenBytes(b"digest")), str(HiddenBytes(b"digest")), repr(HiddenText("hash"))) == ("<hidden>",) * 3
    assert repr([HiddenText("hash"), HiddenBytes(b"digest")]) == "[<hidden>, <hidden>]"
    assert (HiddenBytes(b"digest"), HiddenText("hash"), str(HiddenText("hash"))) == (b"digest", "hash", "hash")


def test_secrets_of_pydantic() -> None:
    """A secret of pydantic is replaced by its value, any other value stays as it is."""
    assert [revealed(value) for value in (SecretStr("a"), SecretBytes(b"b"), "c", None)] == ["a", b"b", "c", None]


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("no route to redis://:hunter2@db/0", "redis://:hunter2@db/0", "no route to redis://:***@db/0"),
        ("bad port 'hunter2'", "postgresql://ada:hunter2@db/x", "bad port '***'"),
        ("user ada:hunter2", "postgresql://ada:hunter2@db/x", "user ada:***"),
        ("it is p/w", "postgresql://ada:p%2Fw@db/x", "it is ***"),
        ("p@ss:w0rd", "redis://ada:p@ss:w0rd@db/0", "***"),
        ("no password", "redis://db/0", "no password"),
        ("no password", "redis://ada@db/0", "no password"),
        ("no url", None, "no url"),
        ("not a url", "hunter2", "not a url"),
    ],
)
def test_the_password_of_a_url(text: str, url: str | None, shown: str) -> None:
    """The password of a URL is taken out of a message, wherever a library has quoted it."""
    assert without_password(text, url) == shown
