"""The chat screen: texts in, completions out, and commands that begin with a slash."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.chat import Chat, read_saved_chat
from edgellm.console.completion_view import CompletionView, show_speed
from edgellm.console.status_line import Activity
from edgellm.console.terminal import note
from edgellm.diagnostics.facts import generation_facts
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.files.given_path import given_path
from edgellm.generation.stats import Stats
from edgellm.repl import chat_view
from edgellm.repl.line_editor import Editor
from edgellm.repl.typed_ahead import TypedAhead, typed_ahead

if TYPE_CHECKING:
    from edgellm.generation.output import Token

NO_SYSTEM = "off"


class Session:
    """A conversation on a screen or in a script.

    Args:
        chat: the conversation.
        make_view: makes the view of each completion.

    Attributes:
        finished: whether the person has asked to leave.
        stopped: whether the last completion was stopped or has failed.
        stats: what the last completion has cost.
        typed: what is typed while a completion comes, where that can be read.
        agrees: asks the person a question; returns whether the answer is yes.
    """

    def __init__(self, chat: Chat, make_view: Callable[[Activity], CompletionView]) -> None:
        self.chat = chat
        self.finished = False
        self.stopped = False
        self.stats: Stats | None = None
        self.typed: TypedAhead | None = None
        self.agrees: Callable[[str], bool] = _nobody_agrees
        self._make_view = make_view
        self._activity: Activity | None = None

    def take(self, text: str) -> None:
        """Answer a text, or run the command that it is. Raises EdgeLLMError."""
        if not text.strip():
            return
        if text.startswith("/") and "\n" not in text:
            word, _, argument = text[1:].partition(" ")
            command_named(word).run(self, argument.strip())
        else:
            self._answer(text)

    def interrupt(self, *_: object) -> None:
        """Stop after the token that is being computed; a second time, raise KeyboardInterrupt."""
        if self._activity is None or self._activity.stopping:
            raise KeyboardInterrupt
        self._activity.stopping = True
        self.chat.llm.cancel()

    @property
    def tokens_used(self) -> int:
        """Tokens of the context that the conversation takes."""
        if self.stats is None:
            return 0
        return self.stats.prompt_tokens + self.stats.completion_tokens

    def _answer(self, text: str) -> None:
        llm = self.chat.llm
        activity = Activity(lambda: llm.bytes_read)
        if self.typed is not None:
            activity.typed = self.typed.shown
        # checks the prompt: an error comes before anything is shown
        stream = self.chat.stream(text, on_prefill=activity.prefill)
        if self.chat.dropped:
            chat_view.show_dropped(self.chat.dropped, llm.context)
        finish_reason = None
        self._activity = activity
        try:
            with stream, self._make_view(activity) as view:
                for token in _thinking_folded(stream, activity, view):
                    activity.token()
                    view.add(token.text)
                    finish_reason = token.finish_reason
                    self.stats = token.stats or self.stats
        finally:
            self._activity = None
        replies = self.chat.messages[-1:]
        if finish_reason == "stop" and replies and not replies[0]["content"]:
            chat_view.show_no_answer()
        if finish_reason == "cancelled":
            self.stopped = True
            chat_view.show_stopped()
        elif finish_reason == "length" and self.stats:
            limit = self.chat.sampling.max_tokens
            if limit is not None and self.stats.completion_tokens >= limit:
                chat_view.show_cut_off(limit)
            else:
                chat_view.show_full_context(self.chat)


def _thinking_folded(
    tokens: Iterable[Token], activity: Activity, view: CompletionView
) -> Iterator[Token]:
    """Yield the tokens; show the thinking as it comes, and one line for it when it has ended."""
    begun = 0.0
    for before, token in enumerate(tokens):
        if before == 0:
            begun = time.perf_counter()
        if token.thinking:
            activity.thinking = True
            view.think(token.thinking)
        if activity.thinking and (token.text or token.finish_reason):
            activity.thinking = False
            tokens_thought = before
            if not token.text:  # it was cut off
                tokens_thought += 1
            view.fold(chat_view.thought(time.perf_counter() - begun, tokens_thought))
        yield token


def run_terminal(session: Session, editor: Editor | None = None, *, first: str = "") -> None:
    """Ask for texts on the terminal, and take them, until the person leaves.

    Args:
        session: the conversation.
        editor: asks; default: one on this terminal.
        first: a text that is taken before any is asked for.
    """
    editor = editor or Editor(described_commands(), file_commands=FILE_COMMANDS)
    session.agrees = editor.agrees
    # Ctrl-C ends what is under way, and never the program
    with _on_interrupt(lambda *_: None):
        if first:
            chat_view.show_message(first)
            _take(session, first, editor)
        while not session.finished:
            try:
                text = editor.ask()
            except KeyboardInterrupt:
                if editor.was_empty:
                    chat_view.show_how_to_leave()
                continue
            except EOFError:
                return
            _take(session, text, editor)


def _take(session: Session, text: str, editor: Editor) -> None:
    """Answer a text or run a command; Ctrl-C and failures end it, and are said.

    What is typed meanwhile is there for the next text; after Ctrl-C it is not sent by itself.
    """
    before = session.stats
    session.stopped = False
    with typed_ahead() as session.typed:
        try:
            with _on_interrupt(session.interrupt):
                session.take(text)
                if session.stats is not None and session.stats is not before:
                    show_speed(session.stats)
                chat_view.leave_line_free()
        except KeyboardInterrupt:
            session.stopped = True
            chat_view.show_stopped()
        except EdgeLLMError as error:
            session.stopped = True
            chat_view.show_chat_error(error)
        if session.typed is not None:
            editor.type_ahead(session.typed.take(unsent=session.stopped))


def run_lines(session: Session, lines: Iterable[str]) -> None:
    """Take each line as a turn.

    Raises:
        EdgeLLMError: the first failure ends it, since what follows was meant for a conversation
            that went on.
    """
    for line in lines:
        session.take(line.rstrip("\r\n"))
        if session.finished:
            return


@contextmanager
def _on_interrupt(handler: Callable[..., object]) -> Iterator[None]:
    """Let Ctrl-C call ``handler``."""
    previous_handler = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the chat screen, typed after a slash."""

    argument: str
    effect: str
    run: Callable[[Session, str], None]


def command_named(word: str) -> Command:
    """Return the command of this name. Raises ConfigError, with the closest one that there is."""
    if word in COMMANDS:
        return COMMANDS[word]
    hint = "/help lists the commands; with a blank before it the line is sent as text"
    for close in get_close_matches(word, COMMANDS, n=1):
        hint = f"did you mean /{close}?"
    raise ConfigError(f"there is no command /{word}", hint=hint)


def described_commands() -> dict[str, tuple[str, str]]:
    """Return the argument and the effect of each command."""
    return {name: (command.argument, command.effect) for name, command in COMMANDS.items()}


def _help(session: Session, argument: str) -> None:
    chat_view.show_commands(described_commands())


def _clear(session: Session, argument: str) -> None:
    session.chat.clear()
    note("a new conversation")


def _system(session: Session, argument: str) -> None:
    chat = session.chat
    if argument:
        chat.set_system(None if argument == NO_SYSTEM else argument)
    texts = [message["content"] for message in chat.messages if message["role"] == "system"]
    chat_view.show_system("\n".join(texts))


def _save(session: Session, argument: str) -> None:
    path = _file(argument)
    if os.path.lexists(path) and not _is_conversation(path):
        raise ConfigError(
            f"{path} exists and is not a saved conversation", hint="name another file"
        )
    if path.exists() and not session.agrees(f"{path} exists; replace it?"):
        note("nothing is saved")
        return
    session.chat.save(path)
    note(f"saved to {path}")


def _load(session: Session, argument: str) -> None:
    session.chat.load(_file(argument))
    chat_view.show_conversation(session.chat.messages)


def _stats(session: Session, argument: str) -> None:
    llm = session.chat.llm
    facts = None
    if session.stats:
        facts = generation_facts(session.stats, llm.plan)
    chat_view.show_cost(facts, used=session.tokens_used, context=llm.context)


def _thinking(session: Session, argument: str) -> None:
    chat_view.show_thinking(session.chat.messages)


def _exit(session: Session, argument: str) -> None:
    session.finished = True


def _nobody_agrees(question: str) -> bool:
    """Refuse, since nobody can be asked. Raises ConfigError."""
    raise ConfigError(question.partition(";")[0], hint="name another file: nobody can be asked")


def _file(argument: str) -> Path:
    if not argument:
        raise ConfigError("which file?", hint="/save FILE, /load FILE")
    return given_path(argument)


def _is_conversation(path: Path) -> bool:
    try:
        return "edgellm_chat" in read_saved_chat(path)
    except EdgeLLMError:
        return False


COMMANDS = {
    "help": Command("", "lists commands and keys", _help),
    "clear": Command("", "begins a new conversation", _clear),
    "system": Command(
        "TEXT", f"sets the system message; without TEXT shows it, `{NO_SYSTEM}` removes it", _system
    ),
    "save": Command("FILE", "writes the conversation to a file", _save),
    "load": Command("FILE", "continues a saved conversation", _load),
    "stats": Command("", "shows the speed and cost of the last answer", _stats),
    "thinking": Command("", "shows the model's thinking before its last answer", _thinking),
    "exit": Command("", "leaves, as Ctrl-D does", _exit),
}
FILE_COMMANDS = frozenset({"save", "load"})
