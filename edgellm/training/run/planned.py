"""The memory of a run by its method, and what opens its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.runtime.loader import SendProgress
from edgellm.settings import LoadSettings
from edgellm.training.full.memory import FullMemory, plan_full
from edgellm.training.full.model_folder import LearnedFolder
from edgellm.training.full.weights import number_shapes, require_plain
from edgellm.training.learners.adapter_memory import plan_training
from edgellm.training.learners.adapter_task import AdapterTask, open_learner
from edgellm.training.learners.full import FullLearner, FullTask, open_full
from edgellm.training.learners.learner import Learner, TrainingItem
from edgellm.training.micro_batch import TrainingSequence
from edgellm.training.run.request import TrainRequest
from edgellm.training.start_adapter import StartAdapter
from edgellm.training.together.tasks import Memory, Task
from edgellm.training.together.together import Together


@dataclass(frozen=True, slots=True)
class Planned:
    """The memory of a method, and how it begins.

    Attributes:
        memory: of a step.
        parts: of the numbers that are learned: layers, for example.
        open: opens the model, and returns its learner.
    """

    memory: Memory
    parts: int
    open: Callable[[], Learner[Any]]


def plan_of_all(
    request: TrainRequest,
    checkpoint: Checkpoint,
    _start: StartAdapter | None,
    _items: Sequence[TrainingItem],
    sequences: Sequence[TrainingSequence],
    *,
    sending: SendProgress | None,
) -> Planned:
    """Plan to learn every number of a model, of sequences. Raises as ``prepare``."""
    require_plain(checkpoint)
    lengths = sorted((one.length for one in sequences), reverse=True)
    data = sum(one.nbytes for one in sequences)
    task = FullTask(
        micro_tokens=request.settings.micro_tokens,
        longest=lengths[0],
        step_tokens=sum(lengths[: request.settings.batch]),
    )
    folder = LearnedFolder(checkpoint, request.dtype)
    memory: Memory
    opened: Callable[[], Learner[Any]]
    if request.load.machines is not None:

        def open_own(
            _: FullTask,
            checkpoint: Checkpoint,
            memory: FullMemory,
            load: LoadSettings,
            *,
            look_up: Callable[[], None],
        ) -> FullLearner:
            return open_full(checkpoint, memory, load, folder=folder, look_up=look_up)

        together = _together(request, checkpoint, task, data, sending)
        memory, opened = together.memory, partial(together.open, open_own)
    else:
        memory = whole = plan_full(
            checkpoint.config,
            budget_for(request.load),
            micro_tokens=task.micro_tokens,
            longest=task.longest,
            data=data,
        )
        opened = partial(open_full, checkpoint, whole, request.load, folder=folder)
    return Planned(memory, len(number_shapes(checkpoint.config)), opened)


def _together(
    request: TrainRequest,
    checkpoint: Checkpoint,
    task: Task,
    data: int,
    sending: SendProgress | None = None,
) -> Together:
    """Plan a task on several machines, beside bytes of data. Raises errors as Together does."""
    together = Together(
        task,
        checkpoint,
        request.load,
        shares=request.shares,
        asks=request.answers > 0,
        data=data,
        sending=sending,
    )
    if request.answers:  # which take minutes: whoever is missing is missed before
        together.check()
    return together


def plan_of_adapter(
    request: TrainRequest,
    checkpoint: Checkpoint,
    start: StartAdapter | None,
    items: Sequence[TrainingItem],
    sequences: Sequence[TrainingSequence],
    *,
    sending: SendProgress | None,
) -> Planned:
    """Plan to learn an adapter, of items and their sequences. Raises as ``prepare``."""
    settings = request.settings
    prefers = settings.stage == "dpo"
    lengths = sorted((item.length for item in items), reverse=True)
    data = sum(one.nbytes for one in sequences)
    task = AdapterTask(
        lora=settings.lora,
        beta=settings.beta if prefers else None,
        seed=settings.seed,
        micro_tokens=settings.micro_tokens,
        longest=max(one.length for one in sequences),
        step_tokens=sum(lengths[: settings.batch]),
    )
    opened_as = partial(
        open_learner,
        place=request.folder.absolute().parent,
        base=request.model,
        form=request.form,
        start=start,
    )
    memory: Memory
    opened: Callable[[], Learner[Any]]
    if request.load.machines is not None:
        together = _together(request, checkpoint, task, data, sending)
        memory, opened = together.memory, partial(together.open, opened_as, start)
    else:
        memory = own = plan_training(
            checkpoint,
            task.lora,
            budget_for(request.load),
            step_tokens=task.step_tokens,
            micro_tokens=task.micro_tokens,
            longest=task.longest,
            reference=prefers,
            asks=request.answers > 0,
            data=data,
        )
        opened = partial(opened_as, task, checkpoint, own, request.load)
    return Planned(memory, checkpoint.config.num_hidden_layers, opened)
