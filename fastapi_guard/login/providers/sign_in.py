"""ProviderLogin: sign in with a provider, link its identities to accounts, and unlink them.

A user who comes back from a provider goes through the gate of every login: ``Login.begin``.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, EventCallback, checked, logger, publish
from fastapi_guard.exceptions import AuthError, ConfigurationError, Forbidden, ServiceUnavailable, Unauthorized, shown
from fastapi_guard.jwt.responses import FetchError
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.login.cut import REVOCATION_NUMBER
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.providers.attempts import Attempt, Attempts, new_secret
from fastapi_guard.login.providers.client import error_code
from fastapi_guard.login.providers.identities import Identities, StoredIdentities
from fastapi_guard.login.providers.links import Links, NewUser
from fastapi_guard.login.providers.provider import (
    AuthorizationRequest,
    CodeExchange,
    Identity,
    Provider,
    refused,
)
from fastapi_guard.login.state import digest_of
from fastapi_guard.login.users import User
from fastapi_guard.stores.arguments import async_function_of, check_flags, implementing, instance_of, items_of

ResultT = TypeVar("ResultT")
Identified = Callable[[Identity], Awaitable[Mapping[str, str]]]
StillValid = Callable[[Claims], Awaitable[bool]]

_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_TEXT_CHARACTERS: Final = 4096
# The claims by which a login is found again.
_KEPT: Final = ("iss", "sub", "sid", "jti", "iat", REVOCATION_NUMBER)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedIn:
    """The end of a sign-in.

    Attributes:
        identity: The user at the provider.
        outcome: The login; ``None`` where an identity was linked to a user who was logged in already.
        next: A path of the application, where the browser wanted to go; ``None`` where it named none.
    """

    identity: Identity
    outcome: Complete | Pending | None
    next: str | None


class ProviderLogin:
    """Signs users in with providers, by an authorization code with PKCE, a state and a nonce.

    Attributes:
        login: The Login whose users sign in.
        providers: The providers, by name.
        identities: The identities that are linked to users.
    """

    def __init__(
        self,
        login: Login,
        providers: Sequence[Provider],
        *,
        callback: str,
        identities: Identities | None = None,
        new_user: NewUser | None = None,
        registers: bool = True,
        on_event: EventCallback | None = None,
    ) -> None:
        """Sign users of ``login`` in with ``providers``.

        Args:
            login: The Login.
            providers: At most one of each name.
            callback: The absolute URL that a provider sends the browser back to, with ``{provider}`` in place of the
                name: ``"https://shop.example/providers/{provider}/callback"``. Register it at each provider.
            identities: Where linked identities are, by default in the store of ``login``.
            new_user: Makes the user for a new identity, sync or async; ``None`` and ``False`` refuse. By default a user
                with the address where the provider vouches for it, else with a username that is made up.
            registers: Whether a new identity may become a new user. ``False``: only linked identities can log in.
            on_event: Receives events, besides the log.

        Raises:
            ConfigurationError: Two providers have one name, a name is not usable in a URL, the callback has no place
                for the name or is not an https URL, the users of the Login cannot be added to, or a method of
                a provider or of ``identities`` is not an ``async def`` where it has to be one.
        """
        self.login: Login = instance_of("login", login, Login, "a Login, such as Login(users, store)")
        for provider in items_of("providers", providers, "such as [GitHub(...)]"):
            methods, example = ("authorization_url", "identify"), "a list such as [GitHub(...)]"
            implementing("providers", provider, methods, example, plain=("vouches",))
        if identities is not None:
            implementing(
                "identities",
                identities,
                ("of", "get", "add", "remove"),
                "an object such as DatabaseIdentities(sessions)",
            )
        check_flags(registers=registers)
        instance_of("callback", callback, str, 'a URL such as "https://shop.example/providers/{provider}/callback"')
        named: list[tuple[Any, Provider]] = [(getattr(provider, "name", None), provider) for provider in providers]
        self.providers: Mapping[str, Provider] = dict(named)
        if not self.providers or len(self.providers) < len(providers):
            msg = "providers is a list of providers, each with a name of its own"
            raise ConfigurationError(msg)
        for name in self.providers:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                msg = f"the name of a provider is 1 to 32 characters of a-z 0-9 _ -, not {shown(name)}"
                raise ConfigurationError(msg)
        if callback.count("{provider}") != 1:
            msg = "callback is a URL with {provider} in it, once: each provider has a redirect URI of its own"
            raise ConfigurationError(msg)
        self._callback = check_url(callback)
        self.identities: Identities = (
            StoredIdentities(login.store, name=login.name) if identities is None else identities
        )
        self._on_event = checked(on_event)
        self._links = Links(login, self.identities, new_user, registers=registers, on_event=self._on_event)
        self._attempts = Attempts(login.store, login.name)
        self._identified: list[Identified] = []

    async def start(
        self,
        name: str,
        *,
        browser: str,
        next: str | None = None,  # noqa: A002 - as in a form
        user: User | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the URL to send the browser to.

        Args:
            name: The provider.
            browser: A random text in a cookie of the browser, to which the sign-in is bound.
            next: A path of the application, where the browser goes afterwards.
            user: A user who is logged in, and links an identity to the account.
            claims: Those of the login of ``user``, for ``still_valid`` of ``finish``.

        Raises:
            Forbidden: There is no such provider.
            ServiceUnavailable: The provider or the store is unreachable.
        """
        provider = self.provider(name)
        attempt = Attempt(
            provider=name,
            browser=digest_of(browser),
            nonce=new_secret(),
            verifier=new_secret(),
            next=next,
            subject=None if user is None else user.subject_id,
            version=0 if user is None else user.credentials_version,
            login=None if claims is None else {name: claims[name] for name in _KEPT if name in claims},
        )
        state = await self._attempts.add(attempt, self.login.now())
        request = AuthorizationRequest(
            redirect_uri=self.redirect_uri(name), state=state, nonce=attempt.nonce, challenge=attempt.challenge
        )
        return await self._asked(provider, provider.authorization_url(request))

    async def finish(
        self,
        name: str,
        parameters: Mapping[str, str],
        *,
        browser: str | None,
        connection: HTTPConnection | None,
        still_valid: StillValid | None = None,
    ) -> SignedIn:
        """Log in, or link the identity, with the parameters of the answer of a provider.

        Args:
            name: The provider that the answer came back for.
            parameters: ``state``, ``code`` and ``iss``, or ``error``.
            browser: The cookie of the browser.
            connection: The request.
            still_valid: Returns whether the login is valid with whose ``claims`` an identity is linked.

        Raises:
            Unauthorized: The state, the code or the ID token is not valid, the user may not log in, or has logged out
                since the link began.
            Forbidden: There is no account for the identity, or a second factor is needed and there is none.
            TooManyRequests: The address tried too often.
            ServiceUnavailable: The provider or a store is unreachable.
        """
        provider = self.provider(name)
        await self.login.limits.count(None, connection)
        attempt = await self._attempts.use(parameters.get("state"), provider=name, browser=browser)
        try:
            if attempt is None:
                raise refused("unknown_state")
            # Before the code is exchanged: a logout there from then on is one of this login.
            proven_at = self.login.now()
            identity = await self._identify(provider, attempt, parameters)
            if attempt.subject is not None:
                if still_valid is not None and attempt.login is not None and not await still_valid(attempt.login):
                    raise refused("logged_out")
                await self._links.link(provider, identity, attempt.subject, attempt.version)
                return SignedIn(identity=identity, outcome=None, next=attempt.next)
            user = await self._links.user_of(provider, identity)
        except Unauthorized as error:
            status, reason = error.status_code, error.reason
            publish(Event("provider_failed", self.login.name, status, reason), self._on_event)
            raise
        publish(Event("provider_succeeded", self.login.name, subject=user.subject_id), self._on_event)
        idp = _idp(name, identity)
        for identified in self._identified:
            idp |= await identified(identity) or {}
        first = self.login._first  # noqa: SLF001 - Login.begin proves at the moment of its call
        outcome = await first.proven(user, ["fed"], {"idp": idp}, connection, proven_at)
        return SignedIn(identity=identity, outcome=outcome, next=attempt.next)

    async def unlink(self, user: User, identity: str) -> bool:
        """Unlink an identity of ``user`` by its ``id``; return whether there was one.

        Raises:
            Forbidden: It is the only way to log in: the user has neither a password nor another identity, nor a factor
                that can begin a login, such as a passkey.
            ServiceUnavailable: The identities or the users are unreachable.
        """
        return await self._links.remove(user, identity)

    def on_identified(self, identified: Identified) -> None:
        """Call ``identified(identity)`` before the login of each user whom a provider has identified.

        What it returns is added to the claim ``idp``. Where it raises there is no login.

        Raises:
            ConfigurationError: It is not an ``async def``.
        """
        self._identified.append(async_function_of("identified", identified, "of an Identity"))

    def provider(self, name: str) -> Provider:
        """Return the provider of this name.

        Raises:
            Forbidden: There is none.
        """
        provider = self.providers.get(name)
        if provider is None:
            raise Forbidden(reason="unknown_provider")
        return provider

    def redirect_uri(self, name: str) -> str:
        """Return the redirect URI to register at the provider of this name."""
        return self._callback.replace("{provider}", name)

    async def _identify(self, provider: Provider, attempt: Attempt, parameters: Mapping[str, str]) -> Identity:
        if "error" in parameters:
            # The text of a provider goes nowhere: the code alone, bounded, to the log.
            logger.warning("a provider refused a sign-in: %s", error_code(parameters["error"]))
            raise refused("provider_refused")
        code = parameters.get("code")
        if not code or len(code) > _TEXT_CHARACTERS:
            raise refused("no_code")
        exchange = CodeExchange(
            code=code,
            redirect_uri=self.redirect_uri(provider.name),
            verifier=attempt.verifier,
            nonce=attempt.nonce,
        )
        identified = await self._asked(provider, provider.identify(exchange, issuer=parameters.get("iss")))
        if not isinstance(identified, Identity):
            logger.error(
                "identify of the provider %s returned %s, not an Identity", provider.name, type(identified).__name__
            )
            raise ServiceUnavailable(reason="provider_failed")
        return identified

    async def _asked(self, provider: Provider, answer: Awaitable[ResultT]) -> ResultT:
        try:
            return await answer
        except AuthError:
            raise
        except (FetchError, ConfigurationError) as error:
            # The text of both is ours.
            logger.warning("the provider %s cannot be used: %s", provider.name, error)
            raise ServiceUnavailable(reason="provider_unreachable") from None
        except Exception as error:  # noqa: BLE001 - see below
            # A provider of the application's own may raise anything, with any text.
            logger.warning("the provider %s failed with %s", provider.name, type(error).__name__)
            raise ServiceUnavailable(reason="provider_failed") from None


def _idp(provider: str, identity: Identity) -> dict[str, str]:
    session = {} if identity.session is None else {"sid": identity.session}
    return {"provider": provider, "iss": identity.issuer, "sub": identity.subject, **session}
