"""What happened, in the log and in a callback."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI

from asgi import request
from fastapi_guard import ScopesAuth, ServiceUnavailable, Unauthorized
from fastapi_guard.events import Event, publish


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


CASES = [
    ("/", bearer(b"good"), [Event("authenticated", "tokens")]),
    ("/", [], [Event("refused", "tokens", 401, "missing")]),
    ("/", bearer(b"\xff"), [Event("refused", "tokens", 401, "malformed")]),
    ("/", bearer(b"a, Bearer b"), [Event("refused", "tokens", 401, "two_credentials")]),
    ("/", bearer(b"bad"), [Event("refused", "tokens", 401, "bad_signature")]),
    ("/", bearer(b"undecided"), [Event("refused", "tokens", 503, "keys_not_loaded")]),
    ("/b", bearer(b"good"), [Event("authenticated", "tokens"), Event("refused", "tokens", 403, "missing_scope")]),
    ("/any", bearer(b"good"), [Event("authenticated", "tokens"), Event("refused", "tokens", 403, "missing_scope")]),
    ("/admin", bearer(b"good"), [Event("authenticated", "tokens"), Event("refused", "tokens", 403, "not_admin")]),
]


@pytest.mark.parametrize(("path", "headers", "expected"), CASES, ids=repr)
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
