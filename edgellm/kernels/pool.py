"""Threads that do the steps of a call together. They live in native code, without the interpreter's lock."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.kernels.layout import POOL, POOL_BYTES
from edgellm.kernels.objects import Objects, function

Words = npt.NDArray[np.int64]


class Pool:
    """``threads`` threads, the caller's among them. One call at a time; others wait.

    Args:
        objects: where the native side of the pool is compiled.
        threads: how many threads work on a call.
    """

    def __init__(self, objects: Objects, *, threads: int) -> None:
        from edgellm.kernels.schedule import schedule_addresses

        self.threads = threads
        self.lock = threading.Lock()
        run, work = schedule_addresses(objects)
        self._run = function(run, ctypes.c_void_p)
        self._work = function(work, ctypes.c_void_p)
        self._workers: list[threading.Thread] = []
        self._state = aligned(POOL_BYTES, np.int64)
        self._address = self._state.ctypes.data
        self._job = self._state[POOL["job"] // 8 :]
        self._process = 0
        atexit.register(_close, weakref.ref(self))

    def run(self, steps: Words, call: Words) -> None:
        """Do all steps with a call's arguments. The caller holds ``lock``."""
        if self._process != os.getpid():
            self._start()
        self._job[:4] = (steps.ctypes.data, len(steps), call.ctypes.data, self.threads)
        self._run(self._address)

    def close(self) -> None:
        """End the threads."""
        with self.lock:
            if self._workers and self._process == os.getpid():
                self._state[POOL["stop"] // 8] = 1
                self._job[1] = 0
                self._job[3] = 1
                self._run(self._address)
                for worker in self._workers:
                    worker.join()
            self._workers.clear()
            self._process = 0

    def _start(self) -> None:
        """Start the threads; after a fork, which copies none of them, start them again."""
        self._state[:] = 0
        libc = ctypes.CDLL(None)
        for kind in ("mutex", "condition"):
            name = {"mutex": "pthread_mutex_init", "condition": "pthread_cond_init"}[kind]
            getattr(libc, name)(ctypes.c_void_p(self._address + POOL[kind]), None)
        self._workers = [
            threading.Thread(target=self._work, args=(self._address,), name=f"edgellm-kernel-{number}", daemon=True)
            for number in range(1, self.threads)
        ]
        for worker in self._workers:
            worker.start()
        self._process = os.getpid()


def aligned(nbytes: int, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Zeroed memory that begins on a cache line."""
    whole = np.zeros(nbytes + 64, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + nbytes].view(kind)


def _close(pool: weakref.ref[Pool]) -> None:
    """At the process's end no thread may stand in code that is about to be freed."""
    found = pool()
    if found is not None:
        found.close()
