"""TokenPairs: the access and refresh tokens that follow from a login."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, publish
from fastapi_guard.exceptions import ConfigurationError, Forbidden, Unauthorized
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.tokens import BearerAccessToken, TokenPair
from fastapi_guard.login.client import Client
from fastapi_guard.login.login import Login
from fastapi_guard.login.lookup import ended_by
from fastapi_guard.login.outcome import Complete, claims_of
from fastapi_guard.login.refresh import Family, RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.state import claim
from fastapi_guard.login.users import User
from fastapi_guard.schemes.origin import is_same_origin
from fastapi_guard.stores.arguments import instance_of

# What a family keeps beside the claims of the login.
_SECOND: Final = "_second"
_SCOPE: Final = "_scope"
_PROOF: Final = ("amr", "auth_time", "factors")
_LONGEST_SCOPE: Final = 4096


class InvalidScope(ValueError):
    """The requested scopes are not scopes, or the user has none of them (RFC 6749 5.2)."""


class TokenPairs:
    """Issues, refreshes and revokes the tokens of logins.

    Attributes:
        jwt: Signs and verifies access tokens.
        refresh_tokens: The refresh tokens; ``None`` where a login has an access token alone.
        login: The Login whose outcomes get tokens; it decides about each refresh too.
    """

    def __init__(self, jwt: JWTAuth, refresh: RefreshTokens | None = None, *, login: Login) -> None:
        """Issue tokens by ``jwt`` and ``refresh`` for the users of ``login``, and end them with its users' passwords.

        Raises:
            ConfigurationError: An argument has the wrong type, there is no private key to sign with, the configuration
                has a profile, or the refresh tokens belong to other TokenPairs.
        """
        instance_of("jwt", jwt, JWTAuth, "a JWTAuth, such as JWTAuth(JWTConfig(key=...))")
        instance_of("login", login, Login, "a Login, such as Login(users, store)")
        instance_of("refresh", refresh, (RefreshTokens, type(None)), "RefreshTokens, such as RefreshTokens(store)")
        jwt.config.signing_key()
        if jwt.config.profile is not None:
            msg = "a password login has no client_id for a token of RFC 9068: leave profile out of the JWTConfig"
            raise ConfigurationError(msg)
        if refresh is not None:
            claim("TokenPairs", refresh, refresh.name, self, 'pass each its own RefreshTokens(store, name="...")')
            # Where a used token comes again, the access tokens may be in two hands too. They end first: where the store
            # fails in between, the family is there to be ended again.
            refresh._before_reuse = self._revoke_session  # noqa: SLF001 - they belong to these TokenPairs
        self.jwt: JWTAuth = jwt
        self.refresh_tokens: RefreshTokens | None = refresh
        self.login: Login = login
        login.ends(self)

    def check_origin(self, connection: HTTPConnection) -> None:
        """Reject a request from another site's page: for a route that reads or sets a refresh cookie.

        Raises:
            Forbidden: It does not come from the application's own pages, nor from a trusted origin of the JWTAuth.
        """
        if not is_same_origin(connection, self.jwt._trusted_origins):  # noqa: SLF001 - set when the Auth is constructed
            raise Forbidden(reason="cross_origin")

    async def issue(self, outcome: Complete, *, scope: str | None = None) -> BearerAccessToken:
        """Return the access token of a login that is complete; a TokenPair where there are refresh tokens.

        Args:
            outcome: The login.
            scope: Scopes separated by spaces, to narrow those of the user. The response names what was granted.

        Raises:
            InvalidScope: The user has none of the scopes, or they are not scopes.
            Unauthorized: The user has changed since the proof; there are no tokens.
            ServiceUnavailable: A store cannot be reached.
        """
        claims, granted = self._narrowed(outcome.claims, scope)
        # Before the user is read again: what is revoked after that covers a token of this moment.
        issued = await self._issued_now(outcome.user.subject_id)
        if self.refresh_tokens is None:
            await outcome.confirm()
            return self._access_token({**claims, **issued}, granted)
        kept: Claims = {**outcome.kept, "sub": outcome.user.subject_id, _SECOND: outcome.second}
        if granted is not None:
            kept[_SCOPE] = granted
        token = await self.refresh_tokens.issue(kept, client=outcome.client)
        family = RefreshTokens.family_id(token)
        try:
            await outcome.confirm(family)
        except BaseException:
            await self.refresh_tokens.end(family)
            raise
        return self._pair({**claims, **issued, "sid": family}, token, granted)

    async def refresh(
        self, token: str, *, connection: HTTPConnection | None = None, scope: str | None = None
    ) -> TokenPair:
        """Return a new access token and the refresh token that follows ``token``.

        The user is read again: one who was disabled, may not log in any more, or needs a second factor that the login
        does not have is refused, and changed rights are in the new token. With Revocations the access tokens of a
        family end with it where a used token ends it.

        Args:
            token: As it was presented.
            connection: The request, for its address and user agent.
            scope: Scopes separated by spaces, to narrow those of this access token.

        Raises:
            Unauthorized: The refresh token is invalid.
            InvalidScope: The user has none of the scopes; the token is still valid.
            ConfigurationError: There are no refresh tokens.
            ServiceUnavailable: The users or the store cannot be reached; the token is still valid.
        """
        if self.refresh_tokens is None:
            msg = "there are no refresh tokens: pass refresh=RefreshTokens(store)"
            raise ConfigurationError(msg)
        current: list[tuple[User, Claims]] = []

        async def may_continue(family: Claims) -> bool:
            second = family.get(_SECOND) is True
            # Before the user is read: a later revocation covers the token, or the rotation fails.
            issued = await self._issued_now(family["sub"])
            user = await self.login.continues(family["sub"], _methods(family), second=second, connection=connection)
            if user is None:
                return False
            claims, _ = self._narrowed(_claims(user, family), family.get(_SCOPE), at_least_one=False)
            # Checked before the token is used up.
            self._narrowed(claims, scope)
            current.append((user, {**claims, **issued}))
            return True

        client = Client.of(connection, self.login.limits.trusted_proxies)
        _, successor = await self.refresh_tokens.rotate(token, may_continue=may_continue, client=client)
        user, claims = current[-1]
        narrowed, granted = self._narrowed(claims, scope)
        publish(Event("token_refreshed", self.jwt.name, subject=user.subject_id), self.login.on_event)
        family_id = RefreshTokens.family_id(successor)
        return self._pair({**narrowed, "sid": family_id}, successor, granted)

    async def step_up(self, claims: Mapping[str, Any], outcome: Complete) -> BearerAccessToken:
        """Return a new access token for a login that was renewed; its family has the new proof from now on.

        Without refresh tokens the new token expires when the old one does.

        Args:
            claims: The verified claims of the old access token.
            outcome: Of ``login.step_up``.

        Raises:
            Unauthorized: The login was ended, or the user has changed in the meantime.
            ServiceUnavailable: A store cannot be reached.
        """
        issued = await self._issued_now(outcome.user.subject_id)
        proof = {name: outcome.kept[name] for name in _PROOF}
        family = claims.get("sid")
        if self.refresh_tokens is None or not isinstance(family, str):
            await outcome.confirm()
            # With its exp, if it has one.
            same = {name: value for name, value in claims.items() if name not in ("jti", "nbf", "iss", "aud")}
            return self._access_token({**same, **proof, **issued}, None)
        changes = {**proof, **({_SECOND: True} if outcome.second else {})}
        kept = await self.refresh_tokens.change(family, changes, subject=outcome.user.subject_id)
        if kept is None:
            raise Unauthorized(reason="unknown_family")
        await outcome.confirm()
        own, _ = self._narrowed(_claims(outcome.user, kept), kept.get(_SCOPE), at_least_one=False)
        return self._access_token({**own, **issued, "sid": family}, None)

    async def revoke(self, token: str) -> bool:
        """End a refresh token with its family, or with Revocations an access token alone.

        With Revocations the access tokens of the family end with it (RFC 7009 2.1).

        Returns:
            Whether there was something to end; a token that is unknown is not an error (RFC 7009 2.2).

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        with suppress(Unauthorized):
            if await self._end(RefreshTokens.family_id(token)):
                return True
        try:
            claims = await self.jwt.verify(token)
        except Unauthorized:
            return False
        revoked = await self._revoke_access(claims)
        if revoked:
            self._report(claims.get("sub"))
        return revoked

    async def logout(self, claims: Mapping[str, Any]) -> None:
        """End the login that an access token came from: its family, and with Revocations its access tokens.

        Those of before a refresh, or of a step-up at the same time, are as valid as the one that was presented.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        family, ended = claims.get("sid"), False
        if self.refresh_tokens is not None and isinstance(family, str):
            ended = await self.refresh_tokens.end(family)
            # Also where the family was revoked before, by a reuse or by a logout that failed half-way.
            await self._revoke_session(family)
        if ended or await self._revoke_access(claims):
            self._report(claims.get("sub"))

    async def devices(self, subject: str) -> list[Family]:
        """Return the logins of a subject that have refresh tokens, the oldest first.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return [] if self.refresh_tokens is None else await self.refresh_tokens.families(subject)

    async def end_device(self, sid: str) -> bool:
        """End a login by its ``sid``: its family, and with Revocations its access tokens; return whether there was one.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return await self._end(sid)

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """End all that ``subject`` has: families, and with Revocations access tokens and sessions.

        Args:
            subject: The ``sub``.
            keep: The ``sid`` of a login that continues.
            issuer: The ``iss``; for another issuer than that of these tokens nothing ends.

        Raises:
            ServiceUnavailable: A store cannot be reached. What is in another one has ended all the same.
        """
        if issuer not in (None, self.jwt.config.issuer_url):
            return 0
        revocations = self.jwt.revocations if isinstance(self.jwt.revocations, Revocations) else None
        holders = [holder for holder in (self.refresh_tokens, revocations) if holder is not None]
        ended = await ended_by(partial(holder.revoke_subject, subject, keep=keep) for holder in holders)
        # How many access tokens were revoked is unknown.
        if ended or revocations is not None:
            self._report(subject)
        return ended

    async def _issued_now(self, user_id: str) -> dict[str, int]:
        claims = {"iat": int(self.login.now())}
        if not isinstance(self.jwt.revocations, Revocations):
            return claims
        subject = {"sub": user_id, **claims}
        if self.jwt.config.issuer_url is not None:
            subject["iss"] = self.jwt.config.issuer_url
        return {**claims, **await self.jwt.revocations.number_for(subject)}

    async def _end(self, family: str) -> bool:
        # The access tokens first: where the store fails in between, the family is there to be ended again.
        before = partial(self._revoke_session, family)
        ended = self.refresh_tokens is not None and await self.refresh_tokens.end(family, before=before)
        if ended:
            self._report(None)
        return ended

    async def _revoke_session(self, sid: str) -> None:
        if isinstance(self.jwt.revocations, Revocations):
            lifetime = self.jwt.config.expiration_seconds
            until = None if lifetime is None else self.login.now() + lifetime
            await self.jwt.revocations.revoke_session(sid, expires_at=until)

    async def _revoke_access(self, claims: Mapping[str, Any]) -> bool:
        if not isinstance(self.jwt.revocations, Revocations) or not isinstance(claims.get("jti"), str):
            return False
        await self.jwt.revocations.revoke(claims)
        return True

    def _report(self, subject: str | None) -> None:
        publish(Event("token_revoked", self.jwt.name, subject=subject), self.login.on_event)

    def _access_token(self, claims: Claims, granted: str | None) -> BearerAccessToken:
        token = self.jwt.create_access_token(claims)
        return token.model_copy(update={"scope": granted})

    def _pair(self, claims: Claims, token: str, granted: str | None) -> TokenPair:
        issued = self.jwt.create_access_token(claims)
        return TokenPair(**{**dict(issued), "scope": granted, "refresh_token": token})

    def _narrowed(self, claims: Claims, scope: str | None, *, at_least_one: bool = True) -> tuple[Claims, str | None]:
        if scope is None:
            return claims, None
        requested = dict.fromkeys(scope[:_LONGEST_SCOPE].split(" "))
        granted = [one for one in requested if self.jwt.covers(claims, one)]
        narrowed = self.jwt._rules.narrowed(claims, granted)  # noqa: SLF001 - set when the Auth is constructed
        if narrowed is None or (at_least_one and not granted):
            msg = "the user has none of the requested scopes"
            raise InvalidScope(msg)
        return narrowed, " ".join(granted)


def _methods(family: Claims) -> list[str]:
    return [method for method in family.get("amr", ()) if isinstance(method, str)]


def _claims(user: User, family: Claims) -> Claims:
    return claims_of(user, {name: value for name, value in family.items() if name not in (_SECOND, _SCOPE)})
