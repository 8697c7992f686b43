"""The words of the chat screen. They go to standard error; only completions are data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgellm.chat.overflow import larger_contexts
from edgellm.console.error_view import show_error
from edgellm.console.rows import Row, show_rows
from edgellm.console.tables.cost_table import cost_rows
from edgellm.console.terminal import err, note, say
from edgellm.console.units import plural, seconds, size
from edgellm.errors import EdgeLLMError

if TYPE_CHECKING:
    from pathlib import Path

    from edgellm.chat import Chat
    from edgellm.llm import LLM

PROMPT = "> "
CONTINUATION = "  "

SUGGESTED_MODEL = "mlx-community/Llama-3.2-1B-Instruct-4bit"
"""Small enough for a first try: 0.7 GB."""

EXCERPT_LENGTH = 200
"""Characters of the last message that are shown where a conversation goes on."""


NO_ANSWER = "(no answer came after the thinking)"


def show_bundled_note() -> None:
    """Say in one line what the bundled model is, and how to get a real one."""
    note(
        "This is the bundled story model, a toy; for a real one: "
        f"edgellm chat {SUGGESTED_MODEL} (downloads 0.7 GB)"
    )


def show_greeting(llm: LLM, name: str) -> None:
    """Say what is loaded, and how to find one's way."""
    plan = llm.plan
    weights = f"{size(plan.model_bytes)} in memory"
    if not plan.resident:
        layers = plural(len(plan.pinned) + len(plan.streamed), "layer")
        streamed = f"{size(plan.streamed_bytes)} read for each token"
        weights = f"{len(plan.pinned)} of {layers} pinned, {streamed}"
    context = f"{plural(llm.context, 'token')} of context"
    if plan.kv_bits_chosen:
        context += f" in {plan.kv_bits} bits, which pin more layers (--kv-bits 16 for as usual)"
    note(f"{name}: {weights}, {context}")
    note("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves")
    leave_line_free()


def leave_line_free() -> None:
    """Write an empty line."""
    err().print()


def show_message(text: str) -> None:
    """Show a message that was not typed here, as one that was."""
    say(PROMPT + text)


def show_commands(commands: Mapping[str, tuple[str, str]]) -> None:
    """List the commands, each with its argument and its effect, and the keys."""
    rows = [
        (f"/{name} {argument}".rstrip(), effect) for name, (argument, effect) in commands.items()
    ]
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
    """Say what the last completion has cost, if there is one, and how full the context is."""
    rows: list[Row] = []
    if facts:
        rows += cost_rows(facts)
    rows.append(("context", f"{used:,} of {plural(context, 'token')}"))
    show_rows(rows, console=err())


def show_system(text: str | None) -> None:
    """Say which system message there is."""
    if text:
        note(f"system message: {text}")
    else:
        note("there is no system message; /system TEXT sets one")


def thought(duration: float, tokens: int) -> str:
    """Return the line that stands for thinking that has ended."""
    return f"thought for {seconds(duration)}, {plural(tokens, 'token')}"


def show_thinking(messages: Sequence[Mapping[str, str]]) -> None:
    """Show what the model has thought before its last answer, if it has."""
    replies = [message for message in messages if message["role"] == "assistant"]
    if replies and "reasoning_content" in replies[-1]:
        note(replies[-1]["reasoning_content"])
    else:
        note("there is no thinking before the last answer")


def show_conversation(messages: Sequence[Mapping[str, str]]) -> None:
    """Show a conversation that was loaded, so that one knows where it stands."""
    marks = {"user": PROMPT}
    for message in messages:
        note(marks.get(message["role"], "") + (message["content"] or NO_ANSWER))
    note(f"loaded {plural(len(messages), 'message')}")


def show_not_continued(error: EdgeLLMError, kept: Path) -> None:
    """Say why the last conversation does not go on, and where it lies."""
    note(f"cannot continue the last conversation: {error.message}")
    note(f"it is kept as {kept}")


def show_continued(messages: Sequence[Mapping[str, str]]) -> None:
    """Say how far the conversation is that goes on, and how it ended, or that there is none."""
    if not messages:
        note("this is a new conversation; --continue resumes it next time")
    else:
        note(f"going on after {plural(len(messages), 'message')}; /clear begins a new conversation")
        note(_excerpt(messages[-1]["content"] or NO_ANSWER))
    leave_line_free()


def _excerpt(text: str) -> str:
    """Return the end of a text in one line."""
    line = " ".join(text.split())
    if len(line) <= EXCERPT_LENGTH:
        return line
    return f"... {line[-EXCERPT_LENGTH:]}"


def show_chat_error(error: EdgeLLMError) -> None:
    """Show an error after which the conversation goes on."""
    show_error(error)
    leave_line_free()


def show_dropped(messages: Sequence[Mapping[str, Any]], context: int) -> None:
    """Say that the oldest messages have left a full context, and how they would stay."""
    count = f"{len(messages)} oldest messages have"
    if len(messages) == 1:
        count = "oldest message has"
    note(
        f"the context of {plural(context, 'token')} is full: the {count} left the conversation; "
        "--overflow error keeps them and stops instead"
    )


def show_full_context(chat: Chat) -> None:
    """Say that an answer was cut off at the end of the context, and what gives more room."""
    ways = ["/clear begins a new conversation", *larger_contexts(chat.llm)]
    if chat.overflow == "drop_oldest":
        ways[0] = "the oldest messages leave with the next one"
    context = plural(chat.llm.context, "token")
    note(f"cut off: the context of {context} is full; {'; '.join(ways)}")


def show_cut_off(max_tokens: int) -> None:
    """Say that an answer has reached its limit."""
    note(f"cut off at --max-tokens {max_tokens}")


def show_no_answer() -> None:
    """Say that a completion has ended with nothing but thinking."""
    note(NO_ANSWER)


def show_stopped() -> None:
    """Say that a completion was broken off."""
    note("stopped")


def show_how_to_leave() -> None:
    """Say how to leave, since Ctrl-C does not."""
    note("Ctrl-D or /exit leaves")
