"""How a training run goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgellm.training.low_rank import LoraSettings, short_names
from edgellm.training.optimizer import RateSettings

Stage = Literal["sft", "text"]
"""What is learned of the data: answers and texts (supervised fine-tuning), or texts in windows."""

Method = Literal["lora", "full"]
"""Which numbers are learned: low-rank changes of a frozen model, or all of a small one."""

RATES: Mapping[Method, float] = {"lora": 2e-4, "full": 5e-5}
"""Usual learning rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a training run goes.

    Attributes:
        stage: what is learned of the data.
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
    method: Method = "lora"
    lora: LoraSettings = field(default_factory=LoraSettings)
    rates: RateSettings = field(default_factory=RateSettings)
    epochs: int = 3
    steps: int | None = None
    batch: int = 8
    micro_tokens: int = 1024
    seed: int = 0
    save_every: int = 0

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
            named.update(value if isinstance(value, dict) else {name: value})
        if "targets" in named:
            named["on"] = short_names(named.pop("targets"))
        return named
