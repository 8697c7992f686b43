"""Line editing for the chat screen: history, completion, and texts of several lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.console.chat_view import CONTINUATION, PROMPT
from edgellm.console.terminal import is_terminal

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import Output

MENU_LINES = 5


class Editor:
    """Asks for one text after another.

    Args:
        commands: the argument and the effect of each command, by its name; they are completed.
        files: the commands whose argument is a file.
        source: stands in for the keyboard.
        target: stands in for the screen.
    """

    def __init__(
        self,
        commands: Mapping[str, tuple[str, str]],
        *,
        files: frozenset[str] = frozenset(),
        source: Input | None = None,
        target: Output | None = None,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.output import create_output

        # Where standard output is data for somebody else, the line that is being typed belongs on
        # standard error.
        screen = target or (None if is_terminal(sys.stdout) else create_output(stdout=sys.stderr))
        self.was_empty = False
        """Whether nothing had been typed when Ctrl-C was pressed."""

        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=_history(),
            completer=slash_completer(commands, files),
            complete_while_typing=Condition(
                lambda: self._session.default_buffer.text.startswith("/")
            ),
            reserve_space_for_menu=MENU_LINES,
            enable_open_in_editor=True,
            key_bindings=self._keys(),
            input=source,
            output=screen,
        )

    def ask(self) -> str:
        """Return the next text. Raises EOFError on Ctrl-D, KeyboardInterrupt on Ctrl-C."""
        return self._session.prompt()

    def _keys(self) -> KeyBindings:
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()

        @keys.add("enter")
        def send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.char_before_cursor == "\\" and buffer.document.is_cursor_at_the_end:
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        def give_up(event: KeyPressEvent) -> None:
            self.was_empty = not event.current_buffer.text
            event.app.exit(exception=KeyboardInterrupt)

        return keys


def state_folder() -> Path:
    """The user's folder for what a program remembers, with our name; it may not exist yet."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgellm"
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "edgellm"


def _history() -> History:
    """What was typed in earlier chats; of this one alone where nothing can be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / "history"
        file.touch(mode=0o600)
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return FileHistory(str(file))


def slash_completer(commands: Mapping[str, tuple[str, str]], files: frozenset[str]) -> Completer:
    """Completes the names of commands, and paths after those that take a file."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    paths = PathCompleter(expanduser=True)

    class SlashCompleter(Completer):
        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterator[Completion]:
            text = document.text_before_cursor
            if not text.startswith("/"):
                return
            word, blank, argument = text[1:].partition(" ")
            if not blank:
                for name, (wants, does) in commands.items():
                    if name.startswith(word):
                        yield Completion(
                            f"{name} " if wants else name,
                            -len(word),
                            display=f"/{name}",
                            display_meta=does,
                        )
            elif word in files:
                yield from paths.get_completions(Document(argument), complete_event)

    return SlashCompleter()
