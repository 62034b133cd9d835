"""URLs that are safe to fetch keys from."""

from typing import Any

import pytest

from fastapi_guard import ConfigurationError
from fastapi_guard.jwt.urls import check_url, warn_about_http


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
    """A key comes by https from anywhere, by http from this same machine."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://id.example/jwks", "^http://id.example is not an https URL, such as https://id.example: "),
        ("id.example/jwks", "^this is not an https URL, such as https://id.example: "),
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
        ("https://[", "not a URL"),
        (None, "is not"),
        ("http://user:secret@id.example/", "http://id.example is not an https URL"),
        ("postgresql://user:secret@db.example/keys", "postgresql://db.example is not an https URL"),
        ("secret", "this is not an https URL"),
        ("https://user:secret@[", "not a URL"),
        (7, "not a URL"),
        ("https://id.example/\n", "not an https URL"),
        ("https://id.example/a b", "not an https URL"),
        ("https://id.example/\x00", "not an https URL"),
        ("https://id.example:99999/", "not a URL"),
        ("https://id.example:port/", "not a URL"),
        ("https://user:secret@id.example/", "has a user or a fragment"),
        ("https://id.example@evil.example/", "has a user or a fragment"),
        ("https://id.example/#fragment", "has a user or a fragment"),
    ],
)
def test_urls_that_are_not_believed(url: Any, message: str) -> None:
    """Every other URL is refused, and no password in it is repeated."""
    with pytest.raises(ConfigurationError, match=message) as refusal:
        check_url(url)
    assert "secret" not in str(refusal.value)


PRIVATE = [
    "http://keycloak:8080/realms/main",
    "http://keycloak.auth.svc/certs",
    "http://keycloak.auth.svc.cluster.local/certs",
    "http://host.docker.internal:8080/certs",
    "http://10.1.2.3/certs",
    "http://172.16.0.1/certs",
    "http://192.168.178.1/certs",
    "http://[fd00::1]/certs",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_http_in_a_private_network(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The keyword accepts http between containers, and it is logged; without the keyword it is an error."""
    with pytest.raises(ConfigurationError, match="not an https URL"):
        check_url(url)
    assert check_url(url, private_http=True) == url
    warn_about_http(url + "?code=secret")
    (record,) = caplog.records
    assert url in record.message
    assert "secret" not in record.message


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/certs",
        "http://8.8.8.8/certs",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/certs",
        "http://0.0.0.0/certs",
        "http://172.32.0.1/certs",
        "http://evil.example.internal.example/certs",
        "http://134744072/certs",
        "http://0x08080808/certs",
        "ftp://keycloak/certs",
        "http:///certs",
        "http://user:secret@keycloak/certs",
    ],
)
def test_http_to_the_internet(url: str) -> None:
    """The keyword for private networks opens no way to a public host, nor to the metadata service of a cloud."""
    with pytest.raises(ConfigurationError):
        check_url(url, private_http=True)


@pytest.mark.parametrize("url", ["https://id.example/jwks", "http://localhost/jwks", "http://127.0.0.1/jwks"])
def test_what_needs_no_warning(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Https, and http on this machine, are not logged."""
    warn_about_http(url)
    assert caplog.records == []
