"""edgellm's own training: the model in memory, or paged within a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Literal, cast

import mlx.core as mx

from edgellm.bench.training.task import Task, longest
from edgellm.bench.training.technique import FULL
from edgellm.bench.training.trainer import Report, Sizes
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.models.arithmetic import engine_for
from edgellm.settings import LoadSettings
from edgellm.training.full.memory import plan_full
from edgellm.training.full.weights import require_plain
from edgellm.training.kept_inputs import InputsOnDisk
from edgellm.training.learners.adapter import AdapterLearner
from edgellm.training.learners.adapter_memory import BUFFERS, plan_training
from edgellm.training.learners.full import FullLearner
from edgellm.training.learners.learner import Learner
from edgellm.training.low_rank import count_numbers
from edgellm.training.micro_batch import TrainingSequence
from edgellm.training.optimizer import RateSettings
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.trainer import Trainer
from edgellm.training.trained_model import OpenModel

ITEM = 4
"""Bytes of a number that is learned, of its derivative and of each of its two moments."""

LARGEST = 1 << 60
"""A budget that has room for any model."""


class EdgellmTrainer:
    """A run of ``edgellm train`` without its files: layers there and back, AdamW in float32."""

    def __init__(self, task: Task) -> None:
        self._task = task
        checkpoint = read_checkpoint(Path(task.folder))
        load = _load_settings(task)
        opened = self._opened = _open(task, checkpoint, load)
        given = task.settings
        settings = TrainSettings(
            method="full" if task.technique.method == FULL else "lora",
            lora=task.lora,
            rates=RateSettings(
                rate=given.rate, schedule="constant", warmup=0.0, decay=given.decay, clip=0.0
            ),
            steps=given.steps,
            batch=given.batch,
            seed=given.seed,
        )
        self._trainer: Trainer[TrainingSequence] = Trainer(opened.learner, task.sequences, settings)
        self.device: str = machine.chip_name()
        self.arithmetic: str = _arithmetic(load)
        self.memory: int | None = opened.budget

    @staticmethod
    def warm_up(task: Task) -> None:
        """Make the kernels, and have MLX compute something small."""
        engine_for(_load_settings(task))
        mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))

    def train(self, report: Report) -> None:
        """Take all steps."""
        mx.reset_peak_memory()
        for step in self._trainer.run():
            report(step.loss, step.seconds)

    def loss_after(self) -> float:
        """Return the loss of the first step's sequences."""
        return self._trainer.loss_of(self._task.step(0)).loss

    def sizes(self) -> Sizes:
        """Return the bytes of weights in memory and of what is learned."""
        numbers = count_numbers(self._trainer.numbers)
        return Sizes(
            numbers=numbers,
            weights=self._opened.frozen + ITEM * numbers,
            gradients=ITEM * numbers,
            optimizer=2 * ITEM * numbers,
            pinned=self._opened.pinned,
            checkpointing=self._opened.checkpointing,
        )

    def device_peak(self) -> int | None:
        """Return None: weights and activations are in memory that the process holds."""
        return None

    def allocator_peak(self) -> int | None:
        """Return the most that MLX had allocated in training; buffers for layers are not in it."""
        return mx.get_peak_memory()

    def close(self) -> None:
        """Free the model."""
        self._opened.learner.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A model that is open for training.

    Attributes:
        learner: has the numbers that are learned.
        frozen: bytes of weights in memory that are not.
        pinned: layers in memory; None where nothing can page.
        budget: that is kept; None where there is none.
        checkpointing: whether layers are computed again in the backward pass.
    """

    learner: Learner[TrainingSequence]
    frozen: int = 0
    pinned: int | None = None
    budget: int | None = None
    checkpointing: bool = True


def _open(task: Task, checkpoint: Checkpoint, load: LoadSettings) -> _Opened:
    """Open a model for a task. Raises EdgeLLMError where it cannot be had, or not in memory."""
    length = longest(task.sequences)
    step_tokens = task.settings.batch * length
    micro_tokens = step_tokens // task.technique.accumulation
    if task.technique.method == FULL:
        require_plain(checkpoint)
        whole = plan_full(
            checkpoint.config, budget_for(load), micro_tokens=micro_tokens, longest=length
        )
        return _Opened(learner=FullLearner(checkpoint, micro_tokens=whole.micro_tokens))
    lora, technique = task.lora, task.technique
    plan_within = partial(
        plan_training,
        checkpoint,
        lora,
        step_tokens=step_tokens,
        micro_tokens=micro_tokens,
        longest=length,
    )
    budget = technique.memory
    if technique.paged and budget is None:
        resident = plan_within(LARGEST)
        buffers = BUFFERS * max(layer.nbytes for layer in checkpoint.layers)
        least = resident.total - resident.results - resident.layers
        budget = least + min(buffers, resident.layers)
    plan = plan_within(budget_for(load) if budget is None else budget)
    if technique.checkpointing:
        plan = replace(plan, results=0)
    inputs = None
    if plan.inputs_on_disk:
        inputs = InputsOnDisk(Path(gettempdir()), plan.inputs_on_disk, plan.disk_bytes)
    learner = AdapterLearner(
        OpenModel(checkpoint, lora, plan.in_memory, load, inputs=inputs),
        checkpoint.config,
        lora,
        micro_tokens=plan.micro_tokens,
        seed=task.settings.seed,
    )
    return _Opened(
        learner=learner,
        frozen=plan.outer + plan.layers,
        pinned=plan.pinned,
        budget=budget,
        checkpointing=plan.results == 0,
    )


def _load_settings(task: Task) -> LoadSettings:
    activations = task.settings.activations
    if task.technique.dtype == "float32":
        activations = "float"
    return LoadSettings(
        memory=task.technique.memory,
        threads=task.settings.threads,
        activations=cast("Literal['auto', 'int8', 'float']", activations),
    )


def _arithmetic(load: LoadSettings) -> str:
    kernels = engine_for(load)
    if kernels is None:
        return f"mlx {machine.backend_name()}"
    return f"{kernels.activations} kernels, {kernels.isa.name}"
