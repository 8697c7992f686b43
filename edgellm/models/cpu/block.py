"""The CPU form of a decoder layer and of a product: MLX's arrays by address, arithmetic in native kernels."""

# L new tokens, S tokens that are looked at, E hidden, G key/value heads, D head size

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.model_config import ModelConfig, RopeScaling
from edgellm.device import machine as device
from edgellm.errors import BackendError, ClosedError
from edgellm.kernels.codegen.abi import MANY
from edgellm.kernels.codegen.weight_format import Format
from edgellm.kernels.engine import Engine, table
from edgellm.kernels.host import engine, unavailable
from edgellm.kernels.layer_steps import LayerSteps, LayerWeights, Shape, Vector, turns
from edgellm.kernels.product_steps import Matrix, product_steps
from edgellm.models.cpu.kv_memory import CacheMemory
from edgellm.models.linear import (
    DenseLinear,
    JoinedLinear,
    Linear,
    QuantizationOf,
    QuantizedLinear,
    Tensors,
    stacked_linear,
)
from edgellm.models.llama import Block, Layer, Layers, ResidentLayers, Rows, Span, always
from edgellm.models.rope import wavelengths
from edgellm.settings import LoadSettings

CHUNK = MANY

_KINDS: Mapping[mx.Dtype, str] = {mx.float16: "f16", mx.bfloat16: "bf16", mx.float32: "f32"}


def engine_for(settings: LoadSettings) -> Engine | None:
    """The kernels that these settings ask for; None where MLX computes on a GPU or, with one warning, where there are none."""
    if device.has_gpu() or settings.backend == "mlx":
        return None
    reason = unavailable()
    if reason is not None:
        _warn(reason)
        return None
    threads = settings.threads or device.core_count()
    return engine(
        threads=threads, activations="float" if settings.activations == "float" else "int8"
    )


def make_layer(
    kernels: Engine | None, config: ModelConfig, tensors: Tensors, quantization_of: QuantizationOf
) -> Layer:
    """The decoder layer over some tensors: native if it can be, else (with one warning) MLX's own."""
    if kernels is not None:
        try:
            return CpuBlock(kernels, config, tensors, quantization_of)
        except BackendError as error:
            _warn(error.message)
    return Block(config, tensors, quantization_of, fused=device.has_gpu())


def make_linear(kernels: Engine | None, linear: Linear) -> Linear:
    """A product: native if it can be, else (with one warning) as it is."""
    if kernels is not None:
        try:
            return CpuLinear(kernels, linear)
        except BackendError as error:
            _warn(error.message)
    return linear


@cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"arithmetic runs in MLX's own CPU kernels, which are slow: {reason}",
        RuntimeWarning,
        stacklevel=3,
    )


class CpuBlock:
    """One decoder layer, over tensors named as inside the layer, whose memory may be refilled between calls.

    Raises:
        BackendError: a tensor is stored in a form that there are no kernels for.
    """

    def __init__(
        self, engine: Engine, config: ModelConfig, tensors: Tensors, quantization_of: QuantizationOf
    ) -> None:
        self.engine, self.max_exact_rows = engine, engine.max_exact_rows
        self._tensors = tensors  # whose memory the steps point into
        self._shape = Shape(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            kept_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            eps=config.rms_norm_eps,
        )
        self.turns = _turns_of(config.head_dim, config.rope_theta, config.rope_scaling)
        self._weights = LayerWeights(
            input_norm=_vector(tensors["input_layernorm.weight"]),
            qkv=_matrices(stacked_linear(tensors, "self_attn.qkv_proj", quantization_of)),
            output=_matrices(stacked_linear(tensors, "self_attn.o_proj", quantization_of)),
            inner_norm=_vector(tensors["post_attention_layernorm.weight"]),
            gate_up=_matrices(stacked_linear(tensors, "mlp.gate_up_proj", quantization_of)),
            down=_matrices(stacked_linear(tensors, "mlp.down_proj", quantization_of)),
            query_norm=_norm(tensors, "self_attn.q_norm.weight"),
            key_norm=_norm(tensors, "self_attn.k_norm.weight"),
        )
        self._steps: dict[int, LayerSteps] = {}

    def __call__(self, hidden: mx.array, rows: Rows) -> mx.array:
        """Return the hidden states (1, L, E) of one or more sequences after this layer, and store their keys and values."""
        return _through([self], hidden, [Span([cache], length) for cache, length in rows])

    def steps(self, tokens: int) -> LayerSteps:
        """This layer's steps for so many tokens."""
        size = self.engine.room(tokens)
        found = self._steps.get(size)
        if found is None:
            found = self._steps[size] = LayerSteps(
                self.engine, self._shape, self._weights, tokens=size
            )
        return found


class CpuLayers:
    """Layers whose weights are all in memory, all of them in one native call.

    A call a layer would run the interpreter 22 times a token with caches full of weights: 33 ms
    instead of 29 for 1.1B.
    """

    streams_weights = False
    async_compute = False

    def __init__(self, blocks: Sequence[CpuBlock]) -> None:
        self._blocks = list(blocks)
        self.max_exact_rows = max((block.max_exact_rows for block in blocks), default=0)

    def run(
        self,
        states: Sequence[mx.array],
        spans: Sequence[Sequence[Span]],
        *,
        keep_going: Callable[[], bool] = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers, or nothing where ``keep_going`` said no. Raises ClosedError."""
        if not self._blocks:
            raise ClosedError("the model was closed")
        moved = []
        for hidden, own in zip(states, spans, strict=True):
            if not keep_going():
                return []
            moved.append(_through(self._blocks, hidden, own))
        return moved

    def close(self) -> None:
        """Let the weights go."""
        self._blocks = []


def make_layers(layers: Sequence[Layer]) -> Layers:
    """Layers that are all in memory: one native call if all of them are native."""
    native = [layer for layer in layers if isinstance(layer, CpuBlock)]
    if native and len(native) == len(layers):
        return CpuLayers(native)
    # a CPU gains little, and pays for a step past the end
    return ResidentLayers(layers, async_compute=device.has_gpu())


def _through(blocks: Sequence[CpuBlock], hidden: mx.array, spans: Sequence[Span]) -> mx.array:
    """Send hidden states (1, L, E) through layers that share an engine; keys and values go into the caches."""
    rows: npt.NDArray[np.float32] = np.array(hidden, copy=False).reshape(hidden.shape[-2:])
    out = np.empty_like(rows)
    engine, memory = blocks[0].engine, blocks[0].engine.memory
    begin = 0
    for piece in _pieces(spans):
        tokens = sum(span.length for span in piece)
        chunk = rows[begin : begin + tokens]
        with engine.lock:
            windows = [
                [CacheMemory(span.caches[layer], span.length) for span in piece]
                for layer in range(len(blocks))
            ]
            version, steps = -1, []
            # a layer's first steps can move the memory of those before it
            while version != memory.version:
                version = memory.version
                steps = [
                    block.steps(tokens).rows(
                        [
                            (window.store, span.length)
                            for window, span in zip(own, piece, strict=True)
                        ]
                    )
                    for block, own in zip(blocks, windows, strict=True)
                ]
            place = 0
            for span in piece:
                angles = blocks[0].turns.rows(span.caches[0].offset, span.length)
                memory.buffer("turns").array[place : place + angles.size] = angles
                place += angles.size
            working = memory.buffer("hidden").array[: chunk.size]
            working[:] = chunk.ravel()
            engine.run(steps[0] if len(steps) == 1 else np.concatenate(steps), tokens)
            out[begin : begin + tokens] = working.reshape(chunk.shape)
            for window in (window for own in windows for window in own):
                window.keep()
        begin += tokens
    return mx.array(out[None])


def _pieces(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Spans in calls of at most CHUNK rows. A longer one goes through in several, as it would alone."""
    piece: list[Span] = []
    for span in spans:
        if piece and sum(other.length for other in piece) + span.length > CHUNK:
            yield piece
            piece = []
        whole = span.length // CHUNK if span.length > CHUNK else 0
        for _ in range(whole):
            yield [Span(span.caches, CHUNK)]
        if rest := span.length - whole * CHUNK:
            piece.append(Span(span.caches, rest))
    if piece:
        yield piece


class CpuLinear:
    """A weight that multiplies: (..., in) to (..., out)."""

    def __init__(self, engine: Engine, linear: Linear) -> None:
        self._engine, self._linear = engine, linear
        self._matrices = _matrices(linear)
        self.rows = linear.rows
        self._columns = self._matrices[0].columns
        self._steps: tuple[tuple[int, int], npt.NDArray[np.int64]] = ((-1, -1), table([]))

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        rows: npt.NDArray[np.float32] = np.array(x.astype(mx.float32), copy=False).reshape(
            -1, self._columns
        )
        out = np.empty((len(rows), self.rows), np.float32)
        memory = self._engine.memory
        for begin in range(0, len(rows), CHUNK):
            chunk = rows[begin : begin + CHUNK]
            with self._engine.lock:
                steps = self._current_steps(len(chunk))
                memory.buffer("x").array[: chunk.size] = chunk.ravel()
                self._engine.run(steps, len(chunk))
                found = memory.buffer("product").array[: len(chunk) * self.rows]
                out[begin : begin + CHUNK] = found.reshape(-1, self.rows)
        return mx.array(out.reshape(*x.shape[:-1], self.rows))

    def _current_steps(self, tokens: int) -> npt.NDArray[np.int64]:
        """The steps for so many tokens, made anew where the last call was for another number or memory has moved."""
        memory = self._engine.memory
        while self._steps[0] != (memory.version, tokens):
            version = memory.version
            x, out = (
                memory.reserved("x", 4 * tokens * self._columns),
                memory.reserved("product", 4 * tokens * self.rows),
            )
            steps = product_steps(self._engine, self._matrices, x, out, tokens=tokens)
            self._steps = ((version, tokens), table(steps))
        return self._steps[1]


class _Turns:
    """Cosines and sines of positions, kept for those that were asked for last: all layers ask for the same."""

    def __init__(self, lengths: npt.NDArray[np.float32]) -> None:
        self._lengths = lengths
        self._last = ((-1, -1), np.empty(0, np.float32))

    def rows(self, start: int, tokens: int) -> npt.NDArray[np.float32]:
        """Cosines, then sines, of each position: (L, D), flat."""
        key, found = self._last
        if key != (start, tokens):
            found = turns(self._lengths, start, tokens).ravel()
            self._last = ((start, tokens), found)
        return found


@cache
def _turns_of(head_dim: int, theta: float, scaling: RopeScaling | None) -> _Turns:
    return _Turns(wavelengths(head_dim, theta, scaling))


def _address(array: mx.array) -> int:
    """Where an evaluated array's memory begins. NumPy has no bfloat16, so it is asked about bytes."""
    view = array.view(mx.uint8)
    mx.eval(view)
    return int(np.array(view, copy=False).ctypes.data)


def _kind(array: mx.array) -> str:
    kind = _KINDS.get(array.dtype)
    if kind is None:
        raise BackendError(f"there are no kernels for weights of {array.dtype}")
    return kind


def _vector(array: mx.array) -> Vector:
    return Vector(_address(array), _kind(array))


def _norm(tensors: Tensors, name: str) -> Vector | None:
    return _vector(tensors[name]) if name in tensors else None


def _matrices(linear: Linear) -> list[Matrix]:
    """The matrices of a product, side by side."""
    if isinstance(linear, JoinedLinear):
        return [matrix for part in linear.parts for matrix in _matrices(part)]
    if not isinstance(linear, QuantizedLinear | DenseLinear):
        raise BackendError(f"there are no kernels for a {type(linear).__name__}")
    bias, bias_kind = (
        (_address(linear.bias), _kind(linear.bias)) if linear.bias is not None else (0, "f32")
    )
    if isinstance(linear, DenseLinear):
        rows, columns = linear.weight.shape
        form, scales, biases = Format(0, 0, _kind(linear.weight)), 0, 0
    else:
        how = linear.quantization
        if how.mode != "affine" or linear.biases is None:
            raise BackendError(f"there are no kernels for the mode {how.mode}")
        form = Format(how.bits, how.group_size, _kind(linear.scales))
        rows, columns = linear.rows, linear.scales.shape[1] * how.group_size
        scales, biases = _address(linear.scales), _address(linear.biases)
    return [Matrix(form, rows, columns, _address(linear.weight), scales, biases, bias, bias_kind)]
