"""Measure training steps whose layers are read as they are visited beside layers in memory.

    python -m edgellm.bench.studies.training.paged MODEL [--records 2] [--tokens 128] [--rank 16]
        [--on q,v] [--rounds 3] [--pinned 0] [--alone]

Both compute layers again on the way down, in turns, after a round that is not counted. Reported are
seconds and processor time of the median step and their ratio, the layers that a step reads, the
share of it in which arithmetic waited for the disk, whether loss and derivatives are the same bits,
and the process' peak memory.
``--alone`` leaves out the model in memory, which may have no room.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.console.terminal import write_line
from edgellm.console.units import size
from edgellm.device.machine import peak_process_memory
from edgellm.hub.resolve import locate
from edgellm.memory_plan.budget_planner import spread
from edgellm.settings import LoadSettings
from edgellm.training.gradients import StepGradients
from edgellm.training.learners.adapter_memory import BUFFERS
from edgellm.training.learners.token_loss import step_gradients
from edgellm.training.low_rank import Change, LoraSettings, initial_changes, targets_named
from edgellm.training.micro_batch import (
    NOT_ASKED,
    MicroBatch,
    TrainingSequence,
    micro_batches,
    token_ids,
)
from edgellm.training.trained_model import LayersInMemory, OpenModel


@dataclass(slots=True)
class Side:
    """A model that is open for training, and what its steps took.

    Attributes:
        opened: the model.
        seconds: of each step.
        processor: seconds of all threads together.
        reads: layers.
        waited: seconds.
    """

    opened: OpenModel
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def step(self, batches: Sequence[MicroBatch], numbers: Sequence[Change]) -> StepGradients:
        """Take loss and derivatives of a step, and note what that took."""
        layers = self.opened.model.layers
        reads, waited = layers.reads, layers.waited
        begun, processor = time.perf_counter(), time.process_time()
        found = step_gradients(self.opened.model, batches, numbers)
        self.seconds.append(time.perf_counter() - begun)
        self.processor.append(time.process_time() - processor)
        self.reads.append(layers.reads - reads)
        self.waited.append(layers.waited - waited)
        return found

    def forget(self) -> None:
        """Forget the steps so far."""
        for noted in (self.seconds, self.processor, self.reads, self.waited):
            noted.clear()


def sides_of(
    checkpoint: Checkpoint, lora: LoraSettings, pinned: int, *, alone: bool, stack: ExitStack
) -> list[Side]:
    """Open a model with some layers in memory, and one with all of them."""
    count = checkpoint.config.num_hidden_layers
    kept = [LayersInMemory(spread(pinned, count), BUFFERS)]
    if not alone:
        kept.append(LayersInMemory(range(count), BUFFERS))
    sides = [Side(OpenModel(checkpoint, lora, memory, LoadSettings())) for memory in kept]
    for side in sides:
        stack.callback(side.opened.close)
    return sides


def draw_sequences(checkpoint: Checkpoint, count: int, tokens: int) -> list[TrainingSequence]:
    """Return sequences of tokens that are drawn, all of which are learned."""
    draws = np.random.default_rng(0)
    drawn = draws.integers(5, checkpoint.config.vocab_size, (count, tokens)).tolist()
    return [
        TrainingSequence(token_ids(ids), token_ids((*ids[1:], NOT_ASKED)), number)
        for number, ids in enumerate(drawn)
    ]


def are_equal(one: StepGradients, other: StepGradients) -> bool:
    """Return whether loss and derivatives are the same bits."""
    pairs = zip(one.by_changes, other.by_changes, strict=True)
    return one.loss == other.loss and all(
        bool(mx.array_equal(change[name], same[name])) for change, same in pairs for name in change
    )


def main(words: Sequence[str] | None = None) -> None:
    """Take the steps that are asked for."""
    parser = argparse.ArgumentParser(prog="paged", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--records", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--on", default="q,v")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pinned", type=int, default=0)
    parser.add_argument("--alone", action="store_true")
    asked = parser.parse_args(words)
    checkpoint = read_checkpoint(Path(locate(asked.model)))
    lora = LoraSettings(rank=asked.rank, dropout=0.0, targets=targets_named(asked.on))
    sequences = draw_sequences(checkpoint, asked.records, asked.tokens)
    batches = micro_batches(sequences, asked.records * asked.tokens)
    numbers = initial_changes(checkpoint.config, lora, 0)
    with ExitStack() as stack:
        sides = sides_of(checkpoint, lora, asked.pinned, alone=asked.alone, stack=stack)
        same = [True]
        for number in range(asked.rounds + 1):
            found = [side.step(batches, numbers) for side in sides]
            same += [are_equal(found[0], other) for other in found[1:]]
            if not number:  # it compiles, and fills the buffers
                for side in sides:
                    side.forget()
    paged = sides[0]
    share = sum(paged.waited) / sum(paged.seconds)
    write_line(
        f"paged: {statistics.median(paged.seconds):.2f} s a step, "
        f"{statistics.median(paged.processor):.2f} s of processor time, {paged.reads[-1]} layers "
        f"read, waited for the disk {100 * share:.2f} % of it; peak {size(peak_process_memory())}"
    )
    for whole in sides[1:]:
        ratio = statistics.median(paged.seconds) / statistics.median(whole.seconds)
        processor = statistics.median(paged.processor) / statistics.median(whole.processor)
        write_line(
            f"in memory: {statistics.median(whole.seconds):.2f} s a step, "
            f"{statistics.median(whole.processor):.2f} s of processor time; paged takes "
            f"{ratio:.3f} times as long, {processor:.3f} times the processor time; bits are "
            f"{'equal' if all(same) else 'DIFFERENT'}"
        )


if __name__ == "__main__":
    main()
