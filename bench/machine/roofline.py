"""The limits of the processor, measured: reading from memory, and multiplying matrices.

    python -m edgellm.bench.machine.roofline THREADS

prints one line of JSON. It is a process of its own, since the number of threads of NumPy's products
is fixed when it loads.

Both are measured with NumPy, which is always installed, so that a machine has the same limits
whatever else is. NumPy multiplies in float32; how many more operations an instruction for narrower
numbers does is a fact of the processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgellm.bench.machine.rates import Rates
from edgellm.errors import BackendError

READ_BYTES = 512 << 20
"""Far more than caches hold; halved where memory is short."""

SECONDS = 0.6
"""Time for one rate."""

SIZE = 1536
"""Rows and columns of the matrices."""

CPU_FLAGS = Path("/proc/cpuinfo")

OPERATIONS: Mapping[str, float] = {
    "amx_bf16": 16,  # 16 x 16 x 32 products in 16 cycles; float32: two vectors of 16 per cycle
    "avx512_vnni": 4,
    "avx_vnni": 4,
    "avx2": 2,  # pmaddubsw: four products per lane in two instructions
    "asimddp": 4,
}
"""Operations of the processor's widest product instruction, as a multiple of float32's.

By the flag that Linux shows, the fastest first. On a Mac, NumPy's float32 products already run on
the matrix unit.
"""

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def processor_rates(threads: int, *, timeout: float = 120.0) -> Rates:
    """Measure with this many threads, in a process of its own. Raises BackendError."""
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
    """Return the bytes per second that threads read from memory, the best of several passes."""
    import numpy as np

    part_bytes = nbytes // threads // 64 * 64
    parts = [np.ones(part_bytes // 8, dtype=np.int64) for _ in range(threads)]
    # The largest of 64-bit integers costs one vector instruction for 64 bytes; NumPy gives up the
    # interpreter's lock for it.
    return threads * part_bytes / _best(lambda: _at_once([part.max for part in parts]))


def multiply_rate() -> float:
    """Return the operations per second of float32 products in NumPy."""
    import numpy as np

    ones = np.ones((SIZE, SIZE), dtype=np.float32)
    out = np.empty_like(ones)
    return 2 * SIZE**3 / _best(lambda: np.matmul(ones, ones, out=out))


def narrow_factor(flags: Path = CPU_FLAGS) -> float:
    """Return how many times float32's operations the widest product instruction does per cycle."""
    try:
        words = set(flags.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return 1.0
    return next((factor for flag, factor in OPERATIONS.items() if flag in words), 1.0)


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
    multiplying = narrow_factor() * multiply_rate()
    rates = {"bytes_per_second": reading, "flops_per_second": multiplying}
    sys.stdout.write(json.dumps(rates) + "\n")


if __name__ == "__main__":
    main()
