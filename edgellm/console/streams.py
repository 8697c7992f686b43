"""The process's streams: any text goes in, and one that cannot be written is said once."""

from __future__ import annotations

import codecs
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from typing import IO, Any, NoReturn, TextIO, cast

from edgellm.errors import EdgeLLMError

NOBODY_READS = 128 + signal.SIGPIPE
"""The exit code after a reader has gone away, as shells have it for ``cat`` and ``grep``."""

HUNG_UP = 128 + signal.SIGHUP
"""The exit code after the terminal has gone away, whether or not SIGHUP has come yet."""

_ANY_TEXT = "edgellm.any_text"


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make the streams take any text while the ``with`` lasts, also where they are closed.

    Standard output that cannot be written ends the program: an EdgeLLMError says why, or, where
    nobody reads it any more, a SystemExit says nothing. Standard error is given up in silence. A
    terminal that has hung up ends the program with a SystemExit too.
    """
    codecs.register_error(_ANY_TEXT, _encode_rest)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed before the program began
            nothing = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nothing, mode, encoding="utf-8"))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdin" else _ANY_TEXT)
    out = cast(TextIO, _Output(sys.stdout, _end))
    err = cast(TextIO, _Output(sys.stderr, _give_up))
    with redirect_stdout(out), redirect_stderr(err):
        yield


def is_terminal(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal; a closed one is none."""
    return not stream.closed and stream.isatty()


class _Output:
    """A stream that calls ``refused`` where the system refuses to write, and ever after."""

    def __init__(self, stream: IO[str], refused: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._refused = refused
        self._error: OSError | None = None
        self._was_terminal = is_terminal(stream)

    def __getattr__(self, name: str) -> Any:
        """Return what the stream itself has of this name."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; return its length."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        if self._error is None:
            try:
                action()
            except OSError as error:
                self._error = error
                _discard(self._stream)
        # once is not enough: typer's echo takes an error for the mark of a binary stream
        if self._error is not None:
            if self._was_terminal and self._error.errno == errno.EIO:
                raise SystemExit(HUNG_UP) from self._error
            self._refused(self._error)


def _end(error: OSError) -> NoReturn:
    if isinstance(error, BrokenPipeError):
        raise SystemExit(NOBODY_READS) from error
    raise EdgeLLMError(
        f"standard output cannot be written: {error.strerror}",
        hint="redirect it somewhere else, or free some space there",
    ) from error


def _give_up(error: OSError) -> None:
    """Go on: there is no other place to say it."""


def _discard(stream: IO[str]) -> None:
    """Point a stream at nothing, or the interpreter would fail again when it flushes it."""
    try:
        descriptor = stream.fileno()
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, descriptor)
        os.close(nothing)
    except (OSError, ValueError):  # a stream without a file beneath has nothing to flush
        return


def _encode_rest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode a character that an encoding lacks: a file name's odd byte as itself, others as ?."""
    assert isinstance(error, UnicodeEncodeError)
    code = ord(error.object[error.start])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that it could not decode
        return bytes([code - 0xDC00]), error.start + 1
    return "?", error.start + 1
