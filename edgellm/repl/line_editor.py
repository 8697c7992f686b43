"""Line editing for the chat screen: history, completion, and texts of several lines."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.console.streams import HUNG_UP, is_terminal
from edgellm.errors import EdgeLLMError
from edgellm.files.bounded import require_regular_file
from edgellm.files.locations import make_private_folder
from edgellm.repl.chat_view import CONTINUATION, PROMPT

if TYPE_CHECKING:
    import asyncio

    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import Output

MAX_HISTORY_BYTES = 64 << 20
"""Bytes of what was typed in earlier chats; the file is read whole."""

YES = ("y", "yes")

MENU_LINES = 5
"""Lines below the text that are kept free for completions."""


class Editor:
    """An editor that asks for one text after another.

    Args:
        commands: the argument and the effect of each command, by its name; they are completed.
        file_commands: the commands whose argument is a file.
        source: stands in for the keyboard.
        target: stands in for the screen.

    Attributes:
        was_empty: whether nothing had been typed when Ctrl-C was pressed.
    """

    def __init__(
        self,
        commands: Mapping[str, tuple[str, str]],
        *,
        file_commands: frozenset[str] = frozenset(),
        source: Input | None = None,
        target: Output | None = None,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.output import create_output

        if target is None and not is_terminal(sys.stdout):
            # Standard output is data for somebody else: what is typed belongs on standard error.
            target = create_output(stdout=sys.stderr)
        self.was_empty = False
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=_history(),
            completer=slash_completer(commands, file_commands),
            complete_while_typing=Condition(
                lambda: self._session.default_buffer.text.startswith("/")
            ),
            reserve_space_for_menu=MENU_LINES,
            enable_open_in_editor=True,
            enable_suspend=True,
            key_bindings=self._key_bindings(),
            input=source,
            output=target,
        )

    def ask(self) -> str:
        """Return the next text.

        Raises:
            EOFError: Ctrl-D.
            KeyboardInterrupt: Ctrl-C.
            SystemExit: the terminal has hung up.
        """
        import asyncio

        handler = signal.getsignal(signal.SIGTSTP)
        try:
            return asyncio.run(self._prompt())
        except OSError as error:
            # the library writes to the terminal itself
            if error.errno == errno.EIO:
                raise SystemExit(HUNG_UP) from error
            raise
        finally:
            signal.signal(signal.SIGTSTP, handler)

    def agrees(self, question: str) -> bool:
        """Ask a question; return whether the answer is yes. Ctrl-C and Ctrl-D mean no."""
        from prompt_toolkit import PromptSession

        asking: PromptSession[str] = PromptSession(
            input=self._session.input, output=self._session.output
        )
        try:
            with _signals_told_to_asyncio():
                return asking.prompt(f"{question} [y/N] ").strip().lower() in YES
        except (EOFError, KeyboardInterrupt):
            return False

    def type_ahead(self, keys: str) -> None:
        """Take keys that were pressed already, for the next text."""
        from prompt_toolkit.input.typeahead import store_typeahead
        from prompt_toolkit.input.vt100_parser import Vt100Parser
        from prompt_toolkit.key_binding import KeyPress

        pressed: list[KeyPress] = []
        parser = Vt100Parser(pressed.append)
        parser.feed(keys)
        parser.flush()
        store_typeahead(self._session.input, pressed)

    async def _prompt(self) -> str:
        with _signals_told_to_asyncio():
            return await self._session.prompt_async(pre_run=self._take_over_loop)

    def _take_over_loop(self) -> None:
        """Let what a signal raises end the library's loop without a word of the loop's."""
        import asyncio

        loop = asyncio.get_running_loop()
        usual = loop.get_exception_handler()

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            ended = isinstance(context.get("exception"), SystemExit | KeyboardInterrupt)
            if usual is not None and not ended:
                usual(loop, context)

        loop.set_exception_handler(handle)
        self._watch_for_stop(loop)

    def _watch_for_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave the screen before SIGTSTP stops the process, and redraw it after SIGCONT."""
        from prompt_toolkit.application import run_in_terminal

        handler = signal.getsignal(signal.SIGTSTP)
        if not callable(handler):
            return  # Python's own would not let us come back

        def stop() -> None:
            handler(signal.SIGTSTP, None)
            watch()

        def watch() -> None:
            loop.add_signal_handler(signal.SIGTSTP, run_in_terminal, stop)

        watch()

    def _key_bindings(self) -> KeyBindings:
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

        # Terminals send Alt-Enter as these two.
        @keys.add("escape", "enter")
        def begin_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        def give_up(event: KeyPressEvent) -> None:
            self.was_empty = not event.current_buffer.text
            event.app.exit(exception=KeyboardInterrupt)

        return keys


def state_folder() -> Path:
    """Return the user's folder for what this program remembers; it may not exist yet."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgellm"
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgellm"


def _history() -> History:
    """Return what was typed in earlier chats; where nothing can be written, an empty history."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class KeptHistory(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError):  # a disk that is full by now
                super().store_string(string)

    try:
        folder = state_folder()
        make_private_folder(folder)
        file = folder / "history"
        file.touch(mode=0o600)
        if require_regular_file(file) > MAX_HISTORY_BYTES:
            return InMemoryHistory()
    except (OSError, RuntimeError, EdgeLLMError):  # RuntimeError: there is no home
        return InMemoryHistory()
    return KeptHistory(str(file))


@contextmanager
def _signals_told_to_asyncio() -> Iterator[None]:
    """Let a loop hear of signals in the ``with`` block, and then again who heard of them before.

    asyncio closes what was written to at a signal, and gives it back to nobody.
    """
    heard = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(heard, warn_on_full_buffer=False)


def slash_completer(
    commands: Mapping[str, tuple[str, str]], file_commands: frozenset[str]
) -> Completer:
    """Return what completes the names of commands, and paths after those that take a file."""
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
                yield from self.names(word)
            elif word in file_commands:
                yield from paths.get_completions(Document(argument), complete_event)

        def names(self, word: str) -> Iterator[Completion]:
            for name, (argument, effect) in commands.items():
                if name.startswith(word):
                    text = f"{name} " if argument else name
                    yield Completion(text, -len(word), display=f"/{name}", display_meta=effect)

    return SlashCompleter()
