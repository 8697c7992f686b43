"""Plans the memory of full fine-tuning: all is there at once, nothing is read as needed."""

# T tokens of a micro-batch, E hidden, H heads, V vocabulary

from __future__ import annotations

import math
from dataclasses import dataclass

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import MemoryBudgetError
from edgellm.training.full.head import LOGITS
from edgellm.training.full.weights import count_all, number_shapes
from edgellm.training.micro_batch import micro_sizes
from edgellm.training.operations.layer_floats import result_floats
from edgellm.training.trained_model import CACHE_BYTES

ITEM = 4
"""Bytes of a number: all is float32."""

COPIES = 4
"""Of each number: itself, its derivative and both moments."""

MOVED_COPIES = 6
"""Of the largest array, as it is moved: then nothing of a micro-batch is in memory."""

SUMMED_COPIES = 3
"""Of the largest array, as its derivatives are summed."""

PROCESS_BYTES = 200 << 20
"""Python, MLX, NumPy and the tokenizer, before a model is there."""

BACKWARD_FLOATS = 3.6
"""Arrays of a layer's widths that its derivatives hold at once."""

SCORES = 2.2
"""Matrices of attention's scores that they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullMemory:
    """Bytes of full fine-tuning.

    Attributes:
        count: numbers that are learned.
        numbers: bytes of these, their derivatives and moments.
        spare: of an array that is moved, or whose derivatives are summed.
        data: of the tokens of all sequences.
        kept_inputs: of each layer, for the tokens of a micro-batch.
        results: of the products of all layers; 0 where there is no room for them.
        backward: derivatives of one layer, or of the output matrix.
        process: what a process takes without a model, with MLX's cache.
        micro_tokens: tokens that go through the model together.
        copies: of each number: more than usual where other machines send derivatives, fewer where
            another one has the moments.
    """

    count: int
    numbers: int
    spare: int
    data: int
    kept_inputs: int
    results: int = 0
    backward: int
    process: int = PROCESS_BYTES + CACHE_BYTES
    micro_tokens: int
    copies: int = COPIES

    @property
    def of_numbers(self) -> str:
        """The other arrays of as many numbers, in words."""
        if self.copies < COPIES:
            return "derivatives and a message"
        if self.copies > COPIES:
            return "derivatives, moments and messages"
        return "derivatives and moments"

    @property
    def parts(self) -> dict[str, int]:
        """The bytes of each part, by what people call it; what takes none is left out."""
        parts = {
            f"numbers, {self.of_numbers}": self.numbers,
            "an array that moves": self.spare,
            "data": self.data,
            "kept inputs": self.kept_inputs,
            "results of products": self.results,
            "a layer's backward, or the head's": self.backward,
            "process": self.process,
        }
        return {name: nbytes for name, nbytes in parts.items() if nbytes}

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    def in_words(self) -> str:
        """Return what a person should know of it."""
        return (
            f"{self.total / 1e9:.2f} GB: {self.count / 1e6:.1f} M numbers, all of them learned, "
            f"take {self.numbers / 1e9:.2f} GB with {self.of_numbers}"
        )


def plan_full(
    config: ModelConfig,
    budget: int,
    *,
    micro_tokens: int,
    longest: int,
    data: int = 0,
    copies: int = COPIES,
) -> FullMemory:
    """Return the memory of full fine-tuning; micro-batches are smaller where memory is.

    Results of products are kept where there is room for them, if need be of a smaller micro-batch.

    Args:
        config: of the model.
        budget: bytes of the process.
        micro_tokens: that go through the model together, at most.
        longest: tokens of the longest sequence.
        data: bytes of all sequences.
        copies: of each number.

    Raises:
        MemoryBudgetError: the budget is too small even for one sequence at a time.
    """
    for keeps_results in (True, False):
        for tokens in micro_sizes(max(micro_tokens, longest), longest):
            memory = _memory(
                config, tokens, longest, data, keeps_results=keeps_results, copies=copies
            )
            if memory.total <= budget:
                return memory
    raise MemoryBudgetError(
        f"learning every number takes {memory.total / 1e9:.2f} GB, and the budget is "
        f"{budget / 1e9:.2f} GB",
        hint="leave --full out to learn an adapter (LoRA), which takes little more than "
        f"the model; or give --memory {math.ceil(memory.total / 1e6)}MB",
    )


def least_full(config: ModelConfig, *, longest: int) -> int:
    """Return the smallest budget that ``plan_full`` takes, of whole megabytes."""
    return math.ceil(_memory(config, longest, longest, 0).total / 1e6) * 1_000_000


def _memory(
    config: ModelConfig,
    tokens: int,
    longest: int,
    data: int,
    *,
    keeps_results: bool = False,
    copies: int = COPIES,
) -> FullMemory:
    hidden, inner = config.hidden_size, config.intermediate_size
    heads = (config.num_attention_heads, config.num_key_value_heads)
    queries, keys = (count * config.head_dim for count in heads)
    widths = 4 * hidden + 3 * queries + 3 * keys + 5 * inner
    scores = SCORES * config.num_attention_heads * longest**2
    layer = BACKWARD_FLOATS * widths * tokens + scores
    head = 3 * min(LOGITS, tokens * config.vocab_size) + 4 * tokens * hidden
    results = 0
    if keeps_results:
        results = config.num_hidden_layers * result_floats(config, tokens) * ITEM
    sizes = [math.prod(shape) for part in number_shapes(config) for shape in part.values()]
    count = count_all(config)
    kept_inputs = (config.num_hidden_layers + 2) * tokens * hidden * ITEM
    backward = int(ITEM * max(layer, head))
    moved = MOVED_COPIES * ITEM * max(sizes) - kept_inputs - results - backward
    return FullMemory(
        count=count,
        numbers=copies * ITEM * count,
        spare=max(SUMMED_COPIES * ITEM * max(sizes), moved),
        data=data,
        kept_inputs=kept_inputs,
        results=results,
        backward=backward,
        micro_tokens=tokens,
        copies=copies,
    )
