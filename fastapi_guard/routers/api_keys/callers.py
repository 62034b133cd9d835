"""The caller of a route about API keys, and the owner whose keys the caller manages.

Identity is issuer and subject, and the tenant is read as ``requires_tenant`` reads it.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, NoReturn, cast, get_args

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fastapi_guard.api_key.fields import SubjectType
from fastapi_guard.api_key.key import MAX_TEXT_LENGTH, StoredKey, fits
from fastapi_guard.auth import ScopesAuth
from fastapi_guard.auth.scopes import ScopesDecision
from fastapi_guard.claims import Claims, Grants, Subject, subject_of
from fastapi_guard.exceptions import Forbidden
from fastapi_guard.routers.issuers import signs
from fastapi_guard.scopes import Scope

SEVERAL_TENANTS: Final = "The credential is of several tenants: name one in the path"
ACCOUNT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUBJECT_TYPES: Final = get_args(SubjectType)
# The subjects of the application that are actors as they are: no bar separates an issuer, and "cli" and "cli:ada" are
# the actors of the command line.
_PLAIN: Final = {"user": re.compile(r"(?!cli(:|$)|service:)[^|]+"), "service": re.compile(r"service:[^|]+")}


class Owner(NamedTuple):
    """The owner of keys: the subject that they act as, and the tenant in which they do.

    Attributes:
        subject: Issuer and subject.
        subject_type: The kind of subject: a user and an agent of one name are two owners.
        tenant_id: The tenant, ``None`` for none.
    """

    subject: Subject
    subject_type: SubjectType
    tenant_id: str | None

    @classmethod
    def of(cls, key: StoredKey) -> "Owner":
        """Return the owner of a key."""
        return cls(key.owner, cast("SubjectType", key.subject_type), key.tenant_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The caller of a route.

    Attributes:
        connection: The request.
        decision: The decision of the Auth that verified the credential: of several Auths, of that one.
        grants: The grants at verification.
        claims: The claims of the credential.
        identity: The caller.
        owner: The owner whose keys the caller creates, lists and rotates: the caller, or a service account.
        is_administrator: Whether the caller has the scope of administrators.
        sees_others: Whether the keys of other owners in the tenant can be looked up and revoked.
    """

    connection: HTTPConnection
    decision: ScopesDecision
    grants: Grants
    claims: Claims
    identity: Owner
    owner: Owner
    is_administrator: bool
    sees_others: bool

    @property
    def actor(self) -> str:
        """The caller as a text for the table of events, and for who paused a key: never that of another caller.

        The ``sub`` of a user or a service account, ``issuer|sub`` of another issuer's user. Where that could be another
        caller, or the command line, it is ``|type|=issuer|sub``, of which only a hash fits where it is long.
        """
        (issuer, sub), kind = self.identity.subject, self.identity.subject_type
        escaped = "" if issuer is None else "=" + issuer.replace("%", "%25").replace("|", "%7C")
        whole = f"|{kind}|{escaped}|{sub}"
        actor = whole
        if issuer is None and kind in _PLAIN and _PLAIN[kind].fullmatch(sub):
            actor = sub
        elif kind == "user" and issuer and "|" not in issuer:
            actor = f"{issuer}|{sub}"
        return actor if len(actor) <= MAX_TEXT_LENGTH else "|" + sha256(whole.encode()).hexdigest()

    def owns(self, key: StoredKey) -> bool:
        """Return whether a key is one of the keys that the caller manages."""
        return Owner.of(key) == self.owner

    def may_see(self, key: StoredKey) -> bool:
        """Return whether a key is one of these, or the caller administers it.

        An administrator administers the keys in the same tenant whose owners are of the same issuer; one of the
        application itself, those of every issuer.
        """
        return self.owns(key) or (
            self.sees_others and key.tenant_id == self.owner.tenant_id and self.administers_issuer(key.issuer)
        )

    def administers_issuer(self, issuer: str | None) -> bool:
        """Return whether an administrator like this one administers the subjects of an issuer."""
        return self.identity.subject.issuer in (None, issuer)

    def refuse(self, error: HTTPException) -> NoReturn:
        """Report a refusal and raise it.

        Raises:
            HTTPException: Always.
        """
        self.decision.refusals.refuse(self.connection, error, self.claims)


@dataclass(frozen=True, kw_only=True, slots=True)
class Callers:
    """Reads the caller of a request.

    Attributes:
        auth: The Auth that guards the routes.
        admin_scope: The scope of administrators.
        tenant_param: The parameter of the path that names the tenant, ``None`` where the credential alone does.
        own_issuer: The issuer that is the application itself, see ``own_issuer_of``.
    """

    auth: ScopesAuth
    admin_scope: Scope
    tenant_param: str | None
    own_issuer: str | None

    def read(self, connection: HTTPConnection, claims: Claims, account: str | None = None) -> Caller:
        """Return the caller.

        Args:
            connection: The request, whose credential was verified.
            claims: The claims of the credential.
            account: The name of the service account whose keys are managed, ``None`` for the caller's own.

        Raises:
            Forbidden: The credential names no subject, or no single tenant.
        """
        decision = self.auth.dependency.decision
        decider = cast("ScopesDecision", decision.decider(connection))
        grants = decision.grants(connection, claims)
        is_administrator = decider.covers(grants, self.admin_scope)
        try:
            tenant_id = self._tenant(decider, connection, claims)
            identity = Owner(self._subject(decider.auth, claims), _subject_type(claims), tenant_id)
            owner = identity if account is None else _service_account(account, tenant_id)
        except Forbidden as error:
            decider.refusals.refuse(connection, error, claims)
        return Caller(
            connection=connection,
            decision=decider,
            grants=grants,
            claims=claims,
            identity=identity,
            owner=owner,
            is_administrator=is_administrator,
            sees_others=is_administrator and account is None,
        )

    def _tenant(self, decision: ScopesDecision, connection: HTTPConnection, claims: Claims) -> str | None:
        tenants = decision.tenants(claims)
        if self.tenant_param is not None:
            # requires_tenant() guards the route; a tenant that it did not let pass is not one here either.
            tenants &= {str(connection.path_params[self.tenant_param])}
        elif len(tenants) > 1:
            raise Forbidden(SEVERAL_TENANTS, reason="several_tenants")
        tenant_id = next(iter(tenants), None)
        is_missing = tenant_id is None and (self.tenant_param is not None or decision.has_malformed_tenant(claims))
        if is_missing or not fits(tenant_id or ""):
            raise Forbidden(reason="tenant")
        return tenant_id

    def _subject(self, auth: ScopesAuth, claims: Claims) -> Subject:
        subject = subject_of(claims)
        if subject is None or not fits(subject.sub) or not fits(subject.issuer or ""):
            raise Forbidden(reason="no_subject")
        is_own = signs(auth) and subject.issuer == self.own_issuer
        return Subject(None, subject.sub) if is_own else subject


def _subject_type(claims: Claims) -> SubjectType:
    subject_type = claims.get("subject_type") or "user"
    if subject_type not in _SUBJECT_TYPES:
        raise Forbidden(reason="subject_type")
    return cast("SubjectType", subject_type)


def _service_account(account: str, tenant_id: str | None) -> Owner:
    # In a namespace of its own: an account must not be named like a user, as whom its keys would then act. No name
    # has a slash, so that two tenants never share an account.
    name = f"service:{tenant_id or ''}/{account}"
    if not ACCOUNT_NAME.fullmatch(account) or not fits(name):
        raise Forbidden(reason="service_account")
    return Owner(Subject(None, name), "service", tenant_id)
