"""create_auth: an Auth from configuration, so that what guards an application is decided where it is deployed."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from fastapi.security.base import SecurityBase
from pydantic import ValidationError

from fastapi_guard.api_key.entries import read_entries
from fastapi_guard.api_key.mistakes import Mistakes, from_json
from fastapi_guard.auth import ScopesAuth
from fastapi_guard.events import EventCallback
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.protocols import RevocationCheck
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.settings.kinds import KINDS, Kind, values_of
from fastapi_guard.settings.reading import Config, read
from fastapi_guard.stores import Store

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from fastapi_guard.api_key.models import APIKeyEventMixin, APIKeyMixin
    from fastapi_guard.login.login import Login
    from fastapi_guard.login.passwords import PasswordHasher
    from fastapi_guard.login.refresh import RefreshTokens
    from fastapi_guard.login.throttle import Throttle
    from fastapi_guard.login.users import Users


class Collaborators(TypedDict, total=False):
    """The objects that a configuration cannot contain. Each Auth gets those that it uses.

    Attributes:
        session_factory: Of the database of the API keys; the kind "database" needs it.
        model: See DatabaseAPIKeyAuth.
        event_model: See DatabaseAPIKeyAuth.
        usage: See DatabaseAPIKeyAuth.
        users: The users, in place of the setting; see LocalAuth. A Login has its own hasher and throttles.
        refresh: See LocalAuth.
        hasher: Hashes passwords; see Login.
        account_throttle: Limits the attempts for an account; see LoginLimits.
        address_throttle: Limits the attempts from an address.
        revocations: See JWTAuth.
        client: The HTTP client that fetches keys; see RemoteKeySet.
        scheme: Reads the credential, in place of the setting ``header``.
        scope_validator: Decides which scopes cover which.
        on_event: Called with each Event.
        clock: Seconds since the epoch.
    """

    session_factory: Callable[[], Any] | None
    model: "type[APIKeyMixin] | None"
    event_model: "type[APIKeyEventMixin] | None"
    usage: Store | None
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
    """Return the Auth of a kind and its configuration; ``None`` for the kind ``None``, in an application without one.

    Args:
        kind: ``static`` with ``api_keys``; ``database`` with the collaborator ``session_factory``; ``local`` with
            ``jwt_secret`` and ``users``; ``oidc`` with ``issuer`` and ``audience``; ``multi-oidc`` with ``providers``.
        config: A mapping or a settings model of pydantic, with ``SecretStr`` and ``HttpUrl`` or plain text; the path of
            a YAML or TOML file, in which ``${NAME}`` is an environment variable; or nothing for the environment, where
            ``FASTAPI_GUARD_JWT_SECRET`` is ``jwt_secret``, and values of other types are JSON.
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
    given = {name: value for name, value in collaborators.items() if value is not None}
    chosen = _kind_named(kind)
    mistakes, content = read(config, chosen.settings.model_fields)
    return _built(mistakes, chosen, _checked(mistakes, chosen, content, given), given)


def check_config(config: Config, kind: str | None = None, *, given: Collection[str] = ()) -> str:
    """Return the kind of a configuration without a mistake.

    Args:
        config: As for ``create_auth``.
        kind: Its kind, for a configuration that does not name it.
        given: The names of collaborators that the application will pass, such as ``users``.

    Raises:
        ConfigurationError: With a line for each mistake.
        MissingExtraError: It needs an extra that is not installed.
    """
    mistakes, content = read(config)
    named = kind or _kind_in(content)
    if named is None:
        mistakes.add(("kind",), f"is missing: one of {', '.join(KINDS)}")
        mistakes.refuse()
    chosen = _kind_named(str(named))
    expected = dict.fromkeys([*chosen.needs, *given])
    settings = _checked(mistakes, chosen, content, expected)
    if not expected:
        _built(mistakes, chosen, settings, {})
    return chosen.name


def _kind_named(kind: str) -> Kind:
    if not isinstance(kind, str) or kind not in KINDS:
        # Without the kind: it may be a secret in the wrong place.
        msg = f"there is no such kind of authentication: kind is one of {', '.join(KINDS)}"
        raise ConfigurationError(msg)
    return KINDS[kind]


def _kind_in(content: object) -> str | None:
    if not isinstance(content, Mapping):
        return None
    if content.get("kind") is not None:
        return str(content["kind"])
    return next((name for name, kind in KINDS.items() if kind.told_by in content), None)


def _checked(mistakes: Mistakes, kind: Kind, content: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    content = {} if content is None else content
    for name in kind.needs:
        if name not in given:
            mistakes.add((), f"{name} is required for {kind.name} authentication")
    settings = None
    try:
        settings = kind.settings.model_validate(content, context={"given": given})
    except ValidationError as error:
        mistakes.add_all(error, kind.settings)
    if isinstance(content, Mapping):
        for name in kind.either:
            if name not in given and content.get(name) is None:
                mistakes.add((name,), "is missing")
        if content.get("kind", kind.name) not in (None, kind.name):
            mistakes.add(("kind",), f"is not {kind.name}, which was requested")
        listed = from_json(dict)(content.get("api_keys"))
        if kind.told_by == "api_keys" and isinstance(listed, Mapping):
            read_entries(mistakes, {"api_keys": listed})
    mistakes.refuse()
    return {} if settings is None else values_of(settings)


def _built(mistakes: Mistakes, kind: Kind, settings: Mapping[str, Any], given: Mapping[str, Any]) -> ScopesAuth:
    try:
        return kind.build(settings, given)
    except (ConfigurationError, TypeError) as error:
        mistakes.add((), str(error))
    # Here, so that no traceback shows what the error quotes.
    raise ConfigurationError("\n".join(mistakes.found))
