"""SIGINT, SIGTERM and SIGHUP end the process in good order, with 128 + the signal's number.

Until a command begins there is nothing to clean up, and the process ends at once. From then on a
signal is an exception in the main thread, so that each ``finally`` runs: KeyboardInterrupt for
SIGINT, else SystemExit with the exit code. Little is imported here: what comes before the signals
are armed is left to Python, which answers with a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader

TYPE_CHECKING = False  # typing's own is slow to import

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from edgellm.cli.signals.terminal_state import TerminalState

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3
"""The signal for which no clean-up is finished; a second one often is the first pressed twice."""

PATIENCE_SECONDS = 10.0
"""Time that a clean-up may take: an exception can leave a lock held that somebody waits for."""

LOST_SECONDS = 0.02
"""Time after which an exception is raised again that came where none can get out."""

LOADERS = frozenset(
    method.__code__
    for method in (ExtensionFileLoader.create_module, ExtensionFileLoader.exec_module)
)
"""What runs while a module of native code is imported."""


class StopSignals:
    """Handlers of the signals, and the one that has come.

    Attributes:
        received: the first signal that has come while a command ran; 0 before.
    """

    def __init__(self) -> None:
        self.received: int = 0
        self._armed = False
        self._count = 0
        self._lost = False
        self._unhurried = False
        # while a command runs
        self._terminal: TerminalState | None = None

    def arm(self) -> None:
        """Take the signals over, but for those that are ignored, as nohup does with SIGHUP."""
        self._armed = True
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def command_begins(self) -> None:
        """From here on there may be something to clean up; without ``arm`` nothing changes."""
        if self._armed:
            from edgellm.cli.signals.signal_watch import SignalWatch
            from edgellm.cli.signals.terminal_state import TerminalState

            terminal = TerminalState()
            terminal.give_back_when_stopped()
            SignalWatch(STOP_SIGNALS)
            sys.unraisablehook = self._note_unraisable
            self._terminal = terminal

    def command_ended(self) -> None:
        """From here on a signal ends the process at once; the terminal is as it was."""
        if self.received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        terminal, self._terminal = self._terminal, None
        if terminal is not None and (self.received or terminal.changed):
            terminal.restore()

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Give the ``with`` block all the time it takes, after a signal too; a third ends it."""
        if self.received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._unhurried = True
        try:
            yield
        finally:
            self._unhurried = False
            if self.received:
                signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._terminal is None or self._count >= PATIENCE:
            self._exit(number)
        elif self._count == 1:
            self.received = number
            signal.signal(signal.SIGALRM, self._wake)
            if not self._unhurried:
                signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
            self._terminal.drop_lost_streams()
            self._raise(frame)

    def _exit(self, number: int) -> None:
        """End the process without a word of Python's."""
        if self._terminal is not None:
            self._terminal.restore()
        if number == signal.SIGINT:
            with suppress(OSError):  # nobody is there to read it
                os.write(2, b"interrupted\n")
        os._exit(128 + number)

    def _wake(self, _: int, frame: FrameType | None) -> None:
        """Raise again what was lost, or end what takes too long."""
        if not self._lost:
            self._exit(self.received)
        self._lost = False
        if not self._unhurried:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
        self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        if _begins_extension(frame):
            self._raise_later()
            return
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.received)

    def _note_unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise again what was raised in a finalizer, for instance, which lets nothing out."""
        if self.received and issubclass(lost.exc_type, KeyboardInterrupt | SystemExit):
            self._raise_later()
        elif not self.received:  # after it, finalizers find half of what they were to close
            sys.__unraisablehook__(lost)

    def _raise_later(self) -> None:
        self._lost = True
        signal.setitimer(signal.ITIMER_REAL, LOST_SECONDS)


def _begins_extension(frame: FrameType | None) -> bool:
    """Whether a module of native code is being imported, which may swallow what is raised in it.

    MLX does: the import fails as if it had no backend, or goes on as if nothing had been raised.
    """
    while frame is not None:
        if frame.f_code in LOADERS:
            return True
        frame = frame.f_back
    return False


STOP = StopSignals()
"""Those of this process; only its entry arms them."""
