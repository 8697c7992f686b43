"""The libraries of a run that names none: those with their device that are not too slow."""

from __future__ import annotations

import shutil

from edgellm.bench.records.backend_names import OWN
from edgellm.bench.training.trainer import CUDA, MLX_LM, PEFT
from edgellm.device import machine

SLOW_ON_PROCESSORS = (
    "not measured: mlx-lm, whose steps take some 30 times as long as edgellm's on a processor "
    "(edgellm bench train --backend mlx-lm)"
)
"""MLX's own products do 3 to 9 GFLOP/s on two cores, and edgellm's kernels some hundreds."""


def usual_trainers() -> tuple[str, ...]:
    """Return the libraries to measure; one that is not installed is a row that says so."""
    mlx_lm = (MLX_LM,) if machine.has_gpu() else ()
    torch = CUDA if _has_nvidia() else PEFT
    return (OWN, *mlx_lm, torch)


def left_out() -> list[str]:
    """Return a sentence for each library that is left out, with the way to have it."""
    if machine.has_gpu():
        return []
    return [SLOW_ON_PROCESSORS]


def _has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None
