"""The work that every technique gets: the same tokens in the same order, the same settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.passages import PASSAGES
from edgellm.bench.training.task_settings import TaskSettings
from edgellm.bench.training.technique import Technique
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.errors import ConfigError
from edgellm.row_files.reading import DOCUMENT_END
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.conversations import Template
from edgellm.training.data.records import Record, read_records
from edgellm.training.data.rendering import render
from edgellm.training.low_rank import LoraSettings
from edgellm.training.micro_batch import TrainingSequence, token_ids
from edgellm.training.run.order import step_items


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The data that a technique learns, and how it does.

    Attributes:
        folder: the model, in the bits of the technique.
        technique: how memory is spared.
        sequences: the data.
        settings: the same for every technique.
    """

    folder: str
    technique: Technique
    sequences: tuple[TrainingSequence, ...]
    settings: TaskSettings

    @property
    def lora(self) -> LoraSettings:
        """The low-rank changes that are learned, where it is not all numbers."""
        settings = self.settings
        return LoraSettings(
            rank=settings.rank, alpha=settings.alpha, dropout=0.0, targets=settings.targets
        )

    def step(self, number: int) -> list[TrainingSequence]:
        """Return the sequences of a step, from 0."""
        settings = self.settings
        return step_items(self.sequences, number, batch=settings.batch, seed=settings.seed)

    def parts(self, number: int) -> list[list[TrainingSequence]]:
        """Return the sequences of a step as the technique cuts it."""
        sequences = self.step(number)
        size = self.settings.batch // self.technique.accumulation
        return [sequences[begin : begin + size] for begin in range(0, len(sequences), size)]

    def as_order(self) -> Mapping[str, Any]:
        """Return it as a message to a worker."""
        order = asdict(self)
        for one in order["sequences"]:
            one["tokens"], one["targets"] = list(one["tokens"]), list(one["targets"])
        return order

    @classmethod
    def of_order(cls, order: Mapping[str, Any]) -> Task:
        """Return the task of such a message."""
        settings = {**order["settings"], "targets": tuple(order["settings"]["targets"])}
        return cls(
            folder=order["folder"],
            technique=Technique(**order["technique"]),
            sequences=tuple(
                TrainingSequence(
                    token_ids(one["tokens"]),
                    token_ids(one["targets"]),
                    one["number"],
                    one["line"],
                )
                for one in order["sequences"]
            ),
            settings=TaskSettings(**settings),
        )


def render_sequences(
    checkpoint: Checkpoint, data: Path | None, settings: TaskSettings
) -> tuple[TrainingSequence, ...]:
    """Return the sequences that are learned: whole steps of them, no more than are needed.

    Args:
        checkpoint: the model that they are rendered for.
        data: a file of records; None: our own text, in windows that are as long as may be.
        settings: have the sizes.

    Raises:
        ConfigError, FormatError, ReadError: the file holds nothing to learn, or too little for a
            step; or the model has no tokenizer.
    """
    tokens, batch = settings.tokens, settings.batch
    tokenizer = Tokenizer.from_folder(
        checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
    )
    if data is None:
        sequences = _windows(tokenizer, tokens, batch)
    else:
        template: Template = "alpaca" if tokenizer.chat_template is None else "chat"
        records = read_records(data)
        sequences = render(records, tokenizer, template=template, max_tokens=tokens).sequences
    if len(sequences) < batch:
        raise ConfigError(
            f"{data} has {len(sequences)} sequences, and a step takes {batch}",
            hint="give a smaller --batch, or more data",
        )
    # a step of fewer sequences would be another one to time
    count = min(len(sequences) // batch, settings.steps) * batch
    return tuple(sequences[:count])


def _windows(tokenizer: Tokenizer, tokens: int, batch: int) -> list[TrainingSequence]:
    """Return windows of our own text, all of the same length."""
    passages = PASSAGES.read_text(encoding="utf-8").split(DOCUMENT_END)
    text = "\n\n".join(part.strip() for part in passages if part.strip())
    while True:
        found = render([Record(1, text=text)], tokenizer, template="alpaca", max_tokens=tokens)
        windows = [one for one in found.sequences if len(one.tokens) == tokens]
        if len(windows) >= batch:
            return windows
        text = f"{text}\n\n{text}"


def longest(sequences: Sequence[TrainingSequence]) -> int:
    """Return the tokens of the longest sequence."""
    return max(len(one.tokens) for one in sequences)
