"""Tokens in the Authorization field: ``Bearer`` (RFC 6750 2.1), and ``DPoP`` (RFC 9449 7)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypedDict, Unpack

from fastapi.openapi import models
from pydantic import AnyUrl
from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes.base import (
    Scheme,
    challenge_text,
    malformed,
    single_field,
    two_credentials,
)
from fastapi_guard.stores.arguments import instance_of, optional_texts
from fastapi_guard.stores.hidden import plain

# The attribute of an endpoint that serves the metadata of a protected resource, which is public (RFC 9728).
METADATA_MARK: Final = "fastapi_guard_metadata"
_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
# Changes each byte that is not among them.
_OTHERS_CHANGED = bytes(byte if byte in _TOKEN68 else byte ^ 0x80 for byte in range(256))


class BearerScheme(Scheme):
    """``Authorization: Bearer <token68>``, extracted strictly (RFC 6750 2.1, RFC 9110 11.4).

    The name of the scheme is compared without case; one or more spaces, and only spaces, follow it. On a
    WebSocket ``Sec-WebSocket-Protocol: bearer, <token>`` is taken too, since a browser can send no other. The class
    methods extract alike and differ in the OpenAPI document.
    """

    reads_fields_alone = True

    def __init__(
        self,
        *,
        realm: str = "api",
        scheme_name: str = "Bearer",
        description: str | None = None,
        model: models.SecurityBase | None = None,
        resource_metadata: str | None = None,
    ) -> None:
        """Describe a plain HTTP bearer token in OpenAPI, or ``model``.

        Args:
            realm: The protection space in a challenge.
            scheme_name: The name of the scheme in OpenAPI.
            description: The description in OpenAPI.
            model: How OpenAPI describes it.
            resource_metadata: The URL of this API's metadata, for a client that has yet to find its authorization
                server (RFC 9728 5.1). ``protected_resource_router`` sets it.
        """
        optional_texts(description=description)
        instance_of("model", model, (models.SecurityBase, type(None)), "a SecurityBase of fastapi.openapi.models")
        self.resource_metadata: str | None = resource_metadata
        super().__init__(model or models.HTTPBearer(description=description), scheme_name, realm)
        name = b"|".join(re.escape(scheme).encode() for scheme in self.auth_schemes)
        self._names = frozenset(scheme.lower().encode() for scheme in self.auth_schemes)
        self._usual_name: bytes = self.auth_schemes[0].encode()
        self._behind_a_comma = re.compile(rb",[ \t]*(?i:" + name + rb")[ \t]")
        self._credential = re.compile(rb"[ \t]*(?i:" + name + rb") +([A-Za-z0-9\-._~+/]+=*)[ \t]*")

    @property
    def auth_schemes(self) -> tuple[str, ...]:
        """The names of the schemes that are taken, in the order in which they are challenged."""
        return (self.auth_scheme,)

    def announce(self, resource_metadata: str) -> None:
        """Name the metadata of this API in every challenge (RFC 9728 5.1); done once, before the first request.

        Raises:
            ConfigurationError: Other metadata is named already, or the URL has a character that no challenge may have.
        """
        if self.resource_metadata not in (None, resource_metadata):
            msg = f"the challenges name {self.resource_metadata} already: a scheme describes one resource"
            raise ConfigurationError(msg)
        self.resource_metadata = resource_metadata
        self._plain_challenge = self.challenge()

    @property
    def names_scopes(self) -> bool:
        """Whether a challenge names the scopes of the route by default: where it names the metadata of this API."""
        return self.resource_metadata is not None

    def missing(self, scopes: Sequence[str]) -> str:
        """Return the challenge for a request without a credential, with the ``scopes`` (RFC 6750 3)."""
        return self.challenge(scope=" ".join(scopes)) if scopes else self.plain_challenge

    def challenge(self, **parameters: str) -> str:
        """Return the challenge of each scheme that is taken, with ``parameters``.

        Raises:
            ConfigurationError: A value has a character that RFC 6750 3 does not allow there.
        """
        return ", ".join(self._challenge(name, parameters) for name in self.auth_schemes)

    def _challenge(self, name: str, parameters: Mapping[str, str]) -> str:
        found = {} if self.resource_metadata is None else {"resource_metadata": self.resource_metadata}
        return challenge_text(name, {"realm": self.realm, **parameters, **found})

    @classmethod
    def password(
        cls,
        token_url: str | AnyUrl,
        scopes: Mapping[str, str] | None = None,
        *,
        refresh_url: str | AnyUrl | None = None,
        realm: str = "api",
        scheme_name: str = "OAuth2PasswordBearer",
        description: str | None = None,
    ) -> Self:
        """Describe the password flow of OAuth 2: the Authorize button of ``/docs`` logs in at ``token_url``."""
        optional_texts(description=description)
        urls = _urls(tokenUrl=("token_url", token_url), refreshUrl=("refresh_url", refresh_url))
        flow = models.OAuthFlowPassword(**urls, scopes=_described(scopes))
        model = models.OAuth2(flows=models.OAuthFlows(password=flow), description=description)
        return cls(realm=realm, scheme_name=scheme_name, model=model)

    @classmethod
    def authorization_code(
        cls,
        authorization_url: str | AnyUrl,
        token_url: str | AnyUrl,
        scopes: Mapping[str, str] | None = None,
        *,
        refresh_url: str | AnyUrl | None = None,
        realm: str = "api",
        scheme_name: str = "OAuth2AuthorizationCodeBearer",
        description: str | None = None,
    ) -> Self:
        """Describe the authorization code flow of OAuth 2 (RFC 6749 4.1)."""
        optional_texts(description=description)
        urls = _urls(
            authorizationUrl=("authorization_url", authorization_url),
            tokenUrl=("token_url", token_url),
            refreshUrl=("refresh_url", refresh_url),
        )
        flow = models.OAuthFlowAuthorizationCode(**urls, scopes=_described(scopes))
        model = models.OAuth2(flows=models.OAuthFlows(authorizationCode=flow), description=description)
        return cls(realm=realm, scheme_name=scheme_name, model=model)

    @classmethod
    def openid_connect(
        cls,
        url: str | AnyUrl,
        *,
        realm: str = "api",
        scheme_name: str = "OpenIdConnect",
        description: str | None = None,
    ) -> Self:
        """Describe an OpenID provider by the ``url`` of its discovery document."""
        optional_texts(description=description)
        model = models.OpenIdConnect(**_urls(openIdConnectUrl=("url", url)), description=description)
        return cls(realm=realm, scheme_name=scheme_name, model=model)

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the token; ``None`` where no Authorization field or another scheme's was sent."""
        value = single_field(connection, b"authorization")
        if connection.scope["type"] == "websocket":
            value = _or_offered(value, connection)
        if value is None:
            return None
        # As nearly every client writes it; anything else is looked at more closely.
        name, _, token = value.partition(b" ")
        if name == self._usual_name and token and token.translate(_OTHERS_CHANGED) == token:
            return token.decode()
        credential = self._credential.fullmatch(value)
        if credential is not None:
            return credential[1].decode()
        # bytes.split() would also split at vertical tabs and form feeds, which are not white space in a field.
        name, *rest = [word for word in value.replace(b"\t", b" ").split(b" ") if word] or [b""]
        if name.lower() not in self._names:
            if self._behind_a_comma.search(value):
                raise two_credentials()
            return None
        if not rest:
            return None
        if len(rest) > 1 or b"," in rest[0]:
            raise two_credentials()
        raise malformed()


class BearerOptions(TypedDict, total=False):
    """The keyword arguments of a BearerScheme."""

    realm: str
    scheme_name: str
    description: str | None
    model: models.SecurityBase | None
    resource_metadata: str | None


class DPoPScheme(BearerScheme):
    """``Authorization: DPoP <token68>``, beside Bearer or in its place (RFC 9449 7)."""

    def __init__(
        self, *, algorithms: Sequence[str] = ("ES256",), required: bool = False, **options: Unpack[BearerOptions]
    ) -> None:
        """Challenge for proofs of ``algorithms``; with ``required`` no bearer token is accepted."""
        self._taken = ("DPoP",) if required else ("Bearer", "DPoP")
        self.algorithms: tuple[str, ...] = tuple(algorithms)
        super().__init__(**options)

    @property
    def auth_schemes(self) -> tuple[str, ...]:
        """DPoP, after Bearer where that is taken too."""
        return self._taken

    def refusal(self, error: str, description: str) -> str:
        """Return the challenge of a 401; what is wrong with a proof is said to the scheme that has proofs."""
        if error not in ("invalid_dpop_proof", "use_dpop_nonce"):
            return super().refusal(error, description)
        proof = {"error": error, "error_description": description}
        return ", ".join(self._challenge(name, proof if name == "DPoP" else {}) for name in self.auth_schemes)

    @staticmethod
    def is_used(connection: HTTPConnection) -> bool:
        """Return whether the credential on ``connection`` came as ``DPoP``."""
        value = single_field(connection, b"authorization") or b""
        return value.lstrip(b" \t")[:5].lower() == b"dpop "

    def _challenge(self, name: str, parameters: Mapping[str, str]) -> str:
        return super()._challenge(
            name, {**parameters, "algs": " ".join(self.algorithms)} if name == "DPoP" else parameters
        )


def _urls(**urls: tuple[str, object]) -> dict[str, Any]:
    found = {field: (name, plain(url)) for field, (name, url) in urls.items()}
    for field, (name, url) in found.items():
        if field == "refreshUrl" and url is None:
            continue
        instance_of(name, url, str, "a URL, or a path of this application")
    return {field: url for field, (_, url) in found.items()}


def _described(scopes: Mapping[str, str] | None) -> dict[str, str]:
    if scopes is not None and not isinstance(scopes, Mapping):
        msg = f'scopes maps each scope to its description, such as {{"items:read": "Read items"}}, not {scopes!r}'
        raise ConfigurationError(msg)
    return dict(scopes or {})


def _or_offered(value: bytes | None, connection: HTTPConnection) -> bytes | None:
    # A browser's WebSocket sends no header of the page's choosing: new WebSocket(url, ["bearer", token]).
    fields = [field for name, field in connection.scope["headers"] if name == b"sec-websocket-protocol"]
    offered = [name.strip(b" \t") for field in fields for name in field.split(b",")]
    places = [place for place, name in enumerate(offered) if name.lower() == b"bearer"]
    if not places or places == [len(offered) - 1]:
        return value
    if len(places) > 1 or value is not None:
        raise two_credentials()
    token: bytes = offered[places[0] + 1]
    return b"Bearer " + token
