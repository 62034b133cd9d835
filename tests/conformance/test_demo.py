"""The demo against its own OpenAPI document: no answer that is not in there, and nothing in there without an answer."""

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from conformance.calls import FORM, SERVED, Demo

JSON = "application/json"
KEYS = "GET /.well-known/jwks.json"
POST = {"body": {"title": "x"}, "media_type": JSON}
UNREADABLE = {"body": b"\xff", "media_type": JSON}
# A call of each operation that is well formed.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "POST /posts": POST,
    "PUT /posts/{post_id}": {"path_parameters": {"post_id": 1}, **POST},
    "DELETE /posts/{post_id}": {"path_parameters": {"post_id": 1}},
    "POST /token": {"body": {"username": "eve", "password": "wrong"}, "media_type": FORM},
    "POST /token/refresh": {"body": {"refresh_token": "wrong"}, "media_type": FORM},
    "POST /token/revoke": {"body": {"token": "wrong"}, "media_type": FORM},
    "POST /keys": {"body": {"scopes": ["posts:read"]}, "media_type": JSON},
    "GET /keys/{key_id}": {"path_parameters": {"key_id": "none"}},
    "DELETE /keys/{key_id}": {"path_parameters": {"key_id": "none"}},
    "POST /keys/{key_id}/rotate": {"path_parameters": {"key_id": "none"}},
}
SCOPED = ["GET /posts", "POST /posts", "PUT /posts/{post_id}", "DELETE /posts/{post_id}", "GET /admin/users"]
# What is documented and never answered.
UNANSWERED = {
    # FastAPI documents 422 wherever there is a parameter, and any text may be asked for as the id of a key.
    ("GET /keys/{key_id}", 422),
    ("DELETE /keys/{key_id}", 422),
    # A credential may name nobody, whose keys these would be; each of the demo's names somebody.
    ("GET /keys/{key_id}", 403),
    ("DELETE /keys/{key_id}", 403),
    # A guard documents 401, 403 and 503, and these two ask for a credential alone.
    ("GET /me", 403),
    ("POST /logout", 403),
}


def test_generated_requests(demo: Demo) -> None:
    """Whatever is sent by whomever, in keeping with the document or not, the answer is documented, and no 5xx."""
    everything = demo.everything()
    callers = [None, "x.y.z", "sk-none", everything]
    if demo.kind != "key":
        callers.append(demo.nothing(everything))
    # Last, what ends the credentials.
    for label in sorted(demo.operations, key=lambda label: "logout" in label):
        operation = demo.operations[label]
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not (operation.body or list(operation.iter_parameters())):
                continue

            @settings(
                max_examples=15,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(mode), caller=st.sampled_from(callers))
            def answered(case: Any, caller: str | None) -> None:
                demo.send(case, caller, SERVED)

            answered()


def test_documented_statuses(demo: Demo) -> None:
    """Each documented status of each operation is answered by some request, and no other one is."""
    everything, expected = demo.everything(), demo.documented
    for label in demo.guarded:
        demo.call(label, None, 401, **ARGUMENTS.get(label, {}))
    for label in ("GET /health", "GET /me", "GET /posts", "GET /admin/users", KEYS):
        if label in demo.operations:
            demo.call(label, everything, 200)
    _posts(demo, everything)
    if demo.kind == "key":
        # It may do everything, nobody has another, and it asks nobody who could be away.
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
    demo.call("POST /keys", everything, 400, **UNREADABLE)
    demo.call("POST /keys/{key_id}/rotate", everything, 400, **place, **UNREADABLE)
    demo.call("POST /keys", everything, 422, body={"scopes": "posts:edit"}, media_type=JSON)
    demo.call("POST /keys", nothing, 403, body={"scopes": ["posts:edit"]}, media_type=JSON)
    demo.call("GET /keys", everything, 200)
    demo.call("GET /keys", everything, 422, query={"limit": 0})
    demo.call("GET /keys", nothing, 403, query={"user_id": "somebody else"})
    demo.call("GET /keys/{key_id}", everything, 200, **place)
    demo.call("GET /keys/{key_id}", everything, 404, path_parameters={"key_id": "none"})
    demo.call("POST /keys/{key_id}/rotate", everything, 422, **place, body={"overlap_seconds": -1}, media_type=JSON)
    demo.call("POST /keys/{key_id}/rotate", nothing, 403, **place)
    demo.call("POST /keys/{key_id}/rotate", everything, 201, **place, body={}, media_type=JSON)
    demo.call("POST /keys/{key_id}/rotate", everything, 409, **place, body={}, media_type=JSON)
    demo.call("POST /keys/{key_id}/rotate", everything, 404, path_parameters={"key_id": "none"})
    demo.call("DELETE /keys/{key_id}", everything, 204, **place)
    demo.call("DELETE /keys/{key_id}", everything, 404, path_parameters={"key_id": "none"})


def _login(demo: Demo) -> dict[str, dict[str, Any]]:
    tokens = demo.log_in("grace")
    form = {"refresh_token": tokens["refresh_token"]}
    pair = demo.call("POST /token/refresh", None, 200, body=form, media_type=FORM)
    demo.call("POST /token/revoke", None, 200, **ARGUMENTS["POST /token/revoke"])
    demo.call("POST /logout", tokens["access_token"], 204)
    for label in ("POST /token", "POST /token/refresh", "POST /token/revoke"):
        demo.call(label, None, 422, body={}, media_type=JSON)
        demo.call(label, None, 415, body="x", media_type="text/plain")
        demo.call(label, None, 413, body={"username": "x" * 4 * 1024 * 1024}, media_type=FORM)
    demo.call("POST /token/refresh", None, 400, **ARGUMENTS["POST /token/refresh"])
    for _ in range(5):
        demo.call("POST /token", None, 400, **ARGUMENTS["POST /token"])
    demo.call("POST /token", None, 429, **ARGUMENTS["POST /token"])
    # What is refused without the database says nothing of it: a token that is like none, an account that is throttled.
    token = pair["refresh_token"]
    return {
        "POST /token": {"body": {"username": "nobody", "password": "wrong"}, "media_type": FORM},
        "POST /token/refresh": {"body": {"refresh_token": token}, "media_type": FORM},
        "POST /token/revoke": {"body": {"token": token}, "media_type": FORM},
    }
