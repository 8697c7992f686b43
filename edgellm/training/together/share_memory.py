"""The memory of a machine's share of a step, and how many tokens it has room for."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.errors import MemoryBudgetError
from edgellm.training.full.memory import plan_full
from edgellm.training.learners.adapter_memory import TrainingMemory, plan_training
from edgellm.training.learners.full import FullTask
from edgellm.training.together.tasks import Memory, Task

MEMBER_COPIES = 3
"""Of the numbers on a machine that takes no steps: themselves, derivatives, and a message."""


@dataclass(frozen=True, slots=True)
class ShareMemory:
    """Memory of a share.

    Attributes:
        memory: of the machine.
        room: tokens of a step; a share may have one record more than these.
    """

    memory: Memory
    room: int


def plan_share(
    checkpoint: Checkpoint,
    task: Task,
    budget: int,
    *,
    machines: int,
    copies: int,
    asks: bool = False,
    data: int = 0,
) -> ShareMemory:
    """Return how a machine's share of each step lies in its memory.

    Of a model that is learned whole, micro-batches go there and back one by one, and a share may be
    as large as a step. Of an adapter it may where all layers stay in memory with a whole step; else
    it is more than even only as far as that is probably of use: a step's tokens take memory from
    layers.

    Args:
        checkpoint: the model.
        task: what is learned.
        budget: bytes of the machine's process.
        machines: that share a step.
        copies: of the numbers that are learned.
        asks: whether the model answers questions before it learns.
        data: bytes of all sequences that the machine holds.

    Raises:
        MemoryBudgetError: not even an even share fits.
    """
    if isinstance(task, FullTask):
        whole = plan_full(
            checkpoint.config,
            budget,
            micro_tokens=task.micro_tokens,
            longest=task.longest,
            data=data,
            copies=copies,
        )
        return ShareMemory(whole, task.step_tokens)
    even = -(-task.step_tokens // machines)

    def planned(room: int) -> TrainingMemory:
        return plan_training(
            checkpoint,
            task.lora,
            budget,
            step_tokens=min(task.step_tokens, room + task.longest),
            micro_tokens=task.micro_tokens,
            longest=task.longest,
            reference=task.prefers,
            asks=asks,
            copies=copies,
            data=data,
        )

    for room in (task.step_tokens, even * 3 // 2):
        try:
            found = planned(room)
        except MemoryBudgetError:
            continue
        if found.pinned == found.count or room < task.step_tokens:
            return ShareMemory(found, room)
    return ShareMemory(planned(even), even)
