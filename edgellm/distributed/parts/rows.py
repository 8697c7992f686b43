"""Rows of every matrix of a model on one machine: which ones, and how they are gone through."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgellm.checkpoint.buffer import place_tensors
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.family_configs import PRE_NORM, QueryKeyNorm
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.console.units import plural
from edgellm.errors import ClosedError, ConfigError
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.cpu.linear import CpuLinear
from edgellm.models.cpu.row_block import AttentionOfLayers, RowAttention, RowBlock
from edgellm.models.layers import LayerChange, Span
from edgellm.reading.paged_groups import PagedGroups, Traffic
from edgellm.settings import LoadSettings

UNIT = 16
"""Rows of feed-forward part and output that stay together, where there are enough."""

GATHERS = 4
"""Times that what machines made of a token is gathered, in each layer; 3 where each machine has all
of what multiplies with what the heads attend to."""

WINDOWS_INSTEAD = "use --split windows: each machine then has whole layers"

Bounds = tuple[int, int]
"""The first row, and the one behind the last."""


@dataclass(frozen=True, slots=True)
class RowShare:
    """The rows of one machine, in every layer.

    Attributes:
        kv_heads: key/value heads, with the query heads that read them.
        inner: features of the feed-forward part.
        hidden: features of the hidden states after it.
        attended: features of the hidden states after attention; those of ``hidden``, or on each
            machine all.
    """

    kv_heads: Bounds
    inner: Bounds
    hidden: Bounds
    attended: Bounds

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is sent."""
        return asdict(self)


def share_from(told: dict[str, Any]) -> RowShare:
    """Return a share as it was sent."""
    return RowShare(**{name: (int(first), int(stop)) for name, (first, stop) in told.items()})


class RowLayers:
    """The rows of all layers on one machine, in memory or paged.

    Args:
        weights: those in memory, and the ring of buffers for the others.
        count: how many layers there are.
        engine: their kernels, of which nobody else has the lock: it is held through a pass.
        changes: by an adapter, of each layer; empty where there is none.

    Attributes:
        max_exact_rows: as ``models.layers.Layer`` has it.
        head: norm and the rows of the output matrix that are here; None where the first machine
            has all of them.
    """

    takes_trees = True

    def __init__(
        self,
        weights: PagedGroups[RowBlock],
        count: int,
        engine: KernelEngine,
        changes: Sequence[LayerChange] = (),
    ) -> None:
        self.count = count
        self.engine = engine
        self._changes = changes
        self.max_exact_rows: int = engine.max_exact_rows
        self.is_closed: bool = False
        self.head: CpuLinear | None = None
        self._weights = weights
        self._attention: RowAttention | None = None
        if len(weights.pinned) == count:
            self._attention = RowAttention([weights.pinned[number] for number in range(count)])

    def prepare(self, spans: Sequence[Span]) -> AttentionOfLayers | None:
        """Return how these tokens attend in all layers; None where each has to be asked.

        The caller holds the engine's lock.
        """
        if self._attention is None or self.is_closed:
            return None
        return self._attention.prepare(spans)

    @property
    def traffic(self) -> Traffic:
        """The cost of streaming so far."""
        return self._weights.traffic

    def through(self, depth: int | None = None) -> Iterator[tuple[int, RowBlock]]:
        """Yield the number and the rows of one layer after the other, each until the next one.

        While one computes and its results are gathered, the next ones are read.

        Raises:
            ReadError: a layer cannot be read.
            ClosedError: the layers were closed.
        """
        if self.is_closed:
            raise ClosedError("the model was closed")
        weights = self._weights
        weights.rewind()
        is_through = False
        try:
            for number in range(self.count)[:depth]:
                block, load = weights.take(number)
                # the object is of a buffer, the change of a layer
                if load is not None and self._changes:
                    block.adapt(self._changes[number])
                yield number, block
                if load is not None:
                    weights.release(load)
            is_through = True
        finally:
            if not is_through:
                weights.stop()

    def close(self) -> None:
        """Wait for the reads under way, and free the weights."""
        if not self.is_closed:
            self.is_closed = True
            self._attention = self.head = None
            self._weights.close()


def share_rows(
    config: ModelConfig, budgets: Sequence[float], *, all_attended: bool = False
) -> list[RowShare]:
    """Return the rows of each machine, in proportion to its memory.

    With ``all_attended`` each has all features of the hidden states after attention.

    Raises ConfigError where a machine would have none.
    """
    groups, machines = config.num_key_value_heads, len(budgets)
    if groups < machines:
        raise ConfigError(
            f"the model has {plural(groups, 'key/value head')}, which {machines} machines cannot "
            "share",
            hint=f"leave some of the machines out, or {WINDOWS_INSTEAD}",
        )
    kv_heads = _shared(groups, budgets, 1)
    inner = _shared(config.intermediate_size, budgets, UNIT)
    hidden = _shared(config.hidden_size, budgets, UNIT)
    attended = [(0, config.hidden_size)] * machines if all_attended else hidden
    return [RowShare(*own) for own in zip(kv_heads, inner, hidden, attended, strict=True)]


def share_output(config: ModelConfig, weights: Sequence[float]) -> list[Bounds]:
    """Return the rows of the output matrix on each machine, in proportion to its memory."""
    return _shared(config.vocab_size, weights, UNIT)


def _shared(count: int, weights: Sequence[float], unit: int) -> list[Bounds]:
    """Return adjacent parts of ``count``, in whole units where each then has one."""
    if count < 2 * unit * len(weights):
        unit = 1
    units, total = count // unit, sum(weights)
    own = [1] * len(weights)
    for _ in range(units - len(weights)):
        # to whom has least of what it should
        lacks = [number * total / weight for number, weight in zip(own, weights, strict=True)]
        own[lacks.index(min(lacks))] += 1
    bounds, first = [], 0
    for place, number in enumerate(own):
        stop = count if place == len(own) - 1 else first + number * unit
        bounds.append((first, stop))
        first = stop
    return bounds


def require_rows(checkpoint: Checkpoint, settings: LoadSettings) -> None:
    """Raise ConfigError where a model cannot be split by rows."""
    config = checkpoint.config
    reason = None
    if arithmetic_of(checkpoint, settings).kernels is None:
        reason = "rows are split where edgellm's CPU kernels compute, and here MLX does"
    elif config.norms != PRE_NORM or (config.query_key_norm or QueryKeyNorm()).whole:
        reason = f"a model of type {config.model_type} norms what rows of all machines make"
    if reason is not None:
        raise ConfigError(reason, hint=WINDOWS_INSTEAD)


def checkpoint_rows(checkpoint: Checkpoint, share: RowShare) -> Checkpoint:
    """Return a model's layers with some rows of each matrix alone; the config has their heads."""
    first, stop = share.kv_heads
    config = checkpoint.config
    group = config.num_attention_heads // config.num_key_value_heads
    return replace(
        checkpoint,
        layers=tuple(_rows_of(layer, config, share) for layer in checkpoint.layers),
        config=replace(
            config,
            num_attention_heads=group * (stop - first),
            num_key_value_heads=stop - first,
            intermediate_size=share.inner[1] - share.inner[0],
        ),
    )


def matrix_rows(config: ModelConfig, share: RowShare) -> dict[str, Bounds]:
    """Return a machine's rows of each of a layer's matrices, by its name inside the layer."""
    group = config.num_attention_heads // config.num_key_value_heads
    first, stop = (config.head_dim * bound for bound in share.kv_heads)
    return {
        "self_attn.q_proj": (group * first, group * stop),
        "self_attn.k_proj": (first, stop),
        "self_attn.v_proj": (first, stop),
        "self_attn.o_proj": share.attended,
        "mlp.gate_proj": share.inner,
        "mlp.up_proj": share.inner,
        "mlp.down_proj": share.hidden,
    }


def _rows_of(layer: TensorGroup, config: ModelConfig, share: RowShare) -> TensorGroup:
    rows = matrix_rows(config, share)
    tensors = {}
    for name, tensor in layer.tensors.items():
        own = rows.get(name.rpartition(".")[0])
        tensors[name] = tensor if own is None else tensor.part(tensor.name, *own)
    layout, extents = place_tensors(tensors)
    return TensorGroup(layout, extents, layer.quantizations, tensors)
