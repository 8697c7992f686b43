"""What a model will do with a budget, here or on a machine that is only described: a plan with a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device import machine as device
from edgellm.device.machine import Memory
from edgellm.plan.plan import Plan, Speeds
from edgellm.plan.planner import plan_for
from edgellm.reading.tuning import measure_disk
from edgellm.runtime.step_time import measure_step
from edgellm.settings import LoadSettings

SMALL_MACHINE = 32 << 30
"""Bytes; up to it the GPU of an Apple chip may use two thirds of the memory, above it three quarters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetMachine:
    """Another machine: its memory and its disk's bytes a second; what is None is as here."""

    memory: int | None = None
    disk: float | None = None


def forecast(
    checkpoint: Checkpoint,
    settings: LoadSettings,
    elsewhere: TargetMachine | None = None,
    *,
    here: bool,
) -> Plan:
    """The plan for a budget, with the time of a token.

    Args:
        checkpoint: the model.
        settings: as for ``load``.
        elsewhere: another machine. Its arithmetic is taken to be faster than its disk, since
            nothing is known of it; a model that fits whole then has no prediction.
        here: whether the model's files are on this machine, so that its disk and arithmetic can be
            measured.

    Raises:
        MemoryBudgetError, ConfigError: as ``load``.
        ReadError: a file cannot be read.
    """
    other = elsewhere or TargetMachine()
    memory = _described(other.memory) if other.memory else device.read_memory()
    plan = plan_for(checkpoint, settings, memory=memory)
    if other.disk is None and not here:
        return plan
    disk, weights = other.disk or math.inf, math.inf
    if other.disk is None and not plan.resident:
        disk = measure_disk(
            sorted({extent.file for layer in checkpoint.layers for extent in layer.extents})
        )
    if other == TargetMachine():
        weights = measure_step(checkpoint, settings).weights_per_second
    return plan_for(checkpoint, settings, memory=memory, speeds=Speeds(disk=disk, weights=weights))


def _described(total: int) -> Memory:
    """The memory of a machine of which only the size is known, all of it free, and a GPU like Apple's."""
    return Memory(total, total, total * 2 // 3 if total <= SMALL_MACHINE else total * 3 // 4)
