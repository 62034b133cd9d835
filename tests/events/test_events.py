"""Events in the log, in a callback, and as metrics of OpenTelemetry."""

import asyncio
import json
import logging
import re
import subprocess
import sys
from dataclasses import fields
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from fastapi_guard import ConfigurationError, ScopesAuth, ServiceUnavailable, Unauthorized, configure_app
from fastapi_guard.events import COUNTER, AuditTrail, Event, attributes_of, event_schema, place, publish, publishing
from fastapi_guard.events.event import KINDS, NAMES
from fastapi_guard.events.publishing import DURATION
from support.asgi import call_scope, request, scope_of
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
    """Return an application with a route that every known caller may call, and one for which that is not enough."""
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
    """The log has who decided what and why, on one line, and nothing that the client sent."""
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


def test_a_callback_that_returns_a_coroutine(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing awaits it, so that the event is lost: the log has that, and the request does not fail."""

    async def save(event: Event) -> None:
        raise AssertionError(event)  # pragma: no cover - it is not awaited

    app = application(on_event=lambda event: save(event))  # noqa: PLW0108 - its signature is that of a def
    assert request(app, headers=bearer(b"good")).status == 200
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["an event is lost: on_event returned a coroutine, which nothing awaits"]


@pytest.mark.parametrize("callback", [AuditTrail, lambda: None, lambda event, path: None], ids=["class", "0", "2"])
def test_what_cannot_be_called_with_an_event(callback: Any) -> None:
    """A class, and a function of other parameters, would lose every event."""
    with pytest.raises(ConfigurationError, match=r"^on_event is a function of one Event"):
        application(on_event=callback)


def test_an_event_without_a_callback(caplog: pytest.LogCaptureFixture) -> None:
    """Without a callback there is the log alone."""
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
    """A subject with line ends is escaped in the record and in its text, and untouched for the callback."""
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
        if metric.name == COUNTER
    ]
    assert (metric.name, metric.unit) == (COUNTER, "{event}")
    return {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}


def durations(reader: InMemoryMetricReader) -> dict[tuple[str, str], int]:
    """Return how many decisions were timed, by Auth and outcome; the unit is the second."""
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = [
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == DURATION
    ]
    assert metric.unit == "s"
    # A test that hangs for longer has failed already.
    assert all(0 <= point.sum < 240 * point.count for point in metric.data.data_points)
    assert {tuple(point.explicit_bounds)[:2] for point in metric.data.data_points} == {(0.00005, 0.0001)}
    return {(point.attributes["auth"], point.attributes["outcome"]): point.count for point in metric.data.data_points}


@pytest.mark.parametrize("level", [logging.CRITICAL, logging.DEBUG], ids=["silent", "logged"])
@pytest.mark.parametrize("listening", [False, True])
def test_every_decision_is_counted_once(
    level: int, listening: bool, reader: InMemoryMetricReader, caplog: pytest.LogCaptureFixture
) -> None:
    """With and without a log and a callback, a decision is counted once, by what it was, whose, and why."""
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


def test_decisions_are_timed(reader: InMemoryMetricReader) -> None:
    """Each decision about a credential is in the histogram once, by Auth and outcome; a request without one is not."""
    app = application(name="timed")
    for raw in (b"good", b"good", b"bad", b"undecided"):
        request(app, headers=bearer(raw))
    request(app)
    timed = {outcome: number for (auth, outcome), number in durations(reader).items() if auth == "timed"}
    assert timed == {"verified": 2, "refused": 1, "unavailable": 1}


def test_reasons_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that makes ever new reasons adds 200 series at most; all others are one."""
    monkeypatch.setattr(publishing, "_reasons", set())
    found = {publishing.known_reason(f"reason_{number}") for number in range(300)}
    assert len(found) == 201
    assert "other" in found
    assert publishing.known_reason("reason_1") == "reason_1"
    assert publishing.known_reason("x" * 65) == "other"


def test_a_scrape_by_prometheus() -> None:
    """An exporter of Prometheus serves the counter and the histogram, in a process that has it as its provider."""
    script = (
        "from opentelemetry import metrics\n"
        "from opentelemetry.exporter.prometheus import PrometheusMetricReader\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from prometheus_client import start_http_server, generate_latest\n"
        "metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))\n"
        "from urllib.request import urlopen\n"
        "from fastapi import FastAPI\n"
        "from fastapi.testclient import TestClient\n"
        "from fastapi_guard import StaticAPIKeyAuth\n"
        "auth = StaticAPIKeyAuth({'a-key-that-is-long-enough-for-this': {'user_id': 'robot', 'scopes': []}})\n"
        "app = FastAPI()\n"
        "app.get('/', dependencies=[auth.authenticated()])(lambda: None)\n"
        "client = TestClient(app)\n"
        "for key in ('a-key-that-is-long-enough-for-this', 'bad', 'bad'):\n"
        "    client.get('/', headers={'Authorization': f'Bearer {key}'})\n"
        "server, thread = start_http_server(0, addr='127.0.0.1')\n"
        "print(urlopen(f'http://127.0.0.1:{server.server_port}/metrics').read().decode())\n"
        "server.shutdown()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    scraped = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own
    lines = [line for line in scraped.splitlines() if line.startswith("fastapi_guard_")]
    (counted,) = [line for line in lines if line.startswith("fastapi_guard_events_total{") and "refused" in line]
    assert counted.endswith(" 2.0")
    assert all(part in counted for part in ('auth="api-key"', 'reason="unknown_key"', 'status="401"'))
    name = "fastapi_guard_decision_duration_seconds_count{"
    (timed,) = [line for line in lines if line.startswith(name) and "verified" in line]
    assert timed.endswith(" 1.0")


def test_the_circumstances() -> None:
    """An event has the route, the method, the client, the user agent and the ids of the request and its trace."""
    events: list[Event] = []
    app = application(on_event=events.append)
    configure_app(app, trusted_proxies=1, request_id_header="X-Request-Id")
    headers = [
        *bearer(b"good"),
        (b"x-forwarded-for", b"198.51.100.1, 203.0.113.7"),
        (b"user-agent", b"a\x1bgent" + b"x" * 300),
        (b"x-request-id", b"4711-abc"),
    ]
    context = SpanContext(trace_id=0xABC, span_id=1, is_remote=False, trace_flags=TraceFlags(1))
    with use_span(NonRecordingSpan(context)):
        request(app, "/b", headers)
    authenticated, refused = events
    for event in (authenticated, refused):
        assert (event.subject, event.route, event.method, event.client) == ("ada", "/b", "GET", "203.0.113.7")
        assert (event.request_id, event.trace_id) == ("4711-abc", f"{0xABC:032x}")
        assert event.user_agent is not None
        assert event.user_agent.startswith("agentxxx")
        assert len(event.user_agent) == 255
    assert (authenticated.requirement, refused.requirement) == (None, "b")


BAD_IDS = [b"", b"x" * 129, b"a b", b"a\r\nb", b"\xe9"]


@pytest.mark.parametrize("value", BAD_IDS, ids=range(len(BAD_IDS)))
def test_an_id_of_a_request_is_bounded(value: bytes) -> None:
    """An id that is too long, or has other characters, is left out; without a configured header nothing is read."""
    events: list[Event] = []
    app = application(on_event=events.append)
    configure_app(app, request_id_header="X-Request-Id")
    request(app, headers=[(b"x-request-id", value)])
    plain = application(on_event=events.append)
    request(plain, headers=[(b"x-request-id", b"4711"), (b"x-forwarded-for", b"203.0.113.7")])
    assert [(event.request_id, event.client, event.user_agent) for event in events] == [(None, "192.0.2.1", None)] * 2


def test_what_a_token_chose_is_bounded() -> None:
    """A long subject is its hash; what is not text, or belongs to no mapping, is nothing."""
    assert place.who_of({"sub": "x" * 257, "iss": 5})["subject"] == "sha256:" + sha256(b"x" * 257).hexdigest()
    assert place.who_of({"sub": "x", "iss": 5, "key_id": "k"}) == {"subject": "x", "issuer": None, "key_id": "k"}
    assert place.who_of("raw") == {}
    assert place.place_of(None) == {"trace_id": None}


@pytest.mark.parametrize("proxies", [-1, True, "1"])
def test_a_number_of_proxies(proxies: Any) -> None:
    """The number of proxies is a whole number from 0 on."""
    with pytest.raises(ConfigurationError, match="trusted_proxies is a number of proxies from 0 on"):
        configure_app(FastAPI(), trusted_proxies=proxies)


def test_a_client_that_is_not_known() -> None:
    """A server that names no peer, as on a Unix socket, leaves the client out."""
    events: list[Event] = []
    for options in ({}, {"trusted_proxies": 1}):
        app = application(on_event=events.append)
        configure_app(app, **options)
        scope = {**scope_of("/", []), "client": None}
        asyncio.run(call_scope(app, scope))
    assert [event.client for event in events] == [None, None]


SCHEMA = json.loads((files("fastapi_guard.events") / "schema.json").read_text())


def test_the_schema_is_shipped() -> None:
    """The file in the package is the schema of the code, with every kind and every member."""
    assert event_schema() == SCHEMA
    assert tuple(KINDS) == NAMES
    assert {kind["const"] for kind in SCHEMA["properties"]["event"]["oneOf"]} == set(NAMES)
    members = {field.name for field in fields(Event)} - {"name", "at"}
    assert set(SCHEMA["properties"]) == {"version", "time", "event", *members}
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_published_events_are_valid_by_the_schema() -> None:
    """Every kind of event is valid by the schema, as published and as a dict; other members are not."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    events: list[Event] = []
    app = application(on_event=events.append)
    for path, headers, _ in CASES:
        request(app, path, [*headers, (b"user-agent", b"tests")])
    events += [Event(name, "auth", subject="x" * 1000, actor="cli:root", key_id="0123") for name in NAMES]
    assert len(events) > len(NAMES) + len(CASES)
    for event in events:
        validator.validate(event.as_dict())
    assert not validator.is_valid({**events[0].as_dict(), "password": "x"})
    assert not validator.is_valid({**events[0].as_dict(), "event": "unknown"})
    assert events[0].as_dict()["version"] == 1
    assert Event("refused", "a", at=0.5).as_dict()["time"] == "1970-01-01T00:00:00.500Z"


def test_the_kinds_are_documented() -> None:
    """The page has each kind with its level and its meaning, in the order of the list."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "events.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \| (.*) \|$", page, flags=re.MULTILINE)
    assert rows == [(name, logging.getLevelName(kind.level), kind.meaning) for name, kind in KINDS.items()]
