"""Greenlets in which SQLAlchemy's synchronous functions await an asynchronous driver, kept for the next function.

SQLAlchemy creates a greenlet for each call. A greenlet that is new maps memory for its frames, and unmaps it at its
end: with the page faults in between, that takes longer than a SELECT by key. Needs the extra ``sqlalchemy``.
"""

import threading
from collections.abc import Callable, Generator
from types import coroutine
from typing import Any, Final, TypeVar

from fastapi_guard.exceptions import MissingExtraError

try:
    from greenlet import getcurrent  # type: ignore[import-untyped]
    from sqlalchemy import util
except ImportError:
    raise MissingExtraError("sqlalchemy", "sqlalchemy") from None

ResultT = TypeVar("ResultT")

# In each thread: about as many as there are connections in a pool.
_KEPT: Final = 16
# Its name since SQLAlchemy 2.1, and before.
_await: Final[Callable[[Any], Any]] = getattr(util, "await_", None) or util.await_only


async def run_in_greenlet(work: Callable[..., ResultT], *arguments: object) -> ResultT:
    """Return the result of a function that uses an asynchronous engine, as ``AsyncSession.run_sync`` does.

    The function reads and sets the context variables of the caller.

    Raises:
        BaseException: What the function raises.
    """
    if getcurrent().parent is not None:
        # The event loop itself runs in a greenlet, and the ones that are kept return to the main one.
        return await util.greenlet_spawn(work, *arguments)
    kept = _idle.greenlets.pop() if _idle.greenlets else _Kept()
    # A greenlet whose function was given up midway is not used again.
    result, error = await kept.run(lambda: work(*arguments))
    if len(_idle.greenlets) < _KEPT:
        _idle.greenlets.append(kept)
    # The traceback of an error may outlive this thread, after which the greenlet could not be ended.
    del kept
    if error is None:
        found: ResultT = result
        return found
    try:
        raise error
    finally:
        del error


class _Kept:
    """A greenlet that does one function after the other, driven by hand: it rests where it awaits ``_REST``."""

    __slots__ = ("_driven", "_todo")

    def __init__(self) -> None:
        # Shared with the greenlet, which has no reference to this object: the garbage collector may run in another
        # thread, which cannot end the greenlet.
        self._todo: list[Any] = []
        self._driven = util.greenlet_spawn(_serve, self._todo)
        self._driven.send(None)

    @coroutine
    def run(self, work: Callable[[], object]) -> Generator[Any, Any, tuple[Any, BaseException | None]]:
        """Do ``work``, and return its result and the error that it raised; what it awaits is awaited here."""
        self._todo.append(work)
        awaited = self._driven.send(None)
        while awaited is not _REST:
            try:
                value = yield awaited
            except BaseException as error:  # noqa: BLE001 - the function is to see it
                awaited = self._driven.throw(error)
            else:
                awaited = self._driven.send(value)
        outcome: tuple[Any, BaseException | None] = self._todo.pop()
        # This frame is in the traceback of an error that was thrown into the function.
        del self
        return outcome


class _Rest:
    """The awaitable at which a greenlet waits for the next function."""

    def __await__(self) -> Generator["_Rest", None, None]:
        yield self


_REST: Final = _Rest()


class _Idle(threading.local):
    """The greenlets of this thread without a function: a greenlet never leaves its thread."""

    def __init__(self) -> None:
        self.greenlets: list[_Kept] = []


_idle: Final = _Idle()


def _serve(todo: list[Any]) -> None:
    while True:
        _await(_REST)
        _enter_context_of_the_caller()
        try:
            todo.append((todo.pop()(), None))
        except GeneratorExit:
            # The coroutine of the caller was closed, or this greenlet is.
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised to the caller
            todo.append((None, error))
        _leave_context()


# In functions of their own, since a greenlet with itself in a variable is never collected.


def _enter_context_of_the_caller() -> None:
    current = getcurrent()
    current.gr_context = current.parent.gr_context


def _leave_context() -> None:
    getcurrent().gr_context = None
