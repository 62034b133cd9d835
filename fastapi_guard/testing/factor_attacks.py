"""Attacks on the second step of a login, and on a reset by mail that would spare it."""

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

_PENDING_TRIES: Final = 10
_BEGINS: Final = "the right password does not begin a login"
_COMPLETES: Final = "the right code does not complete a login"


@FOUND.add("factors", "go on without the second step", "NIST SP 800-63B 2.2")
def _without_second(site: Site) -> None:
    client = site.client()
    begun = site.log_in(client)
    require(begun.status_code < 300, _BEGINS)
    require(not site.is_open(client, begun), "the password alone opens the guarded route")
    for value in [value for value in fields_of(begun).values() if isinstance(value, str)]:
        headers = {"Authorization": f"Bearer {value}"}
        require_refused(client.request("GET", site.guarded, headers=headers), "a pending login as a token")
    require(site.is_open(client, site.second_step(client, begun, site.part("code")())), _COMPLETES)


@FOUND.add("factors", "send a code of another type, or another login's", "OWASP ASVS 6.6.2")
def _odd_codes(site: Site) -> None:
    code = site.part("code")()
    right = site.client()
    begun = site.second_step(right, site.log_in(right), code)
    require(site.is_open(right, begun), _COMPLETES)
    code = site.part("code")()
    for value in ("", [code], True, None, {"$ne": ""}, int(code), f"{code}\x00", f"+{code}", code * 100):
        client = site.client()
        response = site.second_step(client, site.log_in(client), value)
        require_refused(response, f"the code {value!r}")
    client = site.client()
    require_refused(site.second_step(client, None, code), "a code without a pending login")


@FOUND.add("factors", "use a code or a pending login twice", "RFC 6238 5.2, OWASP ASVS 6.5.1")
def _twice(site: Site) -> None:
    client, other = site.client(), site.client()
    begun, code = site.log_in(client), site.part("code")()
    pending = dict(client.cookies)
    require(site.is_open(client, site.second_step(client, begun, code)), _COMPLETES)
    require_refused(site.second_step(other, site.log_in(other), code), "a code that was used before")
    again = site.client()
    again.cookies.update(pending)
    require_refused(site.second_step(again, begun, site.part("code")()), "a pending login that was completed before")


@FOUND.add("factors", "try codes without a limit", "NIST SP 800-63B 3.2.2")
def _guessed_codes(site: Site) -> None:
    client = site.client()
    begun, code = site.log_in(client), site.part("code")()
    require(begun.status_code < 300, _BEGINS)
    for tried in range(_PENDING_TRIES):
        site.second_step(client, begun, _wrong(code, tried))
    require_refused(site.second_step(client, begun, code), f"the right code after {_PENDING_TRIES} wrong ones")


@FOUND.add("factors", "try codes over many pending logins", "NIST SP 800-63B 3.2.2")
def _codes_of_many_logins(site: Site) -> None:
    code = site.part("code")()
    require_success(site.log_in(site.client()), _BEGINS)
    for tried in range(_PENDING_TRIES):
        client = site.client()
        site.second_step(client, site.log_in(client), _wrong(code, tried))
    client = site.client()
    right = site.second_step(client, site.log_in(client), code)
    require_refused(right, f"the right code after {_PENDING_TRIES} wrong ones of other pending logins")


@FOUND.add("factors", "try codes without a limit at a step-up", "NIST SP 800-63B 3.2.2")
def _codes_of_a_step_up(site: Site) -> None:
    client = site.client()
    done = site.second_step(client, site.log_in(client), site.part("code")())
    require(site.is_open(client, done), _COMPLETES)
    code = site.part("code")()
    for tried in range(_PENDING_TRIES):
        _step_up(site, client, done, _wrong(code, tried))
    refused = _step_up(site, client, done, code)
    require_refused(refused, f"the right code at a step-up after {_PENDING_TRIES} wrong ones")


@FOUND.add("factors", "plant the cookie of a pending login", "RFC 6265bis 4.1.3 and 8.6")
def _planted_pending(site: Site) -> None:
    client = site.client()
    begun, code = site.log_in(client), site.part("code")()
    require_success(begun, _BEGINS)
    for name, field in misread_cookies(dict(client.cookies)):
        headers = {"Cookie": field}
        response = site.client().request("POST", site.second, json={"code": code}, headers=headers)
        require_refused(response, f"a code with a cookie that is not {name}, or not the only one of that name")
    require(site.is_open(client, site.second_step(client, begun, code)), _COMPLETES)


@FOUND.add("resets", "log in by the password alone after a reset by mail", "OWASP ASVS 6.4.3")
def _password_after_reset(site: Site) -> None:
    resetting, client = site.client(), site.client()
    done = _reset(site, resetting)
    require(not site.is_open(resetting, done), "a reset by mail logs in without the second step")
    begun = site.log_in(client, password=NEW_PASSWORD)
    require_success(begun, "the new password does not begin a login")
    require(not site.is_open(client, begun), "after a reset by mail the password alone opens the guarded route")
    require(site.is_open(client, site.second_step(client, begun, site.part("code")())), _COMPLETES)


@FOUND.add("resets", "complete a login of the old password after a reset by mail", "OWASP ASVS 7.4.3")
def _pending_over_reset(site: Site) -> None:
    client = site.client()
    begun = site.log_in(client)
    require_success(begun, _BEGINS)
    _reset(site, site.client())
    done = site.second_step(client, begun, site.part("code")())
    require(not site.is_open(client, done), "a login that the old password began is completed after the reset")
    again = site.client()
    begun = site.log_in(again, password=NEW_PASSWORD)
    require(site.is_open(again, site.second_step(again, begun, site.part("code")())), _COMPLETES)


def _step_up(site: Site, client: Client, done: Any, code: str) -> Any:
    body = {"factor": site.factor, "code": code}
    return client.request("POST", site.step_up, json=body, headers=bearer_of(done))


def _wrong(code: str, tried: int) -> str:
    return f"{(int(code) + 1 + tried) % 10 ** len(code):0{len(code)}}"


def _reset(site: Site, client: Client) -> Any:
    site.send_reset()
    done = site.reset_by(client, site.part("mailed")())
    require_success(done, "the secret of the message sets no password")
    return done
