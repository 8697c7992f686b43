"""How an evaluation asks its questions, and what it makes of that: runs, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from edgellm.bench.evaluation.runs.decoding import GREEDY, Decoding

if TYPE_CHECKING:  # templates of prompts take a while to import, and help needs none
    from edgellm.bench.evaluation.tasks.rows.question import Question
    from edgellm.bench.evaluation.tasks.task import Task

TIMEOUT = 900.0
LATENCY_QUESTIONS = 3
KL_TOKENS = 2048
"""Tokens of whose logits a reference writes files: 262 MB with a vocabulary of 32,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """How questions are asked.

    Attributes:
        shots: numbers of examples before a question.
        shot_seeds: blocks of examples with each of those numbers.
        decodings: ways to draw the tokens of answers.
        threads: numbers of threads for arithmetic; None for the machine's usual one.
        kv_bits: bits of numbers in the KV cache; None for the usual ones.
        adapters: folders of adapters that run beside the weights; None for the model alone.
        load: further settings that models are loaded with.
        chat: whether questions go through the chat template.
        limit: the most questions of a task.
        seed: of all that is drawn.
        max_tokens: of an answer; None: as the kind of task has it.
        stride: tokens that a further window of a long text scores; None: half of the context.
        timeout: seconds in which a model must say something.
    """

    shots: Sequence[int] = (0,)
    shot_seeds: int = 1
    decodings: Sequence[Decoding] = (GREEDY,)
    threads: Sequence[int | None] = (None,)
    kv_bits: Sequence[int | None] = (None,)
    adapters: Sequence[str | None] = (None,)
    load: Mapping[str, Any] = field(default_factory=dict)
    chat: bool = False
    limit: int | None = None
    seed: int = 0
    max_tokens: int | None = None
    stride: int | None = None
    timeout: float = TIMEOUT

    def loads(self) -> list[dict[str, Any]]:
        """Return the fields of ``LoadSettings`` with which each model is loaded in turn."""
        loads = []
        for adapter, threads, bits in product(self.adapters, self.threads, self.kv_bits):
            load = {**self.load, "threads": threads, "kv_bits": bits}
            # what is known of a model alone was kept without this field
            if adapter is not None:
                load["adapter"] = adapter
            loads.append(load)
        return loads

    def questions(self, task: Task) -> list[Question]:
        """Return the questions of a task, the same for every way to ask it. Raises ConfigError."""
        most = 0
        if takes_shots(task):
            most = max(self.shots)
        return task.questions(self.limit, shots=most, shot_seeds=self.shot_seeds)

    def asks(self, task: Task) -> Iterator[Ask]:
        """Yield the ways in which a task's questions are asked of each model."""
        decodings: Sequence[Decoding | None] = [None]
        if task.kind.way == "generated":
            decodings = self.decodings
        numbers: Sequence[int] = [0]
        if takes_shots(task):
            numbers = self.shots
        for shots, decoding in product(numbers, decodings):
            # without examples there is nothing that a seed could choose
            for seed in range(self.shot_seeds if shots else 1):
                yield Ask(task, shots, seed, decoding)


@dataclass(frozen=True, slots=True)
class Ask:
    """A task with one way to ask it.

    Attributes:
        task: the task.
        shots: examples before each question.
        shot_seed: number of the block of examples.
        decoding: how answers are drawn; None where none is generated.
    """

    task: Task
    shots: int = 0
    shot_seed: int = 0
    decoding: Decoding | None = None

    @property
    def title(self) -> str:
        """The task, and how it is asked, in words."""
        parts = [self.task.name]
        if self.shots:
            parts.append(f"{self.shots} shots")
        if self.shot_seed:
            parts.append(f"seed {self.shot_seed}")
        if self.decoding is not None:
            parts.append(self.decoding.name)
        return ", ".join(parts)


def takes_shots(task: Task) -> bool:
    """Return whether its rows can be examples: a text that is read has no answer to show."""
    return task.kind.way != "read" and any(row.target for row in task.rows)
