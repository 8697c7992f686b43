"""The other side of a worker: a process that is started, asked, waited for, and ended; whatever it does, we go on."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from edgellm.errors import BackendError

WORKER = (sys.executable, "-m", "edgellm.bench.speed.worker")
END_SECONDS = 10.0
"""In which a worker ends that is asked to."""

SAID = 300
"""Characters of a dead worker's last words."""


class WorkerProcess:
    """A worker in a session of its own, so that Ctrl-C reaches us alone and we decide what becomes of it.

    Args:
        timeout: seconds in which it must say something when it is waited for.
        command: what is started.
        variables: of the environment, on top of our own.
        way_round: the hint where a signal ends it.
    """

    def __init__(
        self,
        *,
        timeout: float,
        command: Sequence[str] = WORKER,
        variables: Mapping[str, str] | None = None,
        way_round: str | None = None,
    ) -> None:
        self._timeout, self._way_round = timeout, way_round
        self._words = tempfile.TemporaryFile(prefix="edgellm-bench-")  # noqa: SIM115 - closed by ``kill``
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=os.environ | dict(variables or {}),
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="edgellm-bench-reader", daemon=True)
        self._reader.start()

    def tell(self, order: Mapping[str, Any]) -> None:
        """Send one line; to a process that has ended it is lost, and ``hear`` says so."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next thing that it says.

        Raises:
            BackendError: it has ended, or it is silent for too long; then it is ended.
        """
        try:
            line = self._lines.get(timeout=self._timeout)
        except queue.Empty:
            self._end()
            raise BackendError(
                f"it said nothing for {self._timeout:g} seconds, and was ended",
                hint="give it more with --timeout",
            ) from None
        if line is None:
            message, status = self._death()
            raise BackendError(message, hint=self._way_round if status < 0 else None)
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Let it end; one that does not is ended."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and what it has started, at once."""
        self._end()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._words.close()

    def _end(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                self._lines.put(line)
        self._lines.put(None)

    def _death(self) -> tuple[str, int]:
        """Why it is no more, with its last words; and its status, below 0 where a signal has ended it."""
        status = self._process.wait()
        self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, self._words.tell() - 4096))
        words = [
            line.strip()
            for line in self._words.read().decode(errors="replace").splitlines()
            if line.strip()
        ]
        last = f": {words[-1][:SAID]}" if words else ""
        if status == -signal.SIGKILL:
            return f"the system killed it, most likely for want of memory{last}", status
        if status < 0:
            return f"it was ended by {signal.Signals(-status).name}{last}", status
        return f"it ended with status {status}{last}", status
