"""create_auth: an Auth from configuration, so that what guards an application is decided where it is deployed."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack, overload

from fastapi.security.base import SecurityBase

from fastapi_guard.auth import ScopesAuth
from fastapi_guard.events import EventCallback
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.protocols import RevocationCheck
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.settings.kinds import KINDS, Kind
from fastapi_guard.settings.reading import MISSING, Reading, Setting, read, table

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from fastapi_guard.api_key.models import APIKeyEventMixin, APIKeyMixin
    from fastapi_guard.login.login import Login
    from fastapi_guard.login.passwords import PasswordHasher
    from fastapi_guard.login.refresh import RefreshTokens
    from fastapi_guard.login.throttle import Throttle
    from fastapi_guard.login.users import Users

Config: TypeAlias = Mapping[str, Any] | str | Path


class Collaborators(TypedDict, total=False):
    """What a configuration cannot hold. Each Auth takes those that it has a use for.

    Attributes:
        session_factory: Of the database of the API keys; the kind "database" needs it.
        model: See DatabaseAPIKeyAuth.
        event_model: See DatabaseAPIKeyAuth.
        users: Who can log in, in place of the setting; see LocalAuth. A Login has its own hasher and throttles.
        refresh: See LocalAuth.
        hasher: How passwords are hashed; see Login.
        account_throttle: How often an account may be tried; see LoginLimits.
        address_throttle: How often an address may try.
        revocations: See JWTAuth.
        client: The HTTP client that fetches keys; see RemoteKeySet.
        scheme: Where the credential comes from, in place of the setting ``header``.
        scope_validator: Which scopes cover which.
        on_event: Called with each Event.
        clock: Seconds since the epoch.
    """

    session_factory: Callable[[], Any] | None
    model: "type[APIKeyMixin] | None"
    event_model: "type[APIKeyEventMixin] | None"
    users: "Users | Mapping[str, Mapping[str, Any]] | Login | None"
    refresh: "RefreshTokens | None"
    hasher: "PasswordHasher | None"
    account_throttle: "Throttle | None"
    address_throttle: "Throttle | None"
    revocations: RevocationCheck | None
    client: "AsyncClient | None"
    scheme: SecurityBase | SchemeCallable | None
    scope_validator: ScopeValidator | None
    on_event: EventCallback | None
    clock: Callable[[], float] | None


@overload
def create_auth(kind: None, config: Config | None = None, **collaborators: Unpack[Collaborators]) -> None: ...
@overload
def create_auth(kind: str, config: Config | None = None, **collaborators: Unpack[Collaborators]) -> ScopesAuth: ...
@overload
def create_auth(
    kind: str | None, config: Config | None = None, **collaborators: Unpack[Collaborators]
) -> ScopesAuth | None: ...
def create_auth(
    kind: str | None, config: Config | None = None, **collaborators: Unpack[Collaborators]
) -> ScopesAuth | None:
    """Return the Auth of a kind and its configuration; ``None`` for none, where an application is open.

    Args:
        kind: ``static`` with ``api_keys``; ``database`` with the collaborator ``session_factory``; ``local`` with
            ``jwt_secret`` and ``users``; ``oidc`` with ``issuer`` and ``audience``; ``multi-oidc`` with ``providers``.
        config: A mapping; the path of a YAML or TOML file, in which ``${NAME}`` stands for an environment variable; or
            nothing for the environment, where ``FASTAPI_GUARD_JWT_SECRET`` is ``jwt_secret``, and what is no text is
            JSON.
        collaborators: See Collaborators.

    Raises:
        ConfigurationError: With a line for each mistake, which has its path and no value.
        MissingExtraError: The kind, or YAML, needs an extra that is not installed.
    """
    unknown = sorted(set(collaborators).difference(Collaborators.__annotations__))
    if unknown:
        msg = f"there is no collaborator {', '.join(unknown)}; there are {', '.join(Collaborators.__annotations__)}"
        raise ConfigurationError(msg)
    if kind is None:
        return None
    given = {name: each for name, each in collaborators.items() if each is not None}
    chosen = _kind_named(kind)
    reading, content = read(config, chosen.schema)
    settings = _checked(reading, chosen, content, given)
    return _built(reading, chosen, settings, given)


def check_config(config: Config, kind: str | None = None, *, given: Collection[str] = ()) -> str:
    """Return the kind of a configuration that has no mistake.

    Args:
        config: As for ``create_auth``.
        kind: Its kind, where no setting tells it.
        given: The names of collaborators that the application will pass, such as ``users``.

    Raises:
        ConfigurationError: With a line for each mistake.
        MissingExtraError: It needs an extra that is not installed.
    """
    reading, content = read(config)
    found = kind or _told_kind(content)
    if found is None:
        reading.note(("kind",), f"{MISSING}: one of {', '.join(KINDS)}")
        reading.refuse()
    chosen = _kind_named(str(found))
    expected = dict.fromkeys([*chosen.needs, *given])
    settings = _checked(reading, chosen, content, expected)
    if not expected:
        _built(reading, chosen, settings, {})
    return chosen.name


def _kind_named(kind: str) -> Kind:
    if kind not in KINDS:
        msg = f"there is no authentication of the kind {kind!r}: one of {', '.join(KINDS)}"
        raise ConfigurationError(msg)
    return KINDS[kind]


def _told_kind(content: object) -> str | None:
    if not isinstance(content, Mapping):
        return None
    if content.get("kind") is not None:
        return str(content["kind"])
    return next((kind for kind, each in KINDS.items() if each.told_by in content), None)


def _checked(reading: Reading, kind: Kind, content: object, given: Mapping[str, Any]) -> dict[str, Any]:
    for name in kind.needs:
        if name not in given:
            reading.note((), f"{name} is required for {kind.name} authentication")
    # What a collaborator brings need not be written down too.
    schema = {name: Setting(each.check, each.required and name not in given) for name, each in kind.schema.items()}
    settings: dict[str, Any] = table(schema)(reading, (), {} if content is None else content)
    if settings.get("kind", kind.name) != kind.name:
        reading.note(("kind",), f"is another than {kind.name}, which was asked for")
    kind.examine(reading, settings, given)
    reading.refuse()
    return settings


def _built(reading: Reading, kind: Kind, settings: Mapping[str, Any], given: Mapping[str, Any]) -> ScopesAuth:
    try:
        return kind.build(settings, given)
    except (ConfigurationError, TypeError) as error:
        reading.note((), str(error))
        reading.refuse()
        raise  # pragma: no cover - refuse() raised
