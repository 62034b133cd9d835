"""LocalAuth: a Login and TokenPairs in one JWTAuth, for an application with passwords and tokens."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Unpack

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth import ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, publish
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, UserConflict
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.protocols import RevocationCheck
from fastapi_guard.jwt.tokens import BearerAccessToken, TokenPair
from fastapi_guard.login.login import Login, Pending
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.login.tokens import TokenPairs
from fastapi_guard.login.users import Users
from fastapi_guard.schemes import BearerScheme, SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores import MemoryStore

_ATTEMPTS: Final = 10


class LocalAuth(JWTAuth):
    """A JWTAuth whose tokens are for users who log in with a password.

    Attributes:
        gate: The Login, with everything else that a login can do.
        tokens: The TokenPairs.
    """

    name = "local"

    def __init__(
        self,
        config: JWTConfig,
        users: Users | Mapping[str, Mapping[str, Any]] | Login,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        refresh: RefreshTokens | None = None,
        revocations: RevocationCheck | None = None,
        clock: Callable[[], float] = time.time,
        **options: Unpack[ScopesOptions],
    ) -> None:
        """Issue tokens by ``config`` to ``users``.

        Args:
            config: The key that signs, and the rules for tokens.
            users: A mapping, see MappingUsers, or an object with the methods of Users. A Login, for second factors,
                limits, messages and the like.
            scheme: Where the token comes from, by default the Bearer header, with ``token`` as the URL of the login
                in OpenAPI.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            refresh: With it, a login has a refresh token too.
            revocations: Checked at each verification; with Revocations, ``revoke`` ends access tokens too.
            clock: Seconds since the epoch.
            options: See ScopesOptions.

        Raises:
            ConfigurationError: An argument has the wrong type, there is no private key to sign with, the configuration
                has a profile, a user is not valid, or the refresh tokens belong to another LocalAuth.
        """
        url = None if refresh is None else "token/refresh"
        super().__init__(
            config,
            BearerScheme.password("token", refresh_url=url) if scheme is None else scheme,
            scope_validator,
            revocations=revocations,
            clock=clock,
            **options,
        )
        if not isinstance(users, Login):
            # Without factors there is nothing that another worker has to know.
            users = Login(users, MemoryStore(clock=clock), name=self.name, clock=clock, on_event=self._on_event)
        self.gate: Login = users
        self.tokens: TokenPairs = TokenPairs(self, refresh, login=users)

    async def login(
        self, username: str, password: str, *, connection: HTTPConnection | None = None
    ) -> BearerAccessToken | Pending:
        """Return an access token; a TokenPair where there are refresh tokens; Pending where a second step is needed.

        Raises:
            Unauthorized: The user is unknown or disabled, or the password is wrong.
            TooManyRequests: It was tried too often.
            ServiceUnavailable: A backend cannot be reached.
        """
        outcome = await self.gate.with_password(username, password, connection=connection)
        return outcome if isinstance(outcome, Pending) else await self.tokens.issue(outcome)

    async def refresh(self, token: str, *, connection: HTTPConnection | None = None) -> TokenPair:
        """Return a new access token and the refresh token that follows ``token``; see ``TokenPairs.refresh``."""
        return await self.tokens.refresh(token, connection=connection)

    async def revoke(self, token: str) -> bool:
        """End a refresh token with its family, or with Revocations an access token; see ``TokenPairs.revoke``."""
        return await self.tokens.revoke(token)

    async def logout(self, claims: Claims) -> None:
        """End the login that an access token came from; see ``TokenPairs.logout``."""
        await self.tokens.logout(claims)

    async def set_password(self, username: str, password: str) -> bool:
        """Set another password, and end every credential of the user; return whether there is such a user.

        Check the password with PasswordPolicy before.

        Raises:
            ConfigurationError: The Login has no passwords.
            ValueError: The password is too long, or has a character that cannot be hashed.
            ServiceUnavailable: The users or a store cannot be reached, or the users cannot be changed.
        """
        if self.gate.passwords is None:
            msg = "this Login has no passwords: Login(..., passwords=PasswordHasher())"
            raise ConfigurationError(msg)
        hashed = await self.gate.passwords.hash(password)
        for _ in range(_ATTEMPTS):
            user = await self.gate.find(username)
            if user is None:
                return False
            with suppress(UserConflict):
                await self.gate.change(user, password_hash=hashed)
                publish(Event("password_changed", self.gate.name, subject=user.subject_id), self.gate.on_event)
                return True
        raise ServiceUnavailable(reason="contended")

    async def revoke_subject(self, subject: str, *, keep: str | None = None, issuer: str | None = None) -> int:
        """End every credential of ``subject`` except those of the login ``keep``; return how many there were.

        For another ``issuer`` than that of these tokens nothing ends.

        Raises:
            ServiceUnavailable: A store cannot be reached; what was not reached has not ended.
        """
        return 0 if issuer not in (None, self.config.issuer_url) else await self.gate.end_all(subject, keep=keep)

    async def aclose(self) -> None:
        """Stop the threads that hash; another login starts others."""
        await self.gate.aclose()
        await super().aclose()
