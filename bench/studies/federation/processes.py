"""A server and its clients as processes, as people start them; one client may be killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import MachineError

LIMIT_SECONDS = 3600.0

EDGELLM = (sys.executable, "-m", "edgellm")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a federation.

    Attributes:
        code: exit code of the server.
        clients: exit codes of the clients, by their names.
        rounds: as the server has them.
        said: by the server.
        seconds: of all of it.
    """

    code: int
    clients: Mapping[str, int]
    rounds: Sequence[Mapping[str, Any]]
    said: str
    seconds: float


class Process:
    """A command that runs, and what it says; ``with`` ends it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.running: subprocess.Popen[str] = subprocess.Popen(
            [*EDGELLM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: str = ""
        self.printed: str = ""
        self._threads = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in ("stdout", "stderr")
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Process:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if it still runs."""
        if self.running.poll() is None:
            self.running.kill()
        self.ended()

    def wait_for(self, pattern: str) -> None:
        """Wait until it says something. Raises MachineError where it ends before."""
        ends = time.monotonic() + LIMIT_SECONDS
        while not re.search(pattern, self.said):
            if self.running.poll() is not None or time.monotonic() > ends:
                self.ended()
                if re.search(pattern, self.said):
                    return
                raise MachineError(f"a process has ended: {self.said}", hint="see what it says")
            time.sleep(0.05)

    def ended(self) -> int:
        """Return its exit code, once it has ended."""
        code = self.running.wait(LIMIT_SECONDS)
        for thread in self._threads:
            thread.join()
        return code

    def _read(self, name: str) -> None:
        stream = getattr(self.running, name)
        for line in stream:
            if name == "stdout":
                self.printed += line
            else:
                self.said += line
        stream.close()


def federate(
    model: str,
    out: Path,
    data: Mapping[str, tuple[Path, Path]],
    *,
    server: Sequence[str],
    client: Sequence[str],
    killed_after: int | None = None,
) -> Outcome:
    """Run a federation of one client for each kind of data, and return what came of it.

    Args:
        model: name or path.
        out: folder of the adapter.
        data: what each client learns, and what it does not.
        server: options of the server.
        client: options of the clients.
        killed_after: the round after which the last client is killed; None: none is.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        words = ["federate", "server", model, str(out), "--clients", str(len(data)), "--port", "0"]
        asks = stack.enter_context(Process([*words, "--json", *server]))
        last = f"client-{len(data)}.invitation"
        asks.wait_for(re.escape(last))
        clients: dict[str, Process] = {}
        for number, (learned, others) in enumerate(data.values(), 1):
            name = f"client-{number}"
            invitation = out.with_name(f"{out.name}.invitations") / f"{name}.invitation"
            words = ["federate", "client", model, str(learned), "--valid", str(others)]
            words += ["--invitation", str(invitation), *client]
            clients[name] = stack.enter_context(Process(words))
        if killed_after is not None:
            asks.wait_for(f"round {killed_after} of")
            clients[f"client-{len(data)}"].running.send_signal(signal.SIGKILL)
        code = asks.ended()
        codes = {name: one.ended() for name, one in clients.items()}
        rounds = json.loads(asks.printed)["rounds"] if code == 0 else []
        return Outcome(code, codes, rounds, asks.said, time.monotonic() - begun)
