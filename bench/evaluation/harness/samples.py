"""Columns of numbers, from what lm-evaluation-harness has noted of each question.

The harness' samples are read by their shape, not by its classes, so that this needs no library.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from edgellm.bench.evaluation.harness.adapter import Counts
from edgellm.bench.metrics.choices import choice_columns

Sample = Mapping[str, Any]
"""Of a question and a filter: ``doc``, ``arguments``, ``filtered_resps``, ``metrics`` and more."""

DOCUMENT_FIELDS = ("passage", "context", "article", "paragraph", "story")
"""Fields that hold what a question is about, and that several questions may share."""

KINDS = {
    "multiple_choice": "choose",
    "loglikelihood": "choose",
    "loglikelihood_rolling": "text",
    "generate_until": "answer",
}
"""The kind of a task in our words, by the harness' output type."""


class Task(Protocol):
    """A task of the harness, as far as it is asked here."""

    OUTPUT_TYPE: str
    multiple_input: Any

    def doc_to_choice(self, doc: Any) -> Sequence[str]:
        """Return the options of a question."""
        ...

    def doc_to_text(self, doc: Any) -> Any:
        """Return a question's prompt, or the right option's number where prompts are options."""
        ...

    def doc_to_target(self, doc: Any) -> Any:
        """Return what is right."""
        ...

    def get_config(self, name: str) -> Any:
        """Return a field of the task's file."""
        ...

    def higher_is_better(self) -> Mapping[str, bool]:
        """Say of metrics whether more is better."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A task's questions.

    Attributes:
        kind: the kind of the task.
        headline: the metric that says most about it.
        question_ids: the questions.
        question_hashes: of the texts of each question, so that an id stands for the same one.
        documents: what each is about.
        columns: numbers of each question, by name.
    """

    kind: str
    headline: str
    question_ids: list[str]
    question_hashes: list[str]
    documents: list[str]
    columns: dict[str, list[float]]

    @property
    def form(self) -> tuple[str, str, frozenset[str]]:
        """Kind, headline and columns: tasks with the same can be counted together."""
        return self.kind, self.headline, frozenset(self.columns)


def pooled(outcomes: Mapping[str, Outcome]) -> Outcome | None:
    """Return the questions of several tasks as those of one; None where they are not alike."""
    parts = outcomes.items()
    first = next(iter(outcomes.values()))
    if any(one.form != first.form for one in outcomes.values()):
        return None
    return Outcome(
        kind=first.kind,
        headline=first.headline,
        question_ids=[f"{task}:{one}" for task, part in parts for one in part.question_ids],
        question_hashes=[one for _, part in parts for one in part.question_hashes],
        documents=[f"{task}:{one}" for task, part in parts for one in part.documents],
        columns={
            name: [value for _, part in parts for value in part.columns[name]]
            for name in first.columns
        },
    )


def outcome_of(
    task_name: str,
    task: Task,
    samples: Sequence[Sample],
    counts: Counts,
    *,
    chat: bool = False,
) -> Outcome:
    """Return a task's questions with their numbers.

    Args:
        task_name: its name.
        task: the task.
        samples: of the harness; several for a question whose answer went through several filters.
        counts: what is known of questions besides.
        chat: whether the questions were asked in conversations.
    """
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    first = [sample for sample in samples if sample["filter"] == filters[0]]
    columns, headline = _columns(task, first)
    for sample_filter in filters[1:]:
        others = [sample for sample in samples if sample["filter"] == sample_filter]
        for name, values in _plain_numbers(others).items():
            columns[f"{name}_{_identifier(sample_filter)}"] = values
    questions = [(task_name, sample["doc_id"]) for sample in first]
    columns["cut"] = [float(counts.cut_tokens[one] > 0) for one in questions]
    if task.OUTPUT_TYPE == "generate_until":
        columns["answer_tokens"] = [float(counts.answer_tokens[one]) for one in questions]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        columns["tokens"] = [float(counts.text_tokens[one]) for one in questions]
    ids = [str(sample["doc_id"]) for sample in first]
    return Outcome(
        kind=KINDS[task.OUTPUT_TYPE],
        headline=headline,
        question_ids=ids,
        documents=[_document(sample["doc"], own) for sample, own in zip(first, ids, strict=True)],
        columns=columns,
        question_hashes=[_question_hash(sample, chat=chat) for sample in first],
    )


def _columns(task: Task, samples: Sequence[Sample]) -> tuple[dict[str, list[float]], str]:
    """Return columns of questions, and the headline."""
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return _text_columns(samples), "bits_per_byte"
    numbers = _plain_numbers(samples)
    if task.OUTPUT_TYPE == "loglikelihood" and "perplexity" in numbers:
        numbers["right_logprob"] = numbers.pop("perplexity")  # the harness notes it by that name
    has_own_arithmetic = task.get_config("process_results") is not None
    if task.OUTPUT_TYPE == "multiple_choice" and not has_own_arithmetic:
        columns = _choice_columns(task, samples)
        if columns:
            if "acc_norm" in numbers:
                return columns, "acc_norm"
            return columns, "accuracy"
    for ours, theirs in (("correct_chars", "acc_norm"), ("correct", "acc")):
        values = numbers.get(theirs)
        if values and set(values) <= {0.0, 1.0}:
            numbers[ours] = numbers.pop(theirs)
    for headline, column in (
        ("acc_norm", "correct_chars"),
        ("accuracy", "correct"),
        ("exact_match", "exact_match"),
        ("f1", "f1"),
    ):
        if column in numbers:
            return numbers, headline
    if not numbers:
        return {}, ""
    shares = [name for name, values in numbers.items() if set(values) <= {0.0, 1.0}]
    chosen = [*shares, *numbers][0]
    headline = "task_score"
    if not task.higher_is_better().get(chosen, True):
        headline = "task_error"
    return numbers | {headline: numbers[chosen]}, headline


def _choice_columns(task: Task, samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Return the columns of questions with options; none where one is not of the usual form.

    Such are several right options, and tasks with arithmetic of their own.
    """
    rows = []
    for sample in samples:
        doc = sample["doc"]
        options = task.doc_to_choice(doc)
        logprobs = [answer[0] for answer in sample["filtered_resps"]][: len(options)]
        gold = task.doc_to_target(doc)
        if task.multiple_input:  # the options are in the prompts
            gold = task.doc_to_text(doc)
        if isinstance(gold, str) and gold in options:
            gold = list(options).index(gold)
        usual = isinstance(gold, int) and 0 <= gold < len(options) == len(logprobs) > 1
        if not usual or not all(options):
            return {}
        row = choice_columns(options, logprobs, gold)
        if row["correct"] != sample.get("acc", row["correct"]):
            return {}
        rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]}


def _text_columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Return the columns of texts: the harness' own counts of words and bytes where it has them."""
    columns: dict[str, list[float]] = {"nll": [], "words": [], "bytes": []}
    for sample in samples:
        text = sample["arguments"][0][0]
        words = sample.get("word_perplexity", (None, len(re.split(r"\s+", text))))[1]
        size = sample.get("byte_perplexity", sample.get("bits_per_byte"))
        if size is None:
            size = (None, len(text.encode()))
        columns["nll"].append(-float(sample["filtered_resps"][0]))
        columns["words"].append(float(words))
        columns["bytes"].append(float(size[1]))
    return columns


def _plain_numbers(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Return the metrics that are a number for each question; others belong to all of them."""
    found = {}
    for name in samples[0]["metrics"]:
        numbers = [_number(sample.get(name)) for sample in samples]
        known = [number for number in numbers if number is not None]
        if len(known) == len(samples):
            found[name] = known
    return found


def _number(value: Any) -> float | None:
    """Return a finite number, NumPy's too; None of anything else."""
    if isinstance(value, str):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if math.isfinite(number):
        return number
    return None


def _document(doc: Any, own: str) -> str:
    """Return what a question is about: a hash of the text that it shares, or its own number."""
    if isinstance(doc, Mapping):
        for name in DOCUMENT_FIELDS:
            if isinstance(doc.get(name), str) and doc[name]:
                return sha256(doc[name].encode("utf-8", "replace")).hexdigest()[:12]
    return own


def _question_hash(sample: Sample, *, chat: bool) -> str:
    """Return a digest of a question's prompts and right answer.

    Of a conversation it is the question alone: models write conversations in their own ways.
    """
    asked = sample["arguments"]
    if chat:
        asked = sample["doc"]
    text = json.dumps([asked, sample["target"]], default=str, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:8]


def _identifier(text: str) -> str:
    return re.sub(r"\W+", "_", text)
