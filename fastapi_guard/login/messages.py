"""Messages to users: what they contain, and sending them after the answer.

The application sends them: ``send(message)`` is a function of its own, sync or async. An answer never waits for it, so
that no client learns from the time of an answer whether a message was sent.
"""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from inspect import isawaitable, iscoroutinefunction
from typing import Final, Literal, TextIO

from fastapi_guard.events import Event, EventCallback, checked, publish
from fastapi_guard.login.users import User
from fastapi_guard.stores.arguments import check_numbers, implementing, plain_function_of
from fastapi_guard.stores.bounds import seconds_of

MessageKind = Literal[
    "verify_address",
    "account_exists",
    "reset_password",
    "log_in",
    "second_factor",
    "change_address",
    "invitation",
    "address_changed",
    "password_changed",
    "account_deleted",
    "factor_added",
    "factor_removed",
    "provider_linked",
    "provider_unlinked",
    "recovery_code_used",
    "new_device",
]

_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
_SUBJECTS: Final[dict[MessageKind, str]] = {
    "verify_address": "Confirm your address",
    "account_exists": "You have an account already",
    "reset_password": "Reset your password",
    "log_in": "Log in",
    "second_factor": "Your code",
    "change_address": "Confirm your new address",
    "invitation": "You are invited",
    "address_changed": "Your address was changed",
    "password_changed": "Your password was changed",
    "account_deleted": "Your account was deleted",
    "factor_added": "A second factor was added",
    "factor_removed": "A second factor was removed",
    "provider_linked": "A sign-in was linked",
    "provider_unlinked": "A sign-in was unlinked",
    "recovery_code_used": "A recovery code was used",
    "new_device": "A login from a new device",
}
_SENTENCES: Final[dict[MessageKind, str]] = {
    "verify_address": "Confirm that this address is yours, to use your account.",
    "account_exists": "Someone, perhaps you, tried to register with this address. You have an account already.",
    "reset_password": "Choose a new password. If you did not ask for this, ignore this message.",
    "log_in": "Log in without a password. If you did not ask for this, ignore this message.",
    "second_factor": "Enter this code to go on with your login. If you are not logging in, change your password.",
    "change_address": "Confirm that this is the new address of your account.",
    "invitation": "You are invited to register.",
    "address_changed": "The address of your account was changed. If that was not you, contact us.",
    "password_changed": "The password of your account was changed. If that was not you, reset it now.",
    "account_deleted": "Your account and what belonged to it was deleted.",
    "factor_added": "A second factor was added to your account. If that was not you, change your password.",
    "factor_removed": "A second factor was removed from your account. If that was not you, change your password.",
    "provider_linked": "A sign-in was linked to your account. If that was not you, change your password.",
    "provider_unlinked": "A sign-in was unlinked from your account. If that was not you, change your password.",
    "recovery_code_used": "A recovery code of your account was used. If that was not you, change your password.",
    "new_device": "Your account was used to log in on a new device. If that was not you, change your password.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message to one address.

    Attributes:
        kind: What it is about; a template of the application's is chosen by it.
        address: Where it goes.
        link: What to open, ``None`` for a message without one. It is a secret.
        code: What to type in, where the message has a code. It is a secret.
        expires_at: When link and code expire, in seconds since the epoch.
        locale: The language that the user's browser asked for, such as ``"de-AT"``; ``None`` where it did not.
        user: The user, ``None`` where there is no account yet.
        detail: What the kind is about in particular: the name of a factor, the device, a new address.
    """

    kind: MessageKind
    address: str
    link: str | None = field(default=None, repr=False)
    code: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    locale: str | None = None
    user: User | None = field(default=None, repr=False)
    detail: str | None = None

    @property
    def subject(self) -> str:
        """A subject line in English, for an application without templates of its own."""
        return _SUBJECTS[self.kind]

    @property
    def text(self) -> str:
        """A plain text in English, for an application without templates of its own."""
        lines = [_SENTENCES[self.kind]]
        if self.detail is not None:
            lines.append(self.detail)
        if self.link is not None:
            lines.append(self.link)
        if self.code is not None:
            lines.append(f"Code: {self.code}")
        if self.expires_at is not None:
            lines.append(f"Valid until {datetime.fromtimestamp(self.expires_at, UTC):%Y-%m-%d %H:%M} UTC.")
        return "\n\n".join(lines) + "\n"


Send = Callable[[Message], Awaitable[None] | None]
Job = Callable[[], Awaitable[Message | None]]


class ConsoleSender:
    """A ``send`` for development: writes messages, with their secrets, to standard error."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to ``stream``, by default to standard error."""
        if stream is not None:
            implementing("stream", stream, (), "a text stream, such as sys.stdout", plain=("write", "flush"))
        self._stream = stream

    def __call__(self, message: Message) -> None:
        """Write one message."""
        stream = self._stream or sys.stderr
        stream.write(f"\nTo: {message.address}\nSubject: {message.subject}\n\n{message.text}\n")
        stream.flush()


class Outbox:
    """Makes and sends messages in tasks of its own, a bounded number at a time and each within a deadline.

    A message that cannot be made or sent is lost: an Event ``message_failed`` and a log record, never an error of a
    request. The user can request another one.
    """

    def __init__(
        self,
        send: Send,
        *,
        limit: int = 100,
        workers: int = 4,
        deadline: timedelta = timedelta(seconds=30),
        on_event: EventCallback | None = None,
    ) -> None:
        """Send with ``send``, which runs in a thread unless it is an ``async def``.

        Args:
            send: Sends one message, or raises. In a thread it needs a timeout of its own: a thread cannot be stopped.
            limit: How many messages may be under way in this process. More are lost, so that a flood of requests does
                not fill the memory.
            workers: How many threads send, where ``send`` is not an ``async def``.
            deadline: How long it may take to make and send one.
            on_event: Receives the Event ``message_failed``.

        Raises:
            ConfigurationError: ``send`` cannot be called with a Message, or a number is not positive.
        """
        plain_function_of("send", send, "of one Message", "message")
        check_numbers(1, limit=limit, workers=workers)
        call: object = getattr(type(send), "__call__", None)  # noqa: B004 - of an object, the method of its class
        self._send = send
        self._is_async = iscoroutinefunction(send) or iscoroutinefunction(call)
        self._limit = limit
        self._workers = workers
        self._deadline = seconds_of("deadline", deadline, positive=True)
        self._on_event = checked(on_event)
        self._under_way: set[asyncio.Task[None]] = set()
        # By process: the threads of a parent do not exist in a fork.
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def post(self, message: Message | Job) -> None:
        """Start a task that sends a message: ``message`` itself, or the one that it returns, if any, as a function.

        The look-up of a user belongs in the function: the response does not wait for it.
        """
        # The tasks of an event loop that was closed never finish.
        self._under_way = {task for task in self._under_way if not task.get_loop().is_closed()}
        if len(self._under_way) >= self._limit:
            self._report("too_many_messages")
            return
        task = asyncio.create_task(self._run(message))
        self._under_way.add(task)
        task.add_done_callback(self._finish)

    async def drain(self) -> None:
        """Wait until each message that is under way was sent or lost: at shutdown, and in tests."""
        running = asyncio.get_running_loop()
        own = [task for task in self._under_way if task.get_loop() is running and task is not asyncio.current_task()]
        if own:
            await asyncio.wait(own)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if task.cancelled():
            self._report("cancelled")

    async def _run(self, job: Message | Job) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                message = job if isinstance(job, Message) else await job()
                if message is not None:
                    await self._deliver(message)
        except Exception as error:  # noqa: BLE001 - whatever a mail library, a database or a template raises
            # Of the error the name alone: its text may contain the message.
            self._report(type(error).__name__)

    async def _deliver(self, message: Message) -> None:
        if self._is_async:
            answer = self._send(message)
        else:
            answer = await asyncio.wrap_future(self._pool().submit(self._send, message))
        if isawaitable(answer):
            await answer

    def _pool(self) -> ThreadPoolExecutor:
        process = os.getpid()
        if process not in self._pools:
            self._pools[process] = ThreadPoolExecutor(self._workers, thread_name_prefix="fastapi_guard_messages")
        return self._pools[process]

    def _report(self, reason: str) -> None:
        publish(Event("message_failed", "outbox", reason=reason), self._on_event)


def locale_of(accept_language: str | None) -> str | None:
    """Return the first language of an ``Accept-Language`` field (RFC 9110 12.5.4), such as ``"de-AT"``."""
    tag = (accept_language or "").partition(",")[0].partition(";")[0].strip()
    return tag if _LOCALE.fullmatch(tag) else None


def link_to(page: str, token: str, *, in_query: bool = False) -> str:
    """Return the link to a page that hands ``token`` on.

    In the fragment it reaches no server and no Referer; in the query it works on a page without script.
    """
    mark = ("&" if "?" in page else "?") if in_query else "#"
    return f"{page}{mark}token={token}"
