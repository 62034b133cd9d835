"""MailedCode: a link or a code in a message, to begin a login or as its second step.

A mailbox counts once: where a login began with it, it is not offered as the second step, and it never makes ``mfa``
(NIST SP 800-63B 3.1.3.1).
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic import AnyUrl

from fastapi_guard.exceptions import ConfigurationError, Forbidden, TooManyRequests, shown
from fastapi_guard.jwt.urls import is_secure
from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.login.factor import Context, Enrolment, FirstContext, Proof, Strength, Surroundings
from fastapi_guard.login.keyring import Secret, mailing_keys
from fastapi_guard.login.mailed_secrets import LIFETIMES, Mailed, MailedSecrets, Purpose
from fastapi_guard.login.messages import Message, Outbox, link_to
from fastapi_guard.login.users import User
from fastapi_guard.login.users.names import normalized
from fastapi_guard.stores.arguments import check_flags, check_texts, instance_of
from fastapi_guard.stores.hidden import plain

_MOST_SENT: Final = 3
_MOST_MINUTES: Final = 10
_RESEND_SECONDS: Final = 300


class MailedCode:
    """A code, and for a login a link, in a message to the verified address of a user."""

    name: str = "mail"
    methods: tuple[str, ...] = ("mail",)
    strength: Strength = Strength.MAILBOX

    def __init__(
        self,
        outbox: Outbox,
        *,
        key: Secret | Mapping[str, Secret],
        everyone: bool = False,
        first: bool = False,
        page: str | AnyUrl | None = None,
        in_query: bool = False,
        any_browser: bool = False,
        lifetime: timedelta = timedelta(minutes=_MOST_MINUTES),
    ) -> None:
        """Send messages through ``outbox``.

        Args:
            outbox: Sends the messages.
            key: At least 32 random bytes, or secrets by id: codes are stored as HMACs with it.
            everyone: Whether every user with a verified address has this second factor, without enrolling it.
            first: Whether a message can begin a login, in place of a password.
            page: The page that links of a login open, such as ``"https://shop.example/login/mail"``. It posts the
                token. ``None``: messages have a code alone.
            in_query: Put the token into the query of the link, for a page without script, and not into the fragment.
            any_browser: Let a link work in any browser, not only in the one that requested it. The browser that opens
                the link is logged in: a person to whom the user forwards the message can log in as the user.
            lifetime: How long a link or code is valid, at most 10 minutes.

        Raises:
            ConfigurationError: The key is weak, the page is not an absolute URL, or the lifetime is too long.
        """
        own: str | None = plain(page)
        check_texts(page=own)
        if own is not None and not is_secure(own):
            msg = (
                f"page is an absolute https URL of the application (http on localhost alone), not {shown(own)}: links"
                " never depend on a request"
            )
            raise ConfigurationError(msg)
        instance_of("outbox", outbox, Outbox, "Outbox(send)")
        check_flags(everyone=everyone, first=first, in_query=in_query, any_browser=any_browser)
        if not isinstance(lifetime, timedelta) or not timedelta() < lifetime <= LIFETIMES["log_in"]:
            msg = f"lifetime is positive, and at most {_MOST_MINUTES} minutes"
            raise ConfigurationError(msg)
        self._outbox = outbox
        self._keys = mailing_keys(key)
        self._everyone = everyone
        self._first = first
        self._page = own
        self._in_query = in_query
        self._any_browser = any_browser
        self._lifetime = lifetime

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:
        """Return whether the address of ``user`` is verified, and codes are enrolled or for everyone."""
        return user.email is not None and user.email_verified and (self._everyone or bool(enrolled))

    def begins(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:  # noqa: ARG002 - the Protocol's
        """Return whether a message can begin a login, and the address of ``user`` is verified."""
        return self._first and user.email is not None and user.email_verified

    async def enrol(
        self,
        context: Context,
        draft: EnrolledFactor,
        details: Mapping[str, Any],  # noqa: ARG002 - the Protocol's
    ) -> Enrolment | None:
        """Send a code to confirm with; ``None`` where it is enrolled already or the user has no verified address.

        Raises:
            TooManyRequests: Three codes were sent.
            ServiceUnavailable: The store cannot be reached.
        """
        if context.enrolled or context.user.email is None or not context.user.email_verified:
            return None
        shown = await self._send(context, _for_enrolment(context))
        return Enrolment(factor=draft, shown=shown)

    async def confirm(self, context: Context, draft: EnrolledFactor, proof: Mapping[str, Any]) -> EnrolledFactor | None:
        """Return the factor if ``{"code": "..."}`` is the one that was sent.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return draft if await self._is_right(context, proof, _for_enrolment(context)) else None

    async def challenge(self, context: Context) -> Mapping[str, Any]:
        """Send a code, at most three for one login; return ``sent_to``, the address with most of it hidden.

        Raises:
            TooManyRequests: Three codes were sent.
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._send(context, context.binding)

    async def verify(self, context: Context, proof: Mapping[str, Any]) -> Proof | None:
        """Use up the code in ``{"code": "..."}``, which was sent for this login.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if not await self._is_right(context, proof, context.binding):
            return None
        return Proof(methods=self.methods, factor=context.enrolled[0] if context.enrolled else None)

    async def offer(self, context: FirstContext) -> Mapping[str, Any]:
        """Send a link and a code to ``context.login`` after the answer, if a user has that address.

        Raises:
            Forbidden: Messages are a second factor alone, or no browser is named.
        """
        self._check_first(context)
        login = context.login
        if login is not None:
            self._outbox.post(lambda: self._login_message(context, login))
        return {}

    async def identify(self, context: FirstContext, proof: Mapping[str, Any]) -> tuple[str, Proof] | None:
        """Use up ``{"token": "..."}`` of a link or ``{"code": "..."}``, and return the user it was sent to.

        Raises:
            Forbidden: Messages are a second factor alone, or no browser is named.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        self._check_first(context)
        mailed_secrets = self._secrets(context)
        presented = await mailed_secrets.present(
            "log_in", token=proof.get("token"), code=proof.get("code"), handle=context.binding
        )
        if presented is None or not (presented.is_same_browser or self._any_browser):
            return None
        mailed = presented.mailed
        user = await context.find_user(normalized(mailed.address))
        if user is None or mailed != _mailed("log_in", user) or not await mailed_secrets.use(presented):
            return None
        return user.subject_id, Proof(methods=self.methods)

    async def _login_message(self, context: FirstContext, login: str) -> Message | None:
        user = await context.find_user(login)
        if user is None or user.email is None or not user.email_verified or user.disabled:
            return None
        issued = await self._secrets(context).issue(_mailed("log_in", user), context.binding, most=_MOST_SENT)
        if issued is None:
            return None
        link = None if self._page is None else link_to(self._page, issued.token, in_query=self._in_query)
        return Message(
            kind="log_in",
            address=user.email,
            link=link,
            code=issued.code,
            expires_at=issued.expires_at,
            locale=context.locale,
            user=user,
        )

    async def _send(self, context: Context, handle: str) -> Mapping[str, Any]:
        user = context.user
        mailed = _mailed("second_factor", user)
        issued = await self._secrets(context).issue(mailed, handle, most=_MOST_SENT)
        if issued is None:
            raise TooManyRequests(retry_after=_RESEND_SECONDS, reason="too_many_codes")
        self._outbox.post(
            Message(
                kind="second_factor",
                address=mailed.address,
                code=issued.code,
                expires_at=issued.expires_at,
                locale=context.locale,
                user=user,
            )
        )
        return {"sent_to": hidden(mailed.address)}

    async def _is_right(self, context: Context, proof: Mapping[str, Any], handle: str) -> bool:
        mailed = _mailed("second_factor", context.user)
        return await self._secrets(context).use_code(mailed, proof.get("code"), handle)

    def _secrets(self, context: Surroundings) -> MailedSecrets:
        lifetimes: dict[Purpose, timedelta] = {"log_in": self._lifetime, "second_factor": self._lifetime}
        return MailedSecrets(
            context.store, self._keys, name=context.name, lifetimes=lifetimes, clock=lambda: context.now
        )

    def _check_first(self, context: FirstContext) -> None:
        if not self._first:
            raise Forbidden(reason="not_a_first_factor")
        if not context.binding:
            raise Forbidden(reason="no_browser")


def hidden(address: str) -> str:
    """Return an address with most of it hidden, for a user who should recognise it: ``a***@example.com``."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}***@{domain}"


def _mailed(purpose: Literal["log_in", "second_factor"], user: User) -> Mailed:
    # Compared as a whole when it is used: the address and the credentials_version have to be the same.
    return Mailed(purpose=purpose, subject=user.subject_id, address=user.email or "", version=user.credentials_version)


def _for_enrolment(context: Context) -> str:
    return f"enrol:{context.binding}"
