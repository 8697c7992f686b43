"""The interface of a kind of task."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts
from edgellm.bench.evaluation.tasks.rows.question import Outcome, Question, Scored
from edgellm.bench.metrics.choices import choice_columns
from edgellm.errors import ConfigError
from edgellm.row_files.reading import Row

Way = Literal["options", "generated", "read"]
"""Options are scored by their likelihood; an answer is generated; a text is read."""

DOCUMENT_FIELDS = ("document_id", "doc_id", "context_id", "article_id", "passage_id")


class Kind(ABC):
    """A kind of task.

    Attributes:
        name: as ``--kind`` has it.
        way: how a model answers.
        forms: of rows, the first that fits counts.
        metrics: names of its metrics; the first is the headline.
        stops: texts that end a generated answer, where no chat template ends it.
        max_tokens: of a generated answer.
        asks_for: without it a row is left out.
        takes_labels: whether ``--labels`` means something to it.
    """

    name: ClassVar[str]
    way: ClassVar[Way]
    forms: ClassVar[tuple[Form, ...]]
    metrics: ClassVar[tuple[str, ...]]
    stops: ClassVar[tuple[str, ...]] = ()
    max_tokens: ClassVar[int] = 0
    asks_for: ClassVar[str] = "right answer"
    takes_labels: ClassVar[bool] = False

    def form_of(self, fields: Mapping[str, Any]) -> Form | None:
        """Return the first form that a row has, if any."""
        return next((form for form in self.forms if form.recognises(fields)), None)

    def nearest_form(self, fields: Mapping[str, Any]) -> Form:
        """Return the form that a row has, or most nearly has."""
        complete = (form for form in self.forms if form.is_complete(fields))
        return self.form_of(fields) or next(complete, self.forms[0])

    def labels(
        self, form: Form, rows: Sequence[Parts], given: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        """Return the answers that all questions share, if the kind has such.

        Args:
            form: of the rows.
            rows: the parts of each.
            given: by the caller, already checked.

        Raises:
            ConfigError: the kind takes no labels, or there is one only.
        """
        if given is not None:
            raise ConfigError(
                f"tasks of the kind {self.name} have no labels", hint="leave out --labels"
            )
        return ()

    @abstractmethod
    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return what a row asks.

        Raises:
            BadRow: it asks nothing.
            LeftOut: nobody knows the answer, or there is nothing to read.
        """

    def stops_of(self, form: Form) -> tuple[str, ...]:
        """Return the texts that end a generated answer, where no chat template ends it."""
        return self.stops

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return what is said once, before examples and question; "" for nothing."""
        return ""

    def columns(self, question: Question, outcome: Outcome) -> dict[str, float]:
        """Return the columns of one outcome, as ``bench/metrics`` adds them up: of options here."""
        scores = cast("Sequence[Scored]", outcome)
        right = cast("int", question.right)
        return choice_columns(question.options, [score.logprob for score in scores], right)

    def signatures(self, questions: Sequence[Question]) -> dict[str, str]:
        """Return how a library computes the metrics of these questions, by the metric's name."""
        return {}


def ask(
    row: Row,
    form: Form,
    *,
    shown: Mapping[str, Any],
    about: Sequence[str],
    shared: str | None = None,
    **known: Any,
) -> Question:
    """Return a question of a row.

    Args:
        row: the row.
        form: it has.
        shown: its parts that a prompt may show.
        about: texts that make it the question that it is.
        shared: text that several rows may be about.
        known: what else its kind knows, see ``Question``.
    """
    hidden = form.hidden()
    variables = {name: value for name, value in row.fields.items() if name not in hidden}
    question_id = row_id(row)
    document = question_id
    if shared is not None:
        document = hashlib.blake2b(folded(shared).encode(), digest_size=6).hexdigest()
    for name in DOCUMENT_FIELDS:
        if isinstance(row.fields.get(name), str | int):
            document = str(row.fields[name])
            break
    return Question(
        id=question_id,
        line=row.line,
        document=document,
        fields=row.fields,
        shown={**variables, **shown},
        same="\n".join(folded(text) for text in about),
        **known,
    )


ID_FIELDS = ("id", "guid", "uid", "qid", "qID", "question_id", "pairID", "idx")


def row_id(row: Row) -> str:
    """Return the id of a row, or ``row-`` and its line."""
    for name in ID_FIELDS:
        value = row.fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return f"row-{row.line}"


def folded(text: str) -> str:
    """Return a text as rows are compared: without case and runs of blanks."""
    return " ".join(text.casefold().split())


def generated(outcome: Outcome) -> str:
    """Return a generated text, without the blanks round it."""
    return cast("str", outcome).strip()
