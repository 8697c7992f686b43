"""How a training run goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgellm.errors import ConfigError
from edgellm.setting_values import number
from edgellm.training.low_rank import LoraSettings, short_names
from edgellm.training.optimizer import RateSettings

Stage = Literal["sft", "text", "dpo"]
"""What is learned of the data: answers and texts (supervised fine-tuning), texts in windows, or
preferences between two answers."""

Method = Literal["lora", "full"]
"""Which numbers are learned: low-rank changes of a frozen model, or all of a small one."""

RATES: Mapping[Method, float] = {"lora": 2e-4, "full": 5e-5}
"""Usual learning rates."""

PREFERENCE_RATE = 2e-5
"""The usual one of preferences."""

BETA = 0.1
"""How much preferences usually count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a training run goes.

    Attributes:
        stage: what is learned of the data.
        beta: how much preferences count against closeness to the model as it was.
        method: which numbers are learned.
        lora: of them, where they are low-rank changes.
        rates: how far numbers move.
        epochs: times that every sequence is learned.
        steps: steps in all, instead of epochs; None: as the epochs have.
        batch: sequences of a step.
        micro_tokens: tokens that go through a layer at once; no result depends on it.
        seed: of the first numbers, the order of sequences and dropout.
        save_every: steps between saves; 0: at the end of each epoch alone.
    """

    stage: Stage = "sft"
    beta: float = BETA
    method: Method = "lora"
    lora: LoraSettings = field(default_factory=LoraSettings)
    rates: RateSettings = field(default_factory=RateSettings)
    epochs: int = 3
    steps: int | None = None
    batch: int = 8
    micro_tokens: int = 1024
    seed: int = 0
    save_every: int = 0

    def __post_init__(self) -> None:
        """Check what no other settings hold. Raises ConfigError."""
        if self.stage == "dpo" and self.method == "full":
            raise ConfigError(
                "preferences are learned by an adapter, beside the model as it was",
                hint="leave out --full",
            )
        number("beta", self.beta, 0, 1e6, low_excluded=True)

    def steps_of(self, sequences: int) -> int:
        """Return the steps of a run over so many sequences: an epoch's last one may have fewer."""
        if self.steps is not None:
            return self.steps
        return self.epochs * self.steps_an_epoch(sequences)

    def steps_an_epoch(self, sequences: int) -> int:
        """Return the steps in which every sequence is learned once."""
        return -(-sequences // self.batch)

    def by_option(self) -> dict[str, Any]:
        """Return all of it, plain data by the names that options have."""
        named: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if name == "lora" and self.method == "full":
                continue  # no adapter is learned
            if name == "beta" and self.stage != "dpo":
                continue
            named.update(value if isinstance(value, dict) else {name: value})
        if "targets" in named:
            named["on"] = short_names(named.pop("targets"))
            for name in ("ranks", "alphas", "left_out"):
                if not named[name]:
                    del named[name]
        return named
