"""The model, data and settings that a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.adapters.stored import AdapterForm
from edgellm.settings import LoadSettings
from edgellm.training.data.conversations import Template
from edgellm.training.run.settings import TrainSettings
from edgellm.training.start_adapter import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """A model, the data that it learns, and how.

    Attributes:
        model: name or path.
        data: the file of records.
        folder: that what is learned goes to.
        settings: of the run.
        load: which memory and arithmetic.
        valid: records that are not learned, whose loss is said after each epoch; None: none.
        template: that records are written in; None: the model's chat template, or Alpaca's.
        max_tokens: of a sequence.
        resume: go on with the run in ``folder``.
        form: of the adapter.
        dtype: of the numbers of a model that is learned whole; None: its own.
        start: the adapter that a run begins with; None: it begins anew.
        answers: questions of the data that are answered before and after.
        shares: tokens of each machine's share beside the others', where ``load`` names several;
            None: as they are measured.
    """

    model: str
    data: Path
    folder: Path
    settings: TrainSettings
    load: LoadSettings
    valid: Path | None = None
    template: Template | None = None
    max_tokens: int = 1024
    resume: bool = False
    form: AdapterForm = "peft"
    dtype: str | None = None
    start: Start | None = None
    answers: int = 0
    shares: tuple[float, ...] | None = None
