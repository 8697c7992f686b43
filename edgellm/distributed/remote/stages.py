"""Hidden states on their way through machines at once: each computes another part."""

# L new tokens, E hidden

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from edgellm.distributed.links.link import ASK_SECONDS
from edgellm.distributed.parts.wire import packed, unpacked
from edgellm.distributed.remote.peer import Peer
from edgellm.models.layers import KeepGoing, Span, StateSpans

PIECE_TOKENS = 128
"""Tokens of a part of a prompt, of which each machine computes one at a time.

A prompt computes about a tenth longer in these than in chunks of 512.
"""

Requests = Sequence[Mapping[str, Any]]
"""Of one machine, the request for each part, but for its hidden states."""

_Item = tuple[Any, Sequence[memoryview]] | None


def in_pieces(
    states: Sequence[mx.array], spans: StateSpans
) -> tuple[list[mx.array], list[list[Span]]]:
    """Return hidden states (1, L, E) and their spans, long prompts in parts.

    Only tokens that are computed as many are: they are the same wherever a prompt is cut.
    """
    pieces: list[mx.array] = []
    piece_spans: list[list[Span]] = []
    for hidden, state_spans in zip(states, spans, strict=True):
        length = hidden.shape[1]
        if len(state_spans) > 1 or not state_spans[0].many or length <= PIECE_TOKENS:
            pieces.append(hidden)
            piece_spans.append(list(state_spans))
            continue
        for begin in range(0, length, PIECE_TOKENS):
            part = hidden[:, begin : begin + PIECE_TOKENS]
            pieces.append(part)
            piece_spans.append([replace(state_spans[0], length=part.shape[1])])
    return pieces, piece_spans


def joined(pieces: Sequence[mx.array], states: Sequence[mx.array]) -> list[mx.array]:
    """Return the results of ``in_pieces`` as whole states, of the lengths that ``states`` have."""
    whole = mx.concatenate(list(pieces), axis=1)
    results = []
    begin = 0
    for hidden in states:
        results.append(whole[:, begin : begin + hidden.shape[1]])
        begin += hidden.shape[1]
    mx.eval(results)
    return results


class StagedPass:
    """Hidden states that go through machines, each of which computes another part at a time.

    What this machine has to do is done when it is made; the others go on by themselves, also while
    another pass is begun here.

    Args:
        pieces: compute a part on this machine, in their order; None where they were stopped.
        peers: the other machines, in their order, and what they are asked.
        keep_going: asked on this thread alone.
    """

    def __init__(
        self,
        pieces: Iterable[Callable[[], mx.array | None]],
        peers: Sequence[tuple[Peer, Requests]],
        keep_going: KeepGoing,
    ) -> None:
        self._keep_going = keep_going
        self._stopped = threading.Event()
        self._failures: list[Exception] = []
        lanes: list[queue.SimpleQueue[_Item]] = [queue.SimpleQueue() for _ in range(len(peers) + 1)]
        self._last_lane = lanes[-1]
        self._threads = [
            threading.Thread(
                target=_stage,
                args=(peer, requests, lanes[place : place + 2], self._stopped, self._failures),
                daemon=True,
            )
            for place, (peer, requests) in enumerate(peers)
        ]
        for thread in self._threads:
            thread.start()
        self._count: int | None = 0
        try:
            for compute in pieces:
                if self._stopped.is_set():
                    break  # a machine has failed, and the last lane says how
                state = compute() if keep_going() else None
                if state is None:
                    self._count = None
                    break
                lanes[0].put(packed([state]))
                self._count += 1
        except BaseException:
            lanes[0].put(None)
            self.close()
            raise
        lanes[0].put(None)

    def results(self) -> list[mx.array]:
        """Return hidden states (1, L, E) after all machines; empty where ``keep_going`` said no.

        Raises:
            EdgeLLMError: of a machine, the first one.
        """
        results: list[mx.array] = []
        try:
            if self._count is None:
                return []
            while len(results) < self._count:
                try:
                    item = self._last_lane.get(timeout=ASK_SECONDS)
                except queue.Empty:
                    if self._keep_going():
                        continue
                    return []
                if item is None:
                    break
                shapes, body = item
                results += unpacked(shapes, body[0])
            if self._failures:
                raise self._failures[0]
            return results if len(results) == self._count else []
        finally:
            self.close()

    def close(self) -> None:
        """End it: whatever is still on its way is not wanted."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def _stage(
    peer: Peer,
    requests: Requests,
    lanes: Sequence[queue.SimpleQueue[_Item]],
    stopped: threading.Event,
    failures: list[Exception],
) -> None:
    """Send each part to a machine, and what comes back on to the next one; None ends it."""
    before, after = lanes
    for request in requests:
        item = before.get()
        if item is None or stopped.is_set():
            break
        shapes, body = item
        try:
            answer, results = peer.request(
                {**request, "states": shapes}, body, keep_going=lambda: not stopped.is_set()
            )
        except Exception as error:  # whatever it is, nobody waits for this part any more
            failures.append(error)
            stopped.set()
            break
        if not answer["states"]:
            break
        after.put((answer["states"], [results]))
    after.put(None)
