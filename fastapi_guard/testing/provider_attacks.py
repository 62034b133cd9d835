"""Attacks on a sign-in with a provider, and on what follows from it."""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from fastapi_guard.testing.site import (
    ELSEWHERE,
    Attacks,
    Client,
    Site,
    misread_cookies,
    require,
    require_refused,
    require_success,
)

FOUND: Final[Attacks] = Attacks()

_WORKS: Final = "a sign-in does not log in"


@FOUND.add("provider", "finish a sign-in that another browser began, or twice", "RFC 6749 10.12, RFC 9700 2.1.1")
def _foreign_state(site: Site) -> None:
    browser, victim = site.client(), site.client()
    url = site.begin_sign_in(browser)
    query = parse_qs(urlsplit(url).query)
    require(query.get("code_challenge_method") == ["S256"], "the authorization request has no PKCE S256")
    require(len(query.get("state", [""])[0]) >= 22, "the authorization request has no state of 128 bits")
    back = site.part("agree")(url)
    victim.request("GET", back)
    require(not site.is_open(victim), "a browser that did not begin a sign-in is logged in by it (login CSRF)")
    url = site.begin_sign_in(browser)
    back = site.part("agree")(url)
    require(browser.request("GET", back).status_code < 400, "a sign-in does not work")
    require(site.is_open(browser), _WORKS)
    later = site.client()
    later.request("GET", back)
    require(not site.is_open(later), "the answer of a provider works twice")


@FOUND.add("provider", "send the browser to another site afterwards", "RFC 9700 4.11")
def _open_redirects(site: Site) -> None:
    for target in (
        ELSEWHERE,
        "//attacker.example",
        "/\\attacker.example",
        "/\t/attacker.example",
        "javascript:alert(1)",
    ):
        browser = site.client()
        response = browser.request("GET", site.part("agree")(site.begin_sign_in(browser, next=target)))
        place = response.headers.get("location", "/")
        require(place.startswith("/") and place[1:2] not in ("/", "\\", "\t"), f"next={target!r} leads to {place!r}")


@FOUND.add("provider", "plant the cookie of a sign-in in another browser", "RFC 6265bis 4.1.3 and 8.6")
def _planted_state(site: Site) -> None:
    browser = site.client()
    back = site.part("agree")(site.begin_sign_in(browser))
    for name, field in misread_cookies(dict(browser.cookies)):
        victim = site.client()
        victim.request("GET", back, headers={"Cookie": field})
        fault = f"a sign-in of another browser logs in by a cookie that is not {name}, or not the only one of that name"
        require(not site.is_open(victim), fault)
    browser.request("GET", site.part("agree")(site.begin_sign_in(browser)))
    require(site.is_open(browser), _WORKS)


@FOUND.add("identities", "complete a sign-in whose identity was unlinked meanwhile", "OWASP ASVS 7.4.3")
def _unlinked_meanwhile(site: Site) -> None:
    owner, pending = _signed_in(site), _sign_in(site)
    require_success(_unlink(site, owner), "the user cannot unlink an identity")
    done = site.second_step(pending, None, site.part("code")())
    require(not site.is_open(pending, done), "a sign-in is completed after its identity was unlinked")


@FOUND.add("identities", "keep a session that the provider has ended", "OpenID Connect Back-Channel Logout 2.7")
def _ended_session(site: Site) -> None:
    client = _signed_in(site)
    token = site.part("logout_token")()
    bearer = {"Authorization": f"Bearer {token}"}
    require_refused(site.client().request("GET", site.guarded, headers=bearer), "a logout token as an access token")
    require_success(_log_out(site, token), "the provider cannot end a session")
    require(not site.is_open(client), "a session is valid after the provider has ended it")
    require_refused(_log_out(site, token), "a logout token that was used before")
    for wrong in ("", token[:-2], f"{token.rpartition('.')[0]}."):
        require_refused(_log_out(site, wrong), "a logout token without its signature")


@FOUND.add("identities", "complete a login after the provider has ended it", "OpenID Connect Back-Channel Logout 2.7")
def _ended_meanwhile(site: Site) -> None:
    _signed_in(site)
    pending = _sign_in(site)
    require_success(_log_out(site, site.part("logout_token")()), "the provider cannot end a session")
    done = site.second_step(pending, None, site.part("code")())
    require(not site.is_open(pending, done), "a login that waited for its second step is completed after the logout")


@FOUND.add("identities", "begin a session that the provider has ended", "OpenID Connect Back-Channel Logout 2.7")
def _ended_before(site: Site) -> None:
    _signed_in(site)
    browser = site.client()
    back = site.part("agree")(site.begin_sign_in(browser))
    require_success(_log_out(site, site.part("logout_token")()), "the provider cannot end a session")
    browser.request("GET", back)
    done = site.second_step(browser, None, site.part("code")())
    require(not site.is_open(browser, done), "a response of the provider logs in after the logout of its session")


def _sign_in(site: Site) -> Client:
    client = site.client()
    client.request("GET", site.part("agree")(site.begin_sign_in(client)))
    return client


def _signed_in(site: Site) -> Client:
    client = _sign_in(site)
    require(site.is_open(client, site.second_step(client, None, site.part("code")())), _WORKS)
    return client


def _unlink(site: Site, client: Client) -> Any:
    linked: Sequence[Any] = client.request("GET", site.identities).json()
    require(linked, "no identity is linked to the user")
    return [client.request("DELETE", f"{site.identities}/{identity['id']}") for identity in linked][-1]


def _log_out(site: Site, token: str) -> Any:
    return site.client().request("POST", site.provider_logout, data={"logout_token": token})
