"""Greenlets that are kept: as AsyncSession.run_sync, without a new greenlet for each function."""

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest
from greenlet import getcurrent, greenlet

from fastapi_guard.stores import greenlets
from fastapi_guard.stores.greenlets import _await, _idle, run_in_greenlet


@pytest.fixture(autouse=True)
def none_is_kept() -> Iterator[None]:
    """Begin and end without a greenlet."""
    _idle.greenlets.clear()
    yield
    _idle.greenlets.clear()


@contextmanager
def no_garbage_collector() -> Iterator[None]:
    """Leave everything to the counts of references."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def after_a_moment(value: object) -> object:
    """Return a value, and not at once."""
    await asyncio.sleep(0)
    return value


@contextmanager
def catch_unraisable() -> Iterator[list[str]]:
    """Yield what Python would print as ignored, since nothing could catch it."""
    found: list[str] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda ignored: found.append(repr(ignored.exc_value))
    try:
        yield found
    finally:
        sys.unraisablehook = before


def identity() -> int:
    """Return which greenlet this is, after it has awaited."""
    _await(after_a_moment(None))
    return id(getcurrent())


async def test_one_function_after_the_other() -> None:
    """Functions await, return and raise in the same greenlet, which is not the caller's."""

    def divided(number: int) -> Any:
        return _await(after_a_moment(6 // number))

    first = await run_in_greenlet(identity)
    assert await run_in_greenlet(divided, 3) == 2
    with pytest.raises(ZeroDivisionError):
        await run_in_greenlet(divided, 0)
    assert await run_in_greenlet(int) == 0
    assert await run_in_greenlet(identity) == first != id(getcurrent())
    assert len(_idle.greenlets) == 1


async def test_functions_at_the_same_time() -> None:
    """Each of them has a greenlet of its own, and a limited number is kept."""
    found = await asyncio.gather(*(run_in_greenlet(identity) for _ in range(greenlets._KEPT + 4)))
    assert len(set(found)) == greenlets._KEPT + 4
    assert len(_idle.greenlets) == greenlets._KEPT
    assert await run_in_greenlet(identity) in found


async def test_an_error_of_what_a_function_awaits() -> None:
    """The function can catch it, await again and go on."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError

    def work() -> Any:
        try:
            _await(fail())
        except OSError:
            return _await(after_a_moment("caught"))

    assert await run_in_greenlet(work) == "caught"


async def test_a_cancelled_function() -> None:
    """It can await while it ends, before the caller continues; the greenlet is used again."""
    ended: list[object] = []

    def work() -> None:
        try:
            _await(asyncio.sleep(60))
        finally:
            ended.append(_await(after_a_moment("closed")))

    first = await run_in_greenlet(identity)
    task = asyncio.create_task(run_in_greenlet(work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["closed"]
    assert await run_in_greenlet(identity) == first


async def test_a_function_that_is_given_up() -> None:
    """If the coroutine of the caller is closed, the function ends, and its greenlet with it."""
    ended: list[type[BaseException]] = []

    def work() -> None:
        try:
            _await(asyncio.sleep(60))
        except BaseException as error:
            ended.append(type(error))
            raise

    given_up = run_in_greenlet(work)
    given_up.send(None)
    given_up.close()
    assert ended == [GeneratorExit]
    assert not _idle.greenlets
    assert await run_in_greenlet(int) == 0


async def test_the_context_of_each_caller() -> None:
    """A function reads and sets the context variables of its caller, and none of those before it."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    def work(name: str) -> tuple[str, Any]:
        before = tenant.get()
        tenant.set(name)
        return before, _await(after_a_moment(tenant.get()))

    async def request(name: str) -> list[object]:
        return [await run_in_greenlet(work, name), tenant.get(), await run_in_greenlet(tenant.get)]

    for name in ("one", "other"):
        assert await asyncio.create_task(request(name)) == [("nobody", name), name, name]
    assert await run_in_greenlet(tenant.get) == "nobody"
    assert len(_idle.greenlets) == 1


class Secret(Exception):
    """An object that no greenlet may keep."""


def test_nothing_of_a_request_is_kept() -> None:
    """No argument, result, error or context variable is referred to after the function."""
    variable: ContextVar[Secret] = ContextVar("variable")

    def fail(secret: Secret) -> None:
        raise secret

    async def request() -> list[ref[Secret]]:
        given, returned, raised, of_context = (Secret() for _ in range(4))
        variable.set(of_context)
        await run_in_greenlet(id, given)
        await run_in_greenlet(lambda: returned)
        with pytest.raises(Secret):
            await run_in_greenlet(fail, raised)
        return [ref(secret) for secret in (given, returned, raised, of_context)]

    found = asyncio.run(request())
    gc.collect()  # for what pytest and the event loop keep
    assert [secret() for secret in found] == [None] * 4
    assert len(_idle.greenlets) == 1


def test_event_loops_in_threads() -> None:
    """Each thread has its own greenlets, for all its event loops; they end with it, without the garbage collector."""
    kept: list[ref[Any]] = []

    def use() -> None:
        found = {asyncio.run(run_in_greenlet(identity)) for _ in range(3)}
        assert len(found) == len(_idle.greenlets) == 1
        asyncio.run(run_in_greenlet(lambda: kept.append(ref(getcurrent()))))

    with no_garbage_collector():
        for _ in range(3):
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()
    assert [left() for left in kept] == [None] * 3
    assert not _idle.greenlets


def test_an_event_loop_in_a_greenlet() -> None:
    """An event loop that runs in a greenlet itself gets greenlets that return to it."""
    asyncio.run(run_in_greenlet(identity))
    [kept] = _idle.greenlets
    assert greenlet(asyncio.run).switch(run_in_greenlet(lambda: _await(after_a_moment("found")))) == "found"
    assert _idle.greenlets == [kept]


async def fail_after_a_moment() -> None:
    """Await something that fails later."""
    await asyncio.sleep(0)
    raise OSError


def a_failing_function() -> None:
    """Raise at once."""
    raise OSError


async def a_failure() -> None:
    """Run a function that raises."""
    await run_in_greenlet(a_failing_function)


async def a_failure_of_what_it_awaits() -> None:
    """Run a function whose await raises."""
    await run_in_greenlet(lambda: _await(fail_after_a_moment()))


async def a_timeout() -> None:
    """Run a function that is cancelled by a timeout."""
    async with asyncio.timeout(0.001):
        await run_in_greenlet(lambda: _await(asyncio.sleep(60)))


@pytest.mark.parametrize("failing", [a_failure, a_failure_of_what_it_awaits, a_timeout])
def test_an_error_that_outlives_its_thread(failing: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The traceback refers to no greenlet: only the thread of a greenlet can end it, without a message on stderr."""
    errors: list[BaseException] = []

    def use() -> None:
        try:
            asyncio.run(failing())
        except OSError as error:  # a TimeoutError is one
            errors.append(error)

    with no_garbage_collector(), catch_unraisable() as unraisable:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert errors.pop()
        gc.collect()
    assert unraisable == []
