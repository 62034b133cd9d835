"""Attacks on an account: by mail, by a stolen session, by another user, and by a subject of another issuer."""

from typing import Any, Final

from fastapi_guard.testing.site import (
    CROSS_SITE,
    NEW_PASSWORD,
    Attacks,
    Client,
    Site,
    bearer_of,
    cookies_field,
    fields_of,
    require,
    require_refused,
    require_success,
)

FOUND: Final[Attacks] = Attacks()

_MOST_TRIES: Final = 100
_RIGHTS: Final[tuple[dict[str, Any], ...]] = (
    {"scope": "* admin admin:*"},
    {"scopes": ["*", "admin", "admin:*"]},
    {"roles": ["admin", "owner"], "role": "admin"},
    {"is_admin": True, "is_superuser": True},
)
_LOGS_IN: Final = "the right password does not log in"


@FOUND.add("mail", "learn which addresses are known", "OWASP ASVS 6.3.8")
def _known_addresses(site: Site) -> None:
    known, unknown = (site.send_reset(address) for address in (None, "unknown@attacker.example"))
    require(known.status_code < 300, "a known address gets no message")
    same = (known.status_code, known.content) == (unknown.status_code, unknown.content)
    require(same, "a known and an unknown address have different answers")


@FOUND.add("mail", "use a secret twice, by a GET, or one of another kind", "OWASP ASVS 6.5.1, RFC 9110 9.2.1")
def _mailed_secrets(site: Site) -> None:
    site.send_reset()
    secret = site.part("mailed")()
    client = site.client()
    for method in ("GET", "HEAD"):
        client.request(method, f"{site.reset}?token={secret}")  # as a scanner of mails does
    for wrong in ("", secret[:-1], f"{secret}x", secret.swapcase(), "x" * len(secret)):
        require_refused(site.reset_by(site.client(), wrong), "a secret that was not sent")
    first = site.reset_by(site.client(), secret)
    require(first.status_code < 300, f"the secret of the message does not work, or a GET has used it: {first.text}")
    require_refused(site.reset_by(site.client(), secret), "a secret that was used before")


@FOUND.add("mail", "have a message with a link to another host", "RFC 9110 7.2")
def _poisoned_links(site: Site) -> None:
    client = site.client()
    body = {"username": site.part("address")}
    hosts = {"Host": "attacker.example", "X-Forwarded-Host": "attacker.example", "Forwarded": "host=attacker.example"}
    client.request("POST", site.forgot, json=body, headers=hosts)
    require("attacker.example" not in site.part("mailed")(), "the Host of the request is in the message")


@FOUND.add("mail", "keep a session or tokens over a reset", "OWASP ASVS 7.4.3")
def _kept_over_reset(site: Site) -> None:
    client, refreshing = site.client(), site.client()
    begun = site.log_in(client)
    require(site.is_open(client, begun), _LOGS_IN)
    refreshing.cookies.update(dict(client.cookies))
    site.send_reset()
    done = site.reset_by(site.client(), site.part("mailed")())
    require_success(done, "the secret of the message sets no password")
    require(not site.is_open(client, begun), "what the old password gave is valid after the reset")
    body = {"refresh_token": fields_of(begun).get("refresh_token", "")}
    require_refused(refreshing.request("POST", site.refresh, json=body), "a refresh token of the old password")
    require_refused(site.log_in(site.client()), "the old password")
    require_success(site.log_in(site.client(), password=NEW_PASSWORD), "the new password does not log in")


@FOUND.add("account", "change the password without the current one, or from another site's page", "OWASP ASVS 6.2.3")
def _changed_password(site: Site) -> None:
    client, begun = _logged_in(site)
    for wrong in ({}, {"current_password": ""}, {"current_password": "not the password"}):
        require_refused(_change(site, client, begun, wrong), f"a change of the password with {wrong}")
    right = {"current_password": site.password}
    if not bearer_of(begun):
        refused = client.request("POST", site.change_password, json=_body(right), headers=CROSS_SITE)
        require_refused(refused, "a change of the password from a page of another site")
    require_success(_change(site, client, begun, right), "a user cannot change the password")
    require_success(site.log_in(site.client(), password=NEW_PASSWORD), "the new password does not log in")


@FOUND.add(
    "account", "use a session or a token after the logout, or from before a step-up", "OWASP ASVS 7.2.4 and 7.4.1"
)
def _former_session(site: Site) -> None:
    client, begun = _logged_in(site)
    former = dict(client.cookies)
    body = {"factor": "password", "password": site.password}
    renewed = client.request("POST", site.step_up, json=body, headers=bearer_of(begun))
    require_success(renewed, "the password does not step up a login")
    require(site.is_open(client, renewed), "a login is not valid after its step-up")
    if not bearer_of(begun):
        response = site.client().request("GET", site.guarded, headers=cookies_field(former))
        require_refused(response, "the session of before a step-up, which another person may know")
    latest = {**cookies_field(dict(client.cookies)), **bearer_of(renewed)}
    require_success(site.log_out(client, renewed), "a logout is not possible")
    require_refused(site.client().request("GET", site.guarded, headers=latest), "a session or a token after its logout")


@FOUND.add("account", "keep another session over a change of the password", "OWASP ASVS 7.4.3")
def _kept_over_change(site: Site) -> None:
    stolen, token = _logged_in(site)
    client, begun = _logged_in(site)
    changed = _change(site, client, begun, {"current_password": site.password})
    require_success(changed, "a user cannot change the password")
    require(not site.is_open(stolen, token), "another session is valid after the user has changed the password")


@FOUND.add("account", "try passwords without a limit at the change of the password", "NIST SP 800-63B 3.2.2")
def _guessed_at_change(site: Site) -> None:
    client, begun = _logged_in(site)
    guesses = ({"current_password": f"not the password {tried}"} for tried in range(_MOST_TRIES))
    statuses = (_change(site, client, begun, guess).status_code for guess in guesses)
    require(429 in statuses, f"{_MOST_TRIES} passwords were tried with a session, and none was a 429")


@FOUND.add("account", "list or end the session of another user", "OWASP ASVS 8.2.2")
def _session_of_another(site: Site) -> None:
    client, begun = _logged_in(site)
    username, password = site.part("other")
    attacker = site.client()
    token = site.log_in(attacker, username=username, password=password)
    own, others = (_sessions(site, *caller) for caller in ((client, begun), (attacker, token)))
    require(own and others, "a user has no sessions to list")
    require(not own & others, "a user sees the session of another user")
    for session in own:
        ended = attacker.request("DELETE", f"{site.sessions}/{session}", headers=bearer_of(token))
        require_refused(ended, "a user ends the session of another user")
    require(site.is_open(client, begun), "the session of the user is not valid any more")


@FOUND.add("keys", "make a key with more rights than one's own", "OWASP ASVS 8.2.1")
def _greater_key(site: Site) -> None:
    site.part("keys")
    client, begun = _logged_in(site)
    require_success(_make_key(site, client, begun), "a user cannot make a key")
    for more in ({"scopes": ["*"]}, {"scopes": ["admin:*", "*:*"]}, {"is_admin": True}, {"roles": ["admin"]}):
        require_refused(_make_key(site, client, begun, **more), f"a key with {more}")
    for owner in ("user_id", "owner", "sub", "tenant_id"):
        require_refused(_make_key(site, client, begun, **{owner: "admin"}), f"a key whose {owner} is another")


@FOUND.add("keys", "see or revoke the key of another user", "OWASP ASVS 8.2.2, OpenID Connect Core 5.7")
def _key_of_another(site: Site) -> None:
    site.part("keys")
    client, begun = _logged_in(site)
    require_success(_make_key(site, client, begun), "a user cannot make a key")
    keys = _keys(site, client, bearer_of(begun))
    require(keys, "a user cannot list keys")
    username, password = site.part("other")
    attacker = site.client()
    callers = {"another user": (attacker, bearer_of(site.log_in(attacker, username=username, password=password)))}
    if site.foreign is not None:
        callers["the same subject of another issuer"] = (site.client(), {"Authorization": f"Bearer {site.foreign()}"})
    for name, (caller, headers) in callers.items():
        require(not keys & _keys(site, caller, headers), f"{name} sees the key of a user")
        for key in keys:
            for method in ("GET", "DELETE"):
                response = caller.request(method, f"{site.keys}/{key}", headers=headers)
                require_refused(response, f"a {method} of the key of a user by {name}")
    require(_keys(site, client, bearer_of(begun)) == keys, "the key of the user is not there any more")


@FOUND.add("issuers", "act as the user with the subject of a token of another issuer", "OpenID Connect Core 5.7")
def _same_subject(site: Site) -> None:
    client, foreign = site.client(), {"Authorization": f"Bearer {site.part('foreign')()}"}
    opened = site.client().request("GET", site.guarded, headers=foreign)
    require_success(opened, "a token of the other issuer is not accepted at all")
    begun = site.log_in(client)
    require(site.is_open(client, begun), _LOGS_IN)
    for path in site.own:
        shown = client.request("GET", path, headers=bearer_of(begun))
        require_success(shown, f"{path} does not show the user what is the user's")
        found = site.client().request("GET", path, headers=foreign)
        same = found.status_code < 300 and found.content == shown.content
        require(not same, f"{path} shows what is the user's to the same subject of another issuer")
    body = {"password": NEW_PASSWORD, "current_password": site.password}
    site.client().request("POST", site.change_password, json=body, headers=foreign)
    refused = site.log_in(site.client(), password=NEW_PASSWORD)
    require_refused(refused, "the same subject of another issuer has changed the password of the user")


@FOUND.add("rights", "name more rights in the body of a login or a refresh", "RFC 6749 3.3 and 6")
def _requested_rights(site: Site) -> None:
    site.part("forbidden")
    for more in _RIGHTS:
        client = site.client()
        begun = site.log_in(client, **more)
        _require_forbidden(site, client, begun, f"a login with {more}")
    client, begun = _logged_in(site)
    _require_forbidden(site, client, begun, "a login")
    refresh_token = fields_of(begun).get("refresh_token")
    for more in _RIGHTS:
        body = {**more, **({} if refresh_token is None else {"refresh_token": refresh_token})}
        refreshed = client.request("POST", site.refresh, json=body)
        _require_forbidden(site, client, refreshed, f"a refresh with {more}")
        refresh_token = fields_of(refreshed).get("refresh_token", refresh_token)


@FOUND.add("rights", "name rights in the body of a registration (mass assignment)", "OWASP ASVS 15.3.3")
def _registered_rights(site: Site) -> None:
    site.part("forbidden")
    client, everything = site.client(), {name: value for more in _RIGHTS for name, value in more.items()}
    body = {"email": site.new_address, "password": NEW_PASSWORD}
    registered = client.request("POST", site.register, json={**body, **everything, "email_verified": True})
    if registered.status_code >= 400:  # it may reject what it does not know
        require_success(client.request("POST", site.register, json=body), "a user cannot register")
    begun = site.log_in(site.client(), username=site.new_address, password=NEW_PASSWORD)
    require_refused(begun, "a login with an address that was not verified")
    verified = client.request("POST", site.verify, json={"token": site.part("mailed")(), **everything})
    require_success(verified, "an address cannot be verified")
    browser = site.client()
    begun = site.log_in(browser, username=site.new_address, password=NEW_PASSWORD)
    require(site.is_open(browser, begun), "a user who has registered cannot log in")
    _require_forbidden(site, browser, begun, f"a registration with {everything}")


def _require_forbidden(site: Site, client: Client, response: Any, what: str) -> None:
    refused = client.request("GET", site.forbidden, headers=bearer_of(response))
    require_refused(refused, f"{what} opens {site.forbidden}")


def _logged_in(site: Site) -> tuple[Client, Any]:
    client = site.client()
    begun = site.log_in(client)
    require(site.is_open(client, begun), _LOGS_IN)
    return client, begun


def _body(more: dict[str, str]) -> dict[str, str]:
    return {"password": NEW_PASSWORD, **more}


def _change(site: Site, client: Client, begun: Any, more: dict[str, str]) -> Any:
    return client.request("POST", site.change_password, json=_body(more), headers=bearer_of(begun))


def _sessions(site: Site, client: Client, begun: Any) -> set[str]:
    listed = client.request("GET", site.sessions, headers=bearer_of(begun))
    require_success(listed, "a user cannot list sessions")
    return {str(session["id"]) for session in listed.json()}


def _make_key(site: Site, client: Client, begun: Any, **more: Any) -> Any:
    return client.request("POST", site.keys, json={"name": "attack", **more}, headers=bearer_of(begun))


def _keys(site: Site, client: Client, headers: dict[str, str]) -> set[str]:
    listed = client.request("GET", site.keys, headers=headers)
    return {str(key.get("key_id", key.get("id"))) for key in listed.json()} if listed.status_code < 300 else set()
