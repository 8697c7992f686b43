"""The options of a training run, which ``train`` has and ``plan --train`` has some of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from typer import Option

from edgellm.cli import headings
from edgellm.cli.common.settings_options import SettingsOptions
from edgellm.cli.common.values import one_of
from edgellm.errors import ConfigError
from edgellm.setting_values import choice

if TYPE_CHECKING:
    from edgellm.training.data.conversations import Template
    from edgellm.training.low_rank import LoraSettings
    from edgellm.training.run.settings import Method, TrainSettings
    from edgellm.training.start_adapter import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """A training run as a person describes it, field by field as in ``TRAIN_OPTIONS``."""

    stage: str = "sft"
    full: bool = False
    beta: float | None = None
    start_from: Path | None = None
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    on: str | None = None
    layers: int | None = None
    rslora: bool = False
    dora: bool = False
    epochs: int = 3
    steps: int | None = None
    batch: int = 8
    rate: float | None = None
    schedule: str = "cosine"
    warmup: float = 0.03
    decay: float = 0.01
    beta2: float = 0.999
    clip: float = 1.0
    max_tokens: int = 1024
    template: str | None = None
    valid: Path | None = None
    resume: bool = False
    save_every: int = 0
    form: str = "peft"
    dtype: str | None = None
    seed: int = 0
    answers: int = 3
    answer_tokens: int | None = None
    shares: str | None = None

    def lora(self) -> LoraSettings:
        """Return what is learned. Raises ConfigError."""
        from edgellm.training.low_rank import LoraSettings, targets_named

        dropout = self.dropout
        if dropout is None:
            dropout = 0.0 if self.stage == "dpo" else LoraSettings().dropout
        usual = LoraSettings()
        return LoraSettings(
            rank=usual.rank if self.rank is None else self.rank,
            alpha=usual.alpha if self.alpha is None else self.alpha,
            dropout=dropout,
            targets=usual.targets if self.on is None else targets_named(self.on),
            layers=self.layers,
            rslora=self.rslora,
            dora=self.dora,
        )

    def start(self) -> Start | None:
        """Return the adapter that a run begins with, if any."""
        from edgellm.training.start_adapter import Start

        if self.start_from is None:
            return None
        given = {"rank": self.rank, "alpha": self.alpha, "targets": self.on, "layers": self.layers}
        switches = {"rslora": self.rslora, "dora": self.dora}
        names = [name for name, value in given.items() if value is not None]
        names += [name for name, is_on in switches.items() if is_on]
        return Start(self.start_from, frozenset(names))

    def template_named(self) -> Template | None:
        """Return how records are written; None: as the model does. Raises ConfigError."""
        from edgellm.training.data.conversations import Template

        if self.template is None:
            return None
        if self.stage == "text":
            raise ConfigError(
                "--template says how requests are written, and of --stage text there are none",
                hint="leave it out: texts are as they are, chats as the chat template has them",
            )
        named: Template = choice("template", self.template, get_args(Template))
        return named

    def settings(self) -> TrainSettings:
        """Return how the run goes. Raises ConfigError."""
        from edgellm.training.low_rank import LoraSettings
        from edgellm.training.optimizer import RateSettings
        from edgellm.training.run.settings import BETA, PREFERENCE_RATE, RATES, Stage, TrainSettings

        method: Method = "full" if self.full else "lora"
        lora = self.lora()
        stage = choice("stage", self.stage, get_args(Stage))
        if stage != "dpo" and self.full and (lora, self.form) != (LoraSettings(), "peft"):
            raise ConfigError(
                "--full learns no adapter, which --rank, --alpha, --dropout, --on, --layers, "
                "--rslora, --dora and --format describe",
                hint="leave them out, or leave out --full",
            )
        if self.beta is not None and stage != "dpo":
            raise ConfigError(
                "--beta is of preferences alone", hint="leave it out, or give --stage dpo"
            )
        rate = self.rate
        if rate is None:
            rate = PREFERENCE_RATE if self.stage == "dpo" else RATES[method]
        return TrainSettings(
            stage=stage,
            beta=BETA if self.beta is None else self.beta,
            method=method,
            lora=lora,
            rates=RateSettings(
                rate=rate,
                schedule=choice("schedule", self.schedule, ("cosine", "linear", "constant")),
                warmup=self.warmup,
                decay=self.decay,
                beta2=self.beta2,
                clip=self.clip,
            ),
            epochs=self.epochs,
            steps=self.steps,
            batch=self.batch,
            seed=self.seed,
            save_every=self.save_every,
        )

    def given_shares(self) -> tuple[float, ...] | None:
        """Return what machines have beside each other; None: as measured. Raises ConfigError."""
        if self.shares is None:
            return None
        try:
            found = tuple(float(part) for part in self.shares.split(","))
        except ValueError:
            found = (0.0,)
        if not all(0 < share < math.inf for share in found):
            raise ConfigError(
                f"--shares is {self.shares!r}", hint="give positive numbers with commas: 2,1"
            )
        return found

    def written_dtype(self) -> str | None:
        """Return the type of a model that is learned whole; None: its own. Raises ConfigError."""
        if self.dtype is None:
            return None
        if not self.full:
            raise ConfigError(
                "--dtype is the type of a model that --full writes",
                hint="leave it out: an adapter is in float32",
            )
        return str(choice("dtype", self.dtype, ("float16", "bfloat16", "float32")))


TRAIN_OPTIONS = SettingsOptions(
    TrainOptions,
    {
        "stage": Annotated[
            str,
            Option(
                metavar="sft|text|dpo",
                help="What is learned: answers, texts one after another (pretraining), or "
                "preferences between two answers.",
                autocompletion=one_of("sft|text|dpo"),
            ),
        ],
        "full": Annotated[
            bool,
            Option("--full", help="Learn every number of a small model instead of an adapter."),
        ],
        "beta": Annotated[
            float | None,
            Option(
                metavar="X",
                min=0,
                help="Of dpo: the smaller, the farther from the model as it was; default: 0.1.",
            ),
        ],
        "start_from": Annotated[
            Path | None,
            Option(
                metavar="ADAPTER",
                help="Begin with an adapter's numbers (PEFT, mlx-lm), ranks, scales and matrices.",
                rich_help_panel=headings.MODEL,
            ),
        ],
        "rank": Annotated[
            int | None,
            Option(metavar="N", min=1, max=1024, help="Rank of each change; default: 16."),
        ],
        "alpha": Annotated[
            float | None,
            Option(metavar="X", min=0, help="A change is scaled by alpha / rank; default: 32."),
        ],
        "dropout": Annotated[
            float | None,
            Option(
                metavar="X",
                min=0,
                max=0.99,
                help="Share of a change's inputs left out at a step; default: 0.05, of dpo 0.",
            ),
        ],
        "on": Annotated[
            str | None,
            Option(
                metavar="NAME,...",
                help="The matrices that are changed: q, k, v, o, gate, up, down, attention, mlp, "
                "all; default: q,v.",
            ),
        ],
        "layers": Annotated[
            int | None, Option(metavar="N", min=1, help="Change the last N layers; default: all.")
        ],
        "rslora": Annotated[
            bool, Option("--rslora", help="Scale changes by alpha / root of rank.")
        ],
        "dora": Annotated[
            bool, Option("--dora", help="Learn the length of each changed row for itself (DoRA).")
        ],
        "epochs": Annotated[
            int, Option(metavar="N", min=1, help="Times that each record is learned.")
        ],
        "steps": Annotated[
            int | None, Option(metavar="N", min=1, help="Steps in all, instead of epochs.")
        ],
        "batch": Annotated[int, Option(metavar="N", min=1, help="Records of a step.")],
        "rate": Annotated[
            float | None,
            Option(
                metavar="X",
                min=0,
                help="The highest learning rate; default: 2e-4, with --full 5e-5, of dpo 2e-5.",
            ),
        ],
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
        "beta2": Annotated[
            float,
            Option(
                metavar="X",
                min=0,
                max=0.999999,
                help="AdamW's memory of squared derivatives; 0.95 is usual in pretraining.",
            ),
        ],
        "clip": Annotated[
            float, Option(metavar="X", min=0, help="Largest norm of a step's derivatives; 0: any.")
        ],
        "max_tokens": Annotated[
            int, Option(metavar="N", min=2, help="Tokens of a record; longer ones are cut.")
        ],
        "template": Annotated[
            str | None,
            Option(
                metavar="chat|alpaca|plain",
                help="How records are written; default: the model's chat template, or Alpaca's.",
                autocompletion=one_of("chat|alpaca|plain"),
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
        "shares": Annotated[
            str | None,
            Option(
                metavar="X,...",
                help="Tokens of each machine of --machines beside the others', this one first: "
                "2,1; default: as measured, so that all end together.",
                rich_help_panel=headings.MEMORY,
            ),
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
        "dtype": Annotated[
            str | None,
            Option(
                metavar="float16|bfloat16|float32",
                help="Type that --full writes; default: the model's.",
                autocompletion=one_of("float16|bfloat16|float32"),
                rich_help_panel=headings.OUTPUT,
            ),
        ],
        "seed": Annotated[
            int,
            Option(metavar="N", min=0, max=(1 << 31) - 1, help="Seed of all that is drawn."),
        ],
        "answers": Annotated[
            int,
            Option(
                metavar="N",
                min=0,
                max=64,
                help="Questions of the data that are answered before and after; 0: none.",
                rich_help_panel=headings.OUTPUT,
            ),
        ],
        "answer_tokens": Annotated[
            int | None,
            Option(
                metavar="N",
                min=1,
                help="Tokens of such an answer; default: 64, or 16 of a model larger than memory.",
                rich_help_panel=headings.OUTPUT,
            ),
        ],
    },
)
