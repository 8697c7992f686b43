"""The backends of a run that names none: those that are installed and not too slow."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from edgellm.bench.backends.registry import BACKENDS, ENDPOINT, not_measured
from edgellm.device import machine

SLOW_ON_PROCESSORS = ("mlx-lm",)
"""MLX's own 16-bit products on one thread: 0.9 s per token of 1.1B parameters in 4 bits, ours 0.03.

Measured on 2 cores at 2.6 GHz.
"""

ON_REQUEST = (ENDPOINT, "llama.cpp-plain")
"""Backends that are measured only where they are named."""

NO_CUDA = (
    "not measured: the cuda backend needs an NVIDIA GPU, and nvidia-smi is not here "
    "(edgellm bench --backend cuda tries without it)"
)

Skipped = frozenset[tuple[str, str]]
"""Pairs of a backend and a model that are not measured."""


def usual_backends() -> tuple[str, ...]:
    """Return the backends that are installed and have their device."""
    return tuple(name for name in _wanted() if BACKENDS[name].installed)


def too_slow(backends: Sequence[str], models: Sequence[str]) -> Skipped:
    """Return the pairs that would take minutes: only the first model is small enough for all."""
    if machine.has_gpu():
        return frozenset()
    slow = set(backends) & set(SLOW_ON_PROCESSORS)
    return frozenset((name, model) for name in slow for model in models[1:])


def left_out(skipped: Skipped) -> list[str]:
    """Return a sentence for each usual backend that is left out, with the way to have it."""
    missing = [name for name in _wanted() if not BACKENDS[name].installed]
    without_a_device = []
    if "cuda" not in _wanted():
        without_a_device = [NO_CUDA]
    return [
        *without_a_device,
        *map(not_measured, missing),
        *(
            f"not measured: {model} in {name}, minutes on a processor ({_command(name, model)})"
            for name, model in sorted(skipped)
        ),
    ]


def _wanted() -> list[str]:
    names = [name for name in BACKENDS if name not in ON_REQUEST]
    if shutil.which("nvidia-smi") is None:
        names.remove("cuda")
    return names


def _command(name: str, model: str) -> str:
    return f"edgellm bench {model} --backend {name}"
