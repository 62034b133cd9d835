"""A Redis that is stopped and started, and has what it confirmed before."""

from contextlib import ExitStack
from pathlib import Path

from support.redis import free_port, running_redis

# It confirms a write when it is on disk.
_DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")


class KeptRedis:
    """A Redis on a port of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it with its file in a folder."""
        self._port, self._options, self._stack = free_port(), (*_DURABLE, "--dir", str(folder)), ExitStack()
        self.url = ""
        self.start()

    def start(self) -> None:
        """Run, again after a stop."""
        self.url = self._stack.enter_context(running_redis(self._port, *self._options))

    def stop(self) -> None:
        """Stop, which closes every connection."""
        self._stack.close()
