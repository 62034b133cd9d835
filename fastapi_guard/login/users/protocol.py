"""What logging in needs to know of a user, and where it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fastapi_guard.claims import Claims


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Somebody who logs in with a password.

    Attributes:
        username: What is typed in, an e-mail address for many. It is compared exactly.
        password_hash: By a scheme of the PasswordHasher; anything else is a password that nobody has.
        subject_id: The ``sub`` of the claims; it never changes hands, unlike a username.
        subject_type: "user", "agent", "service".
        tenant_id: The tenant, where there are tenants.
        is_admin: The administrator mark.
        scopes: The granted scopes.
        roles: The names of the roles.
        disabled: Whether the user cannot log in, nor go on with a refresh token.
    """

    username: str
    password_hash: str = field(repr=False)
    subject_id: str
    subject_type: str = "user"
    tenant_id: str | None = None
    is_admin: bool = False
    scopes: Sequence[str] = ()
    roles: Sequence[str] = ()
    disabled: bool = False

    def claims(self) -> Claims:
        """Return what a token or a session says about the user."""
        claims: Claims = {"sub": self.subject_id, "subject_type": self.subject_type, "is_admin": self.is_admin}
        if self.tenant_id is not None:
            claims["tenant_id"] = self.tenant_id
        claims["scope"] = " ".join(self.scopes)
        if self.roles:
            claims["roles"] = list(self.roles)
        return claims


class Users(Protocol):
    """Where the users are. An exception other than an AuthError means that they cannot be asked now, and is a 503."""

    async def get(self, username: str) -> User | None:
        """Return the user of this name, ``None`` where there is none."""
        ...  # pragma: no cover

    async def set_password_hash(self, username: str, hash: str) -> None:  # noqa: A002 - what it is
        """Store another hash of the password, in a write of its own that touches nothing else."""
        ...  # pragma: no cover
