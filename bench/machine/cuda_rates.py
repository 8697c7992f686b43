"""The limits of an NVIDIA GPU, measured with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgellm.bench.machine.rates import Rates

READ_BYTES = 2 << 30
"""Far more than caches hold."""

SIZE = 8192
"""Rows and columns of the matrices."""

PASSES = 10


def cuda_rates() -> Rates:
    """Read memory and multiply in bfloat16, and return the best rates of several passes."""
    import torch

    data = torch.ones(READ_BYTES // 4, dtype=torch.float32, device="cuda")
    reading = READ_BYTES / _fastest(torch, data.sum)
    del data
    matrix = torch.ones(SIZE, SIZE, dtype=torch.bfloat16, device="cuda")
    out = torch.empty_like(matrix)
    multiplying = 2 * SIZE**3 / _fastest(torch, lambda: torch.mm(matrix, matrix, out=out))
    torch.cuda.empty_cache()
    return Rates(reading, multiplying)


def _fastest(torch: Any, work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest pass, by the GPU's own clock; a first one warms up."""
    best = float("inf")
    work()
    for _ in range(PASSES):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        best = min(best, begun.elapsed_time(ended) / 1000)
    return best
