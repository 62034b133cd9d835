"""Run the lifespans of mounted applications, which a mount of Starlette's does not run."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import unwrap
from typing import Any, Final, NamedTuple

from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router

from fastapi_guard.exceptions import ConfigurationError

# The packages of middleware, which holds the application behind it in ``app``.
_MIDDLEWARE: Final = ("starlette.middleware.", "fastapi.middleware.", "fastapi._body_limit")


class Lifespans:
    """The lifespan of an application behind guards, and those of what is mounted on it, at any depth.

    Attributes:
        app: The application.
        state: What they made available, while they run.
    """

    def __init__(self, app: object) -> None:
        """Note from now on whether the lifespans run that ``app`` and what is mounted on it have."""
        self.app = app
        self.state: Mapping[str, Any] = {}
        self.watch()

    def watch(self) -> list["_Part"]:
        """Return the application and all that is mounted on it; whether their lifespans run is noted from now on."""
        return list(_parts(self.app, (self,), "", set()))

    def missed(self) -> list[str]:
        """Return the paths below the application where a lifespan does not run, ``""`` for its own."""
        return [part.path for part in self.watch() if _does_something(part.router) and not part.watched.is_running]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Mapping[str, Any] | None]:
        """Run the lifespans, outer ones first, and skip one that an outer lifespan already runs."""
        async with AsyncExitStack() as stack:
            for part in self.watch():
                if part.watched.is_running:
                    continue
                part.watched.is_offered = True
                made = await stack.enter_async_context(part.router.lifespan_context(part.app))
                for lifespans in part.around:
                    lifespans.state = {**(made or {}), **lifespans.state}
            try:
                yield self.state or None
            finally:
                self.state = {}


class _Watched:
    """The lifespan of an application.

    Attributes:
        is_running: Whether it runs.
        is_offered: Whether the lifespan of a guarded mount runs it, and what is mounted below it afterwards.
    """

    def __init__(self, lifespan: Any) -> None:
        self.__wrapped__ = lifespan  # what is looked at to see whether there is one
        self.is_running = False
        self.is_offered = False

    @asynccontextmanager
    async def __call__(self, app: Any) -> AsyncIterator[Any]:
        async with self.__wrapped__(app) as state:
            self.is_running = True
            try:
                yield state
            finally:
                self.is_running = self.is_offered = False


class _Part(NamedTuple):
    """An application with a lifespan.

    Attributes:
        path: Its path below the application that is guarded.
        app: The application.
        router: Its router, which has the lifespan.
        watched: The lifespan.
        around: The lifespans of the guarded mounts around it.
    """

    path: str
    app: Any
    router: Router
    watched: _Watched
    around: tuple[Lifespans, ...]


def refuse_missed(app: Starlette, mounts: Iterable[tuple[str, Lifespans]]) -> None:
    """Refuse to start ``app`` where the lifespan of a guarded mount, or of what is mounted below one, is not run.

    Args:
        app: The application, whose lifespan runs.
        mounts: The guarded mounts, each with its path.

    Raises:
        ConfigurationError: There is one.
    """
    if _watched(app.router).is_offered:
        return  # what runs it runs these next
    missed = dict.fromkeys(path.rstrip("/") + below or "/" for path, mount in mounts for below in mount.missed())
    if missed:
        msg = (
            f"the lifespan of what is mounted at {', '.join(missed)} is not run: run it in that of the application,"
            " as in FastAPI(lifespan=mounted.lifespan), where mounted = guarded(...)"
        )
        raise ConfigurationError(msg)


def behind_middleware(app: Any) -> Any:
    """Return the application behind middleware of Starlette and FastAPI, such as ``CORSMiddleware(app)``."""
    while type(app).__module__.startswith(_MIDDLEWARE):
        app = app.app
    return app


def _parts(app: Any, around: tuple[Lifespans, ...], path: str, seen: set[int]) -> Iterator[_Part]:
    app = behind_middleware(app)
    while isinstance(lifespans := getattr(app, "lifespans", None), Lifespans):
        around = (*around, lifespans)
        app = behind_middleware(lifespans.app)
    if not isinstance(app, Starlette | Router) or id(app) in seen:
        return
    seen.add(id(app))
    router = app.router if isinstance(app, Starlette) else app
    yield _Part(path, app, router, _watched(router), around)
    for context in iter_route_contexts(router.routes):
        original: Any = context.original_route
        if isinstance(original, Mount | Host):
            yield from _parts(original.app, around, path + (context.path or ""), seen)


def _watched(router: Router) -> _Watched:
    lifespan: Any = router.lifespan_context
    while lifespan is not None:
        if isinstance(lifespan, _Watched):
            return lifespan
        lifespan = getattr(lifespan, "__wrapped__", None)
    router.lifespan_context = watched = _Watched(router.lifespan_context)
    return watched


def _does_something(router: Any) -> bool:
    if getattr(router, "on_startup", ()) or getattr(router, "on_shutdown", ()):
        return True
    parts = [router.lifespan_context]
    while parts:
        part = unwrap(parts.pop())
        if (part.__module__, getattr(part, "__name__", "")) == ("fastapi.routing", "merged_lifespan"):
            # FastAPI merges that of each router that is included, also where both do nothing.
            parts += [cell.cell_contents for cell in part.__closure__]
        elif type(part).__name__ != "_DefaultLifespan":
            return True
    return False
