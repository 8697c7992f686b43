"""Threads that do a call's steps together, in native code without the interpreter's lock."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.kernels.code_cache import CodeCache, function
from edgellm.kernels.codegen.abi import POOL, POOL_BYTES

Words = npt.NDArray[np.int64]

_EXIT_TIMEOUT = 1.0
"""Seconds that the end of the process waits for a call that is under way."""


class ThreadPool:
    """So many threads, the caller's among them. One call at a time; others wait.

    Args:
        code: where the native side of the pool is compiled.
        threads: how many work on a call.
    """

    def __init__(self, code: CodeCache, *, threads: int) -> None:
        self.threads = threads
        self._workers = _Workers(code, threads)
        # also at the process's end: then no thread stands in code that goes away
        weakref.finalize(self, self._workers.stop)

    @property
    def lock(self) -> threading.Lock:
        """Held while a call is prepared and done."""
        return self._workers.lock

    def run(self, steps: Words, call: Words, *, threads: int) -> None:
        """Do all steps with a call's arguments, by some threads. The caller holds ``lock``."""
        self._workers.call(steps, call, threads)

    def ready(self, steps: Words, call: Words, *, threads: int) -> tuple[int, int]:
        """Let native code do what ``run`` does: return the function to call, and its argument.

        The caller holds ``lock`` until it is done.
        """
        return self._workers.ready(steps, call, threads)


class _Workers:
    """The pool's state in memory, and the threads that watch it.

    The threads hold this object and not the pool, so that the pool can be collected.
    """

    def __init__(self, code: CodeCache, threads: int) -> None:
        self.lock = threading.Lock()
        self._most = threads
        self._run_address = code.kernel("run")
        self._run = function(self._run_address, ctypes.c_void_p)
        self._work = function(code.kernel("work"), ctypes.c_void_p)
        self._state = aligned(POOL_BYTES, np.int64)
        self._address = int(self._state.ctypes.data)
        self._job = self._state[POOL["job"] // 8 :]  # see codegen.abi.POOL
        self._threads: list[threading.Thread] = []
        self._process = 0  # in which the threads live

    def call(self, steps: Words, call: Words, threads: int) -> None:
        self.ready(steps, call, threads)
        self._run(self._address)

    def ready(self, steps: Words, call: Words, threads: int) -> tuple[int, int]:
        if self._process != os.getpid():  # at first, and after a fork, which copies no threads
            self._start()
        self._job[:4] = (steps.ctypes.data, len(steps), call.ctypes.data, threads)
        return self._run_address, self._address

    def stop(self) -> None:
        """End the threads, unless a call goes on for longer than the exit waits."""
        if not self._threads or self._process != os.getpid():
            return
        if not self.lock.acquire(timeout=_EXIT_TIMEOUT):
            return
        try:
            self._state[POOL["stop"] // 8] = 1
            self._job[:4] = (0, 0, 0, self._most)
            self._run(self._address)
            for thread in self._threads:
                thread.join()
            self._threads.clear()
            self._process = 0
        finally:
            self.lock.release()

    def _start(self) -> None:
        self._state[:] = 0
        libc = ctypes.CDLL(None)
        libc.pthread_mutex_init(ctypes.c_void_p(self._address + POOL["mutex"]), None)
        for condition in ("work_condition", "barrier_condition"):
            libc.pthread_cond_init(ctypes.c_void_p(self._address + POOL[condition]), None)
        self._threads = [
            threading.Thread(target=self._live, name=f"edgellm-kernel-{number}", daemon=True)
            for number in range(1, self._most)
        ]
        for thread in self._threads:
            thread.start()
        self._process = os.getpid()

    def _live(self) -> None:
        self._work(self._address)


def aligned(nbytes: int, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Return zeroed memory that begins on a cache line."""
    memory = np.zeros(nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + nbytes].view(kind)
