"""Site: an application as an attacker of its logins sees it, over HTTP alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

ELSEWHERE: Final = "https://attacker.example"


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
        username: A user who can log in.
        password: The user's password.
        login: The path of the login.
        code: Returns a valid code of the user's second factor, another one each time.
        second: The path of the second step.
        forgot: The path that sends a message to reset a password.
        reset: The path that sets the new password.
        address: The address of the user.
        mailed: Returns the secret of the newest message, as ``token`` has it.
        sign_in: The path that sends the browser to a provider.
        agree: Returns the path and query that the provider sends the browser back to, from the URL that it was sent to.
        ticket: Returns the path and query of a request with a new ticket.
        mounts: The paths below which every request needs a credential.
    """

    client: Callable[[], Client]
    guarded: str = "/me"
    username: str = ""
    password: str = ""
    login: str = "/login"
    code: Callable[[], str] | None = None
    second: str = "/login/totp"
    forgot: str = "/forgot"
    reset: str = "/reset"
    address: str = ""
    mailed: Callable[[], str] | None = None
    sign_in: str = ""
    agree: Callable[[str], str] | None = None
    ticket: Callable[[], str] | None = None
    mounts: tuple[str, ...] = ()

    def log_in(self, client: Client, **changes: Any) -> Any:
        """Return the response to the right username and password, or to changed fields."""
        body = {"username": self.username, "password": self.password, **changes}
        return client.request("POST", self.login, json=body)

    def is_open(self, client: Client, response: Any = None) -> bool:
        """Return whether the guarded route is open with the cookies of a client, and the token of a response."""
        token = fields_of(response).get("access_token")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return bool(client.request("GET", self.guarded, headers=headers).status_code < 400)


class SiteAttack(NamedTuple):
    """An attack on a site.

    Attributes:
        kind: ``login``, ``factors``, ``mail``, ``provider``, ``tickets`` or ``mounts``.
        name: What the attacker does.
        on: Attacks a site, and raises AssertionError where the attack has success.
    """

    kind: str
    name: str
    on: Callable[[Site], None]

    def __str__(self) -> str:
        """Return the id of a test."""
        return f"{self.kind}: {self.name}"


def fields_of(response: Any) -> Mapping[str, Any]:
    """Return the JSON object of a response, an empty one where it has none."""
    if response is None or "json" not in response.headers.get("content-type", ""):
        return {}
    found = response.json()
    return found if isinstance(found, Mapping) else {}


def require(condition: object, fault: str) -> None:
    """Raise AssertionError with ``fault`` unless the condition is true; also where Python runs without assertions."""
    if not condition:
        raise AssertionError(fault)


def require_refused(response: Any, fault: str) -> None:
    """Raise AssertionError unless a response is a 4xx."""
    require(400 <= response.status_code < 500, f"{fault}: {response.status_code}")
