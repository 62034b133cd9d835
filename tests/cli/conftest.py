"""Settings of the command line in its tests."""

import functools

import typer.testing

# The commands are built from their functions once, not for each call: that was half of the time of these tests.
typer.testing._get_command = functools.cache(typer.testing._get_command)
