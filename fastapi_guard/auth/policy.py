"""Rules about a principal: a user, an owned object, a yes or no, a recent login, as FastAPI dependencies.

A loader or a policy gets the principal, and whatever else its parameters request from FastAPI. Its dependency resolves
the principal first, so that an anonymous caller is refused before anything is loaded.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, TypeAlias

from fastapi import HTTPException, params
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from fastapi_guard.auth.conversion import Callee, Dependency, loadable, name_of
from fastapi_guard.auth.decision import Decision
from fastapi_guard.auth.guard import rule_of
from fastapi_guard.callables import is_async
from fastapi_guard.exceptions import ConfigurationError, Forbidden
from fastapi_guard.scopes import Scope
from fastapi_guard.stores.arguments import check_flags, function_of
from fastapi_guard.stores.bounds import whole_seconds_of

Owner: TypeAlias = str | Callable[[Any], object]
# Returns the refusal for a principal, ``None`` where it passes: (decision of the Auth that verified it, connection,
# principal).
Check: TypeAlias = Callable[[Decision[Any], HTTPConnection, Any], HTTPException | None]

# How far a clock may be ahead of ours.
_AHEAD_SECONDS = 60


def checking(check: Check, guard: params.Depends, decision: Decision[Any]) -> Dependency:
    """Return the dependency that returns the principal where ``check`` returns no refusal."""

    async def checked(connection: HTTPConnection, claims: Annotated[Any, guard]) -> Any:
        decider = decision.decider(connection)
        refusal = check(decider, connection, claims)
        if refusal is not None:
            decider.refusals.refuse(connection, refusal, claims, requirement=rule_of(checked))
        return claims

    return checked


def recent(max_age: int | timedelta) -> tuple[Check, str]:
    """Return the check for a login at most ``max_age`` seconds ago (RFC 9470), and its text.

    Raises:
        ConfigurationError: ``max_age`` is not a number of whole seconds.
    """
    seconds = whole_seconds_of("max_age", max_age)

    def check(decision: Decision[Any], _: HTTPConnection, principal: Any) -> HTTPException | None:
        passes = is_recent(principal, seconds, decision.now())
        return None if passes else decision.refusals.stale_login(max_age=seconds)

    return check, f"login within {seconds} s"


def with_factor(factor: str, max_age: int | timedelta | None, acr_values: str | None) -> tuple[Check, str]:
    """Return the check for a login with ``factor``, and its text (RFC 9470).

    Args:
        factor: An authentication method of RFC 8176.
        max_age: The greatest age of the factor in seconds; ``None`` for any.
        acr_values: The authentication contexts that the challenge names.

    Raises:
        ConfigurationError: ``factor`` is empty, or ``max_age`` is not a number of whole seconds.
    """
    seconds = None if max_age is None else whole_seconds_of("max_age", max_age)
    if not isinstance(factor, str) or not factor:
        msg = f'factor is the name of an authentication method (RFC 8176), such as "otp", not {factor!r}'
        raise ConfigurationError(msg)

    def check(decision: Decision[Any], _: HTTPConnection, principal: Any) -> HTTPException | None:
        passes = used_factor(principal, factor, seconds, decision.now())
        return None if passes else decision.refusals.stale_login(max_age=seconds, acr_values=acr_values)

    return check, f"factor {factor}" + ("" if seconds is None else f" within {seconds} s")


def loading(load: Callable[..., Any], guard: params.Depends, decision: Decision[Any]) -> Dependency:
    """Return the dependency that returns what ``load`` returns for the principal; ``None`` is refused.

    Raises:
        ConfigurationError: ``load`` cannot be a dependency.
    """
    loader = Callee(load, "a loader")
    call, name = loader.call, loader.principal

    async def load_user(guarded_connection_: HTTPConnection, _guarded_scopes: SecurityScopes, **values: Any) -> Any:
        found = await call(**values)
        if found is None or found is False:
            refusals = decision.decider(guarded_connection_).refusals
            refusal = refusals.unknown_user()
            refusals.refuse(guarded_connection_, refusal, values.get(name), requirement=rule_of(load_user))
        return found

    return loader.sign(load_user, guard)


def allowing(policy: Callable[..., Any], guard: params.Depends, decision: Decision[Any]) -> Dependency:
    """Return the dependency that returns the principal where ``policy`` is ``True``; anything false is refused.

    Raises:
        ConfigurationError: ``policy`` cannot be a dependency.
    """
    callee = Callee(policy, "a policy")
    call, name = callee.call, callee.principal

    async def allow(guarded_connection_: HTTPConnection, _guarded_scopes: SecurityScopes, **values: Any) -> Any:
        answer = await call(**values)
        if answer is not True:
            if answer:
                # A coroutine, a mock or a query that was never executed is true as well.
                msg = f"the policy {name_of(policy)} returned {type(answer).__name__}: return True or False"
                raise TypeError(msg)
            refusals = decision.decider(guarded_connection_).refusals
            refusal = Forbidden(reason="policy")
            refusals.refuse(guarded_connection_, refusal, values[name], requirement=rule_of(allow))
        return values[name]

    return callee.sign(allow, guard)


class Ownership:
    """The rule of an owned object: its owner, or a caller with a scope.

    Attributes:
        owner: The attribute or the key that holds the owner, or a callable that returns the owner.
        or_scope: The scope that stands in for ownership.
        hide: Whether another user's object is a 404, and not a 403.
    """

    def __init__(self, owner: Owner, or_scope: Scope | None, *, hide: bool) -> None:
        """Refuse an owner that names nothing, or is async, and a ``hide`` that is not a bool.

        Raises:
            ConfigurationError: One of these.
        """
        check_flags(hide=hide)
        if not (callable(owner) or (isinstance(owner, str) and owner)):
            msg = f"owner is the name of an attribute or a key, or a callable that returns it, not {owner!r}"
            raise ConfigurationError(msg)
        if not isinstance(owner, str):
            function_of("owner", owner, "of what the loader returned", "loaded")
        if callable(owner) and is_async(owner):
            # Its coroutine equals no sub: a 403 for every caller.
            msg = f"{name_of(owner)} is async: owner reads the owner from what the loader returned; await there"
            raise ConfigurationError(msg)
        self.owner: Owner = owner
        self.or_scope: Scope | None = or_scope
        self.hide: bool = hide

    def __str__(self) -> str:
        """Return the rule in words."""
        owner = self.owner if isinstance(self.owner, str) else name_of(self.owner)
        rule = owner if self.or_scope is None else f"{owner} or {self.or_scope}"
        return f"{rule}, else 404" if self.hide else rule


def owning(
    load: Callable[..., Any], guard: params.Depends, decision: Decision[Any], ownership: Ownership
) -> Dependency:
    """Return the dependency that returns the object that ``load`` returns to its owner, and to who has the scope.

    Raises:
        ConfigurationError: ``load`` cannot be a dependency.
    """

    async def own(
        connection: HTTPConnection,
        principal: Annotated[Any, guard],
        found: Annotated[Any, params.Depends(loadable(load, guard))],
        _guarded_scopes: SecurityScopes,
    ) -> Any:
        if found is None:
            raise HTTPException(404)
        if not is_subject(_owner_of(found, ownership.owner, name_of(load)), principal):
            decider, scope = decision.decider(connection), ownership.or_scope
            if scope is None or not decider.covers(decision.grants(connection, principal), scope):
                error = HTTPException(404) if ownership.hide else Forbidden(reason="not_owner")
                decider.refusals.refuse(connection, error, principal, requirement=rule_of(own))
        return found

    return own


def is_subject(owner: object, principal: object) -> bool:
    """Return whether ``owner`` is the ``sub`` of ``principal``, compared as text. No owner equals no ``sub``."""
    subject = principal.get("sub") if isinstance(principal, Mapping) else None
    if any(one is None or isinstance(one, bool | bytes) for one in (owner, subject)):
        return False
    return str(owner) == str(subject) != ""


def is_recent(principal: object, max_age: int, now: float) -> bool:
    """Return whether the login of ``principal``, its ``auth_time``, is at most ``max_age`` seconds ago.

    An ``auth_time`` that is missing or not a number is not recent (RFC 9470 6.1).
    """
    moment = principal.get("auth_time") if isinstance(principal, Mapping) else None
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        return False
    # Nothing is taken from ``now``, which is a float: a whole number of JSON may be larger than any.
    return moment - _AHEAD_SECONDS <= now <= moment + max_age


def used_factor(principal: object, factor: str, max_age: int | None, now: float) -> bool:
    """Return whether the login of ``principal`` used ``factor``, at most ``max_age`` seconds ago where that is set.

    ``amr`` is the list of methods (RFC 8176), ``factors`` the moment of each in seconds since the epoch.
    """
    if not isinstance(principal, Mapping):
        return False
    methods, moments = principal.get("amr"), principal.get("factors")
    if not isinstance(methods, list | tuple) or factor not in methods:
        return False
    if max_age is None:
        return True
    return isinstance(moments, Mapping) and is_recent({"auth_time": moments.get(factor)}, max_age, now)


def _owner_of(found: Any, owner: Owner, loader: str) -> object:
    if not isinstance(owner, str):
        return owner(found)
    try:
        return found[owner] if isinstance(found, Mapping) else getattr(found, owner)
    except (KeyError, AttributeError) as error:
        msg = f"owner={owner!r} names neither a key nor an attribute of what {loader} returned: {type(found).__name__}"
        raise ConfigurationError(msg) from error
