"""The plan of a model by its settings, here or on another machine."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from dataclasses import replace

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.console.units import size
from edgellm.device import machine as device
from edgellm.device.machine import Memory
from edgellm.errors import ConfigError, MemoryBudgetError, UnsupportedModelError
from edgellm.hub.resolve import locate
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.memory_plan.budget_planner import automatic_budget, least_budget, make_plan
from edgellm.memory_plan.kv_quality import eight_bits_do
from edgellm.memory_plan.memory_estimate import MemoryEstimate, estimate_memory
from edgellm.memory_plan.plan import Plan, Speeds, caches_of
from edgellm.memory_plan.whole_model import estimate_whole
from edgellm.models.arithmetic import arithmetic_of, kv_format_of
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint, MLXLMCheckpoint
from edgellm.settings import LoadSettings, parse_memory

FEWER_KV_BITS = 8
"""Bits of the KV cache that the planner takes by itself, where they pin more layers."""


def plan_for(
    checkpoint: AnyCheckpoint,
    settings: LoadSettings,
    *,
    memory: Memory | None = None,
    speeds: Speeds | None = None,
    layers_only: bool = False,
    with_output: bool = False,
    adapter_bytes: int = 0,
) -> Plan:
    """Return the plan that ``load`` follows.

    Args:
        checkpoint: the model.
        settings: as for ``load``.
        memory: of another machine; None: of this one.
        speeds: for the plan's prediction.
        layers_only: whether embedding and output matrix are elsewhere.
        with_output: whether norm and output matrix are here even so.
        adapter_bytes: of an adapter's numbers that come from elsewhere; ``settings`` name none.

    Raises:
        MemoryBudgetError: the model cannot run inside the budget.
        ConfigError: a setting is out of range.
    """
    budget = budget_for(settings, memory)
    if layers_only:
        return _plan_as_set(
            checkpoint,
            settings,
            budget=budget,
            speeds=speeds,
            layers_only=True,
            with_output=with_output,
            adapter_bytes=adapter_bytes,
        )
    plan = _plan_as_set(
        checkpoint, settings, budget=budget, speeds=speeds, adapter_bytes=adapter_bytes
    )
    if plan.resident or settings.kv_bits is not None or isinstance(checkpoint, MLXLMCheckpoint):
        return plan
    if arithmetic_of(checkpoint, settings).kernels is None:
        return plan  # MLX reads codes more slowly than numbers
    usual, fewer = (kv_format_of(checkpoint, bits) for bits in (plan.kv_bits, FEWER_KV_BITS))
    if fewer.token_bytes >= usual.token_bytes:
        return plan  # of small heads, whose groups are filled up
    in_8_bits = _plan_as_set(
        checkpoint,
        replace(settings, kv_bits=FEWER_KV_BITS, context=plan.context),
        budget=budget,
        speeds=speeds,
        adapter_bytes=adapter_bytes,
    )
    if len(in_8_bits.pinned) <= len(plan.pinned):
        return plan
    if eight_bits_do(checkpoint.folder.path):
        return replace(in_8_bits, kv_bits_chosen=True)
    return replace(plan, pinned_in_8_bits=len(in_8_bits.pinned))


def budget_for(settings: LoadSettings, memory: Memory | None = None) -> int:
    """Return the bytes that settings allow; raises ConfigError where they are out of range.

    Args:
        settings: as for ``load``.
        memory: of another machine; None: of this one.
    """
    memory = memory or device.read_memory()
    budget = parse_memory(settings.memory, memory.total)
    if budget is None:
        return automatic_budget(memory)
    return budget


def _plan_as_set(
    checkpoint: AnyCheckpoint,
    settings: LoadSettings,
    *,
    budget: int,
    speeds: Speeds | None,
    layers_only: bool = False,
    with_output: bool = False,
    adapter_bytes: int = 0,
) -> Plan:
    """Return the plan with the KV cache's bits as they are set, or usual."""
    ring_buffers, estimate = _estimate(checkpoint, settings)
    if adapter_bytes:
        estimate = replace(estimate, adapter_bytes=adapter_bytes)
    if layers_only:
        estimate = estimate.without_embedding() if with_output else estimate.without_outer()
    kv_bits = None
    if not isinstance(checkpoint, MLXLMCheckpoint):
        kv_bits = kv_format_for(checkpoint, settings).number_bits
    return make_plan(
        estimate,
        budget=budget,
        ring_buffers=ring_buffers,
        context=settings.context,
        context_window=settings.context_window,
        kv_bits=kv_bits,
        beams=settings.beams,
        prefill_chunk=settings.prefill_chunk,
        speeds=speeds,
    )


def warn_of_large_budget(settings: LoadSettings) -> None:
    """Warn where the budget is more than the memory of this machine."""
    total = device.read_memory().total
    budget = parse_memory(settings.memory, total)
    if budget is not None and budget > total:
        warnings.warn(
            f"the memory budget is {size(budget)} and this machine has {size(total)}: a program "
            "that takes more is swapped to disk or killed; auto takes what is free",
            stacklevel=3,
        )


def sequences_that_fit(
    checkpoint: AnyCheckpoint, settings: LoadSettings, *, tokens: int, most: int
) -> int:
    """Return how many sequences of ``tokens`` tokens have room at once: ``most``, or fewer.

    At least one, also where not even that fits.

    Raises:
        ConfigError: a setting is out of range.
    """
    limit = checkpoint.config.max_position_embeddings

    def is_too_many(sequences: int) -> bool:
        try:
            plan_for(checkpoint, replace(settings, context=min(sequences * tokens, limit)))
        except MemoryBudgetError:
            return True
        return False

    if not is_too_many(most):
        return most
    return max(1, bisect_left(range(1, most), True, key=is_too_many))


def least_memory(checkpoint: AnyCheckpoint, settings: LoadSettings) -> int:
    """Return the smallest budget in bytes that ``plan_for`` takes. Raises ConfigError."""
    ring_buffers, estimate = _estimate(checkpoint, settings)
    return least_budget(estimate, ring_buffers=ring_buffers, context=settings.context)


def draft_checkpoint(settings: LoadSettings) -> Checkpoint | None:
    """Read the checkpoint of the draft model; None where there is none. Raises as ``load``."""
    if settings.draft is None:
        return None
    return read_checkpoint(locate(settings.draft))


def draft_estimate(draft: Checkpoint, settings: LoadSettings) -> MemoryEstimate:
    """Return what a draft model takes in memory; its KV caches are of plain numbers."""
    arithmetic = arithmetic_of(draft, settings)
    return estimate_memory(
        draft,
        item_bytes=arithmetic.dtype.size,
        window=settings.context_window,
        fused_attention=arithmetic.fused_attention,
        lazy=arithmetic.lazy,
        layer_kv_bytes=kv_format_of(draft, arithmetic.kv_bits).token_bytes,
    )


def kv_format_for(checkpoint: Checkpoint, settings: LoadSettings) -> KVFormat:
    """Return how keys and values are stored: by setting, or as the arithmetic wants them."""
    usual = arithmetic_of(checkpoint, settings).kv_bits
    return kv_format_of(checkpoint, settings.kv_bits or usual)


def _estimate(checkpoint: AnyCheckpoint, settings: LoadSettings) -> tuple[int, MemoryEstimate]:
    """Return the ring's buffers, and what a model and its draft take. Raises ConfigError."""
    max_context = checkpoint.config.max_position_embeddings
    if settings.context is not None and settings.context > max_context:
        raise ConfigError(
            f"context is {settings.context}; the model's own limit is {max_context}",
            hint=f"take {max_context} or less, or leave it out",
        )
    if isinstance(checkpoint, MLXLMCheckpoint):
        if settings.adapter is not None:
            raise UnsupportedModelError(
                f"no adapter runs beside a model of type {checkpoint.config.model_type}, "
                "which mlx-lm computes",
                hint="merge it into the weights with mlx_lm.fuse, and load the result",
            )
        return 0, estimate_whole(checkpoint, settings)
    arithmetic = arithmetic_of(checkpoint, settings)
    kv_format = kv_format_for(checkpoint, settings)
    # MLX's attention over packed keys holds the scores; the kernels' never does
    fused_attention = arithmetic.fused_attention
    if arithmetic.kernels is None and kv_format.bits is not None:
        fused_attention = False
    estimate = estimate_memory(
        checkpoint,
        item_bytes=arithmetic.dtype.size,
        window=settings.context_window,
        fused_attention=fused_attention,
        lazy=arithmetic.lazy,
        layer_kv_bytes=caches_of(settings.beams) * kv_format.token_bytes,
    )
    if settings.context is None:
        estimate = replace(estimate, max_context=checkpoint.config.usual_context)
    if settings.adapter is not None:
        # most models have none, and what reads one takes time to import
        from edgellm.adapters.unmerged import open_unmerged

        adapter = open_unmerged(settings.adapter, checkpoint)
        estimate = replace(estimate, adapter_bytes=adapter.nbytes(arithmetic.dtype.size))
    draft = draft_checkpoint(settings)
    if draft is not None:
        estimate = replace(estimate, draft=draft_estimate(draft, settings))
    return arithmetic.ring_buffers, estimate
