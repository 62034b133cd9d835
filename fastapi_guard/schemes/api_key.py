"""A credential in a header, a query parameter or a cookie of its own."""

import re
from collections.abc import Iterator
from typing import Any, Literal

from fastapi.openapi import models
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes.base import COMPONENT_NAME, Scheme, malformed, single_field, two_credentials
from fastapi_guard.stores.arguments import instance_of, optional_texts

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class APIKeyScheme(Scheme):
    """A credential in a header, a query parameter or a cookie of its own."""

    auth_scheme = "ApiKey"
    reads_fields_alone = True

    def __init__(
        self,
        name: str,
        location: Literal["header", "query", "cookie"] = "header",
        *,
        realm: str = "api",
        scheme_name: str | None = None,
        description: str | None = None,
    ) -> None:
        """Look for the credential under ``name`` in ``location``.

        Raises:
            ConfigurationError: The name cannot be sent there, or the location is none of the three.
        """
        if location not in ("header", "query", "cookie"):
            msg = f'location is "header", "query" or "cookie", not {location!r}'
            raise ConfigurationError(msg)
        instance_of("name", name, str, "text")
        optional_texts(scheme_name=scheme_name, description=description)
        if not name or (location != "query" and not _TOKEN.fullmatch(name)):
            msg = f"{name!r} cannot be the name of a {location}: use a token of RFC 9110 5.6.2"
            raise ConfigurationError(msg)
        described: dict[str, Any] = {"in": location, "name": name, "description": description}
        model = models.APIKey(**described)
        fallback = name if COMPONENT_NAME.fullmatch(name) else "APIKey"
        super().__init__(model, scheme_name or fallback, realm)
        self.name = name
        self.location = location
        self.is_cookie: bool = location == "cookie"

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the credential, stripped of spaces and tabs; ``None`` where it is missing or empty."""
        if self.location == "header":
            field = single_field(connection, self.name.lower().encode())
            raw = "" if field is None else field.strip(b" \t").decode("latin-1")
        else:
            if self.location == "cookie":
                values = list(cookies_named(self.name, connection))
            else:
                values = connection.query_params.getlist(self.name)
            if len(values) > 1:
                raise two_credentials()
            raw = values[0] if values else ""
        if not raw:
            return None
        if not _VISIBLE.fullmatch(raw):
            raise malformed()
        return raw

    def refusal(self, error: str, description: str) -> str:  # noqa: ARG002 - the codes are Bearer's
        """Return the plain challenge: the error codes of RFC 6750 belong to its own scheme."""
        return self.plain_challenge


def cookies_named(name: str, connection: HTTPConnection) -> Iterator[str]:
    """Return the values of the cookies of exactly this name.

    A dict of cookies keeps the last of several, which a sibling domain may have planted (RFC 6265bis 8.6). And what
    strips all white space from names takes one for another that no sibling domain can set: a browser sends bytes such
    as 0xA0 before the prefix ``__Host-``, with which the name has no prefix.
    """
    for field, value in connection.scope["headers"]:
        if field == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, _, content = pair.partition("=")
                if key.strip(" \t") == name:
                    content = content.strip(" \t")
                    quoted = len(content) > 1 and content[0] == content[-1] == '"'
                    yield content[1:-1] if quoted else content
