"""api_keys_router: whoever may call may keep API keys, and none of them can do more than the credential that made it.

Needs the extra ``sqlalchemy``.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, cast

from fastapi import APIRouter, Depends, HTTPException, Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import HTTPConnection

from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.fields import SubjectType
from fastapi_guard.api_key.key import StoredKey
from fastapi_guard.auth import AnyAuth, ScopesAuth
from fastapi_guard.auth.decision import Decision
from fastapi_guard.claims import Claims, Grants
from fastapi_guard.exceptions import ConfigurationError, Forbidden, KeyConflict, KeyNotFound
from fastapi_guard.routers.responses import NeverStoredRoute, never_stored
from fastapi_guard.scopes import Scope

logger: logging.Logger = logging.getLogger("fastapi_guard")

EXCEEDS = "The key would exceed the credential that asks for it"
_MAX_OVERLAP_SECONDS = 30 * 86_400
_LAST_SECOND = datetime.max.replace(tzinfo=UTC).timestamp() - 1

KeyScope = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$", max_length=255)]
KeyId = Annotated[str, Path(description="The id of a key, which is no secret.")]
# What FastAPI answers where a body is no text, and leaves out of its document.
_UNREADABLE: Final[dict[int | str, dict[str, Any]]] = {400: {"description": "Bad Request"}}
_NO_SUCH_KEY: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "No such key"}}
_HAS_ENDED: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "It has ended, or was rotated before"}}
Name = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$", max_length=255)]


class _Body(BaseModel):
    # Owner and tenant are the caller's: a body that names others is refused, not ignored.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class KeyRequest(_Body):
    """A key to create. Whose it is and where it holds comes from the credential of the caller."""

    name: Name = ""
    scopes: list[KeyScope] = Field(default=[], max_length=100)
    is_admin: bool = False
    expires_at: AwareDatetime | None = Field(
        default=None, description="By default when the caller's credential expires."
    )


class RotationRequest(_Body):
    """How a key is replaced."""

    overlap_seconds: int = Field(default=0, ge=0, le=_MAX_OVERLAP_SECONDS, description="How long both keys hold.")
    expires_at: AwareDatetime | None = Field(default=None, description="By default the lifetime of the old key again.")


class KeyInfo(BaseModel):
    """A key, without its text."""

    model_config: ClassVar[ConfigDict] = ConfigDict(from_attributes=True)

    key_id: str
    name: str
    subject_type: str
    user_id: str
    tenant_id: str | None
    is_admin: bool
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str | None


class CreatedKey(BaseModel):
    """A new key. Its text is in this answer and nowhere else."""

    key_id: str
    key: str = Field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls, as the credential says.

    Attributes:
        auth: Who verified it: of several Auths the one that decides what it grants.
        grants: What it granted when it was verified.
        user_id: Whom it names.
        subject_type: What kind of subject that is.
        tenant_id: Where it holds.
        expires_at: When it expires.
        is_administrator: Whether other users' keys are theirs to look after.
    """

    decision: Decision[Any]
    grants: Grants
    user_id: str
    subject_type: str
    tenant_id: str | None
    expires_at: datetime | None
    is_administrator: bool

    def may_see(self, key: StoredKey) -> bool:
        """Return whether a key is the caller's, or the caller may administer it: in the caller's tenant, or in none."""
        owned = (key.user_id, key.subject_type) == (self.user_id, self.subject_type)
        return (owned or self.is_administrator) and self.tenant_id == key.tenant_id


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where callers keep keys: what each may do, decided in one place."""

    keys: DatabaseAPIKeyAuth
    auth: ScopesAuth
    admin_scope: str
    allow_outliving: bool

    def caller(self, connection: HTTPConnection, claims: Claims) -> _Caller:
        """Return who calls.

        Raises:
            Forbidden: The credential names nobody, or a tenant that is no text.
        """
        user_id, tenant_id, expires_at = claims.get("sub"), claims.get("tenant_id"), claims.get("exp")
        subject_type = claims.get("subject_type") or "user"
        if not isinstance(user_id, str) or not user_id or not isinstance(tenant_id, str | None):
            raise Forbidden(reason="no_subject")
        decision = self.auth.dependency.decision
        decider, grants = decision.decider(connection), decision.grants(connection, claims)
        administers = decider.covers(grants, self.admin_scope)
        return _Caller(decider, grants, user_id, subject_type, tenant_id, _moment(expires_at), administers)

    async def create(self, caller: _Caller, request: KeyRequest) -> CreatedKey:
        """Create a key of the caller."""
        self._check(caller, caller.tenant_id, scopes=request.scopes, is_admin=request.is_admin, metadata={})
        expires_at = self._expiry(caller, request.expires_at, default=None)
        new_id, raw = await self.keys.create(
            user_id=caller.user_id,
            name=request.name,
            scopes=request.scopes,
            is_admin=request.is_admin,
            tenant_id=caller.tenant_id,
            expires_at=expires_at,
            subject_type=cast("SubjectType", caller.subject_type),
            by=caller.user_id,
        )
        return CreatedKey(key_id=new_id, key=raw, expires_at=expires_at)

    async def rotate(self, caller: _Caller, key_id: str, request: RotationRequest) -> CreatedKey:
        """Put a new key in the place of one that the caller may see, and whose authority the caller has."""
        old = await self.find(caller, key_id)
        self._check(caller, old.tenant_id, scopes=old.scopes, is_admin=old.is_admin, metadata=old.metadata)
        expires_at = self._expiry(caller, request.expires_at, default=old.renewed(datetime.now(UTC)))
        overlap = timedelta(seconds=request.overlap_seconds)
        new_id, raw = await self.keys.rotate(key_id, overlap=overlap, expires_at=expires_at, by=caller.user_id)
        return CreatedKey(key_id=new_id, key=raw, expires_at=expires_at)

    async def list(self, caller: _Caller, user_id: str | None, limit: int, offset: int) -> Sequence[StoredKey]:
        """Return the keys of the caller, or of another user.

        Raises:
            Forbidden: They are another user's, and the caller is no administrator.
        """
        if user_id is not None and user_id != caller.user_id and not caller.is_administrator:
            raise Forbidden(reason="not_an_administrator")
        subject_type = caller.subject_type if user_id is None or not caller.is_administrator else None
        return await self.keys.list(
            user_id=user_id or caller.user_id,
            subject_type=subject_type,
            tenant_id=caller.tenant_id,
            limit=limit,
            offset=offset,
        )

    async def find(self, caller: _Caller, key_id: str) -> StoredKey:
        """Return a key that the caller may see.

        Raises:
            KeyNotFound: There is none; that another user has one of that id is not said.
        """
        key = await self.keys.get(key_id)
        if key is None or not caller.may_see(key):
            raise KeyNotFound
        return key

    def _check(
        self, caller: _Caller, tenant_id: str | None, *, scopes: Sequence[str], is_admin: bool, metadata: dict[str, Any]
    ) -> None:
        # What the key will grant is read as it will be read then: roles may come out of its metadata.
        wanted = self.keys.grants_of({"scope": " ".join(scopes), "is_admin": is_admin, "metadata": metadata})
        own = caller.grants
        exceeds = (
            tenant_id != caller.tenant_id
            or (wanted.is_admin and not own.is_admin)
            # A bare star is everything in a key, while in a token it may be a scope like any other.
            or (wanted.everything and not own.everything)
            or not wanted.roles <= own.roles
            or not all(caller.decision.covers(own, scope) for scope in wanted.scopes)
        )
        if exceeds:
            raise Forbidden(EXCEEDS, reason="exceeds_credential")

    def _expiry(self, caller: _Caller, asked: datetime | None, *, default: datetime | None) -> datetime | None:
        last = None if self.allow_outliving else caller.expires_at
        if asked is None:
            return default if last is None else min(default or last, last)
        if asked <= datetime.now(UTC):
            msg = "expires_at has passed"
            raise ValueError(msg)
        if last is not None and asked > last:
            raise Forbidden(EXCEEDS, reason="exceeds_credential")
        return asked


def api_keys_router(
    keys: DatabaseAPIKeyAuth,
    *,
    auth: ScopesAuth,
    prefix: str = "/api-keys",
    scopes: Sequence[str] = (),
    admin_scope: str = "api-keys:admin",
    allow_outliving: bool = False,
) -> APIRouter:
    """Let callers create, list, get, rotate and revoke their own API keys, and with a scope other users' keys.

    Whose a key is and in which tenant comes from the credential of the caller, and no key has more scopes, more roles,
    ``is_admin``, another tenant or a later expiry than that credential. A key that is asked for without an expiry ends
    with it.

    Args:
        keys: Where the keys are.
        auth: Guards every route; ``keys`` itself, another Auth, or several: ``jwt | keys``.
        prefix: What stands before the paths.
        scopes: What every caller needs besides.
        admin_scope: What another user's keys need, within the caller's tenant where the credential has one.
        allow_outliving: Let keys live longer than the credential that creates them, as for a session or a short token.

    Raises:
        ConfigurationError: ``auth`` gives no scopes to hold a key against, or decides them in another way than
            ``keys``.
    """
    members = auth.members if isinstance(auth, AnyAuth) else (auth,)
    for member in members:
        if not isinstance(member, ScopesAuth):
            msg = f"auth guards these routes by its scopes: pass a ScopesAuth, such as keys itself, not {member!r}"
            raise ConfigurationError(msg)
        if type(member.scope_validator) is not type(keys.scope_validator):
            msg = (
                "auth and keys decide scopes in two ways, so that a key could do more than its creator:"
                " use one validator"
            )
            raise ConfigurationError(msg)
    if allow_outliving:
        logger.warning("api_keys_router: allow_outliving lets API keys live longer than the credential that made them")
    desk = _Desk(keys, auth, Scope(admin_scope), allow_outliving)

    async def caller(connection: HTTPConnection, claims: Annotated[Claims, auth.requires(*scopes)]) -> _Caller:
        return desk.caller(connection, claims)

    router = APIRouter(
        prefix=prefix, tags=["API keys"], route_class=NeverStoredRoute, dependencies=[Depends(never_stored)]
    )
    _add_routes(router, desk, Annotated[_Caller, Depends(caller)])
    return router


def _add_routes(router: APIRouter, desk: _Desk, by: Any) -> None:
    @router.post("", status_code=201, summary="Create a key", responses=_UNREADABLE)
    async def create(caller: by, request: KeyRequest) -> CreatedKey:
        with _answers():
            return await desk.create(caller, request)

    @router.get("", summary="List keys", response_model=list[KeyInfo])
    async def list_keys(
        caller: by,
        user_id: Annotated[Name | None, Query(description="Another user's.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> Sequence[StoredKey]:
        return await desk.list(caller, user_id, limit, offset)

    @router.get("/{key_id}", summary="Get a key", response_model=KeyInfo, responses=_NO_SUCH_KEY)
    async def get(caller: by, key_id: KeyId) -> StoredKey:
        with _answers():
            return await desk.find(caller, key_id)

    @router.post(
        "/{key_id}/rotate",
        status_code=201,
        summary="Rotate a key",
        responses={**_UNREADABLE, **_NO_SUCH_KEY, **_HAS_ENDED},
    )
    async def rotate(caller: by, key_id: KeyId, request: RotationRequest | None = None) -> CreatedKey:
        with _answers():
            return await desk.rotate(caller, key_id, request or RotationRequest())

    @router.delete("/{key_id}", status_code=204, summary="Revoke a key", responses=_NO_SUCH_KEY)
    async def revoke(caller: by, key_id: KeyId) -> None:
        with _answers():
            await desk.find(caller, key_id)
            await desk.keys.revoke(key_id, by=caller.user_id)


def _moment(expires_at: float | None) -> datetime | None:
    if expires_at is None:
        return None
    return datetime.fromtimestamp(min(expires_at, _LAST_SECOND), UTC)


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except KeyNotFound:
        raise HTTPException(404, "No such API key") from None
    except KeyConflict:
        raise HTTPException(409, "The API key has ended or was rotated before") from None
    except ValueError as error:
        # In the form that FastAPI documents.
        raise RequestValidationError([{"type": "value_error", "loc": ("body",), "msg": str(error)}]) from None
