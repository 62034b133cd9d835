"""A ProviderLogin on a FakeIssuer, and the browser of a user who signs in."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastapi_guard.login.providers import OpenIDProvider, ProviderLogin, SignedIn
from fastapi_guard.login.providers.provider import Provider
from fastapi_guard.login.users import User
from fastapi_guard.stores import Store
from fastapi_guard.testing.issuer import FakeIssuer
from support.accounts import MemoryUsers
from support.clock import Clock
from support.login import request
from support.logins import NAMES, STORED, House

CALLBACK = "https://shop.example/providers/{provider}/callback"
BROWSER = "a browser"


class Shop:
    """An application whose users sign in with a provider.

    Attributes:
        house: Its Login.
        issuer: The provider.
        sign_in: The ProviderLogin.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        second: list[Any] | None = None,
        provider: dict[str, Any] | None = None,
        more: list[Provider] | None = None,
        **options: Any,
    ) -> None:
        """Build the application; without factors, unless `second` has some."""
        users = MemoryUsers()
        for name in NAMES:
            user = User(subject_id=name, username=name, email=f"{name}@example.com", password_hash=STORED)
            users._put(replace(user, disabled=name == "mallory"))
        self.house = House(store, clock, {"second": second or []}, users)
        self.issuer = FakeIssuer(audience="shop", clock=clock)
        own: dict[str, Any] = {"client": self.issuer.client, "clock": clock, **(provider or {})}
        self.provider = OpenIDProvider("acme", self.issuer.url, "shop", "a secret of the client", **own)
        self.sign_in = ProviderLogin(
            self.house.login,
            [self.provider, *(more or [])],
            callback=CALLBACK,
            on_event=self.house.events.append,
            **options,
        )

    async def answer(self, *, browser: str = BROWSER, user: Any = None, **claims: Any) -> dict[str, str]:
        """Return the parameters with which a browser comes back from the provider."""
        return parameters_of(self.issuer.authorize(await self.start(browser=browser, user=user), **claims))

    async def start(self, *, browser: str = BROWSER, user: Any = None) -> str:
        """Return the URL of an authorization request."""
        return await self.sign_in.start("acme", browser=browser, user=user)

    async def finish(self, parameters: dict[str, str], *, browser: str | None = BROWSER) -> SignedIn:
        """Come back from the provider."""
        return await self.sign_in.finish("acme", parameters, browser=browser, connection=request())

    async def enter(self, **claims: Any) -> SignedIn:
        """Sign in."""
        return await self.finish(await self.answer(**claims))

    def happened(self) -> list[str]:
        """Return the events of sign-ins, and their reasons."""
        return [f"{event.name}:{event.reason or ''}" for event in self.house.events if "provider" in event.name]


def parameters_of(url: str) -> dict[str, str]:
    """Return the parameters in a URL."""
    return dict(parse_qsl(urlsplit(url).query))
