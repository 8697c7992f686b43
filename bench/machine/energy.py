"""Joules that the machine has used, by its own counters; None where it has none."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

RAPL = Path("/sys/class/powercap")
INTERVAL_MS = 100
"""Between two readings where the machine tells a power instead of an energy."""


class EnergyMeter(Protocol):
    """A count of the energy that a part of the machine uses."""

    source: str
    """The counter and the part of the machine: ``RAPL: package-0``."""

    def joules(self) -> float:
        """Return the joules so far; only differences mean something."""
        ...

    def close(self) -> None:
        """Stop counting."""
        ...


class RAPLMeter:
    """The counters of Linux on Intel and AMD: processor packages, and memory where it is apart.

    Raises:
        OSError: there are none, or this user may not read them.
    """

    def __init__(self, root: Path = RAPL) -> None:
        zones = [
            zone for zone in sorted(root.glob("intel-rapl:*")) if (zone / "energy_uj").exists()
        ]
        names = {zone: (zone / "name").read_text().strip() for zone in zones}
        self._zones = [
            zone for zone in zones if names[zone].startswith("package") or names[zone] == "dram"
        ]
        if not self._zones:
            raise FileNotFoundError(f"{root} has no counter of a processor package")
        self.source: str = "RAPL: " + ", ".join(names[zone] for zone in self._zones)
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        self._last = self._read()
        self._total = 0

    def joules(self) -> float:
        """Return the joules so far; a counter that has begun again from 0 is followed."""
        now = self._read()
        for before, after, span in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before
            if after < before:
                self._total += span
        self._last = now
        return self._total / 1e6

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


class PowerMeter:
    """A program that prints the power of the moment again and again.

    Args:
        command: the program and its arguments.
        milliwatts: reads the power from a line; None where the line has none.
        source: what the program measures.
        patience: seconds that it may take to its first line.

    Raises:
        OSError: it does not start, or says nothing of a power within ``patience`` seconds.
    """

    def __init__(
        self,
        command: list[str],
        milliwatts: Callable[[str], float | None],
        source: str,
        *,
        patience: float = 5.0,
    ) -> None:
        self.source = source
        self._milliwatts = milliwatts
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        )
        self._lock, self._first = threading.Lock(), threading.Event()
        self._joules, self._watts, self._at = 0.0, 0.0, 0.0
        self._thread = threading.Thread(target=self._follow, name="edgellm-power", daemon=True)
        self._thread.start()
        if not self._first.wait(patience) or self._watts <= 0:
            self.close()
            raise OSError(f"{command[0]} tells no power")

    def joules(self) -> float:
        """Return the joules so far: each power counts until the next one is printed."""
        with self._lock:
            now = time.perf_counter()
            return self._joules + self._watts * (now - self._at)

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            milliwatts = self._milliwatts(line)
            if milliwatts is None:
                continue
            with self._lock:
                now = time.perf_counter()
                self._joules += self._watts * (now - self._at)  # the first power was 0
                self._watts, self._at = milliwatts / 1000, now
            self._first.set()
        self._first.set()


def nvidia_meter() -> PowerMeter:
    """Count the energy of the first NVIDIA GPU's board. Raises OSError."""
    query = ["--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    command = [_program("nvidia-smi"), "-i", "0", *query, "-lms", str(INTERVAL_MS)]
    return PowerMeter(command, lambda line: _number(line, 1000.0), "nvidia-smi: GPU board")


def apple_meter() -> PowerMeter:
    """Count the energy of an Apple chip, as root or by sudo without a password. Raises OSError."""
    program = _program("powermetrics")
    command = [program, "--samplers", "cpu_power,gpu_power", "-i", str(INTERVAL_MS)]
    if os.geteuid() != 0:
        command = [_program("sudo"), "-n", *command]
    return PowerMeter(command, apple_milliwatts, "powermetrics: CPU, GPU and ANE")


def apple_milliwatts(line: str) -> float | None:
    """Return the number of the line ``Combined Power (CPU + GPU + ANE): 1234 mW``; else None."""
    head, _, value = line.partition("):")
    if not head.startswith("Combined Power"):
        return None
    return _number(value.removesuffix("mW\n"), 1.0)


def find_meter(*, gpu: bool) -> EnergyMeter | None:
    """Return the counter of the processor or GPU that computes; None where there is none."""
    make: Callable[[], EnergyMeter] = RAPLMeter
    if sys.platform == "darwin":
        make = apple_meter
    elif gpu:
        make = nvidia_meter
    try:
        return make()
    except (OSError, ValueError):
        return None


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"there is no {name}")
    return path


def _number(text: str, factor: float) -> float | None:
    try:
        power = float(text.strip()) * factor
    except ValueError:  # "[N/A]", a heading
        return None
    if 0 <= power < math.inf:  # "nan" is a float too
        return power
    return None
