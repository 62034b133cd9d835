"""Single sign-out: log out at the provider too, and end what a provider ends (OpenID Connect Back-Channel Logout)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from fastapi_guard.claims import Claims
from fastapi_guard.events import Event, EventCallback, checked, publish
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, invalid_token
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.responses import FetchError
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.login.keyring import Secret
from fastapi_guard.login.lookup import ended_by
from fastapi_guard.login.providers.id_token_hints import HINT, IDTokenHints
from fastapi_guard.login.providers.openid import OpenIDProvider
from fastapi_guard.login.providers.provider import refused
from fastapi_guard.login.providers.sign_in import ProviderLogin
from fastapi_guard.login.state import digest_of
from fastapi_guard.stores.arguments import implementing, instance_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.kinds import SIGN_IN
from fastapi_guard.stores.protocol import Record
from fastapi_guard.stores.values import RecordForm, UnreadableRecord

_MAX_AGE_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class _Spent:
    """The record of a logout token: when it came, whom it named, and whether all has ended that it is about."""

    at: float
    sub: str | None
    done: bool = False


@dataclass(frozen=True, slots=True)
class _Noted:
    """The record of a session that came from a provider: its ``sid``, the user there, and where the ID token is."""

    session: str
    sub: str
    hint: str | None


_SPENT: Final = RecordForm(_Spent, "a logout at a provider")
_NOTED: Final = RecordForm(_Noted, "a session that came from a provider")


class EndsSession(Protocol):
    """Credentials that end by their ``sid``: SessionAuth, TokenPairs."""

    async def end_device(self, sid: str) -> bool:
        """End the credential with this ``sid``; return whether there was one."""
        ...  # pragma: no cover


class LogoutTokens(JWTAuth):
    """Verifies the logout tokens of one provider (Back-Channel Logout 2.6). They are nothing else anywhere."""

    name = "logout"

    def __init__(self, provider: OpenIDProvider) -> None:
        """Verify by the keys of ``provider``."""
        ids = provider.id_tokens
        config = JWTConfig(
            key=ids.key_set,
            issuer_url=provider.issuer,
            audience=provider.client.client_id,
            token_types=("JWT", "logout+jwt"),
        )
        super().__init__(config, clock=ids._clock)  # noqa: SLF001 - of the provider

    def _claim_rules(self, config: JWTConfig) -> ClaimRules:
        # Older versions of the specification have no exp: then iat bounds the age.
        return replace(
            config.rules, kind="logout", access_marks=None, other_kinds={}, refuses_events=False, requires_exp=False
        )


class ProviderLogout:
    """Ends sessions together with those at the provider.

    It has to be constructed before users sign in: it notes which session came from which login at the provider.
    """

    def __init__(
        self,
        sign_in: ProviderLogin,
        *credentials: EndsSession,
        remembered: timedelta = timedelta(days=90),
        after: str | None = None,
        id_token_key: Secret | Mapping[str, Secret] | None = None,
        on_event: EventCallback | None = None,
    ) -> None:
        """End ``credentials``.

        Args:
            sign_in: The ProviderLogin.
            credentials: The SessionAuths and TokenPairs that users of ``sign_in`` receive.
            remembered: How long a session is known to belong to a login at a provider: at least its lifetime.
            after: The absolute URL to which a provider sends the browser after a logout that began here.
            id_token_key: Given, ID tokens are kept, encrypted with it, and sent as ``id_token_hint``: at least 32
                random bytes, or secrets by id, the first of which encrypts. They hold personal data.
            on_event: Receives events, besides the log; by default the ``on_event`` of the Login.

        Raises:
            ConfigurationError: There are no credentials, one has no method ``end_device``, no provider is an
                OpenIDProvider, ``after`` is not an https URL, or the key is weak.
        """
        instance_of("sign_in", sign_in, ProviderLogin, "a ProviderLogin")
        for holder in credentials:
            implementing("credentials", holder, ("end_device",), "what has end_device(sid): a SessionAuth, TokenPairs")
        if not credentials:
            msg = "pass the SessionAuth or TokenPairs whose sessions end"
            raise ConfigurationError(msg)
        self._sign_in = sign_in
        self._login = sign_in.login
        self._credentials = credentials
        self._remembered = seconds_of("remembered", remembered, positive=True)
        self._after = None if after is None else check_url(after)
        self._providers = {
            name: provider for name, provider in sign_in.providers.items() if isinstance(provider, OpenIDProvider)
        }
        if not self._providers:
            msg = "sign_in has no OpenIDProvider, and other providers end no sessions: leave ProviderLogout out"
            raise ConfigurationError(msg)
        self._logout_tokens = {name: LogoutTokens(provider) for name, provider in self._providers.items()}
        self._on_event = self._login.on_event if on_event is None else checked(on_event)
        self._hints: IDTokenHints | None = None
        if id_token_key is not None:
            self._hints = IDTokenHints(self._login.store, id_token_key, now=self._login.now)
            sign_in.on_identified(self._hints.keep)
        self._login.on_started(self._remember)

    def ends(self, sign_in: ProviderLogin, credentials: EndsSession) -> bool:
        """Return whether a logout at a provider ends these ``credentials`` of users of ``sign_in``."""
        return sign_in is self._sign_in and any(holder is credentials for holder in self._credentials)

    async def end(self, name: str, logout_token: str) -> int:
        """End the sessions that a logout token of a provider is about; return how many there were.

        Raises:
            Unauthorized: The token is not a valid logout token of this provider, or was used before.
            ServiceUnavailable: The keys of the provider or a store are unreachable.
        """
        verifier = self._logout_tokens.get(name)
        if verifier is None:
            raise invalid_token("unknown_provider")
        claims = await verifier.verify(logout_token)
        now = self._login.now()
        if now - claims["iat"] > _MAX_AGE_SECONDS:
            raise invalid_token("logout_token_age")
        kind = "sub" if claims.get("sid") is None else "sid"
        owner = self._owner(self._providers[name], kind, claims[kind])
        spent = _Spent(now, claims.get("sub"))
        key, until = self._key("spent", name, claims["jti"]), now + 2 * _MAX_AGE_SECONDS
        # Found by a login of the same session that is on its way, such as one that waits for its second step.
        record = Record(key, _SPENT.encoded(spent), _ended(owner), until)
        if not await self._login.store.add(record):
            [begun] = await self._login.store.get(key)
            known = _SPENT.read_or_none(begun)
            if begun is None or known is None or known.done:
                raise invalid_token("logout_token_reused")
            # The provider sends it again after an outage: what has not ended yet is not used up.
            record, spent = begun, known
        ended = await self._end_noted(owner, claims)
        await self._login.store.replace(key, record, replace(record, value=_SPENT.encoded(replace(spent, done=True))))
        publish(Event("provider_logout", self._login.name, reason=kind), self._on_event)
        return ended

    async def _end_noted(self, owner: str, claims: Claims) -> int:
        return await ended_by(partial(self._end_one, record, claims) for record in await self._login.store.find(owner))

    async def _end_one(self, record: Record, claims: Claims) -> int:
        noted = _NOTED.read_or_none(record)
        if noted is None:
            # It is not known which session it was of: that one has not ended.
            raise UnreadableRecord
        # With both, the session has to be that user's (Back-Channel Logout 2.6, 6).
        if "sub" in claims and noted.sub != claims["sub"]:
            return 0
        ended = await ended_by(partial(holder.end_device, noted.session) for holder in self._credentials)
        if self._hints is not None:
            await self._hints.forget(noted.hint)
        await self._login.store.delete(record.key)
        return ended

    async def url(self, claims: Mapping[str, Any], *, state: str | None = None) -> str | None:
        """Return where to send the browser to log out at the provider too (RP-Initiated Logout 2).

        Call it with the claims of the session that ends. Without an ``id_token_key`` no ID token was kept, and the
        client alone is named.

        Args:
            claims: Of the session.
            state: Comes back to the page that ``after`` names.

        Returns:
            ``None`` where the session did not come from a provider with such an endpoint.

        Raises:
            ServiceUnavailable: The provider or the store is unreachable.
        """
        provider = self._provider_of(claims)
        if provider is None:
            return None
        try:
            endpoint = (await provider.metadata.endpoints()).end_session_endpoint
        except FetchError:
            raise ServiceUnavailable(reason="provider_unreachable") from None
        if endpoint is None:
            return None
        query = {"client_id": provider.client.client_id}
        if self._after is not None:
            query["post_logout_redirect_uri"] = self._after
        if state is not None:
            query["state"] = state
        if self._hints is not None and (hint := await self._hints.take(claims["idp"])) is not None:
            query["id_token_hint"] = hint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def _remember(self, sid: str, claims: Claims) -> None:
        provider = self._provider_of(claims)
        if provider is None:
            return
        idp = claims["idp"]
        if not isinstance(idp.get("sub"), str) or not isinstance(idp.get("sid", ""), str):
            # Not as it was stored: which logout ends it is not known.
            raise refused("provider_logout")
        value = _NOTED.encoded(_Noted(sid, idp["sub"], idp.get(HINT)))
        until = self._login.now() + self._remembered
        owners = {kind: self._owner(provider, kind, idp[kind]) for kind in ("sub", "sid") if kind in idp}
        for kind, owner in owners.items():
            await self._login.store.add(Record(self._key("of", kind, sid), value, owner, until))
        # After it is noted: whichever of the two comes last finds the other.
        for kind, owner in owners.items():
            await self._refuse_ended(owner, claims, of_session=kind == "sid")
        if self._hints is not None:
            await self._hints.extend(idp, until)

    async def _refuse_ended(self, owner: str, claims: Claims, *, of_session: bool) -> None:
        began = min(claims["factors"].values())
        for record in await self._login.store.find(_ended(owner)):
            ended = _SPENT.read_or_none(record)
            # One that cannot be read may be of this login.
            if ended is None:
                raise refused("provider_logout")
            # A session ends once; a user may have logged in again at the provider.
            if ended.sub in (None, claims["idp"]["sub"]) and (of_session or began <= ended.at):
                raise refused("provider_logout")

    def _provider_of(self, claims: Mapping[str, Any]) -> OpenIDProvider | None:
        """Return the provider that a login came from, where it is one with ID tokens."""
        idp = claims.get("idp")
        if not isinstance(idp, dict):
            return None
        provider = self._providers.get(str(idp.get("provider")))
        return provider if provider is not None and provider.issuer == idp.get("iss") else None

    def _owner(self, provider: OpenIDProvider, kind: str, value: str) -> str:
        # Another client of the same issuer has sessions of its own.
        return self._key(kind, provider.issuer, provider.client.client_id, value)

    def _key(self, *parts: str) -> str:
        return f"{SIGN_IN}logout:{digest_of(json.dumps([self._login.name, *parts]))}"


def _ended(owner: str) -> str:
    return f"{owner}:ended"
