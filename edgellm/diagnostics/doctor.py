"""An examination of this machine: what it is, how fast, and whether a model computes right."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from edgellm.errors import EdgeLLMError
from edgellm.settings import DEFAULT_MODEL

PACKAGES = (
    "edgellm",
    "mlx",
    "mlx-lm",
    "numpy",
    "tokenizers",
    "sentencepiece",
    "jinja2",
    "safetensors",
    "huggingface-hub",
    "typer",
    "rich",
    "prompt_toolkit",
    "llvmlite",
    "torch",
    "transformers",
    "llama-cpp-python",
)

NEW_TOKENS = 64
"""Tokens of the generation that is timed."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried; ``detail`` says what was found, or what went wrong."""

    name: str
    passed: bool
    detail: str


@dataclass(slots=True)
class Diagnosis:
    """All that was found. Sizes in bytes, speeds in units a second, None for what is unknown."""

    machine: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    mlx: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str | None] = field(default_factory=dict)
    disk: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return the whole as one JSON object."""
        return asdict(self) | {"passed": self.passed}


def _ignore(_name: str) -> None:
    pass


def examine(folder: Path, begin: Callable[[str], None] = _ignore) -> Diagnosis:
    """Examine this machine.

    Args:
        folder: a model, or any folder on the disk whose speed is wanted.
        begin: called with the name of each thing before it is tried.
    """
    diagnosis = Diagnosis(machine=machine_facts(), packages=package_versions())
    trials: list[tuple[str, Callable[[], str]]] = [
        ("arithmetic library", lambda: _check_mlx(diagnosis)),
        ("CPU kernels", lambda: _check_kernels(diagnosis)),
        ("disk", lambda: _measure_disk(diagnosis, folder)),
        ("bundled model", lambda: _measure_model(diagnosis)),
        ("paged equals resident, bit for bit", lambda: _selftest().paged_is_resident()),
        ("quantized matches dequantized", lambda: _selftest().quantized_is_dequantized()),
        ("loaded in one thread, used in another", lambda: _selftest().threads_agree()),
    ]
    for name, trial in trials:
        begin(name)
        try:
            check = Check(name, True, trial())
        except EdgeLLMError as error:
            check = Check(name, False, "; ".join(filter(None, (error.message, error.hint))))
        except Exception as error:  # whatever it is, the report must reach those who can mend it
            check = Check(name, False, f"{type(error).__name__}: {error}")
        diagnosis.checks.append(check)
    return diagnosis


def _selftest() -> ModuleType:
    # Imported late: without MLX it cannot be, and the report is wanted all the same.
    from edgellm.diagnostics import selftest

    return selftest


def machine_facts() -> dict[str, Any]:
    """Return what the system tells of itself, without the arithmetic library."""
    system = platform.platform()
    mac_version = platform.mac_ver()[0]
    if mac_version:
        system = f"macOS {mac_version}"
    usable_cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        usable_cores = len(os.sched_getaffinity(0))
    return {
        "system": system,
        "architecture": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def package_versions() -> dict[str, str | None]:
    """Return the versions of what edgellm stands on; None for what is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _cpu_name() -> str:
    """Return the processor's name, also where arithmetic runs on a GPU that has another."""
    if sys.platform == "darwin":
        import subprocess

        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        return asked.stdout.strip() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _check_mlx(diagnosis: Diagnosis) -> str:
    from edgellm.device.require_mlx import require_backend

    require_backend()
    import mlx.core as mx

    from edgellm.device import machine as device

    diagnosis.memory = asdict(device.read_memory())
    diagnosis.mlx = {
        "backend": device.backend_name(),
        "device": device.chip_name(),
        "metal": mx.metal.is_available(),
        "cuda": mx.cuda.is_available(),
        "arithmetic": str(device.compute_dtype(mx.bfloat16)).removeprefix("mlx.core."),
        "device_info": {
            key: value
            for key, value in mx.device_info().items()
            if isinstance(value, int | float | str)
        },
    }
    product = mx.ones((2, 3)) @ mx.ones((3, 2))
    if product.tolist() != [[3.0, 3.0], [3.0, 3.0]]:
        raise EdgeLLMError(f"a product of ones is {product.tolist()}", hint=_selftest().REPORT)
    return f"MLX {metadata.version('mlx')} computes on {diagnosis.mlx['backend']}"


def _check_kernels(diagnosis: Diagnosis) -> str:
    from edgellm.kernels.host import describe

    description = describe()
    facts = asdict(description) | {"folder": str(description.folder)}
    # the names that `doctor --json` has
    facts["kept"] = facts.pop("cached_files")
    facts["kept_bytes"] = facts.pop("cached_bytes")
    diagnosis.kernels = facts
    return description.isa or f"none, so MLX's own are used: {description.reason}"


def _measure_disk(diagnosis: Diagnosis, folder: Path) -> str:
    from edgellm.reading.disk_sample import SAMPLE_BYTES, disk_sample
    from edgellm.reading.tuning import measure_disk

    weights = sorted(folder.glob("model*.safetensors"))
    if sum(file.stat().st_size for file in weights) >= SAMPLE_BYTES:
        kind = "model"
        files: AbstractContextManager[list[Path]] = nullcontext(weights)
    else:
        kind = "sample"
        files = disk_sample(folder)
    with files as chosen:
        speed = measure_disk(chosen, seconds=0.5)
    where = str(folder.resolve())
    diagnosis.disk = {"folder": where, "bytes_per_second": speed, "read": kind}
    return f"{speed / 1e9:.2f} GB/s"


def _measure_model(diagnosis: Diagnosis) -> str:
    from edgellm.diagnostics.facts import generation_facts
    from edgellm.diagnostics.selftest import PROMPT
    from edgellm.open_llm import load

    started_at = time.perf_counter()
    with load(DEFAULT_MODEL) as llm:
        load_seconds = time.perf_counter() - started_at
        llm.generate(PROMPT, max_tokens=8)  # the first generation also compiles and allocates
        completion = llm.generate(PROMPT, max_tokens=NEW_TOKENS)
        facts = generation_facts(completion.stats, llm.plan)
        tokens_per_second = facts["tokens_per_second"]
        diagnosis.model = {
            "name": DEFAULT_MODEL,
            "load_seconds": load_seconds,
            "tokens_per_second": tokens_per_second,
            "prompt_tokens_per_second": facts["prompt_tokens_per_second"],
            "peak_memory_bytes": completion.stats.peak_memory_bytes,
            "text": completion.text,
        }
    if not completion.text.strip():
        raise EdgeLLMError("the bundled model generates nothing", hint=_selftest().REPORT)
    if not tokens_per_second:
        return "too short to time"
    return f"{tokens_per_second:.1f} tokens/s"
