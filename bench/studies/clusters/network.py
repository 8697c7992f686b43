"""Network namespaces for machines, joined by a switch; root's right alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgellm.bench.studies.clusters.switch import MTU, device_name
from edgellm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Link:
    """How machines are joined.

    Attributes:
        delay: seconds that a byte is on its way to another machine.
        rate: bytes per second that a machine sends.
    """

    delay: float
    rate: float


@dataclass(frozen=True, slots=True)
class Network:
    """Namespaces, one for each machine.

    Attributes:
        prefix: what their names begin with.
        machines: how many there are.
    """

    prefix: str
    machines: int

    def address(self, machine: int) -> str:
        """Return a machine's address."""
        return f"10.77.0.{machine + 1}"

    def inside(self, machine: int, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one on a machine."""
        return ["ip", "netns", "exec", f"{self.prefix}n{machine}", *command]


@contextmanager
def network(machines: int, link: Link, *, priority: int | None = None) -> Iterator[Network]:
    """Make namespaces and the links between them, and remove them at the end.

    ``priority`` is the switch's, in real time; None: it is a process like others.

    Raises ConfigError where this system does not let us.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("ip"):
        raise ConfigError(
            "network namespaces are made by root alone, on Linux, with the program ip",
            hint="run it there as root, or measure processes without links: "
            "python -m edgellm.bench.studies.clusters.two_processes MODEL",
        )
    if not Path("/dev/net/tun").exists():
        raise ConfigError("this system has no TUN devices", hint="modprobe tun, if it is a module")
    made = Network(f"edge{os.getpid()}", machines)
    words = [sys.executable, "-m", "edgellm.bench.studies.clusters.switch", str(machines)]
    words += ["--prefix", made.prefix, "--delay", str(link.delay), "--rate", str(link.rate)]
    if priority is not None:
        words += ["--priority", str(priority)]
    switch = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert switch.stdin is not None, "it is a pipe"
    assert switch.stdout is not None, "so is this"
    try:
        if switch.stdout.readline().strip() != "ready":
            raise ConfigError("the switch between machines did not start", hint="see above")
        for machine in range(machines):
            _make_namespace(made, machine)
        yield made
    finally:
        switch.stdin.close()
        switch.wait()
        switch.stdout.close()
        for machine in range(machines):
            subprocess.run(
                ["ip", "netns", "del", f"{made.prefix}n{machine}"], check=False, capture_output=True
            )


def _make_namespace(made: Network, machine: int) -> None:
    name, device = f"{made.prefix}n{machine}", device_name(made.prefix, machine)
    _run("ip", "netns", "add", name)
    _run("ip", "link", "set", device, "netns", name)
    for words in (
        ["addr", "add", f"{made.address(machine)}/24", "dev", device],
        ["link", "set", device, "mtu", str(MTU), "txqueuelen", "10000", "up"],
        ["link", "set", "lo", "up"],
    ):
        _run(*made.inside(machine, ["ip", *words]))


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(
            f"{' '.join(words)}: {done.stderr.strip()}", hint="network namespaces need root"
        )
