"""Attacks on access and refresh tokens: what has to end with a logout, and with a token that is used twice."""

from typing import Any, Final, NamedTuple

from fastapi_guard.testing.site import (
    CROSS_SITE,
    Attacks,
    Site,
    bearer_of,
    cookies_field,
    fields_of,
    require,
    require_refused,
    require_success,
)

FOUND: Final[Attacks] = Attacks()

_KINDS: Final = "RFC 8725 3.12, RFC 9700 4.14"
_REUSE: Final = "RFC 9700 4.14.2"
_LOGOUT: Final = "RFC 7009 2.1, OWASP ASVS 7.4.1"


class _Tokens(NamedTuple):
    """A response with tokens, and the cookies of the client that received it."""

    response: Any
    cookies: dict[str, str]

    def opens(self, site: Site) -> bool:
        return site.is_open(site.client(), self.response)


@FOUND.add("tokens", "use a refresh token as an access token, or the reverse", _KINDS)
def _other_kind(site: Site) -> None:
    tokens = _log_in(site)
    access = fields_of(tokens.response).get("access_token", "")
    refresh = [fields_of(tokens.response).get("refresh_token"), *tokens.cookies.values()]
    for value in filter(None, refresh):
        headers = {"Authorization": f"Bearer {value}"}
        refused = site.client().request("GET", site.guarded, headers=headers)
        require_refused(refused, "a refresh token as an access token")
    headers = cookies_field(dict.fromkeys(tokens.cookies, access))
    refused = site.client().request("POST", site.refresh, json={"refresh_token": access}, headers=headers)
    require_refused(refused, "an access token as a refresh token")
    _refreshed(site, tokens)


@FOUND.add("tokens", "refresh or log out from a page of another site", "RFC 6749 10.12")
def _refresh_csrf(site: Site) -> None:
    tokens = _log_in(site)
    if fields_of(tokens.response).get("refresh_token") is not None:
        return  # a token that another site's page cannot read
    headers = {**CROSS_SITE, **cookies_field(tokens.cookies)}
    refused = site.client().request("POST", site.refresh, json={}, headers=headers)
    require_refused(refused, "a refresh of another site's page")
    headers |= bearer_of(tokens.response)
    require_refused(site.client().request("POST", site.logout, headers=headers), "a logout of another site's page")
    _refreshed(site, tokens)


@FOUND.add("tokens", "go on with tokens of which one was used twice", _REUSE)
def _reused(site: Site) -> None:
    first = _log_in(site)
    second = _refreshed(site, first)
    third = _refreshed(site, second)
    require_refused(_refresh(site, first).response, "a refresh token of two rotations ago")
    require_refused(_refresh(site, third).response, "the newest refresh token, after an old one was used again")
    for tokens in (first, second, third):
        require(not tokens.opens(site), "an access token is valid after a refresh token of its login was used twice")


@FOUND.add("tokens", "use tokens of before a refresh or a step-up after the logout", _LOGOUT)
def _logged_out(site: Site) -> None:
    first = _log_in(site)
    second = _refreshed(site, first)
    third = _stepped_up(site, second)
    _log_out(site, third, (first, second, third))


@FOUND.add("tokens", "use tokens of after a refresh or a step-up after the logout", _LOGOUT)
def _logged_out_by_an_old_token(site: Site) -> None:
    first = _log_in(site)
    second = _refreshed(site, first)
    third = _stepped_up(site, second)
    # An application may end an access token with the refresh.
    _log_out(site, first if first.opens(site) else second, (first, second, third))


@FOUND.add("tokens", "use tokens after a logout that follows a token that was used twice", _LOGOUT)
def _logged_out_after_reuse(site: Site) -> None:
    first = _log_in(site)
    second = _refreshed(site, first)
    third = _refreshed(site, second)
    _refresh(site, first)
    site.log_out(site.client(), third.response)
    for tokens in (first, second, third):
        require(not tokens.opens(site), "an access token is valid after the logout that follows a reuse")


def _log_in(site: Site) -> _Tokens:
    client = site.client()
    tokens = _Tokens(site.log_in(client), dict(client.cookies))
    require(tokens.opens(site), "the right password leads to no access token")
    return tokens


def _refresh(site: Site, tokens: _Tokens) -> _Tokens:
    client = site.client()
    refresh_token = fields_of(tokens.response).get("refresh_token")
    body = {} if refresh_token is None else {"refresh_token": refresh_token}
    response = client.request("POST", site.refresh, json=body, headers=cookies_field(tokens.cookies))
    return _Tokens(response, {**tokens.cookies, **dict(client.cookies)})


def _refreshed(site: Site, tokens: _Tokens) -> _Tokens:
    refreshed = _refresh(site, tokens)
    require(refreshed.opens(site), "a refresh token leads to no access token")
    return refreshed


def _stepped_up(site: Site, tokens: _Tokens) -> _Tokens:
    body = {"factor": "password", "password": site.password}
    headers = bearer_of(tokens.response)
    renewed = _Tokens(site.client().request("POST", site.step_up, json=body, headers=headers), {})
    require(renewed.opens(site), "the password does not step up a login")
    return renewed


def _log_out(site: Site, by: _Tokens, others: tuple[_Tokens, ...]) -> None:
    require_success(site.log_out(site.client(), by.response), "an access token does not log out")
    for tokens in others:
        require(not tokens.opens(site), "an access token of the login is valid after the logout")
        if tokens.cookies or "refresh_token" in fields_of(tokens.response):
            require_refused(_refresh(site, tokens).response, "a refresh token of the login, after the logout")
