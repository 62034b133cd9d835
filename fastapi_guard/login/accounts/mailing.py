"""Send links and codes about accounts, and verify those that come back."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, cast

from pydantic import AnyUrl

from fastapi_guard.exceptions import ConfigurationError, Forbidden, shown
from fastapi_guard.jwt.urls import is_secure
from fastapi_guard.login.mailed_secrets import LIFETIMES, Mailed, MailedSecrets, Presented, Purpose
from fastapi_guard.login.messages import Message, MessageKind, Outbox, link_to
from fastapi_guard.login.users import User
from fastapi_guard.stores.arguments import check_flags, check_texts, instance_of, mapping_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.hidden import plain

INVALID_SECRET: Final = "The link or code is invalid or has expired"
# How often a link can be sent again to the browser that asked for it.
_MOST_SENT: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountPages:
    """The pages that links in messages open. Each posts the ``token`` of its link; opening it changes nothing.

    Attributes:
        site: The origin of the application, such as ``"https://shop.example"``. Links never depend on a request.
        verify: The path of the page that verifies an address.
        reset: The path of the page that sets a new password.
        address: The path of the page that confirms a new address.
        invitation: The path of the page that accepts an invitation.
        in_query: Put the token into the query, for pages without script, and not into the fragment.
    """

    site: str
    verify: str = "/verify"
    reset: str = "/reset"
    address: str = "/address"
    invitation: str = "/invitation"
    in_query: bool = False

    def __post_init__(self) -> None:
        """Check the site.

        Raises:
            ConfigurationError: It is not an https origin, or a path does not start with a slash.
        """
        site: str = plain(self.site)
        object.__setattr__(self, "site", site)
        check_texts(site=site)
        if not is_secure(site) or site.endswith("/"):
            msg = (
                'site is the https origin of the pages without a slash at its end, such as "https://shop.example" (http'
                f" on localhost alone), not {shown(site)}"
            )
            raise ConfigurationError(msg)
        paths = {name: getattr(self, name) for name in ("verify", "reset", "address", "invitation")}
        check_texts(**paths)
        for name, path in paths.items():
            if path is None or not path.startswith("/"):
                msg = f'{name}: the path of a page starts with "/", which {shown(path)} does not'
                raise ConfigurationError(msg)
        check_flags(in_query=self.in_query)

    def link(self, purpose: Purpose, token: str) -> str:
        """Return the link of a message."""
        paths: dict[Purpose, str] = {
            "verify_address": self.verify,
            "reset_password": self.reset,
            "change_address": self.address,
            "invitation": self.invitation,
        }
        return link_to(self.site + paths[purpose], token, in_query=self.in_query)


def pages_of(pages: AccountPages | str | AnyUrl) -> AccountPages:
    """Return the pages that were configured, or those of an origin with default paths.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(pages, AccountPages):
        return pages
    site: str = instance_of("pages", plain(pages), str, "AccountPages(site=...), or the origin of the application")
    return AccountPages(site=site)


def link_lifetimes(lifetimes: Mapping[Purpose, timedelta] | None) -> Mapping[Purpose, timedelta]:
    """Return other lifetimes of links, by purpose.

    Raises:
        ConfigurationError: A purpose is unknown, or a lifetime is not positive.
    """
    if lifetimes is None:
        return {}
    found = mapping_of("lifetimes", cast("Mapping[str, timedelta]", lifetimes), '{"invitation": timedelta(days=7)}')
    if not found.keys() <= LIFETIMES.keys():
        msg = f"lifetimes has one for each purpose: {', '.join(LIFETIMES)}"
        raise ConfigurationError(msg)
    for purpose, lifetime in found.items():
        instance_of("lifetimes", lifetime, timedelta, "a timedelta for each purpose")
        seconds_of(f"lifetimes[{purpose!r}]", lifetime, positive=True)
    return lifetimes


@dataclass(frozen=True, kw_only=True, slots=True)
class MailedProof:
    """The secret of a message, as a client presents it.

    Attributes:
        token: Of the link.
        code: Typed in, where there is no token. It works in the browser that asked alone.
        browser: Identifies the browser that asked: a random text in its ``__Host-`` cookie.
    """

    token: str | None = field(default=None, repr=False)
    code: str | None = field(default=None, repr=False)
    browser: str | None = field(default=None, repr=False)


class Mailing:
    """Sends secrets to addresses, and verifies them once."""

    def __init__(self, secrets: MailedSecrets, outbox: Outbox, pages: AccountPages) -> None:
        """Send ``secrets`` through ``outbox``, with links to ``pages``."""
        self.secrets: MailedSecrets = secrets
        self._outbox = outbox
        self._pages = pages

    def post(self, make: Callable[[], Awaitable[Message | None]]) -> None:
        """Make and send a message after the answer."""
        self._outbox.post(make)

    def inform(self, kind: MessageKind, user: User, *, address: str | None = None, detail: str | None = None) -> None:
        """Inform a user of an event, at ``address`` or at the address of the user, where there is one."""
        to = address or user.email
        if to is not None:
            self._outbox.post(Message(kind=kind, address=to, user=user, detail=detail))

    async def message(
        self, mailed: Mailed, *, browser: str | None = None, locale: str | None = None, user: User | None = None
    ) -> Message | None:
        """Return a message with a new link, and with a code where a browser is known; ``None`` after five of them.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        issued = await self.secrets.issue(mailed, browser, most=_MOST_SENT)
        if issued is None:
            return None
        return Message(
            kind=mailed.purpose,
            address=mailed.address,
            link=self._pages.link(mailed.purpose, issued.token),
            code=None if browser is None else issued.code,
            expires_at=issued.expires_at,
            locale=locale,
            user=user,
        )

    async def present(self, purpose: Purpose, proof: MailedProof) -> Presented:
        """Return the secret of ``proof``, unused.

        Raises:
            Forbidden: It is wrong, expired or used, or has another purpose.
            ServiceUnavailable: The store cannot be reached.
        """
        presented = await self.secrets.present(purpose, token=proof.token, code=proof.code, handle=proof.browser)
        if presented is None:
            raise invalid()
        return presented

    async def use(self, presented: Presented) -> None:
        """Use a secret up.

        Raises:
            Forbidden: Another request was first.
            ServiceUnavailable: The store cannot be reached.
        """
        if not await self.secrets.use(presented):
            raise invalid("used_at_the_same_time")

    @asynccontextmanager
    async def using(self, presented: Presented) -> AsyncIterator[None]:
        """Use a secret up; where the block fails it can be used again, since its user cannot request another one.

        Raises:
            Forbidden: Another request was first.
            ServiceUnavailable: The store cannot be reached.
        """
        await self.use(presented)
        try:
            yield
        except Exception:
            await self.secrets.put_back(presented)
            raise


def invalid(reason: str = "invalid_secret") -> Forbidden:
    """Return the one refusal of a link or code, for whatever reason."""
    return Forbidden(INVALID_SECRET, reason=reason)
