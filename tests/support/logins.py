"""A Login with users, factors, messages and events, and what a client of it does."""

from dataclasses import dataclass, field
from typing import Any

from fastapi_guard.events import Event
from fastapi_guard.login.client import Client
from fastapi_guard.login.factor import Factor
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import MappingUsers, User
from fastapi_guard.stores import Store
from support.authenticator import Authenticator
from support.clock import Clock
from support.factors import KEY, totp_code
from support.login import PASSWORD, request
from support.passwords import quick_hasher

#: Of PASSWORD, with the settings of `quick_hasher`.
STORED = "$argon2id$v=19$m=64,t=1,p=1$TkkJwXiPkbJ2jpEyhhBC6A$iuKSwLgqBEFgAXQXx+FkrkGOOMP0MOz5IoXIDt55nL4"
NAMES = ("ada", "bob", "mallory")


def users_of(**fields: Any) -> MappingUsers:
    """Return `ada` and `bob`, who have addresses, and `mallory`, who is disabled."""
    entries = {name: {"password_hash": STORED, "email": f"{name}@example.com", "scopes": ["a:b"]} for name in NAMES}
    entries["mallory"]["disabled"] = True
    entries["ada"] |= fields
    return MappingUsers(entries)


@dataclass
class House:
    """A Login and its surroundings.

    Attributes:
        store: The store.
        clock: Seconds since the epoch.
        options: More options of the Login.
        users: The users.
        messages: What was sent.
        events: What was published.
    """

    store: Store
    clock: Clock
    options: dict[str, Any] = field(default_factory=dict)
    users: MappingUsers = field(default_factory=users_of)
    messages: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    secrets: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Build the Login."""
        self.hasher: PasswordHasher = quick_hasher()
        self.outbox = Outbox(self.send, on_event=self.events.append)
        options: dict[str, Any] = {"second": self.kinds(), "outbox": self.outbox, **self.options}
        self.login = Login(
            self.users,
            self.store,
            passwords=options.pop("passwords", self.hasher),
            clock=self.clock,
            on_event=self.events.append,
            **options,
        )

    def kinds(self) -> list[Factor]:
        """Return a factor of each kind."""
        passkeys = Passkeys(rp_id="shop.example", origin="https://shop.example")
        mailed = MailedCode(self.outbox, key=KEY, first=True)
        return [TOTP(key=KEY, issuer="Shop"), passkeys, RecoveryCodes(count=3), mailed]

    async def send(self, message: Message) -> None:
        """Keep a message."""
        self.messages.append(message)

    async def user(self, name: str = "ada") -> User:
        """Return a user as it is now."""
        user = await self.users.by_subject(name)
        assert user is not None
        return user

    async def enrol(self, kind: str, name: str = "ada") -> Any:
        """Enrol a factor; return what proves it: a secret, an authenticator, codes."""
        user = await self.user(name)
        begun = await self.login.enrolments.begin(kind, user, {}, binding="enrolling")
        assert begun is not None
        if kind == "totp":
            self.secrets[name] = begun.shown["secret"]
            proof: dict[str, Any] = {"code": totp_code(self.secrets[name], self.clock())}
        elif kind == "passkey":
            self.secrets[name] = Authenticator()
            proof = {"credential": self.secrets[name].create(begun.shown["publicKey"])}
        elif kind == "mail":
            await self.outbox.drain()
            proof = {"code": self.messages[-1].code}
        else:
            return begun.shown["codes"]
        assert begun.enrolment is not None
        assert await self.login.enrolments.confirm(user, begun.enrolment, proof, binding="enrolling")
        self.clock.move(60)  # so that the next code is another one
        return self.secrets.get(name)

    def code(self, name: str = "ada") -> str:
        """Return the code that the user's app shows."""
        return totp_code(self.secrets[name], self.clock())

    async def pending(self, name: str = "ada", **fields: Any) -> Pending:
        """Return the pending login after the right password."""
        pending = await self.login.with_password(name, PASSWORD, connection=request(**fields))
        assert isinstance(pending, Pending)
        return pending

    async def complete(self, name: str = "ada", **fields: Any) -> Complete:
        """Return the login after the right password, where that is enough."""
        complete = await self.login.with_password(name, PASSWORD, connection=request(**fields))
        assert isinstance(complete, Complete)
        return complete

    def names(self) -> list[str]:
        """Return the names of the events, and forget them."""
        names = [event.name for event in self.events]
        self.events.clear()
        return names


@dataclass
class SecondFactor:
    """The second factor of `ada`, by a name such as `totp`, or `passkey with a counter`.

    Attributes:
        home: The Login.
        name: The kind, and what is special about it.
        secret: What proves it: a secret, an authenticator, codes.
    """

    home: House
    name: str
    secret: Any = None

    @property
    def kind(self) -> str:
        """The kind of factor."""
        return self.name.partition(" ")[0]

    async def enrol(self) -> None:
        """Enrol it."""
        self.secret = await self.home.enrol(self.kind)
        if self.name.endswith("counter"):
            self.secret.counter = 1

    async def proof(self, pending: Pending) -> dict[str, Any]:
        """Return the proof for a pending login, after a challenge."""
        shown = await self.home.login.challenge(pending.id, self.kind, connection=None)
        await self.home.outbox.drain()
        if self.kind == "passkey":
            return {"credential": self.secret.get(shown["publicKey"])}
        if self.kind == "totp":
            return {"code": self.home.code()}
        return {"code": self.home.messages[-1].code if self.kind == "mail" else self.secret.pop()}

    async def prove(self, pending: Pending, proof: dict[str, Any]) -> Complete:
        """Complete a pending login."""
        return await self.home.login.with_factor(pending.id, self.kind, proof, connection=None)


ADDRESS = Client("192.0.2.1", "Firefox")
