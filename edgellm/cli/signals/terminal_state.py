"""The terminal is given back as the program found it: when it is stopped, and at the end."""

from __future__ import annotations

import os
import signal
import termios
from contextlib import suppress
from types import FrameType
from typing import Any

USUAL = b"\x1b[?25h\x1b[?2004l"
"""Shows the cursor, and ends bracketed paste."""


class TerminalState:
    """The terminal among the three streams, as it is now; without one nothing happens."""

    def __init__(self) -> None:
        self._streams = [number for number in range(3) if os.isatty(number)]
        self._modes = self._read_modes()

    @property
    def changed(self) -> bool:
        """Whether its modes are others than they were."""
        return self._read_modes() != self._modes

    def give_back_when_stopped(self) -> None:
        """Let SIGTSTP, which Ctrl-Z sends, stop the process only when the terminal is restored."""
        if self._modes and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._stop)

    def restore(self) -> None:
        """Make modes, cursor and paste what they were, unless others have the terminal."""
        if self._modes and self._in_foreground():
            if os.environ.get("TERM") != "dumb":
                with suppress(OSError):
                    os.write(self._streams[-1], USUAL)
            self._write_modes(self._modes)

    def drop_lost_streams(self) -> None:
        """Let writes to a terminal that has hung up go nowhere: they would fail in a clean-up."""
        lost = [number for number in self._streams if not os.isatty(number)]
        if lost:
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in lost:
                os.dup2(nothing, number)

    def _stop(self, number: int, _: FrameType | None) -> None:
        now = self._read_modes()
        self.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # SIGCONT has come
        signal.signal(number, self._stop)
        if now and self._in_foreground():
            self._write_modes(now)

    def _in_foreground(self) -> bool:
        """Whether this process may change the terminal; in the background that would stop it."""
        with suppress(OSError):
            return os.tcgetpgrp(self._streams[0]) == os.getpgrp()
        return False

    def _read_modes(self) -> list[Any] | None:
        with suppress(IndexError, termios.error):
            return termios.tcgetattr(self._streams[0])
        return None

    def _write_modes(self, modes: list[Any]) -> None:
        with suppress(termios.error):
            termios.tcsetattr(self._streams[0], termios.TCSADRAIN, modes)
