"""Tasks of several machines: an adapter, or all numbers of a small model, to be learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.reading.disk_reader import Reader
from edgellm.settings import LoadSettings
from edgellm.training.full.memory import FullMemory
from edgellm.training.full.weights import number_shapes
from edgellm.training.learners.adapted_model import Numbers
from edgellm.training.learners.adapter_memory import TrainingMemory
from edgellm.training.learners.adapter_task import AdapterTask, open_learner
from edgellm.training.learners.arithmetic_rate import (
    OPERATIONS,
    OPERATIONS_OF_ALL,
    OPERATIONS_OF_REFERENCE,
    matrix_numbers,
    measure_rate,
    measure_rate_of_all,
)
from edgellm.training.learners.full import FullTask, open_full
from edgellm.training.learners.learner import Learner
from edgellm.training.low_rank import LoraSettings, change_shapes

Task = AdapterTask | FullTask
Memory = TrainingMemory | FullMemory


def shapes_of(task: Task, config: ModelConfig) -> Sequence[Mapping[str, tuple[int, ...]]]:
    """Return the shapes of the numbers that are learned, part by part."""
    if isinstance(task, FullTask):
        return number_shapes(config)
    return change_shapes(config, task.lora)


def is_of_pairs(task: Task) -> bool:
    """Return whether records are pairs of answers."""
    return isinstance(task, AdapterTask) and task.prefers


def operations_of(task: Task, checkpoint: Checkpoint) -> int:
    """Return the arithmetic operations per token."""
    each = OPERATIONS_OF_ALL
    if isinstance(task, AdapterTask):
        each = OPERATIONS + OPERATIONS_OF_REFERENCE * task.prefers
    return each * matrix_numbers(checkpoint)


def rate_of(
    task: Task, checkpoint: Checkpoint, load: LoadSettings, reader: Reader | None = None
) -> float:
    """Measure operations per second of such a task here. Raises ReadError.

    Args:
        task: what is learned.
        checkpoint: the model.
        load: which arithmetic.
        reader: gives the weights of a layer; None: the files do.
    """
    tokens = min(task.micro_tokens, task.step_tokens)
    if isinstance(task, FullTask):
        return measure_rate_of_all(checkpoint, load, tokens=tokens).operations
    rate = measure_rate(checkpoint, task.lora, load, tokens=task.micro_tokens, reader=reader)
    return rate.operations


def open_for_another(
    task: Task,
    checkpoint: Checkpoint,
    memory: Memory,
    load: LoadSettings,
    *,
    place: Path,
    start: Numbers | None,
    look_up: Callable[[], None],
) -> Learner[Any]:
    """Open a model to compute shares; arguments and errors are as ``open_learner`` has them.

    Nothing is read of a model that is learned whole: all numbers are sent.
    """
    if isinstance(memory, FullMemory):
        return open_full(checkpoint, memory, load, look_up=look_up)
    assert isinstance(task, AdapterTask), "as its memory says"
    return open_learner(task, checkpoint, memory, load, place=place, start=start, look_up=look_up)


def task_document(task: Task) -> dict[str, Any]:
    """Return a task as it is sent."""
    return asdict(task)


def task_from(document: Mapping[str, Any]) -> Task:
    """Return a task that was sent. Raises ConfigError."""
    if "lora" not in document:
        return FullTask(**document)
    lora = {**document["lora"], "targets": tuple(document["lora"]["targets"])}
    return AdapterTask(**{**document, "lora": LoraSettings(**lora)})
