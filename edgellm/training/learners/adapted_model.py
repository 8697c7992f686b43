"""An open model whose low-rank changes are learned, by whatever loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from edgellm.adapters.stored import AdapterForm
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.training.adapter_folder import write_adapter
from edgellm.training.learners.dropout import Dropout
from edgellm.training.low_rank import Change, LoraSettings, initial_changes
from edgellm.training.trained_model import OpenModel


class Numbers(Protocol):
    """The numbers of an adapter, wherever they are."""

    def numbers(self) -> list[Change]:
        """Return each layer's. Raises FormatError, ReadError."""


class AdaptedModel:
    """A frozen model, which may be larger than memory, and the numbers of its adapter.

    Args:
        opened: the model; it is closed with the learner.
        config: of the model.
        lora: what is learned.
        micro_tokens: that go through a layer together.
        seed: of the first numbers and of dropout.
        base: the model's name, for those who open the adapter.
        form: of the adapter's folder.
        start: the adapter that training begins with; None: with one that changes nothing.
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
        form: AdapterForm = "peft",
        start: Numbers | None = None,
    ) -> None:
        self._opened, self._model = opened, opened.model
        self._config, self._lora = config, lora
        self._micro_tokens, self._seed = micro_tokens, seed
        self._base, self._form, self._start = base, form, start
        self._dropout = Dropout(config, lora, seed)

    def initial(self) -> list[Change]:
        """Return the numbers as training begins.

        Raises:
            FormatError: a number of the start is infinite or not a number.
            ReadError: a file cannot be read.
        """
        if self._start is not None:
            return self._start.numbers()
        changes = initial_changes(self._config, self._lora, self._seed)
        if self._lora.dora:
            for change, lengths in zip(changes, self._opened.row_lengths(), strict=True):
                for name in [name for name in lengths if f"{name}.lora_A" in change]:
                    change[f"{name}.lora_magnitude_vector"] = lengths[name]
        return changes

    def write(self, folder: Path, numbers: Sequence[Change]) -> None:
        """Write the adapter. Raises ConversionError."""
        write_adapter(folder, numbers, self._lora, base=self._base, form=self._form)

    def close(self) -> None:
        """Free the model."""
        self._opened.close()

    @contextmanager
    def _round(self) -> Iterator[None]:
        """Hold a round there and back: one that ends half-way leaves layers as at its beginning."""
        try:
            yield
        except BaseException:
            self._model.layers.restart()
            raise

    @contextmanager
    def _way_up(self) -> Iterator[None]:
        """Hold a way upwards alone, after which the next one begins below again."""
        try:
            yield
        finally:
            self._model.layers.restart()
