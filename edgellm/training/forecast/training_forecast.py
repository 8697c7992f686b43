"""A training run before it begins: memory, bytes read a step, and the time of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.reading.tuning import measure_disk
from edgellm.runtime.forecast import TargetMachine
from edgellm.settings import LoadSettings
from edgellm.training.full.memory import least_full, plan_full
from edgellm.training.full.weights import require_plain
from edgellm.training.learners.adapter_memory import TrainingMemory, least_memory, plan_training
from edgellm.training.learners.arithmetic_rate import (
    OPERATIONS,
    OPERATIONS_OF_ALL,
    OPERATIONS_OF_REFERENCE,
    assumed_rate,
    matrix_numbers,
    measure_rate,
    measure_rate_of_all,
)
from edgellm.training.low_rank import count_learned, first_changed
from edgellm.training.run.settings import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingForecast:
    """A training run before it begins. Sizes in bytes.

    Attributes:
        parts: of the memory, by what people call them.
        total: of all parts.
        budget: that the process may take.
        least: the smallest budget in which such a step can be taken.
        pinned: layers that stay in memory.
        layers: in all.
        learned: numbers that are learned.
        step_tokens: of a step.
        micro_tokens: of them that go through a layer together.
        bytes_read: a step, of layers and of kept inputs.
        bytes_written: a step, of kept inputs.
        operations: of a token.
        disk: bytes a second; None where it was not measured, or nothing is read.
        arithmetic: operations a second.
        is_measured: whether the arithmetic was measured here.
    """

    parts: Mapping[str, int]
    total: int
    budget: int
    least: int
    pinned: int
    layers: int
    learned: int
    step_tokens: int
    micro_tokens: int
    bytes_read: int
    bytes_written: int = 0
    operations: int
    disk: float | None
    arithmetic: float
    is_measured: bool

    @property
    def hidden_from(self) -> int | None:
        """Tokens of a step from which arithmetic takes longer than the disk.

        None where the disk is not known, or never hidden: more tokens have more kept inputs.
        """
        if not self.bytes_read:
            return 0
        if not self.disk:
            return None
        layers = (self.bytes_read - self.bytes_written) / self.disk
        kept = 2 * self.bytes_written / self.step_tokens / self.disk
        gained = self.operations / self.arithmetic - kept
        return math.ceil(layers / gained) if gained > 0 else None

    @property
    def seconds(self) -> float:
        """The time of a step: of its arithmetic or its reads, whichever takes longer."""
        reading = (self.bytes_read + self.bytes_written) / self.disk if self.disk else 0.0
        return max(self.operations * self.step_tokens / self.arithmetic, reading)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            **asdict(self),
            "hidden_from_tokens": self.hidden_from,
            "seconds_a_step": self.seconds,
        }


def forecast_training(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    load: LoadSettings,
    target: TargetMachine | None = None,
    *,
    lengths: Sequence[int],
    here: bool,
    asks: bool = False,
) -> TrainingForecast:
    """Return the memory and time of a step, before the model is opened.

    Args:
        checkpoint: the model.
        settings: of the run.
        load: which memory and arithmetic.
        target: another machine, whose arithmetic is assumed.
        lengths: tokens of each record of the largest step; of preferences, of each answer's.
        here: whether the model's files are on this machine, so that it can be measured.
        asks: whether the model answers questions before it learns.

    Raises:
        MemoryBudgetError, ConfigError: as training does.
        ReadError: a file cannot be read.
    """
    target = target or TargetMachine()
    budget = budget_for(load, target.described_memory())
    if settings.method == "full":
        measured = load if here and target == TargetMachine() else None
        return _of_all(checkpoint, settings, budget, lengths, measured)
    lora = settings.lora
    step_tokens, longest = sum(lengths), max(lengths)
    prefers = settings.stage == "dpo"
    if prefers:  # of each record two answers
        step_tokens *= 2
    memory = plan_training(
        checkpoint,
        lora,
        budget,
        step_tokens=step_tokens,
        micro_tokens=settings.micro_tokens,
        longest=longest,
        reference=prefers,
        asks=asks,
    )
    config = checkpoint.config
    first = first_changed(lora, config.num_hidden_layers)
    bytes_read = bytes_of_a_step(checkpoint, memory, first) + memory.disk_bytes
    disk = target.disk
    if disk is None and here and bytes_read:
        files = {extent.file for layer in checkpoint.layers for extent in layer.extents}
        disk = measure_disk(sorted(files))
    rate = assumed_rate()
    if here and target == TargetMachine():
        rate = measure_rate(checkpoint, lora, load, tokens=min(step_tokens, memory.micro_tokens))
    return TrainingForecast(
        parts=memory.parts,
        total=memory.total,
        budget=budget,
        least=least_memory(
            checkpoint,
            lora,
            step_tokens=step_tokens,
            longest=longest,
            reference=prefers,
            asks=asks,
        ),
        pinned=memory.pinned,
        layers=memory.count,
        learned=count_learned(config, lora),
        step_tokens=step_tokens,
        micro_tokens=memory.micro_tokens,
        bytes_read=bytes_read,
        bytes_written=memory.disk_bytes,
        operations=(OPERATIONS + (OPERATIONS_OF_REFERENCE if prefers else 0))
        * matrix_numbers(checkpoint),
        disk=disk,
        arithmetic=rate.operations,
        is_measured=rate.measured,
    )


def _of_all(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    budget: int,
    lengths: Sequence[int],
    measured: LoadSettings | None,
) -> TrainingForecast:
    """Return the forecast of a run that learns every number, which are all in memory.

    Its arithmetic is ``measured`` with these settings here; None: it is assumed.
    """
    require_plain(checkpoint)
    config, longest = checkpoint.config, max(lengths)
    memory = plan_full(config, budget, micro_tokens=settings.micro_tokens, longest=longest)
    rate = assumed_rate()
    if measured is not None:
        tokens = min(sum(lengths), memory.micro_tokens)
        rate = measure_rate_of_all(checkpoint, measured, tokens=tokens)
    return TrainingForecast(
        parts=memory.parts,
        total=memory.total,
        budget=budget,
        least=least_full(config, longest=longest),
        pinned=config.num_hidden_layers,
        layers=config.num_hidden_layers,
        learned=memory.count,
        step_tokens=sum(lengths),
        micro_tokens=min(memory.micro_tokens, sum(lengths)),
        bytes_read=0,
        operations=OPERATIONS_OF_ALL * matrix_numbers(checkpoint),
        disk=None,
        arithmetic=rate.operations,
        is_measured=rate.measured,
    )


def bytes_of_a_step(checkpoint: Checkpoint, memory: TrainingMemory, first: int) -> int:
    """Return the bytes of layers that a step reads once the buffers are filled.

    Args:
        checkpoint: the model.
        memory: which layers stay in it.
        first: the number of the first layer that is changed: visits turn there.
    """
    in_memory = memory.in_memory
    pinned = set(in_memory.pinned)
    count = memory.count
    visits = [*range(count), *reversed(range(first, count))]
    visits = [layer for layer in visits if layer not in pinned]
    return sum(checkpoint.layers[layer].nbytes for layer in reads(visits, in_memory.buffers))


def reads(visits: Sequence[int], buffers: int) -> list[int]:
    """Return what a round of visits reads, as ``LayerVisits`` reads ahead on a fast disk."""
    held: set[int] = set()
    found: list[int] = []
    # the first rounds fill the buffers
    for place in range(3 * len(visits)):
        if place == 2 * len(visits):
            found.clear()
        at = (place + 1) % len(visits)
        ahead = [*visits[at:], *visits[:at]]
        for using in ({visits[place % len(visits)]}, set[int]()):
            while missing := [layer for layer in ahead if layer not in held]:
                if len(held) == buffers:
                    last = max(held - using, key=ahead.index, default=None)
                    if last is None or ahead.index(last) <= ahead.index(missing[0]):
                        break
                    held.remove(last)
                held.add(missing[0])
                found.append(missing[0])
    return found
