"""``fastapi-guard`` and ``python -m fastapi_guard``."""

import errno
import sys
from typing import Final

from fastapi_guard.exceptions import MissingExtraError

# A full disk, a broken one, a closed file.
_UNWRITABLE: Final = (errno.ENOSPC, errno.EIO, errno.EBADF)


def main() -> None:
    """Run the command line, or print the command that installs its extra."""
    try:
        from fastapi_guard.cli.app import app  # noqa: PLC0415 - a missing extra is one line, not a traceback
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    try:
        app(prog_name="fastapi-guard")
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        # Python would try once more to write what is left, and fail with a message of its own.
        sys.stdout = None
        sys.exit(f"error: the output cannot be written: {error.strerror}")


if __name__ == "__main__":
    main()
