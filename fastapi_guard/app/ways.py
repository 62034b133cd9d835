"""RouteGuards: one way into an application, and the guards before it."""

from typing import Final, NamedTuple

from fastapi.dependencies.models import Dependant

from fastapi_guard.app.guards import GuardUse

# The name of what is mounted at the root: "/" is a page there.
_MOUNTED: Final = "/{mounted:path}"


class RouteGuards(NamedTuple):
    """A way into an application as a client sees it, and the guards before it.

    Attributes:
        path: The whole path, prefixes and mounts included.
        methods: The methods in upper case, sorted; ``("WEBSOCKET",)``; ``("MOUNT",)`` for a mounted application whose
            routes are not known; ``("ANY",)`` for what answers every method.
        guards: In the order in which they run.
        schema_path: The path in FastAPI's OpenAPI document of the outermost application; ``None``: it is not in there.
        mistakes: Guards that are written and not run, each as a sentence.
        is_throttled: Whether a Throttle stands before it.
        early: The application's dependencies that run before an anonymous caller is refused, by name.
        bypassed: The names of the Auths that guard an application or a router around it, and that do not run for it.
        is_mounted: Whether it belongs to an application that is mounted on another.
        is_documentation: Whether FastAPI itself added it, a page of the documentation or the OpenAPI document.
        is_metadata: Whether it serves the metadata of a protected resource.
        answers: What answers where no route of an application matches, such as "the handler of 404".
        parts: The dependencies that hold its guards, in the order in which FastAPI resolves them.
        host: The host that its application is mounted by, as written at the route; ``None`` without one.
    """

    path: str
    methods: tuple[str, ...]
    guards: tuple[GuardUse, ...]
    schema_path: str | None
    mistakes: tuple[str, ...] = ()
    is_throttled: bool = False
    early: tuple[str, ...] = ()
    bypassed: tuple[str, ...] = ()
    is_mounted: bool = False
    is_documentation: bool = False
    is_metadata: bool = False
    answers: str | None = None
    parts: tuple[Dependant, ...] = ()
    host: str | None = None

    @property
    def is_guarded(self) -> bool:
        """Whether a valid credential is required: other guards let an anonymous caller pass."""
        return any(use.is_effective for use in self.guards)

    @property
    def public_name(self) -> str:
        """The name of this way in ``public``: its path, but not that of a page at the root, nor of another host."""
        path = _MOUNTED if self.is_mount and self.path == "/" else self.path
        return path if self.host is None else f"//{self.host}{path}"

    @property
    def is_mount(self) -> bool:
        """Whether it is all that is below its path."""
        return self.methods == ("MOUNT",)
