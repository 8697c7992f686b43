"""A group in which a word that names no command is a model, for the command without a name."""

from __future__ import annotations

from typing import Any

from edgellm.cli.command import write_parameters
from edgellm.cli.command_group import HELP_OPTIONS, CommandGroup

DEFAULT = "run"
"""The hidden command that gets the words that name no other."""


class ModelGroup(CommandGroup):
    """``bench disk`` is the command ``disk``; ``bench stories`` measures the model ``stories``."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Put the default command before words that begin with no other command."""
        names_command = bool(args) and (args[0] in self.table or args[0] in HELP_OPTIONS)
        completes = not args and ctx.resilient_parsing
        if not names_command and not completes:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write how to give models, and how commands."""
        formatter.write_usage(ctx.command_path, "[MODEL ...] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS ...]", prefix="       ")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the default command's options, then the other commands."""
        write_parameters(self.get_command(ctx, DEFAULT).get_params(ctx), ctx, formatter)
        self.format_commands(ctx, formatter)
