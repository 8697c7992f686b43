"""Every number of a model, learned in float32: full fine-tuning, and pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.training.full.model_folder import LearnedFolder
from edgellm.training.full.passes import LearnedModel
from edgellm.training.full.weights import read_numbers
from edgellm.training.gradients import StepGradients
from edgellm.training.learners.learner import Losses
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import TrainingSequence, micro_batches
from edgellm.training.trained_model import CACHE_BYTES


class FullLearner:
    """A small model, all of which is learned.

    Args:
        checkpoint: the model as it begins, unquantized.
        micro_tokens: that go through the model together.
        keeps_results: whether results of products stay in memory until they are differentiated.
        kernels: compute; None where MLX and NumPy do.
        dtype: of the numbers as they are written; None: the model's own.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        micro_tokens: int,
        keeps_results: bool = False,
        kernels: KernelEngine | None = None,
        dtype: str | None = None,
    ) -> None:
        self._checkpoint, self._micro_tokens = checkpoint, micro_tokens
        self._model = LearnedModel(checkpoint.config, kernels, keeps_results=keeps_results)
        self._folder = LearnedFolder(checkpoint, dtype)
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
        self._folder.write(folder, numbers)

    def close(self) -> None:
        """Give MLX its memory back."""
        mx.set_cache_limit(self._cache_limit)
