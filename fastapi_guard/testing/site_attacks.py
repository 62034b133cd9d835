"""site_attacks: what no application may allow at its login, second factors, messages, providers, tickets and mounts.

Each attack begins with what has to work, so that an application that refuses everything does not pass.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from fastapi_guard.testing.site import ELSEWHERE, Site, SiteAttack, fields_of, require, require_refused

_FOUND: Final[list[SiteAttack]] = []
_WRONG: Final = "not the password"
_MOST_TRIES: Final = 100
_PENDING_TRIES: Final = 10
_CROSS_SITE: Final = {"Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site"}
_SOME_BYTES: Final = 70_000
_DEPTH: Final = 5_000


def site_attacks(*kinds: str) -> list[SiteAttack]:
    """Return the attacks of these kinds, by default of all, for ``pytest.mark.parametrize``.

    Args:
        kinds: ``login``, ``factors``, ``mail``, ``provider``, ``tickets``, ``mounts``.

    Raises:
        ValueError: There is no attack of a kind.
    """
    known = {attack.kind for attack in _FOUND}
    if unknown := sorted(set(kinds) - known):
        msg = f"there are no attacks of the kinds {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        raise ValueError(msg)
    return [attack for attack in _FOUND if not kinds or attack.kind in kinds]


def _attack(kind: str, name: str) -> Callable[[Callable[[Site], None]], Callable[[Site], None]]:
    def add(on: Callable[[Site], None]) -> Callable[[Site], None]:
        _FOUND.append(SiteAttack(kind, name, on))
        return on

    return add


@_attack("login", "log in without the password")
def _wrong_passwords(site: Site) -> None:
    right = site.client()
    require(site.log_in(right).status_code < 300, "the right password does not log in")
    known = site.log_in(site.client(), password=_WRONG)
    unknown = site.log_in(site.client(), username="no user of this name", password=_WRONG)
    require_refused(known, "a wrong password")
    same = (known.status_code, known.content) == (unknown.status_code, unknown.content)
    require(same, "a wrong password and an unknown user have different answers")


@_attack("login", "send a password of another type, encoding or size")
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


@_attack("login", "try passwords without a limit")
def _guesses(site: Site) -> None:
    statuses = (site.log_in(site.client(), password=f"{_WRONG} {tried}").status_code for tried in range(_MOST_TRIES))
    require(429 in statuses, f"{_MOST_TRIES} passwords of one user were tried, and none was a 429")


@_attack("login", "log a browser in from another site (login CSRF), or into a known session")
def _login_csrf(site: Site) -> None:
    body = {"username": site.username, "password": site.password}
    browser = site.client()
    browser.request("POST", site.login, json=body)
    first = dict(browser.cookies)
    if not first:
        return  # a token that another site's page cannot read
    for encoding in ("data", "json"):
        crossed = site.client()
        response = crossed.request("POST", site.login, headers=_CROSS_SITE, **{encoding: body})
        require_refused(response, "a login from a page of another site")
        require(not dict(crossed.cookies), "a page of another site sets the cookie of a login")
    site.log_in(browser)
    same = [name for name, value in dict(browser.cookies).items() if first.get(name) == value]
    require(not same, f"a second login keeps the session that was known before: {', '.join(same)}")


@_attack("login", "read a credential from a cache")
def _caches(site: Site) -> None:
    response = site.log_in(site.client())
    stored = "no-store" not in response.headers.get("cache-control", "")
    require(not stored, "the response of a login has no Cache-Control: no-store")
    cookies = [cookie.lower() for cookie in _cookies_of(response)]
    require(all("httponly" in cookie for cookie in cookies), "a script can read a cookie of the login")
    require(all("samesite=" in cookie for cookie in cookies), "a cookie of the login has no SameSite")


@_attack("factors", "go on without the second step")
def _without_second(site: Site) -> None:
    client = site.client()
    begun = site.log_in(client)
    require(begun.status_code < 300, "the right password does not begin a login")
    require(not site.is_open(client, begun), "the password alone opens the guarded route")
    for value in [value for value in fields_of(begun).values() if isinstance(value, str)]:
        headers = {"Authorization": f"Bearer {value}"}
        require_refused(client.request("GET", site.guarded, headers=headers), "a pending login as a token")
    require(site.is_open(client, _second(site, client, begun, _code(site))), "the right code does not complete a login")


@_attack("factors", "send a code of another type, or another login's")
def _odd_codes(site: Site) -> None:
    code = _code(site)
    right = site.client()
    begun = _second(site, right, site.log_in(right), code)
    require(site.is_open(right, begun), "the right code does not complete a login")
    code = _code(site)
    for value in ("", [code], True, None, {"$ne": ""}, int(code), f"{code}\x00", f"+{code}", code * 100):
        client = site.client()
        response = _second(site, client, site.log_in(client), value)
        require_refused(response, f"the code {value!r}")
    client = site.client()
    require_refused(_second(site, client, None, code), "a code without a pending login")


@_attack("factors", "use a code or a pending login twice")
def _twice(site: Site) -> None:
    client, other = site.client(), site.client()
    begun, code = site.log_in(client), _code(site)
    pending = dict(client.cookies)
    require(site.is_open(client, _second(site, client, begun, code)), "the right code does not complete a login")
    require_refused(_second(site, other, site.log_in(other), code), "a code that was used before")
    again = site.client()
    again.cookies.update(pending)
    require_refused(_second(site, again, begun, _code(site)), "a pending login that was completed before")


@_attack("factors", "try codes without a limit")
def _guessed_codes(site: Site) -> None:
    client = site.client()
    begun, code = site.log_in(client), _code(site)
    require(begun.status_code < 300, "the right password does not begin a login")
    for tried in range(_PENDING_TRIES):
        _second(site, client, begun, f"{(int(code) + 1 + tried) % 10 ** len(code):0{len(code)}}")
    require_refused(_second(site, client, begun, code), f"the right code after {_PENDING_TRIES} wrong ones")


@_attack("mail", "learn which addresses are known")
def _known_addresses(site: Site) -> None:
    known, unknown = (_forgot(site, address) for address in (site.address, "unknown@attacker.example"))
    require(known.status_code < 300, "a known address gets no message")
    same = (known.status_code, known.content) == (unknown.status_code, unknown.content)
    require(same, "a known and an unknown address have different answers")


@_attack("mail", "use a secret twice, by a GET, or one of another kind")
def _mailed_secrets(site: Site) -> None:
    _forgot(site, site.address)
    secret = _mailed(site)
    client = site.client()
    for method in ("GET", "HEAD"):
        client.request(method, f"{site.reset}?token={secret}")  # as a scanner of mails does
    for wrong in ("", secret[:-1], f"{secret}x", secret.swapcase(), "x" * len(secret)):
        require_refused(_reset(site, wrong), "a secret that was not sent")
    first = _reset(site, secret)
    require(first.status_code < 300, f"the secret of the message does not work, or a GET has used it: {first.text}")
    require_refused(_reset(site, secret), "a secret that was used before")


@_attack("mail", "have a message with a link to another host")
def _poisoned_links(site: Site) -> None:
    client = site.client()
    body = {"username": site.address}
    hosts = {"Host": "attacker.example", "X-Forwarded-Host": "attacker.example", "Forwarded": "host=attacker.example"}
    client.request("POST", site.forgot, json=body, headers=hosts)
    require("attacker.example" not in _mailed(site), "the Host of the request is in the message")


@_attack("provider", "finish a sign-in that another browser began, or twice")
def _foreign_state(site: Site) -> None:
    browser, victim = site.client(), site.client()
    url = _begin(site, browser)
    query = parse_qs(urlsplit(url).query)
    require(query.get("code_challenge_method") == ["S256"], "the authorization request has no PKCE S256")
    require(len(query.get("state", [""])[0]) >= 22, "the authorization request has no state of 128 bits")
    back = _agree(site, url)
    victim.request("GET", back)
    require(not site.is_open(victim), "a browser that did not begin a sign-in is logged in by it (login CSRF)")
    url = _begin(site, browser)
    back = _agree(site, url)
    require(browser.request("GET", back).status_code < 400, "a sign-in does not work")
    require(site.is_open(browser), "a sign-in does not log in")
    later = site.client()
    later.request("GET", back)
    require(not site.is_open(later), "the answer of a provider works twice")


@_attack("provider", "send the browser to another site afterwards")
def _open_redirects(site: Site) -> None:
    for target in (
        ELSEWHERE,
        "//attacker.example",
        "/\\attacker.example",
        "/\t/attacker.example",
        "javascript:alert(1)",
    ):
        browser = site.client()
        response = browser.request("GET", _agree(site, _begin(site, browser, next=target)))
        place = response.headers.get("location", "/")
        require(place.startswith("/") and place[1:2] not in ("/", "\\", "\t"), f"next={target!r} leads to {place!r}")


@_attack("tickets", "use a ticket twice, or for another path")
def _tickets(site: Site) -> None:
    client, used = site.client(), _ticket(site)
    require(client.request("GET", used).status_code < 400, "a ticket does not work")
    require_refused(client.request("GET", used), "a ticket that was used before")
    path, _, query = _ticket(site).partition("?")
    require_refused(client.request("GET", path), "a request without a ticket")
    require_refused(client.request("GET", f"{path}?{query}&{query}"), "two tickets")
    path, _, query = _ticket(site).partition("?")
    for other in (site.guarded, f"{path}/other"):
        require_refused(client.request("GET", f"{other}?{query}"), "a ticket for another path")
    path, _, query = _ticket(site).partition("?")
    for changed in (query[:-1], query.swapcase(), f"{query}x", f"{query}%00"):
        require_refused(client.request("GET", f"{path}?{changed}"), "a changed ticket")


@_attack("mounts", "reach what is below a mount without a credential")
def _mounts(site: Site) -> None:
    require(site.mounts, "there is no mount to attack")
    tails = ("", "/", "//", "/index.html", "/../", "/%2e%2e/", "/.", "/%2f", "/docs", "/openapi.json", "/x?y=z")
    for mount in site.mounts:
        for tail in tails:
            for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PROPFIND"):
                response = site.client().request(method, f"{mount}{tail}")
                inside = response.status_code < 300 or response.status_code >= 500
                require(not inside, f"{method} {mount}{tail} has an answer: {response.status_code}")


def _second(site: Site, client: Any, begun: Any, code: Any) -> Any:
    pending = fields_of(begun).get("pending")
    body = {"code": code} if pending is None else {"pending": pending, "code": code}
    return client.request("POST", site.second, json=body)


def _forgot(site: Site, address: str) -> Any:
    return site.client().request("POST", site.forgot, json={"username": address})


def _reset(site: Site, secret: str) -> Any:
    return site.client().request("POST", site.reset, json={"token": secret, "password": "a new and long password"})


def _begin(site: Site, client: Any, **query: str) -> str:
    response = client.request("GET", site.sign_in, params=query)
    place = response.headers.get("location", "")
    require(300 <= response.status_code < 400 and "state=" in place, "the sign-in does not lead to the provider")
    return str(place)


def _cookies_of(response: Any) -> Sequence[str]:
    return list(response.headers.get_list("set-cookie"))


def _code(site: Site) -> str:
    return _configured(site.code, "code")()


def _mailed(site: Site) -> str:
    return _configured(site.mailed, "mailed")()


def _agree(site: Site, url: str) -> str:
    return _configured(site.agree, "agree")(url)


def _ticket(site: Site) -> str:
    return _configured(site.ticket, "ticket")()


def _configured(function: Any, name: str) -> Callable[..., str]:
    require(function is not None, f"this attack needs Site({name}=...)")
    found: Callable[..., str] = function
    return found
