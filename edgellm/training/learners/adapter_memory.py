"""The memory that training takes, part by part, and which layers stay in it."""

# T tokens of a micro-batch, E hidden, H heads, Q queries, K keys and values, I inner, V vocabulary

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device import machine as device
from edgellm.errors import MemoryBudgetError
from edgellm.memory_plan.budget_planner import spread
from edgellm.reading.disk_reader import BOUNCE_BYTES
from edgellm.training.gradients import head_rows
from edgellm.training.kept_inputs import UNDER_WAY
from edgellm.training.low_rank import LoraSettings, count_learned, first_changed
from edgellm.training.micro_batch import micro_sizes
from edgellm.training.operations.layer_floats import layer_floats, result_floats
from edgellm.training.operations.products import BLOCK_BYTES
from edgellm.training.trained_model import CACHE_BYTES, PROCESS_BYTES, LayersInMemory

ITEM = 4
"""Bytes of a number of hidden states and derivatives."""

ANSWERS_BYTES = 16 << 20
"""Of a process whose model has answered questions: what its allocator cannot give back."""

HEAD_FLOATS = 5
"""Arrays of a head's logits that its loss holds; one of them stays, where kernels multiply."""

BUFFERS = 2

COPIES = 4
"""Of the numbers that are learned: themselves, their derivatives and both moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """Bytes of training.

    Attributes:
        outer: norm, output matrix, and the embedding where it is the same.
        layers: of the layers that stay, and of the buffers for the others.
        adapter: numbers, derivatives and both moments, a reference's numbers, lengths of rows, and
            what other machines send of them.
        kept_inputs: of each changed layer whose inputs stay in memory, for all tokens of a step;
            of those that are being written or read; and a reference's states.
        backward: derivatives of one layer, and of the head.
        results: of the products and attention of all layers, so that they need not be computed
            again; 0 where there is no room for them besides all layers.
        process: what a process takes without a model, with MLX's cache, the reads under way, and
            what answers before training leave.
        data: of the tokens of all sequences.
        pinned: layers that stay.
        count: layers in all.
        micro_tokens: tokens that go through a layer together.
        inputs_on_disk: changed layers whose inputs go to a file, and come back.
        input_bytes: of a layer's inputs.
    """

    outer: int
    layers: int
    adapter: int
    kept_inputs: int
    backward: int
    process: int
    data: int = 0
    results: int = 0
    pinned: int
    count: int
    micro_tokens: int
    inputs_on_disk: int = 0
    input_bytes: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The bytes of each part, by what people call it; what takes none is left out."""
        parts = {
            "norm, head and embedding": self.outer,
            "layers": self.layers,
            "adapter, derivatives and moments": self.adapter,
            "kept inputs": self.kept_inputs,
            "a layer's backward, or the head's": self.backward,
            "results that are not computed again": self.results,
            "data": self.data,
            "process": self.process,
        }
        return {name: nbytes for name, nbytes in parts.items() if nbytes}

    @property
    def in_memory(self) -> LayersInMemory:
        """Which layers are in memory."""
        pinned = spread(self.pinned, self.count)
        return LayersInMemory(pinned, BUFFERS, recompute=self.results == 0)

    def in_words(self) -> str:
        """Return what a person should know of it."""
        held = f"{self.pinned} of {self.count} layers in memory"
        if self.pinned < self.count:
            held += f", at most {self.reads} read a step"
        if self.inputs_on_disk:
            held += f"; {self.disk_bytes / 1e9:.2f} GB of kept inputs written and read a step"
        return f"{self.total / 1e9:.2f} GB: {held}"

    @property
    def disk_bytes(self) -> int:
        """Bytes of kept inputs that a step writes to a file, and reads again."""
        return self.inputs_on_disk * self.input_bytes

    @property
    def reads(self) -> int:
        """Layers that a step reads, where all of them are changed."""
        streamed = self.count - self.pinned
        return 2 * (streamed - min(BUFFERS, streamed))


def plan_training(
    checkpoint: Checkpoint,
    lora: LoraSettings,
    budget: int,
    *,
    step_tokens: int,
    micro_tokens: int,
    longest: int,
    reference: bool = False,
    asks: bool = False,
    copies: int = COPIES,
    data: int = 0,
) -> TrainingMemory:
    """Return the memory of training with as many layers pinned as the budget has room for.

    A step goes through a layer in smaller parts where it does not fit at once; where that is not
    enough, as many kept inputs as must go to a file.

    Args:
        checkpoint: the model.
        lora: what is learned.
        budget: bytes of the process.
        step_tokens: of a step, at most.
        micro_tokens: that go through a layer together, at most.
        longest: tokens of the longest sequence.
        reference: whether a step's tokens also go through the model as it was.
        asks: whether the model answers questions before it learns.
        copies: of the numbers that are learned.
        data: bytes of all sequences.

    Raises:
        MemoryBudgetError: the budget is too small even with no layer pinned.
    """
    step = _Step(checkpoint, lora, step_tokens, longest, reference, asks, copies, data)
    least = step.fitting(budget, min(max(micro_tokens, longest), step_tokens))
    if least is None:
        total = step.least.total
        raise MemoryBudgetError(
            f"training takes {total / 1e9:.2f} GB, and the budget is {budget / 1e9:.2f} GB",
            hint=f"give --memory {math.ceil(total / 1e6)}MB, or take a smaller --batch or "
            "--max-tokens",
        )
    layer_bytes = [layer.nbytes for layer in checkpoint.layers]
    room = budget - least.total + least.layers
    if sum(layer_bytes) <= room:
        whole = replace(least, pinned=least.count, layers=sum(layer_bytes))
        results = ITEM * step.changed * result_floats(checkpoint.config, step_tokens)
        if whole.total + results <= budget and not device.has_gpu():
            whole = replace(whole, results=results)
        return whole
    pinned = min((room - least.layers) // max(layer_bytes), least.count - BUFFERS)
    return replace(least, pinned=pinned, layers=least.layers + pinned * max(layer_bytes))


def least_memory(
    checkpoint: Checkpoint,
    lora: LoraSettings,
    *,
    step_tokens: int,
    longest: int,
    reference: bool = False,
    asks: bool = False,
) -> int:
    """Return the smallest budget that ``plan_training`` takes, of whole megabytes."""
    least = _Step(checkpoint, lora, step_tokens, longest, reference, asks).least
    return math.ceil(least.total / 1e6) * 1_000_000


@dataclass(frozen=True, slots=True)
class _Step:
    """The largest step of a run.

    Attributes:
        checkpoint: the model.
        lora: what is learned.
        tokens: of the step.
        longest: tokens of its longest sequence.
        reference: whether its tokens also go through the model as it was.
        asks: whether the model answers questions before it learns.
        copies: of the numbers that are learned.
        data: bytes of all sequences.
    """

    checkpoint: Checkpoint
    lora: LoraSettings
    tokens: int
    longest: int
    reference: bool
    asks: bool
    copies: int = COPIES
    data: int = 0

    @property
    def changed(self) -> int:
        """Layers that are changed."""
        count = self.checkpoint.config.num_hidden_layers
        return count - first_changed(self.lora, count)

    @property
    def least(self) -> TrainingMemory:
        """The least memory: a sequence at a time, and inputs in a file where that is less."""
        tokens = min(self.longest, self.tokens)
        return min(self.memory(tokens), self.memory(tokens, self.changed), key=_total)

    def fitting(self, budget: int, most: int) -> TrainingMemory | None:
        """Return the memory of a step of which as many tokens as may go through a layer at once.

        Inputs go to a file only where memory would not do otherwise. None: nothing fits.
        """
        sizes = micro_sizes(most, self.longest)
        for tokens in sizes:
            found = self.memory(tokens)
            if found.total <= budget:
                return found
        for tokens in sizes:
            found = self.memory(tokens)
            over = -(-(found.total - budget) // found.input_bytes)
            if over + UNDER_WAY <= self.changed:
                return self.memory(tokens, over + UNDER_WAY)
        return None

    def memory(self, tokens: int, on_disk: int = 0) -> TrainingMemory:
        """Return the memory with no layer pinned.

        Args:
            tokens: that are in a layer together.
            on_disk: layers whose inputs are in a file.
        """
        checkpoint, lora = self.checkpoint, self.lora
        config, shapes = checkpoint.config, checkpoint.config.tensor_shapes()
        hidden = config.hidden_size
        squares, blocks = 0, 0
        if lora.dora:  # of rows, with those of matrices that lie beside them
            rows = sum(shape[0] for shape in shapes.values() if len(shape) == 2)
            squares, blocks = self.changed * rows, 3 * BLOCK_BYTES
        logits = head_rows(config.vocab_size) * config.vocab_size
        floats = layer_floats(config, tokens, self.longest) + 2 * logits
        backward = ITEM * max(floats, HEAD_FLOATS * logits) + blocks
        # before and after a layer, of policy and reference
        states = self.changed - on_disk + 2 + 2 * self.reference
        if on_disk:
            states += UNDER_WAY
        input_bytes = self.tokens * hidden * ITEM
        return TrainingMemory(
            outer=checkpoint.norm.nbytes + (checkpoint.lm_head or checkpoint.embed_tokens).nbytes,
            layers=min(BUFFERS, config.num_hidden_layers)
            * max(layer.nbytes for layer in checkpoint.layers),
            adapter=ITEM * ((self.copies + self.reference) * count_learned(config, lora) + squares),
            kept_inputs=states * input_bytes,
            backward=int(backward),
            process=PROCESS_BYTES + CACHE_BYTES + BOUNCE_BYTES + ANSWERS_BYTES * self.asks,
            data=self.data,
            pinned=0,
            count=config.num_hidden_layers,
            micro_tokens=tokens,
            inputs_on_disk=on_disk,
            input_bytes=input_bytes,
        )


def _total(memory: TrainingMemory) -> int:
    return memory.total
