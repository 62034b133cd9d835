"""Gradio, sqladmin and static files behind guards."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

import gradio
from fastapi import FastAPI
from sqladmin import Admin, ModelView
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool
from starlette.staticfiles import StaticFiles

from fastapi_guard import StaticAPIKeyAuth, configure_app
from fastapi_guard.app import guarded

KEY = "sk-ada-an-admin-of-the-tests-7d1f0a3b"
OTHER = "sk-bob-who-may-do-nothing-here-41c2e9"
auth = StaticAPIKeyAuth(
    {
        KEY: {"user_id": "ada", "is_admin": True, "scopes": ["files:read", "ui:use"]},
        OTHER: {"user_id": "bob"},
    }
)


class Base(DeclarativeBase):
    """The models."""


class Item(Base):
    """A model of the administrators."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class ItemAdmin(ModelView, model=Item):
    """Its pages."""

    column_list = (Item.id, Item.name)


engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Base.metadata.create_all(engine)
# It mounts itself on the application that it gets: on none that is served.
administration = Admin(FastAPI(), engine)
administration.add_view(ItemAdmin)

interface = gradio.Interface(lambda name: f"Hello {name}", "text", "text", api_name="greet")
ui = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
gradio.mount_gradio_app(ui, interface, path="")

folder = Path(mkdtemp())
(folder / "report.txt").write_text("all is well")
(folder / "index.html").write_text("<p>index</p>")

mounts = {
    "/admin": guarded(administration.admin, auth.requires_admin()),
    "/ui": guarded(ui, auth.requires("ui:use")),
    "/files": guarded(StaticFiles(directory=folder, html=True), auth.requires("files:read")),
}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run the lifespans of what is mounted."""
    async with AsyncExitStack() as stack:
        for mounted in mounts.values():
            await stack.enter_async_context(mounted.lifespan())
        yield


app = FastAPI(lifespan=lifespan)
for path, mounted in mounts.items():
    app.mount(path, mounted, name=path.strip("/"))
configure_app(app, unguarded="refuse")
