"""PublicPaths: the ways into an application that may be unguarded, by path or by prefix."""

from collections.abc import Collection, Iterable

from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.arguments import items_of

_BELOW = "/*"


class PublicPaths:  # noqa: PLW1641 - compared, and never a key
    """Paths as written at the route, and prefixes such as ``/admin/*``, which name every path below ``/admin/``.

    A mount whose routes are not known is named by its path, ``/files``, and by ``/files/*``. At the root both
    ``/{mounted:path}`` and ``/*`` name it, since ``/`` is the path of a page. What is mounted by its host is named with
    it, ``//api.example.com/health``.
    """

    def __init__(self, paths: Collection[str], argument: str) -> None:
        """Name ``paths``; ``argument`` is what they are called in messages.

        Raises:
            ConfigurationError: It is not a list of paths, or a ``*`` stands elsewhere than at the end of a prefix.
        """
        self._argument = argument
        if isinstance(paths, str):
            msg = f"{argument} is a list of paths: [{paths!r}]"
            raise ConfigurationError(msg)
        self._paths = frozenset(items_of(argument, paths, 'of paths, such as ["/health"]'))
        for path in self._paths:
            if not isinstance(path, str) or not path.startswith("/") or "*" in path.removesuffix(_BELOW):
                msg = (
                    f"{argument} has paths as written at the route, and prefixes that end in /*, such as"
                    f' "/admin/*", not {path!r}'
                )
                raise ConfigurationError(msg)

    def __eq__(self, other: object) -> bool:
        """Return whether ``other`` names the same paths."""
        return isinstance(other, PublicPaths) and self._paths == other._paths

    def __contains__(self, way: object) -> bool:
        """Return whether a way into the application is named."""
        return isinstance(way, RouteGuards) and any(_names(path, way) for path in self._paths)

    def check(self, ways: Iterable[RouteGuards], documentation: Collection[str]) -> None:
        """Refuse what names no way into the application, nor a page of its documentation.

        Raises:
            ConfigurationError: A path is misspelt, or its route is gone.
        """
        listed = list(ways)
        unknown = sorted(
            path for path in self._paths if path not in documentation and not any(_names(path, way) for way in listed)
        )
        if unknown:
            others = sorted({way.public_name for way in listed if way.path in unknown})
            remedy = f"name {', '.join(others)}" if others else "remove it, or correct it"
            msg = f"{self._argument} names {', '.join(unknown)}, which no route has: {remedy}"
            raise ConfigurationError(msg)


def _names(path: str, way: RouteGuards) -> bool:
    name = way.public_name
    below = f"{name}/" if way.is_mount else name
    return path == name or (path.endswith(_BELOW) and below.startswith(path[:-1]))
