"""State that a child process must not share with its parent: sockets, threads, locks.

``gunicorn --preload`` imports the application and then forks its workers. What was opened before the fork belongs to
the parent; two processes on one socket read each other's answers.
"""

import os
from typing import Protocol
from weakref import WeakSet


class HasProcessState(Protocol):
    """An object that has to be reset in a child process."""

    def after_fork(self) -> None:
        """Replace what belongs to the parent. Called in the child, before any other code of it."""
        ...  # pragma: no cover


_holders: "WeakSet[HasProcessState]" = WeakSet()


def reset_after_fork(holder: HasProcessState) -> None:
    """Call ``holder.after_fork()`` in every process that is forked from now on, as long as the object exists."""
    _holders.add(holder)


def _reset() -> None:
    for holder in list(_holders):
        holder.after_fork()


os.register_at_fork(after_in_child=_reset)
