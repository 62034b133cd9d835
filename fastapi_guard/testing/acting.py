"""acting_as: requests of a test count as authenticated, while scopes, roles and policies are enforced as usual."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Any, Final, TypeVar

from fastapi import FastAPI

from fastapi_guard.auth import Auth, Guard
from fastapi_guard.stores.arguments import instance_of

PrincipalT = TypeVar("PrincipalT")


@dataclass(slots=True)
class _Actor:
    """A principal, and whether a test still acts as it."""

    principal: Any
    acts: bool = True


# Who the current context acts as. The overrides themselves are the application's, and shared by all its tests.
_acting: ContextVar[Mapping[tuple[FastAPI, Auth[Any]], _Actor]] = ContextVar(
    "fastapi_guard_acting", default=MappingProxyType({})
)
_lock = Lock()

# Where a connection's scope keeps for whom a principal was put there: the next guard sees what the first one gave.
_PLACED: Final = "fastapi_guard.acting"


class _ActingGuard:
    """Stands in for a guard: puts the principal of the context on the connection, then lets the guard decide."""

    def __init__(self, app: FastAPI, guard: Guard[Any], replaced: Any) -> None:
        self.app = app
        self.guard = guard
        self.replaced = replaced
        self.users = 0
        self.__signature__ = inspect.signature(guard)

    async def __call__(self, **resolved: Any) -> Any:
        auth = self.guard.auth
        actor = _acting.get().get((self.app, auth))
        if actor is not None and actor.acts:
            connection = resolved["connection"]
            placed: set[tuple[FastAPI, Auth[Any]]] = connection.scope.setdefault(_PLACED, set())
            if (self.app, auth) not in placed:
                placed.add((self.app, auth))
                self.guard.decision.accept(connection, deepcopy(actor.principal))
            decided = self.guard.decision.recall(connection)
            return self.guard.admit(connection, decided, resolved["security_scopes"].scopes)
        return await self.guard(**resolved)


@contextmanager
def acting_as(app: FastAPI, auth: Auth[PrincipalT], principal: PrincipalT) -> Iterator[None]:
    """Let every request of this context count as authenticated by ``auth`` with ``principal``.

    Unlike an entry in ``app.dependency_overrides`` it leaves the checks in place: a scope that the claims do not grant
    is a 403. Contexts of other threads and tasks are not touched, and may act as another principal at the same time.

    It does not reach an application that is mounted in ``app``, whose overrides are its own: name that one too.

    Args:
        app: The application under test.
        auth: The Auth whose guards are passed.
        principal: What the endpoint gets, a claims dict for most.

    Raises:
        ConfigurationError: ``app`` or ``auth`` is of another type, as with the arguments in another order.
    """
    order = "with acting_as(app, auth, claims)"
    instance_of("app", app, FastAPI, f"a FastAPI application, {order}")
    instance_of("auth", auth, Auth, f"the Auth of the guards, {order}")
    guards = auth.dependency.decision.guards
    actor = _Actor(principal)
    token = _acting.set({**_acting.get(), (app, auth): actor})
    with _lock:
        stand_ins = [_stand_in(app, guard) for guard in guards]
    try:
        yield
    finally:
        actor.acts = False
        with suppress(ValueError):  # a fixture may end in another context than that of its test
            _acting.reset(token)
        with _lock:
            for stand_in in stand_ins:
                stand_in.users -= 1
                if not stand_in.users:
                    _restore(stand_in)


def _stand_in(app: FastAPI, guard: Guard[Any]) -> _ActingGuard:
    replaced = app.dependency_overrides.get(guard)
    stand_in = replaced if isinstance(replaced, _ActingGuard) else _ActingGuard(app, guard, replaced)
    app.dependency_overrides[guard] = stand_in
    stand_in.users += 1
    return stand_in


def _restore(stand_in: _ActingGuard) -> None:
    overrides = stand_in.app.dependency_overrides
    is_in_place = overrides.get(stand_in.guard) is stand_in
    if not is_in_place:  # the test itself has cleared or replaced them
        return
    if stand_in.replaced is None:
        del overrides[stand_in.guard]
    else:
        overrides[stand_in.guard] = stand_in.replaced
