"""The table of a relay: int64 words by name, its own and then those of each lane."""

from __future__ import annotations

from collections.abc import Mapping

WORD_BYTES = 8

AHEAD_BYTES = 2 * WORD_BYTES
"""Of one part of what is read ahead: its address and its bytes."""


def _words(*names: str) -> Mapping[str, int]:
    """Return the places of words, in order."""
    return {name: place for place, name in enumerate(names)}


RELAY = _words(
    "lanes",
    "polls",  # memory for a struct pollfd of each lane
    "clock",  # the number of a clock that never goes back
    "awake",  # nanoseconds for which it waits awake
    "flags",  # of send
    "status",  # what came of it: one of the four below
    "lost",  # the lane that is gone
    "slept",  # whether it waited longer than awake
    "came_at",  # by the clock: when all had come
    "made_at",  # and when the steps were done
    # what is read into the cache meanwhile: addresses and bytes of parts, and how many there are
    "ahead",
    "ahead_parts",
    # what is on its way here
    "tokens",
    "row_bytes",  # from one token to the next, where it belongs
    # what is done with it: a function and its argument; 0: nothing
    "run",
    "pool",
    # what is sent then: rows of so many bytes each, from one place into a frame, and where they
    # belong on this machine (0: they are there); a frame of no bytes: nothing is sent
    "source",
    "source_row_bytes",
    "width",
    "own_place",
    "own_row_bytes",
    "frame",
    "frame_bytes",
    # of the frame: the one before may not have left when this is known
    "head",
    "head_rest",
)

LANE = _words(
    "descriptor",
    # what is left of both frames
    "send_at",
    "send_bytes",
    "receive_at",
    "receive_bytes",
    "broken",  # what poll says of a connection that has ended
    "frame",  # where the frame of the other machine is
    "place",  # where its columns belong
    "width",  # bytes of a row of them
    "next_bytes",  # of the frame that comes after this one
)

RELAY_BYTES = WORD_BYTES * len(RELAY)
LANE_BYTES = WORD_BYTES * len(LANE)

HEAD_BYTES = 16
"""Of a frame, before its rows; the first of them is the kind."""

TAG_BYTES = 16
"""Of what follows the head in a frame that is none of rows."""

ROWS_KIND = 1

DONE, AGAIN, LOST, OTHER_KIND = range(4)
"""A relay is through; was interrupted, and goes on where it is called again; has lost a machine;
or stopped before its steps, since one has sent another kind of frame than rows."""
