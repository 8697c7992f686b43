"""Low-rank changes that lower the loss of answers and texts: supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.training.adapter_folder import AdapterFormat, write_adapter
from edgellm.training.gradients import StepGradients, step_gradients, step_loss
from edgellm.training.learners.dropout import Dropout
from edgellm.training.low_rank import Change, LoraSettings, initial_changes
from edgellm.training.micro_batch import TrainingSequence, micro_batches
from edgellm.training.trained_model import OpenModel


class AdapterLearner:
    """An adapter of a frozen model, which may be larger than memory.

    Args:
        opened: the model; it is closed with the learner.
        config: of the model.
        lora: what is learned.
        micro_tokens: that go through a layer together.
        seed: of the first numbers and of dropout.
        base: the model's name, for those who open the adapter.
        form: of the adapter's folder.
    """

    def __init__(
        self,
        opened: OpenModel,
        config: ModelConfig,
        lora: LoraSettings,
        *,
        micro_tokens: int,
        seed: int,
        base: str = "",
        form: AdapterFormat = "peft",
    ) -> None:
        self._opened, self._model = opened, opened.model
        self._config, self._lora = config, lora
        self._micro_tokens, self._seed = micro_tokens, seed
        self._base, self._form = base, form
        self._dropout = Dropout(config, lora, seed)

    def initial(self) -> list[Change]:
        """Return the numbers as training begins: they change nothing."""
        return initial_changes(self._config, self._lora, self._seed)

    def gradients(
        self, items: Sequence[TrainingSequence], numbers: Sequence[Change], step: int
    ) -> StepGradients:
        """Return the mean loss of the tokens that are learned, and its derivatives."""
        batches = micro_batches(items, self._micro_tokens)
        self._dropout.step = step
        try:
            return step_gradients(self._model, batches, numbers, dropout=self._dropout)
        except BaseException:
            self._model.layers.restart()
            raise

    def loss_of(
        self, items: Sequence[TrainingSequence], numbers: Sequence[Change]
    ) -> tuple[float, int]:
        """Return the loss summed over the tokens that are learned, and how many they are."""
        try:
            return step_loss(self._model, micro_batches(items, self._micro_tokens), numbers)
        finally:  # layers were visited upwards alone
            self._model.layers.restart()

    def write(self, folder: Path, numbers: Sequence[Change]) -> None:
        """Write the adapter. Raises ConversionError."""
        write_adapter(folder, numbers, self._lora, base=self._base, form=self._form)

    def close(self) -> None:
        """Free the model."""
        self._opened.close()
