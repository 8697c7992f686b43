"""An adapter and the loss that it lowers, as any machine may be asked to compute it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgellm.adapters.stored import AdapterForm
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.settings import LoadSettings
from edgellm.training.kept_inputs import InputsOnDisk
from edgellm.training.learners.adapted_model import Numbers
from edgellm.training.learners.adapter import AdapterLearner
from edgellm.training.learners.adapter_memory import TrainingMemory
from edgellm.training.learners.learner import Learner
from edgellm.training.learners.preference import PreferenceLearner
from edgellm.training.low_rank import LoraSettings
from edgellm.training.trained_model import OpenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTask:
    """An adapter to be learned, its loss, and the sizes of a step.

    Attributes:
        lora: the numbers that are learned.
        beta: how much preferences count; None: answers and texts are learned.
        seed: of the first numbers and of dropout.
        micro_tokens: that go through a layer together, at most.
        longest: tokens of the longest sequence.
        step_tokens: of a step, at most.
    """

    lora: LoraSettings
    beta: float | None
    seed: int
    micro_tokens: int
    longest: int
    step_tokens: int

    @property
    def prefers(self) -> bool:
        """Whether preferences are learned."""
        return self.beta is not None


def open_learner(
    task: AdapterTask,
    checkpoint: Checkpoint,
    memory: TrainingMemory,
    load: LoadSettings,
    *,
    place: Path,
    base: str = "",
    form: AdapterForm = "peft",
    start: Numbers | None = None,
    look_up: Callable[[], None] = lambda: None,
) -> Learner[Any]:
    """Open a model, and return what learns its adapter.

    Args:
        task: what is learned.
        checkpoint: the model.
        memory: which layers are in memory.
        load: which arithmetic computes.
        place: the folder on whose disk kept inputs go that have no room in memory.
        base: the model's name, for those who open the adapter.
        form: of the adapter's folder.
        start: the adapter that training begins with; None: with one that changes nothing.
        look_up: called before each micro-batch goes through a layer.

    Raises:
        ConversionError: the disk has no room for kept inputs.
        ReadError: a file cannot be read.
    """
    inputs = None
    if memory.inputs_on_disk:
        inputs = InputsOnDisk(place, memory.inputs_on_disk, memory.disk_bytes)
    learner: Callable[..., Learner[Any]] = AdapterLearner
    if task.beta is not None:
        learner = partial(PreferenceLearner, beta=task.beta)
    return learner(
        OpenModel(checkpoint, task.lora, memory.in_memory, load, inputs=inputs, look_up=look_up),
        checkpoint.config,
        task.lora,
        micro_tokens=memory.micro_tokens,
        seed=task.seed,
        base=base,
        form=form,
        start=start,
    )
