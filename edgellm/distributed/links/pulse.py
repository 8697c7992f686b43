"""Heartbeats: each side tells the other every second that it lives, also while it computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from edgellm.distributed.links.link import Link
from edgellm.errors import MachineError

BEAT_SECONDS = 1.0

PATIENCE_SECONDS = 8.0
"""A machine that says nothing for so long counts as gone: stopped, or its cable cut."""


class Pulse:
    """A thread that sends heartbeats over a connection of their own, and listens to the other's.

    Args:
        link: the connection.
        on_lost: called once, with the reason, when the other machine is gone.
        on_message: called with what else comes over the connection.
    """

    def __init__(
        self,
        link: Link,
        on_lost: Callable[[str], None],
        on_message: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._link = link
        self._on_lost = on_lost
        self._on_message = on_message
        self._ended = threading.Event()
        self._heard = time.monotonic()
        link.set_timeout(PATIENCE_SECONDS)
        self._thread = threading.Thread(
            target=self._run, name=f"edgellm-pulse-{link.name}", daemon=True
        )
        self._thread.start()

    @property
    def heard_at(self) -> float:
        """When the other machine was last heard, by ``time.monotonic``."""
        return self._heard

    def send(self, message: Mapping[str, Any]) -> None:
        """Send something over the same connection. Raises MachineError."""
        self._link.send(message)

    def close(self) -> None:
        """End the thread and the connection; ``on_lost`` is not called any more."""
        self._ended.set()
        self._link.fail("the connection was closed here")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._link.close()

    def _run(self) -> None:
        try:
            next_beat = 0.0
            while not self._ended.is_set():
                now = time.monotonic()
                if now >= next_beat:
                    self._link.send({})
                    next_beat = now + BEAT_SECONDS
                if now - self._heard > PATIENCE_SECONDS:
                    self._lose(f"it has said nothing for {PATIENCE_SECONDS:.0f} s")
                    return
                if self._link.wait(max(0.0, next_beat - now)):
                    message, _ = self._link.receive()
                    self._heard = time.monotonic()
                    if message:
                        self._on_message(message)
        except (MachineError, OSError, ValueError) as error:
            self._lose(getattr(error, "message", str(error)).rpartition("is gone: ")[2])

    def _lose(self, reason: str) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._on_lost(reason)
