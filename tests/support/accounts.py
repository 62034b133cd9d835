"""Accounts over a Login, with the messages that a user would read."""

from dataclasses import dataclass, field
from typing import Any

from fastapi_guard import Unauthorized
from fastapi_guard.events import Event
from fastapi_guard.login.accounts import Accounts, MailedProof, NewAccount
from fastapi_guard.login.login import Complete, Login
from fastapi_guard.login.messages import Message, Outbox
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.login.totp import TOTP
from fastapi_guard.login.users import MappingUsers, User
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock
from support.factors import KEY
from support.login import PASSWORD, request
from support.passwords import quick_hasher

SITE = "https://shop.example"
NEW_PASSWORD = "a quite different pass phrase"


class MemoryUsers(MappingUsers):
    """Users in memory that can be added and removed."""

    def __init__(self) -> None:
        """Begin without users."""
        super().__init__({})
        self.fails = False

    async def add(self, user: User) -> bool:
        """Add a user unless a name is taken."""
        self._check()
        try:
            self._put(user)
        except ValueError:
            return False
        return True

    async def update(self, expected: User, new: User) -> bool:
        """Replace a user."""
        self._check()
        return await super().update(expected, new)

    async def remove(self, subject: str) -> bool:
        """Remove a user, and free the names."""
        self._check()
        user = self._users.pop(subject, None)
        self._names = {name: owner for name, owner in self._names.items() if owner != subject}
        return user is not None

    def _check(self) -> None:
        if self.fails:
            raise ConnectionError


class Ended:
    """A holder of credentials, as SessionAuth is: remembers what ended."""

    def __init__(self) -> None:
        """Remember nothing."""
        self.calls: list[tuple[str, str | None]] = []

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """Remember that everything of a subject but ``keep`` ended."""
        self.calls.append((subject, keep))
        return 1


@dataclass
class Shop:
    """An application with accounts.

    Attributes:
        clock: Seconds since the epoch.
        options: More options of Accounts.
        login_options: More options of the Login.
        store: The store.
        users: The users.
        messages: What was sent.
        events: What was published.
        ended: What of a user ended.
    """

    clock: Clock
    options: dict[str, Any] = field(default_factory=dict)
    login_options: dict[str, Any] = field(default_factory=dict)
    store: Store = None  # type: ignore[assignment]
    users: Any = field(default_factory=MemoryUsers)
    messages: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    ended: Ended = field(default_factory=Ended)

    def __post_init__(self) -> None:
        """Build the Login and the accounts."""
        self.store = self.store or MemoryStore(clock=self.clock)
        self.outbox = Outbox(self.send, on_event=self.events.append)
        options: dict[str, Any] = {
            "passwords": quick_hasher(),
            "second": [TOTP(key=KEY, issuer="Shop"), RecoveryCodes()],
            **self.login_options,
        }
        self.login = Login(self.users, self.store, outbox=self.outbox, clock=self.clock, **options)
        self.login.ends(self.ended)
        options = {"key": KEY, "pages": SITE, "on_event": self.events.append, **self.options}
        self.accounts = Accounts(self.login, **options)

    async def send(self, message: Message) -> None:
        """Keep a message."""
        self.messages.append(message)

    async def mail(self, kind: str | None = None) -> Message:
        """Return the last message, when it has been sent."""
        await self.outbox.drain()
        message = self.messages[-1]
        assert kind in (None, message.kind)
        return message

    async def kinds(self) -> list[str]:
        """Return the kinds of the messages, and forget them."""
        await self.outbox.drain()
        kinds = [f"{message.kind} {message.address}" for message in self.messages]
        self.messages.clear()
        return sorted(kinds)

    async def token(self, kind: str | None = None) -> str:
        """Return the token of the last message."""
        link = (await self.mail(kind)).link
        assert link is not None
        return link.partition("token=")[2]

    async def proof(self, kind: str | None = None, browser: str | None = None) -> MailedProof:
        """Return the link of the last message, presented by a browser."""
        return MailedProof(token=await self.token(kind), browser=browser)

    async def registered(self, email: str = "ada@example.com", username: str | None = None) -> User:
        """Return a user who registered."""
        new = NewAccount(email=email, password=PASSWORD, username=username)
        await self.accounts.registration.register(new, browser=email, connection=None)
        proof = await self.proof("verify_address", email)
        user = await self.accounts.registration.verify(proof, connection=None)
        self.messages.clear()
        return user

    async def user(self, subject: str) -> User:
        """Return a user as it is now."""
        user = await self.users.by_subject(subject)
        assert user is not None
        return user

    async def logs_in(self, name: str, password: str) -> bool:
        """Return whether the password is right, and the user may log in."""
        try:
            outcome = await self.login.with_password(name, password, connection=request())
        except Unauthorized:
            return False
        return isinstance(outcome, Complete)

    def names(self) -> list[str]:
        """Return the names of the events, and forget them."""
        names = [event.name for event in self.events]
        self.events.clear()
        return names
