"""The command line: its entry point, and the table of its commands."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import typer
from typer import Option

from edgellm.cli.command_group import HELP_OPTIONS, CommandEntry, CommandGroup
from edgellm.cli.parsing.peer_commands import OUR_COMMANDS, explained
from edgellm.cli.parsing.usage_errors import usage_error
from edgellm.cli.typed_text import looks_like_text
from edgellm.console import error_view, terminal
from edgellm.console.streams import standard_streams
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.setting_values import shown

SPELLED_OTHERWISE: Mapping[str, str] = {
    "version": "--version",
    "-v": "--version",
    "-V": "--version",
}
"""The version as other programs are asked for it."""

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


class EdgellmGroup(CommandGroup):
    """The commands of ``edgellm``."""

    package = "edgellm.cli.commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        "chat": CommandEntry(
            "Talk to a model.", "edgellm chat mlx-community/Llama-3.2-1B-Instruct-4bit --memory 4GB"
        ),
        "generate": CommandEntry(
            "Continue a prompt, or each line of a file.",
            'edgellm generate stories --prompt "Once upon a time" --max-tokens 100',
        ),
        "serve": CommandEntry(
            "Serve models over HTTP, for OpenAI's and Anthropic's clients.",
            "edgellm serve stories --port 8080",
            target="edgellm.cli.server_commands.serve:serve",
        ),
        "launch": CommandEntry(
            "Show how a client is pointed at a running server.",
            "edgellm launch claude-code",
            target="edgellm.cli.server_commands.launch:launch",
        ),
        "cluster": CommandEntry(
            "Let several machines compute a model together.",
            target="edgellm.cli.cluster_app:app",
        ),
        "list": CommandEntry(
            "List the models on this machine.",
            "edgellm list",
            target="edgellm.cli.model_commands.list_models:list_models",
        ),
        "pull": CommandEntry(
            "Download a model.",
            "edgellm pull mlx-community/Llama-3.2-1B-Instruct-4bit",
            target="edgellm.cli.model_commands.pull:pull",
        ),
        "rm": CommandEntry(
            "Delete a downloaded model.",
            "edgellm rm mlx-community/Llama-3.2-1B-Instruct-4bit",
            target="edgellm.cli.model_commands.rm:rm",
        ),
        "convert": CommandEntry(
            "Convert a model to a folder that edgellm and mlx-lm open.",
            "edgellm convert meta-llama/Llama-3.2-1B-Instruct ./llama-1b --bits 4",
        ),
        "train": CommandEntry(
            "Learn an adapter from data, on a model of any size.",
            "edgellm train ./llama-1b data.jsonl ./adapter --epochs 3",
        ),
        "federate": CommandEntry(
            "Learn an adapter from data on several machines, which stay there.",
            target="edgellm.cli.federate_app:app",
        ),
        "adapter": CommandEntry(
            "Look at adapters; extract, merge and convert them.",
            target="edgellm.cli.adapter_app:app",
        ),
        "export": CommandEntry(
            "Write a model as a GGUF file.", "edgellm export ./llama-1b llama-1b.gguf"
        ),
        "synth": CommandEntry(
            "Create a model with random weights, to benchmark a machine.",
            "edgellm synth llama-2-7b ./llama-7b --bits 4",
        ),
        "plan": CommandEntry(
            "Show how a model would run in a memory budget.",
            "edgellm plan mlx-community/Meta-Llama-3.1-8B-Instruct-4bit --memory 4GB",
        ),
        "info": CommandEntry("Show a model's architecture and sizes.", "edgellm info stories"),
        "verify": CommandEntry(
            "Check that a model is complete and runs.", "edgellm verify ./llama-1b"
        ),
        "doctor": CommandEntry("Check this machine.", "edgellm doctor ~/models"),
        "eval": CommandEntry(
            "Ask models the same questions, and say how sure a difference is.",
            target="edgellm.bench.eval_app:app",
        ),
        "bench": CommandEntry(
            "Benchmark this machine and models on it.", target="edgellm.bench.app:app"
        ),
    }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, also by the name that another program has for it.

        Raises:
            ConfigError: there is none; a text is told from a name.
        """
        name = args[0]
        if name not in self.table and not ctx.resilient_parsing:
            if name in OUR_COMMANDS:
                args = [OUR_COMMANDS[name], *args[1:]]
                terminal.note(f"{name} is called edgellm {args[0]}")
            elif (error := explained(name)) is not None:
                raise error
            elif looks_like_text(name):
                raise ConfigError(
                    f"there is no command {shown(name)}",
                    hint="text goes after a command: edgellm generate TEXT, edgellm chat TEXT",
                )
        return super().resolve_command(ctx, args)


app: typer.Typer = typer.Typer(
    cls=EdgellmGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_OPTIONS},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's own) and return its exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
    with standard_streams(), warnings.catch_warnings():
        warnings.showwarning = error_view.show_warning
        try:
            code = _run(arguments)
        except EdgeLLMError as error:
            error_view.show_error(error)
            return error.exit_code
        except KeyboardInterrupt:
            code = INTERRUPTED
        if code == INTERRUPTED:
            error_view.show_interrupted()
        return code


def _run(arguments: Sequence[str]) -> int:
    """Return a command line's exit code; a command that returns nothing ends with 0."""
    words = list(arguments) or ["--help"]
    if words[0] == "help":  # help COMMAND
        words = [*words[1:], "--help"]
    words[0] = SPELLED_OTHERWISE.get(words[0], words[0])
    try:
        return int(app(words, prog_name="edgellm", standalone_mode=False) or 0)
    except typer.TyperException as error:
        raise usage_error(error) from error
    finally:
        sys.stdout.flush()


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        terminal.write(f"edgellm {version('edgellm')}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Run language models on your machine, including models larger than its memory."""
