"""The machine and the software of a measurement, stamped on every record."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgellm.device import machine as device

PACKAGES = (
    "edgellm",
    "mlx",
    "numpy",
    "llvmlite",
    "torch",
    "triton",
    "transformers",
    "peft",
    "mlx-lm",
    "llama-cpp-python",
)
SUPPLIES = Path("/sys/class/power_supply")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
TIMEOUT = 10
"""Seconds for a program of the system's to answer."""


def environment() -> dict[str, Any]:
    """Return the machine, its memory and power, the versions, the commit, and the time."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **_constants(),
        "power": power_state(),
    }


def power_state(supplies: Path = SUPPLIES, governor: Path = GOVERNOR) -> dict[str, str | None]:
    """Return ``source``, ``AC`` or ``battery``, and the processor's ``governor``.

    Each is None where the system does not tell.
    """
    if platform.system() == "Darwin":
        source = _apple_power()
    else:
        source = _linux_power(supplies)
    return {"source": source, "governor": _line(governor)}


@cache
def _constants() -> dict[str, Any]:
    """Return what does not change while the process runs."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "chip": device.chip_name(),
        "cores": device.core_count(),
        "memory_bytes": device.read_memory().total,
        "arithmetic": device.backend_name(),
        "python": platform.python_version(),
        "commit": commit(Path(__file__).parent),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def commit(folder: Path) -> str | None:
    """Return the commit of a folder's files, with ``+`` where they have changed since.

    None outside a checkout.
    """
    git = shutil.which("git")
    if git is None:
        return None
    in_folder = [git, "-C", str(folder)]
    if _output([*in_folder, "ls-files", Path(__file__).name]) is None:
        return None  # an installed copy may lie inside somebody else's checkout
    return _output([*in_folder, "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"])


def _linux_power(supplies: Path) -> str | None:
    online = [_line(mains) for mains in sorted(supplies.glob("*/online"))]
    if "1" in online:
        return "AC"
    batteries = [_line(battery) for battery in sorted(supplies.glob("BAT*/status"))]
    return "battery" if "Discharging" in batteries else None


def _apple_power() -> str | None:
    status = _output(["pmset", "-g", "batt"]) or ""
    if "'Battery Power'" in status:
        return "battery"
    return "AC" if "'AC Power'" in status else None


def _output(command: list[str]) -> str | None:
    """Return what a program prints; None where it prints nothing, fails or is not here."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
