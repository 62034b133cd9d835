"""Read the guards in a dependency tree that FastAPI built."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.security.base import SecurityBase
from starlette.routing import PARAM_REGEX

from fastapi_guard.auth import Auth, Guard
from fastapi_guard.auth.guard import lasts, path_param_of, rule_of, scopes_below, statuses_of


class GuardUse(NamedTuple):
    """One guard in a route's dependency tree.

    Attributes:
        guard: The guard.
        scopes: The scopes that it requires there.
        schemes: The names of its schemes in OpenAPI: several, or none, where its scheme is a callable.
        rule: What a dependency around the guard requires beyond these scopes, in words: "any of a, b", "role editor".
        statuses: The statuses that this dependency answers beside those of a guard.
        lasting: This dependency, where what it requires has to last as long as a connection is open.
        path_param: The parameter of the path that this dependency reads.
    """

    guard: Guard[Any]
    scopes: tuple[str, ...]
    schemes: tuple[str, ...]
    rule: str | None = None
    statuses: frozenset[int] = frozenset()
    lasting: Callable[..., Any] | None = None
    path_param: str | None = None

    @property
    def is_effective(self) -> bool:
        """Whether it requires a valid credential: others let an anonymous caller pass."""
        return not self.guard.optional and not self.guard.checks_presence_only


def guards_in(dependant: Dependant | None) -> tuple[GuardUse, ...]:
    """Return the guards in a dependency tree, in the order in which FastAPI resolves them."""
    return () if dependant is None else tuple(_uses(dependant, ()))


def parts_in(dependant: Dependant | None) -> tuple[Dependant, ...]:
    """Return the dependencies of a tree that hold a guard, in the order in which FastAPI resolves them."""
    dependencies = () if dependant is None else tuple(dependant.dependencies)
    return tuple(part for part in dependencies if guards_in(Dependant(dependencies=[part])))


def guards_of(depends: params.Depends, kind: Any = None) -> tuple[GuardUse, ...]:
    """Return the guards that FastAPI would run for ``depends`` now; ``kind`` is the type of ``Depends()`` alone."""
    call = kind if depends.dependency is None else depends.dependency
    scopes = list(getattr(depends, "scopes", None) or ())
    try:
        dependant = get_dependant(path="", call=call, own_oauth_scopes=scopes)
    except Exception:  # noqa: BLE001 - FastAPI refuses it, whatever the reason
        return ()
    return guards_in(Dependant(dependencies=[dependant]))


def early_in(dependant: Dependant) -> tuple[str, ...]:
    """Return the names of the application's dependencies that run before an anonymous caller is refused."""
    early: list[str] = []
    for call in _resolved(dependant):
        if isinstance(call, Guard) and not call.optional:
            return tuple(dict.fromkeys(early))
        if not _module_of(call).startswith("fastapi_guard"):
            early.append(getattr(call, "__name__", type(call).__name__))
    return ()


def body_fields_in(dependant: Dependant) -> tuple[str, ...]:
    """Return the names of the parameters in a dependency tree that are read from the body."""
    own = tuple(field.name for field in dependant.body_params)
    return own + tuple(name for part in dependant.dependencies for name in body_fields_in(part))


def missing_parameters(path: str, uses: Iterable[GuardUse], others: Collection[str] = ()) -> Iterator[str]:
    """Yield what is wrong with guards that read a parameter which ``path`` does not have, each as a sentence.

    ``others`` are parameters that do not come from the path, such as those of a host.
    """
    found = {match[1] for match in PARAM_REGEX.finditer(path)}.union(others)
    for use in uses:
        if use.path_param is not None and use.path_param not in found:
            yield (
                f"requires_tenant() of {use.guard.auth.name} reads {{{use.path_param}}}, which the path {path} does not"
                " have: write it there, or pass the name of the parameter with the tenant as path_param="
            )


def members_of(guard: Guard[Any]) -> tuple[Auth[Any], ...]:
    """Return the Auths whose credentials a guard accepts: its own, or the members of an AnyAuth that count."""
    members: Sequence[Auth[Any]] = getattr(guard, "members", ()) or (guard.auth,)
    return tuple(part for member in members for part in _parts(member))


def is_throttled(dependant: Dependant) -> bool:
    """Return whether a Throttle is in a dependency tree. It is known by its mark, since its module needs an extra."""
    return getattr(dependant.call, "is_throttle", False) or any(map(is_throttled, dependant.dependencies))


def _uses(dependant: Dependant, inherited: tuple[str, ...]) -> Iterator[GuardUse]:
    for part in dependant.dependencies:
        scopes = scopes_below(part, inherited)
        if isinstance(part.call, Guard):
            schemes = tuple(dict.fromkeys(_schemes_of(part.call, part)))
            around = dependant.call
            lasting = around if lasts(around) else None
            rule, statuses = rule_of(around), statuses_of(around)
            yield GuardUse(part.call, scopes, schemes, rule, statuses, lasting, path_param_of(around))
        yield from _uses(part, scopes)


def _schemes_of(guard: Guard[Any], dependant: Dependant) -> Iterator[str]:
    yield from (scheme.scheme_name for scheme in guard.schemes)
    for part in dependant.dependencies:
        if part.name not in guard.ignored:
            yield from _schemes(part)


def _schemes(dependant: Dependant) -> Iterator[str]:
    if isinstance(dependant.call, SecurityBase):
        yield dependant.call.scheme_name
    for part in dependant.dependencies:
        yield from _schemes(part)


def _resolved(dependant: Dependant) -> Iterator[Any]:
    # What a dependency depends on is resolved before it; below a guard stands only its scheme.
    for part in dependant.dependencies:
        if not isinstance(part.call, Guard):
            yield from _resolved(part)
        yield part.call


def _parts(auth: Auth[Any]) -> Iterator[Auth[Any]]:
    members = getattr(auth, "members", ())
    for member in members:
        yield from _parts(member)
    if not members:
        yield auth


def _module_of(call: object) -> str:
    return getattr(call, "__module__", None) or type(call).__module__
