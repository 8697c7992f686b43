"""The loss's derivatives on a text, with one layer of the model in memory at a time.

Layers run forwards, and only what went into each is kept; then backwards, each computed again from
that and differentiated by ``mx.vjp``. Every layer and the output matrix are read twice.
"""

# B sequences, T tokens of each, N = B * T, E hidden, R rows of a matrix, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from edgellm.checkpoint.folder import LAYER_PREFIX
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import QUANTIZED_PARTS
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.converters.mixed_bits.observed_linear import ObservedLinear, multiply
from edgellm.converters.tensors.recipe import Recipe
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.weight_stream import as_array, matrix_rows, row_parts
from edgellm.kv_cache.cache import KVCache
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.models.linear import Tensors
from edgellm.models.llama import Block
from edgellm.models.registry import block_class
from edgellm.training.operations.attention import attention_by_numpy

SAMPLED_ROWS = 512
"""Rows of a matrix that are looked at, of those that lie evenly apart; of small ones, all."""

EMBEDDING, HEAD, NORM = "model.embed_tokens", "lm_head", "model.norm.weight"


@dataclass(frozen=True, slots=True)
class FisherRows:
    """Rows of a matrix, and for each weight the mean square of the loss's derivative by it.

    Attributes:
        path: the matrix's path.
        rows: its weights in float32, (R, in).
        fisher: the diagonal of the Fisher information, (R, in); scaled to what all rows have.
    """

    path: str
    rows: mx.array
    fisher: mx.array


class BackwardPass:
    """One text through a model, and its loss's derivatives back.

    Args:
        source: the model.
        recipe: its matrices.
        sequences: token ids, all of one length.
        on_read: called with bytes read and bytes to be read.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        sequences: Sequence[Sequence[int]],
        on_read: Callable[[int, int], None],
    ) -> None:
        self.loss: float = 0.0
        """Nats a token, of all but the first ones; known once ``run`` has passed the head."""
        self._source = source
        self._matrices = recipe.matrices
        self._config = ModelConfig.from_dict(recipe.config)
        self._block = block_class(self._config)
        self._sequences = sequences
        self._on_read = on_read
        self._head = HEAD
        if HEAD not in self._matrices:  # tied
            self._head = EMBEDDING
        streamed = [path for path in self._matrices if path.startswith(LAYER_PREFIX)]
        self._bytes_total = 2 * sum(
            self._row_bytes(path) * self._matrices[path].shape[0]
            for path in (*streamed, self._head)
        )
        self._bytes_done = 0

    def run(self) -> Iterator[FisherRows]:
        """Yield rows of every matrix: the head's, the layers' from the last on, the embedding's.

        The embedding's rows are those that the text has looked up. If it is tied, it occurs twice.

        Raises:
            ReadError: the source cannot be read.
        """
        tokens = [token for sequence in self._sequences for token in sequence]
        looked_up = sorted(set(tokens))
        embeddings = mx.concatenate([self._rows(EMBEDDING, id_, id_ + 1) for id_ in looked_up])
        place = {token: index for index, token in enumerate(looked_up)}
        places = mx.array([place[token] for token in tokens])
        scale = self._block.embedding_scale(self._config)
        hidden = scale * embeddings[places][None]  # (1, N, E), sequences side by side

        layer_inputs = []
        for index in range(self._config.num_hidden_layers):
            layer_inputs.append(hidden)
            block, _ = self._observed_block(index, self._read_layer(index))
            hidden = block(hidden, self._caches(index))
            mx.eval(hidden)
            del block
            mx.clear_cache()

        gradient, seen = self._differentiate_head(hidden)
        yield seen
        while layer_inputs:
            index = len(layer_inputs) - 1
            gradient, parts = self._differentiate_layer(index, layer_inputs.pop(), gradient)
            while parts:  # each is computed when it is looked at, and let go
                yield parts.pop()
                mx.clear_cache()

        # a token's derivative is that by its row, so nothing is averaged over outputs here
        squares = mx.zeros_like(embeddings).at[places].add(mx.square(scale * gradient[0]))
        yield FisherRows(EMBEDDING, embeddings, squares / len(tokens))

    def _differentiate_head(self, hidden: mx.array) -> tuple[mx.array, FisherRows]:
        """Return the summed loss's derivative by the head's input (1, N, E), and the head's rows.

        Logits are made for some words of the vocabulary at a time, so the softmax takes two reads:
        one for its denominator, one for ``softmax - 1 where the next token is``, its derivative.
        """
        norm = self._block.norm(self._vector(NORM), self._config)
        x = norm(hidden)[0]  # (N, E)
        targets = mx.array([token for ids in self._sequences for token in (*ids[1:], -1)])
        counted = targets >= 0  # nothing follows a sequence's last token

        log_sum = mx.full(targets.shape, -mx.inf)  # (N,)
        for _, rows in self._pieces(self._head):
            logits, _ = self._logits(x, rows)
            log_sum = mx.logaddexp(log_sum, mx.logsumexp(logits, axis=1))
            mx.eval(log_sum)

        by_x, target_logits = mx.zeros_like(x), mx.zeros_like(log_sum)
        step = _sampling_step(self._matrices[self._head].shape[0])
        squares, sample = [], []
        for start, rows in self._pieces(self._head):
            logits, slope = self._logits(x, rows)
            is_target = targets[:, None] == mx.arange(start, start + len(rows))
            target_logits += mx.where(is_target, logits, 0).sum(axis=1)
            by_logits = (mx.exp(logits - log_sum[:, None]) - is_target) * counted[:, None] * slope
            by_x += multiply(by_logits, rows.T)
            squares.append(mx.square(by_logits).mean(axis=0))
            sample.append(rows[-start % step :: step].astype(mx.float32))
            mx.eval(by_x, target_logits, squares[-1], sample[-1])
        losses = mx.where(counted, log_sum - target_logits, 0)
        self.loss = float(losses.sum() / counted.sum())
        _, (gradient,) = mx.vjp(lambda hidden: [norm(hidden)], [hidden], [by_x[None]])
        fisher = fisher_diagonal(mx.square(x).mean(axis=0), mx.concatenate(squares), step)
        return gradient, FisherRows(self._head, mx.concatenate(sample), fisher)

    def _logits(self, x: mx.array, rows: mx.array) -> tuple[mx.array, mx.array]:
        """Return some words' logits (N, W), and their cap's derivative, 1 without one."""
        logits, cap = multiply(x, rows), self._config.final_logit_softcapping
        if cap is None:
            return logits, mx.array(1.0)
        share = mx.tanh(logits / cap)
        return cap * share, 1 - mx.square(share)

    def _differentiate_layer(
        self, index: int, hidden: mx.array, gradient: mx.array
    ) -> tuple[mx.array, list[FisherRows]]:
        """Return the loss's derivative by a layer's input (1, N, E), from that by its result."""
        tensors = self._read_layer(index)
        block, observed = self._observed_block(index, tensors)
        _, (by_hidden,) = mx.vjp(
            lambda hidden: [block(hidden, self._caches(index))], [hidden], [gradient]
        )
        mx.eval(by_hidden, [linear.squares for linear in observed.values()])
        seen = []
        for stack, linear in observed.items():
            inputs, *outputs = linear.squares
            for member, squares in zip(STACKS[stack], outputs, strict=True):
                step = _sampling_step(len(squares))
                sample = tensors[f"{member}.weight"][::step].astype(mx.float32)
                fisher = fisher_diagonal(inputs, squares, step)
                seen.append(FisherRows(f"{LAYER_PREFIX}{index}.{member}", sample, fisher))
        return by_hidden, seen

    def _observed_block(
        self, index: int, tensors: Tensors
    ) -> tuple[Block, dict[str, ObservedLinear]]:
        """Make a layer's block, whose products are observed, and return these by their stacks."""
        layer = self._config.layer(index)
        block = self._block(self._config, layer, tensors, _unquantized)
        observed = {}
        for stack, members in STACKS.items():
            part, name = stack.split(".")
            observed[stack] = ObservedLinear(tensors, members)
            setattr(getattr(block, part), name, observed[stack])
        if mx.default_device() == mx.cpu:
            block.self_attn.attention = attention_by_numpy
        return block, observed

    def _read_layer(self, index: int) -> dict[str, mx.array]:
        """Read a layer's tensors, named as inside the layer; only norms and biases are float32."""
        tensors = {}
        for name, shape in self._config.tensor_shapes().items():
            full_name = f"{LAYER_PREFIX}{index}.{name}"
            if len(shape) == 1:
                tensors[name] = self._vector(full_name)
            else:
                path = full_name.removesuffix(".weight")
                tensors[name] = mx.concatenate([rows for _, rows in self._pieces(path)])
            mx.eval(tensors[name])
        return tensors

    def _caches(self, index: int) -> list[tuple[KVCache, int]]:
        """Return an empty cache for each sequence, and its number of tokens."""
        config, tokens = self._config, len(self._sequences[0])
        format_ = KVFormat(config.num_key_value_heads, config.head_dim, mx.float32)
        window = config.layer(index).window
        return [(KVCache(format_, capacity=tokens, window=window), tokens) for _ in self._sequences]

    def _vector(self, name: str) -> mx.array:
        tensor = self._source.tensors[name]
        rows = self._source.rows(name, 0, tensor.rows)
        return as_array(rows, tensor).astype(mx.float32)

    def _pieces(self, path: str) -> Iterator[tuple[int, mx.array]]:
        """Yield some rows of a matrix after the other, with the first one's number."""
        for start, stop in row_parts(*self._matrices[path].shape):
            yield start, matrix_rows(self._source, self._matrices[path], start, stop)
            self._bytes_done += self._row_bytes(path) * (stop - start)
            self._on_read(self._bytes_done, self._bytes_total)

    def _rows(self, path: str, start: int, stop: int) -> mx.array:
        return matrix_rows(self._source, self._matrices[path], start, stop).astype(mx.float32)

    def _row_bytes(self, path: str) -> int:
        """Bytes that a row takes in the source, with its scales if it is quantized."""
        tensors = self._source.tensors
        names = [f"{path}.{part}" for part in QUANTIZED_PARTS if f"{path}.{part}" in tensors]
        return sum(tensors[name].row_bytes for name in names)


def _unquantized(_: str) -> None:
    """Say of every matrix that it is not quantized."""


def _sampling_step(rows: int) -> int:
    return max(1, rows // SAMPLED_ROWS)


def fisher_diagonal(inputs: mx.array, outputs: mx.array, step: int) -> mx.array:
    """Return the Fisher diagonal of every ``step``-th row, (R, in), scaled to all rows.

    The mean of a product is taken for the product of the means: of the squares of what the matrix
    reads (in,), and of the derivatives by what it writes (out,).
    """
    sampled = outputs[::step]
    scale = outputs.sum() / mx.maximum(sampled.sum(), mx.finfo(mx.float32).smallest_normal)
    return (scale * sampled)[:, None] * inputs
