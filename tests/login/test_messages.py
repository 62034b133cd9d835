import asyncio
import io
import logging
import multiprocessing
import os
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.events import Event
from fastapi_guard.login.messages import ConsoleSender, Message, MessageKind, Outbox, locale_of
from support.factors import user_named

MESSAGE = Message(
    kind="reset_password",
    address="ada@example.com",
    link="https://shop.example/reset#secret",
    code="12345678",
    expires_at=1_800_000_000.0,
    user=user_named(),
)


class Sent:
    """Remembers messages, with the thread that sent each."""

    def __init__(self) -> None:
        """Begin with none."""
        self.messages: list[Message] = []
        self.threads: set[str] = set()

    def __call__(self, message: Message) -> None:
        """Remember one."""
        self.messages.append(message)
        self.threads.add(threading.current_thread().name)


@pytest.mark.parametrize("kind", get_args(MessageKind))
def test_every_kind_has_a_text(kind: MessageKind) -> None:
    """Each kind has a subject line of its own and a text, without anything that is missing."""
    message = Message(kind=kind, address="ada@example.com")
    assert message.subject
    assert "None" not in message.text
    assert re.fullmatch(r"[^\r\n]{5,60}", message.subject)


def test_subjects_differ() -> None:
    """No two kinds have the same subject line."""
    subjects = {Message(kind=kind, address="a@b").subject for kind in get_args(MessageKind)}
    assert len(subjects) == len(get_args(MessageKind))


def test_the_text_has_link_code_and_expiry() -> None:
    """The text has what the user needs, each in a paragraph of its own."""
    paragraphs = MESSAGE.text.split("\n\n")
    assert paragraphs[1:] == [
        "https://shop.example/reset#secret",
        "Code: 12345678",
        "Valid until 2027-01-15 08:00 UTC.\n",
    ]
    detailed = Message(kind="factor_added", address="ada@example.com", detail="Phone")
    assert detailed.text.endswith("\n\nPhone\n")


def test_no_secret_is_in_the_repr() -> None:
    """Neither link nor code nor user is in the repr."""
    assert not re.search("secret|12345678|ada'", repr(MESSAGE))


def test_the_console_shows_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    """In development a message is written to standard error, or to a stream."""
    ConsoleSender()(MESSAGE)
    shown = capsys.readouterr().err
    assert "To: ada@example.com\nSubject: Reset your password\n" in shown
    assert MESSAGE.text in shown
    stream = io.StringIO()
    ConsoleSender(stream)(MESSAGE)
    assert stream.getvalue() == shown


async def test_a_function_sends_in_a_thread() -> None:
    """A function without async runs in a thread of its own, never in the event loop."""
    sent = Sent()
    outbox = Outbox(sent)
    outbox.post(MESSAGE)
    assert sent.messages == []
    await outbox.drain()
    assert sent.messages == [MESSAGE]
    assert [name.startswith("fastapi_guard_messages") for name in sent.threads] == [True]


class AsyncSender:
    """An object that sends with async."""

    def __init__(self) -> None:
        """Begin with none."""
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        """Remember one."""
        await asyncio.sleep(0)
        self.messages.append(message)


async def test_an_async_function_sends_in_the_loop() -> None:
    """An async function, an object whose call is async and a function that returns an awaitable are awaited."""
    sender, seen = AsyncSender(), []

    async def send(message: Message) -> None:
        await sender(message)

    def send_later(message: Message) -> Any:
        seen.append(threading.current_thread())
        return sender(message)

    for how in (send, sender, send_later):
        outbox = Outbox(how)
        outbox.post(MESSAGE)
        await outbox.drain()
    assert sender.messages == [MESSAGE] * 3
    assert seen != [threading.main_thread()]


async def test_a_message_is_made_after_the_answer() -> None:
    """The function that makes a message runs in the task; no message is sent where it returns None."""
    sent = Sent()
    outbox = Outbox(sent)
    made: list[str] = []

    async def make() -> Message:
        made.append("made")
        return MESSAGE

    async def make_none() -> None:
        made.append("none")

    outbox.post(make)
    outbox.post(make_none)
    assert made == []
    await outbox.drain()
    assert sorted(made) == ["made", "none"]
    assert sent.messages == [MESSAGE]


async def test_a_failure_is_an_event(caplog: pytest.LogCaptureFixture) -> None:
    """A mail server that refuses, a database that is unreachable: an event, and nothing of the message in the log."""
    events: list[Event] = []

    def send(message: Message) -> None:
        raise ConnectionRefusedError(f"could not send {message.link}")

    async def make() -> Message:
        raise ServiceUnavailable(reason="store_unreachable")

    outbox = Outbox(send, on_event=events.append)
    with caplog.at_level(logging.DEBUG):
        outbox.post(MESSAGE)
        outbox.post(make)
        await outbox.drain()
    assert sorted(event.reason or "" for event in events) == ["ConnectionRefusedError", "ServiceUnavailable"]
    assert {event.name for event in events} == {"message_failed"}
    assert [record.levelname for record in caplog.records if record.name == "fastapi_guard"] == ["WARNING"] * 2
    assert "secret" not in caplog.text


async def test_a_slow_server_is_given_up() -> None:
    """After the deadline a message is lost, and an event; others are sent meanwhile."""
    events: list[Event] = []
    done = asyncio.Event()

    async def send(message: Message) -> None:
        await done.wait()

    outbox = Outbox(send, deadline=timedelta(milliseconds=20), on_event=events.append)
    outbox.post(MESSAGE)
    await outbox.drain()
    assert [event.reason for event in events] == ["TimeoutError"]


async def test_a_flood_is_bounded() -> None:
    """Beyond the limit messages are lost, each an event, and there is room again once some are sent."""
    events: list[Event] = []
    sent = AsyncSender()
    outbox = Outbox(sent, limit=3, on_event=events.append)
    for _ in range(10):
        outbox.post(MESSAGE)
    assert [event.reason for event in events] == ["too_many_messages"] * 7
    await outbox.drain()
    outbox.post(MESSAGE)
    await outbox.drain()
    assert len(sent.messages) == 4


async def test_a_cancelled_message_is_an_event() -> None:
    """A message that is under way when the loop ends is an event."""
    events: list[Event] = []
    outbox = Outbox(AsyncSender(), on_event=events.append)
    outbox.post(MESSAGE)
    [task] = outbox._under_way
    task.cancel()
    await outbox.drain()
    assert [event.reason for event in events] == ["cancelled"]


async def test_drain_waits_for_nothing() -> None:
    """Without messages there is nothing to wait for, also for one that waits in its own task."""
    outbox = Outbox(Sent())
    await outbox.drain()

    async def make() -> None:
        await outbox.drain()

    outbox.post(make)
    await outbox.drain()


def test_several_event_loops() -> None:
    """A message of an event loop that was closed does not count for the limit, and is not waited for."""
    events: list[Event] = []
    begun: list[Message] = []

    async def send(message: Message) -> None:
        begun.append(message)
        if len(begun) == 1:
            await asyncio.Event().wait()

    outbox = Outbox(send, limit=1, on_event=events.append)

    async def post() -> None:
        outbox.post(MESSAGE)
        await asyncio.sleep(0)

    async def post_and_drain() -> None:
        outbox.post(MESSAGE)
        await outbox.drain()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(post())
    [task] = outbox._under_way
    loop.close()
    asyncio.run(post_and_drain())
    assert begun == [MESSAGE, MESSAGE]
    assert events == []
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        task.cancel()


def send_in_a_fork(outbox: Outbox, sent: Sent, results: Any) -> None:
    """Send one message, in the process of a worker."""

    async def post() -> None:
        outbox.post(MESSAGE)
        await outbox.drain()

    asyncio.run(post())
    results.put((os.getpid(), len(sent.messages)))


@pytest.fixture
def forking() -> Iterator[Any]:
    """Return what makes processes by fork, as gunicorn --preload does."""
    return multiprocessing.get_context("fork")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(forking: Any) -> None:
    """An outbox that has sent before a fork sends after it too."""
    sent = Sent()
    outbox = Outbox(sent)

    async def post() -> None:
        outbox.post(MESSAGE)
        await outbox.drain()

    asyncio.run(post())
    results = forking.Queue()
    worker = forking.Process(target=send_in_a_fork, args=(outbox, sent, results))
    worker.start()
    assert results.get(timeout=60) == (worker.pid, 2)
    worker.join()
    # And in this process, whose threads go on.
    send_in_a_fork(outbox, sent, results)
    assert results.get(timeout=60) == (os.getpid(), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"send": None}, "send is a function of one Message"),
        ({"limit": 0}, "limit is a whole number from 1, not 0"),
        ({"workers": 0}, "workers is a whole number from 1, not 0"),
        ({"deadline": timedelta()}, "deadline is a timedelta or a number of seconds, more than 0"),
    ],
)
def test_refused_settings(options: dict[str, Any], message: str) -> None:
    """An outbox that could send nothing is refused."""
    with pytest.raises(ConfigurationError, match=message):
        Outbox(**{"send": Sent(), **options})


@pytest.mark.parametrize(
    ("field", "locale"),
    [
        (None, None),
        ("", None),
        ("de-AT,de;q=0.9,en;q=0.8", "de-AT"),
        ("en", "en"),
        (" zh-Hant-TW ;q=1", "zh-Hant-TW"),
        ("*", None),
        ("../../etc", None),
        ("de\r\nX: y", None),
        ("x" * 10_000, None),
    ],
)
def test_locale(field: str | None, locale: str | None) -> None:
    """The first language of the field, where it is one."""
    assert locale_of(field) == locale


async def test_a_thread_for_several_messages() -> None:
    """A synchronous sender uses the same threads for each message."""
    sent: list[Message] = []

    def send(message: Message) -> None:
        sent.append(message)

    outbox = Outbox(send)
    for _ in range(2):
        outbox.post(MESSAGE)
        await outbox.drain()
    assert sent == [MESSAGE, MESSAGE]
    assert len(outbox._pools) == 1
