"""Issue tokens: complete a payload by the rules of a JWTConfig, check it, and sign it (RFC 7519 4.1)."""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import shown
from fastapi_guard.jwt.compact import encode_base64url, encode_object
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.rules import ACCESS_TOKEN_CLAIMS


def complete(config: JWTConfig, payload: Mapping[str, Any], expires_in: float | timedelta | None, now: int) -> Claims:
    """Return ``payload`` with what it does not have of ``iat``, ``iss``, ``aud``, ``exp`` and ``jti``.

    Args:
        config: Where these come from.
        payload: The claims; it is not changed. Times are seconds since the epoch or aware datetimes.
        expires_in: The lifetime in seconds or as timedelta, by default that of the configuration.
        now: When the token is issued, in seconds since the epoch.

    Raises:
        TypeError: The payload is not a mapping.
        ValueError: A claim is not as RFC 7519 4.1, or the profile of the configuration, wants it.
    """
    try:
        items = payload.items()
    except AttributeError:
        msg = f'the payload is a mapping of claims, such as {{"sub": "ada"}}, not {shown(payload)}'
        raise TypeError(msg) from None
    claims = {name: _timestamp(name, value) for name, value in items}
    claims.setdefault("iat", now)
    if config.issuer_url is not None:
        claims.setdefault("iss", config.issuer_url)
    audience: Any = config.audience
    if audience is not None:
        claims.setdefault("aud", audience if isinstance(audience, str) else list(audience))
    lifetime = config.expiration_seconds if expires_in is None else expires_in
    if lifetime is not None:
        claims.setdefault("exp", _issued_at(claims, now) + _seconds(lifetime))
    claims.setdefault("jti", secrets.token_urlsafe(16))
    _check_issuable(claims, config.profile)
    return claims


def sign(config: JWTConfig, claims: Claims, *, binds: bool) -> str:
    """Return ``claims`` as a token, signed with the first key.

    Args:
        config: The key, the header, and how large a token may be.
        claims: All of them.
        binds: Whether proofs of possession are checked, so that a token may be bound to a key by ``cnf``.

    Raises:
        ConfigurationError: There is no private key.
        TypeError: A claim is nothing that JSON has.
        ValueError: The token would be refused for what it is.
    """
    algorithm, key, kid = config.signing_key()
    if "cnf" in claims and not binds:
        msg = "a token with cnf is bound to a key, and refused as a plain bearer token (RFC 9449 7.2)"
        raise ValueError(msg)
    signing_input = encode_object(config.issued_header(algorithm.name, kid)) + b"." + encode_object(claims)
    token = signing_input + b"." + encode_base64url(algorithm.sign(signing_input, key))
    if len(token) > config.max_token_bytes:
        msg = f"the token has {len(token)} bytes, more than max_token_bytes: put less into it"
        raise ValueError(msg)
    return token.decode("ascii")


def _seconds(expires_in: float | timedelta) -> int:
    seconds = expires_in.total_seconds() if isinstance(expires_in, timedelta) else expires_in
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or (isinstance(seconds, float) and not isfinite(seconds)):
        msg = f"expires_in is a finite number of seconds, or a timedelta, not {shown(expires_in)}"
        raise ValueError(msg)
    return int(seconds)


def _issued_at(claims: Claims, now: int) -> float:
    # A payload may bring its own iat, with a fraction; what is wrong with it is reported by _check_issuable.
    issued: float = claims["iat"] if _is_moment(claims["iat"]) else now
    return int(issued) if issued == int(issued) else issued


def _is_moment(value: Any) -> bool:
    try:
        return type(value) in (int, float) and isfinite(value)
    except OverflowError:  # an int beyond the largest float
        return False


def _check_issuable(claims: Claims, profile: str | None) -> None:
    missing = ACCESS_TOKEN_CLAIMS.difference(claims) if profile is not None else ()
    if missing:
        msg = f"an access token of RFC 9068 has {', '.join(sorted(missing))} too"
        raise ValueError(msg)
    if not all(isinstance(name, str) for name in claims):
        msg = "the name of a claim is text"
        raise ValueError(msg)
    for name in ("sub", "jti", "iss", "client_id"):
        value = claims.get(name, "-")
        if not isinstance(value, str) or not value:
            msg = f"{name} is a non-empty string (RFC 7519 4.1), such as str(user.id), not {type(value).__name__}"
            raise ValueError(msg)
    audience = claims.get("aud", "-")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list | tuple) or not named or not all(isinstance(name, str) and name for name in named):
        msg = "aud is a non-empty string, or a list of such (RFC 7519 4.1.3)"
        raise ValueError(msg)
    for name in ("exp", "nbf", "iat"):
        if not _is_moment(claims.get(name, 0)):
            msg = f"{name} is a finite number of seconds since the epoch, or an aware datetime (RFC 7519 4.1)"
            raise ValueError(msg)


def _timestamp(name: str, value: object) -> object:
    if name in ("exp", "nbf", "iat") and isinstance(value, datetime):
        if value.tzinfo is None:
            msg = f"{name} is a datetime without a time zone: use datetime.now(UTC)"
            raise ValueError(msg)
        return int(value.timestamp())
    return value
