"""The fields of a user that a login reads, and the protocols of the places where users are stored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import shown
from fastapi_guard.stores.arguments import sync_function_of

MAX_SUBJECT_CHARACTERS: Final = 255
_LISTS: Final = ("scopes", "roles")
_TEXT_OR_NONE: Final = (str, type(None))
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "subject_id": str,
    "username": _TEXT_OR_NONE,
    "email": _TEXT_OR_NONE,
    "password_hash": _TEXT_OR_NONE,
    "tenant_id": _TEXT_OR_NONE,
    "email_verified": bool,
    "is_admin": bool,
    "disabled": bool,
    "credentials_version": int,
    "scopes": Collection,
    "roles": Collection,
    "extra_claims": Mapping,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A user who can log in.

    For claims of the application's own pass ``extra_claims``, or override ``claims`` in a subclass. They are read at
    the login, and again whenever a refresh token is used.

    Attributes:
        subject_id: The ``sub`` of the claims, at most 255 characters. It never belongs to another user, unlike a name.
        username: A login name without ``@``, as the user chose it.
        email: The e-mail address, a login name too, as the user typed it: messages are sent to it.
        email_verified: ``False`` until the user has proved to own the address; until then there is no login.
        password_hash: By a scheme of the PasswordHasher. ``None``: the user has no password.
        subject_type: "user", "agent", "service".
        tenant_id: The tenant, where there are tenants.
        is_admin: The administrator mark.
        scopes: The granted scopes.
        roles: The names of the roles.
        disabled: Whether the user can neither log in nor use a refresh token.
        credentials_version: Raised by each change of a password, a factor or an address, and by disabling. What was
            begun under another version (a pending login, a mailed link) does not complete.
        extra_claims: Claims of the application's own, JSON throughout.
    """

    subject_id: str
    username: str | None = None
    email: str | None = None
    email_verified: bool = True
    password_hash: str | None = field(default=None, repr=False)
    subject_type: str = "user"
    tenant_id: str | None = None
    is_admin: bool = False
    scopes: Sequence[str] = ()
    roles: Sequence[str] = ()
    disabled: bool = False
    credentials_version: int = 0
    extra_claims: Mapping[str, Any] = field(default_factory=dict)

    def __init_subclass__(cls, **options: Any) -> None:
        """Check ``claims`` of a subclass.

        Raises:
            ConfigurationError: It is an ``async def``.
        """
        super(User, cls).__init_subclass__(**options)
        sync_function_of(f"{cls.__name__}.claims", cls.claims, "of the user", "self")

    def __post_init__(self) -> None:
        """Check the types, and the names.

        Raises:
            ValueError: A field has another type, the subject is empty or too long, there is no login name, or a
                username has an ``@``.
        """
        # The text "false" of a database would count as true, and the letters of a text as scopes.
        for name, kinds in _TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (name in _LISTS and isinstance(value, str)):
                msg = f"a user has another type as {name}, not {shown(value)}"
                raise ValueError(msg)
        if not self.subject_id or len(self.subject_id) > MAX_SUBJECT_CHARACTERS:
            msg = f"subject_id has 1 to {MAX_SUBJECT_CHARACTERS} characters"
            raise ValueError(msg)
        if not self.username and not self.email:
            msg = "a user has a username or an email"
            raise ValueError(msg)
        if self.username is not None and "@" in self.username:
            msg = "a username has no @: pass an e-mail address as email"
            raise ValueError(msg)

    @property
    def login_name(self) -> str:
        """The username, else the e-mail address."""
        return self.username or self.email or ""

    def claims(self) -> Claims:
        """Return the claims of the user for a token or a session.

        Overridden in a subclass it may add any claim. ``sub``, ``sid``, ``amr``, ``auth_time`` and ``factors`` are set
        by the login whatever is returned here.
        """
        claims: Claims = {"sub": self.subject_id, "subject_type": self.subject_type, "is_admin": self.is_admin}
        if self.tenant_id is not None:
            claims["tenant_id"] = self.tenant_id
        claims["scope"] = " ".join(self.scopes)
        if self.roles:
            claims["roles"] = list(self.roles)
        return {**claims, **self.extra_claims, "sub": self.subject_id}


class Users(Protocol):
    """A place where users are stored, as far as a login needs it.

    An exception other than an AuthError means that they cannot be read now; the answer is a 503.
    """

    async def by_login(self, login: str) -> User | None:
        """Return the user with this login name, ``None`` where there is no such user.

        Args:
            login: Normalised by ``names.normalized``. With an ``@`` it is an e-mail address, without a username.
        """
        ...  # pragma: no cover

    async def by_subject(self, subject: str) -> User | None:
        """Return the user with this ``subject_id``, ``None`` where there is no such user."""
        ...  # pragma: no cover

    async def set_password_hash(self, subject: str, expected: str | None, new: str) -> bool:
        """Replace an outdated hash of the same password, and change nothing else; ``credentials_version`` stays.

        Args:
            subject: The ``subject_id``.
            expected: The hash that is replaced; where the user has another one by now, nothing is changed.
            new: The new hash.

        Returns:
            Whether it was replaced.
        """
        ...  # pragma: no cover

    async def update(self, expected: User, new: User) -> bool:
        """Write the fields in which ``new`` differs from ``expected``.

        Returns:
            ``False``, and nothing was written, where the user has another ``credentials_version`` than ``expected`` by
            now, does not exist any more, or where a username or address belongs to another user.
        """
        ...  # pragma: no cover


class AccountUsers(Users, Protocol):
    """A place where users are stored that register by themselves."""

    async def add(self, user: User) -> bool:
        """Add a user; return ``False`` where the subject, the username or the address belongs to another user."""
        ...  # pragma: no cover

    async def remove(self, subject: str) -> bool:
        """Remove a user; return whether there was one."""
        ...  # pragma: no cover
