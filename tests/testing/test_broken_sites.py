"""Attacks that have success on an application of this package which is broken in exactly one way."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from fastapi_guard import Claims
from fastapi_guard.app import streams
from fastapi_guard.app.tickets import TicketAuth
from fastapi_guard.auth import decision
from fastapi_guard.auth.decision import Decision
from fastapi_guard.claims import Subject
from fastapi_guard.jwt.tokens import TokenPair
from fastapi_guard.login import cookies, second_step
from fastapi_guard.login.accounts.address_changes import AddressChanges
from fastapi_guard.login.accounts.desk import Desk
from fastapi_guard.login.accounts.registration import Registration
from fastapi_guard.login.credentials import Credentials
from fastapi_guard.login.gate import Gate
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.providers import ProviderLogin, ProviderLogout
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.users import User
from fastapi_guard.routers import account_routes, sessions
from fastapi_guard.routers.api_keys.authority import Authority
from fastapi_guard.routers.api_keys.callers import Caller, Callers
from fastapi_guard.routers.login import TokenAnswers
from fastapi_guard.routers.sessions import SessionAnswers
from fastapi_guard.schemes import api_key
from fastapi_guard.testing.site import Site, SiteAttack
from fastapi_guard.testing.site_attacks import site_attacks
from support.accounts import MemoryUsers
from support.attacked import Application, attacked
from support.clock import Clock
from support.logins import NAMES

# How long a connection is tried that does not end, in seconds.
SHORT = 0.2

Break = Callable[[Application, pytest.MonkeyPatch], object]


def lenient_cookies(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read cookies as Starlette does: names without white space of Unicode, and the last of several."""

    def named(name: str, connection: HTTPConnection) -> Iterator[str]:
        if name in connection.cookies:
            yield connection.cookies[name]

    for module in (api_key, cookies):
        monkeypatch.setattr(module, "cookies_named", named)


def count_each_pending_login(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the codes of each pending login apart."""
    monkeypatch.setattr(second_step, "second_of", lambda _: f"second:{uuid4()}")


def reset_instead_of_a_factor(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a password that was set by mail stand for the second step."""
    before = Gate.second_steps

    async def second_steps(gate: Any, user: User, methods: Any) -> list[str]:
        return [] if await gate._mailbox.is_marked(user) else await before(gate, user, methods)

    monkeypatch.setattr(Gate, "second_steps", second_steps)


def users_without_versions(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep users in a table without a column for the version of their credentials."""
    before = MemoryUsers.update

    async def update(users: Any, expected: User, new: User) -> bool:
        return await before(users, expected, replace(new, credentials_version=expected.credentials_version))

    monkeypatch.setattr(MemoryUsers, "update", update)


def end_nothing(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a password and end nothing that the old one gave."""

    async def end(*_: Any) -> int:
        return 0

    monkeypatch.setattr(Credentials, "end", end)


def ask_no_password(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a password by the session alone."""

    async def confirm(*_: Any) -> None: ...

    monkeypatch.setattr(Desk, "confirm", confirm)


def count_nothing(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no attempt."""

    async def count(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(LoginLimits, "count", count)


def keep_former_sessions(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin another session at a step-up, and leave the former one."""

    async def end(*_: Any) -> bool:
        return True

    monkeypatch.setattr(SessionAuth, "_end", end)


def delete_the_cookie_alone(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete the cookie at a logout, and leave the session."""

    async def end_presented(*_: Any) -> bool:
        return True

    monkeypatch.setattr(SessionAuth, "_end_presented", end_presented)


def grant_requested_scopes(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grant the scopes that a client requests."""

    def narrowed(_: Any, claims: Claims, scope: str | None, **__: Any) -> tuple[Claims, str | None]:
        return (claims if scope is None else {**claims, "scope": scope}), scope

    monkeypatch.setattr(TokenPairs, "_narrowed", narrowed)


def register_all_fields(application: Application, _: pytest.MonkeyPatch) -> None:
    """Store each field of the body of a registration that a user has."""

    async def register(request: Request) -> None:
        body = await request.json()
        hashed = await application.login.passwords.hash(body["password"])
        fields = {name: body[name] for name in ("email", "scopes", "roles", "is_admin")}
        user = User(subject_id="r-1", password_hash=hashed, **fields, email_verified=False)
        await application.login.users.add(user)

    async def verify() -> None:
        user = await application.login.users.by_subject("r-1")
        await application.login.users.update(user, replace(user, email_verified=True))

    for path, endpoint in (("/verify", verify), ("/register", register)):
        application.app.router.routes.insert(0, APIRoute(path, endpoint, methods=["POST"]))


def list_every_session(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """List the sessions of all users."""

    async def every(auth: SessionAuth, claims: Claims) -> list[Session]:
        return [session for name in NAMES for session in await auth.list(name)]

    monkeypatch.setattr(sessions, "_own", every)


def confirm_for_anyone(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Confirm an address for the user who asked, in the session of any user."""
    before = AddressChanges.confirm

    async def confirm(addresses: Any, _: User, proof: Any, **options: Any) -> User:
        user = await addresses._desk.lookup.by_subject("ada")
        return await before(addresses, user, proof, **options)

    monkeypatch.setattr(AddressChanges, "confirm", confirm)


def grant_any_key(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make keys with whatever rights a body names."""
    monkeypatch.setattr(Authority, "check", lambda *_: None)


def show_any_key(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every caller see and revoke the key of an id."""
    monkeypatch.setattr(Caller, "may_see", lambda *_: True)


def keys_of_any_issuer(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own keys by the subject, whatever the issuer is."""
    monkeypatch.setattr(Callers, "_subject", lambda _, __, claims: Subject(None, claims["sub"]))


def any_issuer(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look the subject up, whatever the issuer is."""
    monkeypatch.setattr(account_routes, "is_own", lambda *_: True)


def unlink_alone(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove an identity and end nothing that began with it."""

    async def unlink(sign_in: Any, _: User, identity: str) -> bool:
        return await sign_in.identities.remove(identity) is True

    monkeypatch.setattr(ProviderLogin, "unlink", unlink)


def end_no_session(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify a logout token, and end no session."""

    async def end_noted(*_: Any) -> int:
        return 0

    monkeypatch.setattr(ProviderLogout, "_end_noted", end_noted)


def end_noted_sessions_alone(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the sessions that there are, and none that begins afterwards."""

    async def refuse_ended(*_: Any, **options: Any) -> None:
        assert options

    monkeypatch.setattr(ProviderLogout, "_refuse_ended", refuse_ended)


def link_for_former_users(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Link an identity for the user who asked, whether or not that user is still logged in."""

    async def is_valid(*_: Any) -> bool:
        return True

    monkeypatch.setattr(SessionAnswers, "is_valid", is_valid)


def eager_registration(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store users when they register, and keep their passwords when a provider vouches for the address."""
    before = Credentials.change

    async def register(registration: Any, account: Any, **options: Any) -> None:
        address, username, hashed = await registration.checked(account, options["connection"])
        user = User(subject_id="r-1", email=address, username=username, password_hash=hashed, email_verified=False)
        await registration._desk.login.users.add(user)
        await registration.resend(address, browser=None, connection=None)

    async def change(credentials: Any, user: User, keep: Any, fields: dict[str, Any], **options: Any) -> User:
        kept = {name: value for name, value in fields.items() if name != "password_hash" or value is not None}
        return await before(credentials, user, keep, kept, **options)

    monkeypatch.setattr(Registration, "register", register)
    monkeypatch.setattr(Credentials, "change", change)


def keep_identities(application: Application, _: pytest.MonkeyPatch) -> None:
    """Leave the identities of an account when the owner of its address gets it."""
    application.login.credentials.releases.clear()


def refresh_by_access_tokens(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchange an access token for new tokens too."""
    before = TokenPairs.refresh

    async def refresh(pairs: Any, token: str, **options: Any) -> TokenPair:
        if token.count(".") != 2:
            return await before(pairs, token, **options)
        claims = await pairs.jwt.verify(token)
        issued = pairs.jwt.create_access_token({"sub": claims["sub"]})
        return TokenPair(**{**dict(issued), "refresh_token": token})

    monkeypatch.setattr(TokenPairs, "refresh", refresh)


def refresh_from_anywhere(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the refresh cookie of a request of any site."""
    monkeypatch.setattr(TokenAnswers, "check", lambda *_, **__: None)


def keep_access_tokens(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the refresh tokens of a login alone."""

    async def revoke_session(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(Revocations, "revoke_session", revoke_session)


def trust_makers(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a ticket, and not the credential of its maker."""

    async def check_maker(*_: Any) -> None: ...

    monkeypatch.setattr(TicketAuth, "_check_maker", check_maker)


def trust_origins(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe a cookie of any site."""
    monkeypatch.setattr(decision, "is_same_origin", lambda *_: True)


def check_once(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the credential of a connection at its beginning alone."""
    monkeypatch.setattr(streams, "_checks_of", lambda _: [])


def check_credentials_alone(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify the credential of an open connection again, and not what its guard requires."""

    def checks_of(connection: WebSocket) -> list[Callable[[], Any]]:
        async def check() -> Claims:
            claims: Claims = await application.auth.verify(application.auth.scheme.extract(connection))
            return claims

        return [check]

    monkeypatch.setattr(streams, "_checks_of", checks_of)


def remember_for_all(_: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what was decided for every copy of a scope, whatever header fields the copy has."""

    def recall(self: Any, connection: HTTPConnection, _: str | None = None) -> Any:
        kept = connection.scope.get("fastapi_guard.decided", {}).get(self)
        return None if kept is None else kept[0]

    monkeypatch.setattr(Decision, "recall", recall)


def accept_below(application: Application, _: pytest.MonkeyPatch) -> None:
    """Accept each WebSocket below the mount."""

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()

    application.app.router.routes.clear()
    application.app.add_api_websocket_route("/inside{rest:path}", accept)
    application.app.post("/login")(lambda: None)


# By the name of an attack: what is reported, and the application that is broken so.
BROKEN: dict[str, list[tuple[str, Break]]] = {
    "plant a cookie whose name begins or ends with white space, or one beside that of the login": [
        (r"a cookie that is not __Host-session, or not the only one of that name, logs in", lenient_cookies)
    ],
    "plant the cookie of a pending login": [
        (r"a code with a cookie that is not __Host-pending-session-login", lenient_cookies)
    ],
    "plant the cookie of a sign-in in another browser": [
        (r"a sign-in of another browser logs in by a cookie that is not __Host-sign-in-login", lenient_cookies)
    ],
    "try codes over many pending logins": [
        (r"the right code after 10 wrong ones of other pending logins: 204", count_each_pending_login)
    ],
    "try codes without a limit at a step-up": [
        (r"the right code at a step-up after 10 wrong ones: 204", count_nothing)
    ],
    "log in by the password alone after a reset by mail": [
        (r"after a reset by mail the password alone opens the guarded route", reset_instead_of_a_factor)
    ],
    "complete a login of the old password after a reset by mail": [
        (r"a login that the old password began is completed after the reset", users_without_versions)
    ],
    "keep a session or tokens over a reset": [(r"what the old password gave is valid after the reset", end_nothing)],
    "change the password without the current one, or from another site's page": [
        (r"a change of the password with {}: 204", ask_no_password),
        (r"a change of the password from a page of another site: 204", trust_origins),
    ],
    "use a session or a token after the logout, or from before a step-up": [
        (r"the session of before a step-up, which another person may know: 200", keep_former_sessions),
        (r"a session or a token after its logout: 200", delete_the_cookie_alone),
    ],
    "name more rights in the body of a login or a refresh": [
        (r"a login with {'scope': '.*'} opens /admin: 200", grant_requested_scopes)
    ],
    "name rights in the body of a registration (mass assignment)": [
        (r"a registration with .* opens /admin: 200", register_all_fields)
    ],
    "keep another session over a change of the password": [
        (r"another session is valid after the user has changed the password", end_nothing)
    ],
    "try passwords without a limit at the change of the password": [
        (r"100 passwords were tried with a session, and none was a 429", count_nothing)
    ],
    "list or end the session of another user": [(r"a user sees the session of another user", list_every_session)],
    "make a key with more rights than one's own": [(r"a key with {'scopes': \['\*'\]}: 201", grant_any_key)],
    "see or revoke the key of another user": [
        (r"a GET of the key of a user by another user: 200", show_any_key),
        (r"the same subject of another issuer sees the key of a user", keys_of_any_issuer),
    ],
    "change the address to that of another person, who opens the link": [
        (r"a link to a new address changes the account of another user", confirm_for_anyone)
    ],
    "act as the user with the subject of a token of another issuer": [
        (r"/account shows what is the user's to the same subject of another issuer", any_issuer)
    ],
    "complete a sign-in whose identity was unlinked meanwhile": [
        (r"a sign-in is completed after its identity was unlinked", unlink_alone)
    ],
    "keep a session that the provider has ended": [
        (r"a session is valid after the provider has ended it", end_no_session)
    ],
    "complete a login after the provider has ended it": [
        (r"a login that waited for its second step is completed after the logout", end_noted_sessions_alone)
    ],
    "begin a session that the provider has ended": [
        (r"a response of the provider logs in after the logout of its session", end_noted_sessions_alone)
    ],
    "register the address of another person, who opens the link": [
        (r"the link in another browser verifies an account with the password of the attacker", lenient_cookies)
    ],
    "register the address of another person, who signs in with a provider": [
        (r"the password of the attacker, in the account of the owner: 204", eager_registration)
    ],
    "link an identity with the address of another person, who signs in with a provider": [
        (r"an identity of the attacker is in the account of the owner", keep_identities)
    ],
    "link an identity with the address of another person, who sets a password by mail": [
        (r"an identity of the attacker is in the account of the owner", keep_identities)
    ],
    "link an identity to the account of a user who has logged out since": [
        (r"an identity was linked to the account after the logout of its user", link_for_former_users)
    ],
    "use a refresh token as an access token, or the reverse": [
        (r"an access token as a refresh token: 200", refresh_by_access_tokens)
    ],
    "refresh or log out from a page of another site": [
        (r"a refresh of another site's page: 200", refresh_from_anywhere)
    ],
    "go on with tokens of which one was used twice": [
        (r"an access token is valid after a refresh token of its login was used twice", keep_access_tokens)
    ],
    "use tokens of before a refresh or a step-up after the logout": [
        (r"an access token of the login is valid after the logout", keep_access_tokens)
    ],
    "use tokens of after a refresh or a step-up after the logout": [
        (r"an access token of the login is valid after the logout", keep_access_tokens)
    ],
    "use tokens after a logout that follows a token that was used twice": [
        (r"an access token is valid after the logout that follows a reuse", keep_access_tokens)
    ],
    "use a ticket of a user who has logged out since": [(r"a ticket of a user who has logged out: 200", trust_makers)],
    "open a connection without a credential, or from a page of another site": [
        (r"a page of another site opens a connection", trust_origins)
    ],
    "keep a connection over a logout": [(r"a connection is open after the logout of its user", check_once)],
    "keep a connection after the right that it needs was lost": [
        (r"a connection is open after its user has lost the right", check_once),
        (r"a connection is open after its user has lost the right", check_credentials_alone),
    ],
    "send a request of a batch with another credential": [
        (r"an invalid credential of a request counts as that of its batch: 200", remember_for_all)
    ],
    "open a WebSocket below a mount without a credential": [(r"a WebSocket to /inside is accepted", accept_below)],
}
CASES = [
    pytest.param(attack, fault, change, id=f"{attack}, {change.__name__}")
    for attack in site_attacks()
    for fault, change in BROKEN.get(attack.name, ())
]


@pytest.mark.parametrize(("attack", "fault", "change"), CASES)
def test_what_is_broken_is_reported(
    attack: SiteAttack, fault: str, change: Break, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack reports an application that is broken in the way that it is about, and what requires the refusal."""
    options = {
        "tokens": attack.kind in ("tokens", "batch") or "refresh" in attack.name,
        "refresh_cookie": "another site" in attack.name,
    }
    with attacked(attack, clock, **options) as application:
        change(application, monkeypatch)
        site: Site = replace(application.site(), connection_seconds=SHORT)
        with pytest.raises(AssertionError, match=fault) as found:
            attack.on(site)
    assert found.value.__notes__ == [f"Required by {attack.source}"]
    assert attack.source
