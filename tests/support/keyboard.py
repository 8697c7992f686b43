"""An editor at which keys are pressed, and a program on a pseudo-terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from contextlib import contextmanager

from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from edgellm.repl.line_editor import Editor
from edgellm.repl.repl import FILE_COMMANDS, described_commands


@contextmanager
def keyboard(keys):
    """An editor at which these keys are pressed."""
    with create_pipe_input() as source:
        source.send_text(keys)
        yield Editor(
            described_commands(), file_commands=FILE_COMMANDS, source=source, target=DummyOutput()
        )


class Terminal:
    """A program on a pseudo-terminal."""

    READY = "\x1b[?2004h"
    """The editor switches bracketed paste on when it begins to ask."""

    def __init__(self, *arguments):
        self._master, slave = pty.openpty()
        code = (
            "import os, sys; os.login_tty(int(sys.argv[1])); "
            "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(slave), "-m", "edgellm", *arguments],
            pass_fds=[slave],
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text, seconds=60, after=None):
        """Read until a text appears, perhaps after one seen already; return what came with it."""
        begun = time.monotonic()
        from_here = len(self.seen) if after is None else self.seen.rindex(after)
        while text not in self.seen[from_here:]:
            assert time.monotonic() - begun < seconds, self.seen
            ready, _, _ = select.select([self._master], [], [], 0.2)
            if ready:
                try:
                    got = os.read(self._master, 65536).decode(errors="replace")
                except OSError:
                    got = ""
                assert got, f"it ended: {self.seen}"
                self.seen += got
                if "\x1b[6n" in got:  # the editor asks where the cursor is
                    self.type("\x1b[1;1R")
        return self.seen[from_here:]

    def type(self, keys):
        os.write(self._master, keys.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
