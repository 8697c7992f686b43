"""What a model will do with a budget, here or on a machine that is only described: a plan with a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgellm import device
from edgellm.checkpoint import Checkpoint
from edgellm.config import LoadSettings, parse_memory
from edgellm.device import Memory
from edgellm.loader import arithmetic_of
from edgellm.needs import needs_of
from edgellm.plan import Plan, Speeds, automatic_budget, make_plan
from edgellm.steptime import measure_step
from edgellm.tuning import measure_disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Another machine: its memory and its disk's bytes a second; what is None is as here."""

    memory: int | None = None
    disk: float | None = None


def forecast(checkpoint: Checkpoint, settings: LoadSettings, elsewhere: Elsewhere | None = None, *, here: bool) -> Plan:
    """The plan for a budget, with the time of a token.

    Args:
        checkpoint: the model.
        settings: as for ``load``.
        elsewhere: another machine. Its arithmetic is taken to be faster than its disk, since nothing is known of it; a
            model that fits whole then has no prediction.
        here: whether the model's files are on this machine, so that its disk and arithmetic can be measured.

    Raises:
        MemoryBudgetError, ConfigError: as ``load``.
        ReadError: a file cannot be read.
    """
    other = elsewhere or Elsewhere()
    memory = Memory(other.memory, other.memory) if other.memory else device.read_memory()
    budget = parse_memory(settings.memory, memory.total)
    arithmetic = arithmetic_of(checkpoint, settings)
    return make_plan(
        needs_of(
            checkpoint,
            item=arithmetic.dtype.size,
            window=settings.context_window,
            fused_attention=arithmetic.fused_attention,
        ),
        budget=budget if budget is not None else automatic_budget(memory),
        slots=arithmetic.slots,
        context=settings.context,
        context_window=settings.context_window,
        prefill_chunk=settings.prefill_chunk,
        speeds=_speeds(checkpoint, settings, other, here=here),
    )


def _speeds(checkpoint: Checkpoint, settings: LoadSettings, other: Elsewhere, *, here: bool) -> Speeds | None:
    if other.disk is not None:
        return Speeds(disk=other.disk, weights=math.inf)
    if not here:
        return None
    files = sorted({extent.file for layer in checkpoint.layers for extent in layer.extents})
    disk = measure_disk(files)
    return Speeds(disk=disk, weights=math.inf if other.memory else measure_step(checkpoint, settings).weights_per_second)
