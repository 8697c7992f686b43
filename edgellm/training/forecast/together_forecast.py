"""A training run on several machines before it begins: each one's share, memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.distributed.gathered import call_machines, disk_rate
from edgellm.distributed.parts.part import shared_settings
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.settings import LoadSettings
from edgellm.training.forecast.training_forecast import bytes_of_a_step
from edgellm.training.full.memory import FullMemory
from edgellm.training.full.weights import require_plain
from edgellm.training.learners.adapter_memory import COPIES
from edgellm.training.learners.adapter_task import AdapterTask
from edgellm.training.learners.full import FullTask
from edgellm.training.low_rank import first_changed
from edgellm.training.run.settings import TrainSettings
from edgellm.training.together.learner import HERE
from edgellm.training.together.link_costs import numbers_seconds, said_of_links
from edgellm.training.together.messages import ITEM, Layout
from edgellm.training.together.share_memory import MEMBER_COPIES, plan_share
from edgellm.training.together.shares import Shares
from edgellm.training.together.tasks import (
    Memory,
    Task,
    operations_of,
    rate_of,
    shapes_of,
    task_document,
)


@dataclass(frozen=True, slots=True)
class _Record:
    """A record of which nothing but its length is known."""

    length: int
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineForecast:
    """A machine's share of a step, before the model is opened.

    Attributes:
        name: the machine's.
        tokens: of its share.
        memory: of it.
        budget: bytes that its process may take.
        bytes_moved: a step, from and to its disk.
        disk: bytes per second; None: nothing is read.
        arithmetic: operations per second, measured.
        operations: of a token.
        trip: seconds of all numbers to it and back.
    """

    name: str
    tokens: int
    memory: Memory
    budget: int
    bytes_moved: int
    disk: float | None
    arithmetic: float
    operations: int
    trip: float

    @property
    def seconds(self) -> float:
        """The time of its share: of arithmetic or reads, and of the way there and back."""
        reading = self.bytes_moved / self.disk if self.disk else 0.0
        return max(self.operations * self.tokens / self.arithmetic, reading) + self.trip

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "name": self.name,
            "tokens": self.tokens,
            "total_bytes": self.memory.total,
            "budget": self.budget,
            "pinned": None if isinstance(self.memory, FullMemory) else self.memory.pinned,
            "bytes_moved": self.bytes_moved,
            "disk_bytes_per_second": self.disk,
            "arithmetic": self.arithmetic,
            "trip_seconds": self.trip,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class TogetherForecast:
    """A training run on several machines before it begins.

    Attributes:
        machines: this one first.
        learned: numbers that are learned.
        layers: of the model.
        notes: what a person should know of the links, in sentences.
    """

    machines: Sequence[MachineForecast]
    learned: int
    layers: int
    notes: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        """The time of a step: that of the machine which ends last."""
        return max(machine.seconds for machine in self.machines)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "machines": [machine.as_dict() for machine in self.machines],
            "learned": self.learned,
            "layers": self.layers,
            "message_bytes": ITEM * self.learned,
            "notes": list(self.notes),
            "step_tokens": sum(machine.tokens for machine in self.machines),
            "seconds_a_step": self.seconds,
        }


def forecast_together(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    load: LoadSettings,
    *,
    lengths: Sequence[int],
    asks: bool = False,
) -> TogetherForecast:
    """Call the machines, measure them and the links, and return what each would do of a step.

    Args:
        checkpoint: the model.
        settings: of the run.
        load: memory and arithmetic of this machine, and the file that names all.
        lengths: tokens of each record of the largest step; of preferences, of each answer's.
        asks: whether the model answers questions here before it learns.

    Raises:
        MachineError, ConfigError, MemoryBudgetError, ReadError: as training does.
    """
    prefers = settings.stage == "dpo"
    records = [_Record(length * (2 if prefers else 1)) for length in lengths]
    step_tokens = sum(record.length for record in records)
    is_full = settings.method == "full"
    task: Task
    if is_full:
        require_plain(checkpoint)
        task = FullTask(
            micro_tokens=settings.micro_tokens,
            longest=max(lengths),
            step_tokens=step_tokens,
        )
    else:
        task = AdapterTask(
            lora=settings.lora,
            beta=settings.beta if prefers else None,
            seed=settings.seed,
            micro_tokens=settings.micro_tokens,
            longest=max(lengths),
            step_tokens=step_tokens,
        )
    operations = operations_of(task, checkpoint)
    first = first_changed(settings.lora, checkpoint.config.num_hidden_layers)
    layout = Layout(shapes_of(task, checkpoint.config))
    with ExitStack() as stack:
        peers = call_machines(checkpoint, load, stack)
        count = len(peers) + 1
        budgets = [budget_for(load), *(peer.facts["budget"] for peer in peers)]
        plans = [
            plan_share(
                checkpoint,
                task,
                budget,
                machines=count,
                copies=MEMBER_COPIES if machine else COPIES + count - 1,
                asks=asks and not machine,
            )
            for machine, budget in enumerate(budgets)
        ]
        asked = {"task": task_document(task), "settings": shared_settings(load)}
        rates = [rate_of(task, checkpoint, load)]
        rates += [peer.request({"ask": "training rate", **asked})[0]["answer"] for peer in peers]
        moved = [_moved(checkpoint, plan.memory, first) for plan in plans]
        disks = [
            disk_rate(checkpoint, peer) if nbytes else None
            for peer, nbytes in zip([None, *peers], moved, strict=True)
        ]
        trips = [0.0, *(numbers_seconds(peer, layout.nbytes) for peer in peers)]
    paces = [operations / rate for rate in rates]
    shares = Shares([plan.room for plan in plans], paces, trips, measured=True).of(records)
    machines = [
        MachineForecast(
            name=name,
            tokens=sum(record.length for record in shares[machine]),
            memory=plans[machine].memory,
            budget=budgets[machine],
            bytes_moved=moved[machine],
            disk=disks[machine],
            arithmetic=rates[machine],
            operations=operations,
            trip=trips[machine],
        )
        for machine, name in enumerate([HERE, *(peer.machine.name for peer in peers)])
    ]
    return TogetherForecast(
        machines,
        layout.nbytes // ITEM,
        checkpoint.config.num_hidden_layers,
        said_of_links(
            [machine.name for machine in machines], layout.nbytes, step_tokens, paces, trips
        )
        if is_full
        else (),
    )


def _moved(checkpoint: Checkpoint, memory: Memory, first: int) -> int:
    """Return the bytes that a step reads and writes."""
    if isinstance(memory, FullMemory):
        return 0
    return bytes_of_a_step(checkpoint, memory, first) + 2 * memory.disk_bytes
