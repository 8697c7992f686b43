"""Native calls of a few layers each, so that an answer can end between two of them."""

from __future__ import annotations

CALL_SECONDS = 0.02
"""Time of a call, where a single layer takes less."""


class Pace:
    """Measures the time of a layer by the tokens that go through it.

    A call per layer would run the interpreter 22 times a token with caches full of weights, and one
    for all layers could not be stopped: a prompt of 128 tokens takes 0.7 s in 1.1B.
    """

    def __init__(self) -> None:
        self._layer_seconds: dict[int, float] = {}

    def layers_at_once(self, tokens: int) -> int:
        """Return the number of layers in a call; one where nothing is known."""
        seconds = self._layer_seconds.get(tokens)
        if not seconds:
            return 1
        return max(1, int(CALL_SECONDS / seconds))

    def observe(self, tokens: int, layer_seconds: float) -> None:
        """Note the time of a layer; the least counts, since other programs run too."""
        known = self._layer_seconds.get(tokens, layer_seconds)
        self._layer_seconds[tokens] = min(layer_seconds, known)
