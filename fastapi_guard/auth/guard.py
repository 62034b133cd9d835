"""Guard: what FastAPI calls for an Auth, and what OpenAPI sees of it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from fastapi import params
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth.placement import Placed
from fastapi_guard.claims import Grants
from fastapi_guard.schemes import UNDECIDED, Scheme, SchemeCallable

if TYPE_CHECKING:
    from fastapi_guard.auth.auth import Auth

PrincipalT = TypeVar("PrincipalT")
CallT = TypeVar("CallT", bound=Callable[..., Any])

# What a dependency around a guard asks for, and with which statuses it answers beside those of a guard.
_RULE: Final = "fastapi_guard_rule"
_STATUSES: Final = "fastapi_guard_statuses"

# A credential that held: its principal, and what it grants, fixed at that moment.
Verified: TypeAlias = tuple[PrincipalT, Grants]


class Guard(Placed, Generic[PrincipalT]):
    """The callable that FastAPI calls for an Auth. There are three to an Auth, made once.

    It defines no ``__eq__``: equal callables would share FastAPI's cache, and the answer of one guard would be taken
    for the answer of another.

    Attributes:
        is_flat: Whether it needs the connection alone, and nothing that FastAPI resolves.
        ignored: The names of parameters whose schemes do not count, though FastAPI resolves them.
    """

    is_flat: bool = True
    ignored: frozenset[str] = frozenset()

    def __init__(self, auth: "Auth[PrincipalT]", *, optional: bool = False, ignore_invalid: bool = False) -> None:
        """Guard by ``auth``; an optional guard lets a connection without a credential pass with ``None``."""
        self.auth: Auth[PrincipalT] = auth
        self.optional = optional
        self.ignore_invalid = ignore_invalid

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> PrincipalT | None:
        """Admit the connection, as FastAPI's dependency."""
        verified = UNDECIDED if self.ignore_invalid else self.auth.at_once(connection)
        if verified is UNDECIDED:
            verified = await self.auth.authenticate(connection, ignore_invalid=self.ignore_invalid)
        return self.admit(verified, security_scopes.scopes)

    def admit(self, verified: Verified[PrincipalT] | None, scopes: Sequence[str]) -> PrincipalT | None:
        """Return the principal, or raise; ``None`` only where the guard is optional."""
        if verified is None:
            # Scopes that an enclosing dependency requires are not waived by an optional guard.
            if self.optional and not scopes:
                return None
            raise self.auth.refuse_missing()
        principal, grants = verified
        if scopes:
            self.auth.check_scopes(grants, scopes)
        return principal

    @property
    def checks_presence_only(self) -> bool:
        """Whether any credential at all passes, because nothing verifies it."""
        return self.auth.checks_presence_only

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The schemes that it extracts from by itself, each an alternative; FastAPI resolves others below it."""
        return (self.auth.scheme,)


class FlatGuard(Guard[PrincipalT], SecurityBase):
    """Extraction, verification and scope check in one callable, which OpenAPI sees as the scheme itself."""

    def __init__(self, auth: "Auth[PrincipalT]", *, optional: bool = False, ignore_invalid: bool = False) -> None:
        """Carry the OpenAPI description of the scheme."""
        super().__init__(auth, optional=optional, ignore_invalid=ignore_invalid)
        self.model: SecurityModel = auth.scheme.model
        self.scheme_name: str = auth.scheme.scheme_name


def resolving_guard(scheme: SchemeCallable) -> type[Guard[Any]]:
    """Return the kind of guard that has FastAPI resolve ``scheme``."""

    class ResolvingGuard(Guard[PrincipalT]):
        """A guard whose scheme FastAPI resolves first, as a dependency of its own."""

        is_flat = False

        async def __call__(
            self,
            connection: HTTPConnection,
            security_scopes: SecurityScopes,
            raw: Any = params.Depends(scheme),  # noqa: B008 - this is how FastAPI is told
        ) -> PrincipalT | None:
            """Admit the connection."""
            verified = None
            if credential := as_credential(raw):
                verified = await self.auth.authenticate(connection, credential, ignore_invalid=self.ignore_invalid)
            return self.admit(verified, security_scopes.scopes)

        @property
        def schemes(self) -> tuple[Scheme, ...]:
            """None: what OpenAPI sees is below."""
            return ()

    return ResolvingGuard


def as_credential(raw: Any) -> str | None:
    """Return what a scheme of the application gave; an empty text is no credential.

    Raises:
        TypeError: It is no text.
    """
    if raw is not None and not isinstance(raw, str):
        msg = f"a scheme returns the credential as str or None, not {type(raw).__name__}"
        raise TypeError(msg)
    return raw or None


def ruled(call: CallT, rule: str, *statuses: int) -> CallT:
    """Say what a dependency around a guard asks for, in words, and with which ``statuses`` it answers beside a guard's.

    An audit and OpenAPI see callables, not what they close over.
    """
    setattr(call, _RULE, rule)
    setattr(call, _STATUSES, frozenset(statuses))
    return call


def rule_of(call: object) -> str | None:
    """Return what a dependency around a guard asks for, in words; ``None`` where it is none of ours."""
    rule: str | None = getattr(call, _RULE, None)
    return rule


def statuses_of(call: object) -> frozenset[int]:
    """Return the statuses with which a dependency around a guard answers, beside those of a guard."""
    statuses: frozenset[int] = getattr(call, _STATUSES, frozenset())
    return statuses
