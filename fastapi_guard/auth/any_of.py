"""AnyAuth: several Auths where one credential of any of them is enough."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypedDict, Unpack

from fastapi import HTTPException, params
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from fastapi_guard.auth.auth import Auth
from fastapi_guard.auth.guard import Guard, Verified, as_credential
from fastapi_guard.auth.members import Asked, Found, Overrides, ask, is_ambiguous, overriding
from fastapi_guard.auth.placement import called
from fastapi_guard.auth.refusals import challenge_of, own_refusal, with_challenge
from fastapi_guard.auth.scopes import ScopesAuth
from fastapi_guard.claims import Claims, Grants
from fastapi_guard.events import EventCallback
from fastapi_guard.exceptions import (
    CHALLENGE_HEADER,
    INVALID_TOKEN,
    NOT_AUTHENTICATED,
    AuthError,
    ConfigurationError,
    ServiceUnavailable,
    Unauthorized,
)
from fastapi_guard.schemes import UNDECIDED, CallableScheme, Scheme
from fastapi_guard.schemes.challenges import merged
from fastapi_guard.scopes import Scope

# Where a connection's scope keeps which member has verified: {AnyAuth: Found}.
_DECIDED: Final = "fastapi_guard.decided"


class AnyScheme(Scheme):
    """The schemes of several Auths, challenged together."""

    def __init__(self, schemes: Sequence[Scheme]) -> None:
        """Stand for ``schemes``, in their order."""
        self.schemes: tuple[Scheme, ...] = tuple(schemes)
        first = self.schemes[0]
        super().__init__(first.model, first.scheme_name, first.realm)
        self.is_cookie: bool = any(scheme.is_cookie for scheme in self.schemes)

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the credential of the first scheme that finds one."""
        return next((raw for raw in (scheme.extract(connection) for scheme in self.schemes) if raw is not None), None)

    def challenge(self, **parameters: str) -> str:
        """Return the challenges of all, each with ``parameters``."""
        return merged(*(scheme.challenge(**parameters) for scheme in self.schemes))

    def refusal(self, error: str, description: str) -> str:
        """Return the challenges of all for a credential that came."""
        return merged(*(scheme.refusal(error, description) for scheme in self.schemes))


class AnyGuard(Guard[Claims]):
    """The guard of an AnyAuth: flat, whatever the number of members."""

    auth: "AnyAuth"

    def __init__(
        self,
        auth: "AnyAuth",
        *,
        optional: bool = False,
        ignore_invalid: bool = False,
        via: Sequence[Auth[Any]] | None = None,
    ) -> None:
        """Guard by the members ``via``, by default all; a credential of another is not enough."""
        super().__init__(auth, optional=optional, ignore_invalid=ignore_invalid)
        self.via = via
        self.members: Sequence[Auth[Any]] = auth.members if via is None else via
        # FastAPI resolves the schemes that are callables of the application.
        self._resolved = {f"raw_{n}": each for n, each in enumerate(auth.members) if _is_callable(each)}
        self.is_flat: bool = not self._resolved
        self.ignored: frozenset[str] = frozenset(
            name for name, each in self._resolved.items() if each not in self.members
        )
        self.__signature__: inspect.Signature = inspect.Signature(list(self._parameters()))

    async def __call__(  # noqa: C901 - one coroutine on the way of each request
        self, connection: HTTPConnection, security_scopes: SecurityScopes, **resolved: Any
    ) -> Claims | None:
        """Admit the connection, as FastAPI's dependency."""
        auth, scopes = self.auth, security_scopes.scopes
        overrides: Overrides = getattr(connection.scope.get("app"), "dependency_overrides", None)
        if self.is_flat and not overrides:
            # As nearly every request is answered; what was refused is remembered, and looked at more closely below.
            for member in self.members:
                try:
                    verified = member.at_once(connection)
                    if verified is UNDECIDED:
                        raw = member.scheme.extract(connection)
                        if raw is None or not member.recognises(raw):
                            continue
                        verified = await member.authenticate(connection, raw)
                except (Unauthorized, ServiceUnavailable):
                    break
                if verified is None:
                    continue
                if self.via is None:
                    auth.decided_by(connection, Found(member, verified))
                return member.dependency.admit(verified, scopes)
        if overrides and self.via is not None and auth.dependency in overrides:
            claims: Claims | None = await overriding(auth.dependency, connection, scopes)
            return claims
        raws = {self._resolved[name]: as_credential(raw) for name, raw in resolved.items()}
        asked = Asked(connection, raws, overrides, scopes)
        found, refusal = await auth.decide(asked, self.members)
        if found is None and self.via is not None:
            if await auth.is_held_by_another(asked, self.members):
                raise auth.refuse("other_credential")
            refusal = refusal or auth.refuse_missing_of(self.members)
        if refusal is not None:
            auth.settle(refusal, ignore_invalid=self.ignore_invalid)
        if found is None:
            return self.admit(None, scopes)
        principal: Claims | None = found.principal
        return principal if found.verified is None else found.member.dependency.admit(found.verified, scopes)

    @property
    def checks_presence_only(self) -> bool:
        """Whether any credential at all passes, because a member that is asked verifies nothing."""
        return any(member.checks_presence_only for member in self.members)

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Those of the members that extract by themselves, each an alternative."""
        return tuple(each.scheme for each in self.members if not _is_callable(each))

    def _parameters(self) -> Iterator[inspect.Parameter]:
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter("connection", kind, annotation=HTTPConnection)
        yield inspect.Parameter("security_scopes", kind, annotation=SecurityScopes)
        for name, member in self._resolved.items():
            scheme: Any = member.scheme
            yield inspect.Parameter(name, kind, annotation=Annotated[Any, params.Depends(scheme.call)])


class AnyOptions(TypedDict, total=False):
    """The keyword arguments of an AnyAuth; see AuthOptions."""

    name: str
    on_event: EventCallback


class AnyAuth(ScopesAuth):
    """Several Auths: the first, in their order, whose credential holds, decides.

    A member whose scheme finds nothing is passed over, and so is one that does not recognise what its scheme found. A
    refusal falls through to the next, a 403 does not. Where none accepts, the 401 has the challenges of all.

    Attributes:
        members: The Auths; another AnyAuth among them has been replaced by its members.
    """

    name = "any"

    def __init__(self, *members: Auth[Any], **options: Unpack[AnyOptions]) -> None:
        """Take a credential of any of ``members``.

        Raises:
            ConfigurationError: There is none, one is no Auth, or two have one name.
        """
        self.members: tuple[Auth[Any], ...] = tuple(_flat(members))
        names = [member.name for member in self.members]
        if not names:
            msg = "AnyAuth() needs at least one Auth: AnyAuth(jwt, keys)"
            raise ConfigurationError(msg)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"two members of an AnyAuth are called {', '.join(twice)}: give one another name="
            raise ConfigurationError(msg)
        # Who decides where a test says who the caller is, and not by which member.
        self._spokesman = next((each for each in self.members if isinstance(each, ScopesAuth)), self.members[0])
        self._narrowed: dict[tuple[Auth[Any], ...], AnyGuard] = {}
        super().__init__(AnyScheme([member.scheme for member in self.members]), cookie=False, **options)
        details = {member.missing_detail for member in self.members}
        self.missing_detail: str = details.pop() if len(details) == 1 else NOT_AUTHENTICATED

    async def verify(self, raw: str) -> Claims:
        """Return the principal of the first member that recognises a raw credential and accepts it.

        Raises:
            Unauthorized: None does.
            ServiceUnavailable: None does, and one cannot decide now.
        """
        errors: list[HTTPException] = []
        for member in self.members:
            if member.recognises(raw):
                try:
                    principal: Claims | Literal[False] | None = await member.verify(raw)
                except HTTPException as raised:
                    error = own_refusal(raised)
                    if not isinstance(error, Unauthorized | ServiceUnavailable):
                        raise
                    errors.append(error)
                else:
                    if principal is not None and principal is not False:
                        return principal
        away = [error for error in errors if isinstance(error, ServiceUnavailable)]
        raise next(iter(away or errors), Unauthorized(INVALID_TOKEN, error="invalid_token", reason="unrecognised"))

    async def authenticate(
        self, connection: HTTPConnection, raw: str | None = None, *, ignore_invalid: bool = False
    ) -> Verified[Claims] | None:
        """Return what the first member has verified; ``None`` where nothing was sent for any.

        Raises:
            AuthError: With the challenges of all schemes.
        """
        raws = {} if raw is None else dict.fromkeys(self.members, raw)
        found, refusal = await self.decide(Asked(connection, raws), self.members)
        if refusal is not None:
            self.settle(refusal, ignore_invalid=ignore_invalid)
        return None if found is None else found.verified

    def settle(self, refusal: Unauthorized, *, ignore_invalid: bool) -> None:
        """Report a refusal that no member has reported, and raise it unless what is invalid is ignored.

        Raises:
            Unauthorized: The refusal.
        """
        if refusal.reason == "unrecognised":
            self.report_refusal(refusal.status, refusal.reason)
        if not ignore_invalid:
            raise refusal

    async def decide(self, asked: Asked, among: Sequence[Auth[Any]]) -> tuple[Found | None, Unauthorized | None]:
        """Return the first member that accepts, or why none does; neither where nothing was sent for any.

        Raises:
            AuthError: One forbids, or none accepts and one cannot decide now.
        """
        refused: dict[Auth[Any], AuthError] = {}
        strange: list[Auth[Any]] = []
        for member in among:
            try:
                found = await ask(member, asked)
            except (Unauthorized, ServiceUnavailable) as error:
                refused[member] = error
                if is_ambiguous(error):
                    break
            else:
                if found is False:
                    strange.append(member)
                elif found is not None:
                    if among is self.members:
                        self.decided_by(asked.connection, found)
                    return found, None
        if strange and not refused:
            # Something came where they look, and it is like none of their credentials.
            refused[strange[0]] = strange[0].refuse_unrecognised()
        return None, self._answer(refused, among) if refused else None

    async def is_held_by_another(self, asked: Asked, among: Sequence[Auth[Any]]) -> bool:
        """Return whether a credential came that holds, of a member that is not ``among`` those asked for.

        Raises:
            AuthError: That cannot be decided, or is forbidden.
        """
        found, _ = await self.decide(asked, [each for each in self.members if each not in among])
        return found is not None

    def recognises(self, raw: str) -> bool:
        """Return whether a raw credential could be one of a member's."""
        return any(member.recognises(raw) for member in self.members)

    async def aclose(self) -> None:
        """Release what the members hold open."""
        for member in self.members:
            await member.aclose()

    @property
    def checks_presence_only(self) -> bool:
        """Whether any credential at all passes, because there is a member that verifies nothing."""
        return any(member.checks_presence_only for member in self.members)

    @called
    def authenticated(self, *, via: Sequence[str] | None = None) -> params.Security:
        """Require a credential that holds; gives the principal.

        Args:
            via: The names of the members of whom it has to be; one of another member is a 403.

        Raises:
            ConfigurationError: ``via`` names no member.
        """
        return self._security(self._guard_via(via))

    @called
    def requires(self, *scopes: str, via: Sequence[str] | None = None) -> params.Security:
        """Require all of ``scopes``; gives the claims. Without scopes the same as ``authenticated()``.

        Args:
            scopes: What the member that verified has to have granted.
            via: The names of the members of whom the credential has to be; one of another member is a 403.

        Raises:
            ConfigurationError: One is not a scope, or ``via`` names no member.
        """
        return self._security(self._guard_via(via), *(Scope(scope) for scope in scopes))

    def covers(self, claims: Claims, *scopes: str) -> bool:
        """Return whether ``claims`` grant all of ``scopes`` by the rules of each member: any may have verified them."""
        return all(member.covers(claims, *scopes) for member in self._scoped())

    def has_scope(self, scope: str, granted: Sequence[str]) -> bool:
        """Return whether the ``granted`` scopes cover ``scope``, by the validator of each member."""
        return all(member.has_scope(scope, granted) for member in self._scoped())

    def deciding(self, connection: HTTPConnection) -> Auth[Any]:
        """Return the member that has verified what came on ``connection``."""
        found = self._found_on(connection)
        return self._spokesman if found is None else found.member

    def decided_by(self, connection: HTTPConnection, found: Found) -> None:
        """Remember which member has decided about ``connection``."""
        connection.scope.setdefault(_DECIDED, {})[self] = found

    def grants_on(self, connection: HTTPConnection, principal: Claims) -> Grants:
        """Return what the member granted that has verified ``principal``."""
        found = self._found_on(connection)
        if found is None:
            return super().grants_on(connection, principal)
        return found.member.grants_of(principal) if found.verified is None else found.verified[1]

    def grants_of(self, principal: Claims) -> Grants:
        """Return what a principal grants whose member is not known."""
        return self._spokesman.grants_of(principal)

    def grants_scope(self, grants: Grants, scope: str) -> bool:
        """Return whether grants cover a scope that came from no known member."""
        return self._spokesman.grants_scope(grants, scope)

    def check_scopes(self, grants: Grants, scopes: Sequence[str]) -> None:
        """Refuse unless all of ``scopes`` are granted by a principal whose member is not known.

        Raises:
            Forbidden: One is missing.
        """
        self._spokesman.check_scopes(grants, scopes)

    def refuse_missing(self) -> Unauthorized:
        """Return the 401 for a connection without a credential."""
        return self.refuse_missing_of(self.members)

    def refuse_missing_of(self, members: Sequence[Auth[Any]]) -> Unauthorized:
        """Return the 401 for a connection without a credential of any of ``members``."""
        detail = members[0].missing_detail if len(members) == 1 else self.missing_detail
        self.report_refusal(Unauthorized.status, "missing")
        field = merged(*(member.scheme.plain_challenge for member in members))
        return Unauthorized(detail, reason="missing", headers={CHALLENGE_HEADER: field})

    def _guard(self, *, optional: bool = False, ignore_invalid: bool = False) -> Guard[Claims]:
        return AnyGuard(self, optional=optional, ignore_invalid=ignore_invalid)

    def _say_what_is_weak(self) -> None:
        """Say nothing: each member has."""

    def _guard_via(self, via: Sequence[str] | None) -> Guard[Claims]:
        if via is None:
            return self.dependency
        names = [member.name for member in self.members]
        if isinstance(via, str) or not via or not set(via) <= set(names):
            msg = f"via is a list of members, of {names}, not {via!r}"
            raise ConfigurationError(msg)
        members = tuple(member for member in self.members if member.name in via)
        if members == self.members:
            return self.dependency
        if members not in self._narrowed:
            self._narrowed[members] = AnyGuard(self, via=members)
        return self._narrowed[members]

    def _found_on(self, connection: HTTPConnection) -> Found | None:
        decided: Mapping[AnyAuth, Found] = connection.scope.get(_DECIDED, {})
        return decided.get(self)

    def _scoped(self) -> Iterator[ScopesAuth]:
        return (member for member in self.members if isinstance(member, ScopesAuth))

    def _answer(self, refused: Mapping[Auth[Any], AuthError], among: Sequence[Auth[Any]]) -> Unauthorized:
        unauthorized = {member: error for member, error in refused.items() if isinstance(error, Unauthorized)}
        ambiguous = [error for error in unauthorized.values() if is_ambiguous(error)]
        away = [error for error in refused.values() if isinstance(error, ServiceUnavailable)]
        if away and not ambiguous:
            raise away[0]
        error = next(iter(ambiguous or unauthorized.values()))
        challenges = (
            challenge_of(unauthorized[member]) if member in unauthorized else member.scheme.plain_challenge
            for member in among
        )
        headers = with_challenge(error, merged(*challenges))
        if type(error) is Unauthorized:
            # The refusal itself is remembered for its member, with the challenge of that one alone.
            return Unauthorized(error.detail, error=error.error, reason=error.reason, headers=headers)
        error.headers = dict(headers)
        return error


def _flat(members: Iterable[Auth[Any]]) -> Iterator[Auth[Any]]:
    for member in members:
        if isinstance(member, AnyAuth):
            yield from member.members
        elif isinstance(member, Auth):
            yield member
        else:
            msg = f"{member!r} is no Auth: AnyAuth(jwt, keys)"
            raise ConfigurationError(msg)


def _is_callable(member: Auth[Any]) -> bool:
    return isinstance(member.scheme, CallableScheme)
