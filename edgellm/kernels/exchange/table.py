"""Frames of one machine to others and back, by native code that knows no interpreter."""

# L tokens

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgellm.kernels.code_cache import function
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.exchange.gather import Gather
from edgellm.kernels.exchange.words import AGAIN, DONE, HEAD_BYTES, LANE, RELAY, TAG_BYTES
from edgellm.kernels.host import code_cache
from edgellm.kernels.thread_pool import Words, aligned

Run = tuple[int, int]
"""A native function and its argument; zeros: there is nothing to do."""

AWAKE_NANOSECONDS = 400_000
"""A machine waits awake so long for what others make: to be woken takes a tenth of a trip of 0.1 ms
and more. Where others take longer, or need the core, it soon waits asleep."""

_TRIED_AGAIN = 64
"""Waits after which it is tried again whether others are in time for one that waits awake."""

NOTHING: Words = np.empty((0, 2), np.int64)


def frame_bytes(rows: int) -> int:
    """Return the bytes of a frame with so many bytes of rows; a tag fits into any."""
    return HEAD_BYTES + max(rows, TAG_BYTES)


class RelayTable:
    """The table of a machine's relays, and the native code that works on it.

    Args:
        place: of this machine among all.
        descriptors: of the connections to the other machines, by their places in order; they do
            not block.
        awake: nanoseconds for which it waits awake at most.

    Attributes:
        own: the memory for this machine's frame.
        came: for the frame of each other one.

    Raises:
        BackendError: there is no native code here.
    """

    def __init__(
        self, place: int, descriptors: Mapping[int, int], *, awake: int = AWAKE_NANOSECONDS
    ) -> None:
        self._place = place
        self._most_awake = awake
        self._others = list(descriptors)
        code, count = code_cache(host_isas()[0]), len(descriptors)
        memory = aligned(8 * (len(RELAY) + count * len(LANE)), np.int64)
        self._address = int(memory.ctypes.data)
        # of the relay, and of each lane: (lanes, words)
        self._words: Words = memory[: len(RELAY)]
        self._lanes: Words = memory[len(RELAY) :][: count * len(LANE)].reshape(count, len(LANE))
        self._polls = aligned(8 * max(1, count), np.int64)
        self._relay = function(code.kernel("relay"), ctypes.c_void_p)
        self._exchange = function(code.kernel("exchange"), ctypes.c_void_p)
        self._words[RELAY["polls"]] = self._polls.ctypes.data
        self._words[RELAY["clock"]] = time.CLOCK_MONOTONIC
        # elsewhere the interpreter has turned off the signal
        self._words[RELAY["flags"]] = getattr(socket, "MSG_NOSIGNAL", 0)
        self._lanes[:, LANE["descriptor"]] = list(descriptors.values())
        self._awake = awake
        self._waits = 0
        self.make_frames(0)

    def make_frames(self, nbytes: int) -> None:
        """Make memory for frames of so many bytes of rows; none may be on its way."""
        size = frame_bytes(nbytes)
        # no bytes of anything else go out behind few rows
        memory = np.zeros((1 + len(self._others), size), np.uint8)
        self.own, *self.came = [memoryview(frame) for frame in memory]
        address = int(memory.ctypes.data)
        self._words[RELAY["frame"]] = address
        self._lanes[:, LANE["frame"]] = address + size * np.arange(1, len(memory))

    @property
    def lost(self) -> int:
        """The lane, by its number here, whose machine is gone."""
        return int(self._words[RELAY["lost"]])

    @property
    def came_at(self) -> int:
        """When the last relay had all that it waited for, in nanoseconds."""
        return int(self._words[RELAY["came_at"]])

    @property
    def made_at(self) -> int:
        """When it had done its steps."""
        return int(self._words[RELAY["made_at"]])

    def relay(
        self,
        gather: Gather | None,
        tokens: int,
        run: Run = (0, 0),
        ahead: Words = NOTHING,
        *,
        head: bytes = bytes(HEAD_BYTES),
    ) -> int:
        """End the gather that is on its way, do something with it, begin another one.

        Args:
            gather: what is begun; None: nothing.
            tokens: of this gather and of the one before.
            run: makes this machine's columns.
            ahead: addresses and bytes (parts, 2) of what that reads, to have it in the cache.
            head: of the frame that is sent.

        Returns:
            The status.
        """
        words = self._words
        words[RELAY["ahead"] : RELAY["ahead_parts"] + 1] = ahead.ctypes.data, len(ahead)
        words[RELAY["lanes"]] = len(self._others)
        words[RELAY["tokens"]] = tokens
        words[RELAY["run"] : RELAY["pool"] + 1] = run
        words[RELAY["frame_bytes"]] = 0
        if gather is not None:
            width, own_place = gather.width(self._place), gather.place(self._place)
            words[RELAY["source"] : RELAY["own_row_bytes"] + 1] = (
                gather.source,
                gather.source_row_bytes,
                width,
                0 if own_place == gather.source else own_place,
                gather.row_bytes,
            )
            words[RELAY["frame_bytes"]] = frame_bytes(tokens * width)
            words[RELAY["head"] : RELAY["head_rest"] + 1] = np.frombuffer(head, np.int64)
            self._lanes[:, LANE["next_bytes"]] = [
                frame_bytes(tokens * gather.width(other)) for other in self._others
            ]
        status = self._call(self._relay)
        self._lanes[:, LANE["place"]] = 0
        if gather is not None and status == DONE:
            words[RELAY["row_bytes"]] = gather.row_bytes
            self._lanes[:, LANE["place"]] = [gather.place(other) for other in self._others]
            self._lanes[:, LANE["width"]] = [gather.width(other) for other in self._others]
        return status

    def swap(self, frames: Sequence[bytes], sizes: Sequence[int]) -> int:
        """Send a frame over each lane, and receive others; return the status.

        Args:
            frames: what is sent.
            sizes: bytes of the frames that come into ``came``.
        """
        sent = [np.frombuffer(frame, np.uint8) for frame in frames]
        for place, (frame, size) in enumerate(zip(sent, sizes, strict=True)):
            lane = self._lanes[place]
            lane[LANE["send_at"] : LANE["receive_bytes"] + 1] = (
                frame.ctypes.data,
                frame.nbytes,
                lane[LANE["frame"]],
                size,
            )
        self._words[RELAY["lanes"]] = len(sent)
        self._words[RELAY["ahead_parts"]] = 0
        return self._call(self._exchange)

    def _call(self, native: Callable[[int], None]) -> int:
        """Let native code work until it is through, and between two signals Python."""
        words = self._words
        words[RELAY["awake"]] = self._awake
        words[RELAY["status"]] = AGAIN
        slept = False
        while words[RELAY["status"]] == AGAIN:
            native(self._address)
            words[RELAY["ahead_parts"]] = 0  # before it slept it has read them
            slept = slept or bool(words[RELAY["slept"]])
        self._waits += 1
        if slept and self._waits % _TRIED_AGAIN:
            self._awake //= 2
        else:
            self._awake = self._most_awake
        return int(words[RELAY["status"]])
