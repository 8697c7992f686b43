"""Questions that are answered in a few words, with or without a text that has the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask, generated
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, text_of
from edgellm.bench.evaluation.tasks.rows.question import Outcome, Question
from edgellm.bench.metrics.answers import answer_columns, normalize_answer
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow
from edgellm.row_files.reading import Row

UNANSWERABLE = "unanswerable"

OTHER_KINDS = (
    "label",
    "choices",
    "options",
    "endings",
    "hypothesis",
    "option1",
    "choice1",
    "answerA",
)


def _is_no_truth(parts: Parts) -> bool:
    return not isinstance(parts["answers"], bool)


class Answer(Kind):
    """Short answers, as in SQuAD and Natural Questions."""

    name = "answer"
    way: ClassVar[Way] = "generated"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(
            needs={
                "question": ("question", "query"),
                "answers": ("answers", "answer", "short_answers", "answers_spans"),
            },
            may={
                "context": ("context", "passage"),
                "impossible": ("is_impossible",),
                "plausible": ("plausible_answers",),
            },
            right=("answers", "impossible", "plausible"),
            lacks=OTHER_KINDS,
            fits=_is_no_truth,
            template="{% if context %}{{ context }}\n{% endif %}Question: {{ question }}\nAnswer:",
        ),
    )
    metrics: ClassVar[tuple[str, ...]] = (
        *("f1", "exact_match", "contains"),
        *("f1_has_answer", "exact_match_has_answer", "exact_match_no_answer"),
    )
    stops: ClassVar[tuple[str, ...]] = ("\n",)
    max_tokens = 32

    def labels(
        self, form: Form, rows: Sequence[Parts], given: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        """Return the word for questions without an answer, where a row has none."""
        super().labels(form, rows, given)
        if any(_has_none(parts) for parts in rows):
            return (UNANSWERABLE,)
        return ()

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return the question with the answers that count as right."""
        answers: tuple[str, ...] = ()
        if not parts["impossible"]:
            answers = tuple(dict.fromkeys(_accepted(parts["answers"])))
        if not answers and UNANSWERABLE not in labels:
            raise BadRow("answers is empty", hint="give it an answer, or drop the row")
        context = None
        about = [text_of(parts, "question")]
        if parts["context"] is not None:
            context = text_of(parts, "context")
            about.append(context)
        return ask(
            row,
            form,
            shown={"question": about[0], "context": context, "labels": labels},
            about=about,
            shared=context,
            target=next(iter(answers), UNANSWERABLE),
            group=str(bool(answers)),
            answers=answers,
        )

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return how long answers are, and what to say where there is none."""
        sentences = []
        if chat:
            sentences.append("Answer each question with a few words, not a sentence.")
        if labels:
            sentences.append(f'Where the text does not answer it, write "{UNANSWERABLE}".')
        return " ".join(sentences)

    def columns(self, question: Question, outcome: Outcome) -> dict[str, float]:
        """Return the columns of the first line of an answer."""
        answer = next(iter(generated(outcome).splitlines()), "").strip()
        if normalize_answer(answer) == UNANSWERABLE and UNANSWERABLE not in question.answers:
            answer = ""
        version: Literal[1, 2] = 1
        if UNANSWERABLE in question.shown["labels"]:
            version = 2
        return answer_columns(answer, question.answers, version=version)


def _has_none(parts: Parts) -> bool:
    """Say whether a row declares that it has no answer."""
    if parts["impossible"]:
        return True
    if parts["impossible"] is None and isinstance(parts["answers"], str):
        return False
    try:
        return parts["context"] is not None and not _accepted(parts["answers"])
    except BadRow:
        return False


def _accepted(answers: object) -> list[str]:
    """Return the texts of answers in any of the forms that data sets have."""
    if isinstance(answers, Mapping):
        answers = _of_mapping(answers)
    if isinstance(answers, bool) or not isinstance(answers, str | int | float | list):
        raise _no_answers(answers)
    if not isinstance(answers, list):
        answers = [answers]
    found = []
    for answer in answers:
        value = answer
        if isinstance(value, Mapping):
            value = value.get("text")
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _no_answers(answer)
        found.append(str(value).strip())
    return [answer for answer in found if answer]


def _of_mapping(answers: Mapping[str, Any]) -> object:
    """Return the answers of SQuAD's, DROP's or TriviaQA's object."""
    for texts in ("text", "spans"):
        if texts in answers:
            return answers[texts]
    if "value" in answers:
        return [answers["value"], *(answers.get("aliases") or ())]
    return answers


def _no_answers(value: object) -> BadRow:
    return BadRow(
        f"answers is {quoted(value)}; it must be texts",
        hint='write "answers": ["...", "..."], or {"text": ["..."]} as SQuAD does',
    )
