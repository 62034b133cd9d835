"""Site: an application as an attacker of its logins sees it, over HTTP alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

ELSEWHERE: Final = "https://attacker.example"
CROSS_SITE: Final[Mapping[str, str]] = {"Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site"}
NEW_PASSWORD: Final = "a new and long password"

# White space of Unicode that is neither a space nor a tab. TestClient sends text in UTF-8, where only the second one
# is left as it is.
_SPACES: Final = (b"\xa0", b"\x1c")


class Client(Protocol):
    """A client that keeps cookies, and does not follow redirects: ``TestClient(app, follow_redirects=False)``.

    Attributes:
        cookies: The cookies, with the methods of a mutable mapping.
    """

    cookies: Any

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Return a response; ``json``, ``content`` and ``headers`` are among the options, as in httpx."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """An application, with a user of it. Leave out what the application does not have.

    Make a new application for each attack, so that its limits do not refuse the next one.

    Attributes:
        client: Returns a new client, without cookies, of the application.
        guarded: The path of a GET route that is open to every user who is logged in.
        forbidden: The path of a GET route that is not open to the user, for want of a scope or a role.
        username: A user who can log in.
        password: The user's password.
        login: The path of the login.
        logout: The path of the logout.
        account: The path of a GET route that shows who is logged in: to each user another response.
        code: Returns a valid code of the user's second factor, another one each time.
        second: The path of the second step.
        factor: The name of the second factor at a step-up.
        forgot: The path that sends a message to reset a password.
        reset: The path that sets the new password.
        address: The address of the user.
        mailed: Returns the secret of the newest message, as ``token`` has it; ``""`` where none was sent.
        register: The path that registers a user by ``email`` and ``password``, and sends a message.
        verify: The path that verifies an address by the secret of the message.
        new_address: An address without a user.
        sign_in: The path that sends the browser to a provider.
        agree: Returns the path and query that the provider sends the browser back to, from the URL that it was sent to.
        agree_as: As ``agree``, for a user with ``new_address`` at the provider; from the URL, and whether the provider
            has verified the address. Where it has not, it is an attacker with another subject.
        identities: The path of the list of linked identities, each an object with an ``id``, by which it is deleted
            below the path.
        link: The path that begins to link an identity to the user, and responds with its ``authorization_url``.
        logout_token: Returns a new logout token of the provider, for the user and the ``sid`` of the last ``agree``.
        provider_logout: The back-channel logout URI.
        refresh: The path that exchanges a refresh token: that of the last response, or of a cookie.
        step_up: The path where the user proves the password again.
        foreign: Returns a valid token of another issuer that ``guarded`` accepts, whose ``sub`` is that of the user.
        own: The paths of GET routes that show something of the user.
        change_password: The path that changes the password of the user who is logged in.
        change_address: The path that sends a message to a new address of the user who is logged in.
        confirm_address: The path that sets the new address by the secret of that message.
        sessions: The path of the list of sessions, each an object with an ``id``, by which it is ended below the path.
        keys: The path of the list of API keys, each an object with a ``key_id`` or an ``id``, by which it is deleted
            below the path.
        ticket: Returns the path and query of a request with a new ticket.
        late_ticket: As ``ticket``, of a user who has logged out since.
        connection: The path or URL of a WebSocket that responds to each text, for a client with ``websocket_connect``.
        connection_seconds: How long a connection may outlive its credential.
        demote: Removes the right of the user that the connection needs.
        batch: Sends a batch of requests of ``guarded`` with the credential of the user, of which each has these header
            fields itself; returns their status codes.
        mcp: The path of an MCP server with sessions.
        other: The username and password of another user.
        mounts: The paths below which every request needs a credential.
    """

    client: Callable[[], Client]
    guarded: str = "/me"
    forbidden: str = ""
    username: str = ""
    password: str = ""
    login: str = "/login"
    logout: str = "/logout"
    account: str = "/account"
    code: Callable[[], str] | None = None
    second: str = "/login/totp"
    factor: str = "totp"
    forgot: str = "/forgot"
    reset: str = "/reset"
    address: str = ""
    mailed: Callable[[], str] | None = None
    register: str = "/register"
    verify: str = "/verify"
    new_address: str = "owner@example.com"
    sign_in: str = ""
    agree: Callable[[str], str] | None = None
    agree_as: Callable[[str, bool], str] | None = None
    identities: str = "/identities"
    link: str = ""
    logout_token: Callable[[], str] | None = None
    provider_logout: str = ""
    refresh: str = "/token/refresh"
    step_up: str = "/login/step-up"
    foreign: Callable[[], str] | None = None
    own: tuple[str, ...] = ("/account",)
    change_password: str = "/account/password"
    change_address: str = "/account/address"
    confirm_address: str = "/account/address/confirm"
    sessions: str = "/sessions"
    keys: str = ""
    ticket: Callable[[], str] | None = None
    late_ticket: Callable[[], str] | None = None
    connection: str = ""
    connection_seconds: float = 90.0
    demote: Callable[[], object] | None = None
    batch: Callable[[Sequence[Mapping[str, str]]], Sequence[int]] | None = None
    mcp: str = ""
    other: tuple[str, str] | None = None
    mounts: tuple[str, ...] = ()

    def log_in(self, client: Client, **changes: Any) -> Any:
        """Return the response to the right username and password, or to changed fields."""
        body = {"username": self.part("username"), "password": self.part("password"), **changes}
        return client.request("POST", self.login, json=body)

    def log_out(self, client: Client, response: Any = None) -> Any:
        """Return the response to a logout with the cookies of a client, and the token of a response."""
        return client.request("POST", self.logout, headers=bearer_of(response))

    def is_open(self, client: Client, response: Any = None) -> bool:
        """Return whether the guarded route is open with the cookies of a client, and the token of a response."""
        return bool(client.request("GET", self.guarded, headers=bearer_of(response)).status_code < 400)

    def second_step(self, client: Client, begun: Any, code: Any) -> Any:
        """Return the response to a code for a pending login, from a response or from the cookies of a client."""
        pending = fields_of(begun).get("pending")
        body = {"code": code} if pending is None else {"pending": pending, "code": code}
        return client.request("POST", self.second, json=body)

    def send_reset(self, address: str | None = None) -> Any:
        """Return the response to a request for a message, by default to the address of the user."""
        body = {"username": self.part("address") if address is None else address}
        return self.client().request("POST", self.forgot, json=body)

    def reset_by(self, client: Client, secret: str) -> Any:
        """Return the response to a new password by the secret of a message."""
        return client.request("POST", self.reset, json={"token": secret, "password": NEW_PASSWORD})

    def begin_sign_in(self, client: Client, **query: str) -> str:
        """Return the URL of the provider to which a browser is sent."""
        response = client.request("GET", self.part("sign_in"), params=query)
        place = response.headers.get("location", "")
        require(300 <= response.status_code < 400 and "state=" in place, "the sign-in does not lead to the provider")
        return str(place)

    def part(self, name: str) -> Any:
        """Return a member of this site by its name.

        Raises:
            AssertionError: The site does not have it.
        """
        value = getattr(self, name)
        require(value, f"this attack needs Site({name}=...)")
        return value


class SiteAttack(NamedTuple):
    """An attack on a site.

    Attributes:
        kind: A row of the table of attacks, such as ``login``.
        name: What the attacker does.
        on: Attacks a site, and raises AssertionError where the attack has success.
        source: The standard or guide that requires the refusal.
    """

    kind: str
    name: str
    on: Callable[[Site], None]
    source: str

    def __str__(self) -> str:
        """Return the id of a test."""
        return f"{self.kind}: {self.name}"


class Attacks(list[SiteAttack]):
    """The attacks of one module, in the order of their definitions."""

    def add(self, kind: str, name: str, source: str) -> Callable[[Callable[[Site], None]], Callable[[Site], None]]:
        """Return the decorator of an attack."""

        def decorate(attack: Callable[[Site], None]) -> Callable[[Site], None]:
            def on(site: Site) -> None:
                try:
                    attack(site)
                except AssertionError as error:
                    error.add_note(f"Required by {source}")
                    raise

            self.append(SiteAttack(kind, name, on, source))
            return attack

        return decorate


def fields_of(response: Any) -> Mapping[str, Any]:
    """Return the JSON object of a response, an empty one where it has none."""
    if response is None or not response.content or "json" not in response.headers.get("content-type", ""):
        return {}
    found = response.json()
    return found if isinstance(found, Mapping) else {}


def bearer_of(response: Any) -> dict[str, str]:
    """Return the header field with the access token of a response, no field where it has none."""
    token = fields_of(response).get("access_token")
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def cookies_field(cookies: Mapping[str, str]) -> dict[str, str]:
    """Return the header field with these cookies, no field where there are none."""
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}


def misread_cookies(cookies: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each cookie, and ``Cookie`` fields from which a lenient parser would read it.

    In these a name has other white space than a space or a tab at one end, so that it is another name
    (RFC 6265bis 4.1.3); or the name is there twice, of which one may be planted by a sibling domain (RFC 6265bis 8.6).
    """
    for name, value in cookies.items():
        others = b"".join(f"{key}={kept}; ".encode() for key, kept in cookies.items() if key != name)
        one, another = f"{name}={value}".encode(), f"{name}=planted".encode()
        for space in _SPACES:
            yield name, others + space + one
            yield name, others + name.encode() + space + b"=" + value.encode()
        yield name, others + one + b"; " + another
        yield name, others + another + b"; " + one


def require(condition: object, fault: str) -> None:
    """Raise AssertionError with ``fault`` unless the condition is true; also where Python runs without assertions."""
    if not condition:
        raise AssertionError(fault)


def require_refused(response: Any, fault: str) -> None:
    """Raise AssertionError unless a response is a 4xx."""
    require(400 <= response.status_code < 500, f"{fault}: {response.status_code}")


def require_success(response: Any, fault: str) -> None:
    """Raise AssertionError unless a response is a 2xx or a redirect: without that an attack shows nothing."""
    require(response.status_code < 400, f"{fault}: {response.status_code}")
