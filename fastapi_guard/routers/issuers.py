"""The owner of a subject: whether ``sub`` names a user of the application, or one of another issuer.

The same ``sub`` of two issuers is two subjects (OpenID Connect Core 2).
"""

from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

from fastapi_guard.auth import Auth, ScopesAuth
from fastapi_guard.auth.any_of import members_of
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.issuers.introspection import IntrospectionAuth
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.login.state import issuer_of

_own_issuers: WeakKeyDictionary[ScopesAuth, str] = WeakKeyDictionary()


def check_issuers(auth: Auth[Any]) -> None:
    """Refuse an Auth whose claims may lack ``iss`` though others made them: they would name the application's users.

    Raises:
        ConfigurationError: A member verifies the credentials of another issuer, and does not require its ``iss``.
    """
    for member in members_of(auth):
        if isinstance(member, IntrospectionAuth):
            option = "issuer"
        elif isinstance(member, JWTAuth) and not _has_keys(member):
            option = "issuer_url"
        else:
            continue
        if not member.issuers:
            msg = (
                f"{member.name} accepts credentials without iss, whose sub would count as that of your own user:"
                f" set {option}, so that only tokens that name their issuer are accepted"
            )
            raise ConfigurationError(msg)


def is_own(claims: Claims, auth: Auth[Any]) -> bool:
    """Return whether the ``sub`` of claims that ``auth`` verified is one of the application's own users.

    It is not where the keys of the ``iss`` are fetched, or where a session has the claims of another issuer.
    """
    issuer = issuer_of(claims)
    return issuer is None or any(_signs_as(issuer, member) for member in members_of(auth))


def own_issuer_of(keys: ScopesAuth, auth: ScopesAuth) -> str | None:
    """Return the issuer that is the application itself: its subjects are those of sessions and of the command line.

    It is the issuer of the member of ``auth`` that signs tokens. Of several issuers none is, nor is another one in a
    second router for ``keys``.
    """
    issuers = {issuer for member in members_of(auth) if signs(member) for issuer in member.issuers}
    if len(issuers) != 1:
        return None
    [issuer] = issuers
    return issuer if _own_issuers.setdefault(keys, issuer) == issuer else None


def signs(auth: Auth[Any]) -> TypeGuard[JWTAuth]:
    """Return whether the application signs tokens by this Auth."""
    return isinstance(auth, JWTAuth) and auth.config.can_sign


def _signs_as(issuer: str, auth: Auth[Any]) -> bool:
    return isinstance(auth, JWTAuth) and _has_keys(auth) and issuer in auth.issuers


def _has_keys(auth: JWTAuth) -> bool:
    # Keys that change by themselves are the application's own where it has the private ones.
    config = auth.config
    return config.key is not None and (config.source is None or config.can_sign)
