"""Every router of the package against its own OpenAPI document, in one application."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyotp
import pytest
import requests
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from conformance.calls import FORM, SERVED, Served
from conformance.every_router import PASSWORD, EveryRouter
from fastapi_guard.jwt.key_file import KeyFile

JSON = "application/json"
# Of no operation: not UTF-8, neither a form nor JSON, too long, not an object, too deep, of wrong types.
MALFORMED = [
    (b"\xff", JSON),
    (b"x", "text/plain"),
    (b'{"name": "' + b"x" * 64 * 1024 + b'"}', JSON),
    (b"[]", JSON),
    (b"[" * 5000, JSON),
    (b'{"code": {"a": [1e400]}, "token": 1, "email": [], "username": null, "password": {}, "pending": true}', JSON),
    (b'{"name": "\\ud800", "code": "\\u0000", "token": "\\ud800", "email": "\\u0000@x", "scopes": "x"}', JSON),
    (b"username=%00&password=%FF&code=%F0&name=%00&token=%ED%A0%80", FORM),
]
LOGIN = {"username": "ada", "password": PASSWORD}


class Everything(Served):
    """The served application, and what is in its process."""

    def __init__(self, url: str, session: requests.Session, made: EveryRouter) -> None:
        """Read the document at `url`."""
        super().__init__(url, session)
        self.made = made

    def token(self, **login: str) -> str:
        """Return an access token."""
        made: str = self.call("POST /login", None, 200, body=login or LOGIN, media_type=JSON)["access_token"]
        return made

    def cookie(self, **login: str) -> str:
        """Return the cookie of a session."""
        answer = self.answer("POST /session/login", None, 204, body=login or LOGIN, media_type=JSON)
        cookie: str = answer.headers["set-cookie"][0].partition(";")[0]
        return cookie

    def mailed(self) -> str:
        """Return the token of the link in the next message, which is sent after the response."""
        link = self.made.messages.get(timeout=60).link
        return link.partition("#token=")[2] if link else self.mailed()


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Everything]:
    """Serve the application in a thread, so that a test sees what it sends."""
    keys = KeyFile(tmp_path / "keys.json")
    keys.generate("ES256")
    made = EveryRouter(keys)
    made.app.openapi()  # which takes a while, and is kept
    with socket.create_server(("127.0.0.1", 0)) as bound, requests.Session() as session:
        server = uvicorn.Server(uvicorn.Config(made.app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            yield Everything(f"http://127.0.0.1:{bound.getsockname()[1]}", session, made)
        finally:
            server.should_exit = True
            thread.join()


def test_generated_requests_of_every_router(everything: Everything) -> None:
    """Any request of any caller gets a documented response, and never a 5xx."""
    for operation in everything.operations.values():
        # An operation may end the credentials that it is called with.
        callers = [None, "x.y.z", everything.token(), everything.cookie()]

        @settings(
            max_examples=5,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(GenerationMode.POSITIVE), caller=st.sampled_from(callers))
        def answered(case: Any, caller: str | None) -> None:
            everything.send(case, caller, SERVED)

        answered()


def test_malformed_bodies_of_every_router(everything: Everything) -> None:
    """A malformed body gets a documented response, and never a 5xx."""
    for label, operation in everything.operations.items():
        if not label.startswith(("POST", "PATCH")):
            continue
        caller = everything.cookie() if "/session/" in label else everything.token()
        place = {"path_parameters": dict.fromkeys(re.findall(r"{(\w+)}", label), "totp")}
        for body, media_type in MALFORMED:
            everything.send(operation.Case(**place, body=body, media_type=media_type), caller, SERVED)


def test_successes_of_every_router(everything: Everything) -> None:
    """A success is documented too: of accounts, second factors, providers, keys and tickets."""
    served, token = everything, everything.token()
    _factors(served)
    _accounts(served)
    _sign_ins(served)
    for prefix in ("/api-keys", "/service-accounts/ci/keys"):
        _keys(served, prefix, token)
    served.call("GET /service-accounts", token, 200)
    served.call("POST /tickets", token, 201, body={"path": "/x"}, media_type=FORM)
    served.call("POST /chat/tickets", token, 201, body={}, media_type=FORM)
    served.call("GET /.well-known/jwks.json", None, 200)
    pair = served.call("POST /token", None, 200, body=LOGIN, media_type=FORM)
    refresh = {"refresh_token": pair["refresh_token"]}
    pair = served.call("POST /token/refresh", None, 200, body=refresh, media_type=FORM)
    served.call("GET /devices", pair["access_token"], 200)
    served.call("DELETE /devices", pair["access_token"], 200)
    served.call("POST /token/revoke", None, 200, body={"token": pair["refresh_token"]}, media_type=FORM)
    cookie = served.cookie()
    served.call("GET /session/sessions", cookie, 200)
    served.call("DELETE /session/sessions", cookie, 200)
    served.call("POST /session/logout", cookie, 204)


def _factors(served: Everything) -> None:
    grace = {"username": "grace", "password": PASSWORD}
    token = served.token(**grace)
    begun = _enrol(served, token, "totp")
    device = pyotp.TOTP(begun["secret"])
    proof = {"enrolment": begun["enrolment"], "code": device.now()}
    served.call("POST /factors/confirm", token, 200, body=proof, media_type=FORM)
    codes = _enrol(served, token, "recovery")["codes"]
    later = device.at(int(time.time()) + 30)  # a clock may be a step early
    for prefix, kind, code in (
        ("", "recovery", codes[0]),
        ("/session", "recovery", codes[1]),
        ("/spa", "totp", later),
    ):
        answer = served.answer(f"POST {prefix}/login", None, 202, body=grace, media_type=JSON)
        needed = answer.json()
        step = {"code": code} | ({"pending": needed["pending"]} if "pending" in needed else {})
        pending = answer.headers["set-cookie"][0].partition(";")[0] if "pending" not in needed else None
        status = 204 if prefix == "/session" else 200
        served.call(f"POST {prefix}/login/{kind}", pending, status, body=step, media_type=FORM)
    factor = served.call("GET /factors", token, 200)["factors"][0]
    place = {"path_parameters": {"factor_id": factor["id"]}}
    served.call("PATCH /factors/{factor_id}", token, 204, **place, body={"name": "phone"}, media_type=FORM)


def _enrol(served: Everything, token: str, kind: str) -> Any:
    body = {"body": {"name": kind}, "media_type": FORM}
    return served.call("POST /factors/{kind}", token, 200, path_parameters={"kind": kind}, **body)


def _accounts(served: Everything) -> None:
    account = {"email": "kay@shop.example", "password": "difference engine no 2"}
    served.call("POST /register", None, 202, body=account, media_type=FORM)
    served.call("POST /verify/resend", None, 202, body={"email": account["email"]}, media_type=FORM)
    proof = {"token": served.mailed(), "password": account["password"]}
    served.call("POST /verify", None, 204, body=proof, media_type=FORM)
    served.call("POST /forgot", None, 202, body={"username": account["email"]}, media_type=FORM)
    reset = {"token": served.mailed(), "password": "a loom of punched cards"}
    served.call("POST /reset", None, 204, body=reset, media_type=FORM)
    token = served.token(username=account["email"], password=reset["password"])
    served.call("GET /account", token, 200)
    moved = {"email": "kay@mill.example", "password": reset["password"]}
    served.call("POST /account/address", token, 202, body=moved, media_type=FORM)
    served.call("POST /account/address/confirm", token, 204, body={"token": served.mailed()}, media_type=FORM)
    token = served.token(username=moved["email"], password=reset["password"])
    change = {"current_password": reset["password"], "password": account["password"]}
    served.call("POST /account/password", token, 204, body=change, media_type=FORM)
    token = served.token(username=moved["email"], password=account["password"])
    served.call("POST /invitations", token, 202, body={"email": "lin@shop.example"}, media_type=FORM)
    served.call("POST /account/delete", token, 204, body={"password": account["password"]}, media_type=FORM)


def _sign_ins(served: Everything) -> None:
    acme = {"path_parameters": {"provider": "acme"}}
    served.call("GET /session/providers", None, 200)
    begun = served.answer("POST /session/providers/{provider}/start", None, 200, **acme, body={}, media_type=FORM)
    browser = begun.headers["set-cookie"][0].partition(";")[0]
    url = served.made.issuer.authorize(begun.json()["authorization_url"], sub="lovelace")
    parameters = dict(parse_qsl(urlsplit(url).query))
    finish = "POST /session/providers/{provider}/finish"
    answer = served.answer(finish, browser, 204, **acme, body=parameters, media_type=FORM)
    cookies = [cookie.partition(";")[0] for cookie in answer.headers["set-cookie"] if "Max-Age=0" not in cookie]
    served.call("GET /session/identities", "; ".join(cookies), 200)
    begun = served.answer("GET /session/providers/{provider}", None, 303, **acme)
    browser = begun.headers["set-cookie"][0].partition(";")[0]
    url = served.made.issuer.authorize(begun.headers["location"][0], sub="lovelace")
    query = dict(parse_qsl(urlsplit(url).query))
    served.answer("GET /session/providers/{provider}/callback", browser, 303, **acme, query=query)


def _keys(served: Everything, prefix: str, token: str) -> None:
    place = {"path_parameters": {"account": "ci"}} if prefix.startswith("/service") else {}
    path = prefix.replace("/ci/", "/{account}/")
    body = {"body": {"name": "robot", "scopes": ["items:read"]}, "media_type": JSON}
    made = served.call(f"POST {path}", token, 201, **place, **body)
    served.call(f"GET {path}", token, 200, **place)
    one = {"path_parameters": {"key_id": made["key_id"], **place.get("path_parameters", {})}}
    for method, end, status in (
        ("GET", "", 200),
        ("GET", "/usage", 200),
        ("POST", "/pause", 204),
        ("POST", "/resume", 204),
        ("DELETE", "", 204),
    ):
        served.call(f"{method} {path}/{{key_id}}{end}", token, status, **one)
