"""The plan for a budget with a predicted speed, here or on a machine that is only described."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgellm.device import machine as device
from edgellm.device.machine import Memory
from edgellm.memory_plan.plan import Plan, Speeds
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint, MLXLMCheckpoint
from edgellm.reading.tuning import measure_disk
from edgellm.runtime.step_time import measure_step
from edgellm.settings import LoadSettings

SMALL_MACHINE = 32 << 30
"""Bytes; up to it the GPU of an Apple chip may use two thirds of the memory, above it three
quarters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetMachine:
    """Another machine; what is None is as here.

    Attributes:
        memory: bytes.
        disk: bytes per second.
    """

    memory: int | None = None
    disk: float | None = None

    def described_memory(self) -> Memory | None:
        """Return its memory, all of it free, with a GPU as Apple's; None: as here."""
        if self.memory is None:
            return None
        gpu_limit = self.memory * 3 // 4
        if self.memory <= SMALL_MACHINE:
            gpu_limit = self.memory * 2 // 3
        return Memory(self.memory, self.memory, gpu_limit)


def forecast(
    checkpoint: AnyCheckpoint,
    settings: LoadSettings,
    target: TargetMachine | None = None,
    *,
    here: bool,
) -> Plan:
    """Return the plan for a budget, with the time of a token.

    Args:
        checkpoint: the model.
        settings: as for ``load``.
        target: another machine. Its arithmetic is taken to be faster than its disk, since nothing
            is known of it; a model that fits whole then has no prediction.
        here: whether the model's files are on this machine, so that its disk and arithmetic can be
            measured.

    Raises:
        MemoryBudgetError, ConfigError: as ``load``.
        ReadError: a file cannot be read.
    """
    target = target or TargetMachine()
    memory = target.described_memory() or device.read_memory()
    plan = plan_for(checkpoint, settings, memory=memory)
    if isinstance(checkpoint, MLXLMCheckpoint) or (target.disk is None and not here):
        return plan  # of mlx-lm's models no layer can be measured alone
    # what is not measured is infinitely fast: it bounds nothing
    speeds = Speeds(disk=target.disk or math.inf, weights=math.inf)
    if target.disk is None and not plan.resident:
        files = {extent.file for layer in checkpoint.layers for extent in layer.extents}
        speeds = replace(speeds, disk=measure_disk(sorted(files)))
    if target == TargetMachine():
        step = measure_step(checkpoint, settings)
        speeds = replace(
            speeds,
            weights=step.weights_per_second,
            weights_at_worst=step.weights_at_worst,
            weights_at_best=step.weights_at_best,
        )
    return plan_for(checkpoint, settings, memory=memory, speeds=speeds)
