"""Texts that are read: how well a model expects them."""

from __future__ import annotations

from typing import ClassVar, cast

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, text_of
from edgellm.bench.evaluation.tasks.rows.labels import LeftOut
from edgellm.bench.evaluation.tasks.rows.question import Outcome, Question, Scored
from edgellm.bench.metrics.texts import text_columns
from edgellm.row_files.reading import Row

ANSWERS = (
    *(
        "label",
        "labels",
        "label_text",
        "coarse_label",
        "fine_label",
        "category",
        "intent",
        "class",
        "sentiment",
        "tags",
    ),
    *("answer", "answers", "target", "targets", "output", "gold", "response", "completion"),
    *("summary", "summaries", "highlights", "tldr", "reference", "references"),
)
"""Fields that ask for more than reading."""


class Text(Kind):
    """Documents, each scored from its beginning."""

    name = "text"
    way: ClassVar[Way] = "read"
    asks_for = "text"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(
            needs={"text": ("text", "content", "page", "document")},
            right=(),
            lacks=ANSWERS,
            template="{{ text }}",
        ),
    )
    metrics: ClassVar[tuple[str, ...]] = (
        *("bits_per_byte", "token_perplexity", "word_perplexity", "byte_perplexity"),
        *("kl", "top1"),
    )

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return a text, to the letter as the row has it."""
        if parts["text"] == "" or str(parts["text"]).isspace():
            raise LeftOut
        about = text_of(parts, "text")
        return ask(row, form, shown={"text": parts["text"]}, about=[about], target=parts["text"])

    def columns(self, question: Question, outcome: Outcome) -> dict[str, float]:
        """Return the columns of a text that was read."""
        score = cast("Scored", outcome)
        return text_columns(question.target, -score.logprob, len(score.ids))
