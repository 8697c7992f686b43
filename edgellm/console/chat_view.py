"""The words of the chat screen. They go to standard error; only answers are data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgellm.console.tables import Row, cost_rows, show_rows
from edgellm.console.terminal import err, note, show_error
from edgellm.console.units import plural, size
from edgellm.errors import ContextError, EdgeLLMError

if TYPE_CHECKING:
    from edgellm.llm import LLM

PROMPT = "> "
CONTINUATION = "  "

A_REAL_MODEL = "mlx-community/Llama-3.2-1B-Instruct-4bit"
"""Small enough for a first try: 0.7 GB."""


LAST_WORDS = 200
"""Characters of the last message that are shown where a conversation goes on."""


def say_bundled() -> None:
    """Say in one line what the bundled model is, and how to get a real one."""
    note(
        f"This is the bundled story model, a toy; for a real one: edgellm chat {A_REAL_MODEL} (downloads 0.7 GB)"
    )


def greet(llm: LLM, name: str) -> None:
    """Say what is loaded, and how to find one's way."""
    plan = llm.plan
    layers = len(plan.pinned) + len(plan.streamed)
    if plan.resident:
        where = f"{size(plan.model_bytes)} in memory"
    else:
        where = f"{len(plan.pinned)} of {plural(layers, 'layer')} pinned, {size(plan.streamed_bytes)} read for each token"
    note(f"{name}: {where}, {plural(llm.context, 'token')} of context")
    note("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves")
    gap()


def gap() -> None:
    """Leave a line free."""
    err().print()


def show_commands(commands: Mapping[str, tuple[str, str]]) -> None:
    """List the commands, each with its argument and what it does, and the keys."""
    rows = [(f"/{name} {argument}".rstrip(), does) for name, (argument, does) in commands.items()]
    keys = [
        ("Enter", "sends"),
        ("Alt-Enter, or \\ and Enter", "begins a new line; a pasted text keeps its lines"),
        ("Up, Down, Ctrl-R", "bring back what was sent before"),
        ("Ctrl-X Ctrl-E", "opens the editor"),
        ("Ctrl-C", "stops the answer"),
        ("Ctrl-D", "leaves"),
    ]
    show_rows([*rows, ("", ""), *keys], console=err())


def show_cost(facts: Mapping[str, Any] | None, *, used: int, context: int) -> None:
    """Say what the last answer has cost, and how full the context is."""
    rows: list[Row] = [("context", f"{used:,} of {plural(context, 'token')}")]
    show_rows([*(cost_rows(facts) if facts else []), *rows], console=err())


def show_system(text: str | None) -> None:
    """Say which system message there is."""
    note(f"system message: {text}" if text else "there is no system message; /system TEXT sets one")


def show_conversation(messages: Sequence[Mapping[str, str]]) -> None:
    """Show a conversation that was loaded, so that one knows where it stands."""
    for message in messages:
        note(f"{PROMPT if message['role'] == 'user' else ''}{message['content']}")
    note(f"loaded {plural(len(messages), 'message')}")


def say_continued(messages: Sequence[Mapping[str, str]]) -> None:
    """Say how far the conversation is that goes on, and how it ended."""
    if not messages:
        note("there is no conversation with this model yet; this one is kept")
    else:
        note(f"going on after {plural(len(messages), 'message')}; /clear begins a new conversation")
        note(_short(messages[-1]["content"]))
    gap()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LAST_WORDS else f"... {line[-LAST_WORDS:]}"


def show_chat_error(error: EdgeLLMError) -> None:
    """Show an error after which the conversation goes on."""
    show_error(error)
    if isinstance(error, ContextError):
        note("/clear begins a new conversation")
    gap()


def say_end(reason: str | None, *, full: bool, max_tokens: int) -> None:
    """Say why an answer ended where it did not end by itself."""
    if reason == "cancelled":
        note("stopped")
    elif reason == "length" and full:
        note("the context is full; /clear begins a new conversation")
    elif reason == "length":
        note(f"cut off after {plural(max_tokens, 'token')}; --max-tokens sets the limit")


def say_stopped() -> None:
    """Say that an answer was broken off."""
    note("stopped")


def say_how_to_leave() -> None:
    """Say it, since Ctrl-C does not."""
    note("Ctrl-D or /exit leaves")


def say(text: str) -> None:
    """Confirm what a command has done."""
    note(text)
