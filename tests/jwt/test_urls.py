"""Which URLs are believed."""

from typing import Any

import pytest

from fastapi_guard import ConfigurationError
from fastapi_guard.jwt.urls import check_url


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example/.well-known/jwks.json",
        "HTTPS://id.example",
        "https://id.example:8443/x?y=z",
        "http://localhost:9000/jwks",
        "http://127.0.0.1/jwks",
        "http://127.9.9.9/jwks",
        "http://[::1]:80/jwks",
    ],
)
def test_urls(url: str) -> None:
    """A key comes by https from anywhere, by http from this same machine (F.28)."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://id.example/jwks", "is not an https URL"),
        ("http://localhost.evil.example/jwks", "is not an https URL"),
        ("http://127.0.0.1.evil.example/jwks", "is not an https URL"),
        ("http://0.0.0.0/jwks", "is not an https URL"),
        ("http://10.0.0.1/jwks", "is not an https URL"),
        ("http://169.254.169.254/latest/meta-data", "is not an https URL"),
        ("http://[fe80::1]/jwks", "is not an https URL"),
        ("ftp://localhost/jwks", "is not an https URL"),
        ("file:///etc/passwd", "is not an https URL"),
        ("//id.example/jwks", "is not an https URL"),
        ("/jwks", "is not an https URL"),
        ("id.example", "is not an https URL"),
        ("", "is not an https URL"),
        ("https://", "is not an https URL"),
        ("https:///jwks", "is not an https URL"),
        ("https://[", "is not a URL"),
        (None, "is not"),
        (7, "is not a URL"),
        ("https://id.example:99999/", "is not a URL"),
        ("https://id.example:port/", "is not a URL"),
        ("https://user:secret@id.example/", "has a user or a fragment"),
        ("https://id.example@evil.example/", "has a user or a fragment"),
        ("https://id.example/#fragment", "has a user or a fragment"),
    ],
)
def test_urls_that_are_not_believed(url: Any, message: str) -> None:
    """Everything else is refused, also what is no text, and no password is repeated (F.28)."""
    with pytest.raises(ConfigurationError, match=message) as refusal:
        check_url(url)
    assert "secret" not in str(refusal.value)
