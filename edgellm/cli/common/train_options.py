"""The options of a training run, which ``train`` has and ``plan --train`` has some of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from edgellm.cli import headings
from edgellm.cli.common.settings_options import SettingsOptions
from edgellm.cli.common.values import one_of
from edgellm.setting_values import choice

if TYPE_CHECKING:
    from edgellm.training.low_rank import LoraSettings
    from edgellm.training.run.settings import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """A training run as a person describes it, field by field as in ``TRAIN_OPTIONS``."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    on: str = "q,v"
    layers: int | None = None
    rslora: bool = False
    epochs: int = 3
    steps: int | None = None
    batch: int = 8
    rate: float = 2e-4
    schedule: str = "cosine"
    warmup: float = 0.03
    decay: float = 0.01
    clip: float = 1.0
    max_tokens: int = 1024
    template: str | None = None
    valid: Path | None = None
    resume: bool = False
    save_every: int = 0
    form: str = "peft"
    seed: int = 0

    def lora(self) -> LoraSettings:
        """Return what is learned. Raises ConfigError."""
        from edgellm.training.low_rank import LoraSettings, targets_named

        return LoraSettings(
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            targets=targets_named(self.on),
            layers=self.layers,
            rslora=self.rslora,
        )

    def settings(self) -> TrainSettings:
        """Return how the run goes. Raises ConfigError."""
        from edgellm.training.optimizer import RateSettings
        from edgellm.training.run.settings import TrainSettings

        return TrainSettings(
            lora=self.lora(),
            rates=RateSettings(
                rate=self.rate,
                schedule=choice("schedule", self.schedule, ("cosine", "linear", "constant")),
                warmup=self.warmup,
                decay=self.decay,
                clip=self.clip,
            ),
            epochs=self.epochs,
            steps=self.steps,
            batch=self.batch,
            seed=self.seed,
            save_every=self.save_every,
        )


TRAIN_OPTIONS = SettingsOptions(
    TrainOptions,
    {
        "rank": Annotated[int, Option(metavar="N", min=1, max=1024, help="Rank of each change.")],
        "alpha": Annotated[
            float, Option(metavar="X", min=0, help="A change is scaled by alpha / rank.")
        ],
        "dropout": Annotated[
            float,
            Option(
                metavar="X",
                min=0,
                max=0.99,
                help="Share of a change's inputs left out at a step.",
            ),
        ],
        "on": Annotated[
            str,
            Option(
                metavar="NAME,...",
                help="The matrices that are changed: q, k, v, o, gate, up, down, attention, mlp, "
                "all.",
            ),
        ],
        "layers": Annotated[
            int | None, Option(metavar="N", min=1, help="Change the last N layers; default: all.")
        ],
        "rslora": Annotated[
            bool, Option("--rslora", help="Scale changes by alpha / root of rank.")
        ],
        "epochs": Annotated[
            int, Option(metavar="N", min=1, help="Times that each record is learned.")
        ],
        "steps": Annotated[
            int | None, Option(metavar="N", min=1, help="Steps in all, instead of epochs.")
        ],
        "batch": Annotated[int, Option(metavar="N", min=1, help="Records of a step.")],
        "rate": Annotated[float, Option(metavar="X", min=0, help="The highest learning rate.")],
        "schedule": Annotated[
            str,
            Option(
                metavar="cosine|linear|constant",
                help="How the rate falls.",
                autocompletion=one_of("cosine|linear|constant"),
            ),
        ],
        "warmup": Annotated[
            float,
            Option(metavar="X", min=0, max=1, help="Share of the steps in which the rate rises."),
        ],
        "decay": Annotated[float, Option(metavar="X", min=0, help="Weight decay of AdamW.")],
        "clip": Annotated[
            float, Option(metavar="X", min=0, help="Largest norm of a step's derivatives; 0: any.")
        ],
        "max_tokens": Annotated[
            int, Option(metavar="N", min=2, help="Tokens of a record; longer ones are cut.")
        ],
        "template": Annotated[
            str | None,
            Option(
                metavar="chat|alpaca",
                help="How records are written; default: the model's chat template, or Alpaca's.",
                autocompletion=one_of("chat|alpaca"),
                rich_help_panel=headings.PROMPT,
            ),
        ],
        "valid": Annotated[
            Path | None,
            Option(metavar="FILE", help="Records whose loss is said after each epoch."),
        ],
        "resume": Annotated[
            bool,
            Option("--resume", help="Go on with the run in OUT.", rich_help_panel=headings.OUTPUT),
        ],
        "save_every": Annotated[
            int,
            Option(
                metavar="N",
                min=0,
                help="Steps between saves; default: at the end of each epoch.",
                rich_help_panel=headings.OUTPUT,
            ),
        ],
        "form": Annotated[
            str,
            Option(
                "--format",
                metavar="peft|mlx-lm",
                help="Who opens the adapter.",
                autocompletion=one_of("peft|mlx-lm"),
                rich_help_panel=headings.OUTPUT,
            ),
        ],
        "seed": Annotated[
            int,
            Option(metavar="N", min=0, max=(1 << 31) - 1, help="Seed of all that is drawn."),
        ],
    },
)
