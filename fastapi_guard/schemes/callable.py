"""Schemes of FastAPI, and callables of the application, as schemes of this package."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    OAuth2AuthorizationCodeBearer,
    OAuth2PasswordBearer,
)
from fastapi.security.api_key import APIKeyBase
from fastapi.security.base import SecurityBase
from fastapi.security.http import HTTPBase, HTTPBearer
from fastapi.security.oauth2 import OAuth2
from fastapi.security.open_id_connect_url import OpenIdConnect
from starlette.requests import HTTPConnection

from fastapi_guard.callables import is_async
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.schemes.api_key import APIKeyScheme
from fastapi_guard.schemes.base import Scheme
from fastapi_guard.schemes.bearer import BearerScheme

# A callable of the application, sync or async, with FastAPI parameters of its own, that returns the raw credential.
SchemeCallable = Callable[..., Any]


class CallableScheme(Scheme):
    """A callable of the application as a scheme; FastAPI resolves it as a dependency of its own.

    Raises:
        ConfigurationError: It has a required parameter, so that a request without it would be a 422; or it depends
            on a scheme that raises by itself.
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

    @property
    def names_scopes(self) -> bool:
        """Whether the challenge of the scheme that the callable is names the scopes of the route by default."""
        return self._own.names_scopes

    def missing(self, scopes: Sequence[str]) -> str:
        """Return the challenge for a request without a credential, of the scheme that the callable is."""
        return self._own.missing(scopes)

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


def as_scheme(scheme: SecurityBase | SchemeCallable) -> Scheme:
    """Return ``scheme`` as one of ours: strict where it is FastAPI's own, resolved by FastAPI where it is a callable.

    Raises:
        ConfigurationError: It is not callable, it does not return the text of the credential, or it raises where a
            credential is missing.
    """
    kind = type(scheme)
    if isinstance(scheme, Scheme) and kind.__call__ is Scheme.__call__:
        if is_async(scheme.extract):
            # Its coroutine would be the credential.
            msg = f"{kind.__name__}.extract has to be a def, not an async def: pass an async function as the scheme"
            raise ConfigurationError(msg)
        return scheme
    if not callable(scheme) or isinstance(scheme, type):
        msg = f"{scheme!r} is not a scheme: pass BearerScheme(), APIKeyScheme(name), a callable that returns str | None"
        raise ConfigurationError(msg)
    if isinstance(scheme, HTTPBase):
        remedy = "use BearerScheme()" if isinstance(scheme, HTTPBearer) else "pass a function that returns str | None"
        msg = f"{kind.__name__} returns an object, not the credential: {remedy}"
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
        msg = f"{type(scheme).__name__}(auto_error=True) sends an error of its own: pass auto_error=False"
        raise ConfigurationError(msg)


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _flat(part)


def _is_cookie(call: object) -> bool:
    return call.is_cookie if isinstance(call, Scheme) else isinstance(call, APIKeyCookie)


def _name_of(call: object) -> str:
    return getattr(call, "__name__", type(call).__name__)
