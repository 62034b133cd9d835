"""Providers that users sign in with: the protocol of a kind, and the identity of a user."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from typing_extensions import TypeIs

from fastapi_guard.exceptions import ConfigurationError, Unauthorized, shown
from fastapi_guard.login.users.names import checked_address
from fastapi_guard.stores.arguments import check_flags, mapping_of, optional_texts, sync_function_of

SIGN_IN_FAILED: Final = "Signing in failed"
MAX_SUBJECT_CHARACTERS: Final = 255

ResponseMode = Literal["query", "form_post"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A user of a provider. ``issuer`` and ``subject`` together identify the user, never the address.

    It is checked when constructed: with ``None`` as the subject, all users without one would be the same user.

    Attributes:
        issuer: The ``iss`` of the provider.
        subject: The ``sub``, 1 to 255 printable characters.
        email: The address, where the provider named one that can be an address.
        email_verified: Whether the provider marks the address as verified.
        name: The display name.
        claims: Everything that the provider said.
        session: The ``sid`` of the login at the provider, for its back-channel logout.
        id_token: The ID token, for a logout at the provider.
    """

    issuer: str
    subject: str
    email: str | None = None
    email_verified: bool = False
    name: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    session: str | None = None
    id_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the types, and the subject.

        Raises:
            ConfigurationError: ``issuer`` or ``subject`` is empty, or not text; or another field has the wrong type.
        """
        for name, value in (("issuer", self.issuer), ("subject", self.subject)):
            if not _is_identifier(value):
                msg = f"{name} is text of 1 to {MAX_SUBJECT_CHARACTERS} printable characters, not {shown(value)}"
                raise ConfigurationError(msg)
        optional_texts(email=self.email, name=self.name, session=self.session, id_token=self.id_token)
        check_flags(email_verified=self.email_verified)
        mapping_of("claims", self.claims, "those of an ID token")


# Whether the address of an identity belongs to the user beyond doubt, so that it may be matched with an account.
Vouches = Callable[[Identity], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizationRequest:
    """A request for an authorization code (RFC 6749 4.1.1, RFC 7636 4.3).

    Attributes:
        redirect_uri: Where the provider sends the browser back.
        state: Identifies the attempt, a secret.
        nonce: Comes back in the ID token, a secret.
        challenge: The PKCE challenge, S256.
    """

    redirect_uri: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    challenge: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeExchange:
    """An authorization code, and what the attempt was begun with.

    Attributes:
        code: The code.
        redirect_uri: The one of the authorization request.
        verifier: The PKCE verifier (RFC 7636 4.5).
        nonce: The nonce of the authorization request.
    """

    code: str = field(repr=False)
    redirect_uri: str
    verifier: str = field(repr=False)
    nonce: str = field(repr=False)


class Provider(Protocol):
    """A provider that users sign in with by an authorization code. Its methods raise FetchError where it is down."""

    @property
    def name(self) -> str:
        """The name in routes: 1 to 32 characters of ``a-z 0-9 _ -``."""
        ...  # pragma: no cover

    @property
    def response_mode(self) -> ResponseMode:
        """How the browser comes back: with a query, or with a form that it posts."""
        ...  # pragma: no cover

    async def authorization_url(self, request: AuthorizationRequest) -> str:
        """Return the URL to send the browser to."""
        ...  # pragma: no cover

    async def identify(self, exchange: CodeExchange, *, issuer: str | None) -> Identity:
        """Return the user whom a code is about.

        Args:
            exchange: The code.
            issuer: The parameter ``iss`` of the answer (RFC 9207), ``None`` without one.

        Raises:
            Unauthorized: The code, the issuer or the ID token is not valid.
        """
        ...  # pragma: no cover

    def vouches(self, identity: Identity) -> bool:
        """Return whether the address of ``identity`` belongs to the user beyond doubt."""
        ...  # pragma: no cover


def refused(reason: str) -> Unauthorized:
    """Return the refusal of a sign-in; the ``reason`` goes to the log alone."""
    return Unauthorized(SIGN_IN_FAILED, reason=reason)


def identity_of(issuer: str, claims: Mapping[str, Any], id_token: str | None = None) -> Identity:
    """Return the identity in the claims of an ID token or a userinfo response.

    Raises:
        Unauthorized: The ``sub`` or the ``sid`` is empty, too long, not printable, or not a string.
    """
    subject, session = claims.get("sub"), claims.get("sid")
    if not _is_identifier(subject):
        raise refused("provider_subject")
    # A session that cannot be noted could not be ended by the provider.
    if session is not None and not _is_identifier(session):
        raise refused("provider_session")
    email, name = claims.get("email"), claims.get("name")
    return Identity(
        issuer=issuer,
        subject=subject,
        email=address_in(email),
        # Apple sends the boolean as a string.
        email_verified=claims.get("email_verified") in (True, "true"),
        name=name if isinstance(name, str) else None,
        claims=dict(claims),
        session=session,
        id_token=id_token,
    )


def _is_identifier(value: object) -> TypeIs[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_CHARACTERS and value.isprintable()


def address_in(value: object) -> str | None:
    """Return an e-mail address that a provider named, ``None`` where it cannot be one."""
    if not isinstance(value, str):
        return None
    try:
        return checked_address(value)
    except ValueError:
        return None


def checked_vouches(vouches: bool | Vouches) -> Vouches:  # noqa: FBT001 - a value of the option
    """Return the rule of the option ``vouches``. An address that is not marked as verified never counts.

    Raises:
        ConfigurationError: It is neither a bool nor a function, or it is an ``async def``.
    """
    if isinstance(vouches, bool):
        return lambda identity: vouches and identity.email_verified
    if not callable(vouches):
        msg = f"vouches is True, False or a function of an Identity, not {shown(vouches)}"
        raise ConfigurationError(msg)
    sync_function_of("vouches", vouches, "of an Identity", "identity")
    return lambda identity: identity.email_verified and vouches(identity) is True
