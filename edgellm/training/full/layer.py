"""Decoder layers whose weights are arguments of each call."""

# T tokens of all sequences, E hidden

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.kv_cache.sequence_kv import SequenceKV
from edgellm.models.linear import Tensors
from edgellm.models.registry import block_class
from edgellm.training.adapted_block import Results, differentiated, put_on_processor
from edgellm.training.full.arithmetic import stacked_product
from edgellm.training.low_rank import Change
from edgellm.training.operations.adapted_product import Kept
from edgellm.training.operations.kernel_products import KernelProducts


class LearnedStack:
    """The product of matrices with the same input, which may be differentiated by.

    Args:
        tensors: of the layer, by their names inside it.
        members: names of the matrices.
        products: multiply where there is no GPU.
        result: of the same call before, or empty, to be filled; None: none is kept.
    """

    def __init__(
        self,
        tensors: Tensors,
        members: Sequence[str],
        products: KernelProducts,
        result: list[mx.array] | None,
    ) -> None:
        self._products, self._result = products, result
        self._weights = [tensors[f"{member}.weight"] for member in members]
        self.out_features: int = sum(weight.shape[0] for weight in self._weights)
        self._bias: mx.array | None = None
        biases = [tensors.get(f"{member}.bias") for member in members]
        if any(bias is not None for bias in biases):
            parts = [
                mx.zeros(weight.shape[0]) if bias is None else bias
                for weight, bias in zip(self._weights, biases, strict=True)
            ]
            self._bias = mx.concatenate(parts)

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``, of all members side by side."""
        product = stacked_product(x, self._weights, self._products, result=self._result)
        if self._bias is None:
            return product
        return product + self._bias


class LearnedLayers:
    """The decoder layers of a model, whose weights are arguments of each call.

    Args:
        config: of the model.
        kernels: compute; None where MLX and NumPy do.
        look_up: called before each visit of a layer; it may raise.
    """

    def __init__(
        self,
        config: ModelConfig,
        kernels: KernelEngine | None,
        look_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._config, self._kernels, self._look_up = config, kernels, look_up
        self._products = KernelProducts(kernels)
        self._format = KVFormat(config.num_key_value_heads, config.head_dim, mx.float32)

    @contextmanager
    def layer(self, index: int) -> Generator[LearnedLayers]:
        """Lend a layer: they compute any."""
        self._look_up()
        yield self

    def __call__(
        self,
        index: int,
        hidden: mx.array,
        lengths: Sequence[int],
        tensors: Change,
        kept: Kept,
        *,
        results: Results | None = None,
    ) -> mx.array:
        """Return the hidden states (1, T, E) after a layer.

        Args:
            index: the layer's number.
            hidden: of sequences side by side (1, T, E).
            lengths: tokens of each.
            tensors: of the layer, by their names inside it, in float32.
            kept: nothing: there is no dropout.
            results: of the same call before, or empty, to be filled; None: none are kept.
        """
        layer = self._config.layer(index)
        block = block_class(self._config)(self._config, layer, tensors, lambda _: None)

        def result_of(part: str) -> list[mx.array] | None:
            return None if results is None else results.setdefault(part, [])

        for stack, members in STACKS.items():
            part, name = stack.split(".")
            product = LearnedStack(tensors, members, self._products, result_of(stack))
            setattr(getattr(block, part), name, product)
        attention = put_on_processor(block, layer, self._kernels)
        if attention is not None:
            attention.result = result_of("attention")
        caches = [(SequenceKV(self._format, layer.window), length) for length in lengths]
        return block(hidden, caches)

    def back(
        self,
        index: int,
        hidden: mx.array,
        lengths: Sequence[int],
        tensors: Change,
        kept: Kept,
        *,
        gradient: mx.array,
        results: Results | None = None,
    ) -> tuple[mx.array, Change]:
        """Return derivatives by a layer's input (1, T, E) and by its tensors.

        Args:
            index, hidden, lengths, tensors, kept, results: as of the call upwards.
            gradient: the loss's derivative by what came out.
        """

        def through(state: mx.array, numbers: Change) -> mx.array:
            return self(index, state, lengths, numbers, kept, results=results)

        return differentiated(through, hidden, gradient, tensors)
