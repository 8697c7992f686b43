"""The limits of the processor, measured: reading from memory, and multiplying matrices.

    python -m edgellm.bench.machine.roofline THREADS

prints one line of JSON. It is a process of its own, since the number of threads of NumPy's products
is fixed when it loads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from edgellm.bench.machine.rates import Rates
from edgellm.errors import BackendError

READ_BYTES = 512 << 20
"""Far more than caches hold; halved where memory is short."""

SECONDS = 0.6
"""Time for one rate."""

SIZE = 1536
"""Rows and columns of the matrices."""

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def processor_rates(threads: int, *, timeout: float = 120.0) -> Rates:
    """Measure with so many threads, in a process of its own. Raises BackendError."""
    command = [sys.executable, "-m", "edgellm.bench.machine.roofline", str(threads)]
    environment = os.environ | dict.fromkeys(VARIABLES, str(threads))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=timeout, check=True
        )
        rates = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise BackendError(f"the machine's own limits could not be measured: {error}") from error
    return Rates(**rates)


def read_rate(threads: int, nbytes: int = READ_BYTES) -> float:
    """Return the bytes a second that threads read from memory, the best of several passes."""
    import numpy as np

    part_bytes = nbytes // threads // 64 * 64
    parts = [np.ones(part_bytes // 8, dtype=np.int64) for _ in range(threads)]
    # The largest of 64-bit integers costs one vector instruction for 64 bytes; NumPy gives up the
    # interpreter's lock for it.
    return threads * part_bytes / _best(lambda: _at_once([part.max for part in parts]))


def multiply_rate(threads: int) -> float:
    """Return operations a second: float32 in NumPy, or bfloat16 in torch where that is faster."""
    import numpy as np

    ones = np.ones((SIZE, SIZE), dtype=np.float32)
    out = np.empty_like(ones)
    rates = [2 * SIZE**3 / _best(lambda: np.matmul(ones, ones, out=out))]
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
        matrix = torch.ones(SIZE, SIZE, dtype=torch.bfloat16)
        with torch.inference_mode():
            rates.append(2 * SIZE**3 / _best(lambda: torch.mm(matrix, matrix)))
    return max(rates)


def _best(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest pass.

    As many are made as fit into ``SECONDS``, and at least three; a first one warms up.
    """
    work()
    best, ends, passes = float("inf"), time.perf_counter() + SECONDS, 0
    while passes < 3 or time.perf_counter() < ends:
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
        passes += 1
    return best


def _at_once(calls: list[Callable[[], Any]]) -> None:
    """Make calls on a thread each, the first on ours."""
    others = [threading.Thread(target=call) for call in calls[1:]]
    for other in others:
        other.start()
    calls[0]()
    for other in others:
        other.join()


def main() -> None:
    """Measure both rates with the threads of the command line, and print them."""
    threads = int(sys.argv[1])
    nbytes = READ_BYTES
    while True:
        try:
            reading = read_rate(threads, nbytes)
            break
        except MemoryError:
            nbytes //= 2
    rates = {"bytes_per_second": reading, "flops_per_second": multiply_rate(threads)}
    sys.stdout.write(json.dumps(rates) + "\n")


if __name__ == "__main__":
    main()
