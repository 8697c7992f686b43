"""Forks: neither MLX's threads nor ours survive one, and waiting for them would never end.

A process may fork before MLX has computed anything in it, and run other programs at any time.
"""

from __future__ import annotations

import os
from typing import NoReturn

import mlx.core as mx

from edgellm.errors import BackendError


class MlxUse:
    """The process in which MLX was first used, as far as it is known."""

    def __init__(self) -> None:
        self._process = 0
        os.register_at_fork(before=self._note)

    def require_own_process(self) -> None:
        """Note that MLX is used from here on. Raises BackendError where a fork lies between."""
        process = os.getpid()
        if self._process not in (0, process):
            refuse("MLX was in use")
        self._process = process

    def _note(self) -> None:
        """Note, before a fork, an MLX that others have used: it has held memory then."""
        if not self._process and mx.get_peak_memory():
            self._process = os.getpid()


def refuse(what: str) -> NoReturn:
    """Raise the BackendError of a forked process; ``what`` was so before the fork."""
    raise BackendError(
        f"{what} before this process was forked, and its threads do not survive a fork",
        hint="load the model in each worker process, or start them with the spawn method",
    )


MLX_USE = MlxUse()
"""That of this process and of those that it was forked from."""
