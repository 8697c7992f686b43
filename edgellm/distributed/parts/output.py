"""Rows of the output matrix on one machine: what they take there, and how they load."""

# V vocabulary, E hidden

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx

from edgellm.checkpoint.buffer import WeightBuffer, place_tensors
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.kernels.exchange.gather import Bounds
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.arithmetic import KERNEL_MODES, arithmetic_of
from edgellm.models.cpu.linear import CpuLinear, RMSNormWeight
from edgellm.reading.disk_reader import Reader
from edgellm.runtime.loader import make_matrix
from edgellm.settings import LoadSettings


def bounds_from(told: Sequence[int] | None) -> Bounds | None:
    """Return a machine's rows as they were sent; None: the first machine has all."""
    if told is None:
        return None
    first, stop = told
    return int(first), int(stop)


def has_output_kernels(checkpoint: Checkpoint) -> bool:
    """Return whether the CPU kernels compute with the output matrix as it is stored."""
    form = checkpoint.output_matrix.quantizations[""]
    return form is None or form.mode in KERNEL_MODES


def with_output_rows(checkpoint: Checkpoint, rows: Bounds) -> Checkpoint:
    """Return a model whose output matrix is some rows of its own, also where it was tied."""
    return replace(checkpoint, lm_head=_rows_of(checkpoint.output_matrix, rows))


def output_bytes(checkpoint: Checkpoint, rows: Bounds) -> int:
    """Return the bytes of some rows of the output matrix."""
    return _rows_of(checkpoint.output_matrix, rows).nbytes


def plan_with_output(
    checkpoint: Checkpoint,
    rows: Bounds,
    settings: LoadSettings,
    *,
    layers_only: bool,
    adapter_bytes: int = 0,
) -> Plan:
    """Return the plan of a machine that has some rows of the output matrix.

    Args:
        checkpoint: what it has of the layers, with all of the rest.
        rows: of the output matrix.
        settings: as for ``load``.
        layers_only: whether the embedding is elsewhere.
        adapter_bytes: as ``plan_for`` has them.

    Raises:
        MemoryBudgetError: it does not fit.
    """
    if layers_only or checkpoint.lm_head is not None:
        part = with_output_rows(checkpoint, rows)
        return plan_for(
            part,
            settings,
            layers_only=layers_only,
            with_output=True,
            adapter_bytes=adapter_bytes,
        )
    # the embedding is here as a whole, and some of its rows multiply
    plan = plan_for(checkpoint, settings, adapter_bytes=adapter_bytes)
    elsewhere = checkpoint.embed_tokens.nbytes - output_bytes(checkpoint, rows)
    return replace(plan, weight_bytes_per_token=plan.weight_bytes_per_token - elsewhere)


def load_output(
    checkpoint: Checkpoint, rows: Bounds, reader: Reader, settings: LoadSettings
) -> CpuLinear:
    """Read the final norm and some rows of the output matrix. Raises ReadError."""
    part = with_output_rows(checkpoint, rows)
    assert part.lm_head is not None, "it was made"
    kernels = arithmetic_of(checkpoint, settings).kernels
    assert kernels is not None, "they are required"
    groups = (part.norm, part.lm_head)
    buffers = [WeightBuffer(group.layout.nbytes) for group in groups]
    tickets = [
        reader.submit(group.extents, buffer.memory)
        for group, buffer in zip(groups, buffers, strict=True)
    ]
    for ticket in tickets:
        ticket.wait()
    norm = buffers[0].arrays(part.norm.layout)["weight"]
    mx.eval(norm)
    weight = RMSNormWeight(norm, checkpoint.config.rms_norm_eps)
    return CpuLinear(kernels, make_matrix(part.lm_head, buffers[1]), weight)


def _rows_of(group: TensorGroup, rows: Bounds) -> TensorGroup:
    tensors = {name: tensor.part(tensor.name, *rows) for name, tensor in group.tensors.items()}
    layout, extents = place_tensors(tensors)
    return TensorGroup(layout, extents, group.quantizations, tensors)
