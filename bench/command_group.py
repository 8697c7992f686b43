"""A group of commands in which a word that names none of them is a model, for the command without a name."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "run"
"""The hidden command that gets what names no other."""


class ModelGroup(TyperGroup):
    """``bench disk ...`` is the command ``disk``; ``bench stories --threads 1`` measures the model ``stories``."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Put the default command before arguments that begin with none."""
        if (not args and not ctx.resilient_parsing) or (
            args and args[0] not in self.commands and args[0] != "--help"
        ):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order in which help shows them, without the default's."""
        return [name for name in super().list_commands(ctx) if name != DEFAULT]

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Show how to give models, and how commands."""
        formatter.write_usage(ctx.command_path, "[MODEL ...] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS ...]", prefix="       ")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Show the default command's options, then the other commands."""
        records = [
            record
            for item in self.commands[DEFAULT].get_params(ctx)
            if (record := item.get_help_record(ctx))
        ]
        with formatter.section("Options"):
            formatter.write_dl(records)
        self.format_commands(ctx, formatter)
