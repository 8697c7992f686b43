"""Other machines are started by ssh, and asked whether they are there."""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from edgellm.distributed.links.call import call
from edgellm.distributed.links.machines import Machine
from edgellm.distributed.links.pulse import PATIENCE_SECONDS
from edgellm.distributed.parts.digests import require_alike, versions
from edgellm.errors import EdgeLLMError, MachineError

SSH_OPTIONS = (
    *("-o", "BatchMode=yes"),
    # where the cable is cut, it ends after 12 s
    *("-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=3"),
)

_LOOK_SECONDS = 0.5

_END_SECONDS = 5.0
"""What a machine has to end in, once its standard input is closed."""

_SAID_SECONDS = 1.0
"""What the last lines of one that has ended may take: a master of ssh keeps its output open."""

_LINE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Started:
    """A command on another machine, and the thread that passes on what it says."""

    machine: Machine
    process: subprocess.Popen[bytes]
    saying: threading.Thread


class StartedMachines:
    """Commands that run on other machines by ssh, for as long as the ``with`` block.

    The secret goes to their standard input, through ssh, and then a line now and then; they end
    when it is closed, or when no more lines come.

    Args:
        machines: those with a name for ssh are started.
        model: what the model is called there.
        secret: of the cluster.
        edgellm: what the command is called there.
        say: called with each line that one of them says, behind its name.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        model: str,
        secret: str,
        *,
        edgellm: str,
        say: Callable[[str], None],
    ) -> None:
        self._machines = machines
        self._model = model
        self._secret = secret
        self._edgellm = edgellm
        self._say = say
        self._running: list[_Started] = []

    def __enter__(self) -> StartedMachines:
        """Start them. Raises MachineError where there is no ssh."""
        try:
            for machine in self._machines:
                if machine.ssh is not None:
                    self._running.append(self._start(machine))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End them."""
        self._end()

    def wait_until_ready(self, seconds: float | None) -> None:
        """Wait for all machines, those started by hand too; None: however long it takes.

        Raises MachineError where one does not come, or has other versions.
        """
        begun = time.monotonic()
        for machine in self._machines:
            said = ""
            while "error" in (facts := machine_status(machine, self._secret.encode())):
                self._look()
                if machine.ssh is None and facts["error"] != said:
                    said = facts["error"]
                    self._say(f"waiting: {said}")
                if seconds is not None and time.monotonic() > begun + seconds:
                    raise MachineError(
                        f"{facts['error']}, for {seconds:.0f} s",
                        hint="see what it said above, or use a longer --wait",
                    )
                time.sleep(_LOOK_SECONDS)
            require_alike(machine.name, versions(), facts["versions"], "version")

    def watch(self) -> None:
        """Return never; raise MachineError when one of them ends."""
        while True:
            self._look()
            time.sleep(_LOOK_SECONDS)

    def _start(self, machine: Machine) -> _Started:
        assert machine.ssh is not None, "only those are started"
        words = [*shlex.split(self._edgellm), *join_words(machine, self._model, "-")]
        try:
            started = subprocess.Popen(
                ["ssh", *SSH_OPTIONS, "--", machine.ssh, shlex.join(words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise MachineError(
                f"ssh cannot be started: {error.strerror or error}",
                hint="install it, or start edgellm cluster join on each machine by hand",
            ) from error
        _tell(started, f"{self._secret}\n".encode())
        saying = threading.Thread(target=self._pass_on, args=(machine, started), daemon=True)
        saying.start()
        return _Started(machine, started, saying)

    def _pass_on(self, machine: Machine, process: subprocess.Popen[bytes]) -> None:
        """Say what a machine says, in lines behind its name."""
        assert process.stderr is not None, "it is a pipe"
        with process.stderr as lines:
            while line := lines.readline(_LINE_BYTES):
                if text := line.decode(errors="replace").rstrip():
                    self._say(f"{machine.name}: {text}")

    def _look(self) -> None:
        """Tell the machines that this one is there; raise MachineError where one has ended."""
        for started in self._running:
            _tell(started.process, b"\n")
        for started in self._running:
            code = started.process.poll()
            if code is not None:
                started.saying.join(_SAID_SECONDS)
                raise MachineError(
                    f"edgellm has ended on machine {started.machine.name}, with exit code {code}",
                    hint="see what it said above, and try what ssh would: ssh "
                    f"{started.machine.ssh} {self._edgellm} --version; --edgellm names the command "
                    "where ssh does not find it, such as /home/me/.venv/bin/edgellm",
                )

    def _end(self) -> None:
        for started in self._running:
            assert started.process.stdin is not None, "it is a pipe"
            with suppress(BrokenPipeError):
                started.process.stdin.close()
        for started in self._running:
            try:
                started.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                started.process.kill()
                started.process.wait()
            started.saying.join(_SAID_SECONDS)


def join_words(machine: Machine, model: str, secret: str) -> list[str]:
    """Return the words after ``edgellm`` that start a machine with a file for its secret."""
    words = ["cluster", "join", model, "--secret", secret]
    words += ["--address", machine.address.host, "--port", str(machine.address.port)]
    if machine.memory is not None:
        words += ["--memory", machine.memory]
    return words


def _tell(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None, "it is a pipe"
    with suppress(BrokenPipeError):
        process.stdin.write(data)
        process.stdin.flush()


def machine_status(machine: Machine, secret: bytes) -> dict[str, Any]:
    """Return what a machine says of itself and in which time; or, as ``error``, why it does not."""
    begun = time.monotonic()
    try:
        link = call(machine, secret)
        try:
            link.set_timeout(PATIENCE_SECONDS)
            link.send({"for": "status"})
            facts, _ = link.receive()
        finally:
            link.close()
    except EdgeLLMError as error:
        return {"error": error.message}
    return {**facts, "seconds": time.monotonic() - begun}
