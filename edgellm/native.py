"""The CPU form of a decoder layer and of a product: MLX's arrays by address, arithmetic in native kernels."""

# L new tokens, S tokens that are looked at, E hidden, G key/value heads, D head size

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm import device
from edgellm.architecture import ModelConfig, RopeScaling
from edgellm.cache import Cache, KVCache, RotatingKVCache
from edgellm.config import LoadSettings
from edgellm.errors import BackendError
from edgellm.kernels.engine import Engine, table
from edgellm.kernels.form import Format
from edgellm.kernels.host import engine, unavailable
from edgellm.kernels.layer import LayerSteps, LayerWeights, Shape, Store, Vector, turns
from edgellm.kernels.product import FEW, Matrix, product_steps
from edgellm.linear import DenseLinear, JoinedLinear, Linear, QuantizationOf, QuantizedLinear, Tensors, stacked_linear
from edgellm.model import Block, Layer
from edgellm.rope import wavelengths

CHUNK = 512
"""Tokens that go through a layer at once, which bounds working memory."""

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
    return engine(threads=threads, activations="float" if settings.activations == "float" else "int8")


def layer_for(kernels: Engine | None, config: ModelConfig, tensors: Tensors, quantization_of: QuantizationOf) -> Layer:
    """The decoder layer over some tensors: native if it can be, else (with one warning) MLX's own."""
    if kernels is not None:
        try:
            return NativeBlock(kernels, config, tensors, quantization_of)
        except BackendError as error:
            _warn(error.message)
    return Block(config, tensors, quantization_of, fused=device.has_gpu())


def linear_for(kernels: Engine | None, linear: Linear) -> Linear:
    """A product: native if it can be, else (with one warning) as it is."""
    if kernels is not None:
        try:
            return NativeLinear(kernels, linear)
        except BackendError as error:
            _warn(error.message)
    return linear


@cache
def _warn(reason: str) -> None:
    warnings.warn(f"arithmetic runs in MLX's own CPU kernels, which are slow: {reason}", RuntimeWarning, stacklevel=3)


class NativeBlock:
    """One decoder layer, over tensors named as inside the layer, whose memory may be refilled between calls.

    Raises:
        BackendError: a tensor is stored in a form that there are no kernels for.
    """

    def __init__(self, engine: Engine, config: ModelConfig, tensors: Tensors, quantization_of: QuantizationOf) -> None:
        self._engine = engine
        self._tensors = tensors  # whose memory the steps point into
        self._shape = Shape(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            kept_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            eps=config.rms_norm_eps,
        )
        self._turns = _turns_of(config.head_dim, config.rope_theta, config.rope_scaling)
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

    def __call__(self, hidden: mx.array, cache: Cache) -> mx.array:
        """Return the hidden states (1, L, E) after this layer, and store its keys and values."""
        rows: npt.NDArray[np.float32] = np.array(hidden, copy=False).reshape(-1, self._shape.hidden)
        out = np.empty_like(rows)
        for begin in range(0, len(rows), CHUNK):
            self._chunk(rows[begin : begin + CHUNK], out[begin : begin + CHUNK], cache)
        return mx.array(out[None])

    def _chunk(self, rows: npt.NDArray[np.float32], out: npt.NDArray[np.float32], cache: Cache) -> None:
        tokens = len(rows)
        engine = self._engine
        with engine.lock:
            size = FEW if tokens <= FEW else CHUNK
            steps = self._steps.get(size)
            if steps is None:
                steps = self._steps[size] = LayerSteps(engine, self._shape, self._weights, tokens=size)
            window = _Window(cache, tokens)
            table_ = steps.rows(window.store)
            working = engine.memory.buffer("hidden").array
            working[: rows.size] = rows.ravel()
            angles = self._turns.rows(cache.offset, tokens)
            engine.memory.buffer("turns").array[: angles.size] = angles
            engine.run(table_, tokens)
            out[:] = working[: rows.size].reshape(rows.shape)
            window.keep()


class NativeLinear:
    """A weight that multiplies: (..., in) to (..., out)."""

    def __init__(self, engine: Engine, linear: Linear) -> None:
        self._engine, self._linear = engine, linear
        self._matrices = _matrices(linear)
        self.rows = linear.rows
        self._columns = self._matrices[0].columns

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``."""
        rows: npt.NDArray[np.float32] = np.array(x.astype(mx.float32), copy=False).reshape(-1, self._columns)
        rows = np.ascontiguousarray(rows)
        out = np.empty((len(rows), self.rows), np.float32)
        with self._engine.lock:
            version = -1
            while version != self._engine.memory.version:
                version = self._engine.memory.version
                steps = product_steps(self._engine, self._matrices, rows.ctypes.data, out.ctypes.data, tokens=max(1, len(rows)))
            self._engine.run(table(steps), len(rows))
        return mx.array(out.reshape(*x.shape[:-1], self.rows))


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


class _Window:
    """Where a cache's memory is for a call of some tokens, and what is to be done with it afterwards."""

    def __init__(self, cache: Cache, tokens: int) -> None:
        self._cache, self._tokens = cache, tokens
        self._scratch: list[npt.NDArray[np.float32]] = []
        end = cache.offset + tokens
        if isinstance(cache, KVCache):
            cache.reserve(end)
            keys, values = self._arrays()
            self.store = _store(keys, values, place=cache.offset, held=end, window=end)
            return
        if not isinstance(cache, RotatingKVCache):
            raise BackendError(f"there are no kernels for a {type(cache).__name__}")
        keys, values = self._arrays()
        if tokens == 1:
            held = min(end, cache.window)
            self.store = _store(keys, values, place=cache.offset % cache.window, held=held, window=held)
            return
        seen = min(cache.offset, cache.window - 1)
        order = np.arange(cache.offset - seen, cache.offset) % cache.window
        _, heads, _, width = keys.shape
        for stored in (keys, values):
            unrolled = np.empty((1, heads, seen + tokens, width), np.float32)
            unrolled[:, :, :seen] = stored[:, :, order]
            self._scratch.append(unrolled)
        keys, values = self._scratch
        self.store = _store(keys, values, place=seen, held=seen + tokens, window=cache.window)

    def keep(self) -> None:
        """Take the new tokens into the cache."""
        cache = self._cache
        end = cache.offset + self._tokens
        if self._scratch and isinstance(cache, RotatingKVCache):
            kept = min(self._tokens, cache.window)
            order = np.arange(end - kept, end) % cache.window
            for stored, unrolled in zip(self._arrays(), self._scratch, strict=True):
                stored[:, :, order] = unrolled[:, :, unrolled.shape[2] - kept :]
        cache.offset = end

    def _arrays(self) -> list[npt.NDArray[np.float32]]:
        """The cache's keys and values (1, G, capacity, D), as memory to write to."""
        return [np.array(array, copy=False) for array in (self._cache.keys, self._cache.values)]


def _store(keys: npt.NDArray[np.float32], values: npt.NDArray[np.float32], *, place: int, held: int, window: int) -> Store:
    assert keys.dtype == np.float32, "on a CPU the cache is float32"
    return Store(
        keys=keys.ctypes.data,
        values=values.ctypes.data,
        head_bytes=keys.strides[1],
        place=place,
        held=held,
        window=window,
    )


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
    bias, bias_kind = (_address(linear.bias), _kind(linear.bias)) if linear.bias is not None else (0, "f32")
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
