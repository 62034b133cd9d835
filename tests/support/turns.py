"""A store and users that do something else, or fail, at one of the calls that a flow makes of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
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
    """

    count: int = 0
    at: int = 0
    then: Callable[[], Awaitable[object]] | None = None
    fails: int = 0
    failing: type[Exception] = Exception
    _task: Any = field(default=None, repr=False)

    async def run(self, flow: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Return the result of a flow, whose calls are counted."""
        self._task = asyncio.current_task()
        try:
            return await flow()
        finally:
            self._task = None

    async def turn(self, failure: type[Exception]) -> None:
        """Count a call; raise the failure where it fails."""
        task = self._task
        if task is None or asyncio.current_task() is not task:
            return
        self.count += 1
        if self.count == self.at and self.then is not None:
            self._task = None
            await self.then()
            self._task = task
        if self.at <= self.count < self.at + self.fails and issubclass(failure, self.failing):
            raise failure


class TurnStore(CountingStore):
    """A store whose calls are counted; where one fails the store is unavailable."""

    def __init__(self, store: Store, turns: Turns) -> None:
        """Delegate to `store`."""
        super().__init__(store)
        self.turns = turns

    async def _trip(self, name: str, *arguments: Any) -> Any:
        await self.turns.turn(ServiceUnavailable)
        return await super()._trip(name, *arguments)


class TurnUsers(MemoryUsers):
    """Users whose calls are counted; one that fails raises what a driver of a database may raise."""

    def __init__(self, turns: Turns) -> None:
        """Begin without users."""
        super().__init__()
        self.turns = turns

    async def by_login(self, login: str) -> User | None:
        """Return the user with this name."""
        await self.turns.turn(ConnectionError)
        return await super().by_login(login)

    async def by_subject(self, subject: str) -> User | None:
        """Return the user with this subject."""
        await self.turns.turn(ConnectionError)
        return await super().by_subject(subject)

    async def add(self, user: User) -> bool:
        """Add a user."""
        await self.turns.turn(ConnectionError)
        return await super().add(user)

    async def update(self, expected: User, new: User) -> bool:
        """Replace a user."""
        await self.turns.turn(ConnectionError)
        return await super().update(expected, new)

    async def remove(self, subject: str) -> bool:
        """Remove a user."""
        await self.turns.turn(ConnectionError)
        return await super().remove(subject)
