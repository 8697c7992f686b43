"""A command line as the foreground job of a shell, on a pseudo-terminal of its own."""

import os
import pty
import re
import select
import signal
import sys
import termios
import time
import uuid
from contextlib import suppress
from pathlib import Path

MARK = "EDGELLM_TEST_JOB"
"""The environment variable that a job's processes, and theirs, have from it."""

READY = "\x1b[?2004h"
"""The editor switches bracketed paste on when it begins to ask."""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
EDGELLM = [sys.executable, "-m", "edgellm"]

# The session's leader, which does with its one job what a shell does.
SHELL = """
import os, signal, sys
slave, report, order = map(int, sys.argv[1:4])
os.login_tty(slave)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
signal.signal(signal.SIGHUP, lambda *_: os.kill(job, signal.SIGHUP))  # the job is told
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    for number in (signal.SIGTTOU, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(sys.argv[4], sys.argv[4:])
os.write(report, b"%d\\n" % job)
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        os.write(report, b"ended %d\\n" % os.waitstatus_to_exitcode(status))
        break
    os.tcsetpgrp(0, os.getpgrp())
    os.write(report, b"stopped\\n")
    os.read(order, 1)
    os.tcsetpgrp(0, job)
    os.kill(-job, signal.SIGCONT)
"""


class Job:
    """A command in the foreground of a terminal; ``with`` ends it, and all that it has started.

    Attributes:
        seen: what the terminal has shown.
    """

    def __init__(self, *arguments, command=EDGELLM, environment=None):
        self.mark = uuid.uuid4().hex
        self._master, self._slave = pty.openpty()
        self._modes = termios.tcgetattr(self._slave)
        report, told = os.pipe()
        order, self._order = os.pipe()
        variables = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", MARK: self.mark}
        words = [sys.executable, "-c", SHELL, str(self._slave), str(told), str(order)]
        words += [*command, *map(str, arguments)]
        self._shell = os.posix_spawn(
            sys.executable,
            words,
            os.environ | variables | (environment or {}),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, number, number) for number in (self._slave, told, order)
            ],
        )
        os.close(told)
        os.close(order)
        self._report = os.fdopen(report, "rb", buffering=0)
        self.seen = ""
        self.pid = int(self._report.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [*self.processes(), self._shell]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(self._shell, 0)
        self._report.close()
        for descriptor in {self._master, self._slave, self._order}:
            os.close(descriptor)

    def wait_for(self, text, seconds=60):
        """Read until a text appears that was not there before; return what came with it."""
        start, ends = len(self.seen), time.monotonic() + seconds
        while text not in self.seen[start:]:
            assert time.monotonic() < ends, self.seen
            self.read(0.2)
        return self.seen[start:]

    def read(self, seconds=0.0):
        """Read what the terminal shows, for so long at most; return whether anything came."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        got = os.read(self._master, 65536).decode(errors="replace")
        self.seen += got
        if "\x1b[6n" in got:  # the editor asks where the cursor is
            self.type("\x1b[1;1R")
        return bool(got)

    def type(self, keys):
        os.write(self._master, keys.encode())

    def send(self, number):
        """Send a signal to the job's own process."""
        os.kill(self.pid, number)

    def has_news(self, seconds=0.0):
        """Whether the job stops or ends within so many seconds, reading on."""
        ends = time.monotonic() + seconds
        while True:
            left = max(ends - time.monotonic(), 0)
            told = select.select([self._report, self._master], [], [], left)[0]
            if self._report in told:
                return True
            if not told:
                return False
            self.read()

    def news(self, seconds=60):
        """Wait until the job has stopped or ended, reading on; return which, as the shell does."""
        assert self.has_news(seconds), self.seen
        word = self._report.readline().decode().strip()
        while self.read():
            pass
        return word

    def go_on(self):
        """Bring a stopped job back to the foreground."""
        os.write(self._order, b"1")

    def hang_up(self):
        """Take the terminal away, as a lost connection does."""
        os.close(self._slave)
        os.close(self._master)
        # in its place a terminal on which nothing ever comes: waiting on it takes no processor
        self._master, self._slave = os.pipe()

    @property
    def disorder(self):
        """What is otherwise about the terminal than it was before."""
        found = []
        if termios.tcgetattr(self._slave) != self._modes:
            found.append("modes")
        for name, on, off in (
            ("cursor hidden", "\x1b[?25l", "\x1b[?25h"),
            ("bracketed paste", "\x1b[?2004h", "\x1b[?2004l"),
            ("alternate screen", "\x1b[?1049h", "\x1b[?1049l"),
            ("no wrapping", "\x1b[?7l", "\x1b[?7h"),
        ):
            if self.seen.rfind(on) > self.seen.rfind(off):
                found.append(name)
        return found

    @property
    def lines(self):
        """The lines that were shown and not wiped off, without colours."""
        shown = [line.split("\r")[-1] for line in self.seen.replace("\r\n", "\n").split("\n")]
        return [text for line in shown if (text := CONTROL.sub("", line).strip())]

    def processes(self):
        """The job's processes and theirs that are alive, the shell apart."""
        return [pid for pid in marked(self.mark) if pid != self._shell]


def marked(mark):
    """The processes, zombies apart, whose environment holds a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has ended, or is another's
            continue
    return found
