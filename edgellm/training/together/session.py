"""Derivatives of a share of each step, computed for another machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.device.machine import release_free_memory
from edgellm.device.streams import borrowed_stream
from edgellm.distributed.members.session import Session
from edgellm.distributed.parts.part import arithmetic_facts, settings_from
from edgellm.distributed.supply.held import Answer
from edgellm.errors import MachineError
from edgellm.files.locations import cache_folder, make_private_folder
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.training.learners.learner import Learner
from edgellm.training.low_rank import Change
from edgellm.training.together.messages import Layout, unpacked_items
from edgellm.training.together.share_memory import MEMBER_COPIES, plan_share
from edgellm.training.together.tasks import (
    Task,
    is_of_pairs,
    open_for_another,
    rate_of,
    shapes_of,
    task_from,
)


class Given:
    """An adapter whose numbers were sent."""

    def __init__(self, changes: list[Change]) -> None:
        self._changes = changes

    def numbers(self) -> list[Change]:
        """Return each layer's."""
        return self._changes


class TrainingSession(Session):
    """A session that is also asked to learn: it keeps a model open, and no numbers."""

    _learner: Learner[Any] | None = None
    _task: Task
    _layout: Layout
    _numbers: Sequence[Change] = ()

    def _answer(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        match head["ask"]:
            case "learn":
                return self._learn(head, body), ()
            case "derivatives":
                return self._derivatives(head, body)
            case "losses":
                return self._losses(head, body), ()
            case "training rate":
                return {"answer": self._rate(head)}, ()
        return super()._answer(head, body)

    def _learn(self, head: Mapping[str, Any], body: memoryview) -> Mapping[str, Any]:
        """Open the model for training; return how it computes, and how much of a step it takes."""
        self._free()
        if "digests" in head:  # the model was sent, or its layers were carried here
            self._held.prepare(head)
        settings = settings_from(head["settings"], self._settings)
        self._task = task_from(head["task"])
        self._layout = Layout(shapes_of(self._task, self._checkpoint.config))
        share = plan_share(
            self._checkpoint,
            self._task,
            budget_for(settings),
            machines=head["machines"],
            copies=MEMBER_COPIES,
        )
        place = cache_folder()
        make_private_folder(place)
        with borrowed_stream():
            self._learner = open_for_another(
                self._task,
                self._checkpoint,
                share.memory,
                settings,
                place=place,
                start=Given(self._layout.changes(body)) if head["start"] else None,
                look_up=self._look_up,
            )
        return {
            "room": share.room,
            "memory": share.memory.in_words(),
            "arithmetic": arithmetic_facts(self._checkpoint, settings),
        }

    def _derivatives(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        learner, items, numbers = self._share_of(head, body)
        begun = time.perf_counter()
        # what is not finite is told by the first machine, not in warnings of NumPy's
        with borrowed_stream(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = learner.gradients(items, numbers, head["step"])
            parts = self._layout.parts(found.by_changes)
        answer = {
            "loss": found.loss if math.isfinite(found.loss) else None,
            "asked": found.asked,
            "figures": found.figures,
            "seconds": time.perf_counter() - begun,
        }
        return answer, parts

    def _losses(self, head: Mapping[str, Any], body: memoryview) -> Mapping[str, Any]:
        learner, items, numbers = self._share_of(head, body)
        self._numbers = numbers  # more of their losses may be asked for
        with borrowed_stream():
            found = learner.loss_of(items, numbers)
        total = found.total if math.isfinite(found.total) else None
        return {"loss": total, "asked": found.asked, "figures": found.figures}

    def _rate(self, head: Mapping[str, Any]) -> float:
        """Measure how fast a layer goes there and back: operations per second."""
        settings, task = settings_from(head["settings"], self._settings), task_from(head["task"])
        with borrowed_stream():
            return rate_of(task, self._checkpoint, settings, self._held.step_reader())

    def _share_of(
        self, head: Mapping[str, Any], body: memoryview
    ) -> tuple[Learner[Any], list[Any], Sequence[Change]]:
        """Return the learner, and the records and numbers that came; these may be here already."""
        assert self._learner is not None, "it was opened"
        count = body.nbytes - head["records"]
        items = unpacked_items(body[count:], pairs=is_of_pairs(self._task))
        numbers, self._numbers = self._numbers, ()
        if count:
            numbers = ()  # before others take their place
            with borrowed_stream():
                numbers = self._layout.changes(body[:count])
        body.release()  # they are copied, and the message is as large
        return self._learner, items, numbers

    def _look_up(self) -> None:
        """Stop amid a step where nobody waits for it any more."""
        if self._is_over or self._ended.is_set():
            raise MachineError(f"{self.name} waits for nothing any more")

    def _free(self) -> None:
        super()._free()
        if self._learner is not None:
            self._learner.close()
            self._learner, self._numbers = None, ()
            mx.clear_cache()
            release_free_memory()
