"""Texts with one label of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, text_of
from edgellm.bench.evaluation.tasks.rows.labels import NO_GOLD, label_number, labels_of
from edgellm.bench.evaluation.tasks.rows.question import Question
from edgellm.row_files.reading import Row

RELATIONS = ("entailment", "neutral", "contradiction", "not_entailment", "-")
"""Labels of natural language inference."""

LABEL = ("label_text", "label", "category", "intent", "class", "sentiment")

NO_YES = ("no", "yes")
NO_YES_VALUES = {"false": "no", "true": "yes", "0": "no", "1": "yes", "no": "no", "yes": "yes"}


def _says_yes_or_no(parts: Parts) -> bool:
    return str(parts["label"]).casefold() in {*NO_YES_VALUES, "-1"}


ONE_TEXT = Form(
    needs={
        "text": ("text", "sentence", "content", "review", "message", "utterance", "utt", "tweet"),
        "label": LABEL,
    },
    right=("label",),
    lacks=("question", "premise", "hypothesis", "choices", "option1", "sentence2"),
    template="Text: {{ text }}\nLabel:",
)
YES_OR_NO = Form(
    needs={
        "context": ("passage", "context"),
        "question": ("question",),
        "label": ("label", "answer"),
    },
    right=("label",),
    lacks=("choices", "options", "answers", "hypothesis", "choice1", "answerA"),
    fits=_says_yes_or_no,
    template="{{ context }}\nQuestion: {{ question | trim('?') }}?\nAnswer:",
)
TWO_TEXTS = Form(
    needs={
        "sentence1": ("sentence1", "question1", "question"),
        "sentence2": ("sentence2", "question2", "sentence"),
        "label": ("label_text", "label"),
    },
    right=("label",),
    fits=lambda parts: parts["label"] not in RELATIONS,
    template="First: {{ sentence1 }}\nSecond: {{ sentence2 }}\nLabel:",
)


class Classify(Kind):
    """The label of a text, or of two; yes or no to a question about a text."""

    name = "classify"
    way: ClassVar[Way] = "options"
    forms: ClassVar[tuple[Form, ...]] = (ONE_TEXT, YES_OR_NO, TWO_TEXTS)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "acc_norm")
    takes_labels = True

    def labels(
        self, form: Form, rows: Sequence[Parts], given: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        """Return the labels given, or those of the rows."""
        if given is not None:
            return given
        if form is YES_OR_NO:
            return NO_YES
        return labels_of(parts["label"] for parts in rows if str(parts["label"]) not in NO_GOLD)

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return the text as a question whose options are the labels."""
        value = parts["label"]
        if labels == NO_YES:
            value = NO_YES_VALUES.get(str(value).casefold(), value)
        right = label_number(value, labels)
        texts = {role: text_of(parts, role) for role in form.needs if role != "label"}
        return ask(
            row,
            form,
            shown={**texts, "labels": labels},
            about=tuple(texts.values()),
            shared=texts.get("context"),
            target=labels[right],
            group=labels[right],
            options=labels,
            right=right,
        )

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return the labels for a chat, which answers in sentences otherwise."""
        if not chat:
            return ""
        return f"Answer with one of these words alone: {', '.join(labels)}."
