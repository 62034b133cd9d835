"""Which Auths may guard the routes that act for the subject of a credential."""

from typing import Any

import pytest
from joserfc import jwk
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastapi_guard import AnyAuth, Auth, ConfigurationError, JWTAuth, JWTConfig
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.issuers import IntrospectionAuth, OIDCAuth
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.login.session import SessionAuth
from fastapi_guard.routers.accounts import accounts_router
from fastapi_guard.routers.api_keys import api_keys_router
from fastapi_guard.routers.factors import factors_router
from fastapi_guard.stores import MemoryStore
from support.accounts import Shop
from support.clock import Clock

ISSUER = "https://id.example"
PUBLIC = jwk.ECKey.generate_key("P-256", private=False)


def introspecting(**options: Any) -> IntrospectionAuth:
    """Return an Auth for opaque tokens of another issuer."""
    return IntrospectionAuth(f"{ISSUER}/introspect", client_id="shop", client_secret="secret", **options)


def refused(option: str) -> str:
    """Return the text of the error for an Auth without ``option``."""
    consequence = "whose sub would count as that of your own user"
    remedy = f"set {option}, so that only tokens that name their issuer are accepted"
    return f"^{{}} accepts credentials without iss, {consequence}: {remedy}$"


# By name: the Auth, and the option without which a subject may be of any issuer.
AUTHS: dict[str, tuple[Auth[Any], str | None]] = {
    "a session": (SessionAuth(MemoryStore()), None),
    "own tokens": (JWTAuth(JWTConfig(key=jwk.OctKey.generate_key(256))), None),
    "tokens of a service of one's own": (JWTAuth(JWTConfig(key=PUBLIC)), None),
    "a provider": (OIDCAuth(issuer=ISSUER, audience="shop"), None),
    "opaque tokens of an issuer": (introspecting(issuer=ISSUER), None),
    "opaque tokens": (introspecting(), "issuer"),
    "fetched keys": (JWTAuth(JWTConfig(key=RemoteKeySet(f"{ISSUER}/jwks.json"), no_id_tokens=True)), "issuer_url"),
    "keys that are loaded later": (JWTAuth(JWTConfig(algorithms=["RS256"], no_id_tokens=True)), "issuer_url"),
}
EACH = pytest.mark.parametrize(("auth", "option"), AUTHS.values(), ids=AUTHS)


@EACH
def test_the_routes_of_a_user(clock: Clock, auth: Any, option: str | None) -> None:
    """An Auth whose claims may lack ``iss`` guards no route of a user, whether alone, among others, or for inviting."""
    shop = Shop(clock)
    both = AnyAuth(SessionAuth(MemoryStore(), name="other"), auth)
    for one in (auth, both):
        for build in (
            lambda one=one: accounts_router(shop.accounts, one),
            lambda one=one: accounts_router(shop.accounts, inviters=one.authenticated()),
            lambda one=one: factors_router(shop.login, one),
        ):
            if option is None:
                assert build().routes
            else:
                with pytest.raises(ConfigurationError, match=refused(option).format(auth.name)):
                    build()


@EACH
def test_the_routes_of_keys(auth: Any, option: str | None) -> None:
    """It guards the routes of API keys as the one source of subjects, and not beside another."""
    keys = DatabaseAPIKeyAuth(async_sessionmaker(create_async_engine("sqlite+aiosqlite://")))
    assert api_keys_router(keys, auth=auth).routes
    assert api_keys_router(keys, auth=AnyAuth(keys, auth)).routes
    both = AnyAuth(SessionAuth(MemoryStore(), name="other"), auth)
    if option is None:
        assert api_keys_router(keys, auth=both).routes
    else:
        with pytest.raises(ConfigurationError, match=refused(option).format(auth.name)):
            api_keys_router(keys, auth=both)
