"""Usage errors of the command line, in constant texts: what was typed may be a secret in the wrong place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import typer
from typer.core import TyperGroup

# The base of every usage error; typer exports this one subclass alone.
UsageError: Final = cast("type[Any]", typer.BadParameter.__mro__[1])


class InvalidValue(typer.BadParameter):
    """The value of a parameter is invalid, with a message that does not contain the value."""


class ConstantUsage(TyperGroup):
    """The group of all commands: no usage error of its commands repeats a value that was typed."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Parse the options before the name of the command."""
        with _constant_texts(self):
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest, and run the command."""
        with _constant_texts(self):
            return super().invoke(ctx)


@contextmanager
def _constant_texts(group: TyperGroup) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        text = constant_text(error, group)
        if text is None:
            raise
        context, parameter = error.ctx, getattr(error, "param", None)
        if parameter is None:
            raise UsageError(text, context) from None
        raise typer.BadParameter(text, context, parameter) from None


def _options_of(command: Any) -> set[str]:
    found = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    return found.union(*(_options_of(inner) for inner in getattr(command, "commands", {}).values()))


def constant_text(error: Any, group: TyperGroup) -> str | None:
    """Return the message for a usage error, or ``None`` where its own contains names of parameters alone."""
    if isinstance(error, InvalidValue) or not error.message or type(error).__name__ == "NoArgsIsHelpError":
        return None
    if isinstance(error, typer.BadParameter):
        expected = getattr(error.param, "help", None)
        return f"expected: {expected}" if expected else "the value has another form than expected; see --help"
    option = getattr(error, "option_name", None)
    if error.ctx is None:
        # An option that exists, with a value that it does not take, or without the value that it takes.
        return None if option in {"--help", *_options_of(group)} else "the arguments are not as expected; see --help"
    parameters = error.ctx.command.get_params(error.ctx)
    if option is not None:
        options = sorted(name for parameter in parameters for name in parameter.opts if name.startswith("--"))
        return f"there is no such option; the options are {', '.join(options)}"
    commands: Sequence[str] = [*getattr(error.ctx.command, "commands", ())]
    if commands:
        return f"there is no such command; the commands are {', '.join(commands)}"
    names = [
        parameter.metavar or parameter.name.upper()
        for parameter in parameters
        if parameter.param_type_name == "argument"
    ]
    taken = f"the arguments are {' '.join(names)}" if names else "there are options alone"
    return f"unexpected argument: {taken}; a secret is read from standard input"
