"""A value that was typed may be a secret in the wrong place: no usage error of any command repeats it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from fastapi_guard.cli import demo
from fastapi_guard.cli.app import app
from fastapi_guard.cli.usage import UsageError, constant_text

MARKER: Final = "Hunter2Marker"
OTHER: Final = "xx"
# The names that a command prints, which its user has to recognize.
NAMES: Final = {
    ("jwk generate", "file"): "the file that was created",
    ("jwk rotate", "file"): "the file that was changed",
    ("config check", "file"): "a file that exists, since jwk generate created it, and is of another format",
    ("demo", "host"): "the host name that could not be resolved",
    ("keys create", "prefix"): "the new key begins with it",
    ("keys list", "user"): "a column of the list",
    ("users reset-factors", "username"): "the user that is unknown, in a script over several users",
    ("users disable", "username"): "as above",
    ("users enable", "username"): "as above",
    ("users set-password", "username"): "as above",
    ("users create", "username"): "the user that was created",
    ("users create", "subject_id"): "the subject of that user",
}


class Call(NamedTuple):
    """A call of a command, with the marker as one of its arguments."""

    command: str
    parameter: str | None
    arguments: list[str]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path of each command and group, with the command."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def calls() -> Iterator[Call]:
    """Yield every command with the marker in every position."""
    for path, command in commands(get_command(app)):
        name, arguments = " ".join(path), [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        required = [text for p in options if p.required for text in (p.opts[0], OTHER)]
        valid = [*path, *(OTHER for _ in arguments), *required]
        wrong = ([MARKER], [f"--nope={MARKER}"], [f"--{MARKER}"], [f"-{MARKER}"], ["--nope", MARKER])
        for text in wrong:
            yield Call(name, None, [*valid, *text])
        for number, parameter in enumerate(arguments):
            typed = [MARKER if number == other else OTHER for other in range(len(arguments))]
            yield Call(name, parameter.name, [*path, *typed, *required])
        for parameter in options:
            option = parameter.opts[0]
            value = [f"{option}={MARKER}"] if parameter.is_flag else [option, MARKER]
            yield Call(name, parameter.name, [*valid, *value])


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An empty database, and a folder for files; no server is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_serve", lambda _, __, listening, ___: listening.close())
    url = f"sqlite:///{tmp_path}/guard.db"
    environment = {"FASTAPI_GUARD_DATABASE_URL": url, "FASTAPI_GUARD_STORE_URL": url}
    assert CliRunner().invoke(app, ["init-db"], env=environment).exit_code == 0
    return environment


def call(arguments: list[str], environment: dict[str, str]) -> Result:
    """Call a command with a valid password on standard input."""
    return CliRunner().invoke(app, arguments, env=environment, input="wonderland tea party\n")


def repeats(result: Result) -> bool:
    """Return whether the marker is in an output, on one line or, in a frame, on several."""
    return MARKER.lower() in re.sub(r"[\s│]", "", result.stdout + result.stderr).lower()


def test_what_was_typed_is_not_repeated(environment: dict[str, str]) -> None:
    """Neither output has it, whichever command and position; what has, is on the list of names."""
    found = list(calls())
    assert len({call.command for call in found}) > 30
    repeated: dict[tuple[str, str | None], list[str]] = {}
    for command, parameter, arguments in found:
        result = call(arguments, environment)
        assert isinstance(result.exception, SystemExit | None), arguments
        if repeats(result):
            repeated[command, parameter] = [*arguments, result.output]
    assert repeated.keys() == NAMES.keys(), {key: repeated[key] for key in repeated.keys() - NAMES.keys()}


MESSAGES: Final = {
    "password hash Hunter2Marker": "password hash [OPTIONS].*unexpected argument: there are options alone; a secret"
    " is read from standard input",
    "jwk public keys.json Hunter2Marker": "jwk public .*unexpected argument: the arguments are FILE; a secret is",
    "password Hunter2Marker": "there is no such command; the commands are hash",
    "password hash --Hunter2Marker": "there is no such option; the options are --help, --json, --min-characters",
    "demo --port Hunter2Marker": "Invalid value for '--port': expected: At most 65535; 0 is any free one.",
    "demo --port": "Option '--port' requires an argument.",
    "demo --json=Hunter2Marker": "there is no such option; the options are --api-key, --auth-type",
    "init-db --json=Hunter2Marker": "Option '--json' does not take a value.",
    "keys show": "Missing argument 'key_id'.",
    "keys list --unused-for Hunter2Marker": "Invalid value for '--unused-for': text of 13 characters is not",
    "jwk public Hunter2Marker": "FILE cannot be read: there is no such file",
    "config check Hunter2Marker": "FILE cannot be read: there is no such file",
    "token inspect - --config Hunter2Marker": "--config cannot be read: there is no such file",
    "keys": "Commands",
}


@pytest.mark.parametrize("line", MESSAGES)
def test_a_usage_error_has_the_remedy(line: str, environment: dict[str, str]) -> None:
    """It names the command and the parameter, and what is expected."""
    result = call(line.split(), {**environment, "COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert result.exit_code in (1, 2)
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())
    assert re.search(MESSAGES[line].replace("[OPTIONS]", r"\[OPTIONS\]"), text), text
    assert MARKER not in text


def test_an_invalid_value_without_a_parameter() -> None:
    """A message that is not ours is not shown, whatever it is about."""
    root = cast("TyperGroup", get_command(app))
    assert constant_text(typer.BadParameter(MARKER), root) == "the value has another form than expected; see --help"
    assert constant_text(UsageError(MARKER), root) == "the arguments are not as expected; see --help"
