"""What is measured when nobody says what: the backends that run here, without those that would take minutes for a step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from edgellm.bench.backends.registry import BACKENDS, ENDPOINT
from edgellm.device import machine as device

SLOW_ON_PROCESSORS = ("mlx-lm",)
"""MLX's own kernels, one thread and 16 bits of them: 0.9 s a token of 1.1B in 4 bits (2 cores at 2.6 GHz), ours 0.03."""


ON_REQUEST = (ENDPOINT, "llama.cpp-plain")


def usual_backends() -> tuple[str, ...]:
    """All that are installed and have their device."""
    found = [
        name for name, backend in BACKENDS.items() if backend.installed and name not in ON_REQUEST
    ]
    return tuple(name for name in found if name != "cuda" or shutil.which("nvidia-smi"))


def too_slow(backends: Sequence[str], models: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Pairs of backend and model that a page made in minutes does without: only the first model is small enough for all."""
    if device.has_gpu():
        return frozenset()
    return frozenset(
        (name, model) for name in backends if name in SLOW_ON_PROCESSORS for model in models[1:]
    )
