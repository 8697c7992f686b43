"""The kernels of this processor, the threads that run them, and the memory they work in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgellm.device.huge_pages import SIZE, in_huge_pages
from edgellm.kernels.code_cache import CodeCache
from edgellm.kernels.codegen.abi import (
    CALL,
    CALL_SLOTS,
    FEW_TOKENS,
    MAX_EXACT_ROWS,
    MAX_ROWS,
    MAX_VECTOR_ROWS,
    STEP_SLOTS,
)
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.thread_pool import ThreadPool, aligned

Activations = Literal["int8", "float"]
Step = Sequence[int]
"""A kernel's address and its arguments, in the order of its slots."""
StepArray = npt.NDArray[np.int64]
"""Steps as the pool reads them: (steps, STEP_SLOTS)."""


_FEW_SIZES = (1, *sorted({*MAX_VECTOR_ROWS.values(), *FEW_TOKENS}), MAX_EXACT_ROWS)
"""Tokens that steps are made for, where they are few."""


class KernelEngine:
    """One instruction set, one thread pool and one workspace, shared by all models of a process.

    Args:
        code: compiled kernels of the instruction set.
        threads: how many work on a call.
        activations: ``int8`` lets products round activations to int8 (or tiles of bfloat16);
            ``float`` keeps float32, as does a processor without int8 dot products.
    """

    def __init__(self, code: CodeCache, *, threads: int, activations: Activations) -> None:
        self.code = code
        self.threads = threads
        self.activations: Activations = activations
        if code.isa.dot is None:
            self.activations = "float"
        self.pool: ThreadPool = ThreadPool(code, threads=threads)
        self.workspace: Workspace = Workspace()
        self._call = aligned(8 * CALL_SLOTS, np.int64)
        self._scratch = self.workspace.buffer("scratch")
        self._scratch_bytes = 0  # of each thread
        self._recorded: list[StepArray] | None = None

    def twin(self) -> KernelEngine:
        """Return an engine like this one, with threads and a workspace of its own.

        Whoever holds its lock while it waits for something else keeps nobody from this one.
        """
        return KernelEngine(self.code, threads=self.threads, activations=self.activations)

    @property
    def isa(self) -> Isa:
        """The instruction set."""
        return self.code.isa

    @property
    def lock(self) -> threading.Lock:
        """Held while the workspace is in use."""
        return self.pool.lock

    def kernel(self, kernel: str, *arguments: object) -> int:
        """Return the address of a kernel of the catalog, compiled at its first use."""
        return self.code.kernel(kernel, *arguments)

    def reserve_scratch(self, nbytes: int) -> None:
        """Give each thread at least this many bytes of its own. The caller holds the lock."""
        if nbytes > self._scratch_bytes:
            # whole cache lines, so that no two threads write to one
            self._scratch_bytes = -(-nbytes // 4096) * 4096
            self._scratch.reserve(self._scratch_bytes * self.threads)

    def run(self, steps: StepArray, tokens: int, *, threads: int | None = None) -> None:
        """Do the steps for this many tokens. The caller holds the lock.

        Args:
            steps: what to do.
            tokens: of the call.
            threads: how many of the engine's threads work on it, which changes no result; None for
                all.
        """
        self._prepare(steps, tokens)
        self.pool.run(steps, self._call, threads=threads or self.threads)

    def ready(self, steps: StepArray, tokens: int) -> tuple[int, int]:
        """Let native code do the steps: return the function to call, and its argument.

        The caller holds the lock until it is done.
        """
        self._prepare(steps, tokens)
        return self.pool.ready(steps, self._call, threads=self.threads)

    def _prepare(self, steps: StepArray, tokens: int) -> None:
        if self._recorded is not None:
            self._recorded.append(steps.copy())
        self._call[CALL["tokens"]] = tokens
        self._call[CALL["scratch"]] = self._scratch.address
        self._call[CALL["scratch_bytes"]] = self._scratch_bytes

    @contextmanager
    def recording(self) -> Iterator[list[StepArray]]:
        """Collect copies of the steps that are done meanwhile, call by call."""
        self._recorded = []
        try:
            yield self._recorded
        finally:
            self._recorded = None

    @property
    def max_exact_rows(self) -> int:
        """The most tokens of a pass that each get bit for bit what they would get alone.

        A pass of that many costs little more than a pass of one.
        """
        return MAX_EXACT_ROWS

    def padded_tokens(self, tokens: int, *, many: bool = False) -> int:
        """Return the number of tokens that steps are made for: each size has its own kernels.

        The largest also serves a few tokens, with ``many``: each gets bit for bit what it gets
        among any number of them.
        """
        if not many:
            for size in _FEW_SIZES:
                if tokens <= size:
                    return size
        return max(tokens, MAX_ROWS)


def _own_memory(nbytes: int) -> npt.NDArray[np.float32]:
    """Return zeroed memory, in huge pages where it fills some."""
    if nbytes < SIZE:
        return aligned(nbytes, np.float32)
    # it begins where a huge page does; what is left before and behind it is never touched
    memory = aligned(nbytes + SIZE, np.uint8)
    start = -memory.ctypes.data % SIZE
    own: npt.NDArray[np.uint8] = memory[start : start + nbytes]
    in_huge_pages(own)
    return own.view(np.float32)


class WorkspaceBuffer:
    """Memory that grows, and moves when it does."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.array: npt.NDArray[np.float32] = aligned(64, np.float32)
        # where it begins; NumPy takes a microsecond to say so
        self.address: int = int(self.array.ctypes.data)

    def reserve(self, nbytes: int) -> None:
        """Make it at least so large; its contents are lost if it was smaller."""
        if nbytes > self.array.nbytes:
            self.array = _own_memory(-(-nbytes // 64) * 64)
            self.address = int(self.array.ctypes.data)
            self._workspace.version += 1


class Workspace:
    """Working memory by name.

    Steps hold addresses in it, and have to be made again when ``version`` changed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._buffers: dict[str, WorkspaceBuffer] = {}

    def buffer(self, name: str) -> WorkspaceBuffer:
        """Return the buffer of this name, empty at first."""
        if name not in self._buffers:
            self._buffers[name] = WorkspaceBuffer(self)
        return self._buffers[name]

    def reserved(self, name: str, nbytes: int) -> int:
        """Return the address of a buffer that is at least so large."""
        buffer = self.buffer(name)
        buffer.reserve(nbytes)
        return buffer.address

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(buffer.array.nbytes for buffer in self._buffers.values())


def step_array(steps: Sequence[Step]) -> StepArray:
    """Return steps as the pool reads them, (steps, STEP_SLOTS), from a cache line on."""
    memory = aligned(8 * STEP_SLOTS * max(1, len(steps)), np.int64)
    # (steps, STEP_SLOTS); slots that a step does not fill stay 0
    rows = memory.reshape(-1, STEP_SLOTS)[: len(steps)]
    for row, step in zip(rows, steps, strict=True):
        row[: len(step)] = step
    return rows


def make_step(kernel: int, layout: Mapping[str, int], **arguments: int) -> Step:
    """Return a step from arguments by name; those that are left out are 0.

    Args:
        kernel: its address.
        layout: the slots of its arguments (``codegen/abi.py``).
        arguments: addresses, sizes, or float32 bits.

    Raises:
        KeyError: the kernel has no such argument.
    """
    step = [kernel, *[0] * len(layout)]
    for name, value in arguments.items():
        step[layout[name]] = value
    return step


def float32_bits(value: float) -> int:
    """Return a float32 as the low half of a slot."""
    return int(np.float32(value).view(np.uint32))
