"""Read the secrets of a command from standard input or the environment, never from its arguments."""

import os
import sys

from fastapi_guard.exceptions import ConfigurationError

STANDARD_INPUT = "-"
_ENVIRONMENT = "env:"


def read_secret(option: str, given: str | None) -> str | None:
    """Return the secret of an option: ``-`` is a line of standard input, ``env:NAME`` an environment variable.

    Raises:
        ConfigurationError: It is neither, the variable is not set, or the line is empty.
    """
    if given is None:
        return None
    if given == STANDARD_INPUT:
        secret = sys.stdin.readline().strip()
        if not secret:
            msg = f"{option} - reads a line of standard input, which is empty"
            raise ConfigurationError(msg)
        return secret
    name = given.removeprefix(_ENVIRONMENT)
    if not given.startswith(_ENVIRONMENT):
        msg = f"{option} is - for standard input, or env:NAME: an argument is visible to other users of the machine"
        raise ConfigurationError(msg)
    if not os.environ.get(name):
        msg = f"{option}: the environment variable {name} is not set"
        raise ConfigurationError(msg)
    return os.environ[name].strip()
