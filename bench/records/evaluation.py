"""Records of evaluations: a model's answers to the questions of a task, scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from edgellm.bench.records.doubts import Doubt, doubt_cut, doubt_metrics
from edgellm.bench.records.fields import Bits, Count, FieldError, Figure, Seconds
from edgellm.bench.records.record import Record, median, percentile, quotient
from edgellm.errors import EdgeLLMError

PAIRED = ("task", "shots", "shot_seed", "decoding", "chat", "seed")
"""What two runs must have in common besides their questions, so that they can be paired."""

SAME = 1e-6
"""Values of a metric that differ by less, of 1, are one value that was rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord(Record):
    """A run: one model, one task, one way to ask it. ``seconds`` lasted all questions together.

    Attributes:
        task: the name of the task: a file's without its suffix, or the harness's.
        task_kind: ``classify``, ``choose``, ``nli``, ``answer`` and so on.
        headline: the metric that says most about this kind of task.
        metrics: all metrics of the run, by name.
        question_ids: of the questions, in the order that they were asked in.
        question_hashes: of the texts of each question, so that an id stands for the same one.
        documents: what each question is about; questions about one document are no independent
            evidence.
        columns: numbers of each question, by name, from which metrics are computed.
        prompt_hash: of all that prompts have in common: template, examples, kind; runs that asked
            differently are not paired.
        shots: examples in front of a question.
        shot_seed: which examples.
        shot_text: the examples as they were shown.
        first_prompt: the first question as it was asked, without the examples.
        first_options: the answers that it lets choose from, as they were scored.
        decoding: ``greedy``, ``beam:4``, ``top-p:0.9`` and so on; None where nothing is generated.
        chat: whether questions went through the chat template.
        seed: of everything that is drawn.
        kv_bits: bits of numbers in the KV cache.
        arithmetic: the code path that ran.
        skipped: rows without a right answer, which were not asked.
        signatures: how a library computed a metric, by the metric's name.
        model_bytes: bytes of the model's weights.
        shape: the sizes of the model in words; quantizations of one model have the same.
        load_seconds: until the model could compute.
        first_token_seconds: of questions that were asked alone, to measure latency.
        step_seconds: between their tokens.
        bytes_read: of weights, from disk, by all questions.
        layer_tokens: tokens that went through the layers.
        head_rows: hidden states that went through the head.
    """

    KIND: ClassVar[str] = "evaluation"

    task: str = ""
    task_kind: str = ""
    headline: str = ""
    metrics: Mapping[str, Figure] = field(default_factory=dict)
    question_ids: tuple[str, ...] = ()
    question_hashes: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    columns: Mapping[str, tuple[Figure, ...]] = field(default_factory=dict)
    prompt_hash: str | None = None
    shots: Count = 0
    shot_seed: Count = 0
    shot_text: str | None = None
    first_prompt: str | None = None
    first_options: tuple[str, ...] = ()
    decoding: str | None = None
    chat: bool = False
    seed: Count = 0
    kv_bits: Bits | None = None
    arithmetic: str | None = None
    skipped: Count = 0
    signatures: Mapping[str, str] = field(default_factory=dict)
    model_bytes: Count | None = None
    shape: str | None = None
    load_seconds: Seconds | None = None
    first_token_seconds: tuple[Seconds, ...] = ()
    step_seconds: tuple[Seconds, ...] = ()
    bytes_read: Count | None = None
    layer_tokens: Count | None = None
    head_rows: Count | None = None

    DERIVED: ClassVar[tuple[str, ...]] = (
        *("questions", "score", "cut", "ties", "questions_per_second", "tokens_per_second"),
        *("first_token_p50", "warnings"),
    )

    BY_QUESTION: ClassVar[tuple[str, ...]] = (
        *("question_ids", "question_hashes", "documents", "columns", "first_options"),
    )
    """Fields of many values, for which tables have no room."""

    def __post_init__(self) -> None:
        """Check every field, and that all columns are as long as the questions are many."""
        # a class with slots is another than the one that super() without arguments knows
        super(EvaluationRecord, self).__post_init__()
        count = len(self.question_ids)
        texts = {"documents": self.documents, "question_hashes": self.question_hashes}
        for name, column in {**texts, **self.columns}.items():
            if len(column) != count:
                raise FieldError(name, f"{len(column)} values", f"{count}, one a question")

    @property
    def questions(self) -> int:
        """How many were asked."""
        return len(self.question_ids)

    @property
    def score(self) -> float | None:
        """The headline's value."""
        return self.metrics.get(self.headline)

    @property
    def cut(self) -> int:
        """Questions whose prompt did not fit the context."""
        return int(sum(self.columns.get("cut", ())))

    @property
    def ties(self) -> int:
        """Questions with two answers that are equally likely."""
        return int(sum(self.columns.get("tie", ())))

    @property
    def questions_per_second(self) -> float | None:
        """Questions asked a second, side by side."""
        return quotient(self.questions, sum(self.seconds))

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of a text a second, one text alone, by the median step."""
        return quotient(1, median(self.step_seconds))

    @property
    def first_token_p50(self) -> float | None:
        """Seconds in which half of the questions that were asked alone had a first token."""
        return percentile(self.first_token_seconds, 50)

    @property
    def doubts(self) -> list[Doubt]:
        """The reasons to doubt its figures."""
        return [
            *doubt_cut(self.cut, self.questions),
            *doubt_metrics(self.metrics, self.contradicted),
        ]

    @property
    def contradicted(self) -> dict[str, float]:
        """The metrics that do not follow from the columns, with the values that do."""
        from edgellm.bench.metrics.table import METRICS

        found = {}
        for name in METRICS.keys() & self.metrics.keys():
            try:
                if not METRICS[name].is_defined(self.columns):
                    continue
                value = METRICS[name].of(self.columns)
            except EdgeLLMError:
                continue
            if not math.isclose(value, self.metrics[name], rel_tol=SAME, abs_tol=SAME):
                found[name] = value
        return dict(sorted(found.items()))
