"""The kinds of authentication that a configuration names: the settings of each, and the Auth that they make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jwk import OctKey

from fastapi_guard.api_key.entries import Entries
from fastapi_guard.api_key.static import StaticAPIKeyAuth
from fastapi_guard.auth import ScopesAuth
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.config import MAX_LEEWAY_SECONDS, JWTConfig
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.schemes import APIKeyScheme
from fastapi_guard.settings.reading import (
    Place,
    Reading,
    Schema,
    Setting,
    any_mapping,
    choice,
    choices,
    flag,
    mapping_of,
    scopes,
    table,
    text,
    text_or_texts,
    texts,
    whole,
)
from fastapi_guard.stores import MemoryStore

# What RFC 7518 3.2 asks of a secret.
_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}

Settings = Mapping[str, Any]
Given = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of authentication.

    Attributes:
        name: What it is called.
        told_by: The setting that tells it from the others.
        schema: Its settings.
        build: Makes the Auth.
        examine: Notes what the form of a setting does not show.
        needs: The collaborators without which there is no Auth.
    """

    name: str
    told_by: str
    schema: Schema
    build: Callable[[Settings, Given], ScopesAuth]
    examine: Callable[[Reading, Settings, Given], None]
    needs: tuple[str, ...] = ()


def _url(reading: Reading, place: Place, value: Any) -> str:
    url = text(reading, place, value)
    if url:
        _try(reading, place, check_url, url)
    return url


def _issuer(reading: Reading, place: Place, value: Any) -> str:
    url = _url(reading, place, value)
    if "?" in url or "{" in url:
        reading.note(place, "has a query, or a place to fill in: an issuer has neither")
    return url


def _lists(reading: Reading, place: Place, value: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = mapping_of(scopes)(reading, place, value)
    return found


def _try(reading: Reading, place: Place, make: Callable[[Any], object], value: object) -> None:
    try:
        make(value)
    except ConfigurationError as error:
        # Of one setting taken for another, the value is a secret.
        reading.note(place, str(error).replace(repr(value), "'...'"))


_WHAT_CLAIMS_GRANT: Final[Schema] = {
    "name": Setting(text),
    "roles": Setting(_lists),
    "role_claims": Setting(texts),
    "scope_claims": Setting(texts),
    "default_role": Setting(text),
}
_COMMON: Final[Schema] = {"kind": Setting(text), "header": Setting(text), **_WHAT_CLAIMS_GRANT}

_USER: Final[Schema] = {
    "password_hash": Setting(text, required=True),
    "subject_id": Setting(text),
    "subject_type": Setting(text),
    "tenant_id": Setting(text),
    "is_admin": Setting(flag),
    "scopes": Setting(scopes),
    "roles": Setting(scopes),
    "disabled": Setting(flag),
}

_PROVIDER: Final[Schema] = {
    "issuer": Setting(_issuer, required=True),
    "audience": Setting(text_or_texts, required=True),
    "jwks_uri": Setting(_url),
    "accept": Setting(choice("id", "access")),
    "algorithms": Setting(choices(*ASYMMETRIC)),
    "require": Setting(any_mapping),
    "leeway_seconds": Setting(whole(most=MAX_LEEWAY_SECONDS)),
    "cache_size": Setting(whole()),
}


def _chosen(source: Mapping[str, Any], *names: str, **renamed: str) -> dict[str, Any]:
    same = {name: source[name] for name in names if name in source}
    return same | {ours: source[theirs] for ours, theirs in renamed.items() if theirs in source}


def _options(settings: Settings, given: Given) -> dict[str, Any]:
    return _chosen(settings, *_WHAT_CLAIMS_GRANT) | _chosen(given, "on_event", "clock")


def _scheme(settings: Settings, given: Given) -> Any:
    return given.get("scheme") or (APIKeyScheme(settings["header"]) if "header" in settings else None)


def _examine_common(reading: Reading, settings: Settings, given: Given) -> None:
    if "header" in settings and "scheme" not in given:
        _try(reading, ("header",), APIKeyScheme, settings["header"])
    if "default_role" in settings and settings["default_role"] not in settings.get("roles", {settings["default_role"]}):
        reading.note(("default_role",), "is none of the roles")


def _examine_static(reading: Reading, settings: Settings, given: Given) -> None:
    _examine_common(reading, settings, given)
    if isinstance(settings.get("api_keys"), Mapping) and settings["api_keys"]:
        entries = Entries(reading.source, reading.lines)
        try:
            entries.read({"api_keys": settings["api_keys"]})
        except ConfigurationError as error:
            reading.mistakes += str(error).splitlines()


def _static(settings: Settings, given: Given) -> ScopesAuth:
    return StaticAPIKeyAuth(
        settings["api_keys"], _scheme(settings, given), given.get("scope_validator"), **_options(settings, given)
    )


def _examine_database(reading: Reading, settings: Settings, given: Given) -> None:
    from fastapi_guard.api_key.digest import Peppers  # noqa: PLC0415 - with the format, for this kind
    from fastapi_guard.api_key.format import KeyFormat  # noqa: PLC0415

    _examine_common(reading, settings, given)
    if "key_prefix" in settings:
        _try(reading, ("key_prefix",), KeyFormat, settings["key_prefix"])
    _try(reading, ("peppers",), Peppers, settings.get("peppers"))
    if settings.get("require_pepper") and not settings.get("peppers") and not Peppers.from_environment():
        reading.note(("require_pepper",), "refuses every key where there are no peppers")


def _database(settings: Settings, given: Given) -> ScopesAuth:
    from fastapi_guard.api_key.database import DatabaseAPIKeyAuth  # noqa: PLC0415 - needs an extra
    from fastapi_guard.api_key.digest import Peppers  # noqa: PLC0415

    return DatabaseAPIKeyAuth(
        given["session_factory"],
        _scheme(settings, given),
        given.get("scope_validator"),
        # Of the environment, as for the command line, which makes the keys.
        peppers=Peppers(settings["peppers"]) if "peppers" in settings else Peppers.from_environment(),
        **_chosen(settings, "require_pepper", "require_expiry", cache_ttl="cache_seconds", prefix="key_prefix"),
        **_chosen(given, "model", "event_model"),
        **_options(settings, given),
    )


def _jwt_config(settings: Settings) -> JWTConfig:
    return JWTConfig(
        key=OctKey.import_key(settings["jwt_secret"]),
        algorithms=[settings.get("algorithm", "HS256")],
        **_chosen(
            settings,
            "audience",
            "expiration_seconds",
            "leeway_seconds",
            "cache_size",
            issuer_url="issuer",
        ),
    )


def _examine_local(reading: Reading, settings: Settings, given: Given) -> None:
    _examine_common(reading, settings, given)
    length, needed = len(settings.get("jwt_secret", "").encode()), _SECRET_BYTES[settings.get("algorithm", "HS256")]
    if 0 < length < needed:  # joserfc would warn beside
        remedy = "use random ones: python -c 'import secrets; print(secrets.token_urlsafe(64))'"
        reading.note(("jwt_secret",), f"has {length} bytes, and {needed} are needed (RFC 7518 3.2): {remedy}")
    elif length:
        _try(reading, ("jwt_secret",), _jwt_config, _chosen(settings, "jwt_secret", "algorithm"))
    for username, user in settings.get("users", {}).items():
        if "hasher" not in given and user.get("password_hash") and not user["password_hash"].startswith("$"):
            reading.note(
                ("users", username, "password_hash"), "is no hash: make one with `fastapi-guard password hash`"
            )


def _local(settings: Settings, given: Given) -> ScopesAuth:
    from fastapi_guard.login.local import LocalAuth  # noqa: PLC0415 - needs extras
    from fastapi_guard.login.login import Login, LoginLimits  # noqa: PLC0415 - needs extras

    users = given.get("users", settings.get("users"))
    if not isinstance(users, Login):
        limits = _chosen(given, account="account_throttle", address="address_throttle")
        users = Login(
            users,
            MemoryStore(),
            name=settings.get("name", LocalAuth.name),
            limits=LoginLimits(**limits) if limits else None,
            **_chosen(settings, "trusted_proxies"),
            **_chosen(given, "on_event", "clock", passwords="hasher"),
        )
    return LocalAuth(
        _jwt_config(settings),
        users,
        _scheme(settings, given),
        given.get("scope_validator"),
        **_chosen(given, "refresh", "revocations"),
        **_options(settings, given),
    )


def _oidc(settings: Settings, given: Given) -> ScopesAuth:
    from fastapi_guard.issuers import OIDCAuth  # noqa: PLC0415 - needs an extra

    return OIDCAuth(
        scheme=_scheme(settings, given),
        scope_validator=given.get("scope_validator"),
        **{"accept": "id"} | _chosen(settings, *_PROVIDER),
        **_chosen(given, "client", "revocations"),
        **_options(settings, given),
    )


def _multi_oidc(settings: Settings, given: Given) -> ScopesAuth:
    from fastapi_guard.issuers import MultiOIDCAuth  # noqa: PLC0415 - needs an extra

    return MultiOIDCAuth(
        {name: {"accept": "id", **provider} for name, provider in settings["providers"].items()},
        _scheme(settings, given),
        given.get("scope_validator"),
        **_chosen(given, "client", "revocations"),
        **_options(settings, given),
    )


def _examine_providers(reading: Reading, settings: Settings, given: Given) -> None:
    _examine_common(reading, settings, given)
    issuers: dict[str, str] = {}
    for name, provider in settings.get("providers", {}).items():
        first = issuers.setdefault(provider.get("issuer") or name, name)
        if first != name:
            reading.note(("providers", name, "issuer"), f"is that of {first} too: name each issuer once")
    if settings.get("providers") == {} and not reading.mistakes:
        reading.note(("providers",), "is empty")


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            name="static",
            told_by="api_keys",
            schema={"api_keys": Setting(any_mapping, required=True), **_COMMON},
            build=_static,
            examine=_examine_static,
        ),
        Kind(
            name="database",
            told_by="key_prefix",
            schema={
                "key_prefix": Setting(text),
                "peppers": Setting(mapping_of(text)),
                "require_pepper": Setting(flag),
                "require_expiry": Setting(flag),
                "cache_seconds": Setting(whole()),
                **_COMMON,
            },
            build=_database,
            examine=_examine_database,
            needs=("session_factory",),
        ),
        Kind(
            name="local",
            told_by="jwt_secret",
            schema={
                "jwt_secret": Setting(text, required=True),
                "users": Setting(mapping_of(table(_USER)), required=True),
                "issuer": Setting(text),
                "audience": Setting(text_or_texts),
                "algorithm": Setting(choice("HS256", "HS384", "HS512")),
                "expiration_seconds": Setting(whole(1)),
                "leeway_seconds": Setting(whole(most=MAX_LEEWAY_SECONDS)),
                "cache_size": Setting(whole()),
                "trusted_proxies": Setting(whole()),
                **_COMMON,
            },
            build=_local,
            examine=_examine_local,
        ),
        Kind(name="oidc", told_by="issuer", schema={**_PROVIDER, **_COMMON}, build=_oidc, examine=_examine_common),
        Kind(
            name="multi-oidc",
            told_by="providers",
            schema={"providers": Setting(mapping_of(table(_PROVIDER)), required=True), **_COMMON},
            build=_multi_oidc,
            examine=_examine_providers,
        ),
    )
}
