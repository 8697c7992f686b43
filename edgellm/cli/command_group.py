"""A group of commands from a table; a command's module is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

from edgellm.cli.command import WIDEST, EdgellmCommand, leave_values, without_help
from edgellm.cli.parsing.plain_values import convert_plain_values
from edgellm.cli.parsing.usage_errors import did_you_mean
from edgellm.cli.signals.stop_signals import STOP
from edgellm.errors import ConfigError

HELP_OPTIONS = ("--help", "-h")

PLAIN: Mapping[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
"""Settings of every typer app but the topmost, which has options for shells."""

# \b keeps the lines of a paragraph of help as they are.
EXAMPLE = "\b\nExample:\n  "


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A row of the table.

    Attributes:
        summary: the command's line in the help of its group.
        example: a command line that ends the command's own help.
        target: ``module:attribute`` of the command's function, or of the typer app of a group;
            default: the function of the command's name in the module of that name.
        hidden: leave the command out of the help of its group.
    """

    summary: str = ""
    example: str = ""
    target: str = ""
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class CompletedName:
    """A command's name as a shell completes it."""

    value: str
    type: str = "plain"
    help: None = None


class CommandGroup(TyperGroup):
    """A group whose help needs no import.

    Attributes:
        package: where the modules of commands are.
        table: the commands by their names; subclasses have one.
    """

    package: ClassVar[str] = ""
    table: ClassVar[Mapping[str, CommandEntry]] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the group's own words."""
        if ctx.resilient_parsing:
            leave_values(self.get_params(ctx))
        else:
            convert_plain_values(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order in which help shows them."""
        return [name for name, entry in self.table.items() if not entry.hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return a command. Raises ConfigError for a name that the table lacks."""
        entry = self.table.get(cmd_name)
        if entry is None:
            if ctx.resilient_parsing:  # completion: half a word is not an error
                return None
            hint = did_you_mean(cmd_name, self.list_commands(ctx), f"{ctx.command_path} --help")
            raise ConfigError(f"there is no command {cmd_name!r}", hint=hint)
        path = entry.target or f"{self.package}.{cmd_name}:{cmd_name}"
        module, _, attribute = path.partition(":")
        target = getattr(import_module(module), attribute)
        if isinstance(target, typer.Typer):
            return get_command(target)
        STOP.command_begins()
        app = typer.Typer(**PLAIN)
        epilog = None
        if entry.example:
            epilog = EXAMPLE + entry.example
        app.command(
            cmd_name,
            cls=EdgellmCommand,
            epilog=epilog,
            hidden=entry.hidden,
            context_settings={"max_content_width": WIDEST, "help_option_names": HELP_OPTIONS},
        )(target)
        return get_command(app)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return names that begin with what was typed; typer's own way would import every command.

        Options are completed where one was begun.
        """
        if incomplete.startswith("-"):
            return without_help(super().shell_complete(ctx, incomplete))
        names = self.list_commands(ctx)
        return [CompletedName(name) for name in names if name.startswith(incomplete)]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands' lines from the table; typer's own way would import every command."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.table[name].summary) for name in self.list_commands(ctx)]
            )


def group_app(group: type[CommandGroup], help_text: str, *, example: str) -> typer.Typer:
    """Return the typer app of a group of commands.

    Args:
        group: has their table.
        help_text: begins the group's help.
        example: a command line that ends it.
    """
    return typer.Typer(
        **PLAIN,
        cls=group,
        callback=_nothing,
        help=help_text,
        epilog=EXAMPLE + example,
        context_settings={"help_option_names": HELP_OPTIONS},
    )


def _nothing() -> None:
    """Do what a group by itself does; typer takes an app for a group if it has a function."""
