"""Members: a user has a role in each of any number of tenants, as the roles ``acme:owner`` and ``other:reader``."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from starlette.requests import HTTPConnection

from fastapi_guard import Unauthorized
from fastapi_guard.exceptions import Conflict, UserConflict
from fastapi_guard.login.accounts import Invited
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.users import User

ROLES = {
    "owner": ["*"],
    "editor": ["projects:read", "projects:edit"],
    "reader": ["projects:read"],
}


class MemberAuth(LocalAuth):
    """Resolves the roles of a user in the tenant of the path, at each request: a removed member has none at once."""

    async def verify_request(self, connection: HTTPConnection, raw: str) -> dict[str, Any]:
        claims = await super().verify_request(connection, raw)
        user = await self.gate.users.by_subject(claims["sub"])
        if user is None or user.disabled:
            raise Unauthorized(error="invalid_token", reason="unknown_user")
        tenant = connection.path_params.get("tenant")
        roles = [] if tenant is None else roles_in(tenant, user.roles)
        return {**claims, "tenant_id": tenant if roles else None, "roles": roles}


def roles_in(tenant: str, memberships: Sequence[str]) -> list[str]:
    """Return the names of the roles in a tenant."""
    split = [membership.rpartition(":") for membership in memberships]
    return [role for name, _, role in split if name == tenant and role in ROLES]


def may_invite(inviter: User, invited: Invited) -> bool:
    """Let owners give roles in the tenants that they own. Scopes come from roles alone."""
    tenants = [membership.rpartition(":")[0] for membership in invited.roles]
    known = all(roles_in(tenant, [membership]) for tenant, membership in zip(tenants, invited.roles, strict=True))
    owned = all("owner" in roles_in(tenant, inviter.roles) for tenant in tenants)
    return bool(tenants) and known and owned and not invited.scopes and invited.tenant_id is None


def members_router(tokens: MemberAuth) -> APIRouter:
    """Serve the end of a membership."""
    router = APIRouter(prefix="/tenants/{tenant}/members", dependencies=[tokens.requires_tenant()], tags=["members"])

    @router.delete("/{email}", status_code=204)
    async def remove(
        tenant: str, email: str, claims: Annotated[dict[str, Any], tokens.requires("members:remove")]
    ) -> None:
        """Remove a user from this tenant; the account, and roles in other tenants, stay."""
        user = await tokens.gate.find(email)
        if user is None or not roles_in(tenant, user.roles):
            raise HTTPException(404)
        if user.subject_id == claims["sub"]:
            raise Conflict("An owner is removed by another owner")
        kept = [membership for membership in user.roles if membership.rpartition(":")[0] != tenant]
        try:
            await tokens.gate.change(user, roles=kept)
        except UserConflict:
            raise Conflict("The user was changed at the same time: try again") from None

    return router
