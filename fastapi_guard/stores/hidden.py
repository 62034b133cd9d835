"""Secrets that a log, a repr or an error must not show."""

from typing import Any
from urllib.parse import unquote

from pydantic import AnyUrl, SecretBytes, SecretStr

HIDDEN = "<hidden>"


class HiddenBytes(bytes):
    """Bytes whose repr is constant, so that no log of a statement, a row or an error shows them."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a constant."""
        return HIDDEN

    __str__ = __repr__


class HiddenText(str):
    """Text whose repr is constant; ``str`` of it is the text itself, which a driver of a database needs."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a constant."""
        return HIDDEN


def revealed(value: Any) -> Any:
    """Return the secret in a SecretStr or SecretBytes of pydantic; any other value as it is."""
    return value.get_secret_value() if isinstance(value, SecretStr | SecretBytes) else value


def plain(value: Any) -> Any:
    """Return a setting without the types of pydantic: a secret revealed, a URL as text, also those in a list."""
    if isinstance(value, AnyUrl):
        # An HttpUrl has a slash behind a host alone, whether it was there or not; an issuer seldom has one.
        text = str(value)
        return text.removesuffix("/") if value.path == "/" and not value.query else text
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return revealed(value)


def without_password(text: str, url: str | None) -> str:
    """Return ``text`` with the password of ``url`` replaced by ``***``, wherever a library has quoted it.

    Args:
        text: An error message of a driver or of a client.
        url: The URL that was configured, of a database or of Redis.
    """
    rest = (url or "").partition("://")[2]
    # The last "@" ends the password: one in the password itself may not have been escaped.
    credentials, at, _ = rest.rpartition("@")
    password = credentials.partition(":")[2]
    for secret in (password, unquote(password)) if at and password else ():
        text = text.replace(secret, "***")
    return text
