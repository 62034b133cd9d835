"""Attacks on the owner of an address, by an account that was prepared before the owner came (pre-hijacking).

The kinds are those of Sudhodanan and Paverd, "Pre-hijacked accounts", USENIX Security 2022.
"""

from typing import Any, Final

from fastapi_guard.testing.site import (
    NEW_PASSWORD,
    Attacks,
    Client,
    Site,
    bearer_of,
    fields_of,
    misread_cookies,
    require,
    require_refused,
    require_success,
)

FOUND: Final[Attacks] = Attacks()

_ATTACKERS: Final = "a password of the attacker"
_SOURCE: Final = "Pre-hijacked accounts, USENIX Security 2022"
_REGISTERED: Final = "a user cannot register"


@FOUND.add("takeover", "register the address of another person, who opens the link", _SOURCE)
def _opened_link(site: Site) -> None:
    own = f"first.{site.new_address}"
    browser, secret = _registered(site, own)
    require_success(browser.request("POST", site.verify, json={"token": secret}), "an address cannot be verified")
    require_success(_log_in(site, own), "a user who has registered cannot log in")
    attacker, secret = _registered(site, site.new_address)
    require_refused(_log_in(site, site.new_address), "a login with an address that was not verified")
    planted = [field for _, field in misread_cookies(dict(attacker.cookies))]
    for headers in ({}, *({"Cookie": field} for field in planted)):
        # The owner, in another browser, where a sibling domain may have planted a cookie.
        site.client().request("POST", site.verify, json={"token": secret}, headers=headers)
        refused = _log_in(site, site.new_address)
        require_refused(refused, "the link in another browser verifies an account with the password of the attacker")


@FOUND.add("takeover", "register the address of another person, who signs in with a provider", _SOURCE)
def _registered_before(site: Site) -> None:
    attacker, secret = _registered(site, site.new_address)
    owner = _sign_in(site, verified=True)
    require(site.is_open(owner), "a user whom the provider vouches for is not logged in")
    site.client().request("POST", site.verify, json={"token": secret})
    require_refused(_log_in(site, site.new_address), "the password of the attacker, in the account of the owner")
    require(not _is_same_account(site, attacker, owner), "the attacker is in the account of the owner")


@FOUND.add("takeover", "link an identity with the address of another person, who signs in with a provider", _SOURCE)
def _linked_before(site: Site) -> None:
    attacker = _sign_in(site, verified=False)
    owner = _sign_in(site, verified=True)
    require(site.is_open(owner), "a user whom the provider vouches for is not logged in")
    for client in (attacker, _sign_in(site, verified=False)):
        require(not _is_same_account(site, client, owner), "an identity of the attacker is in the account of the owner")


@FOUND.add("takeover", "link an identity with the address of another person, who sets a password by mail", _SOURCE)
def _linked_before_reset(site: Site) -> None:
    attacker = _sign_in(site, verified=False)
    site.send_reset(site.new_address)
    site.reset_by(site.client(), site.part("mailed")())
    owner = site.client()
    begun = site.log_in(owner, username=site.new_address, password=NEW_PASSWORD)
    if begun.status_code >= 400:
        # The identity of the attacker has made no account with the address.
        owner, begun = _sign_in(site, verified=True), None
    require(site.is_open(owner, begun), "the owner of the address cannot log in")
    for client in (attacker, _sign_in(site, verified=False)):
        same = _is_same_account(site, client, owner)
        require(not same, "an identity of the attacker is in the account of the owner")


@FOUND.add("takeover", "change the address to that of another person, who opens the link", _SOURCE)
def _changed_address(site: Site) -> None:
    attacker, owner = site.client(), site.client()
    begun = site.log_in(attacker)
    username, password = site.part("other")
    token = site.log_in(owner, username=username, password=password)
    body = {"email": site.new_address, "password": site.password}
    sent = attacker.request("POST", site.change_address, json=body, headers=bearer_of(begun))
    require_success(sent, "a user cannot ask for another address")
    proof = {"token": site.part("mailed")()}
    for client, headers in ((site.client(), {}), (owner, bearer_of(token))):
        opened = client.request("POST", site.confirm_address, json=proof, headers=headers)
        require_refused(opened, "a link to a new address changes the account of another user than the one who opens it")
    done = attacker.request("POST", site.confirm_address, json=proof, headers=bearer_of(begun))
    require_success(done, "the user who asked for a new address cannot confirm it")


@FOUND.add("takeover", "link an identity to the account of a user who has logged out since", "OWASP ASVS 7.4.1")
def _linked_after_logout(site: Site) -> None:
    browser, own = site.client(), site.client()
    site.log_in(own)
    back = _begin_link(site, browser, verified=False)
    require_success(site.log_out(browser), "a logout is not possible")
    browser.request("GET", back)  # by the next person at the same browser
    same = _is_same_account(site, _sign_in(site, verified=False), own)
    require(not same, "an identity was linked to the account after the logout of its user")
    own.request("GET", _begin_link(site, own, verified=True))
    require(_is_same_account(site, _sign_in(site, verified=True), own), "an identity cannot be linked")


def _begin_link(site: Site, client: Client, *, verified: bool) -> str:
    site.part("link")
    site.log_in(client)
    url = fields_of(client.request("POST", site.link)).get("authorization_url")
    require(url, "a user cannot begin to link an identity")
    return str(site.part("agree_as")(url, verified))


def _registered(site: Site, address: str) -> tuple[Client, str]:
    client = site.client()
    body = {"email": address, "password": _ATTACKERS}
    require_success(client.request("POST", site.register, json=body), _REGISTERED)
    secret: str = site.part("mailed")()
    require(secret, "no message was sent to the address that was registered")
    return client, secret


def _log_in(site: Site, address: str) -> Any:
    return site.log_in(site.client(), username=address, password=_ATTACKERS)


def _sign_in(site: Site, *, verified: bool) -> Client:
    client = site.client()
    client.request("GET", site.part("agree_as")(site.begin_sign_in(client), verified))
    return client


def _is_same_account(site: Site, one: Client, other: Client) -> bool:
    first, second = (client.request("GET", site.account) for client in (one, other))
    require_success(second, f"{site.account} does not show the account of the owner")
    return bool(first.status_code < 400 and first.content == second.content)
