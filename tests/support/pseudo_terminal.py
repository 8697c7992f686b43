"""Standard output and error on a pseudo-terminal, and what of it a terminal would obey."""

import os
import pty
import re
import termios
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout

HOSTILE = (
    "\x1b[35m\x1b]52;c;QQ==\x07\x1b]0;title\x1b\\\x9b2J\x9d0;t\x9c\x85\x90"
    "\r\x08\x0b\x0c\x0e\x7fevil[bold]x[/bold]"
)
"""Colours, the clipboard, the title, a cleared screen, and ways back over what is written."""

OURS = re.compile(
    r"\x1b\[[0-9;]*m|\x1b\[\d*[ABCDGJK]|\x1b\[\?(?:7|12|25|1|2004)[hl]|\x1b\[6n|\r(?=\x1b)"
)
"""Sequences of ours: styles, the cursor, what is wiped, and the line editor's questions."""


def obeyed(text):
    """The controls in a text beyond the sequences of ours, newlines and tabs."""
    rest = OURS.sub("", text)
    return sorted(set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", rest)))


class Seen:
    """What has been written so far."""

    def __init__(self):
        self.data = b""

    @property
    def text(self):
        return self.data.decode()


@contextmanager
def pseudo_terminal():
    """Put both streams on a terminal; yields what is seen there, whole once the ``with`` ends."""
    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST  # newlines stay what they are
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    seen = Seen()

    def read():
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # how Linux says that nobody writes any more
                return
            if not data:
                return
            seen.data += data

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with (
            open(slave, "w", encoding="utf-8") as stream,
            redirect_stdout(stream),
            redirect_stderr(stream),
        ):
            yield seen
    finally:
        reader.join()
        os.close(master)
