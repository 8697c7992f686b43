"""Machines that are to learn together are called, and opened for training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.console.units import size
from edgellm.distributed.gathered import call_machines, machines_of
from edgellm.distributed.links.link import MAX_BODY_BYTES
from edgellm.distributed.parts.part import arithmetic_facts, shared_settings
from edgellm.distributed.remote.peer import Peer, asking_all
from edgellm.distributed.supply.part_file import Wanted
from edgellm.distributed.supply.sending import supplied
from edgellm.errors import ConfigError
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.runtime.loader import SendProgress
from edgellm.settings import LoadSettings
from edgellm.training.learners.adapted_model import Numbers
from edgellm.training.learners.adapter_memory import COPIES
from edgellm.training.learners.full import FullTask
from edgellm.training.learners.learner import Learner
from edgellm.training.together.learner import HERE, TogetherLearner
from edgellm.training.together.link_costs import numbers_seconds, said_of_links
from edgellm.training.together.messages import Layout
from edgellm.training.together.share_memory import plan_share
from edgellm.training.together.shares import Shares
from edgellm.training.together.tasks import (
    Memory,
    Task,
    operations_of,
    rate_of,
    shapes_of,
    task_document,
)

OpenOwn = Callable[..., Learner[Any]]
"""Opens this machine's learner, as ``open_learner`` does."""

MAX_NUMBERS_BYTES = MAX_BODY_BYTES - (64 << 20)
"""Of all numbers: records go with them in one message."""


class Together:
    """A run on several machines, before any of them has the model open.

    Args:
        task: what is learned.
        checkpoint: the model.
        load: memory and arithmetic of this machine, and the file that names all.
        shares: tokens of each machine's share beside the others', this one's first; None: as they
            are measured.
        asks: whether the model answers questions here before it learns.
        data: bytes of all sequences, which are here.
        sending: told of what is sent to machines that have not got the model.

    Attributes:
        memory: of this machine.

    Raises:
        ConfigError: the file names no machines, or other ones than there are shares.
        MemoryBudgetError: this machine has not enough memory for its share.
    """

    def __init__(
        self,
        task: Task,
        checkpoint: Checkpoint,
        load: LoadSettings,
        *,
        shares: Sequence[float] | None = None,
        asks: bool = False,
        data: int = 0,
        sending: SendProgress | None = None,
    ) -> None:
        count = len(machines_of(load))
        if shares is not None and len(shares) != count:
            raise ConfigError(
                f"{len(shares)} shares are given, and there are {count} machines",
                hint="give one number for each machine, this one first: --shares 2,1",
            )
        self._task, self._checkpoint, self._load = task, checkpoint, load
        self._given, self._count, self._sending = shares, count, sending
        self._layout = Layout(shapes_of(task, checkpoint.config))
        if self._layout.nbytes > MAX_NUMBERS_BYTES:
            raise ConfigError(
                f"{size(self._layout.nbytes)} of numbers are too many for a message of at most "
                f"{size(MAX_NUMBERS_BYTES)}",
                hint="leave out --machines, or learn an adapter: leave out --full",
            )
        self._share = plan_share(
            checkpoint,
            task,
            budget_for(load),
            machines=count,
            # answers of all others may have come before one of them is looked at
            copies=COPIES + count - 1,
            asks=asks,
            data=data,
        )
        self.memory: Memory = self._share.memory

    def check(self) -> None:
        """See whether all machines are there and alike, and let them go again.

        Raises MachineError.
        """
        with ExitStack() as stack:
            call_machines(self._checkpoint, self._load, stack)

    def open(self, open_own: OpenOwn, start: Numbers | None = None) -> TogetherLearner[Any]:
        """Open the model on all machines.

        Args:
            open_own: opens it here.
            start: the adapter that training begins with, if any.

        Raises:
            MachineError: a machine cannot be reached, refuses, or is not like this one.
            ConfigError, MemoryBudgetError, ReadError: here or there.
        """
        task, checkpoint = self._task, self._checkpoint
        layout = self._layout
        opening = {
            "ask": "learn",
            "task": task_document(task),
            "settings": shared_settings(self._load),
            "machines": self._count,
            "start": start is not None,
        }
        body = layout.parts(start.numbers()) if start is not None else []
        with ExitStack() as on_failure:
            peers = call_machines(checkpoint, self._load, on_failure)
            openings = [{**opening, **telling} for telling in self._supplied(peers)]

            def look_up() -> None:
                for peer in peers:
                    peer.require_there()

            with asking_all(peers, openings, body) as replies:
                own = open_own(task, checkpoint, self.memory, self._load, look_up=look_up)
                on_failure.callback(own.close)
                answers = [answer for answer, _ in replies()]
            facts = arithmetic_facts(checkpoint, self._load)
            for peer, answer in zip(peers, answers, strict=True):
                warn_of_other_arithmetic(peer.machine.name, facts, answer["arithmetic"])
            rooms = [self._share.room, *(answer["room"] for answer in answers)]
            trips = [0.0, *(numbers_seconds(peer, layout.nbytes) for peer in peers)]
            learner = TogetherLearner(own, peers, layout, self._shares(rooms, trips))
            if isinstance(task, FullTask):  # of which a step sends more than of an adapter
                learner.notes = self._said_of_links(peers, trips)
            on_failure.pop_all()
        learner.memories = {
            peer.machine.name: str(answer["memory"])
            for peer, answer in zip(peers, answers, strict=True)
        }
        return learner

    def _supplied(self, peers: Sequence[Peer]) -> list[dict[str, Any]]:
        """Send machines what they lack of the model; return what each has to be told of that."""
        if isinstance(self._task, FullTask):  # all numbers are sent with each step
            return [{} for _ in peers]
        whole = Wanted(range(len(self._checkpoint.layers) + 1))
        return supplied(self._checkpoint, peers, [whole] * len(peers), self._sending)

    def _said_of_links(self, peers: Sequence[Peer], trips: Sequence[float]) -> list[str]:
        """Measure all machines at once; return what the links cost beside the arithmetic."""
        task, checkpoint = self._task, self._checkpoint
        asked = {
            "ask": "training rate",
            "task": task_document(task),
            "settings": shared_settings(self._load),
        }
        with asking_all(peers, [asked] * len(peers)) as replies:
            rates = [rate_of(task, checkpoint, self._load)]
            rates += [float(answer["answer"]) for answer, _ in replies()]
        operations = operations_of(task, checkpoint)
        names = [HERE, *(peer.machine.name for peer in peers)]
        paces = [operations / rate for rate in rates]
        return said_of_links(names, self._layout.nbytes, task.step_tokens, paces, trips)

    def _shares(self, rooms: Sequence[int], trips: list[float]) -> Shares:
        if self._given is None:
            return Shares(rooms, [1.0] * self._count, trips)
        return Shares(rooms, [1 / own for own in self._given], trips, is_fixed=True)


def warn_of_other_arithmetic(name: str, own: Mapping[str, str], other: Mapping[str, str]) -> None:
    """Warn where another machine's derivatives are rounded otherwise: they can be summed still."""
    for key, what in (("numbers", "numbers of type"), ("kernels", "activations of kind")):
        if own[key] != other[key]:
            warnings.warn(
                f"machine {name} computes with {what} {other[key]}, and this one with {own[key]}: "
                "its share of each step is rounded otherwise",
                stacklevel=2,
            )
