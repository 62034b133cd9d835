"""The second step of a pending login, and the renewal of a login by another proof (step-up)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import HTTPConnection

from fastapi_guard.events import Event, publish
from fastapi_guard.exceptions import AuthError, Forbidden, Unauthorized
from fastapi_guard.login.entry import LOGIN_FAILED, Entry, Proven
from fastapi_guard.login.factor import Proof, Strength
from fastapi_guard.login.gate import is_multiple
from fastapi_guard.login.messages import locale_of
from fastapi_guard.login.outcome import Complete
from fastapi_guard.login.password_check import WRONG_PASSWORD, PasswordCheck
from fastapi_guard.login.pending import Begun
from fastapi_guard.login.users import User

LOGIN_EXPIRED: Final = "The login has expired"
WRONG_FACTOR: Final = "The second factor is wrong"
PASSWORD: Final = "password"


class SecondStep:
    """Completes pending logins."""

    def __init__(self, entry: Entry) -> None:
        """Complete what ``entry`` left pending."""
        self._entry = entry

    async def challenge(self, pending: str, kind: str, connection: HTTPConnection | None) -> Mapping[str, Any]:
        """Return what the client needs to prove ``kind``."""
        await self._entry.limits.count(None, connection)
        begun = await self._entry.pending.get(pending)
        if begun is None:
            raise self._expired()
        user = await self._user_of(begun)
        if user is None:
            await self._entry.pending.take(pending)
            raise self._expired()
        _check_offered(begun, kind)
        return await challenge(self._entry, kind, user, self._binding(pending), connection)

    async def complete(
        self, pending: str, kind: str, proof: Mapping[str, Any], connection: HTTPConnection | None
    ) -> Complete:
        """Return the login that a right proof completes."""
        await self._entry.limits.count(None, connection)
        # Out of the store while the proof is verified: no other request can try it, or complete it, at the same time.
        begun = await self._entry.pending.take(pending)
        if begun is None:
            raise self._expired()
        try:
            user = await self._user_of(begun)
            proven = None if user is None else await self._verified(begun, user, kind, proof, self._binding(pending))
        except AuthError:
            # Whatever it was, it was a try.
            await self._entry.pending.put_back(pending, begun)
            raise
        if user is None or proven is None:
            raise self._expired()
        if not await self._entry.gate.admits(user, connection):
            raise self._entry.failed(LOGIN_FAILED, user)
        await self._entry.limits.clear(second_of(user))
        publish(Event("second_factor_succeeded", self._entry.name, subject=user.subject_id), self._entry.on_event)
        return self._entry.complete(self._proven(begun, user, kind, proven), connection)

    def _proven(self, begun: Begun, user: User, kind: str, proof: Proof) -> Proven:
        now = int(self._entry.clock())
        strength = self._entry.factors.kind(kind).strength
        second = _with_mfa(begun.methods, proof.methods, strength)
        return Proven(
            user=user,
            methods=[*begun.methods, *second],
            moments={**dict.fromkeys(begun.methods, int(begun.at)), **dict.fromkeys(second, now)},
            auth_time=now,
            claims=begun.claims,
            second=True,
        )

    async def _user_of(self, begun: Begun) -> User | None:
        # A user who has changed since ends the login.
        user = await self._entry.lookup.by_subject(begun.subject)
        is_same = user is not None and not user.disabled and user.credentials_version == begun.version
        return user if is_same else None

    async def _verified(self, begun: Begun, user: User, kind: str, proof: Mapping[str, Any], binding: str) -> Proof:
        _check_offered(begun, kind)
        await self._entry.limits.count(second_of(user), None)
        proven = await self._entry.factors.verify(kind, user, proof, binding=binding)
        if proven is None:
            raise self._entry.failed(WRONG_FACTOR, user, "second_factor_failed", "second_factor_failed")
        return proven

    def _binding(self, pending: str) -> str:
        return self._entry.pending.key(pending)

    def _expired(self) -> Unauthorized:
        return self._entry.failed(LOGIN_EXPIRED, None, "unknown_pending")


class StepUp:
    """Renews ``auth_time``, ``amr`` and ``factors`` of a login by another proof of the same user (RFC 9470)."""

    def __init__(self, entry: Entry, passwords: PasswordCheck, *, has_passwords: bool) -> None:
        """Renew logins of ``entry``."""
        self._entry = entry
        self._passwords = passwords
        self._has_passwords = has_passwords

    async def kinds(self, claims: Mapping[str, Any]) -> list[str]:
        """Return what the user of these claims can prove: kinds of factors, the strongest first, and ``password``.

        Raises:
            Forbidden: The claims are not of a login.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        user = await self._user_of(claims)
        factors = self._entry.factors
        kinds = factors.usable(user, await factors.of(user.subject_id)) if factors.kinds else []
        return [*kinds, PASSWORD] if self._has_passwords and user.password_hash is not None else kinds

    async def challenge(
        self, claims: Mapping[str, Any], kind: str, *, connection: HTTPConnection | None
    ) -> Mapping[str, Any]:
        """Return what the client needs to prove ``kind``; nothing for a password. A kind that sends a code sends it.

        Raises:
            Forbidden: There is no such factor, or the claims are not of a login.
            TooManyRequests: It was requested too often.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        user = await self._user_of(claims)
        if kind == PASSWORD:
            return {}
        await self._entry.limits.count(None, connection)
        return await challenge(self._entry, kind, user, _binding_of(claims), connection)

    async def complete(
        self, claims: Mapping[str, Any], kind: str, proof: Mapping[str, Any], *, connection: HTTPConnection | None
    ) -> Complete:
        """Return the login of a token or session, renewed: pass it to ``TokenPairs.step_up`` or ``SessionAuth.renew``.

        ``auth_time`` moves only for a proof as strong as the login's.

        Args:
            claims: The verified claims of the token or session.
            kind: ``"password"``, or the name of a factor that the user has enrolled.
            proof: ``{"password": "..."}``, or as for ``Login.with_factor``.
            connection: The request.

        Raises:
            Unauthorized: The proof is wrong, or the user may not log in.
            Forbidden: There is no such factor, or the claims are not of a login.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        user = await self._user_of(claims)
        if kind == PASSWORD:
            password = proof.get(PASSWORD)
            is_right = isinstance(password, str) and await self._passwords.proves(user, password, connection)
            proven = Proof(methods=("pwd",)) if is_right else None
        else:
            await self._entry.limits.count(second_of(user), connection)
            proven = await self._entry.factors.verify(kind, user, proof, binding=_binding_of(claims))
        if proven is None:
            wrong = WRONG_PASSWORD if kind == PASSWORD else WRONG_FACTOR
            raise self._entry.failed(wrong, user, "second_factor_failed", "second_factor_failed")
        if not await self._entry.gate.admits(user, connection):
            raise self._entry.failed(LOGIN_FAILED, user)
        if kind != PASSWORD:
            await self._entry.limits.clear(second_of(user))
        return self._renewed(user, claims, proven.methods, connection)

    async def renewed(
        self, claims: Mapping[str, Any], methods: Sequence[str], *, connection: HTTPConnection | None
    ) -> Complete:
        """Return the login of ``claims``, renewed by ``methods`` that the caller has verified, as by an enrolment.

        Raises:
            Unauthorized: The user is disabled or unknown.
            Forbidden: The claims are not of a login.
            ServiceUnavailable: The users cannot be reached.
        """
        return self._renewed(await self._user_of(claims), claims, methods, connection)

    def _renewed(
        self, user: User, claims: Mapping[str, Any], methods: Sequence[str], connection: HTTPConnection | None
    ) -> Complete:
        now = int(self._entry.clock())
        before = [method for method in claims.get("amr", ()) if isinstance(method, str)]
        strength = max(self._entry.factors.strengths(methods), default=None)
        new = [*methods] if strength is None else _with_mfa(before, methods, strength)
        recorded = claims.get("factors")
        began = claims["auth_time"]
        moments = {**dict.fromkeys(before, began), **(recorded if isinstance(recorded, Mapping) else {})}
        return self._entry.complete(
            Proven(
                user=user,
                methods=[*before, *new],
                moments={**moments, **dict.fromkeys(new, now)},
                auth_time=now if self._is_as_strong(strength, before) else began,
                claims={},
                second=strength is not None,
                event="stepped_up",
            ),
            connection,
        )

    def _is_as_strong(self, strength: Strength | None, before: Sequence[str]) -> bool:
        # A password, a provider and the like are weaker than any factor but a mailbox.
        of_login = [one for one in self._entry.factors.strengths(before) if one > Strength.MAILBOX]
        if strength is None:
            return not of_login
        if strength is Strength.MAILBOX:
            return not of_login and set(before) <= {"mail"}
        return all(strength.may_replace(one) for one in of_login)

    async def _user_of(self, claims: Mapping[str, Any]) -> User:
        # An API key of a user is not a login of that user.
        if not isinstance(claims.get("auth_time"), int | float) or "key_id" in claims:
            raise Forbidden(reason="no_login")
        user = await self._entry.lookup.by_subject(str(claims.get("sub", "")))
        if user is None or user.disabled:
            raise self._entry.failed(LOGIN_FAILED, user)
        return user


def _check_offered(begun: Begun, kind: str) -> None:
    if kind not in begun.factors:
        raise Forbidden(reason="factor_not_offered")


async def challenge(
    entry: Entry, kind: str, user: User, binding: str, connection: HTTPConnection | None
) -> Mapping[str, Any]:
    """Return what the client needs to prove a second factor. It is counted: a challenge may send a message."""
    await entry.limits.count(f"challenge:{user.subject_id}", None)
    return await entry.factors.challenge(kind, user, binding=binding, locale=locale_in(connection))


def second_of(user: User) -> str:
    """Return the account of a user's second steps for LoginLimits: of all pending logins together."""
    return f"second:{user.subject_id}"


def locale_in(connection: HTTPConnection | None) -> str | None:
    """Return the language that the client prefers."""
    return None if connection is None else locale_of(connection.headers.get("accept-language"))


def _with_mfa(before: Sequence[str], methods: Sequence[str], strength: Strength) -> list[str]:
    return [*methods, "mfa"] if is_multiple(before, methods, strength) else [*methods]


def _binding_of(claims: Mapping[str, Any]) -> str:
    return f"step-up:{claims.get('sid') or claims.get('jti')}"
