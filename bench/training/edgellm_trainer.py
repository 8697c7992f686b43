"""edgellm's own training: the model in memory, or paged within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import mlx.core as mx

from edgellm.bench.training.task import Task, longest
from edgellm.bench.training.trainer import Report, Sizes
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.models.arithmetic import engine_for
from edgellm.settings import LoadSettings
from edgellm.training.learners.adapter import AdapterLearner
from edgellm.training.low_rank import LoraSettings, count_numbers
from edgellm.training.optimizer import RateSettings
from edgellm.training.run.memory import BUFFERS, TrainingMemory, plan_training
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
        lora = LoraSettings(
            rank=task.rank, alpha=task.alpha, dropout=0.0, targets=tuple(task.targets)
        )
        load = _load_settings(task)
        sequences = task.sequences
        plan = self._plan = _plan(task, checkpoint, lora, load)
        opened = OpenModel(checkpoint, lora, plan.in_memory, load)
        self._learner = AdapterLearner(
            opened, checkpoint.config, lora, micro_tokens=plan.micro_tokens, seed=task.seed
        )
        settings = TrainSettings(
            lora=lora,
            rates=RateSettings(
                rate=task.rate, schedule="constant", warmup=0.0, decay=task.decay, clip=0.0
            ),
            steps=task.steps,
            batch=task.batch,
            seed=task.seed,
        )
        self._trainer = Trainer(self._learner, sequences, settings)
        self.device: str = machine.chip_name()
        self.arithmetic: str = _arithmetic(load)
        self.memory: int | None = load.memory if isinstance(load.memory, int) else None
        if task.technique.paged and self.memory is None:
            self.memory = plan.total

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
        return self._trainer.loss_of(self._task.step(0))

    def sizes(self) -> Sizes:
        """Return the bytes of weights in memory and of what is learned."""
        numbers = count_numbers(self._trainer.numbers)
        plan = self._plan
        return Sizes(
            numbers=numbers,
            weights=plan.outer + plan.layers + plan.turned + ITEM * numbers,
            gradients=ITEM * numbers,
            optimizer=2 * ITEM * numbers,
            pinned=plan.pinned,
        )

    def device_peak(self) -> int | None:
        """Return None: weights and activations are in memory that the process holds."""
        return None

    def allocator_peak(self) -> int | None:
        """Return the most that MLX had allocated in training; buffers for layers are not in it."""
        return mx.get_peak_memory()

    def close(self) -> None:
        """Free the model."""
        self._learner.close()


def _load_settings(task: Task) -> LoadSettings:
    activations = task.activations
    if task.technique.dtype == "float32":
        activations = "float"
    return LoadSettings(
        memory=task.technique.memory,
        threads=task.threads,
        activations=cast("Literal['auto', 'int8', 'float']", activations),
    )


def _plan(
    task: Task, checkpoint: Checkpoint, lora: LoraSettings, load: LoadSettings
) -> TrainingMemory:
    """Return which layers are in memory. Raises MemoryBudgetError."""
    length = longest(task.sequences)
    size = task.batch // task.technique.accumulation

    def plan_within(budget: int) -> TrainingMemory:
        return plan_training(
            checkpoint,
            lora,
            budget,
            step_tokens=task.batch * length,
            micro_tokens=size * length,
            longest=length,
            kernels=engine_for(load),
        )

    if task.technique.paged and load.memory is None:
        whole = plan_within(LARGEST)
        largest = max(layer.nbytes for layer in checkpoint.layers)
        return plan_within(whole.total - whole.layers + min(BUFFERS, whole.count) * largest)
    return plan_within(budget_for(load))


def _arithmetic(load: LoadSettings) -> str:
    kernels = engine_for(load)
    if kernels is None:
        return f"mlx {machine.backend_name()}"
    return f"{kernels.activations} kernels, {kernels.isa.name}"
