"""Joules that the machine says it has used; where it does not tell, there is nothing, and never zero."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

RAPL = Path("/sys/class/powercap")
INTERVAL = 0.1
"""Seconds between two readings of a power that the machine tells instead of an energy."""


class EnergyMeter(Protocol):
    """Something that counts energy."""

    source: str
    """What tells it, and of which part of the machine."""

    def joules(self) -> float:
        """Joules so far; only differences mean something."""
        ...

    def close(self) -> None:
        """Stop counting."""
        ...


class RAPLMeter:
    """Linux on Intel and AMD: the counters of the processor packages, and of memory where they are apart.

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
        self.source = "RAPL: " + ", ".join(names[zone] for zone in self._zones)
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        self._last = self._read()
        self._total = 0

    def joules(self) -> float:
        """Joules so far; a counter that has begun again from 0 is followed."""
        now = self._read()
        for before, after, span in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before if after >= before else after - before + span
        self._last = now
        return self._total / 1e6

    def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


class PowerMeter:
    """A program that prints the power of a moment again and again, in milliwatts once ``milliwatts`` has read its line.

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
        """Joules so far: each power counts until the next one is told."""
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
            found = self._milliwatts(line)
            if found is None:
                continue
            with self._lock:
                now = time.perf_counter()
                self._joules += self._watts * (now - self._at) if self._at else 0.0
                self._watts, self._at = found / 1000, now
            self._first.set()
        self._first.set()


def nvidia_meter() -> PowerMeter:
    """The board of the first NVIDIA GPU. Raises OSError."""
    program = _program("nvidia-smi")
    every = str(int(INTERVAL * 1000))
    command = [
        program,
        "-i",
        "0",
        "--query-gpu=power.draw",
        "--format=csv,noheader,nounits",
        "-lms",
        every,
    ]
    return PowerMeter(command, lambda line: _number(line, 1000.0), "nvidia-smi: GPU board")


def apple_meter() -> PowerMeter:
    """Processor, GPU and neural engine of an Apple chip, as root or by sudo without a password. Raises OSError."""
    program = _program("powermetrics")
    command = [program, "--samplers", "cpu_power,gpu_power", "-i", str(int(INTERVAL * 1000))]
    if os.geteuid() != 0:
        command = [_program("sudo"), "-n", *command]
    return PowerMeter(command, apple_milliwatts, "powermetrics: CPU, GPU and ANE")


def apple_milliwatts(line: str) -> float | None:
    """The number in ``Combined Power (CPU + GPU + ANE): 1234 mW``."""
    head, _, value = line.partition("):")
    return _number(value.removesuffix("mW\n"), 1.0) if head.startswith("Combined Power") else None


def find_meter(*, gpu: bool) -> EnergyMeter | None:
    """What counts the energy of the part of the machine that computes; None where nothing does."""
    makers: list[Callable[[], EnergyMeter]] = (
        [apple_meter] if sys.platform == "darwin" else [nvidia_meter] if gpu else [RAPLMeter]
    )
    for make in makers:
        with suppress(OSError, ValueError):
            return make()
    return None


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no {name}")
    return found


def _number(text: str, factor: float) -> float | None:
    try:
        return float(text.strip()) * factor
    except ValueError:  # "[N/A]", a heading
        return None
