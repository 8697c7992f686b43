"""LLaMA's decoder block on the CPU kernels, over MLX's arrays by address."""

# L new tokens, E hidden, D head size

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.family_configs import QueryKeyNorm
from edgellm.checkpoint.layer_config import LayerConfig
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.device import machine as device
from edgellm.errors import BackendError, ClosedError
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.kernels.layer import LayerShape, LayerWeights, Vector
from edgellm.kernels.layer_steps import LayerSteps
from edgellm.kv_cache.cache import LayerCache
from edgellm.models.arithmetic import missing_kernels, warn_slow
from edgellm.models.cpu.call_plan import KnownCalls
from edgellm.models.cpu.changes import changed_weights
from edgellm.models.cpu.linear import (
    MAX_CALL_TOKENS,
    CpuLinear,
    kernel_matrices,
    kernel_vector,
)
from edgellm.models.cpu.rotations import Rotations, rotations_of, write_rotations
from edgellm.models.layers import (
    KeepGoing,
    Layer,
    LayerChange,
    LayerSpans,
    ResidentLayers,
    Span,
    States,
    StateSpans,
    WindowedLayers,
    always,
    spans_in_part,
)
from edgellm.models.linear import QuantizationOf, Tensors, stacked_linear
from edgellm.models.registry import block_class

Call = Callable[[npt.NDArray[np.float32], Sequence[Span], npt.NDArray[np.float32]], bool]
"""Takes rows (L, E), whose tokens they are, and where results go; false where it was stopped."""


class CpuBlock:
    """One decoder layer over tensors named as inside the layer.

    Their memory may be refilled between calls.

    Attributes:
        engine: the kernels.
        max_exact_rows: as ``Layer`` has it.
        rotations: of queries and keys; None where they are not turned.
        angles: the buffer of their cosines and sines.
        shape: as the kernels take it.
        weights: by their addresses.

    Raises:
        BackendError: there are no kernels for the model's family, or for how a tensor is stored.
    """

    def __init__(
        self,
        engine: KernelEngine,
        config: ModelConfig,
        layer: LayerConfig,
        tensors: Tensors,
        quantization_of: QuantizationOf,
    ) -> None:
        reason = missing_kernels(config)
        if reason is not None:
            raise BackendError(reason)
        self.engine = engine
        self.max_exact_rows: int = engine.max_exact_rows
        self.rotations: Rotations | None = None
        self.angles: str = "cos and sin"
        rotary_dim = 0
        if layer.rotary is not None:
            self.rotations = rotations_of(config.head_dim, layer.rotary)
            rotary_dim = layer.rotary.dim
            if layer.rotary == config.local_rotary:
                self.angles = "cos and sin of windows"
        # the kernels read them by address, so they must live as long
        self._tensors = tensors
        norms, head_norms = config.norms, config.query_key_norm or QueryKeyNorm()
        self.shape: LayerShape = LayerShape(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            rotary_dim=rotary_dim,
            eps=config.rms_norm_eps,
            attention_scale=block_class(config).attention_scale(config, layer),
            whole_norm=head_norms.whole,
            normed_last=head_norms.after_rotation,
            angles=self.angles,
        )
        self.weights: LayerWeights = LayerWeights(
            qkv=kernel_matrices(stacked_linear(tensors, "self_attn.qkv_proj", quantization_of)),
            output=kernel_matrices(stacked_linear(tensors, "self_attn.o_proj", quantization_of)),
            gate_up=kernel_matrices(stacked_linear(tensors, "mlp.gate_up_proj", quantization_of)),
            down=kernel_matrices(stacked_linear(tensors, "mlp.down_proj", quantization_of)),
            before_attention=_norm(tensors, norms.before_attention),
            after_attention=_norm(tensors, norms.after_attention),
            before_mlp=_norm(tensors, norms.before_mlp),
            after_mlp=_norm(tensors, norms.after_mlp),
            query_norm=_norm(tensors, head_norms.query),
            key_norm=_norm(tensors, head_norms.key),
        )
        self._change: LayerChange | None = None
        # by the change, and the tokens that they are made for, of which the engine has a few sizes
        self._steps: dict[tuple[LayerChange | None, int], LayerSteps] = {}

    def adapt(self, change: LayerChange | None) -> None:
        """Let the calls that follow add an adapter's change to the products; None: no more."""
        self._change = change

    def __call__(self, hidden: mx.array, spans: LayerSpans, *, many: bool = False) -> mx.array:
        """Return hidden states (1, L, E) after this layer; new keys and values go to the caches."""
        of_this = [Span([cache], length, many) for cache, length in spans]
        state = _run([self], hidden, of_this, KnownCalls(), always)
        assert state is not None, "nobody stops it"
        return state

    def run_tree(self, hidden: mx.array, cache: LayerCache, levels: Sequence[int]) -> mx.array:
        """Return hidden states (1, L, E) of a tree of tokens after this layer."""
        tree = Span([cache], len(levels), levels=levels)
        state = _run([self], hidden, [tree], KnownCalls(), always)
        assert state is not None, "nobody stops it"
        return state

    def steps(self, tokens: int, *, many: bool) -> LayerSteps:
        """Return this layer's steps for up to ``tokens`` tokens; ``many``: made as for many."""
        size = self.engine.padded_tokens(tokens, many=many)
        key = (self._change, size)
        if key not in self._steps:
            weights = changed_weights(self.weights, self._change)
            self._steps[key] = LayerSteps(self.engine, self.shape, weights, tokens=size)
        return self._steps[key]


class CpuLayers:
    """Layers whose weights are all in memory, several of them in one native call."""

    streams_weights = False
    async_compute = False
    takes_trees = True

    def __init__(self, blocks: Sequence[CpuBlock]) -> None:
        self._blocks = list(blocks)
        self.count: int = len(self._blocks)
        self.max_exact_rows: int = max((block.max_exact_rows for block in blocks), default=0)
        self._known = KnownCalls()

    def run(
        self,
        states: States,
        spans: StateSpans,
        *,
        keep_going: KeepGoing = always,
        depth: int | None = None,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; empty where ``keep_going`` said no."""
        return self.run_part(states, spans, slice(depth), keep_going=keep_going)

    def run_part(
        self,
        states: States,
        spans: StateSpans,
        part: slice,
        *,
        keep_going: KeepGoing = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after a part of the layers; the rest as in ``run``."""
        if not self._blocks:
            raise ClosedError("the model was closed")
        blocks = self._blocks[part]
        results = []
        for hidden, state_spans in zip(states, spans, strict=True):
            if not keep_going():
                return []
            after: mx.array | None = hidden
            if blocks:
                of_part = spans_in_part(state_spans, part)
                after = _run(blocks, hidden, of_part, self._known, keep_going)
            if after is None:
                return []
            results.append(after)
        return results

    def logits(
        self,
        embeddings: npt.NDArray[np.float32],
        spans: Sequence[Span],
        head: CpuLinear,
        *,
        keep_going: KeepGoing = always,
    ) -> mx.array | None:
        """Return the logits (L, V) of a few tokens' embeddings (L, E), computed in the same calls.

        None where ``keep_going`` said no.

        Raises:
            ClosedError: the layers were closed.
        """
        if not self._blocks:
            raise ClosedError("the model was closed")
        engine = self._blocks[0].engine
        crew = self._known.crew(engine, len(embeddings))
        with engine.lock:
            begun = time.perf_counter()
            threads = crew.threads()
            is_done = _run_call(
                self._blocks,
                embeddings,
                spans,
                known=self._known,
                keep_going=keep_going,
                head=head,
                threads=threads,
            )
            if not is_done:
                return None
            crew.observe(threads, time.perf_counter() - begun)
            return mx.array(head.product(len(embeddings)))

    def close(self) -> None:
        """Free the weights."""
        self._blocks = []


def make_layer(
    kernels: KernelEngine | None,
    config: ModelConfig,
    layer: LayerConfig,
    tensors: Tensors,
    quantization_of: QuantizationOf,
) -> Layer:
    """Return a decoder layer: on the kernels where they can, else (with one warning) in MLX."""
    if kernels is not None:
        try:
            return CpuBlock(kernels, config, layer, tensors, quantization_of)
        except BackendError as error:
            warn_slow(error.message)
    return block_class(config)(config, layer, tensors, quantization_of, fused=device.has_gpu())


def make_layers(layers: Sequence[Layer]) -> WindowedLayers:
    """Return layers that are all in memory: as one native call if all are on the kernels."""
    blocks = [layer for layer in layers if isinstance(layer, CpuBlock)]
    if blocks and len(blocks) == len(layers):
        return CpuLayers(blocks)
    # a CPU gains little by steps that are launched ahead, and pays for one past the end
    return ResidentLayers(layers, async_compute=device.has_gpu())


def _run(
    blocks: Sequence[CpuBlock],
    hidden: mx.array,
    spans: Sequence[Span],
    known: KnownCalls,
    keep_going: KeepGoing,
) -> mx.array | None:
    """Send hidden states (1, L, E) through layers that share an engine.

    None where ``keep_going`` said no.
    """
    engine = blocks[0].engine

    def call(
        inputs: npt.NDArray[np.float32], call_spans: Sequence[Span], out: npt.NDArray[np.float32]
    ) -> bool:
        with engine.lock:
            if not _run_call(blocks, inputs, call_spans, known=known, keep_going=keep_going):
                return False
            working = engine.workspace.buffer("hidden").array[: inputs.size]
            out[:] = working.reshape(inputs.shape)
        return True

    return in_calls(hidden, spans, call)


def _run_call(
    blocks: Sequence[CpuBlock],
    inputs: npt.NDArray[np.float32],
    spans: Sequence[Span],
    *,
    known: KnownCalls,
    keep_going: KeepGoing,
    head: CpuLinear | None = None,
    threads: int | None = None,
) -> bool:
    """Send ``inputs`` (L, E) through layers. The caller holds the engine's lock.

    What comes out is in the engine's buffer ``hidden``, and of a ``head`` its product where that
    says. ``threads`` are as ``KernelEngine.run`` has them. Return false where ``keep_going`` said
    no: only some layers' caches have the new tokens then.
    """
    engine = blocks[0].engine
    workspace = engine.workspace
    tokens = len(inputs)
    many = spans[0].many
    # of each layer, where the call's keys and values go, span by span
    caches = [[span.caches[layer] for span in spans] for layer in range(len(blocks))]
    layers = [block.steps(tokens, many=many) for block in blocks]
    lengths = [span.length for span in spans]
    plan, cache_memories = known.plan(
        engine, layers, caches, lengths, many=many, levels=spans[0].levels, head=head
    )
    for angles, rotations in {(block.angles, block.rotations) for block in blocks}:
        if rotations is not None:
            write_rotations(rotations, spans, workspace.buffer(angles).array)
    working = workspace.buffer("hidden").array[: inputs.size]
    working[:] = inputs.ravel()
    at_once = known.pace.layers_at_once(tokens)
    for first in range(0, len(blocks), at_once):
        if not keep_going():
            return False
        begun = time.perf_counter()
        last = min(first + at_once, len(blocks))
        engine.run(plan.steps(first, last), tokens, threads=threads)
        for layer_memories in cache_memories[first:last]:
            for cache_memory in layer_memories:
                cache_memory.keep()
        known.pace.observe(tokens, (time.perf_counter() - begun) / (last - first))
    return True


def in_calls(hidden: mx.array, spans: Sequence[Span], call: Call) -> mx.array | None:
    """Return hidden states (1, L, E) that went through ``call`` part by part.

    None where one returned false: it was stopped.
    """
    # (1, L, E) -> (L, E), MLX's own memory
    inputs: npt.NDArray[np.float32] = np.array(hidden, copy=False).reshape(hidden.shape[-2:])
    results = np.empty_like(inputs)
    begin = 0
    for call_spans in calls_of(spans):
        end = begin + sum(span.length for span in call_spans)
        if not call(inputs[begin:end], call_spans, results[begin:end]):
            return None
        begin = end
    return mx.array(results[None])


def calls_of(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield spans in calls of at most MAX_CALL_TOKENS tokens.

    A longer span is cut as it would be alone, so that it gets the same results beside others.
    """
    call: list[Span] = []
    for span in spans:
        if call and sum(other.length for other in call) + span.length > MAX_CALL_TOKENS:
            yield call
            call = []
        left = span.length
        if left > MAX_CALL_TOKENS:
            for _ in range(left // MAX_CALL_TOKENS):
                yield [replace(span, length=MAX_CALL_TOKENS)]
            left %= MAX_CALL_TOKENS
        if left:
            call.append(replace(span, length=left))
    if call:
        yield call


def _norm(tensors: Tensors, name: str | None) -> Vector | None:
    """Return a norm's weight; None where the layer has none of this name."""
    if f"{name}.weight" not in tensors:
        return None
    return kernel_vector(tensors[f"{name}.weight"])
