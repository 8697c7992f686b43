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
from edgellm.training.gradients import HEAD_ROWS
from edgellm.training.low_rank import LoraSettings, count_learned, first_changed
from edgellm.training.operations.products import BLOCK_BYTES
from edgellm.training.trained_model import CACHE_BYTES, LayersInMemory

ITEM = 4
"""Bytes of a number of hidden states and derivatives."""

PROCESS_BYTES = 200 << 20
"""Python, MLX, NumPy and the kernels, before a model is there."""

BACKWARD_FLOATS = 3.6
"""Arrays of a layer's widths that its derivatives hold at once, measured on the bundled model."""

SCORES = 2.2
"""Matrices of attention's scores that they hold, likewise."""

BUFFERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """Bytes of training.

    Attributes:
        outer: norm, output matrix, and the embedding where it is the same.
        layers: of the layers that stay, and of the buffers for the others.
        adapter: numbers, derivatives and both moments, and a reference's numbers.
        kept_inputs: of each changed layer, for all tokens of a step, and a reference's states.
        backward: derivatives of one layer, and of the head.
        results: of the products and attention of all layers, so that they need not be computed
            again; 0 where there is no room for them besides all layers.
        process: what a process takes without a model, with MLX's cache and the reads under way.
        pinned: layers that stay.
        count: layers in all.
        micro_tokens: tokens that go through a layer together.
    """

    outer: int
    layers: int
    adapter: int
    kept_inputs: int
    backward: int
    process: int = PROCESS_BYTES + CACHE_BYTES + BOUNCE_BYTES
    results: int = 0
    pinned: int
    count: int
    micro_tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.outer
            + self.layers
            + self.adapter
            + self.kept_inputs
            + self.backward
            + self.results
            + self.process
        )

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
        return f"{self.total / 1e9:.2f} GB: {held}"

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
) -> TrainingMemory:
    """Return the memory of training with as many layers pinned as the budget has room for.

    A step goes through a layer in smaller parts where it does not fit at once.

    Args:
        checkpoint: the model.
        lora: what is learned.
        budget: bytes of the process.
        step_tokens: of a step, at most.
        micro_tokens: that go through a layer together, at most.
        longest: tokens of the longest sequence.
        reference: whether a step's tokens also go through the model as it was.

    Raises:
        MemoryBudgetError: the budget is too small even with no layer pinned.
    """
    most = min(max(micro_tokens, longest), step_tokens)
    while True:
        least = _least(checkpoint, lora, step_tokens, most, longest, reference=reference)
        if least.total <= budget or most <= longest:
            break
        most = max(longest, most // 2)
    if least.total > budget:
        raise MemoryBudgetError(
            f"training takes {least.total / 1e9:.2f} GB, and the budget is {budget / 1e9:.2f} GB",
            hint=f"give --memory {math.ceil(least.total / 1e6)}MB, or take a smaller --batch or "
            "--max-tokens",
        )
    layer_bytes = [layer.nbytes for layer in checkpoint.layers]
    room = budget - least.total + least.layers
    if sum(layer_bytes) <= room:
        whole = replace(least, pinned=least.count, layers=sum(layer_bytes))
        results = _results(checkpoint, lora, step_tokens)
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
) -> int:
    """Return the smallest budget that ``plan_training`` takes, of whole megabytes."""
    tokens = min(longest, step_tokens)
    least = _least(checkpoint, lora, step_tokens, tokens, longest, reference=reference)
    return math.ceil(least.total / 1e6) * 1_000_000


def _results(checkpoint: Checkpoint, lora: LoraSettings, tokens: int) -> int:
    """Return the bytes of all products' and attention's results, of the layers that are changed."""
    config = checkpoint.config
    changed = config.num_hidden_layers - first_changed(lora, config.num_hidden_layers)
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    widths = 2 * config.hidden_size + 2 * config.intermediate_size + heads * config.head_dim
    return changed * tokens * widths * ITEM


def _least(
    checkpoint: Checkpoint,
    lora: LoraSettings,
    step_tokens: int,
    tokens: int,
    longest: int,
    *,
    reference: bool,
) -> TrainingMemory:
    """Return the memory with no layer pinned, and ``tokens`` in a layer together."""
    config = checkpoint.config
    count = config.num_hidden_layers
    changed = count - first_changed(lora, count)
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    widths = 4 * hidden + 3 * queries + 3 * keys + 5 * inner
    shapes = config.tensor_shapes()
    numbers = count_learned(config, lora)
    squares = 0
    if lora.dora:  # of rows, with those that lie beside them
        squares = changed * sum(shape[0] for shape in shapes.values() if len(shape) == 2)
    scores = SCORES * config.num_attention_heads * longest**2
    head = 4 * HEAD_ROWS * config.vocab_size
    backward = ITEM * max(BACKWARD_FLOATS * widths * tokens + scores, head) + 3 * BLOCK_BYTES
    # before and after a layer
    states = (changed + 2 + 2 * reference) * step_tokens
    return TrainingMemory(
        outer=checkpoint.norm.nbytes + (checkpoint.lm_head or checkpoint.embed_tokens).nbytes,
        layers=min(BUFFERS, count) * max(layer.nbytes for layer in checkpoint.layers),
        adapter=ITEM * ((4 + reference) * numbers + squares),
        kept_inputs=states * hidden * ITEM,
        backward=int(backward),
        pinned=0,
        count=count,
        micro_tokens=tokens,
    )
