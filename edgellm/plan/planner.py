"""The plan of a model by its settings, here or on another machine."""

from __future__ import annotations

from dataclasses import replace

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine as device
from edgellm.device.machine import Memory
from edgellm.errors import ConfigError
from edgellm.hub.resolve import locate
from edgellm.plan.memory_estimate import MemoryEstimate, needs_of
from edgellm.plan.plan import Plan, Speeds, automatic_budget, least_budget, make_plan
from edgellm.runtime.loader import Arithmetic, arithmetic_of, kv_format_of
from edgellm.settings import LoadSettings, parse_memory


def plan_for(
    checkpoint: Checkpoint,
    settings: LoadSettings,
    *,
    memory: Memory | None = None,
    speeds: Speeds | None = None,
) -> Plan:
    """The plan that ``load`` follows, on this machine or one with other ``memory``; ``speeds`` are for its prediction.

    Raises:
        MemoryBudgetError: the model cannot run inside the budget.
        ConfigError: a setting is out of range.
    """
    memory = memory or device.read_memory()
    budget = parse_memory(settings.memory, memory.total)
    arithmetic, needs = _asked(checkpoint, settings)
    return make_plan(
        needs,
        budget=budget if budget is not None else automatic_budget(memory),
        slots=arithmetic.slots,
        context=settings.context,
        context_window=settings.context_window,
        kv_bits=settings.kv_bits,
        prefill_chunk=settings.prefill_chunk,
        speeds=speeds,
    )


def least_memory(checkpoint: Checkpoint, settings: LoadSettings) -> int:
    """The smallest budget in bytes that ``plan_for`` takes. Raises ConfigError."""
    arithmetic, needs = _asked(checkpoint, settings)
    return least_budget(needs, slots=arithmetic.slots, context=settings.context)


def _asked(checkpoint: Checkpoint, settings: LoadSettings) -> tuple[Arithmetic, MemoryEstimate]:
    """What the settings ask of the machine. Raises ConfigError."""
    config = checkpoint.config
    if settings.context is not None and settings.context > config.max_position_embeddings:
        raise ConfigError(
            f"context is {settings.context}; the model's own limit is {config.max_position_embeddings}"
        )
    arithmetic, kept = (
        arithmetic_of(checkpoint, settings),
        kv_format_of(checkpoint, settings.kv_bits),
    )
    draft = draft_checkpoint(settings)
    needs = needs_of(
        checkpoint,
        item=arithmetic.dtype.size,
        window=settings.context_window,
        fused_attention=arithmetic.fused_attention
        and (arithmetic.kernels is not None or kept.bits is None),
        kv_bytes_per_token=kept.token_bytes,
    )
    return arithmetic, replace(needs, draft=draft_estimate(draft, settings)) if draft else needs


def draft_checkpoint(settings: LoadSettings) -> Checkpoint | None:
    """Read the draft model's checkpoint; None where there is no draft. Raises EdgeLLMError, as ``load``."""
    return None if settings.draft is None else read_checkpoint(locate(settings.draft))


def draft_estimate(draft: Checkpoint, settings: LoadSettings) -> MemoryEstimate:
    """Estimate what a draft model needs in memory."""
    arithmetic = arithmetic_of(draft, settings)
    return needs_of(
        draft,
        item=arithmetic.dtype.size,
        window=settings.context_window,
        fused_attention=arithmetic.fused_attention,
    )
