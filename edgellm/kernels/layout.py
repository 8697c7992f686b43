"""Where numbers lie that Python and the kernels share: a step's arguments, a call's, and the pool's state. All in bytes."""

from __future__ import annotations

from collections.abc import Mapping

STEP_SLOTS = 16
STEP_BYTES = 8 * STEP_SLOTS
"""One step: the kernel's address, then its arguments, eight bytes each."""

POOL: Mapping[str, int] = {
    "generation": 0,
    "arrived": 64,
    "phase": 128,
    "next_item": 192,
    "job": 256,
    "stop": 320,
    "sleepers": 384,
    "workers": 392,
    "mutex": 448,
    "condition": 512,
}
"""What each thread writes alone has a cache line of its own; ``job`` is steps, their count, the call and the threads."""

POOL_BYTES = 640

CALL: Mapping[str, int] = {"tokens": 0, "scratch": 1, "scratch_bytes": 2}
"""What all steps of a call share, by slot: tokens, and the memory that each thread has for itself."""

CALL_SLOTS = 4
