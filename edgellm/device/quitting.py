"""The end of the process: open models are closed while MLX and its threads are still there."""

from __future__ import annotations

import atexit
from typing import Protocol
from weakref import WeakSet


class Quits(Protocol):
    """A model that is open until the process ends."""

    def quit(self) -> None:
        """Close, for the end of the process."""
        ...


_open: WeakSet[Quits] = WeakSet()


def quit_at_exit(model: Quits) -> None:
    """Let a model quit at the end of the process, where it is still there then.

    Python has waited for all threads by then that are not daemons.
    """
    _open.add(model)
    # last of all, so that it runs first: the kernels' threads end at the exit, too
    atexit.unregister(_quit_all)
    atexit.register(_quit_all)


def _quit_all() -> None:
    for model in list(_open):
        model.quit()
