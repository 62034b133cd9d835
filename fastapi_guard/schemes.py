"""From a connection to the raw credential in it, and the challenge of each scheme (RFC 9110 11, RFC 6750 2 and 3).

A scheme answers ``None`` where nothing was sent for it, and raises Unauthorized where what was sent cannot be a
credential. Nothing here knows whether a credential is good.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypedDict

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.openapi import models
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    OAuth2AuthorizationCodeBearer,
    OAuth2PasswordBearer,
)
from fastapi.security.api_key import APIKeyBase
from fastapi.security.base import SecurityBase
from fastapi.security.http import HTTPBase
from fastapi.security.oauth2 import OAuth2
from fastapi.security.open_id_connect_url import OpenIdConnect
from starlette.requests import HTTPConnection
from typing_extensions import Unpack

from fastapi_guard.exceptions import INVALID_TOKEN, MORE_THAN_ONE_CREDENTIAL, ConfigurationError, Unauthorized

# A callable of the application, sync or async, with FastAPI parameters of its own, that returns the raw credential.
SchemeCallable = Callable[..., Any]

# What RFC 6750 3 allows between the quotation marks of a challenge's parameter.
_QUOTABLE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_COMPONENT_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
_VISIBLE = re.compile(r"[\x21-\x7e]+")


def is_quotable(value: object) -> bool:
    """Return whether ``value`` is text that may stand in a challenge (RFC 6750 3)."""
    return isinstance(value, str) and _QUOTABLE.fullmatch(value) is not None


class Scheme(SecurityBase, ABC):
    """A way to send a credential: where it stands, how it is challenged, how OpenAPI describes it.

    Attributes:
        auth_scheme: The name in a challenge (RFC 9110 11.1).
        realm: The protection space in a challenge.
        is_cookie: Whether a browser sends the credential by itself, so that the same-origin rule applies.
    """

    auth_scheme: ClassVar[str] = "Bearer"
    is_cookie: bool = False

    def __init__(self, model: models.SecurityBase, scheme_name: str, realm: str) -> None:
        """Describe the scheme in OpenAPI by ``model``, under ``scheme_name``."""
        if not _COMPONENT_NAME.fullmatch(scheme_name):
            msg = f"scheme_name {scheme_name!r} cannot name an OpenAPI component: use letters, digits, '.', '_' and '-'"
            raise ConfigurationError(msg)
        self.model: models.SecurityBase = model
        self.scheme_name: str = scheme_name
        self.realm: str = realm
        self.plain_challenge: str = self.challenge()

    @abstractmethod
    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the raw credential, ``None`` where none was sent.

        Raises:
            Unauthorized: There is more than one credential, or something that cannot be one.
        """

    def glance(self, connection: HTTPConnection) -> bytes | None:  # noqa: ARG002 - for overriding
        """Return what ``extract`` would, where one look tells, with nothing of it checked; empty where none was sent.

        It is for a credential that is compared or decoded as a whole. What is refused then is extracted first, since
        only that tells whether it is a credential at all.
        """
        return None

    async def __call__(self, connection: HTTPConnection) -> str | None:
        """Extract the raw credential, as a FastAPI dependency of its own."""
        return self.extract(connection)

    def challenge(self, **parameters: str) -> str:
        """Return ``<scheme> realm="...", <name>="<value>", ...``.

        Raises:
            ConfigurationError: A value has a character that RFC 6750 3 does not allow there.
        """
        return _challenge(self.auth_scheme, {"realm": self.realm, **parameters})

    def refusal(self, error: str, description: str) -> str:
        """Return the challenge of a 401 for a credential that came: with the code and the text of RFC 6750 3.1."""
        return self.challenge(error=error, error_description=description)


class BearerScheme(Scheme):
    """``Authorization: Bearer <token68>``, extracted strictly (RFC 6750 2.1, RFC 9110 11.4).

    The name of the scheme is compared without case; one or more spaces, and only spaces, stand behind it. On a
    WebSocket ``Sec-WebSocket-Protocol: bearer, <token>`` is taken too, since a browser can send no other. The class
    methods extract alike and differ in what OpenAPI says.
    """

    def __init__(
        self,
        *,
        realm: str = "api",
        scheme_name: str = "Bearer",
        description: str | None = None,
        model: models.SecurityBase | None = None,
        resource_metadata: str | None = None,
    ) -> None:
        """Describe a plain HTTP bearer token, or what ``model`` says.

        Args:
            realm: The protection space in a challenge.
            scheme_name: The name of the scheme in OpenAPI.
            description: What OpenAPI says about it.
            model: How OpenAPI describes it.
            resource_metadata: The URL of this API's metadata, for a client that has yet to find its authorization
                server (RFC 9728 5.1). ``protected_resource_router`` sets it.
        """
        self.resource_metadata: str | None = resource_metadata
        super().__init__(model or models.HTTPBearer(description=description), scheme_name, realm)
        name = b"|".join(re.escape(each).encode() for each in self.auth_schemes)
        self._names = frozenset(each.lower().encode() for each in self.auth_schemes)
        self._usual_name: bytes = self.auth_schemes[0].encode()
        # A subclass that extracts in its own way is asked each time.
        self._glances: bool = type(self).extract is BearerScheme.extract
        self._behind_a_comma = re.compile(rb",[ \t]*(?i:" + name + rb")[ \t]")
        self._credential = re.compile(rb"[ \t]*(?i:" + name + rb") +([A-Za-z0-9\-._~+/]+=*)[ \t]*")

    @property
    def auth_schemes(self) -> tuple[str, ...]:
        """The names of the schemes that are taken, in the order in which they are challenged."""
        return (self.auth_scheme,)

    def announce(self, resource_metadata: str) -> None:
        """Name the metadata of this API in every challenge (RFC 9728 5.1); done once, before the first request.

        Raises:
            ConfigurationError: Other metadata is named already, or the URL has a character that cannot stand there.
        """
        if self.resource_metadata not in (None, resource_metadata):
            msg = f"the challenges name {self.resource_metadata} already: a scheme describes one resource"
            raise ConfigurationError(msg)
        self.resource_metadata = resource_metadata
        self.plain_challenge: str = self.challenge()

    def challenge(self, **parameters: str) -> str:
        """Return the challenge of each scheme that is taken, with ``parameters``.

        Raises:
            ConfigurationError: A value has a character that RFC 6750 3 does not allow there.
        """
        return ", ".join(self._challenge(name, parameters) for name in self.auth_schemes)

    def _challenge(self, name: str, parameters: Mapping[str, str]) -> str:
        found = {} if self.resource_metadata is None else {"resource_metadata": self.resource_metadata}
        return _challenge(name, {"realm": self.realm, **parameters, **found})

    @classmethod
    def password(
        cls,
        token_url: str,
        scopes: Mapping[str, str] | None = None,
        *,
        refresh_url: str | None = None,
        realm: str = "api",
        scheme_name: str = "OAuth2PasswordBearer",
        description: str | None = None,
    ) -> Self:
        """Describe the password flow of OAuth 2: the Authorize button of ``/docs`` logs in at ``token_url``."""
        flow = models.OAuthFlowPassword(tokenUrl=token_url, refreshUrl=refresh_url, scopes=_described(scopes))
        model = models.OAuth2(flows=models.OAuthFlows(password=flow), description=description)
        return cls(realm=realm, scheme_name=scheme_name, model=model)

    @classmethod
    def authorization_code(
        cls,
        authorization_url: str,
        token_url: str,
        scopes: Mapping[str, str] | None = None,
        *,
        refresh_url: str | None = None,
        realm: str = "api",
        scheme_name: str = "OAuth2AuthorizationCodeBearer",
        description: str | None = None,
    ) -> Self:
        """Describe the authorization code flow of OAuth 2 (RFC 6749 4.1)."""
        flow = models.OAuthFlowAuthorizationCode(
            authorizationUrl=authorization_url, tokenUrl=token_url, refreshUrl=refresh_url, scopes=_described(scopes)
        )
        model = models.OAuth2(flows=models.OAuthFlows(authorizationCode=flow), description=description)
        return cls(realm=realm, scheme_name=scheme_name, model=model)

    @classmethod
    def openid_connect(
        cls, url: str, *, realm: str = "api", scheme_name: str = "OpenIdConnect", description: str | None = None
    ) -> Self:
        """Describe an OpenID provider by the ``url`` of its discovery document."""
        model = models.OpenIdConnect(openIdConnectUrl=url, description=description)
        return cls(realm=realm, scheme_name=scheme_name, model=model)

    def glance(self, connection: HTTPConnection) -> bytes | None:
        """Return what stands behind ``Bearer`` and one space, in the one Authorization field of a request."""
        scope = connection.scope
        if not self._glances or scope["type"] != "http":
            return None
        found = b""
        for field, value in scope["headers"]:
            if field == b"authorization":
                name, _, token = value.partition(b" ")
                if found or not token or name != self._usual_name:
                    return None
                found = token
        return found

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the token; ``None`` where no Authorization field or another scheme's was sent."""
        value = _single_field(connection, b"authorization")
        if connection.scope["type"] == "websocket":
            value = _or_offered(value, connection)
        if value is None:
            return None
        # As nearly every client writes it; anything else is looked at more closely.
        name, _, token = value.partition(b" ")
        if name == self._usual_name and token and not token.translate(None, _TOKEN68):
            return token.decode()
        credential = self._credential.fullmatch(value)
        if credential is not None:
            return credential[1].decode()
        # bytes.split() would also split at vertical tabs and form feeds, which are no white space in a field.
        name, *rest = [word for word in value.replace(b"\t", b" ").split(b" ") if word] or [b""]
        if name.lower() not in self._names:
            if self._behind_a_comma.search(value):
                raise _two_credentials()
            return None
        if not rest:
            return None
        if len(rest) > 1 or b"," in rest[0]:
            raise _two_credentials()
        raise _malformed()


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
        """Take proofs of ``algorithms``; ``required`` takes no bearer token."""
        self._taken = ("DPoP",) if required else ("Bearer", "DPoP")
        self._algorithms = " ".join(algorithms)
        super().__init__(**options)

    @property
    def auth_schemes(self) -> tuple[str, ...]:
        """DPoP, after Bearer where that is taken too."""
        return self._taken

    def refusal(self, error: str, description: str) -> str:
        """Return the challenge of a 401; what is wrong with a proof is said to the scheme that has proofs."""
        if error != "invalid_dpop_proof":
            return super().refusal(error, description)
        proof = {"error": error, "error_description": description}
        return ", ".join(self._challenge(name, proof if name == "DPoP" else {}) for name in self.auth_schemes)

    @staticmethod
    def is_used(connection: HTTPConnection) -> bool:
        """Return whether the credential on ``connection`` came as ``DPoP``."""
        value = _single_field(connection, b"authorization") or b""
        return value.lstrip(b" \t")[:5].lower() == b"dpop "

    def _challenge(self, name: str, parameters: Mapping[str, str]) -> str:
        return super()._challenge(name, {**parameters, "algs": self._algorithms} if name == "DPoP" else parameters)


class APIKeyScheme(Scheme):
    """A credential in a header, a query parameter or a cookie of its own."""

    auth_scheme = "ApiKey"

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
        if not name or (location != "query" and not _TOKEN.fullmatch(name)):
            msg = f"{name!r} cannot be the name of a {location}: use a token of RFC 9110 5.6.2"
            raise ConfigurationError(msg)
        described: dict[str, Any] = {"in": location, "name": name, "description": description}
        model = models.APIKey(**described)
        fallback = name if _COMPONENT_NAME.fullmatch(name) else "APIKey"
        super().__init__(model, scheme_name or fallback, realm)
        self.name = name
        self.location = location
        self.is_cookie: bool = location == "cookie"

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the credential, stripped of spaces and tabs; ``None`` where it is missing or empty."""
        if self.location == "header":
            field = _single_field(connection, self.name.lower().encode())
            raw = "" if field is None else field.strip(b" \t").decode("latin-1")
        else:
            if self.location == "cookie":
                values = list(_cookies(connection, self.name))
            else:
                values = connection.query_params.getlist(self.name)
            if len(values) > 1:
                raise _two_credentials()
            raw = values[0] if values else ""
        if not raw:
            return None
        if not _VISIBLE.fullmatch(raw):
            raise _malformed()
        return raw

    def refusal(self, error: str, description: str) -> str:  # noqa: ARG002 - the codes are Bearer's
        """Return the plain challenge: the error codes of RFC 6750 belong to its own scheme."""
        return self.plain_challenge


class CallableScheme(Scheme):
    """A callable of the application as a scheme; FastAPI resolves it as a dependency of its own.

    Raises:
        ConfigurationError: It has a required parameter, so that a stranger would be answered 422 for not sending it; or
            it depends on a scheme that answers by itself.
    """

    def __init__(self, call: SchemeCallable, *, realm: str = "api") -> None:
        """Challenge as ``call`` does where it is a scheme of ours, else as a bearer token."""
        self.call = call
        self._own = call if isinstance(call, Scheme) else BearerScheme(realm=realm)
        super().__init__(self._own.model, self._own.scheme_name, self._own.realm)
        parts = list(_flat(get_dependant(path="", call=call)))
        # Itself, and all that it depends on.
        self.calls: tuple[Any, ...] = tuple(part.call for part in parts)
        required = sorted(
            field.alias
            for part in parts
            for field in (*part.query_params, *part.header_params, *part.cookie_params, *part.body_params)
            if field.field_info.is_required()
        )
        if required:
            msg = f"the scheme {_name_of(call)} requires {', '.join(required)}: give each a default of None"
            raise ConfigurationError(msg)
        for part in parts:
            _refuse_auto_error(part.call)
        self.is_cookie: bool = any(part.cookie_params or _is_cookie(part.call) for part in parts)

    def challenge(self, **parameters: str) -> str:
        """Return the challenge of the scheme that the callable is."""
        return self._own.challenge(**parameters)

    def refusal(self, error: str, description: str) -> str:
        """Return the challenge of a 401 of the scheme that the callable is."""
        return self._own.refusal(error, description)

    def extract(self, connection: HTTPConnection) -> str | None:  # noqa: ARG002 - see the message
        """Refuse: only FastAPI can resolve the callable.

        Raises:
            ConfigurationError: Always.
        """
        msg = f"the scheme {_name_of(self.call)} has FastAPI parameters and works only as a dependency"
        raise ConfigurationError(msg)


def _challenge(auth_scheme: str, parameters: Mapping[str, str]) -> str:
    for name, value in parameters.items():
        if not is_quotable(value):
            msg = f"{name} {value!r} cannot stand in a challenge: it has a character outside of RFC 6750 3"
            raise ConfigurationError(msg)
    return f"{auth_scheme} " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def as_scheme(scheme: SecurityBase | SchemeCallable) -> Scheme:
    """Return ``scheme`` as one of ours: strict where it is FastAPI's own, resolved by FastAPI where it is a callable.

    Raises:
        ConfigurationError: It is not callable, it answers with something else than the credential's text, or it
            answers a missing credential by itself.
    """
    kind = type(scheme)
    if isinstance(scheme, Scheme) and kind.__call__ is Scheme.__call__:
        return scheme
    if not callable(scheme) or isinstance(scheme, type):
        msg = f"{scheme!r} is no scheme: pass BearerScheme(), APIKeyScheme(name) or a callable that returns str | None"
        raise ConfigurationError(msg)
    if isinstance(scheme, HTTPBase):
        msg = f"{kind.__name__} returns an object, not the credential: use BearerScheme()"
        raise ConfigurationError(msg)
    _refuse_auto_error(scheme)
    if isinstance(scheme, OpenIdConnect) or kind is OAuth2:
        msg = f"{kind.__name__} returns the whole header: use BearerScheme.openid_connect(url) or .password(url)"
        raise ConfigurationError(msg)
    # FastAPI's own take the first of several fields and strip Unicode white space: keep only their description.
    if isinstance(scheme, OAuth2PasswordBearer) and kind.__call__ is OAuth2PasswordBearer.__call__:
        return BearerScheme(scheme_name=scheme.scheme_name, model=scheme.model)
    if isinstance(scheme, OAuth2AuthorizationCodeBearer) and kind.__call__ is OAuth2AuthorizationCodeBearer.__call__:
        return BearerScheme(scheme_name=scheme.scheme_name, model=scheme.model)
    if isinstance(scheme, APIKeyBase) and kind in (APIKeyHeader, APIKeyQuery, APIKeyCookie):
        model = scheme.model
        return APIKeyScheme(model.name, model.in_.value, scheme_name=scheme.scheme_name, description=model.description)
    return CallableScheme(scheme)


def _refuse_auto_error(scheme: object) -> None:
    if getattr(scheme, "auto_error", False):
        msg = f"{type(scheme).__name__}(auto_error=True) answers by itself: pass auto_error=False"
        raise ConfigurationError(msg)


def _described(scopes: Mapping[str, str] | None) -> dict[str, str]:
    if scopes is not None and not isinstance(scopes, Mapping):
        msg = f'scopes maps each scope to its description, such as {{"items:read": "Read items"}}, not {scopes!r}'
        raise ConfigurationError(msg)
    return dict(scopes or {})


def _single_field(connection: HTTPConnection, name: bytes) -> bytes | None:
    # Starlette's headers.get answers with the first of several fields; a proxy in front may look at the last.
    found: bytes | None = None
    for field, value in connection.scope["headers"]:
        if field == name:
            if found is not None:
                raise _two_credentials()
            found = value
    return found


def _cookies(connection: HTTPConnection, name: str) -> Iterator[str]:
    # A dict of cookies keeps the last of several, which a sibling domain may have planted (RFC 6265bis 8.6).
    for field, value in connection.scope["headers"]:
        if field == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, _, content = pair.partition("=")
                if key.strip(" \t") == name:
                    content = content.strip(" \t")
                    quoted = len(content) > 1 and content[0] == content[-1] == '"'
                    yield content[1:-1] if quoted else content


def _or_offered(value: bytes | None, connection: HTTPConnection) -> bytes | None:
    # A browser's WebSocket sends no header of the page's choosing: new WebSocket(url, ["bearer", token]).
    fields = [field for name, field in connection.scope["headers"] if name == b"sec-websocket-protocol"]
    offered = [each.strip(b" \t") for field in fields for each in field.split(b",")]
    places = [place for place, each in enumerate(offered) if each.lower() == b"bearer"]
    if not places or places == [len(offered) - 1]:
        return value
    if len(places) > 1 or value is not None:
        raise _two_credentials()
    token: bytes = offered[places[0] + 1]
    return b"Bearer " + token


def _two_credentials() -> Unauthorized:
    return Unauthorized(MORE_THAN_ONE_CREDENTIAL, error="invalid_request", reason="two_credentials")


def _malformed() -> Unauthorized:
    return Unauthorized(INVALID_TOKEN, error="invalid_token", reason="malformed")


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _flat(part)


def _is_cookie(call: object) -> bool:
    return call.is_cookie if isinstance(call, Scheme) else isinstance(call, APIKeyCookie)


def _name_of(call: object) -> str:
    return getattr(call, "__name__", type(call).__name__)
