"""How much each matrix of a model suffers from fewer bits, measured on a text that it reads.

A change of a matrix by ``d`` changes a token's loss by about half of ``sum(g[o]^2 x[j]^2
d[o,j]^2)``: x is what the matrix reads, g the derivative of the loss by what it writes, and squares
are taken for independent (the diagonal of the Fisher information, whose outer product of means is
kept for each matrix). Layers are gone through forwards and then backwards, each computed again from
what went into it, a few rows of one matrix at a time: three reads of the source, and memory for
what every layer reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import AFFINE_BITS, chosen_quantization
from edgellm.converters.mixed_bits import llama_grad as calculus
from edgellm.converters.mixed_bits.llama_grad import Floats
from edgellm.converters.tensors.floats import floats
from edgellm.converters.tensors.recipe import Matrix, Recipe
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.weight_stream import (
    CHUNK_BYTES,
    MLX_TYPES,
    dequantize,
    float_rows,
    quantize,
)
from edgellm.errors import FormatError
from edgellm.models.rope import wavelengths

SAMPLED_ROWS = 512
"""Rows of a matrix that are quantized to see what it costs; they lie evenly among the others."""

EMBEDDING, HEAD, NORM = "model.embed_tokens", "lm_head", "model.norm.weight"

Costs = Mapping[str, Mapping[int, float]]
"""By path and bits: what it costs, in nats a token, to store a matrix so."""


def measure(
    source: Source,
    recipe: Recipe,
    sequences: Sequence[Sequence[int]],
    *,
    group_size: int,
    progress: Callable[[int, int], None],
) -> tuple[Costs, float]:
    """What each matrix costs at each number of bits; and the text's mean loss, in nats a token.

    Args:
        source: the model.
        recipe: its matrices, and the type that scales will have.
        sequences: token ids, all of one length.
        group_size: weights that will share a scale.
        progress: called with bytes read and bytes to be read.

    Raises:
        FormatError: a value on the way is not finite.
        ReadError: the source cannot be read.
    """
    with np.errstate(all="ignore"):  # looked at in the end
        reading = _Reading(source, recipe, group_size, progress)
        loss = _Pass(reading, np.array(sequences)).run()
    if not np.isfinite(
        [loss, *(cost for costs in reading.costs.values() for cost in costs.values())]
    ).all():
        raise FormatError(
            "the model's logits or their derivatives are not finite",
            hint="look at it with edgellm verify",
        )
    return reading.costs, loss


class _Reading:
    """A source's matrices as factors, read a few rows at a time."""

    def __init__(
        self, source: Source, recipe: Recipe, group_size: int, progress: Callable[[int, int], None]
    ) -> None:
        self.config = ModelConfig.from_dict(recipe.config)
        self.head = HEAD if HEAD in recipe.matrices else EMBEDDING
        self.costs: dict[str, dict[int, float]] = {}
        self._source = source
        self._matrices = recipe.matrices
        self._group_size = group_size
        self._progress = progress
        self._done = 0
        sizes = {path: self._nbytes(matrix) for path, matrix in recipe.matrices.items()}
        layers = sum(
            size * (2 if path.endswith("down_proj") else 3)
            for path, size in sizes.items()
            if ".layers." in path
        )
        self._total = layers + 2 * sizes[self.head]

    def vector(self, name: str) -> Floats | None:
        """A norm's weight or a bias; None where the model has none."""
        tensor = self._source.tensors.get(name)
        return (
            None
            if tensor is None
            else floats(self._source.rows(name, 0, tensor.rows), tensor.dtype)
        )

    def product(self, path: str, x: Floats) -> Floats:
        """``x`` times the matrix, and its bias added: (N, in) to (N, out)."""
        bias = self.vector(f"{path}.bias")
        out = np.empty((x.shape[0], self._matrices[path].shape[0]), np.float32)
        for start, weight in self.pieces(path):
            out[:, start : start + len(weight)] = x @ weight.T
        return out if bias is None else out + bias

    def back(self, path: str, x: Floats, gradient: Floats) -> Floats:
        """The derivative by ``x``, given that by the product; what bits cost the matrix is noted on the way."""
        out = np.zeros_like(x)
        cost = self.cost_of(path, _mean_squares(x), _mean_squares(gradient))
        for start, weight in self.pieces(path):
            out += gradient[:, start : start + len(weight)] @ weight
            cost.sample_rows(start, weight)
        self.note(path, cost.found())
        return out

    def cost_of(self, path: str, reads: Floats, writes: Floats) -> _Cost:
        """What will look at a matrix's rows; mean squares of what it reads, and of the derivative by what it writes."""
        return _Cost(self._matrices[path], self._group_size, reads, writes)

    def note(self, path: str, costs: Mapping[int, float]) -> None:
        """Add to what a matrix costs: a tied embedding costs twice."""
        known = self.costs.setdefault(path, {})
        for bits, cost in costs.items():
            known[bits] = known.get(bits, 0.0) + cost

    def pieces(self, path: str) -> Iterator[tuple[int, Floats]]:
        """A matrix's rows in float32 with the first one's number, a few at a time."""
        rows, columns = self._matrices[path].shape
        step = max(1, CHUNK_BYTES // (4 * columns))
        for start in range(0, rows, step):
            yield start, self.rows(path, start, min(start + step, rows))
            self._done += self._nbytes(self._matrices[path]) * min(step, rows - start) // rows
            self._progress(min(self._done, self._total), self._total)

    def rows(self, path: str, start: int, stop: int) -> Floats:
        """Some rows of a matrix in float32."""
        return float_rows(self._source, self._matrices[path], start, stop)

    def cost_of_rows(self, path: str, tokens: Sequence[int], weights: Floats) -> None:
        """Note what bits cost a table of which some rows were looked up; ``weights`` (N, in) are the derivatives' squares."""
        wanted = sorted(set(tokens))
        found = np.concatenate([self.rows(path, token, token + 1) for token in wanted])
        place = np.searchsorted(wanted, tokens)
        errors = _errors(found, self._matrices[path], self._group_size)
        self.note(
            path,
            {
                bits: float(np.sum(error[place] * weights)) / 2 / len(tokens)
                for bits, error in errors.items()
            },
        )

    def _nbytes(self, matrix: Matrix) -> int:
        parts = (
            [f"{matrix.path}.{part}" for part in matrix.stored.stored(*matrix.shape, "F32")]
            if matrix.stored
            else [""]
        )
        names = [name or f"{matrix.path}.weight" for name in parts]
        return sum(self._source.tensors[name].nbytes for name in names)


class _Cost:
    """What a matrix costs at each number of bits, from some of its rows."""

    def __init__(self, matrix: Matrix, group_size: int, reads: Floats, writes: Floats) -> None:
        self._matrix, self._group_size = matrix, group_size
        self._reads, self._writes = reads, writes
        self._step = max(1, matrix.shape[0] // SAMPLED_ROWS)
        self._seen = 0.0
        self._sums: dict[int, float] = {}

    def sample_rows(self, start: int, weight: Floats) -> None:
        """Take what is to be sampled of some rows."""
        taken = slice(-start % self._step, None, self._step)
        rows, writes = weight[taken], self._writes[start : start + len(weight)][taken]
        if len(rows):
            self._seen += float(writes.sum())
            for bits, error in _errors(rows, self._matrix, self._group_size).items():
                self._sums[bits] = self._sums.get(bits, 0.0) + float(writes @ (error @ self._reads))

    def found(self) -> dict[int, float]:
        """By bits; the rows that were not looked at are taken to be like the others."""
        share = float(self._writes.sum()) / self._seen if self._seen else 0.0
        return {bits: share * total / 2 for bits, total in self._sums.items()}


def _errors(rows: Floats, matrix: Matrix, group_size: int) -> dict[int, Floats]:
    """The squared change of each weight at each number of bits; nothing where no group fits."""
    errors = {}
    for bits in AFFINE_BITS:
        form = chosen_quantization(matrix.shape[1], bits, group_size)
        if form is not None:
            restored = dequantize(quantize(mx.array(rows), form, MLX_TYPES[matrix.dtype]), form)
            errors[bits] = np.square(np.array(restored) - rows)
    return errors


def _mean_squares(values: Floats) -> Floats:
    result: Floats = np.mean(np.square(values), axis=0)
    return result


class _Pass:
    """One text through the model, and the loss's derivatives back through it."""

    def __init__(self, reading: _Reading, tokens: npt.NDArray[np.int64]) -> None:
        self._reading = reading
        self._tokens = tokens
        self._sequences, length = tokens.shape
        config = reading.config
        lengths = wavelengths(config.head_dim, config.rope_theta, config.rope_scaling)
        self._angles = (np.arange(length, dtype=np.float32)[:, None] / lengths).astype(np.float32)

    def run(self) -> float:
        """Note every matrix's costs, and return the mean loss."""
        reading, ids = self._reading, self._tokens.reshape(-1)
        hidden = np.concatenate(
            [reading.rows(EMBEDDING, int(token), int(token) + 1) for token in ids]
        )
        inputs = []
        for index in range(reading.config.num_hidden_layers):
            inputs.append(hidden)
            layer = _Layer(self._reading, index, hidden, self._sequences, self._angles)
            hidden = layer.hidden + layer.product("mlp.down_proj", layer.inner)
        loss, gradient = self._head(hidden)
        while inputs:
            layer = _Layer(
                self._reading, len(inputs) - 1, inputs.pop(), self._sequences, self._angles
            )
            gradient = layer.back(gradient)
        reading.cost_of_rows(EMBEDDING, ids.tolist(), np.square(gradient))
        return loss

    def _head(self, hidden: Floats) -> tuple[float, Floats]:
        """The mean loss of each token but the first ones, and the derivative of the sum by what the last layer writes."""
        reading, eps = self._reading, self._reading.config.rms_norm_eps
        weight = _required(reading.vector(NORM))
        x = calculus.norm(hidden, weight, eps)
        targets = np.roll(self._tokens, -1, axis=1)
        targets[:, -1] = -1  # nothing follows the last token
        wanted = targets.reshape(-1)
        highest, total = np.full(len(x), -np.inf, np.float32), np.zeros(len(x), np.float32)
        found = np.zeros(len(x), np.float32)
        for start, rows in reading.pieces(reading.head):
            logits = x @ rows.T
            higher = np.maximum(highest, logits.max(axis=1))
            total = total * np.exp(highest - higher) + np.exp(logits - higher[:, None]).sum(axis=1)
            highest = higher
            inside = np.flatnonzero((wanted >= start) & (wanted < start + len(rows)))
            found[inside] = logits[inside, wanted[inside] - start]
        spread = highest + np.log(total)
        counted = wanted >= 0
        gradient = np.zeros_like(x)
        writes = np.zeros(reading.config.vocab_size, np.float32)
        cost = reading.cost_of(reading.head, _mean_squares(x), writes)
        for start, rows in reading.pieces(reading.head):
            part = np.exp(x @ rows.T - spread[:, None]) * counted[:, None]
            inside = np.flatnonzero((wanted >= start) & (wanted < start + len(rows)))
            part[inside, wanted[inside] - start] -= 1
            writes[start : start + len(rows)] = _mean_squares(part)
            gradient += part @ rows
            cost.sample_rows(start, rows)
        reading.note(reading.head, cost.found())
        return float((spread - found)[counted].mean()), calculus.norm_back(
            hidden, weight, eps, gradient
        )


class _Layer:
    """One layer's forward half up to what ``down_proj`` reads, and its backward half."""

    def __init__(
        self, reading: _Reading, index: int, inputs: Floats, sequences: int, angles: Floats
    ) -> None:
        config = reading.config
        self._reading, self._prefix, self._sequences, self._angles = (
            reading,
            f"model.layers.{index}.",
            sequences,
            angles,
        )
        self._eps = config.rms_norm_eps
        self._window = config.sliding_window if index in config.sliding_layers else None
        self._inputs = inputs
        self._normed = calculus.norm(inputs, self._weight("input_layernorm.weight"), self._eps)
        heads = {
            "q": config.num_attention_heads,
            "k": config.num_key_value_heads,
            "v": config.num_key_value_heads,
        }
        self._plain = {
            letter: calculus.split(
                self.product(f"self_attn.{letter}_proj", self._normed), sequences, count
            )
            for letter, count in heads.items()
        }
        self._queries, self._keys = (self._positioned(letter) for letter in "qk")
        self._values = self._plain["v"]
        self._mixed = calculus.join(
            calculus.attention(self._queries, self._keys, self._values, self._window)
        )
        self.hidden = inputs + self.product("self_attn.o_proj", self._mixed)
        """What the feed-forward half begins with, (N, E)."""
        self._normed_again = calculus.norm(
            self.hidden, self._weight("post_attention_layernorm.weight"), self._eps
        )
        self._gate, self._up = (
            self.product(f"mlp.{name}_proj", self._normed_again) for name in ("gate", "up")
        )
        self.inner = calculus.gated(self._gate, self._up)
        """What ``down_proj`` reads."""

    def product(self, name: str, x: Floats) -> Floats:
        """``x`` times one of the layer's matrices."""
        return self._reading.product(self._prefix + name, x)

    def back(self, gradient: Floats) -> Floats:
        """The derivative by what went into the layer, from that by what came out of it."""
        by_gate, by_up = calculus.gated_back(
            self._gate, self._up, self._back("mlp.down_proj", self.inner, gradient)
        )
        by_normed = self._back("mlp.gate_proj", self._normed_again, by_gate)
        by_normed += self._back("mlp.up_proj", self._normed_again, by_up)
        weight = self._weight("post_attention_layernorm.weight")
        by_hidden = gradient + calculus.norm_back(self.hidden, weight, self._eps, by_normed)
        by_mixed = calculus.split(
            self._back("self_attn.o_proj", self._mixed, by_hidden),
            self._sequences,
            self._queries.shape[1],
        )
        turned = calculus.attention_back(
            self._queries, self._keys, self._values, self._window, by_mixed
        )
        parts = {
            "q": self._unpositioned("q", turned[0]),
            "k": self._unpositioned("k", turned[1]),
            "v": turned[2],
        }
        by_normed = np.zeros_like(self._normed)
        for letter, part in parts.items():
            by_normed += self._back(f"self_attn.{letter}_proj", self._normed, calculus.join(part))
        return by_hidden + calculus.norm_back(
            self._inputs, self._weight("input_layernorm.weight"), self._eps, by_normed
        )

    def _back(self, name: str, x: Floats, gradient: Floats) -> Floats:
        return self._reading.back(self._prefix + name, x, gradient)

    def _weight(self, name: str) -> Floats:
        return _required(self._reading.vector(self._prefix + name))

    def _positioned(self, letter: str) -> Floats:
        weight = self._reading.vector(f"{self._prefix}self_attn.{letter}_norm.weight")
        plain = self._plain[letter]
        return calculus.turned(
            plain if weight is None else calculus.norm(plain, weight, self._eps), self._angles
        )

    def _unpositioned(self, letter: str, gradient: Floats) -> Floats:
        weight = self._reading.vector(f"{self._prefix}self_attn.{letter}_norm.weight")
        straight = calculus.turned(gradient, -self._angles)
        return (
            straight
            if weight is None
            else calculus.norm_back(self._plain[letter], weight, self._eps, straight)
        )


def _required(vector: Floats | None) -> Floats:
    assert vector is not None, "the recipe has seen every norm"
    return vector
