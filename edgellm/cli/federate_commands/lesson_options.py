"""The options of a federation's lessons: what clients learn, the same on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from edgellm.cli import headings
from edgellm.cli.common.settings_options import SettingsOptions
from edgellm.cli.common.train_options import TRAIN_OPTIONS, TrainOptions
from edgellm.cli.common.values import one_of

if TYPE_CHECKING:
    from edgellm.federation.task import Lesson
    from edgellm.training.start_adapter import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonOptions:
    """A lesson as a person describes it, field by field as in ``LESSON_OPTIONS``."""

    stage: str = "sft"
    start_from: Path | None = None
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    on: str | None = None
    layers: int | None = None
    rslora: bool = False
    freeze_a: bool = False
    epochs: int = 1
    steps: int | None = None
    batch: int = 8
    rate: float | None = None
    decay: float = 0.0
    beta2: float = 0.999
    clip: float = 1.0
    max_tokens: int = 1024
    template: str | None = None
    seed: int = 0

    def _training(self) -> TrainOptions:
        """Return the same as options of a training run, whose rate does not change."""
        return TrainOptions(
            stage=self.stage,
            start_from=self.start_from,
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            on=self.on,
            layers=self.layers,
            rslora=self.rslora,
            epochs=self.epochs,
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            schedule="constant",
            warmup=0.0,
            decay=self.decay,
            beta2=self.beta2,
            clip=self.clip,
            max_tokens=self.max_tokens,
            template=self.template,
            seed=self.seed,
        )

    def lesson(self) -> Lesson:
        """Return what clients learn. Raises ConfigError."""
        from edgellm.federation.task import Lesson

        training = self._training()
        return Lesson(
            settings=training.settings(),
            freeze_a=self.freeze_a,
            template=training.template_named(),
            max_tokens=self.max_tokens,
        )

    def start(self) -> Start | None:
        """Return the adapter that a federation begins with, if any."""
        return self._training().start()


_SHARED = TRAIN_OPTIONS.options

LESSON_OPTIONS = SettingsOptions(
    LessonOptions,
    {
        "stage": Annotated[
            str,
            Option(
                metavar="sft|text",
                help="What is learned: answers, or texts one after another.",
                autocompletion=one_of("sft|text"),
            ),
        ],
        **{
            name: _SHARED[name]
            for name in ("start_from", "rank", "alpha", "dropout", "on", "layers", "rslora")
        },
        "freeze_a": Annotated[
            bool,
            Option(
                "--freeze-a",
                help="Learn the factors B alone, whose mean is exact; clients that clip and blur "
                "need it.",
            ),
        ],
        "epochs": Annotated[
            int,
            Option(metavar="N", min=1, help="Times a client learns its records per round."),
        ],
        "steps": Annotated[
            int | None,
            Option(metavar="N", min=1, help="Steps of a client per round, instead of epochs."),
        ],
        "batch": _SHARED["batch"],
        "rate": Annotated[
            float | None, Option(metavar="X", min=0, help="Learning rate; default: 2e-4.")
        ],
        **{
            name: _SHARED[name]
            for name in ("decay", "beta2", "clip", "max_tokens", "template", "seed")
        },
    },
).under(headings.TRAINING)
