"""Other machines of a cluster as processes of their own: ``edgellm cluster join``."""

import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

from support.clusters import write_hosts

from edgellm.distributed.links.secret import new_secret

IMPATIENT = """
import runpy
from edgellm.distributed.links import call, pulse
call.HANDSHAKE_SECONDS, pulse.PATIENCE_SECONDS = 1.0, 2.0
runpy.run_module("edgellm", run_name="__main__", alter_sys=True)
"""
"""The program, which waits for machines that say nothing no longer than a test should take."""

READY = re.compile(r"waiting at 127\.0\.0\.1:(\d+)")


class MemberProcess:
    """A machine that waits for clusters; ``with`` ends it."""

    def __init__(self, model, secret, *, memory="500MB", port=0, impatient=False):
        program = ["-c", IMPATIENT] if impatient else ["-m", "edgellm"]
        words = [sys.executable, *program, "cluster", "join", str(model)]
        words += ["--port", str(port), "--secret", "-", "--memory", str(memory), "--threads", "1"]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.process.stdin.write(f"{secret}\n")
        self.process.stdin.flush()
        self.said = ""
        self.port = None
        self._ready = threading.Event()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def __enter__(self):
        self._ready.wait(60)
        if self.port is None:
            self.__exit__()
            raise AssertionError(f"it does not listen: {self.said}")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self._reading.join()
        for stream in (self.process.stdin, self.process.stderr):
            stream.close()

    def end(self, number=signal.SIGKILL):
        """Send a signal."""
        self.process.send_signal(number)

    def _read(self):
        for line in self.process.stderr:
            self.said += line
            if found := READY.search(line):
                self.port = int(found[1])
                self._ready.set()
        self._ready.set()


@contextmanager
def one_member(model, place, **keywords):
    """A machine in a process, and the file that names it."""
    secret = new_secret()
    with MemberProcess(model, secret, **keywords) as member:
        yield member, write_hosts(place, [member.port], secret)
