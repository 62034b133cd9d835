"""What happened: in the log, in a callback, and as a counter of OpenTelemetry."""

import logging
from functools import cache
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fastapi_guard import ScopesAuth, ServiceUnavailable, Unauthorized
from fastapi_guard.events import COUNTER, Event, attributes_of, publish
from support.asgi import request
from support.ids import case_id


class Tokens(ScopesAuth):
    """An Auth with one good credential, and one that cannot be decided about."""

    name = "tokens"

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept ``good``."""
        if raw == "undecided":
            raise ServiceUnavailable(reason="keys_not_loaded")
        if raw != "good":
            raise Unauthorized(error="invalid_token", reason="bad_signature")
        return {"sub": "ada", "scope": "a"}


def application(**options: Any) -> FastAPI:
    """Return an application with a route that anybody known may call, and one for which that is not enough."""
    auth = Tokens(**options)
    app = FastAPI()
    app.get("/", dependencies=[auth.authenticated()])(lambda: None)
    app.get("/b", dependencies=[auth.requires("b")])(lambda: None)
    app.get("/any", dependencies=[auth.requires_any("b", "c")])(lambda: None)
    app.get("/admin", dependencies=[auth.requires_admin()])(lambda: None)
    return app


def bearer(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Return the header that carries a credential."""
    return [(b"authorization", b"Bearer " + raw)]


def forbidden(reason: str) -> Event:
    """Return the event of a valid credential that is refused."""
    return Event("refused", "tokens", 403, reason, subject="ada")


CASES = [
    ("/", bearer(b"good"), [Event("authenticated", "tokens", subject="ada")]),
    ("/", [], [Event("refused", "tokens", 401, "missing")]),
    ("/", bearer(b"\xff"), [Event("refused", "tokens", 401, "malformed")]),
    ("/", bearer(b"a, Bearer b"), [Event("refused", "tokens", 401, "two_credentials")]),
    ("/", bearer(b"bad"), [Event("refused", "tokens", 401, "bad_signature")]),
    ("/", bearer(b"undecided"), [Event("refused", "tokens", 503, "keys_not_loaded")]),
    (
        "/b",
        bearer(b"good"),
        [Event("authenticated", "tokens", subject="ada"), forbidden("missing_scope")],
    ),
    (
        "/any",
        bearer(b"good"),
        [Event("authenticated", "tokens", subject="ada"), forbidden("missing_scope")],
    ),
    (
        "/admin",
        bearer(b"good"),
        [Event("authenticated", "tokens", subject="ada"), forbidden("not_admin")],
    ),
]


@pytest.mark.parametrize(("path", "headers", "expected"), CASES, ids=case_id)
def test_a_decision_is_an_event(path: str, headers: list[tuple[bytes, bytes]], expected: list[Event]) -> None:
    """The callback gets each decision once, with its status and a reason of one word."""
    events: list[Event] = []
    request(application(on_event=events.append), path, headers)
    assert events == expected


def test_a_decision_is_logged_without_the_credential(caplog: pytest.LogCaptureFixture) -> None:
    """The log has who decided what and why, on one line, and nothing that the client sent (E.21)."""
    caplog.set_level(logging.DEBUG, "fastapi_guard")
    app = application()
    for raw in (b"good", b"evil-credential", b"evil\r\nfake: line", b"evil\xff"):
        request(app, headers=bearer(raw), query=b"evil=1")
    request(app)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "authenticated by tokens"),
        ("INFO", "refused by tokens: bad_signature (401)"),
        ("INFO", "refused by tokens: two_credentials (401)"),
        ("INFO", "refused by tokens: malformed (401)"),
        ("INFO", "refused by tokens: missing (401)"),
    ]


def test_a_failing_callback_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the callback goes to the log, and the answer is the one that was decided."""

    def failing(event: Event) -> None:
        raise RuntimeError(event.name)

    app = application(on_event=failing)
    assert request(app, headers=bearer(b"good")).status == 200
    assert request(app).status == 401
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in errors] == ["an event callback failed"] * 2
    assert all(record.exc_info for record in errors)


def test_an_event_without_a_callback(caplog: pytest.LogCaptureFixture) -> None:
    """Who asks for no callback gets the log alone."""
    caplog.set_level(logging.DEBUG, "fastapi_guard")
    publish(Event("authenticated", "jwt"), None)
    publish(Event("refused", "jwt", 401, "expired"), None)
    assert caplog.messages == ["authenticated by jwt", "refused by jwt: expired (401)"]


FIELDS = ("event", "auth", "status", "reason", "key_id", "subject", "actor")


def test_a_record_has_the_fields_of_the_event(caplog: pytest.LogCaptureFixture) -> None:
    """A formatter for JSON finds every field by its name, whatever happened; a missing one is None."""
    caplog.set_level(logging.DEBUG, "fastapi_guard")
    publish(Event("authenticated", "jwt"), None)
    publish(Event("refused", "jwt", 403, "missing_scope"), None)
    publish(Event("key_created", "keys", key_id="0123", subject="ada", actor="grace"), None)
    publish(Event("login_failed", "local", 401, "login_failed", subject="ada"), None)
    assert [tuple(getattr(record, name) for name in FIELDS) for record in caplog.records] == [
        ("authenticated", "jwt", None, None, None, None, None),
        ("refused", "jwt", 403, "missing_scope", None, None, None),
        ("key_created", "keys", None, None, "0123", "ada", "grace"),
        ("login_failed", "local", 401, "login_failed", None, "ada", None),
    ]
    assert [record.levelname for record in caplog.records] == ["DEBUG", "INFO", "INFO", "WARNING"]


def test_what_an_application_stored_stays_on_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """A subject with line ends is escaped in the record and in its text, and untouched for the callback (E.21)."""
    caplog.set_level(logging.DEBUG, "fastapi_guard")
    events: list[Event] = []
    event = Event("key_created", "keys", key_id="0123", subject="ada\r\nfake: line", actor="\x1b[31mé\u2028")
    publish(event, events.append)
    (record,) = caplog.records
    formatted = logging.Formatter("%(message)s | %(subject)s | %(actor)s").format(record)
    assert formatted.isprintable()
    assert formatted.endswith("| ada\\r\\nfake: line | \\x1b[31m\\xe9\\u2028")
    assert events == [event]


def test_nothing_is_built_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    """Below the level of the logger nothing is logged; the callback gets the event all the same."""
    caplog.set_level(logging.ERROR, "fastapi_guard")
    events: list[Event] = []
    publish(Event("refresh_reused", "refresh", 401, "reused", subject="ada"), events.append)
    assert caplog.records == []
    assert len(events) == 1


@cache
def provided() -> InMemoryMetricReader:
    """Return the metrics of this process, which has one provider for good."""
    found = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([found]))
    return found


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """Return the metrics of this process."""
    return provided()


def counted(reader: InMemoryMetricReader) -> dict[tuple[tuple[str, Any], ...], int]:
    """Return how often each set of attributes was counted so far."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    (metric,) = [
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        if scope.scope.name == "fastapi_guard"
        for metric in scope.metrics
    ]
    assert (metric.name, metric.unit) == (COUNTER, "{event}")
    return {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}


@pytest.mark.parametrize("level", [logging.CRITICAL, logging.DEBUG], ids=["silent", "logged"])
@pytest.mark.parametrize("listening", [False, True])
def test_every_decision_is_counted_once(
    level: int, listening: bool, reader: InMemoryMetricReader, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether anybody logs or listens, a decision is counted once, by what it was, whose, and why."""
    caplog.set_level(level, "fastapi_guard")
    app = application(**({"on_event": lambda _: None} if listening else {}))
    before = counted(reader)
    for path, headers, _ in CASES:
        request(app, path, headers)
    expected: dict[tuple[tuple[str, Any], ...], int] = {}
    for _, _, events in CASES:
        for event in events:
            key = tuple(sorted(attributes_of(event).items()))
            expected[key] = expected.get(key, 0) + 1
    after = counted(reader)
    assert {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key)} == expected
    assert expected[("auth", "tokens"), ("event", "authenticated")] == 4
    refused = (("auth", "tokens"), ("event", "refused"), ("reason", "missing_scope"), ("status", 403))
    assert expected[refused] == 2


def test_what_happens_to_a_credential_is_counted(reader: InMemoryMetricReader) -> None:
    """Its subject, its id and who did it are not among the attributes: there would be a series for each."""
    before = counted(reader)
    publish(Event("key_created", "keys", key_id="0123", subject="ada", actor="grace"), None)
    publish(Event("login_failed", "local", 401, "login_failed", subject="ada"), None)
    after = counted(reader)
    created = (("auth", "keys"), ("event", "key_created"))
    failed = (("auth", "local"), ("event", "login_failed"), ("reason", "login_failed"), ("status", 401))
    assert {key: after[key] - before.get(key, 0) for key in (created, failed)} == {created: 1, failed: 1}
