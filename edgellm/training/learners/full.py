"""Every number of a model, learned in float32: full fine-tuning, and pretraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.arithmetic import engine_for
from edgellm.settings import LoadSettings
from edgellm.training.full.memory import FullMemory
from edgellm.training.full.model_folder import LearnedFolder
from edgellm.training.full.passes import LearnedModel
from edgellm.training.full.weights import read_numbers
from edgellm.training.gradients import StepGradients
from edgellm.training.learners.learner import Losses
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import TrainingSequence, micro_batches
from edgellm.training.trained_model import CACHE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class FullTask:
    """Every number of a small model, to be learned, and the sizes of a step.

    Attributes:
        micro_tokens: that go through the model together, at most.
        longest: tokens of the longest sequence.
        step_tokens: of a step, at most.
    """

    micro_tokens: int
    longest: int
    step_tokens: int


class FullLearner:
    """A small model, all of which is learned.

    Args:
        checkpoint: the model as it begins, unquantized.
        micro_tokens: that go through the model together.
        keeps_results: whether results of products stay in memory until they are differentiated.
        kernels: compute; None where MLX and NumPy do.
        folder: what is learned, as it is written; None: another machine writes it.
        look_up: called before each visit of a layer; it may raise.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        micro_tokens: int,
        keeps_results: bool = False,
        kernels: KernelEngine | None = None,
        folder: LearnedFolder | None = None,
        look_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._checkpoint, self._micro_tokens = checkpoint, micro_tokens
        self._model = LearnedModel(
            checkpoint.config, kernels, keeps_results=keeps_results, look_up=look_up
        )
        self._folder = folder
        self._cache_limit: int = mx.set_cache_limit(CACHE_BYTES)

    def initial(self) -> list[Change]:
        """Return the model's numbers. Raises ReadError."""
        return read_numbers(self._checkpoint)

    def gradients(
        self, items: Sequence[TrainingSequence], numbers: Sequence[Change], step: int
    ) -> StepGradients:
        """Return the mean loss of the tokens that are learned, and its derivatives."""
        return self._model.gradients(micro_batches(items, self._micro_tokens), numbers)

    def loss_of(self, items: Sequence[TrainingSequence], numbers: Sequence[Change]) -> Losses:
        """Return the loss of the tokens that are learned."""
        return Losses(*self._model.loss_of(micro_batches(items, self._micro_tokens), numbers))

    def write(self, folder: Path, numbers: Sequence[Change]) -> None:
        """Write the model. Raises ConversionError."""
        assert self._folder is not None, "another machine writes it"
        self._folder.write(folder, numbers)

    def close(self) -> None:
        """Give MLX its memory back."""
        mx.set_cache_limit(self._cache_limit)


def open_full(
    checkpoint: Checkpoint,
    memory: FullMemory,
    load: LoadSettings,
    *,
    folder: LearnedFolder | None = None,
    look_up: Callable[[], None] = lambda: None,
) -> FullLearner:
    """Return what learns every number of a model; nothing of it is read yet.

    Args:
        checkpoint, folder, look_up: as ``FullLearner`` has them.
        memory: how a step is cut.
        load: which arithmetic computes.
    """
    return FullLearner(
        checkpoint,
        micro_tokens=memory.micro_tokens,
        keeps_results=memory.results > 0,
        kernels=engine_for(load),
        folder=folder,
        look_up=look_up,
    )
