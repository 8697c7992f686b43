"""What an NVIDIA GPU could do at the most, measured with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgellm.bench.machine.rates import Rates

READ_BYTES = 2 << 30
"""Far more than caches hold."""

SIZE = 8192
PASSES = 10


def cuda_rates() -> Rates:
    """Bytes read from the GPU's memory a second, and operations a second in bfloat16 products: the best of several passes."""
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
