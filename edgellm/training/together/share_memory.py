"""The memory of a machine's share of a step, and how many tokens it has room for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.errors import MemoryBudgetError
from edgellm.training.learners.adapter_memory import TrainingMemory, plan_training
from edgellm.training.learners.adapter_task import AdapterTask
from edgellm.training.low_rank import LoraSettings

MEMBER_COPIES = 3
"""Of the numbers on a machine that takes no steps: themselves, derivatives, and a message."""


@dataclass(frozen=True, slots=True)
class ShareMemory:
    """Memory of a share.

    Attributes:
        memory: of the machine.
        room: tokens of a step; a share may have one record more than these.
    """

    memory: TrainingMemory
    room: int


def plan_share(
    checkpoint: Checkpoint,
    task: AdapterTask,
    budget: int,
    *,
    machines: int,
    copies: int,
    asks: bool = False,
) -> ShareMemory:
    """Return how a machine's share of each step lies in its memory.

    Where all layers stay in memory with a whole step, it may have all of it; else more than an even
    share only as far as that is probably of use: tokens of a step take memory from layers.

    Args:
        checkpoint: the model.
        task: what is learned.
        budget: bytes of the machine's process.
        machines: that share a step.
        copies: of the numbers that are learned.
        asks: whether the model answers questions before it learns.

    Raises:
        MemoryBudgetError: not even an even share fits.
    """
    even = -(-task.step_tokens // machines)

    def planned(room: int) -> ShareMemory:
        memory = plan_training(
            checkpoint,
            task.lora,
            budget,
            step_tokens=min(task.step_tokens, room + task.longest),
            micro_tokens=task.micro_tokens,
            longest=task.longest,
            reference=task.beta is not None,
            asks=asks,
            copies=copies,
        )
        return ShareMemory(memory, room)

    for room in (task.step_tokens, even * 3 // 2):
        try:
            found = planned(room)
        except MemoryBudgetError:
            continue
        if found.memory.pinned == found.memory.count or room < task.step_tokens:
            return found
    return planned(even)


def task_document(task: AdapterTask) -> dict[str, Any]:
    """Return a task as it is sent."""
    return asdict(task)


def task_from(document: Mapping[str, Any]) -> AdapterTask:
    """Return a task that was sent. Raises ConfigError."""
    lora = {**document["lora"], "targets": tuple(document["lora"]["targets"])}
    return AdapterTask(**{**document, "lora": LoraSettings(**lora)})
