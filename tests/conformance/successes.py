"""Requests that succeed, of each operation of every router."""

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyotp

from conformance.calls import FORM
from conformance.every_router import PASSWORD
from conformance.everything import LOGIN, Everything, cookies_of
from support.authenticator import Authenticator

EVENT = {"http://schemas.openid.net/event/backchannel-logout": {}}
ACME = {"provider": "acme"}


@dataclass
class Way:
    """A way to log in: with tokens, with a refresh cookie, or with a session.

    Attributes:
        prefix: Of its routes.
        home: The prefix of the routes of accounts, factors and providers.
        done: The status of a login.
        user: Who logs in.
    """

    prefix: str
    home: str
    done: int
    user: str

    @property
    def login(self) -> dict[str, str]:
        """The body of a login."""
        return {"username": self.user, "password": PASSWORD}

    def credential(self, answer: Any) -> str:
        """Return the credential in the response to a login."""
        return cookies_of(answer) if self.done == 204 else str(answer.json()["access_token"])


WAYS = [Way("", "", 200, "grace"), Way("/spa", "", 200, "joan"), Way("/session", "/session", 204, "mary")]


@dataclass
class Enrolled:
    """The factors of a user."""

    passkey: Authenticator
    app: pyotp.TOTP
    codes: list[str]


def everything_succeeds(served: Everything) -> None:
    """Call each operation so that it succeeds."""
    for way in WAYS:
        factors = enrol(served, way, way.credential(served.ask(f"POST {way.prefix}/login", way.done, way.login)))
        _second_steps(served, way, factors)
        _first_steps(served, way, factors.passkey)
        _step_up(served, way)
        _devices(served, way)
    for way in (WAYS[0], WAYS[2]):
        _account(served, way)
        _sign_ins(served, way)
        _changes_of_factors(served, way)
    token = served.token()
    _invitations(served, token)
    _keys(served, "/api-keys", token)
    _keys(served, "/service-accounts/{account}/keys", token, account="ci")
    served.ask("GET /service-accounts", 200, credential=token)
    _forms(served)
    served.ask("POST /tickets", 201, {"path": "/x"}, token)
    served.ask("POST /chat/tickets", 201, {}, token)
    served.ask("GET /.well-known/jwks.json", 200)


def _forms(served: Everything) -> None:
    # What went wrong is in the query of the redirect, so that any form is redirected.
    for label, statuses in served.documented.items():
        if 303 in statuses and label.startswith(("POST /session/login", "POST /session/logout")):
            served.ask(label, 303, {"x": "y"}, media_type=FORM)


def pending(served: Everything, way: Way) -> tuple[dict[str, str], str | None]:
    """Begin a login that waits for a second step; return the field and the cookie that identify it."""
    answer = served.ask(f"POST {way.prefix}/login", 202, way.login)
    needed = answer.json()
    return ({"pending": needed["pending"]}, None) if "pending" in needed else ({}, cookies_of(answer))


def enrol(served: Everything, way: Way, credential: str) -> Enrolled:
    """Enrol a factor of each kind."""
    begin, confirm = f"POST {way.home}/factors/{{kind}}", f"POST {way.home}/factors/confirm"
    key = Authenticator()
    begun = served.ask(begin, 200, {"name": "key"}, credential, kind="passkey").json()
    proof = {"enrolment": begun["enrolment"], "credential": key.create(begun["publicKey"])}
    served.ask(confirm, 200, proof, credential)
    begun = served.ask(begin, 200, {"name": "phone"}, credential, kind="totp").json()
    app = pyotp.TOTP(begun["secret"])
    served.ask(confirm, 200, {"enrolment": begun["enrolment"], "code": app.now()}, credential)
    begun = served.ask(begin, 200, {}, credential, kind="mail").json()
    sent = served.message("second_factor").code
    served.ask(confirm, 200, {"enrolment": begun["enrolment"], "code": sent}, credential)
    codes = served.ask(begin, 200, {}, credential, kind="recovery").json()["codes"]
    return Enrolled(key, app, codes)


def _second_steps(served: Everything, way: Way, factors: Enrolled) -> None:
    for kind in ("passkey", "totp", "recovery", "mail"):
        field, cookie = pending(served, way)
        proof: dict[str, Any] = {"code": factors.codes[0]}
        if kind == "totp":
            proof = {"code": factors.app.at(int(time.time()) + 30)}  # a clock may be a step early
        elif kind != "recovery":
            challenge = served.ask(f"POST {way.prefix}/login/challenge", 200, {"factor": kind, **field}, cookie).json()
            if kind == "passkey":
                proof = {"credential": factors.passkey.get(challenge["publicKey"])}
            else:
                proof = {"code": served.message("second_factor").code}
        served.ask(f"POST {way.prefix}/login/{kind}", way.done, {**field, **proof}, cookie)


def _first_steps(served: Everything, way: Way, key: Authenticator) -> None:
    begun = served.ask(f"POST {way.prefix}/login/passkey/begin", 200, {})
    proof = {"credential": key.get(begun.json()["publicKey"])}
    served.ask(f"POST {way.prefix}/login/passkey/finish", way.done, proof, cookies_of(begun))
    for user, status in (("ada", way.done), (way.user, 202)):
        begun = served.ask(f"POST {way.prefix}/login/mail/begin", 200, {"username": f"{user}@shop.example"})
        code = served.message("log_in").code
        served.ask(f"POST {way.prefix}/login/mail/finish", status, {"code": code}, cookies_of(begun))


def _step_up(served: Everything, way: Way) -> None:
    path = f"{way.prefix}/login/step-up"
    credential = way.credential(served.ask(f"POST {way.prefix}/login", way.done, LOGIN))
    served.ask(f"GET {path}", 200, credential=credential)
    served.ask(f"POST {path}/challenge", 200, {"factor": "password"}, credential)
    served.ask(f"POST {path}", way.done, {"factor": "password", "password": PASSWORD}, credential)


def _devices(served: Everything, way: Way) -> None:
    path, one, name = f"{way.prefix}/devices", "{device_id}", "device_id"
    if way.prefix == "/session":
        path, one, name = "/session/sessions", "{session_id}", "session_id"
    else:
        _tokens(served, way.prefix)
    log_in = f"POST {way.prefix}/login"
    credential, _ = [way.credential(served.ask(log_in, way.done, LOGIN)) for _ in range(2)]
    listed = served.ask(f"GET {path}", 200, credential=credential).json()
    other = next(device["id"] for device in listed if not device["current"])
    served.ask(f"DELETE {path}/{one}", 204, credential=credential, **{name: other})
    served.ask(f"DELETE {path}", 200, credential=credential)
    served.ask(f"POST {way.prefix}/logout", 204, credential=credential)


def _tokens(served: Everything, prefix: str) -> None:
    answer = served.ask(f"POST {prefix}/token", 200, LOGIN, media_type=FORM)
    if prefix:
        served.ask(f"POST {prefix}/token/refresh", 200, credential=cookies_of(answer))
    else:
        refresh = {"refresh_token": answer.json()["refresh_token"]}
        served.ask("POST /token/refresh", 200, refresh, media_type=FORM)
    served.ask(f"POST {prefix}/token/revoke", 200, {"token": answer.json()["access_token"]}, media_type=FORM)


def _account(served: Everything, way: Way) -> None:
    home, address = way.home, f"kay@{way.user}.example"
    first, second = "difference engine no 2", "a loom of punched cards"
    answer = served.ask(f"POST {home}/register", 202, {"email": address, "password": first})
    served.message("verify_address")  # before another one, which needs what was stored for this one
    served.ask(f"POST {home}/verify/resend", 202, {"email": address}, cookies_of(answer))
    served.ask(f"POST {home}/verify", 204, {"token": served.mailed("verify_address"), "password": first})
    served.ask(f"POST {home}/forgot", 202, {"username": address})
    served.ask(f"POST {home}/reset", 204, {"token": served.mailed("reset_password"), "password": second})
    login = {"username": address, "password": second}
    credential = way.credential(served.ask(f"POST {way.prefix}/login", way.done, login))
    served.ask(f"GET {home}/account", 200, credential=credential)
    moved = {"email": f"kay@mill-of-{way.user}.example", "password": second}
    served.ask(f"POST {home}/account/address", 202, moved, credential)
    served.ask(f"POST {home}/account/address/confirm", 204, {"token": served.mailed("change_address")}, credential)
    change = {"current_password": second, "password": first}
    served.ask(f"POST {home}/account/password", 204, change, credential)
    served.ask(f"POST {home}/account/delete", 204, {"password": first}, credential)


def _invitations(served: Everything, token: str) -> None:
    for way in (WAYS[0], WAYS[2]):
        served.ask("POST /invitations", 202, {"email": f"lin@{way.user}.example"}, token)
        accepted = {"token": served.mailed("invitation"), "password": "difference engine no 2"}
        served.ask(f"POST {way.home}/invitations/accept", 204, accepted)
        credential = way.credential(served.ask(f"POST {way.prefix}/login", way.done, LOGIN))
        served.ask("POST /invitations", 202, {"email": "ada@shop.example"}, token)
        served.ask(f"POST {way.home}/invitations/join", 204, {"token": served.mailed("invitation")}, credential)


def sign_in(served: Everything, way: Way, sub: str, status: int, credential: str | None = None) -> Any:
    """Come back from the provider as `sub`; with a credential, to link the identity to its user."""
    begin = f"POST {way.home}/{'providers' if credential is None else 'identities'}/{{provider}}/start"
    begun = served.ask(begin, 200, {}, credential, **ACME)
    url = served.made.issuer.authorize(begun.json()["authorization_url"], sub=sub, sid=f"at acme: {sub}")
    parameters = dict(parse_qsl(urlsplit(url).query))
    return served.ask(f"POST {way.home}/providers/{{provider}}/finish", status, parameters, cookies_of(begun), **ACME)


def _sign_ins(served: Everything, way: Way) -> None:
    home = way.home
    served.ask(f"GET {home}/providers", 200)
    sign_in(served, way, f"new to {way.prefix}", way.done)
    credential = way.credential(served.ask(f"POST {way.prefix}/login", way.done, LOGIN))
    sign_in(served, way, f"linked by {way.prefix}", 204, credential)
    served.ask(f"POST {home}/identities/{{provider}}/start", 303, {"next": "/x"}, credential, **ACME, media_type=FORM)
    linked = served.ask(f"GET {home}/identities", 200, credential=credential).json()[-1]
    served.ask(f"DELETE {home}/identities/{{identity}}", 204, credential=credential, identity=linked["id"])
    if way.done == 204:
        _pages(served)


def _pages(served: Everything) -> None:
    callback = "/session/providers/{provider}/callback"
    begun = served.ask("GET /session/providers/{provider}", 303, **ACME)
    url = served.made.issuer.authorize(begun.headers["location"][0], sub="lovelace", sid="s-1")
    query = dict(parse_qsl(urlsplit(url).query))
    served.ask(f"POST {callback}", 303, query, **ACME, media_type=FORM)
    served.ask(f"GET {callback}", 303, credential=cookies_of(begun), query=query, **ACME)
    ended = {"logout_token": logout_token(served, jti="1")}
    served.ask("POST /session/providers/{provider}/logout", 200, ended, **ACME, media_type=FORM)


def logout_token(served: Everything, *, jti: str) -> str:
    """Return a logout token of the provider."""
    own = {"aud": "shop", "events": EVENT, "nonce": None, "at_hash": None}
    return served.made.issuer.id_token("lovelace", jti=jti, sid="s-1", **own)


def _changes_of_factors(served: Everything, way: Way) -> None:
    # Of a user who has none, and so needs no proof of one.
    credential = way.credential(served.ask(f"POST {way.prefix}/login", way.done, LOGIN))
    path = f"{way.home}/factors"
    enrol(served, way, credential)
    for status, caller in ((204, credential), (202, None)):
        sign_in(served, way, f"with factors at {way.prefix}", status, caller)
    listed = served.ask(f"GET {path}", 200, credential=credential).json()["factors"]
    factors = {factor["kind"]: {"factor_id": factor["id"]} for factor in listed}
    served.ask(f"PATCH {path}/{{factor_id}}", 204, {"name": "old phone"}, credential, **factors["totp"])
    served.ask(f"POST {path}/{{factor_id}}/rename", 204, {"name": "phone"}, credential, **factors["totp"])
    served.ask(f"POST {path}/{{factor_id}}/remove", 204, credential=credential, **factors["recovery"])
    for kind in ("mail", "totp", "passkey"):
        served.ask(f"DELETE {path}/{{factor_id}}", 204, credential=credential, **factors[kind])


def _keys(served: Everything, path: str, token: str, **account: str) -> None:
    body = {"name": "robot", "scopes": ["items:read"]}
    made = served.ask(f"POST {path}", 201, body, token, **account).json()
    served.ask(f"GET {path}", 200, credential=token, **account)
    one = {"key_id": made["key_id"], **account}
    for method, end, status in (
        ("GET", "", 200),
        ("GET", "/usage", 200),
        ("POST", "/pause", 204),
        ("POST", "/resume", 204),
    ):
        served.ask(f"{method} {path}/{{key_id}}{end}", status, credential=token, **one)
    new = served.ask(f"POST {path}/{{key_id}}/rotate", 201, {}, token, **one).json()
    served.ask(f"DELETE {path}/{{key_id}}", 204, credential=token, **account, key_id=new["key_id"])
