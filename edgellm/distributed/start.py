"""Other machines are started by ssh, and asked whether they are there."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from edgellm.distributed.links.call import call
from edgellm.distributed.links.machines import Machine
from edgellm.distributed.links.pulse import PATIENCE_SECONDS
from edgellm.errors import EdgeLLMError, MachineError

SSH_OPTIONS = (
    *("-o", "BatchMode=yes"),
    # where the cable is cut, it ends after 12 s
    *("-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=3"),
)

_LOOK_SECONDS = 0.5

_END_SECONDS = 5.0
"""What a machine has to end in, once its standard input is closed."""


class StartedMachines:
    """Commands that run on other machines by ssh, for as long as the ``with`` block.

    The secret goes to their standard input, through ssh, and then a line now and then; they end
    when it is closed, or when no more lines come.

    Args:
        machines: those with a name for ssh are started.
        model: what the model is called there.
        secret: of the cluster.
        edgellm: what the command is called there.
    """

    def __init__(
        self, machines: Sequence[Machine], model: str, secret: str, *, edgellm: str
    ) -> None:
        self._machines = machines
        self._model = model
        self._secret = secret
        self._edgellm = edgellm
        self._running: list[tuple[Machine, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> StartedMachines:
        """Start them. Raises MachineError where there is no ssh."""
        try:
            for machine in self._machines:
                if machine.ssh is not None:
                    self._running.append((machine, self._start(machine)))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End them."""
        self._end()

    def wait_until_ready(self, seconds: float) -> None:
        """Wait for all machines, those started by hand too. Raises MachineError."""
        ends = time.monotonic() + seconds
        for machine in self._machines:
            while "error" in (facts := machine_status(machine, self._secret.encode())):
                self._look()
                if time.monotonic() > ends:
                    raise MachineError(
                        f"{facts['error']}, for {seconds:.0f} s",
                        hint="see what it said above, or use a longer --wait",
                    )
                time.sleep(_LOOK_SECONDS)

    def watch(self) -> None:
        """Return never; raise MachineError when one of them ends."""
        while True:
            self._look()
            time.sleep(_LOOK_SECONDS)

    def _start(self, machine: Machine) -> subprocess.Popen[bytes]:
        assert machine.ssh is not None, "only those are started"
        words = [*shlex.split(self._edgellm), *join_words(machine, self._model, "-")]
        try:
            started = subprocess.Popen(
                ["ssh", *SSH_OPTIONS, "--", machine.ssh, shlex.join(words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise MachineError(
                f"ssh cannot be started: {error.strerror or error}",
                hint="install it, or start edgellm cluster join on each machine by hand",
            ) from error
        _tell(started, f"{self._secret}\n".encode())
        return started

    def _look(self) -> None:
        """Tell the machines that this one is there; raise MachineError where one has ended."""
        for _, process in self._running:
            _tell(process, b"\n")
        for machine, process in self._running:
            code = process.poll()
            if code is not None:
                raise MachineError(
                    f"edgellm has ended on machine {machine.name}, with exit code {code}",
                    hint="see what it said above, and try there what ssh would: ssh "
                    f"{machine.ssh} {self._edgellm} --version",
                )

    def _end(self) -> None:
        for _, process in self._running:
            assert process.stdin is not None, "it is a pipe"
            with suppress(BrokenPipeError):
                process.stdin.close()
        for _, process in self._running:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
