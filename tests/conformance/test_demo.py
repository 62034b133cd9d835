"""The demo against its own OpenAPI document: no answer that is not in there, and nothing in there without an answer."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from conformance.calls import FORM, GENERATED, SERVED, Demo
from demo import PASSWORDS

JSON = "application/json"
KEYS = "GET /.well-known/jwks.json"
POST = {"body": {"title": "x"}, "media_type": JSON}
UNREADABLE = {"body": b"\xff", "media_type": JSON}
WRONG = {"body": {"username": "eve", "password": "wrong"}, "media_type": FORM}
NO_KEY = {"path_parameters": {"key_id": "none"}}
# A call of each operation that is well formed.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "POST /posts": POST,
    "PUT /posts/{post_id}": {"path_parameters": {"post_id": 1}, **POST},
    "DELETE /posts/{post_id}": {"path_parameters": {"post_id": 1}},
    "POST /login": WRONG,
    "POST /login/step-up": {"body": {"factor": "password", "password": "wrong"}, "media_type": FORM},
    "POST /login/step-up/challenge": {"body": {"factor": "password"}, "media_type": FORM},
    "DELETE /devices/{device_id}": {"path_parameters": {"device_id": "none"}},
    "POST /token": WRONG,
    "POST /token/refresh": {"body": {"refresh_token": "wrong"}, "media_type": FORM},
    "POST /token/revoke": {"body": {"token": "wrong"}, "media_type": FORM},
    "POST /keys": {"body": {"scopes": ["posts:read"]}, "media_type": JSON},
    "GET /keys/{key_id}": NO_KEY,
    "DELETE /keys/{key_id}": NO_KEY,
    "GET /keys/{key_id}/usage": NO_KEY,
    "POST /keys/{key_id}/rotate": NO_KEY,
    "POST /keys/{key_id}/pause": NO_KEY,
    "POST /keys/{key_id}/resume": NO_KEY,
}
SCOPED = ["GET /posts", "POST /posts", "PUT /posts/{post_id}", "DELETE /posts/{post_id}", "GET /admin/users"]
# What is documented and never answered.
UNANSWERED = {
    # FastAPI documents 422 wherever there is a parameter, and any text may be asked for as the id of a key or a login.
    ("GET /keys/{key_id}", 422),
    ("DELETE /keys/{key_id}", 422),
    ("GET /keys/{key_id}/usage", 422),
    ("POST /keys/{key_id}/pause", 422),
    ("POST /keys/{key_id}/resume", 422),
    ("DELETE /devices/{device_id}", 422),
    # A credential may have no subject, whose keys these would be; each of the demo's has one.
    ("GET /keys/{key_id}", 403),
    ("DELETE /keys/{key_id}", 403),
    ("GET /keys/{key_id}/usage", 403),
    ("POST /keys/{key_id}/pause", 403),
    # A token may be of no login; each of the demo's is of one.
    ("GET /login/step-up", 403),
    # A guard documents 401, 403 and 503, and these require a credential alone.
    ("GET /me", 403),
    ("POST /logout", 403),
    ("GET /devices", 403),
    ("DELETE /devices", 403),
    ("DELETE /devices/{device_id}", 403),
}


def test_generated_requests(demo: Demo) -> None:
    """Any request of any caller, valid or not, gets a documented response, and never a 5xx."""
    everything = demo.everything()
    callers = [None, "x.y.z", "sk-none", everything]
    if demo.kind != "key":
        callers.append(demo.nothing(everything))
    # Last, what ends the credentials.
    for number, label in enumerate(sorted(demo.operations, key=lambda label: "logout" in label), 2):
        operation = demo.operations[label]
        # A login accepts so few requests of one address that the later operations would be throttled by the earlier.
        demo.address = f"192.0.2.{number}"
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not _can_be_malformed(operation):
                continue

            @settings(GENERATED, max_examples=15)
            @given(case=operation.as_strategy(mode), caller=st.sampled_from(callers))
            def answered(case: Any, caller: str | None) -> None:
                demo.send(case, caller, SERVED)

            answered()


def test_documented_statuses(demo: Demo) -> None:
    """Each documented status of each operation is the response to some request, and no other one is."""
    everything, expected = demo.everything(), demo.documented
    for label in demo.guarded:
        demo.call(label, None, 401, **ARGUMENTS.get(label, {}))
    for label in ("GET /health", "GET /me", "GET /posts", "GET /admin/users", KEYS):
        if label in demo.operations:
            demo.call(label, everything, 200)
    _posts(demo, everything)
    if demo.kind == "key":
        # The only key may do everything, and its verification needs no service that could be unavailable.
        expected = {label: statuses - {403, 503} for label, statuses in expected.items()}
    else:
        nothing = demo.nothing(everything)
        for label in SCOPED:
            demo.call(label, nothing, 403, **ARGUMENTS.get(label, {}))
        _keys(demo, everything, nothing)
        kept = _login(demo) if demo.kind == "login" else {}
        demo.lose_database()
        for label in set(demo.operations) - {"GET /health", KEYS}:
            arguments = kept.get(label) or ARGUMENTS.get(label, {})
            demo.call(label, everything if label in demo.guarded else None, 503, **arguments)
    for label, status in UNANSWERED:
        expected.get(label, set()).discard(status)
    assert demo.answered == expected


def _can_be_malformed(operation: Any) -> bool:
    # Any text fits a parameter that is a text without another rule.
    schemas = [parameter.definition["schema"] for parameter in operation.iter_parameters()]
    texts = [schema.get("type") == "string" and schema.keys() <= {"type", "title"} for schema in schemas]
    return bool(operation.body) or not all(texts)


def _bodies(demo: Demo, label: str, credential: str | None, malformed: int, **place: Any) -> None:
    demo.call(label, credential, malformed, **place, **UNREADABLE)
    demo.call(label, credential, 415, **place, body="x", media_type="text/plain")
    demo.call(label, credential, 413, **place, body={"name": "x" * 64 * 1024}, media_type=JSON)


def _posts(demo: Demo, everything: str) -> None:
    made = demo.call("POST /posts", everything, 201, **POST)
    place = {"path_parameters": {"post_id": made["id"]}}
    demo.call("POST /posts", everything, 400, **UNREADABLE)
    demo.call("PUT /posts/{post_id}", everything, 400, **place, **UNREADABLE)
    demo.call("POST /posts", everything, 422, body={"title": ""}, media_type=JSON)
    demo.call("PUT /posts/{post_id}", everything, 200, **place, **POST)
    demo.call("PUT /posts/{post_id}", everything, 422, **place, body={}, media_type=JSON)
    demo.call("DELETE /posts/{post_id}", everything, 422, path_parameters={"post_id": "x"})
    demo.call("DELETE /posts/{post_id}", everything, 204, **place)
    demo.call("DELETE /posts/{post_id}", everything, 404, **place)
    demo.call("PUT /posts/{post_id}", everything, 404, **place, **POST)


def _keys(demo: Demo, everything: str, nothing: str) -> None:
    made = demo.call("POST /keys", everything, 201, body={"scopes": ["posts:edit"]}, media_type=JSON)
    place = {"path_parameters": {"key_id": made["key_id"]}}
    _bodies(demo, "POST /keys", everything, 422)
    _bodies(demo, "POST /keys/{key_id}/rotate", everything, 422, **place)
    demo.call("POST /keys", everything, 422, body={"scopes": "posts:edit"}, media_type=JSON)
    demo.call("POST /keys", nothing, 403, body={"scopes": ["posts:edit"]}, media_type=JSON)
    demo.call("GET /keys", everything, 200)
    demo.call("GET /keys", everything, 422, query={"limit": 0})
    demo.call("GET /keys", nothing, 403, query={"user_id": "somebody else"})
    for label in ("GET /keys/{key_id}", "GET /keys/{key_id}/usage"):
        demo.call(label, everything, 200, **place)
        demo.call(label, everything, 404, **NO_KEY)
    _pauses(demo, everything, nothing, place)
    demo.call("POST /keys/{key_id}/rotate", everything, 422, **place, body={"overlap_seconds": -1}, media_type=JSON)
    demo.call("POST /keys/{key_id}/rotate", nothing, 403, **place)
    demo.call("POST /keys/{key_id}/rotate", everything, 201, **place, body={}, media_type=JSON)
    demo.call("DELETE /keys/{key_id}", everything, 204, **place)
    demo.call("DELETE /keys/{key_id}", everything, 404, **NO_KEY)
    for label in ("POST /keys/{key_id}/rotate", "POST /keys/{key_id}/pause", "POST /keys/{key_id}/resume"):
        demo.call(label, everything, 409, **place)
        demo.call(label, everything, 404, **NO_KEY)
    # A constraint as an application adds it to the table.
    demo.change_database("CREATE UNIQUE INDEX one_ci ON api_keys (name) WHERE name = 'ci'")
    for status in (201, 409):
        demo.call("POST /keys", everything, status, body={"name": "ci"}, media_type=JSON)


def _pauses(demo: Demo, everything: str, nothing: str, place: dict[str, Any]) -> None:
    demo.call("POST /keys/{key_id}/pause", everything, 204, **place)
    # As if another administrator had paused it: each kind of the demo has one alone.
    demo.change_database("UPDATE api_keys SET paused_by = 'root' WHERE paused_at IS NOT NULL")
    demo.call("POST /keys/{key_id}/resume", nothing, 403, **place)
    demo.call("POST /keys/{key_id}/resume", everything, 204, **place)


def _login(demo: Demo) -> dict[str, dict[str, Any]]:
    tokens = demo.log_in("grace")
    access, user = tokens["access_token"], {"username": "grace", "password": PASSWORDS["grace"]}
    form = {"refresh_token": tokens["refresh_token"]}
    pair = demo.call("POST /token/refresh", None, 200, body=form, media_type=FORM)
    demo.call("POST /login", None, 200, body=user, media_type=FORM)
    demo.call("POST /login", None, 403, body={**user, "scope": "users:read"}, media_type=FORM)
    demo.call("POST /token/revoke", None, 200, **ARGUMENTS["POST /token/revoke"])
    demo.call("POST /token/refresh", None, 400, **ARGUMENTS["POST /token/refresh"])
    for label in ("POST /login", "POST /token", "POST /token/refresh", "POST /token/revoke"):
        malformed = 422 if label == "POST /login" else 400
        demo.call(label, None, malformed, body={}, media_type=JSON)
        _bodies(demo, label, None, malformed)
    _devices(demo, access)
    _step_ups(demo, access)
    demo.call("POST /logout", access, 204)
    demo.call("POST /login", None, 401, **WRONG)
    for _ in range(4):
        demo.call("POST /token", None, 400, **WRONG)
    demo.call("POST /token", None, 429, **WRONG)
    demo.call("POST /login", None, 429, **WRONG)
    # A refusal that needs no database does not depend on it: a token like no key, an account that is throttled.
    token = pair["refresh_token"]
    unknown = {"body": {"username": "unknown", "password": "wrong"}, "media_type": FORM}
    return {
        "POST /login": unknown,
        "POST /token": unknown,
        "POST /token/refresh": {"body": {"refresh_token": token}, "media_type": FORM},
        "POST /token/revoke": {"body": {"token": token}, "media_type": FORM},
    }


def _devices(demo: Demo, access: str) -> None:
    devices = demo.call("GET /devices", access, 200)
    [other] = [device["id"] for device in devices if not device["current"]]
    for status in (204, 404):
        demo.call("DELETE /devices/{device_id}", access, status, path_parameters={"device_id": other})
    demo.log_in("grace")
    assert demo.call("DELETE /devices", access, 200) == {"ended": 1}


def _step_ups(demo: Demo, access: str) -> None:
    assert demo.call("GET /login/step-up", access, 200) == {"factors": ["password"]}
    step_up, challenge = "POST /login/step-up", "POST /login/step-up/challenge"
    unknown = {"body": {"factor": "totp"}, "media_type": FORM}
    for label in (step_up, challenge):
        demo.call(label, access, 422, body={}, media_type=JSON)
        _bodies(demo, label, access, 422)
    demo.call(challenge, access, 200, **ARGUMENTS[challenge])
    password = {"factor": "password", "password": PASSWORDS["grace"]}
    demo.call(step_up, access, 200, body=password, media_type=FORM)
    demo.call(step_up, access, 401, **ARGUMENTS[step_up])
    for label in (step_up, challenge):
        for _ in range(5):
            demo.call(label, access, 403, **unknown)
        demo.call(label, access, 429, **unknown)
