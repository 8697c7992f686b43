"""A decoder layer of which this machine has some rows of each matrix, on the CPU kernels.

What is gathered on the way through it: what heads attend to, the hidden states after attention
(unless each machine computes all of them), the gated inside of the feed-forward part, the hidden
states after it. Each number is computed on one machine by the steps that compute it elsewhere, so
that none is another one.
"""

# L new tokens, E hidden, H query heads, D head size, F inner

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgellm.kernels.codegen.abi import NORM, SWIGLU
from edgellm.kernels.kernel_engine import (
    KernelEngine,
    Step,
    StepArray,
    float32_bits,
    make_step,
    step_array,
)
from edgellm.kernels.layer import LayerWeights, Vector
from edgellm.kernels.layer_steps import LayerSteps
from edgellm.kernels.product_steps import Matrix, product_steps
from edgellm.kv_cache.cache import LayerCache
from edgellm.models.cpu.block import CpuBlock
from edgellm.models.cpu.call_plan import KnownCalls, Memory
from edgellm.models.cpu.changes import changed_weights
from edgellm.models.cpu.rotations import write_rotations
from edgellm.models.layers import LayerChange, Span, caches_in_part, spans_in_part

Rows = npt.NDArray[np.float32]

Stage = Literal["attend", "output", "gate", "down"]
"""The parts of a layer, each of which ends where all machines' results are gathered.

What each makes is what heads attend to, what that adds to the hidden states, the gated inside of
the feed-forward part, and what it adds.
"""


AHEAD_BYTES = 4 << 20
"""Weights of a stage that are read into the cache while others are waited for: what 0.2 ms bring,
less than caches hold."""


class AttentionOfLayers:
    """How some new tokens attend in one layer or several, addresses and all.

    To ask each layer for addresses by itself takes 60 us a layer and token.

    Args:
        known: the plans of these layers so far.
        blocks: of the layers.
        caches: of each layer, those of the sequences.
        spans: whose tokens they are.
        size: tokens that steps are made for.
        first: the number of the first of the layers.

    Attributes:
        version: of the working memory to which the addresses belong.
    """

    def __init__(
        self,
        known: KnownCalls,
        blocks: Sequence[RowBlock],
        caches: Sequence[Sequence[LayerCache]],
        spans: Sequence[Span],
        *,
        size: int,
        first: int = 0,
    ) -> None:
        engine = blocks[0].engine
        self._first = first
        self._plan, self._memories = known.plan(
            engine,
            [block.attending(size) for block in blocks],
            caches,
            [span.length for span in spans],
            many=spans[0].many,
            levels=spans[0].levels,
        )
        self.version: int = engine.workspace.version

    def of(self, layer: int) -> tuple[StepArray, Sequence[Memory]]:
        """Return the steps of a layer, and what takes the new tokens into its caches."""
        place = layer - self._first
        return self._plan.steps(place, place + 1), self._memories[place]


class RowAttention:
    """Prepares the attention of passes through all layers, where these stay in memory.

    Args:
        blocks: of all layers.
    """

    def __init__(self, blocks: Sequence[RowBlock]) -> None:
        self._blocks = list(blocks)
        self._known = KnownCalls()

    def prepare(self, spans: Sequence[Span]) -> AttentionOfLayers:
        """Return how tokens attend that go through all layers next, and nothing else before.

        The caller holds the engine's lock.
        """
        engine = self._blocks[0].engine
        tokens = sum(span.length for span in spans)
        caches = [[span.caches[layer] for span in spans] for layer in range(len(self._blocks))]
        size = engine.padded_tokens(tokens, many=spans[0].many)
        return AttentionOfLayers(self._known, self._blocks, caches, spans, size=size)


class RowBlock:
    """Some rows of each matrix of one decoder layer.

    Args:
        block: the rows that are here, as a layer of fewer heads and inner features.
        columns: the features of the hidden states that are computed here after the feed-forward
            part, the first one and the one behind the last.
        attended: likewise, after attention; all of them need no gather.

    Attributes:
        stages: in their order; without ``output`` where that is computed at the beginning of
            ``gate``.
    """

    def __init__(
        self, block: CpuBlock, columns: tuple[int, int], *, attended: tuple[int, int]
    ) -> None:
        self._block = block
        self._engine = block.engine
        # by stage, of those that add to hidden states: the first feature
        self._first: dict[Stage, int] = {"output": attended[0], "down": columns[0]}
        self._has_all_attended = attended == (0, block.shape.hidden)
        self.stages: Sequence[Stage] = ("attend", "output", "gate", "down")
        if self._has_all_attended:
            self.stages = ("attend", "gate", "down")
        self._known = KnownCalls()
        # the steps of a stage point into it, and nobody else may have it
        self._attends: AttentionOfLayers | None = None
        self._change: LayerChange | None = None
        self._ahead: dict[Stage, npt.NDArray[np.int64]] = {}
        # by an adapter's change: with it beside them
        self._weights: dict[LayerChange | None, LayerWeights] = {None: block.weights}
        # by the change, and the tokens that they are made for
        self._attending: dict[tuple[LayerChange | None, int], LayerSteps] = {}
        # by change, stage and tokens: the workspace's version, and the steps
        self._stages: dict[tuple[LayerChange | None, Stage, int], tuple[int, StepArray]] = {}

    @property
    def engine(self) -> KernelEngine:
        """The kernels."""
        return self._engine

    def adapt(self, change: LayerChange | None) -> None:
        """Let the calls that follow add an adapter's change of these rows; None: no more."""
        self._change = change
        if change not in self._weights:
            self._weights[change] = changed_weights(self._block.weights, change)

    def attending(self, size: int) -> LayerSteps:
        """Return the steps of attention for so many tokens. The caller holds the engine's lock."""
        key = (self._change, size)
        if key not in self._attending:
            self._attending[key] = LayerSteps(
                self._engine,
                self._block.shape,
                self._weights[self._change],
                tokens=size,
                attends_only=True,
            )
        return self._attending[key]

    def reserve(self, tokens: int, *, many: bool) -> None:
        """Make room for so many tokens between stages. The caller holds the engine's lock."""
        engine, weights = self._engine, self._block.weights
        size = engine.padded_tokens(tokens, many=many)
        widest = max(weights.output[0].in_features, weights.down[0].in_features)
        engine.workspace.reserved("gathered", 4 * size * widest)
        engine.workspace.reserved("hidden", 4 * size * self._block.shape.hidden)

    def hidden(self, tokens: int) -> Rows:
        """Return the hidden states (L, E) that stages read and write, where they lie."""
        width = self._block.shape.hidden
        rows = self._engine.workspace.buffer("hidden").array[: tokens * width]
        return rows.reshape(tokens, width)

    def steps(
        self,
        stage: Stage,
        spans: Sequence[Span],
        layer: int,
        *,
        attention: AttentionOfLayers | None = None,
    ) -> tuple[StepArray, Sequence[Memory]]:
        """Return the steps of a stage, and what takes new tokens into caches when they are done.

        They stand until the next stage's are asked for. The caller holds the engine's lock.

        Args:
            stage: which one.
            spans: whose tokens they are.
            layer: the number of this one, by which spans have its caches.
            attention: of these tokens in all layers, where it was prepared.
        """
        many, tokens = spans[0].many, sum(span.length for span in spans)
        size = self._engine.padded_tokens(tokens, many=many)
        if stage != "attend":
            return self._steps_of(stage, size), ()
        if attention is None or attention.version != self._engine.workspace.version:
            attention = self._attention(spans, layer, size)
        self._attends = attention
        block = self._block
        steps, memories = attention.of(layer)
        if block.rotations is not None:
            angles = self._engine.workspace.buffer(block.angles).array
            write_rotations(block.rotations, spans, angles, layer=layer)
        return steps, memories

    def made(self, stage: Stage) -> tuple[int, int, int]:
        """Return where a stage's columns are made and where those of all machines belong.

        The address of the first token's, the bytes from it to the next token's, and the address of
        the whole. The caller holds the engine's lock.
        """
        workspace, shape = self._engine.workspace, self._block.shape
        if stage == "attend":
            width = 4 * shape.heads * shape.head_dim
            return workspace.buffer("attended").address, width, workspace.buffer("gathered").address
        if stage == "gate":
            return (
                workspace.buffer("gated").address,
                4 * shape.inner,
                workspace.buffer("gathered").address,
            )
        hidden = workspace.buffer("hidden").address
        return hidden + 4 * self._first[stage], 4 * shape.hidden, hidden

    def ahead(self, stage: Stage) -> npt.NDArray[np.int64]:
        """Return addresses and bytes (parts, 2) of the first weights that a stage reads."""
        if stage not in self._ahead:
            weights = self._block.weights
            matrices = {
                "attend": weights.qkv,
                "output": weights.output,
                "gate": [*(weights.output if self._has_all_attended else ()), *weights.gate_up],
                "down": weights.down,
            }
            self._ahead[stage] = _first_bytes(matrices[stage], AHEAD_BYTES)
        return self._ahead[stage]

    def _attention(self, spans: Sequence[Span], layer: int, size: int) -> AttentionOfLayers:
        """Return the attention of this layer alone."""
        own = spans_in_part(spans, slice(layer, layer + 1))
        caches = [caches_in_part([own], slice(None))]
        return AttentionOfLayers(self._known, [self], caches, spans, size=size, first=layer)

    def _steps_of(self, stage: Stage, size: int) -> StepArray:
        """Return the steps of a stage after attention, made again where memory has moved."""
        workspace = self._engine.workspace
        key = (self._change, stage, size)
        known = self._stages.get(key)
        while known is None or known[0] != workspace.version:
            version = workspace.version  # making them may move it
            known = self._stages[key] = version, step_array(self._make(stage, size))
        return known[1]

    def _make(self, stage: Stage, size: int) -> list[Step]:
        weights = self._weights[self._change]
        if stage != "gate":
            return self._added(stage, weights.output if stage == "output" else weights.down, size)
        before = []
        if self._has_all_attended:
            before = self._added("output", weights.output, size)
        return [*before, *self._gate(weights, size)]

    def _added(self, stage: Stage, matrices: Sequence[Matrix], size: int) -> list[Step]:
        """Return the steps that add a product of what was gathered to the hidden states."""
        engine, width = self._engine, self._block.shape.hidden
        gathered = engine.workspace.reserved("gathered", 4 * size * matrices[0].in_features)
        hidden = engine.workspace.reserved("hidden", 4 * size * width)
        out = hidden + 4 * self._first[stage]
        return product_steps(engine, matrices, gathered, out, tokens=size, add=True, width=width)

    def _gate(self, weights: LayerWeights, size: int) -> list[Step]:
        engine, width, inner = self._engine, self._block.shape.hidden, self._block.shape.inner
        weight = weights.before_mlp
        assert isinstance(weight, Vector), "models without this norm are not split by rows"
        hidden = engine.workspace.reserved("hidden", 4 * size * width)
        normed = engine.workspace.reserved("normed", 4 * size * width)
        gate_up = engine.workspace.reserved("gate and up", 8 * size * inner)
        gated = engine.workspace.reserved("gated", 4 * size * inner)
        norm = make_step(
            engine.kernel("norm", weight.kind),
            NORM,
            x=hidden,
            weight=weight.address,
            out=normed,
            hidden=width,
            row_bytes=4 * width,
            eps=float32_bits(self._block.shape.eps),
        )
        products = product_steps(engine, weights.gate_up, normed, gate_up, tokens=size)
        swiglu = make_step(engine.kernel("swiglu"), SWIGLU, gate_up=gate_up, out=gated, inner=inner)
        return [norm, *products, swiglu]


def _first_bytes(matrices: Sequence[Matrix], most: int) -> npt.NDArray[np.int64]:
    """Return addresses and bytes (parts, 2) of the first rows of matrices, ``most`` bytes."""
    parts: list[tuple[int, int]] = []
    for matrix in matrices:
        stored = matrix.parts
        row_bytes = sum(nbytes for _, nbytes in stored)
        rows = min(matrix.out_features, most // row_bytes)
        parts += [(address, rows * nbytes) for address, nbytes in stored if rows]
        most -= rows * row_bytes
    return np.array(parts, np.int64).reshape(-1, 2)
