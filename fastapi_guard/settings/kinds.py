"""The kinds of authentication that a configuration names: the settings of each, and the Auth that they make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from joserfc.jwk import OctKey
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationInfo, field_validator

from fastapi_guard.api_key.digest import Peppers
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.api_key.mistakes import Flag, ScopeList, Settings, Table, Text, Texts, from_json
from fastapi_guard.api_key.static import StaticAPIKeyAuth
from fastapi_guard.auth import ScopesAuth
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.config import MAX_LEEWAY_SECONDS, JWTConfig
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.schemes import APIKeyScheme
from fastapi_guard.stores import MemoryStore

# The length of a secret by RFC 7518 3.2.
_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}

Given = Mapping[str, Any]


def _require(condition: bool, mistake: str) -> None:  # noqa: FBT001 - a statement, as assert is
    if not condition:
        raise ValueError(mistake)


def _whole(least: int = 0, most: int | None = None) -> BeforeValidator:
    def check(value: Any) -> Any:
        value = from_json(int)(value)
        is_within = type(value) is int and least <= value and (most is None or value <= most)
        _require(is_within, f"is a whole number from {least} {'on' if most is None else f'to {most}'}")
        return value

    return BeforeValidator(check)


def _issuer(url: str) -> str:
    check_url(url)
    _require("?" not in url and "{" not in url, "has a query, or a place to fill in: an issuer has neither")
    return url


def _asymmetric(name: str) -> str:
    _require(name in ASYMMETRIC, f"is one of {', '.join(ASYMMETRIC)}")
    return name


def _header(name: str, info: ValidationInfo) -> str:
    try:
        APIKeyScheme(name)
    except ConfigurationError:
        # Where one setting was taken for another, the value is a secret.
        _require("scheme" in _given(info), "cannot be the name of a header")
    return name


def _given(info: ValidationInfo) -> Given:
    given: Given = (info.context or {}).get("given", {})
    return given


Size = Annotated[int, _whole()]
Leeway = Annotated[int, _whole(most=MAX_LEEWAY_SECONDS)]
Algorithms = Annotated[list[Annotated[Text, AfterValidator(_asymmetric)]], *Texts.__metadata__]


class Common(Settings):
    """The settings of every kind."""

    kind: Text | None = None
    header: Annotated[Text, AfterValidator(_header)] | None = None
    name: Text | None = None
    roles: Annotated[dict[Text, ScopeList], Table] | None = None
    role_claims: Texts | None = None
    scope_claims: Texts | None = None
    default_role: Text | None = None

    @field_validator("default_role")
    @classmethod
    def _check_role(cls, role: str, info: ValidationInfo) -> str:
        _require(role in (info.data.get("roles") or {role}), "is not one of the roles")
        return role


class StaticSettings(Common):
    """Keys in the configuration; what each stands for is checked by ``read_entries``."""

    api_keys: Annotated[dict[Any, Any], Table]


class DatabaseSettings(Common):
    """Keys in a database."""

    key_prefix: Annotated[Text, AfterValidator(lambda prefix: KeyFormat(prefix).prefix)] | None = None
    peppers: Annotated[Any, AfterValidator(Peppers), Table] = None
    require_pepper: Flag = False
    require_expiry: Flag = False
    cache_seconds: Size | None = None

    @field_validator("require_pepper")
    @classmethod
    def _check_peppers(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - as pydantic calls it
        has_peppers = "peppers" not in info.data or info.data["peppers"] or Peppers.from_environment()
        _require(not value or bool(has_peppers), "rejects every key where there are no peppers")
        return value


class UserSettings(Settings):
    """A user with a password."""

    password_hash: Text
    subject_id: Text | None = None
    subject_type: Text | None = None
    tenant_id: Text | None = None
    is_admin: Flag | None = None
    scopes: ScopeList | None = None
    roles: ScopeList | None = None
    disabled: Flag | None = None

    @field_validator("password_hash")
    @classmethod
    def _check_hash(cls, value: str, info: ValidationInfo) -> str:
        is_hash = value.startswith("$") or "hasher" in _given(info)
        _require(is_hash, "is not a hash: make one with `fastapi-guard password hash`")
        return value


class LocalSettings(Common):
    """Users with passwords, and tokens that are signed with a secret."""

    algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    jwt_secret: Text
    users: Annotated[dict[Text, UserSettings], Table] | None = None
    issuer: Text | None = None
    audience: Texts | None = None
    expiration_seconds: Annotated[int, _whole(1)] | None = None
    leeway_seconds: Leeway | None = None
    cache_size: Size | None = None
    trusted_proxies: Size | None = None

    @field_validator("jwt_secret")
    @classmethod
    def _check_secret(cls, secret: str, info: ValidationInfo) -> str:
        algorithm = info.data.get("algorithm", "HS256")
        length, needed = len(secret.encode()), _SECRET_BYTES[algorithm]
        remedy = "use random ones: python -c 'import secrets; print(secrets.token_urlsafe(64))'"
        # joserfc would warn beside.
        _require(length >= needed, f"has {length} bytes, and {needed} are needed (RFC 7518 3.2): {remedy}")
        JWTConfig(key=OctKey.import_key(secret), algorithms=[algorithm])
        return secret


class ProviderSettings(Settings):
    """An OpenID provider."""

    issuer: Annotated[Text, AfterValidator(_issuer)]
    audience: Texts
    jwks_uri: Annotated[Text, AfterValidator(check_url)] | None = None
    accept: Literal["id", "access"] = "id"
    algorithms: Algorithms | None = None
    require: Annotated[dict[Text, Any], Table] | None = None
    leeway_seconds: Leeway | None = None
    cache_size: Size | None = None


class OIDCSettings(Common, ProviderSettings):
    """One OpenID provider."""


class MultiOIDCSettings(Common):
    """Several OpenID providers, each by a name."""

    providers: Annotated[dict[Text, ProviderSettings], Field(min_length=1), Table]

    @field_validator("providers")
    @classmethod
    def _check_issuers(cls, providers: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        issuers = [provider.issuer for provider in providers.values()]
        twice = [name for name, provider in providers.items() if issuers.count(provider.issuer) > 1]
        _require(not twice, f"{' and '.join(twice)} have the same issuer: name each issuer once")
        return providers


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of authentication.

    Attributes:
        name: Its name.
        told_by: The setting that distinguishes it from the others.
        settings: The model of its settings.
        build: Makes the Auth of the settings that are there, and of collaborators.
        needs: The collaborators without which there is no Auth.
        either: The settings that are required unless there is a collaborator of that name.
    """

    name: str
    told_by: str
    settings: type[Common]
    build: Callable[[Mapping[str, Any], Given], ScopesAuth]
    needs: tuple[str, ...] = ()
    either: tuple[str, ...] = ()


def values_of(settings: BaseModel) -> dict[str, Any]:
    """Return the settings that are there, and not just a default of the model."""
    return {name: _value(getattr(settings, name)) for name in settings.model_fields_set}


def _value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return values_of(value)
    return {name: _value(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def _chosen(source: Mapping[str, Any], *names: str, **renamed: str) -> dict[str, Any]:
    same = {name: source[name] for name in names if name in source}
    return same | {ours: source[theirs] for ours, theirs in renamed.items() if theirs in source}


def _options(settings: Mapping[str, Any], given: Given) -> dict[str, Any]:
    granting = _chosen(settings, "name", "roles", "role_claims", "scope_claims", "default_role")
    return {"scope_validator": given.get("scope_validator"), **granting, **_chosen(given, "on_event", "clock")}


def _scheme(settings: Mapping[str, Any], given: Given) -> Any:
    return given.get("scheme") or (APIKeyScheme(settings["header"]) if "header" in settings else None)


def _static(settings: Mapping[str, Any], given: Given) -> ScopesAuth:
    return StaticAPIKeyAuth(settings["api_keys"], _scheme(settings, given), **_options(settings, given))


def _database(settings: Mapping[str, Any], given: Given) -> ScopesAuth:
    from fastapi_guard.api_key.database import DatabaseAPIKeyAuth  # noqa: PLC0415 - needs an extra

    return DatabaseAPIKeyAuth(
        given["session_factory"],
        _scheme(settings, given),
        # Of the environment, as for the command line, which makes the keys.
        peppers=settings.get("peppers") or Peppers.from_environment(),
        **_chosen(settings, "require_pepper", "require_expiry", cache_ttl="cache_seconds", prefix="key_prefix"),
        **_chosen(given, "model", "event_model", "usage"),
        **_options(settings, given),
    )


def _local(settings: Mapping[str, Any], given: Given) -> ScopesAuth:
    from fastapi_guard.login.local import LocalAuth  # noqa: PLC0415 - needs extras
    from fastapi_guard.login.login import Login, LoginLimits  # noqa: PLC0415 - needs extras

    config = JWTConfig(
        key=OctKey.import_key(settings["jwt_secret"]),
        algorithms=[settings.get("algorithm", "HS256")],
        **_audience(settings),
        **_chosen(settings, "expiration_seconds", "leeway_seconds", "cache_size", issuer_url="issuer"),
    )
    users = given.get("users", settings.get("users"))
    if isinstance(users, Login):
        lost = [name for name in ("trusted_proxies",) if name in settings]
        lost += [name for name in ("hasher", "account_throttle", "address_throttle") if name in given]
        if lost:
            msg = f"users is a Login, which has its own: pass {', '.join(lost)} to the Login"
            raise ConfigurationError(msg)
    else:
        limits = _chosen(given, account="account_throttle", address="address_throttle")
        users = Login(
            users,
            MemoryStore(),
            name=settings.get("name", LocalAuth.name),
            limits=LoginLimits(**limits) if limits else None,
            **_chosen(settings, "trusted_proxies"),
            **_chosen(given, "on_event", "clock", passwords="hasher"),
        )
    collaborators = _chosen(given, "refresh", "revocations")
    return LocalAuth(config, users, _scheme(settings, given), **collaborators, **_options(settings, given))


def _audience(settings: Mapping[str, Any]) -> dict[str, Any]:
    # The audience of a token is a text where there is one (RFC 7519 4.1.3).
    found = settings.get("audience", ())
    return {"audience": found[0] if len(found) == 1 else found} if found else {}


def _provider(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"accept": "id", **_chosen(settings, *ProviderSettings.model_fields), **_audience(settings)}


def _oidc(settings: Mapping[str, Any], given: Given) -> ScopesAuth:
    from fastapi_guard.issuers import OIDCAuth  # noqa: PLC0415 - needs an extra

    collaborators = _chosen(given, "client", "revocations")
    scheme = _scheme(settings, given)
    return OIDCAuth(scheme=scheme, **_provider(settings), **collaborators, **_options(settings, given))


def _multi_oidc(settings: Mapping[str, Any], given: Given) -> ScopesAuth:
    from fastapi_guard.issuers import MultiOIDCAuth  # noqa: PLC0415 - needs an extra

    providers = {name: _provider(provider) for name, provider in settings["providers"].items()}
    collaborators = _chosen(given, "client", "revocations")
    return MultiOIDCAuth(providers, _scheme(settings, given), **collaborators, **_options(settings, given))


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("static", "api_keys", StaticSettings, _static),
        Kind("database", "key_prefix", DatabaseSettings, _database, needs=("session_factory",)),
        Kind("local", "jwt_secret", LocalSettings, _local, either=("users",)),
        Kind("oidc", "issuer", OIDCSettings, _oidc),
        Kind("multi-oidc", "providers", MultiOIDCSettings, _multi_oidc),
    )
}
