"""The memory that training takes, part by part, and which layers stay in it."""

# T tokens of a micro-batch, E hidden, H heads, Q queries, K keys and values, I inner, V vocabulary

from __future__ import annotations

from dataclasses import dataclass

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.errors import MemoryBudgetError
from edgellm.memory_plan.budget_planner import spread
from edgellm.training.gradients import HEAD_ROWS
from edgellm.training.low_rank import LoraSettings, first_changed
from edgellm.training.products import BLOCK_BYTES
from edgellm.training.trained_model import LayersInMemory

ITEM = 4
"""Bytes of a number of hidden states and derivatives."""

PROCESS_BYTES = 200 << 20
"""Python, MLX and NumPy, before a model is there."""

BACKWARD_FLOATS = 3.1
"""Arrays of a layer's widths that its derivatives hold at once, measured on the bundled model."""

BUFFERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """Bytes of training.

    Attributes:
        outer: norm, output matrix, and the embedding where it is the same.
        layers: of the layers that stay, and of the buffers for the others.
        adapter: numbers, derivatives and both moments.
        kept_inputs: of each changed layer, for all tokens of a step.
        backward: derivatives of one layer, and of the head.
        process: what a process takes without a model.
        pinned: layers that stay.
        count: layers in all.
    """

    outer: int
    layers: int
    adapter: int
    kept_inputs: int
    backward: int
    process: int = PROCESS_BYTES
    pinned: int
    count: int

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.outer
            + self.layers
            + self.adapter
            + self.kept_inputs
            + self.backward
            + self.process
        )

    @property
    def in_memory(self) -> LayersInMemory:
        """Which layers are in memory."""
        return LayersInMemory(spread(self.pinned, self.count), BUFFERS)

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
) -> TrainingMemory:
    """Return the memory of training with as many layers pinned as the budget has room for.

    Args:
        checkpoint: the model.
        lora: what is learned.
        budget: bytes of the process.
        step_tokens: of a step, at most.
        micro_tokens: that go through a layer together.
        longest: tokens of the longest sequence.

    Raises:
        MemoryBudgetError: the budget is too small even with no layer pinned.
    """
    config = checkpoint.config
    count = config.num_hidden_layers
    changed = count - first_changed(lora, count)
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    widths = 4 * hidden + 3 * queries + 3 * keys + 5 * inner
    shapes = config.tensor_shapes()
    numbers = changed * sum(lora.rank * sum(shapes[f"{target}.weight"]) for target in lora.targets)
    tokens = max(micro_tokens, longest)
    scores = 2.2 * config.num_attention_heads * longest**2
    head = 4 * HEAD_ROWS * config.vocab_size
    backward = ITEM * max(BACKWARD_FLOATS * widths * tokens + scores, head) + 3 * BLOCK_BYTES
    layer_bytes = [layer.nbytes for layer in checkpoint.layers]
    fixed = TrainingMemory(
        outer=checkpoint.norm.nbytes + (checkpoint.lm_head or checkpoint.embed_tokens).nbytes,
        layers=min(BUFFERS, count) * max(layer_bytes),
        adapter=4 * ITEM * numbers,
        kept_inputs=(changed + 2) * step_tokens * hidden * ITEM,
        backward=int(backward),
        pinned=0,
        count=count,
    )
    if fixed.total > budget:
        raise MemoryBudgetError(
            f"training takes {fixed.total / 1e9:.2f} GB, and the budget is {budget / 1e9:.2f} GB",
            hint="give more with --memory, or take a smaller --batch or --max-tokens",
        )
    room = budget - fixed.total + fixed.layers
    if sum(layer_bytes) <= room:
        return _with_layers(fixed, count, sum(layer_bytes))
    pinned = (room - fixed.layers) // max(layer_bytes)
    pinned = min(pinned, count - BUFFERS)
    return _with_layers(fixed, pinned, fixed.layers + pinned * max(layer_bytes))


def _with_layers(fixed: TrainingMemory, pinned: int, nbytes: int) -> TrainingMemory:
    return TrainingMemory(
        outer=fixed.outer,
        layers=nbytes,
        adapter=fixed.adapter,
        kept_inputs=fixed.kept_inputs,
        backward=fixed.backward,
        pinned=pinned,
        count=fixed.count,
    )
