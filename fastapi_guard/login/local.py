"""LocalAuth: a username and a password in, tokens out, and what keeps a login alive or ends it."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar, Unpack

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth import ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, publish
from fastapi_guard.exceptions import (
    AuthError,
    ConfigurationError,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
)
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.protocols import RevocationCheck
from fastapi_guard.jwt.tokens import BearerAccessToken, TokenPair
from fastapi_guard.login.client import address_of
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.throttle.by import client_address
from fastapi_guard.login.users import MappingUsers, User, Users
from fastapi_guard.login.users.names import normalized
from fastapi_guard.schemes import BearerScheme, SchemeCallable
from fastapi_guard.scopes import ScopeValidator

logger: logging.Logger = logging.getLogger("fastapi_guard")

ResultT = TypeVar("ResultT")

WRONG_CREDENTIALS: Final = "Incorrect username or password"
# Longer than any e-mail address (RFC 5321 4.5.3.1).
_LONGEST_USERNAME: Final = 512

ACCOUNT_RATE: Final = "5/15 minutes"
ADDRESS_RATE: Final = "50/15 minutes"


class LocalAuth(JWTAuth):
    """A JWTAuth whose tokens are got with a password.

    An unknown user, a wrong password and a disabled user are answered alike, after the same work.
    """

    name = "local"

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        config: JWTConfig,
        users: Users | Mapping[str, Mapping[str, Any]],
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        refresh: RefreshTokens | None = None,
        hasher: PasswordHasher | None = None,
        account_throttle: Throttle | None = None,
        address_throttle: Throttle | None = None,
        throttled: bool = True,
        trusted_proxies: int = 0,
        revocations: RevocationCheck | None = None,
        clock: Callable[[], float] = time.time,
        **options: Unpack[ScopesOptions],
    ) -> None:
        """Issue tokens by ``config`` to ``users``.

        Args:
            config: What is signed with and what is accepted.
            users: Who can log in: a mapping, see MappingUsers, or whatever has the two methods of Users.
            scheme: Where the token comes from, by default the Bearer header, with ``token`` as the URL of the login
                in OpenAPI.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            refresh: Given, a login gives a refresh token too.
            hasher: How passwords are hashed, by default argon2id.
            account_throttle: How often an account may be tried, by default 5 times in 15 minutes. A login that
                succeeds is forgotten.
            address_throttle: How often an address may try, by default 50 times in 15 minutes.
            throttled: ``False`` tries without a limit.
            trusted_proxies: How many proxies of yours stand before the application; see Throttle.
            revocations: Asked at each verification; with Revocations, ``revoke`` ends access tokens too.
            clock: Seconds since the epoch.
            options: See ScopesOptions.

        Raises:
            ConfigurationError: There is no private key to sign with, the configuration has a profile, a user is not as
                a user must be, or ``address_throttle`` has a ``by`` or ``trusted_proxies`` of its own.
        """
        super().__init__(
            config,
            BearerScheme.password("token", refresh_url="token/refresh" if refresh else None)
            if scheme is None
            else scheme,
            scope_validator,
            revocations=revocations,
            clock=clock,
            **options,
        )
        config.signing_key()
        if config.profile is not None:
            msg = "a password login has no client_id for a token of RFC 9068: leave profile out of the JWTConfig"
            raise ConfigurationError(msg)
        if trusted_proxies < 0:
            msg = "trusted_proxies is a number of proxies from 0 on"
            raise ConfigurationError(msg)
        if address_throttle is not None and address_throttle.by is not client_address:
            msg = "whose address is counted is said to LocalAuth(trusted_proxies=...): leave it out of address_throttle"
            raise ConfigurationError(msg)
        self.users: Users = MappingUsers(users) if isinstance(users, Mapping) else users
        methods = ("by_login", "by_subject", "set_password_hash", "update")
        if not all(callable(getattr(self.users, name, None)) for name in methods):
            msg = f"users is a mapping, or has the methods {', '.join(methods)}, not {type(users).__name__}"
            raise ConfigurationError(msg)
        self.refresh_tokens = refresh
        self.hasher: PasswordHasher = PasswordHasher() if hasher is None else hasher
        self._trusted_proxies = trusted_proxies
        self._by_account = account_throttle or Throttle(ACCOUNT_RATE, name="login-account", clock=clock)
        self._by_address = address_throttle or Throttle(ADDRESS_RATE, name="login-address", clock=clock)
        self._throttled = throttled
        if not throttled:
            logger.warning("LocalAuth(throttled=False): passwords can be tried without a limit")

    async def login(
        self, username: str, password: str, *, connection: HTTPConnection | None = None
    ) -> BearerAccessToken | TokenPair:
        """Return an access token, and a refresh token where there are any.

        Args:
            username: As it was typed in.
            password: As it was typed in.
            connection: The request, whose address is throttled.

        Raises:
            Unauthorized: The user is unknown or disabled, or the password is wrong.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users, the store or the throttle cannot be reached.
        """
        user = await self._authenticated_user(username, password, connection)
        claims = {**user.claims(), "auth_time": int(self._clock())}
        if self.refresh_tokens is None:
            return self.create_access_token(claims)
        token = await self.refresh_tokens.issue(claims)
        return self._pair(claims, token)

    async def check_password(self, username: str, password: str, *, connection: HTTPConnection | None = None) -> Claims:
        """Return the claims of the user, for a session or whatever else follows from a login; see ``login``.

        Raises:
            Unauthorized: The user is unknown or disabled, or the password is wrong.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the throttle cannot be reached.
        """
        return (await self._authenticated_user(username, password, connection)).claims()

    async def refresh(self, token: str) -> TokenPair:
        """Return a new access token and the refresh token that follows ``token``.

        The user is asked for again: who was disabled or removed is refused, and new rights are in the new token.

        Raises:
            Unauthorized: The refresh token does not hold.
            ConfigurationError: There are no refresh tokens.
            ServiceUnavailable: The users or the store cannot be reached; the token is as good as it was.
        """
        if self.refresh_tokens is None:
            msg = "there are no refresh tokens: LocalAuth(..., refresh=RefreshTokens(store))"
            raise ConfigurationError(msg)
        claims, successor = await self.refresh_tokens.rotate(token, may_continue=self._current_claims)
        return self._pair(claims, successor)

    async def revoke(self, token: str) -> bool:
        """End a refresh token with its family, or an access token where there are Revocations.

        Returns:
            Whether there was something to end; nothing that is no token of ours is an error (RFC 7009 2.2).

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if self.refresh_tokens is not None and await self.refresh_tokens.revoke(token):
            return True
        try:
            claims = await self.verify(token)
        except Unauthorized:
            return False
        return await self._revoke_access(claims)

    async def logout(self, claims: Claims) -> None:
        """End the login that an access token came from: its refresh family, and with Revocations the token itself.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        family = claims.get("sid")
        if self.refresh_tokens is not None and isinstance(family, str):
            await self.refresh_tokens.end(family)
        await self._revoke_access(claims)

    async def set_password(self, username: str, password: str) -> bool:
        """Set another password, and end what followed from the old one; return whether there is such a user.

        Refresh families end, and with Revocations access tokens and sessions too. What the password must be is for the
        caller to check, with PasswordPolicy.

        Raises:
            ValueError: The password is too long, or has a character that cannot be hashed.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        hashed = await self.hasher.hash(password)
        while (user := await self._user(username)) is not None:
            changed = replace(user, password_hash=hashed, credentials_version=user.credentials_version + 1)
            if await self._asked(self.users.update(user, changed)):
                await self.revoke_subject(user.subject_id)
                return True
        return False

    async def revoke_subject(self, subject: str) -> None:
        """End all that ``subject`` has: refresh families, and with Revocations access tokens and sessions.

        Raises:
            ServiceUnavailable: The store cannot be reached; what was not reached has not ended.
        """
        if self.refresh_tokens is not None:
            await self.refresh_tokens.revoke_subject(subject)
        if isinstance(self.revocations, Revocations):
            await self.revocations.revoke_subject(subject)

    async def aclose(self) -> None:
        """Stop the threads that hash; another login starts others."""
        self.hasher.close()
        await super().aclose()

    async def _authenticated_user(self, username: str, password: str, connection: HTTPConnection | None) -> User:
        await self._throttle(username, connection)
        user = await self._user(username)
        holds, newer = await self.hasher.verify_and_update(password, None if user is None else user.password_hash)
        if user is None or not holds or user.disabled:
            subject = None if user is None else user.subject_id
            publish(
                Event("login_failed", self.name, Unauthorized.status, "login_failed", subject=subject), self._on_event
            )
            raise Unauthorized(WRONG_CREDENTIALS, reason="login_failed")
        if newer is not None:
            await self._replace_hash(user, newer)
        if self._throttled:
            await self._by_account.clear(normalized(username))
        return user

    async def _throttle(self, username: str, connection: HTTPConnection | None) -> None:
        if not self._throttled:
            return
        try:
            # The address first: who is refused there must not use up what the account may be tried.
            if connection is not None:
                await self._by_address.hit(address_of(connection, self._trusted_proxies))
            await self._by_account.hit(normalized(username))
        except TooManyRequests as error:
            publish(Event("login_throttled", self.name, error.status, error.reason), self._on_event)
            raise

    async def _user(self, username: str) -> User | None:
        # What no user can be called is not asked for: a database may not even take it.
        if not username or len(username) > _LONGEST_USERNAME or "\0" in username or not _is_text(username):
            return None
        return await self._asked(self.users.by_login(normalized(username)))

    async def _asked(self, answer: Awaitable[ResultT]) -> ResultT:
        try:
            return await answer
        except AuthError:
            raise
        except Exception as error:
            raise ServiceUnavailable(reason="users_unreachable") from error

    async def _replace_hash(self, user: User, newer: str) -> None:
        try:
            # A password that was changed while the old one was verified stays.
            await self.users.set_password_hash(user.subject_id, user.password_hash, newer)
        except Exception as error:  # noqa: BLE001 - the login holds all the same
            # A database driver quotes what it was to write: the hash.
            cause = type(error.__cause__ or error).__name__
            logger.warning("an outdated password hash could not be replaced: %s", cause)

    async def _current_claims(self, claims: Claims) -> bool | Claims:
        user = await self._asked(self.users.by_subject(claims["sub"]))
        if user is None or user.disabled:
            return False
        kept: Claims = {name: claims[name] for name in ("auth_time",) if name in claims}
        return {**user.claims(), **kept}

    async def _revoke_access(self, claims: Claims) -> bool:
        if isinstance(self.revocations, Revocations) and isinstance(claims.get("jti"), str):
            await self.revocations.revoke(claims)
            return True
        return False

    def _pair(self, claims: Claims, token: str) -> TokenPair:
        issued = self.create_access_token({**claims, "sid": RefreshTokens.family_id(token)})
        return TokenPair(access_token=issued.access_token, expires_in=issued.expires_in, refresh_token=token)


def _is_text(username: str) -> bool:
    try:
        username.encode()
    except UnicodeEncodeError:
        return False
    return True
