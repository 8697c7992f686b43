"""The work that every technique gets: the same tokens in the same order, the same settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.passages import PASSAGES
from edgellm.bench.training.technique import Technique
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.errors import ConfigError
from edgellm.row_files.reading import DOCUMENT_END
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.conversations import Template
from edgellm.training.data.records import Record, read_records
from edgellm.training.data.rendering import render
from edgellm.training.micro_batch import TrainingSequence
from edgellm.training.run.order import step_items

Pairs = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""Token ids of each sequence, and what is learned after each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The data that a technique learns, and how it does.

    Attributes:
        folder: the model, in the bits of the technique.
        technique: how memory is spared.
        pairs: the sequences.
        batch: sequences of a step.
        steps: how many are taken.
        rank: of each low-rank change.
        alpha: a change is scaled by ``alpha / rank``.
        targets: matrices that are changed (``self_attn.q_proj``).
        rate: of learning, the same at every step.
        decay: weight decay of AdamW.
        seed: of the first numbers and of the order.
        threads: for arithmetic; None: as the machine has.
        activations: of edgellm's CPU kernels, ``auto``, ``int8`` or ``float``.
    """

    folder: str
    technique: Technique
    pairs: Pairs
    batch: int
    steps: int
    rank: int
    alpha: float
    targets: tuple[str, ...]
    rate: float
    decay: float = 0.01
    seed: int = 0
    threads: int | None = None
    activations: str = "auto"

    @property
    def sequences(self) -> list[TrainingSequence]:
        """The data."""
        return [
            TrainingSequence(tokens, targets, number)
            for number, (tokens, targets) in enumerate(self.pairs)
        ]

    def step(self, number: int) -> list[TrainingSequence]:
        """Return the sequences of a step, from 0."""
        return step_items(self.sequences, number, batch=self.batch, seed=self.seed)

    def parts(self, number: int) -> list[list[TrainingSequence]]:
        """Return the sequences of a step as the technique cuts it."""
        sequences = self.step(number)
        size = self.batch // self.technique.accumulation
        return [sequences[begin : begin + size] for begin in range(0, self.batch, size)]

    def as_order(self) -> Mapping[str, Any]:
        """Return it as a message to a worker."""
        return asdict(self)

    @classmethod
    def of_order(cls, order: Mapping[str, Any]) -> Task:
        """Return the task of such a message."""
        fields = dict(order)
        fields["technique"] = Technique(**order["technique"])
        fields["pairs"] = tuple(
            (tuple(tokens), tuple(targets)) for tokens, targets in order["pairs"]
        )
        fields["targets"] = tuple(order["targets"])
        return cls(**fields)


def render_pairs(
    checkpoint: Checkpoint, data: Path | None, *, tokens: int, batch: int, steps: int
) -> Pairs:
    """Return the sequences that are learned: whole steps of them, no more than are needed.

    Args:
        checkpoint: the model that they are rendered for.
        data: a file of records; None: our own text, in windows of exactly ``tokens``.
        tokens: of a sequence, at most.
        batch: sequences of a step.
        steps: that are taken.

    Raises:
        ConfigError, FormatError, ReadError: the file holds nothing to learn, or too little for a
            step; or the model has no tokenizer.
    """
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
    count = min(len(sequences) // batch, steps) * batch
    return tuple((one.tokens, one.targets) for one in sequences[:count])


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
