"""Losses of records that nobody has learned, by adapters of one shape and without one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.hub.resolve import locate
from edgellm.settings import LoadSettings
from edgellm.training.low_rank import LoraSettings
from edgellm.training.run.preparation import prepare
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.trainer import Trainer
from edgellm.training.start_adapter import Start, open_start

BEFORE = "before"


def losses(
    model: str,
    lora: LoraSettings,
    adapters: Mapping[str, Path],
    data: Mapping[str, Path],
    *,
    place: Path,
) -> Mapping[str, Mapping[str, float]]:
    """Return the loss (nats per token) of each data by the model as it is, and by each adapter.

    Args:
        model: name or path.
        lora: of all adapters.
        adapters: folders.
        data: files of records.
        place: a folder that may be written to.
    """
    checkpoint = read_checkpoint(locate(model))
    settings = TrainSettings(lora=lora, batch=8)
    numbers = {
        name: open_start(Start(folder), checkpoint, lora).numbers()
        for name, folder in adapters.items()
    }
    found: dict[str, dict[str, float]] = {name: {} for name in (BEFORE, *adapters)}
    for kind, path in data.items():
        prepared = prepare(
            TrainRequest(
                model=model,
                data=path,
                folder=place / "nothing",
                settings=settings,
                load=LoadSettings(),
                max_tokens=256,
            )
        )
        with closing(prepared.open()) as learner:
            trainer = Trainer(learner, prepared.items, settings)
            found[BEFORE][kind] = trainer.loss_of(prepared.items).loss
            for name, own in numbers.items():
                trainer.numbers = own
                found[name][kind] = trainer.loss_of(prepared.items).loss
    return found
