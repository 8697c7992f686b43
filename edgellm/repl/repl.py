"""The chat screen: texts in, answers out, and commands that begin with a slash."""

from __future__ import annotations

import json
import signal
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgellm.chat import Chat
from edgellm.console import chat_view as screen
from edgellm.console.answer_view import Answer
from edgellm.console.status_line import Activity
from edgellm.console.terminal import is_terminal
from edgellm.diagnostics.facts import answer_facts
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.generation.stats import Stats
from edgellm.repl.line_editor import Editor

NO_SYSTEM = "off"


class Session:
    """A conversation on a screen or in a script.

    Args:
        chat: the conversation.
        view: where an answer is shown.
    """

    def __init__(self, chat: Chat, view: Callable[[Activity], Answer]) -> None:
        self.chat = chat
        self.left = False
        self.stats: Stats | None = None
        self._view = view
        self._activity: Activity | None = None

    def take(self, text: str) -> None:
        """Answer a text, or do what its command says. Raises EdgeLLMError."""
        if not text.strip():
            return
        if text.startswith("/") and "\n" not in text:
            word, _, argument = text[1:].partition(" ")
            command_named(word).run(self, argument.strip())
        else:
            self._answer(text)

    def interrupt(self, *_: object) -> None:
        """Stop the answer after the token that is being computed; asked again, at once, by KeyboardInterrupt."""
        if self._activity is None or self._activity.stopping:
            raise KeyboardInterrupt
        self._activity.stopping = True
        self.chat.llm.cancel()

    def _answer(self, text: str) -> None:
        llm = self.chat.llm
        activity = Activity(lambda: llm.bytes_read)
        tokens = self.chat.stream(text, on_prefill=activity.prefill)
        reason = None
        self._activity = activity
        try:
            with self._view(activity) as view:
                for token in tokens:
                    activity.token()
                    view.add(token.text)
                    reason, self.stats = token.finish_reason, token.stats or self.stats
        finally:
            self._activity = None
        full = (
            self.stats is not None
            and self.stats.prompt_tokens + self.stats.completion_tokens >= llm.context
        )
        screen.say_end(reason, full=full, max_tokens=self.chat.sampling.max_tokens)


def talk(session: Session, editor: Editor | None = None) -> None:
    """Ask for texts on the terminal, and take them, until the person leaves."""
    editor = editor or Editor(described_commands(), files=FILE_COMMANDS)
    while not session.left:
        try:
            text = editor.ask()
        except KeyboardInterrupt:
            if editor.was_empty:
                screen.say_how_to_leave()
            continue
        except EOFError:
            return
        try:
            with _answering(session.interrupt):
                session.take(text)
                screen.gap()
        except KeyboardInterrupt:
            screen.say_stopped()
        except EdgeLLMError as error:
            screen.show_chat_error(error)


def talk_in_lines(session: Session, lines: Iterable[str]) -> None:
    """Take each line as a turn.

    Raises:
        EdgeLLMError: the first failure ends it, since what follows was meant for a conversation
            that went on.
    """
    for line in lines:
        session.take(line.rstrip("\r\n"))
        if session.left:
            return


@contextmanager
def _answering(handler: Callable[..., None]) -> Iterator[None]:
    """Let Ctrl-C call ``handler``, and keep what is typed meanwhile off the screen, for the next text."""
    before = signal.signal(signal.SIGINT, handler)
    keyboard = _without_echo()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if keyboard is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, keyboard)


def _without_echo() -> list[Any] | None:
    """Stop the terminal from showing what is typed; returns what it was set to, or None where there is none."""
    if not is_terminal(sys.stdin):
        return None
    before = termios.tcgetattr(sys.stdin)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    return before


@dataclass(frozen=True, slots=True)
class Command:
    """What can be said after a slash."""

    argument: str
    does: str
    run: Callable[[Session, str], None]


def command_named(word: str) -> Command:
    """The command of this name. Raises ConfigError, with the closest one that there is."""
    if word in COMMANDS:
        return COMMANDS[word]
    close = get_close_matches(word, COMMANDS, n=1)
    hint = (
        f"did you mean /{close[0]}?"
        if close
        else "/help lists the commands; with a blank before it the line is sent as text"
    )
    raise ConfigError(f"there is no command /{word}", hint=hint)


def described_commands() -> dict[str, tuple[str, str]]:
    """The argument and the effect of each command."""
    return {name: (command.argument, command.does) for name, command in COMMANDS.items()}


def _help(session: Session, argument: str) -> None:
    screen.show_commands(described_commands())


def _clear(session: Session, argument: str) -> None:
    session.chat.clear()
    screen.say("a new conversation")


def _system(session: Session, argument: str) -> None:
    if argument:
        session.chat.set_system(None if argument == NO_SYSTEM else argument)
    texts = [message["content"] for message in session.chat.messages if message["role"] == "system"]
    screen.show_system(texts[0] if texts else None)


def _save(session: Session, argument: str) -> None:
    path = _file(argument)
    if path.exists() and not _is_conversation(path):
        raise ConfigError(f"{path} exists and is no saved conversation", hint="name another file")
    try:
        session.chat.save(path)
    except OSError as error:
        raise EdgeLLMError(f"{path} cannot be written: {error.strerror}") from error
    screen.say(f"saved to {path}")


def _load(session: Session, argument: str) -> None:
    session.chat.load(_file(argument))
    screen.show_conversation(session.chat.messages)


def _stats(session: Session, argument: str) -> None:
    llm = session.chat.llm
    used = session.stats.prompt_tokens + session.stats.completion_tokens if session.stats else 0
    facts = answer_facts(session.stats, llm.plan) if session.stats else None
    screen.show_cost(facts, used=used, context=llm.context)


def _exit(session: Session, argument: str) -> None:
    session.left = True


def _file(argument: str) -> Path:
    if not argument:
        raise ConfigError("which file?", hint="/save FILE, /load FILE")
    return Path(argument).expanduser()


def _is_conversation(path: Path) -> bool:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "edgellm_chat" in document


COMMANDS = {
    "help": Command("", "lists commands and keys", _help),
    "clear": Command("", "begins a new conversation", _clear),
    "system": Command(
        "TEXT", f"sets the system message; without TEXT shows it, `{NO_SYSTEM}` removes it", _system
    ),
    "save": Command("FILE", "writes the conversation to a file", _save),
    "load": Command("FILE", "goes on with a conversation that was saved", _load),
    "stats": Command("", "says what the last answer has cost", _stats),
    "exit": Command("", "leaves, as Ctrl-D does", _exit),
}
FILE_COMMANDS = frozenset({"save", "load"})
