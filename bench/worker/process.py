"""The bench's side of a worker: started, told what to do, waited for, and ended."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from edgellm.bench.worker.protocol import Message
from edgellm.errors import BackendError
from edgellm.files.strict_json import loads_strict

END_SECONDS = 10.0
"""Time in which a worker whose standard input has ended must end too."""

LAST_WORDS = 300
"""Characters of a dead worker's last line on standard error that an error message quotes."""

SHELL_KILLED = 128 + signal.SIGKILL
"""The status by which a shell says that signal 9 has ended its child."""


class WorkerEndedError(BackendError):
    """A worker that is no more: it has ended by itself, or was ended because it was silent."""


class WorkerProcess:
    """A worker in a session of its own, so that Ctrl-C reaches the bench alone.

    A ``with`` closes it; at an exception it kills it, whatever it is at, also where it just starts.

    Args:
        command: the program and its arguments.
        timeout: seconds that ``receive`` waits for a message; None waits for as long as it takes.
        threads: threads for arithmetic, for libraries that ask the environment; None: as they like.
        crash_hint: the hint of the error where a signal has ended the worker.
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        timeout: float | None,
        threads: int | None = None,
        crash_hint: str | None = None,
    ) -> None:
        self._timeout, self._crash_hint = timeout, crash_hint
        environment = dict(os.environ)
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        with ExitStack() as undo:
            try:
                self._stderr = undo.enter_context(tempfile.TemporaryFile(prefix="edgellm-bench-"))
            except OSError as error:
                raise BackendError(
                    f"no temporary file can be made: {error.strerror or error}",
                    hint="set TMPDIR to a folder on a disk with room",
                ) from error
            with _signals_held():  # one during the fork would lose the new process's id
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    env=environment,
                    start_new_session=True,
                )
                undo.callback(self._end)
            self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            self._reader = threading.Thread(
                target=self._read, name="edgellm-bench-reader", daemon=True
            )
            self._reader.start()
            undo.pop_all()

    def __enter__(self) -> WorkerProcess:
        """Return the worker."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it."""
        if kind is None:
            self.close()
        else:
            self.kill()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def send(self, order: Message) -> None:
        """Send one message; where the worker has ended it is lost, and ``receive`` says so."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for the next message and return it.

        Raises:
            WorkerEndedError: the worker has ended, or sent nothing within the timeout and was
                ended.
            BackendError: the message says that the worker could not do what it was told.
        """
        try:
            line = self._lines.get(timeout=self._timeout)
        except queue.Empty:
            self._end()
            raise WorkerEndedError(
                f"it said nothing for {self._timeout:g} seconds, and was ended",
                hint="give it more with --timeout",
            ) from None
        if line is None:
            raise self._death()
        try:
            message: dict[str, Any] = loads_strict(line.decode())
        except (ValueError, RecursionError) as error:
            if not line.endswith(b"\n"):  # it has died at its last word
                raise self._death() from error
            raise BackendError(f"it sent something that is not a message: {error}") from error
        if "error" in message:
            raise BackendError(message["error"], hint=message.get("hint"))
        return message

    def close(self) -> None:
        """End standard input, wait for the worker to end, and kill one that does not."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the worker and all that it has started, at once."""
        self._end()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._stderr.close()

    def _end(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        """Queue the messages; anything else on standard output is dropped."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                self._lines.put(line)
        self._lines.put(None)

    def _death(self) -> WorkerEndedError:
        status = self._process.wait()
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4096))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        last_words = f": {last_line[:LAST_WORDS]}" if last_line else ""
        if status in {-signal.SIGKILL, SHELL_KILLED}:
            reason = "the system killed it, most likely because memory ran out"
            return WorkerEndedError(reason + last_words, hint=self._crash_hint)
        if status < 0:
            names = {one.value: one.name for one in signal.Signals}  # of real-time ones, two
            reason = f"it was ended by {names.get(-status, f'signal {-status}')}"
            return WorkerEndedError(reason + last_words, hint=self._crash_hint)
        return WorkerEndedError(f"it ended with status {status}{last_words}")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Have signals that Python handles wait for the end of the ``with`` block."""
    came: list[int] = []
    handlers = {}
    try:
        if threading.current_thread() is threading.main_thread():  # no other thread has them
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler):
                    handlers[number] = handler
                    signal.signal(number, lambda one, _: came.append(one))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)
