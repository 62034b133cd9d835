"""Guard: what FastAPI calls for an Auth, and what OpenAPI sees of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth.decision import Decided, Decision, PrincipalT, Verified
from fastapi_guard.auth.placement import Placed
from fastapi_guard.exceptions import Unauthorized
from fastapi_guard.schemes import Scheme, SchemeCallable

if TYPE_CHECKING:
    from fastapi_guard.auth.auth import Auth

CallT = TypeVar("CallT", bound=Callable[..., Any])

# Where configure_app keeps, in the scope of a connection, whether a 401 names the scopes of the route.
NAME_SCOPES: Final = "fastapi_guard.name_scopes"
# What a dependency around a guard requires, in words, and the statuses that it answers beside those of a guard.
_RULE: Final = "fastapi_guard_rule"
_ANY_OF: Final = "any of "
_COMMA: Final = ", "
_STATUSES: Final = "fastapi_guard_statuses"
_LASTS: Final = "fastapi_guard_lasts"
_PATH_PARAM: Final = "fastapi_guard_path_param"


class Guard(Placed, Generic[PrincipalT]):
    """The callable that FastAPI calls for an Auth. An Auth makes its guards once.

    It defines no ``__eq__``: equal callables would share FastAPI's cache, and the result of one guard would be taken
    for the result of another.

    Attributes:
        auth: The Auth whose guard it is.
        decision: How the Auth decides, with its memo.
        optional: Whether a request without a credential passes, with ``None``.
        ignore_invalid: Whether an invalid credential counts as none.
        is_flat: Whether it needs the connection alone, and nothing that FastAPI resolves.
        ignored: The names of parameters whose schemes do not count, though FastAPI resolves them.
    """

    is_flat: bool = True
    ignored: frozenset[str] = frozenset()

    def __init__(self, decision: Decision[PrincipalT], *, optional: bool = False, ignore_invalid: bool = False) -> None:
        """Guard by ``decision``."""
        self.auth: Auth[PrincipalT] = decision.auth
        self.decision = decision
        self.optional = optional
        self.ignore_invalid = ignore_invalid
        decision.guards.append(self)

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> PrincipalT | None:
        """Admit the connection, as FastAPI's dependency."""
        decided = self.decision.recall(connection)
        if decided is None:
            decided = await self.decision.decide(connection)
        return self.admit(connection, decided, security_scopes.scopes)

    def admit(self, connection: HTTPConnection, decided: Decided, scopes: Sequence[str]) -> PrincipalT | None:
        """Return the principal, or report the refusal and raise it; ``None`` only where the guard is optional.

        Raises:
            AuthError: The refusal.
        """
        if isinstance(decided, Verified):
            if scopes:
                check_scopes(connection, decided, scopes)
            principal: PrincipalT = decided.principal
            return principal
        if self.ignore_invalid and isinstance(decided, Unauthorized):
            decided = None
        if decided is None:
            # An optional guard does not waive the scopes that an enclosing dependency requires.
            if self.optional and not scopes:
                return None
            named = connection.scope.get(NAME_SCOPES)
            is_named = self.decision.refusals.scheme.names_scopes if named is None else named
            needed = required_scopes(connection.scope, self.auth, scopes) if is_named else ()
            decided = self.decision.refusals.missing(needed)
        return self.decision.refusals_of(decided).refuse(connection, decided)

    @property
    def checks_presence_only(self) -> bool:
        """Whether any credential at all passes, because nothing verifies it."""
        return self.decision.checks_presence_only

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The schemes that it extracts from by itself, each an alternative; FastAPI resolves others below it."""
        return (self.auth.scheme,)


class FlatGuard(Guard[PrincipalT], SecurityBase):
    """Extraction, verification and scope check in one callable, which OpenAPI sees as the scheme itself."""

    def __init__(self, decision: Decision[PrincipalT], *, optional: bool = False, ignore_invalid: bool = False) -> None:
        """Carry the OpenAPI description of the scheme."""
        super().__init__(decision, optional=optional, ignore_invalid=ignore_invalid)
        self.model: SecurityModel = self.auth.scheme.model
        self.scheme_name: str = self.auth.scheme.scheme_name


def resolving_guard(scheme: SchemeCallable) -> type[Guard[Any]]:
    """Return the kind of guard that has FastAPI resolve ``scheme``."""

    class ResolvingGuard(Guard[PrincipalT]):
        """A guard whose scheme FastAPI resolves first, as a dependency of its own."""

        is_flat = False

        async def __call__(
            self,
            connection: HTTPConnection,
            security_scopes: SecurityScopes,
            raw: Any = params.Depends(scheme),  # noqa: B008 - FastAPI reads it from the signature
        ) -> PrincipalT | None:
            """Admit the connection."""
            credential = as_credential(raw)
            decided = None
            if credential is not None:
                decision = self.decision
                decided = decision.recall(connection, credential) or await decision.decide(connection, credential)
            return self.admit(connection, decided, security_scopes.scopes)

        @property
        def schemes(self) -> tuple[Scheme, ...]:
            """None: OpenAPI sees the scheme that FastAPI resolves."""
            return ()

    return ResolvingGuard


def required_scopes(scope: Mapping[str, Any], auth: "Auth[Any]", own: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the scopes that the guards of ``auth`` require on the matched route, those of one guard first."""
    dependant = matched_dependant(scope)
    found = () if dependant is None else _scopes_in(dependant, auth, ())
    return tuple(dict.fromkeys((*own, *found)))


def matched_dependant(scope: Mapping[str, Any]) -> Dependant | None:
    """Return the dependency tree of the route that FastAPI matched, ``None`` where there is none."""
    # An included route has a tree for each include, which FastAPI keeps apart.
    context = scope.get("fastapi", {}).get("effective_route_context")
    route = scope.get("route")
    dependant: Dependant | None = getattr(context, "dependant", None) or getattr(route, "dependant", None)
    return dependant


def scopes_below(part: Dependant, inherited: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of a dependency: FastAPI hands them down to all that it depends on."""
    own = (*inherited, *(part.parent_oauth_scopes or ()), *(part.own_oauth_scopes or ()))
    return tuple(dict.fromkeys(own))


def _scopes_in(dependant: Dependant, auth: "Auth[Any]", inherited: Sequence[str]) -> Iterator[str]:
    for part in dependant.dependencies:
        scopes = scopes_below(part, inherited)
        if isinstance(part.call, Guard) and part.call.auth is auth:
            yield from scopes
        yield from _scopes_in(part, auth, scopes)


def check_scopes(connection: HTTPConnection, verified: Verified[Any], scopes: Sequence[str]) -> None:
    """Refuse unless all ``scopes`` are granted, naming the first that is missing.

    Raises:
        Forbidden: One is missing; ``insufficient_scope`` in the challenge (RFC 6750 3.1).
    """
    decision: Decision[Any] = verified.auth.dependency.decision
    missing = decision.missing(verified.grants, scopes)
    if missing is not None:
        decision.refusals.refuse(connection, decision.refusals.missing_scope(scopes, missing), verified.principal)


def as_credential(raw: Any) -> str | None:
    """Return what a scheme of the application returned; an empty text counts as none.

    Raises:
        TypeError: It is neither text nor None.
    """
    if raw is not None and not isinstance(raw, str):
        msg = f"a scheme returns the credential as str or None, not {type(raw).__name__}"
        raise TypeError(msg)
    return raw or None


def with_rule(call: CallT, rule: str, *statuses: int, lasts: bool = False, path_param: str | None = None) -> CallT:
    """Describe a dependency around a guard: an audit and OpenAPI see callables, not what they close over.

    Args:
        call: The dependency.
        rule: What it requires, in words.
        statuses: The statuses that it answers beside a guard's.
        lasts: Whether what it requires has to last as long as a connection is open.
        path_param: The parameter of the path that it reads.
    """
    setattr(call, _RULE, rule)
    setattr(call, _STATUSES, frozenset(statuses))
    setattr(call, _LASTS, lasts)
    setattr(call, _PATH_PARAM, path_param)
    return call


def rule_of(call: object) -> str | None:
    """Return what a dependency around a guard requires, in words; ``None`` for any other callable."""
    rule: str | None = getattr(call, _RULE, None)
    return rule


def lasts(call: object) -> bool:
    """Return whether what a dependency around a guard requires has to last as long as a connection is open."""
    return getattr(call, _LASTS, False)


def path_param_of(call: object) -> str | None:
    """Return the parameter of the path that a dependency around a guard reads; ``None`` for any other callable."""
    return getattr(call, _PATH_PARAM, None)


def any_of_rule(scopes: Sequence[str]) -> str:
    """Return the rule of which one of ``scopes`` is enough, in words."""
    return f"{_ANY_OF}{_COMMA.join(scopes)}"


def alternatives_of(rule: str | None) -> tuple[str, ...]:
    """Return the scopes of which a rule requires one; none of any other rule."""
    # No scope has a space in it (RFC 6749 3.3).
    return () if rule is None or not rule.startswith(_ANY_OF) else tuple(rule.removeprefix(_ANY_OF).split(_COMMA))


def statuses_of(call: object) -> frozenset[int]:
    """Return the statuses that a dependency around a guard answers, beside those of a guard."""
    statuses: frozenset[int] = getattr(call, _STATUSES, frozenset())
    return statuses
