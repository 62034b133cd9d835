"""The projects of a tenant, for its users and its service accounts."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_guard import AnyAuth


class Base(DeclarativeBase):
    """The tables of the application."""


class Project(Base):
    """A project: it belongs to a tenant, and in that to the user or service account who made it."""

    __tablename__ = "projects"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    tenant_id: Mapped[str] = mapped_column(index=True)
    owner_id: Mapped[str]
    name: Mapped[str]


class Draft(BaseModel):
    """The name of a project, as a client sends it."""

    name: Annotated[str, Field(min_length=1, max_length=200)]


class ProjectInfo(BaseModel):
    """A project, as a client receives it."""

    id: UUID
    owner_id: str
    name: str


def projects_router(auth: AnyAuth, sessions: async_sessionmaker[AsyncSession]) -> APIRouter:
    """Serve the projects of each tenant to callers of that tenant, with a token or an API key."""
    router = APIRouter(prefix="/tenants/{tenant}/projects", dependencies=[auth.requires_tenant()], tags=["projects"])

    # Every query names the tenant, which is the caller's: a project of another tenant is a 404.
    async def one(tenant: str, project_id: UUID) -> Project | None:
        async with sessions() as session:
            return await session.scalar(select(Project).where(Project.tenant_id == tenant, Project.id == project_id))

    editor = auth.requires("projects:edit")
    own = auth.owned(one, "projects:edit", owner="owner_id", or_scope="projects:*")

    @router.get("", response_model=list[ProjectInfo], dependencies=[auth.requires("projects:read")])
    async def every_project(tenant: str) -> Sequence[Project]:
        async with sessions() as session:
            return (await session.scalars(select(Project).where(Project.tenant_id == tenant))).all()

    @router.post("", status_code=201, response_model=ProjectInfo)
    async def create(tenant: str, draft: Draft, claims: Annotated[dict[str, Any], editor]) -> Project:
        project = Project(tenant_id=tenant, owner_id=claims["sub"], name=draft.name)
        async with sessions.begin() as session:
            session.add(project)
        return project

    @router.put("/{project_id}", response_model=ProjectInfo)  # noqa: FAST003 - the loader has the parameter
    async def rename(draft: Draft, project: Annotated[Project, own]) -> Project:
        async with sessions.begin() as session:
            session.add(project)
            project.name = draft.name
        return project

    # A user whose login is older proves the password again at /login/step-up; an API key cannot.
    @router.delete(
        "",
        status_code=204,
        dependencies=[
            auth.requires("projects:delete", via=["local"]),
            auth.requires_recent(timedelta(minutes=5), via=["local"]),
        ],
    )
    async def remove_all(tenant: str) -> None:
        async with sessions.begin() as session:
            await session.execute(delete(Project).where(Project.tenant_id == tenant))

    return router
