"""The other machines of a study: `edgellm cluster join`, in a namespace, on a disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import MachineError

_READY = re.compile(r"waiting at \S+:\d+")


@dataclass(frozen=True, slots=True)
class Process:
    """A machine that runs.

    Attributes:
        pid: of its process.
    """

    pid: int

    def processor_seconds(self) -> float:
        """Return the seconds that it has computed so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Let the peak of its memory begin again."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return the peak of its memory since then, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None, "Linux says so"
        return int(found[1]) << 10


def join_words(model: str, address: str, memory: str) -> list[str]:
    """Return the command of another machine."""
    words = [sys.executable, "-m", "edgellm", "cluster", "join", model, "--address", address]
    return [*words, "--secret", "-", "--threads", "1", "--memory", memory]


@contextmanager
def joined(command: Sequence[str], secret: str) -> Iterator[Process]:
    """Start another machine, and yield it once it listens. Raises MachineError where it ends."""
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert started.stdin is not None, "it is a pipe"
    assert started.stderr is not None, "so is this"
    said: list[str] = []
    rest = threading.Thread(target=said.extend, args=(started.stderr,), daemon=True)
    try:
        started.stdin.write(f"{secret}\n")
        started.stdin.flush()
        for line in started.stderr:
            said.append(line.strip())
            if _READY.search(line):
                break
        else:
            raise MachineError(f"a machine did not start: {' '.join(said)}", hint="see its words")
        rest.start()  # whatever else it says must not fill the pipe
        yield Process(started.pid)
    finally:
        started.stdin.close()
        started.wait()
        if rest.ident is not None:
            rest.join()
        started.stderr.close()
