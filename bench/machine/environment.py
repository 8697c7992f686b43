"""Where a measurement was taken: stamped on every record."""

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
    "mlx-lm",
    "llama-cpp-python",
)
SUPPLIES = Path("/sys/class/power_supply")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
PATIENCE = 10
"""Seconds for a program of the system's to answer."""


def environment() -> dict[str, Any]:
    """The machine, its memory and power, the versions, the commit, and the time."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **_lasting(),
        "power": power_state(),
    }


def power_state(supplies: Path = SUPPLIES, governor: Path = GOVERNOR) -> dict[str, str | None]:
    """``source``: ``AC`` or ``battery``; ``governor``: the processor's; None where the system does not tell."""
    source = _apple_power() if platform.system() == "Darwin" else _linux_power(supplies)
    return {"source": source, "governor": _line(governor)}


@cache
def _lasting() -> dict[str, Any]:
    """What does not change while we run."""
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
    """The commit that a folder's files are of, with ``+`` where they have been changed since; None outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    found = _said(
        [git, "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    )
    tracked = _said([git, "-C", str(folder), "ls-files", Path(__file__).name])
    return found if tracked else None  # an installed copy may lie inside somebody else's checkout


def _linux_power(supplies: Path) -> str | None:
    online = [_line(mains) for mains in sorted(supplies.glob("*/online"))]
    if "1" in online:
        return "AC"
    batteries = [_line(battery) for battery in sorted(supplies.glob("BAT*/status"))]
    return "battery" if "Discharging" in batteries else None


def _apple_power() -> str | None:
    said = _said(["pmset", "-g", "batt"]) or ""
    return "battery" if "'Battery Power'" in said else "AC" if "'AC Power'" in said else None


def _said(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=PATIENCE, errors="replace"
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
