"""Rows of every matrix of a model on one machine: what they take there, and how they load."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.distributed.parts.changes import changes_bytes
from edgellm.distributed.parts.output import load_output, plan_with_output
from edgellm.distributed.parts.part import MakeReader, Part
from edgellm.distributed.parts.rows import (
    Bounds,
    RowLayers,
    RowShare,
    checkpoint_rows,
    require_rows,
)
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.arithmetic import arithmetic_of, config_for
from edgellm.models.cpu.block import CpuBlock
from edgellm.models.cpu.row_block import RowBlock
from edgellm.models.layers import LayerChange
from edgellm.reading.paged_groups import PagedGroups
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import LoadProgress, open_reader
from edgellm.settings import LoadSettings


def plan_rows(
    checkpoint: Checkpoint,
    share: RowShare,
    settings: LoadSettings,
    *,
    layers_only: bool,
    output: Bounds | None = None,
    adapter_bytes: int = 0,
) -> Plan:
    """Return the plan of a machine's rows. Raises MemoryBudgetError.

    Args:
        checkpoint, settings: as for ``load``.
        share: the rows.
        layers_only: whether the embedding is elsewhere.
        output: rows of the output matrix here; None: the machine with the embedding has all.
        adapter_bytes: as ``plan_for`` has them.
    """
    part = checkpoint_rows(checkpoint, share)
    # what is gathered is as wide as the whole model; the KV caches are of the heads here
    config = replace(checkpoint.config, num_key_value_heads=part.config.num_key_value_heads)
    part = replace(part, config=config)
    if output is None:
        return plan_for(part, settings, layers_only=layers_only, adapter_bytes=adapter_bytes)
    return plan_with_output(
        part, output, settings, layers_only=layers_only, adapter_bytes=adapter_bytes
    )


def open_rows(
    checkpoint: Checkpoint,
    share: RowShare,
    settings: LoadSettings,
    *,
    layers_only: bool = True,
    output: Bounds | None = None,
    changes: Sequence[LayerChange] = (),
    adapter_bytes: int | None = None,
    progress: LoadProgress | None = None,
    make_reader: MakeReader = open_reader,
) -> Part[RowLayers]:
    """Load some rows of each layer; errors are those of ``load``.

    Rows of the output matrix are loaded beside them where the embedding is elsewhere.

    Args:
        checkpoint, share, settings, layers_only, output: as ``plan_rows`` has them.
        changes: of these rows by an adapter, of each layer.
        adapter_bytes: of its numbers here; None: these changes are all.
        progress: told of the bytes that have arrived.
        make_reader: opens what reads the rows.
    """
    require_rows(checkpoint, settings)
    if adapter_bytes is None:
        adapter_bytes = changes_bytes(changes)
    plan = plan_rows(
        checkpoint,
        share,
        settings,
        layers_only=layers_only,
        output=output,
        adapter_bytes=adapter_bytes,
    )
    part = checkpoint_rows(checkpoint, share)
    config = config_for(part, settings)
    kernels = arithmetic_of(checkpoint, settings).kernels
    assert kernels is not None, "they are required"
    engine = kernels.twin()  # it is in use also while other machines are waited for
    with ExitStack() as on_failure:
        reader = make_reader(part, plan)
        on_failure.callback(reader.close)
        read, total = 0, sum(part.layers[index].nbytes for index in plan.pinned)

        def arrived(index: int, block: RowBlock) -> None:
            nonlocal read
            if changes:
                block.adapt(changes[index])
            read += part.layers[index].nbytes
            if progress is not None:
                progress(read, total)

        def make(index: int, buffer: WeightBuffer) -> RowBlock:
            group = part.layers[index]
            tensors = buffer.arrays(group.layout)
            quantization_of = group.quantizations.__getitem__
            block = CpuBlock(engine, config, config.layer(index), tensors, quantization_of)
            return RowBlock(block, share.hidden, attended=share.attended)

        weights = PagedGroups(
            part.layers,
            plan.pinned,
            plan.ring_buffers,
            reader,
            make,
            kinds=[config.layer(index) for index in range(len(part.layers))],
            on_pinned=arrived,
        )
        on_failure.callback(weights.close)
        layers = RowLayers(weights, len(part.layers), engine, changes)
        if layers_only and output is not None:
            layers.head = load_output(checkpoint, output, reader, settings)
        on_failure.pop_all()
    return Part(layers, LayerCaches(part, plan), plan, reader)
