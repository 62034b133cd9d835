"""Claims of logout tokens: what ends sessions is what OpenID Connect Back-Channel Logout 2.4 and 2.6 say."""

import json
from math import isfinite
from typing import Any

from fastapi_guard import Unauthorized
from fastapi_guard.jwt.compact import MalformedToken, decode_object
from fastapi_guard.login.providers.logout import LogoutTokens
from fastapi_guard.login.providers.openid import OpenIDProvider

NOW = 1_300_819_380
LEEWAY = 10
EVENT = "http://schemas.openid.net/event/backchannel-logout"
TYPES = (None, "JWT", "logout+jwt", "application/logout+jwt", "at+jwt", "secevent+jwt")


def rules() -> Any:
    """Return the rules as they are now: a test may have taken a check out."""
    tokens = LogoutTokens(OpenIDProvider("acme", "https://id.example", "shop"))
    return tokens._claim_rules(tokens.config)


def is_moment(claims: dict[str, Any], name: str) -> bool:
    """Return whether a claim is left out or a number of JSON that is finite."""
    value = claims.get(name, 0)
    return type(value) in (int, float) and isfinite(value)


def is_text(claims: dict[str, Any], name: str) -> bool:
    """Return whether a claim is left out or a text that is not empty."""
    value = claims.get(name, "some")
    return isinstance(value, str) and value != ""


def is_timely(claims: dict[str, Any]) -> bool:
    """Return whether it is valid now."""
    if not all(is_moment(claims, name) for name in ("exp", "nbf", "iat")):
        return False
    begins = max(claims.get("nbf", NOW), claims.get("iat", NOW))
    return begins - LEEWAY <= NOW < claims.get("exp", NOW + 1) + LEEWAY


def is_for_us(claims: dict[str, Any]) -> bool:
    """Return whether the provider issued it for this client."""
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    texts = all(isinstance(name, str) for name in listed)
    return claims.get("iss") == "https://id.example" and texts and "shop" in listed


def is_right(claims: dict[str, Any], typ: str | None) -> bool:
    """Return whether it is a logout token for this client, read slowly."""
    named = isinstance(claims.get("sid"), str) and claims["sid"] != ""
    events = claims.get("events")
    return (
        (typ is None or typ.lower().removeprefix("application/") in ("jwt", "logout+jwt"))
        and all(is_text(claims, name) for name in ("iss", "sub", "jti"))
        and is_timely(claims)
        and is_for_us(claims)
        and isinstance(events, dict)
        and isinstance(events.get(EVENT), dict)
        and "nonce" not in claims
        and {"iat", "jti"} <= claims.keys()
        and (named or claims.get("sid") is None)
        and (named or "sub" in claims)
        and not ("htm" in claims and "htu" in claims)
    )


async def check(raw: bytes) -> None:
    """Claims are accepted by the rules where the slow reading accepts them; the first byte chooses a type."""
    typ = TYPES[raw[0] % len(TYPES)] if raw else None
    try:
        claims = decode_object(raw[1:])
    except MalformedToken:
        return
    checked = rules()
    try:
        checked.check_type(typ)
        checked.check_times(claims, NOW)
        checked.check(claims, typ)
    except Unauthorized:
        accepted = False
    else:
        accepted = True
    assert accepted == is_right(claims, typ), json.dumps([typ, claims])
