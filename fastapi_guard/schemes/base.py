"""Scheme, the base of every scheme: it extracts one credential from one field, and makes the challenge."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastapi.openapi import models
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import INVALID_TOKEN, MORE_THAN_ONE_CREDENTIAL, ConfigurationError, Unauthorized, shown

# The characters that RFC 6750 3 allows between the quotation marks of a parameter.
_QUOTABLE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
COMPONENT_NAME = re.compile(r"[a-zA-Z0-9._-]+")


def is_quotable(value: object) -> bool:
    """Return whether ``value`` is text that a challenge may contain (RFC 6750 3)."""
    return isinstance(value, str) and _QUOTABLE.fullmatch(value) is not None


class Scheme(SecurityBase, ABC):
    """A way to send a credential: where it is, how it is challenged, how OpenAPI describes it.

    Attributes:
        auth_scheme: The name in a challenge (RFC 9110 11.1).
        realm: The protection space in a challenge.
        is_cookie: Whether a browser sends the credential by itself, so that the same-origin rule applies.
        reads_fields_alone: Whether ``extract`` reads nothing but header fields and the query string. What is decided
            about a connection is kept with these; for another scheme each guard extracts again, to see a change. A
            subclass that overrides ``extract`` is another scheme, unless it sets this again.
    """

    auth_scheme: ClassVar[str] = "Bearer"
    is_cookie: bool = False
    reads_fields_alone: bool = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Read more than fields where another ``extract`` replaces the one that was declared to read them."""
        super().__init_subclass__(**arguments)
        names = ("reads_fields_alone", "extract")
        defined = next(name for base in cls.__mro__ for name in names if name in vars(base))
        if defined == "extract":
            cls.reads_fields_alone = False

    def __init__(self, model: models.SecurityBase, scheme_name: str, realm: str) -> None:
        """Describe the scheme in OpenAPI by ``model``, under ``scheme_name``."""
        if not isinstance(scheme_name, str) or not COMPONENT_NAME.fullmatch(scheme_name):
            name = repr(scheme_name) if isinstance(scheme_name, str) else shown(scheme_name)
            msg = f"scheme_name {name} cannot name an OpenAPI component: use letters, digits, '.', '_' and '-'"
            raise ConfigurationError(msg)
        self.model: models.SecurityBase = model
        self.scheme_name: str = scheme_name
        self.realm: str = realm
        self._plain_challenge: str = self.challenge()

    @property
    def plain_challenge(self) -> str:
        """The challenge for a request without a credential."""
        return self._plain_challenge

    @property
    def names_scopes(self) -> bool:
        """Whether a challenge names the scopes of the route by default."""
        return False

    def missing(self, scopes: Sequence[str]) -> str:  # noqa: ARG002 - the parameter is Bearer's
        """Return the challenge for a request without a credential, to a route that needs ``scopes``."""
        return self.plain_challenge

    @abstractmethod
    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the raw credential, ``None`` where none was sent.

        Raises:
            Unauthorized: There is more than one credential, or a malformed one.
        """

    async def __call__(self, connection: HTTPConnection) -> str | None:
        """Extract the raw credential, as a FastAPI dependency of its own."""
        return self.extract(connection)

    def challenge(self, **parameters: str) -> str:
        """Return ``<scheme> realm="...", <name>="<value>", ...``.

        Raises:
            ConfigurationError: A value has a character that RFC 6750 3 does not allow there.
        """
        return challenge_text(self.auth_scheme, {"realm": self.realm, **parameters})

    def refusal(self, error: str, description: str) -> str:
        """Return the challenge of a 401 for an invalid credential: with the code and the text of RFC 6750 3.1."""
        return self.challenge(error=error, error_description=description)


def challenge_text(auth_scheme: str, parameters: Mapping[str, str]) -> str:
    """Return a challenge with ``parameters``.

    Raises:
        ConfigurationError: A value has a character that RFC 6750 3 does not allow there.
    """
    for name, value in parameters.items():
        if not is_quotable(value):
            msg = f"{name} {value!r} cannot be in a challenge: it has a character outside of RFC 6750 3"
            raise ConfigurationError(msg)
    return f"{auth_scheme} " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def single_field(connection: HTTPConnection, name: bytes) -> bytes | None:
    """Return the value of the one field of that name, ``None`` where there is none.

    Raises:
        Unauthorized: There are several.
    """
    # Starlette's headers.get returns the first of several fields; a proxy in front may use the last.
    found: bytes | None = None
    for field, value in connection.scope["headers"]:
        if field == name:
            if found is not None:
                raise two_credentials()
            found = value
    return found


def two_credentials() -> Unauthorized:
    """Return the refusal of a request with more than one credential (RFC 6750 2)."""
    return Unauthorized(MORE_THAN_ONE_CREDENTIAL, error="invalid_request", reason="two_credentials")


def malformed() -> Unauthorized:
    """Return the refusal of a malformed credential."""
    return Unauthorized(INVALID_TOKEN, error="invalid_token", reason="malformed")
