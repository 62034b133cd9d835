"""``fastapi-guard`` and ``python -m fastapi_guard``."""

import sys

from fastapi_guard.exceptions import MissingExtraError


def main() -> None:
    """Run the command line, or print the command that installs its extra."""
    try:
        from fastapi_guard.cli.app import app  # noqa: PLC0415 - a missing extra is one line, not a traceback
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    app(prog_name="fastapi-guard")


if __name__ == "__main__":
    main()
