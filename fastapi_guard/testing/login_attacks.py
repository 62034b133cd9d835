"""Attacks on a login by username and password, and on its cookies."""

import json
from typing import Final

from fastapi_guard.testing.site import CROSS_SITE, Attacks, Site, misread_cookies, require, require_refused

FOUND: Final[Attacks] = Attacks()

_WRONG: Final = "not the password"
_MOST_TRIES: Final = 100
_SOME_BYTES: Final = 70_000
_DEPTH: Final = 5_000


@FOUND.add("login", "log in without the password", "OWASP ASVS 6.3.8")
def _wrong_passwords(site: Site) -> None:
    right = site.client()
    require(site.log_in(right).status_code < 300, "the right password does not log in")
    known = site.log_in(site.client(), password=_WRONG)
    unknown = site.log_in(site.client(), username="no user of this name", password=_WRONG)
    require_refused(known, "a wrong password")
    same = (known.status_code, known.content) == (unknown.status_code, unknown.content)
    require(same, "a wrong password and an unknown user have different answers")


@FOUND.add("login", "send a password of another type, encoding or size", "RFC 8259 4, OWASP ASVS 6.2.8")
def _odd_bodies(site: Site) -> None:
    right, name = json.dumps(site.password), json.dumps(site.username)
    values = [[site.password], {"$ne": ""}, True, None, 0, "", f"{site.password}\x00", f" {site.password}"]
    bodies = [json.dumps({"username": site.username, "password": value}).encode() for value in values]
    bodies += [
        f'{{"username":{name},"password":"wrong","password":{right}}}'.encode(),
        f'{{"username":{name},"password":{right}}}'.encode("utf-16"),
        f'{{"username":{name},"password":"\\ud800"}}'.encode(),
        b'{"username":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}",
        json.dumps({"username": site.username, "password": "x" * _SOME_BYTES}).encode(),
        b"\xff\xfe",
        b"",
    ]
    for body in bodies:
        client = site.client()
        response = client.request("POST", site.login, content=body, headers={"Content-Type": "application/json"})
        require_refused(response, f"a body that begins with {body[:60]!r}")
        require(not site.is_open(client, response), f"a body that begins with {body[:60]!r} logs in")
    query = f"{site.login}?username={site.username}&password={site.password}"
    require_refused(site.client().request("POST", query), "a password in the URL")


@FOUND.add("login", "try passwords without a limit", "NIST SP 800-63B 3.2.2")
def _guesses(site: Site) -> None:
    statuses = (site.log_in(site.client(), password=f"{_WRONG} {tried}").status_code for tried in range(_MOST_TRIES))
    require(429 in statuses, f"{_MOST_TRIES} passwords of one user were tried, and none was a 429")


@FOUND.add(
    "login",
    "log a browser in from another site (login CSRF), or into a known session",
    "RFC 6749 10.12, OWASP ASVS 7.2.4",
)
def _login_csrf(site: Site) -> None:
    body = {"username": site.username, "password": site.password}
    browser = site.client()
    browser.request("POST", site.login, json=body)
    first = dict(browser.cookies)
    if not first:
        return  # a token that another site's page cannot read
    for encoding in ("data", "json"):
        crossed = site.client()
        response = crossed.request("POST", site.login, headers=CROSS_SITE, **{encoding: body})
        if not 300 <= response.status_code < 400:  # the form of a page is redirected after a refusal too
            require_refused(response, "a login from a page of another site")
        require(not dict(crossed.cookies), "a page of another site sets the cookie of a login")
    site.log_in(browser)
    same = [name for name, value in dict(browser.cookies).items() if first.get(name) == value]
    require(not same, f"a second login keeps the session that was known before: {', '.join(same)}")


@FOUND.add("login", "read a credential from a cache", "RFC 6749 5.1, RFC 6265bis 4.1.2")
def _caches(site: Site) -> None:
    response = site.log_in(site.client())
    stored = "no-store" not in response.headers.get("cache-control", "")
    require(not stored, "the response of a login has no Cache-Control: no-store")
    cookies = [cookie.lower() for cookie in response.headers.get_list("set-cookie")]
    require(all("httponly" in cookie for cookie in cookies), "a script can read a cookie of the login")
    require(all("samesite=" in cookie for cookie in cookies), "a cookie of the login has no SameSite")


@FOUND.add(
    "login",
    "plant a cookie whose name begins or ends with white space, or one beside that of the login",
    "RFC 6265bis 4.1.3 and 8.6",
)
def _planted_cookies(site: Site) -> None:
    client = site.client()
    begun = site.log_in(client)
    require(site.is_open(client, begun), "the right password does not log in")
    held = dict(client.cookies)
    needed = [name for name in held if not _opens(site, {key: held[key] for key in held if key != name})]
    for name, field in misread_cookies(held):
        if name in needed:
            response = site.client().request("GET", site.guarded, headers={"Cookie": field})
            require_refused(response, f"a cookie that is not {name}, or not the only one of that name, logs in")


def _opens(site: Site, cookies: dict[str, str]) -> bool:
    client = site.client()
    client.cookies.update(cookies)
    return site.is_open(client)
