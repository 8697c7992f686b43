"""Keys typed while an answer comes: shown as queued, and taken for the next text."""

from __future__ import annotations

import codecs
import os
import select
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from edgellm.console.streams import is_terminal
from edgellm.errors import escape_controls

BACKSPACES = ("\x7f", "\x08")
READ_BYTES = 4096


class TypedAhead:
    """Keys that were pressed before anybody asked for them.

    Args:
        descriptor: the terminal's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # a character may arrive in two parts
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._keys = ""
        self._lock = threading.Lock()

    def shown(self) -> str:
        """Return what the status line says of it: lines that wait, and the one that is begun."""
        self._read()
        *lines, begun = _without_deleted(self._keys).split("\r")
        parts = []
        if lines := [line for line in lines if line.strip()]:
            count = "" if len(lines) == 1 else f"{len(lines)} lines, the last: "
            parts.append(f"queued: {count}{lines[-1]}")
        if begun:
            parts.append(f"> {begun}")
        return escape_controls("  ".join(parts))

    def take(self, *, unsent: bool = False) -> str:
        """Return the keys and forget them; ``unsent`` makes one text of them that was not sent."""
        self._read()
        keys, self._keys = self._keys, ""
        if unsent:
            return keys.rstrip("\r").replace("\r", "\x1b\r")
        return keys

    def _read(self) -> None:
        with self._lock, suppress(OSError):  # the terminal may have hung up
            while select.select([self._descriptor], [], [], 0)[0]:
                data = os.read(self._descriptor, READ_BYTES)
                if not data:
                    return
                self._keys += self._decoder.decode(data).replace("\n", "\r")


@contextmanager
def typed_ahead() -> Iterator[TypedAhead | None]:
    """Let keys be read one by one, without echo; gives None where there is no terminal."""
    if not is_terminal(sys.stdin):
        yield None
        return
    settings = termios.tcgetattr(sys.stdin)
    # the fourth of the settings: local modes; Ctrl-C stays a signal
    silent = [*settings[:3], settings[3] & ~(termios.ECHO | termios.ICANON), *settings[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield TypedAhead(sys.stdin.fileno())
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)


def _without_deleted(keys: str) -> str:
    """Return a text as it is after its backspaces, which stay within a line."""
    text: list[str] = []
    for key in keys:
        if key not in BACKSPACES:
            text.append(key)
        elif text and text[-1] != "\r":
            text.pop()
    return "".join(text)
