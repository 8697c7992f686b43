"""What this machine is, how fast it is, and whether the model's arithmetic is right on it."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from edgellm.errors import EdgeLLMError, ReadError
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

SAMPLE = 256 << 20
"""Bytes that are written and read back to learn a disk's speed."""

SPARE = 1 << 30
"""Bytes that must be free on a disk before a sample is written to it."""

NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried; ``detail`` says what was found, or what went wrong."""

    name: str
    passed: bool
    detail: str


@dataclass(slots=True)
class Diagnosis:
    """All that was found. Sizes in bytes, speeds in units a second; a figure that could not be had is None."""

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
        """Whether every check did."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """The whole as one JSON object."""
        return asdict(self) | {"passed": self.passed}


def examine(folder: Path, begin: Callable[[str], None] = lambda _: None) -> Diagnosis:
    """Look the machine over.

    Args:
        folder: a model, or any folder on the disk whose speed is wanted.
        begin: called with the name of each thing before it is tried.
    """
    found = Diagnosis(machine=machine_facts(), packages=package_versions())
    trials: list[tuple[str, Callable[[], str]]] = [
        ("arithmetic library", lambda: _mlx(found)),
        ("CPU kernels", lambda: _kernels(found)),
        ("disk", lambda: _disk(found, folder)),
        ("bundled model", lambda: _speed(found)),
        ("paged is resident, bit for bit", lambda: _selftest().paged_is_resident()),
        ("quantized is dequantized, nearly", lambda: _selftest().quantized_is_dequantized()),
        ("loaded in one thread, used in another", lambda: _selftest().threads_agree()),
    ]
    for name, trial in trials:
        begin(name)
        try:
            found.checks.append(Check(name, True, trial()))
        except EdgeLLMError as error:
            found.checks.append(
                Check(name, False, "; ".join(filter(None, (error.message, error.hint))))
            )
        except Exception as error:  # whatever it is, the report must get to whoever can mend it
            found.checks.append(Check(name, False, f"{type(error).__name__}: {error}"))
    return found


def _selftest() -> ModuleType:
    """Imported late: without MLX it cannot be, and the report is wanted all the same."""
    from edgellm.diagnostics import selftest

    return selftest


def machine_facts() -> dict[str, Any]:
    """What the system tells of itself, without the arithmetic library."""
    mac = platform.mac_ver()[0]
    return {
        "system": f"macOS {mac}" if mac else platform.platform(),
        "architecture": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def package_versions() -> dict[str, str | None]:
    """The versions of what edgellm stands on; None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _cpu_name() -> str:
    """The processor's name, also where arithmetic runs on a GPU that has another."""
    if sys.platform == "darwin":
        import subprocess

        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        return asked.stdout.strip() or platform.machine()
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    names = (
        line.partition(":")[2].strip()
        for line in lines
        if line.lower().startswith(("model name", "hardware"))
    )
    return next(names, platform.processor() or platform.machine())


def _mlx(found: Diagnosis) -> str:
    from edgellm import LLM  # names the missing backend, where there is none

    del LLM
    import mlx.core as mx

    from edgellm.device import machine as device

    memory = device.read_memory()
    found.memory = asdict(memory)
    info = mx.device_info()
    found.mlx = {
        "backend": device.backend_name(),
        "device": device.chip_name(),
        "metal": mx.metal.is_available(),
        "cuda": mx.cuda.is_available(),
        "arithmetic": str(device.compute_dtype(mx.bfloat16)).removeprefix("mlx.core."),
        "device_info": {
            key: value for key, value in info.items() if isinstance(value, int | float | str)
        },
    }
    product = mx.ones((2, 3)) @ mx.ones((3, 2))
    if product.tolist() != [[3.0, 3.0], [3.0, 3.0]]:
        raise EdgeLLMError(f"a product of ones is {product.tolist()}")
    return f"MLX {metadata.version('mlx')} computes on {found.mlx['backend']}"


def _kernels(found: Diagnosis) -> str:
    from edgellm.kernels.host import describe

    description = describe()
    found.kernels = asdict(description) | {"folder": str(description.folder)}
    return description.isa or f"none, so MLX's own are used: {description.reason}"


def _disk(found: Diagnosis, folder: Path) -> str:
    from edgellm.reading.tuning import measure_disk

    files = sorted(folder.glob("model*.safetensors"))
    of_model = sum(file.stat().st_size for file in files) >= SAMPLE
    with nullcontext(files) if of_model else _sample(folder) as chosen:
        speed = measure_disk(chosen, seconds=0.5)
    found.disk = {
        "folder": str(folder.resolve()),
        "bytes_per_second": speed,
        "read": "model" if of_model else "sample",
    }
    return f"{speed / 1e9:.2f} GB/s"


@contextmanager
def _sample(folder: Path) -> Iterator[list[Path]]:
    """A file of noise that disappears again. Raises ReadError where none can be written."""
    import shutil

    free = shutil.disk_usage(folder).free
    if free < SPARE:
        raise ReadError(
            f"{folder} has {free / 1e9:.1f} GB free; 1 GB is needed to measure its disk"
        )
    noise = os.urandom(1 << 20)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".edgellm-doctor-") as file:
            if sys.platform == "darwin":
                import fcntl

                # F_NOCACHE: what is written must not be read back from memory
                fcntl.fcntl(file.fileno(), 48, 1)
            for _ in range(SAMPLE >> 20):
                file.write(noise)
            file.flush()
            os.fsync(file.fileno())
            yield [Path(file.name)]
    except PermissionError as error:
        raise ReadError(f"{folder} cannot be written to, so its disk was not measured") from error


def _speed(found: Diagnosis) -> str:
    from edgellm.diagnostics.facts import answer_facts
    from edgellm.diagnostics.selftest import PROMPT
    from edgellm.open_llm import load

    begun = time.perf_counter()
    with load(DEFAULT_MODEL) as llm:
        loaded = time.perf_counter() - begun
        llm.generate(PROMPT, max_tokens=8)  # the first answer also compiles and allocates
        done = llm.generate(PROMPT, max_tokens=NEW_TOKENS)
        facts = answer_facts(done.stats, llm.plan)
        found.model = {
            "name": DEFAULT_MODEL,
            "load_seconds": loaded,
            "tokens_per_second": facts["tokens_per_second"],
            "prompt_tokens_per_second": facts["prompt_tokens_per_second"],
            "peak_memory_bytes": done.stats.peak_memory_bytes,
            "text": done.text,
        }
    if not done.text.strip():
        raise EdgeLLMError("the bundled model says nothing")
    return (
        f"{facts['tokens_per_second']:.1f} tokens/s"
        if facts["tokens_per_second"]
        else "too short to time"
    )
