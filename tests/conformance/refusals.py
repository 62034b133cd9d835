"""Requests that are refused, of each operation of every router."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from conformance.calls import FORM
from conformance.every_router import PASSWORD
from conformance.everything import JSON, LOGIN, TRIES, Everything, cookies_of
from conformance.successes import ACME, WAYS, Way, enrol, logout_token, pending, sign_in
from support.authenticator import Authenticator

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
    (b"x=1&x=2", FORM),
    (b"x=" + b"x" * 64 * 1024, FORM),
]
# Parameters of paths: of nothing that there is, and what comes as far as a database.
NOWHERE = {
    "account": "ci",
    "device_id": "none",
    "factor_id": "none",
    "identity": "none",
    "key_id": "0123456789abcdef",
    "kind": "none",
    "session_id": "none",
}
PLACES = {**NOWHERE, "kind": "totp", **ACME}
LONG = "x" * 256
USERS = "fastapi_guard_users"
ELSEWHERE = {"Origin": "https://evil.example"}
ROBOT = {"name": "robot", "scopes": ["items:read"]}
NEW = {"email": "kay@shop.example", "password": "difference engine no 2", "username": "kay"}
SIGN_IN = {"state": "x", "code": "x"}
# The id of no pending login, of the length that an id has: others are refused without a look into the store.
PENDING = "x" * 43
# A body of each operation that has one, by the path without its prefix.
BODIES: dict[str, Any] = {
    "/login": {"username": "ada", "password": "wrong"},
    "/login/challenge": {"factor": "totp", "pending": PENDING},
    "/login/passkey/begin": {},
    "/login/mail/begin": {"username": "ada@shop.example"},
    "/login/step-up": {"factor": "password", "password": "wrong"},
    "/login/step-up/challenge": {"factor": "totp"},
    "/token": {"username": "ada", "password": "wrong"},
    "/token/refresh": {"refresh_token": "x"},
    "/token/revoke": {"token": "x"},
    "/register": NEW,
    "/verify": {"token": "x"},
    "/verify/resend": {"email": "kay@shop.example"},
    "/forgot": {"username": "ada"},
    "/reset": {"token": "x", "password": "difference engine no 2"},
    "/account/password": {"password": "difference engine no 2", "current_password": "wrong"},
    "/account/delete": {"password": "wrong"},
    "/account/address": {"email": "kay@shop.example", "password": "wrong"},
    "/account/address/confirm": {"token": "x"},
    "/invitations": {"email": "kay@shop.example"},
    "/invitations/accept": {"token": "x", "password": "difference engine no 2"},
    "/invitations/join": {"token": "x"},
    "/factors/confirm": {"enrolment": "x", "code": "000000"},
    "/factors/{kind}": {},
    "/factors/{factor_id}": {"name": "phone"},
    "/factors/{factor_id}/rename": {"name": "phone"},
    "/api-keys": ROBOT,
    "/api-keys/{key_id}/rotate": {},
    "/service-accounts/{account}/keys": ROBOT,
    "/service-accounts/{account}/keys/{key_id}/rotate": {},
    "/providers/{provider}/start": {},
    "/providers/{provider}/finish": SIGN_IN,
    "/providers/{provider}/logout": {"logout_token": "x"},
    "/identities/{provider}/start": {},
    "/tickets": {"path": "/x"},
    "/chat/tickets": {},
}
PROOF = {"code": "000000", "pending": PENDING}
# A second step, or the end of a login that began with a factor; and what checks the origin of a page.
STEP = re.compile(r"POST (/spa|/session)?/login/(totp|passkey|recovery|mail)(/finish)?")
OF_PAGES = re.compile(
    r"POST /session.*|DELETE /session.*|POST /spa/log.*|POST /login/\w+/(begin|finish)|POST /providers/.*"
    r"|POST /(register|verify|verify/resend|forgot|reset|invitations/accept)"
)
# Bodies that a caller with a token may not send.
FORBIDDEN: dict[str, Any] = {
    "POST /login": {**LOGIN, "scope": "items:write"},
    "POST /login/step-up": {"factor": "none"},
    "POST /login/step-up/challenge": {"factor": "none"},
    "POST /spa/login/step-up": {"factor": "none"},
    "POST /spa/login/step-up/challenge": {"factor": "none"},
    "POST /tickets": {"path": "/x", "scope": "items:write"},
    "POST /chat/tickets": {"scope": "items:write"},
}
# A guard documents 401, 403 and 503, and these require a credential alone.
NEVER_FORBIDDEN = {
    "POST /logout",
    "GET /devices",
    "DELETE /devices",
    "DELETE /devices/{device_id}",
    "GET /spa/devices",
    "DELETE /spa/devices",
    "DELETE /spa/devices/{device_id}",
    "GET /session/sessions",
    "GET /identities",
    "GET /session/identities",
}
# The response to these is sent before anything is looked up: the throttle alone can be unreachable.
COUNTED_ALONE = re.compile(r"POST (/spa|/session)?/(forgot|verify/resend|login/mail/begin)")


def everything_is_refused(served: Everything) -> None:
    """Call each operation so that it is refused, for each reason that the document names."""
    for way in WAYS:
        enrol(served, way, way.credential(served.ask(f"POST {way.prefix}/login", way.done, way.login)))
    _malformed(served)
    _unauthorized(served)
    _forbidden(served)
    _missing(served)
    _conflicts(served)
    _throttled(served)
    _unavailable(served)


def documented(served: Everything, status: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the operations that document a status, each with parameters of its path."""
    for label, statuses in served.documented.items():
        if status in statuses:
            yield label, {name: PLACES[name] for name in re.findall(r"{(\w+)}", label)}


def counted_alone(served: Everything) -> list[str]:
    """Return the operations that send their response before they look anything up, and need a throttle alone."""
    return [label for label, _ in documented(served, 503) if COUNTED_ALONE.fullmatch(label)]


def body_of(label: str) -> Any:
    """Return a body for an operation, which is wrong where it is a proof."""
    return PROOF if STEP.fullmatch(label) else BODIES.get(re.sub(r"^\w+ (/spa|/session)?", "", label))


class Callers:
    """Credentials of one user: a token and a session."""

    def __init__(self, token: str, cookie: str) -> None:
        """Have both."""
        self._token, self._cookie = token, cookie

    def of(self, label: str) -> str:
        """Return the credential that an operation accepts."""
        return self._cookie if " /session/" in label else self._token


def _malformed(served: Everything) -> None:
    callers = Callers(served.token(), served.cookie())
    for label, path in documented(served, 413):
        for body, media_type in MALFORMED:
            served.send(
                served.operations[label].Case(path_parameters=path, body=body, media_type=media_type), callers.of(label)
            )
    for label, path in documented(served, 422):
        if path and 413 not in served.documented[label]:
            served.ask(label, 422, credential=callers.of(label), **dict.fromkeys(path, LONG))
    for label in ("GET /api-keys", "GET /service-accounts"):
        served.ask(label, 422, credential=callers.of(label), query={"limit": 0})
    served.ask("POST /session/providers/{provider}/logout", 400, {"logout_token": "x"}, **ACME)
    served.ask("POST /spa/token/refresh", 400)


def _unauthorized(served: Everything) -> None:
    for label, path in documented(served, 401):
        served.ask(label, 401, body_of(label), **path)


def _forbidden(served: Everything) -> None:
    run, made = served.run, served.made
    # Credentials that are of no login, as those that an application issues, or of no user.
    no_login = Callers(made.auth.encode({"sub": "ada", "jti": "1"}), run(made.session(sub="ada", key_id="x")))
    no_user = made.auth.encode({"scope": "api-keys:admin", "jti": "2"})
    callers = Callers(served.token(), served.cookie())
    for way in WAYS:
        field, cookie = pending(served, way)
        served.ask(f"POST {way.prefix}/login/challenge", 403, {**field, "factor": "none"}, cookie)
    _forbidden_identities(served)
    for label, path in documented(served, 403):
        if (
            label in NEVER_FORBIDDEN
            or label.endswith("/login/challenge")
            or label.split()[1].startswith("/identities/")
        ):
            continue
        if label in FORBIDDEN:
            served.ask(label, 403, FORBIDDEN[label], callers.of(label), **path)
        elif STEP.fullmatch(label) or OF_PAGES.fullmatch(label):
            body = {**PROOF, "trust": "true"} if STEP.fullmatch(label) else body_of(label)
            served.ask(label, 403, body, callers.of(label), headers=ELSEWHERE, **path)
        else:
            caller = no_user if "key" in label or "service" in label else no_login.of(label)
            served.ask(label, 403, body_of(label), caller, **path)


def _forbidden_identities(served: Everything) -> None:
    token = sign_in(served, WAYS[0], "of no password", 200).json()["access_token"]
    served.ask("POST /identities/{provider}/start", 403, {}, token, provider="none")
    [last] = served.ask("GET /identities", 200, credential=token).json()
    served.ask("DELETE /identities/{identity}", 403, credential=token, identity=last["id"])


def _missing(served: Everything) -> None:
    callers = Callers(served.token(), served.cookie())
    for label, path in documented(served, 404):
        served.ask(label, 404, body_of(label), callers.of(label), **{name: NOWHERE[name] for name in path})


def _conflicts(served: Everything) -> None:
    _taken_names(served)
    _keys_in_another_state(served)
    for way in (WAYS[0], WAYS[2]):
        _changes_at_the_same_time(served, way)


def _taken_names(served: Everything) -> None:
    token = served.token()
    for way in (WAYS[0], WAYS[2]):
        served.ask(f"POST {way.home}/register", 409, {**NEW, "username": "ada"})
        secrets = []
        for name in ("kay", "lin"):
            account = {**NEW, "email": f"{name}@{way.user}.test", "username": f"kay-of-{way.user}"}
            served.ask(f"POST {way.home}/register", 202, account)
            secrets.append({"token": served.mailed("verify_address"), "password": NEW["password"]})
        for secret, status in zip(secrets, (204, 409), strict=True):
            served.ask(f"POST {way.home}/verify", status, secret)
        served.ask("POST /invitations", 202, {"email": "grace@shop.example"}, token)
        accepted = {"token": served.mailed("invitation"), "password": NEW["password"]}
        served.ask(f"POST {way.home}/invitations/accept", 409, accepted)


def _keys_in_another_state(served: Everything) -> None:
    token = served.token()
    # A constraint as an application adds it to the table.
    served.run(served.made.execute("CREATE UNIQUE INDEX one_ci ON api_keys (name, user_id) WHERE name = 'ci'"))
    for path, account in (("/api-keys", {}), ("/service-accounts/{account}/keys", {"account": "ci"})):
        made = served.ask(f"POST {path}", 201, {"name": "ci"}, token, **account).json()
        served.ask(f"POST {path}", 409, {"name": "ci"}, token, **account)
        one = {**account, "key_id": made["key_id"]}
        served.ask(f"DELETE {path}/{{key_id}}", 204, credential=token, **one)
        for end in ("rotate", "pause", "resume"):
            served.ask(f"POST {path}/{{key_id}}/{end}", 409, credential=token, **one)


def _changes_at_the_same_time(served: Everything, way: Way) -> None:
    home, password = way.home, {"password": PASSWORD}
    credential = way.credential(served.ask(f"POST {way.prefix}/login", way.done, LOGIN))
    served.ask(f"POST {home}/forgot", 202, {"username": way.user})  # another one: a secret that is used ends the others
    reset = {"token": served.mailed("reset_password"), "password": NEW["password"]}
    served.ask(f"POST {home}/account/address", 202, {**NEW, **password}, credential)
    moved = {"token": served.mailed("change_address")}
    served.ask("POST /invitations", 202, {"email": "ada@shop.example"}, served.token())
    joined = {"token": served.mailed("invitation")}
    # As if another request had changed the user just before.
    served.run(served.made.execute(f"CREATE TRIGGER busy BEFORE UPDATE ON {USERS} BEGIN SELECT RAISE(IGNORE); END"))
    served.ask(f"POST {home}/account/address/confirm", 409, moved, credential)
    served.ask(f"POST {home}/invitations/join", 409, joined, credential)
    change = {"current_password": PASSWORD, "password": NEW["password"]}
    served.ask(f"POST {home}/account/password", 409, change, credential)
    served.ask(f"POST {home}/account/delete", 409, password, credential)
    served.ask(f"POST {home}/reset", 409, reset)
    served.run(served.made.execute("DROP TRIGGER busy"))


def _throttled(served: Everything) -> None:
    callers = Callers(served.token(), served.cookie())
    served.moves, served.address = False, "192.0.2.1"
    for _ in range(TRIES):
        served.ask("POST /login/challenge", 401, body_of("POST /login/challenge"))
    for label, path in documented(served, 429):
        served.ask(label, 429, body_of(label), callers.of(label), **path)
    served.moves = True


def _unavailable(served: Everything) -> None:
    callers = Callers(served.token(), served.cookie())
    bodies, cookies = _reaching(served)
    served.run(served.made.lose_database())
    for label, path in documented(served, 503):
        if not COUNTED_ALONE.fullmatch(label):
            caller = cookies.get(label) or callers.of(label)
            served.ask(label, 503, bodies.get(label) or body_of(label), caller, **path)


def _reaching(served: Everything) -> tuple[dict[str, Any], dict[str, str]]:
    # What is so well formed that it has to be looked up: bodies and cookies by operation.
    bodies: dict[str, Any] = {}
    cookies: dict[str, str] = {}
    for way in WAYS:
        _, waiting = pending(served, way)
        for kind in ("challenge", "totp", "passkey", "recovery", "mail") if waiting else ():
            cookies[f"POST {way.prefix}/login/{kind}"] = str(waiting)
        options = served.ask(f"POST {way.prefix}/login/passkey/begin", 200, {}).json()["publicKey"]
        key = Authenticator()
        key.create({"user": {"id": "eA"}, **options})
        bodies[f"POST {way.prefix}/login/passkey/finish"] = {"credential": key.get(options)}
    served.ask("POST /forgot", 202, {"username": "ada"})
    link = {"token": served.mailed("reset_password"), "password": NEW["password"]}
    refresh = served.ask("POST /token", 200, LOGIN).json()["refresh_token"]
    bodies["POST /token/refresh"] = {"refresh_token": refresh}
    cookies["POST /spa/token/refresh"] = cookies_of(served.ask("POST /spa/token", 200, LOGIN))
    for prefix in ("", "/spa"):
        bodies[f"POST {prefix}/token/revoke"] = {"token": refresh}
    for home in ("", "/session"):
        bodies |= {f"POST {home}/{path}": link for path in ("verify", "reset", "invitations/accept")}
        begun = served.ask(f"POST {home}/providers/{{provider}}/start", 200, {}, **ACME)
        query = dict(parse_qsl(urlsplit(begun.json()["authorization_url"]).query))
        bodies[f"POST {home}/providers/{{provider}}/finish"] = {"state": query["state"], "code": "x"}
        cookies[f"POST {home}/providers/{{provider}}/finish"] = cookies_of(begun)
    token = logout_token(served, jti="another")
    bodies["POST /session/providers/{provider}/logout"] = {"logout_token": token}
    return bodies, cookies
