"""The group of all commands: late imports, and wrong usage in our words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

from edgellm.errors import ConfigError

# Of the errors that typer makes of wrong usage it exports one, in versions with and without click;
# they share this base.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class Commands(TyperGroup):
    """The group of all commands; one that lives elsewhere is imported when it is called, not when it is listed."""

    elsewhere: ClassVar[Mapping[str, tuple[str, str]]] = {
        "bench": ("edgellm.bench.app:app", "Measure this machine, and models on it."),
    }
    """By name: where a command's typer app is (``module:attribute``), and what help says of it."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order in which help shows them."""
        return [*super().list_commands(ctx), *self.elsewhere]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; of one that lives elsewhere, what help shows."""
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        stand_in = typer.Typer(add_completion=False)
        stand_in.command(cmd_name, help=self.elsewhere[cmd_name][1])(_nothing)
        return get_command(stand_in)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, imported, and the arguments that are left. Raises ConfigError."""
        name = args[0]
        if name in self.elsewhere:
            return name, self.imported(name), args[1:]
        known = self.list_commands(ctx)
        if name not in known and not ctx.resilient_parsing:
            raise ConfigError(
                f"there is no command {name!r}", hint=did_you_mean(name, known, "edgellm --help")
            )
        return super().resolve_command(ctx, args)

    def imported(self, name: str) -> Any:
        """A command that lives elsewhere."""
        module, _, attribute = self.elsewhere[name][0].partition(":")
        return get_command(getattr(import_module(module), attribute))


def renamed_usage_error(error: Any) -> ConfigError:
    """What typer says of wrong usage, in our words."""
    context = error.ctx
    help_command = f"{context.command_path if context else 'edgellm'} --help"
    option = getattr(error, "option_name", "").partition("=")[0]
    known = (
        [name for parameter in context.command.params for name in parameter.opts] if context else []
    )
    if option and option not in known:
        return ConfigError(
            f"there is no option {option}", hint=did_you_mean(option, known, help_command)
        )
    # a group without a command gives its help
    if context and error.format_message().startswith(context.get_usage()):
        return ConfigError(
            f"{context.command_path} needs to know what to do", hint=f"see {help_command}"
        )
    message = " ".join(error.format_message().split()).rstrip(".")
    return ConfigError(message[:1].lower() + message[1:], hint=f"see {help_command}")


def did_you_mean(name: str, known: Sequence[str], help_command: str) -> str:
    """The next step after a name that does not exist."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"see {help_command}"


def _nothing() -> None:
    """The body of a command that is only shown."""
