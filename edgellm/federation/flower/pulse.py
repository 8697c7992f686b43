"""Signs of life of a client, also while it learns."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

PULSE_SECONDS = 4.0
"""Between two signs of life."""

INTERVAL = 10.0
"""What Flower is told of that, and its least: a client counts as gone after twice as long."""


class Pulse:
    """Tells the server that a client is there, while it learns too; for the ``with`` block."""

    def __init__(self, client: Any, node: Any) -> None:
        self._client, self._node = client, node
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Pulse:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        import httpx
        from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=INTERVAL)
        while not self._ended.wait(PULSE_SECONDS):
            with suppress(httpx.HTTPError, RuntimeError):  # the main thread finds out itself
                self._client.SendNodeHeartbeat(request)
