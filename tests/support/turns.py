"""A store and users that do something else, or fail, at one of the calls that a flow makes of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fastapi_guard import ServiceUnavailable
from fastapi_guard.login.users import User
from fastapi_guard.stores import Store
from support.accounts import MemoryUsers
from support.login import CountingStore

ResultT = TypeVar("ResultT")


@dataclass
class Turns:
    """Counts the calls of one task.

    Attributes:
        count: How many calls there were.
        at: The call before which something happens.
        then: What happens before it; it may raise.
        fails: How many calls fail, from ``at`` on.
        failing: What fails: those that raise this.
        done: Whether a call that fails has done its work before.
    """

    count: int = 0
    at: int = 0
    then: Callable[[], Awaitable[object]] | None = None
    fails: int = 0
    failing: type[Exception] = Exception
    done: bool = False
    _task: Any = field(default=None, repr=False)

    async def run(self, flow: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Return the result of a flow, whose calls are counted."""
        self._task = asyncio.current_task()
        try:
            return await flow()
        finally:
            self._task = None

    async def turn(self, failure: type[Exception], call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Count a call, and return its result; raise the failure where it fails."""
        task = self._task
        if task is None or asyncio.current_task() is not task:
            return await call()
        self.count += 1
        if self.count == self.at and self.then is not None:
            self._task = None
            await self.then()
            self._task = task
        fails = self.at <= self.count < self.at + self.fails and issubclass(failure, self.failing)
        if fails and not self.done:
            raise failure
        result = await call()
        if fails:
            raise failure
        return result


class TurnStore(CountingStore):
    """A store whose calls are counted; where one fails the store is unavailable."""

    def __init__(self, store: Store, turns: Turns) -> None:
        """Delegate to `store`."""
        super().__init__(store)
        self.turns = turns

    async def _trip(self, name: str, *arguments: Any) -> Any:
        trip = partial(super()._trip, name, *arguments)
        return await self.turns.turn(ServiceUnavailable, trip)


class TurnUsers(MemoryUsers):
    """Users whose calls are counted; one that fails raises what a driver of a database may raise."""

    def __init__(self, turns: Turns) -> None:
        """Begin without users."""
        super().__init__()
        self.turns = turns

    async def by_login(self, login: str) -> User | None:
        """Return the user with this name."""
        return await self.turns.turn(ConnectionError, partial(super().by_login, login))

    async def by_subject(self, subject: str) -> User | None:
        """Return the user with this subject."""
        return await self.turns.turn(ConnectionError, partial(super().by_subject, subject))

    async def add(self, user: User) -> bool:
        """Add a user."""
        return await self.turns.turn(ConnectionError, partial(super().add, user))

    async def update(self, expected: User, new: User) -> bool:
        """Replace a user."""
        return await self.turns.turn(ConnectionError, partial(super().update, expected, new))

    async def remove(self, subject: str) -> bool:
        """Remove a user."""
        return await self.turns.turn(ConnectionError, partial(super().remove, subject))
