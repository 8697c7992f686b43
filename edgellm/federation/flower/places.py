"""A client's place in a federation, which one process has, whoever has the invitation, too.

Flower counts a client as there for 20 s after it was last heard, and as one client who brings its
key. Here each process says a word of its own with each request. Another word is refused while the
first process is heard, and has its place after that.
"""

from __future__ import annotations

import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from edgellm.federation.flower.calls import TAKEN

WORD_HEADER = "edgellm-client"
"""With which a request brings the word of its process."""

GONE_SECONDS = 10.0
"""A process that was not heard for so long gives way; signs of life come every 4 s."""

COMES, GOES = "/activate-node", "/deactivate-node"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Places:
    """Which process has each client's place, by public keys.

    Args:
        clock: of seconds.

    Attributes:
        arrivals: how many processes have taken each place.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.arrivals: Counter[str] = Counter()
        self._clock = clock
        self._heard: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str, word: str) -> bool:
        """Give a process a place, or refuse it while another one has it."""
        with self._lock:
            holder, heard = self._heard.get(key, (word, 0.0))
            if holder != word and self._clock() - heard < GONE_SECONDS:
                return False
            self._heard[key] = word, self._clock()
            self.arrivals[key] += 1
            return True

    def holds(self, key: str, word: str) -> bool:
        """Return whether a process has a place, and note that it was heard."""
        with self._lock:
            holder, _ = self._heard.get(key, (word, 0.0))
            if holder == word:
                self._heard[key] = word, self._clock()
            return holder == word

    def leave(self, key: str) -> None:
        """Free a place."""
        with self._lock:
            self._heard.pop(key, None)


class OneProcess:
    """Lets through the requests of the process that has its client's place.

    Args:
        app: who answers them.
        places: who has which.
        state: Flower's, which forgets a process that gives way.
    """

    def __init__(self, app: App, places: Places, state: Any) -> None:
        self._app, self._places, self._state = app, places, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of a client that has proved who it is."""
        from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

        given = {name.lower(): value for name, value in scope["headers"]}
        key = b64decode(given[FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()])
        word = given.get(WORD_HEADER.encode(), b"").decode("latin-1")
        name = key.decode()
        if scope["path"].endswith(COMES):
            is_let_in = self._places.take(name, word)
            if is_let_in:  # Flower would refuse it as long as it counts the one before as there
                self._state.deactivate_node(self._state.get_node_id_by_public_key(key))
        else:
            is_let_in = self._places.holds(name, word)
        if not is_let_in:
            headers = [(b"content-type", b"application/json")]  # as Flower wants errors
            await send({"type": "http.response.start", "status": TAKEN, "headers": headers})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        await self._app(scope, receive, send)
        if scope["path"].endswith(GOES):
            self._places.leave(name)
