"""How fast the machines of a cluster are: their arithmetic, their disks, the links to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from edgellm.device.streams import borrowed_stream
from edgellm.distributed.gathered import Gathered
from edgellm.distributed.parts.part import shared_settings
from edgellm.distributed.remote.link_speed import (
    LOGIT_TRIPS,
    ROUND_TRIPS,
    answer_seconds,
    trip_seconds,
)
from edgellm.distributed.remote.peer import asking_all
from edgellm.models.arithmetic import arithmetic_of
from edgellm.reading.tuning import measure_disk
from edgellm.runtime.step_time import measure_step

SLOWEST_WEIGHTS = 1e9
"""Bytes of weights per second; slower arithmetic has been seen on no machine."""


class Rates:
    """Speeds of all machines, the first one's first, each measured when it is first asked for.

    All machines measure at the same time, as they would work.

    Args:
        gathered: the machines.
    """

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered

    @cached_property
    def trips(self) -> list[float]:
        """Seconds of a token's hidden state to each machine and back; 0 for this one."""
        config = self._gathered.checkpoint.config
        arithmetic = arithmetic_of(self._gathered.checkpoint, self._gathered.settings)
        nbytes = config.hidden_size * arithmetic.dtype.size
        return [0.0, *(trip_seconds(peer, nbytes, ROUND_TRIPS) for peer in self._gathered.peers)]

    @cached_property
    def logits(self) -> list[float]:
        """Seconds of a short message to each machine and a token's logits back; 0 for this one."""
        nbytes = 4 * self._gathered.checkpoint.config.vocab_size
        return [0.0, *(answer_seconds(peer, nbytes, LOGIT_TRIPS) for peer in self._gathered.peers)]

    @cached_property
    def weights(self) -> list[float]:
        """Bytes of weights per second through each machine's arithmetic of one token."""
        settings = shared_settings(self._gathered.settings)
        asked = {"ask": "arithmetic", "settings": settings}

        def own() -> float:
            with borrowed_stream():
                step = measure_step(self._gathered.checkpoint, self._gathered.settings)
            return step.weights_per_second

        return self._measured(asked, own)

    @cached_property
    def disks(self) -> list[float]:
        """Bytes per second of each machine's disk."""
        layers = self._gathered.checkpoint.layers
        files = {extent.file for layer in layers for extent in layer.extents}
        return self._measured({"ask": "disk"}, lambda: measure_disk(sorted(files)))

    def _measured(self, asked: dict[str, Any], own: Callable[[], float]) -> list[float]:
        peers = self._gathered.peers
        with asking_all(peers, [asked] * len(peers)) as answers:
            return [own(), *(float(answer["answer"]) for answer, _ in answers())]
