"""The authority that a credential can pass on to a key: never more than its own, and never for longer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.fields import moment
from fastapi_guard.api_key.key import StoredKey, later
from fastapi_guard.api_key.restrictions import network_of
from fastapi_guard.api_key.rows import DraftKey
from fastapi_guard.api_key.static import StaticAPIKeyAuth
from fastapi_guard.exceptions import Forbidden, Unauthorized
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.login.refresh import RefreshTokens
from fastapi_guard.routers.api_keys.callers import Caller
from fastapi_guard.schemes.address import Network

EXCEEDS: Final = "The key would exceed the credential that creates it"
OUTLIVES: Final = "The key would expire later than the credential that creates it"
UNKNOWN_EXPIRY: Final = "The key would outlive the credential that creates it, whose expiry is unknown"
_LAST_SECOND: Final = datetime.max.replace(tzinfo=UTC).timestamp() - 1
# Their credentials are valid until they are revoked where they do not have an expiry. Of others that is not known.
_ENDLESS: Final = (DatabaseAPIKeyAuth, StaticAPIKeyAuth, JWTAuth)
_LIMITS: Final = ("rate", "quota", "quota_seconds", "usage_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """How long the keys of a router live.

    Attributes:
        allow_outliving: Whether they may outlive the credential that creates them.
        longest: The longest lifetime of any key, ``None`` for any.
        families: The refresh families of a login, whose access tokens count as long as the login can last.
    """

    allow_outliving: bool = False
    longest: timedelta | None = None
    families: RefreshTokens | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    """The authority of one caller.

    Attributes:
        keys: The Auth of the keys.
        caller: The caller.
        key: The API key that the caller came with, ``None`` with another credential.
        ends_at: When the credential expires, ``None`` for never, or where that does not count.
        latest: The latest expiry by the rules of the router, ``None`` for any.
        now: The present moment.
    """

    keys: DatabaseAPIKeyAuth
    caller: Caller
    key: StoredKey | None
    ends_at: datetime | None
    latest: datetime | None
    now: datetime

    @classmethod
    async def of(cls, keys: DatabaseAPIKeyAuth, caller: Caller, lifetimes: Lifetimes) -> "Authority":
        """Return what a caller can pass on.

        Raises:
            Forbidden: When the credential expires is unknown, or it was revoked in the meantime.
            ServiceUnavailable: The database or the store cannot be reached.
        """
        now = datetime.fromtimestamp(keys.dependency.decision.now(), UTC)
        auth, own = caller.decision.auth, None
        # Where a test overrides the guard, nothing was verified, and there is no key.
        if isinstance(auth, DatabaseAPIKeyAuth) and auth.dependency.decision.recall(caller.connection) is not None:
            own = await auth.get(str(caller.claims.get("key_id")))
            if own is None or own.status(now) != "active":
                raise Forbidden(EXCEEDS, reason="exceeds_credential")
        return cls(
            keys=keys,
            caller=caller,
            key=own,
            ends_at=None if lifetimes.allow_outliving else await _end_of(caller, lifetimes.families),
            latest=None if lifetimes.longest is None else later(now, lifetimes.longest),
            now=now,
        )

    async def confirm(self) -> None:
        """Check that the credential is still valid after a key was stored, which ends with its user.

        An API key that makes another one is locked meanwhile. Sessions and tokens of a user end before the keys of the
        user are revoked (``makers_first``), so a key that was not revoked with them is found here.

        Raises:
            Forbidden: It was revoked in the meantime.
            ServiceUnavailable: That cannot be decided; the new key is shown to no one.
        """
        auth = self.caller.decision.auth
        if self.key is not None or auth.dependency.decision.recall(self.caller.connection) is None:
            return
        try:
            await auth._current(self.caller.claims, self.caller.connection)  # noqa: SLF001 - as for tickets
        except Unauthorized:
            raise Forbidden(EXCEEDS, reason="exceeds_credential") from None

    def draft(self, fields: dict[str, Any]) -> DraftKey:
        """Return a new key of the caller's owner with these fields, which does not exceed the credential.

        Where the caller came with an API key, its networks, origins, environment and limits are the default, and the
        new key counts its requests together with it.

        Raises:
            Forbidden: It would exceed the credential.
            ValueError: A field does not fit KeyFields, or the keys of this router do not live so long.
        """
        owner, own = self.caller.owner, self.key
        fields = {
            **({} if own is None else _inherited(own)),
            **fields,
            "user_id": owner.subject.sub,
            "issuer": owner.subject.issuer,
            "subject_type": owner.subject_type,
            "tenant_id": owner.tenant_id,
            "expires_at": self.expiry(fields.get("expires_at"), default=None),
            "maker": self.caller.identity.subject,
            "maker_key": None if own is None else own.key_id,
            "outlives_maker": owner != self.caller.identity,
            "by": self.caller.actor,
        }
        draft = self.keys.draft(**fields)
        if own is not None and own.is_limited:
            draft = draft._replace(key=replace(draft.key, usage_id=own.usage_id))
        self.check(draft.key)
        return draft

    def check(self, key: StoredKey) -> None:
        """Check a new key by the claims that it will have.

        Raises:
            Forbidden: It grants what the credential does not, or can be used where the credential cannot.
        """
        claims, own = key.claims(), self.caller.grants
        wanted, tenant_id = self.keys.grants_of(claims), self.caller.owner.tenant_id
        tenants = frozenset(() if tenant_id is None else (tenant_id,))
        exceeds = (
            (wanted.is_admin and not own.is_admin)
            # A bare star is everything in a key, while in a token it may be a scope like any other.
            or (wanted.everything and not own.everything)
            or not wanted.roles <= own.roles
            or not all(self.caller.decision.covers(own, scope) for scope in wanted.scopes)
            or self.keys.dependency.decision.tenants(claims) != tenants
            or (self.key is not None and _is_less_restricted(key, self.key))
        )
        if exceeds:
            raise Forbidden(EXCEEDS, reason="exceeds_credential")

    def expiry(self, wanted: datetime | None, *, default: datetime | None) -> datetime | None:
        """Return when a key expires: at the ``wanted`` moment, else by ``default``, but not after the credential.

        Raises:
            Forbidden: The wanted moment is after the expiry of the credential, or that has passed.
            ValueError: The wanted moment has passed, has no time zone, or is later than the router allows.
        """
        wanted = moment("expires_at", wanted)
        if wanted is None:
            ends = [end for end in (default, self.ends_at, self.latest) if end is not None]
            wanted = min(ends, default=None)
        elif self.latest is not None and wanted > self.latest:
            msg = "expires_at is later than the lifetime of keys allows here"
            raise ValueError(msg)
        if self.ends_at is not None and (self.ends_at <= self.now or wanted is None or wanted > self.ends_at):
            raise Forbidden(OUTLIVES, reason="outlives_credential")
        return wanted


async def _end_of(caller: Caller, families: RefreshTokens | None) -> datetime | None:
    if caller.owner != caller.identity:
        return None
    expires_at, sid = caller.claims.get("exp"), caller.claims.get("sid")
    if expires_at is None:
        if isinstance(caller.decision.auth, _ENDLESS):
            return None
        raise Forbidden(UNKNOWN_EXPIRY, reason="unknown_expiry")
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise Forbidden(UNKNOWN_EXPIRY, reason="unknown_expiry")
    issuer, sub = caller.identity.subject
    if families is not None and issuer is None and isinstance(sid, str):
        ends = [family.ends_at for family in await families.families(sub) if family.id == sid]
        expires_at = max([expires_at, *ends])
    return datetime.fromtimestamp(min(expires_at, _LAST_SECOND), UTC)


def _inherited(own: StoredKey) -> dict[str, Any]:
    period = None if own.quota_seconds is None else timedelta(seconds=own.quota_seconds)
    limits = {"rate": own.rate, "quota": own.quota, "quota_period": period}
    networks = {"allowed_networks": own.allowed_networks, "allowed_origins": own.allowed_origins}
    return {"environment": own.environment, **networks, **limits}


def _is_less_restricted(key: StoredKey, own: StoredKey) -> bool:
    if key.environment != own.environment:
        return True
    # Limits are shared, not copied: otherwise a key would have as many quotas as it makes keys.
    if own.is_limited and any(getattr(key, name) != getattr(own, name) for name in _LIMITS):
        return True
    if own.allowed_origins and not (key.allowed_origins and set(key.allowed_origins) <= set(own.allowed_origins)):
        return True
    return bool(own.allowed_networks) and not _are_within(key.allowed_networks, own.allowed_networks)


def _are_within(networks: Sequence[str], bounds: Sequence[str]) -> bool:
    outer = [network_of(text) for text in bounds]
    return bool(networks) and all(any(_is_within(network_of(text), bound) for bound in outer) for text in networks)


def _is_within(network: Network, bound: Network) -> bool:
    # No address of one version is in a network of the other.
    return network.network_address in bound and network.broadcast_address in bound
