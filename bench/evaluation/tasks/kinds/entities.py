"""Names in a text, and their types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask, generated
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, texts_of
from edgellm.bench.evaluation.tasks.rows.labels import label_number
from edgellm.bench.evaluation.tasks.rows.question import Outcome, Question
from edgellm.bench.metrics.spans import read_lines, span_columns, spans_of_tags
from edgellm.errors import ConfigError
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow
from edgellm.row_files.reading import Row

NONE = "none"
"""The answer where a text has no name."""

HINT = "give each token a tag: O, or B- or I- and a type"

TOKENS = Form(
    needs={
        "tokens": ("tokens", "words"),
        "tags": ("tags", "ner_tags", "ner", "labels"),
    },
    right=("tags",),
    fits=lambda parts: isinstance(parts["tokens"], list) and isinstance(parts["tags"], list),
    template="Text: {{ text }}\nNames:\n",
)


class Entities(Kind):
    """Named entities, generated as lines of a type and a name."""

    name = "entities"
    way: ClassVar[Way] = "generated"
    forms: ClassVar[tuple[Form, ...]] = (TOKENS,)
    metrics: ClassVar[tuple[str, ...]] = ("span_f1", "span_precision", "span_recall")
    stops: ClassVar[tuple[str, ...]] = ("\n\n",)
    max_tokens = 96
    takes_labels = True

    def labels(
        self, form: Form, rows: Sequence[Parts], given: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        """Return the tags given, or those of the rows."""
        if given is not None:
            return given
        lists = (parts["tags"] for parts in rows if isinstance(parts["tags"], list))
        found = {tag for tags in lists for tag in tags if isinstance(tag, str | int)}
        numbers = [tag for tag in found if isinstance(tag, int)]
        if numbers:
            raise ConfigError(
                f"the tags are numbers, such as {quoted(numbers[0])}",
                hint="name them in their order: --labels O,B-person,I-person,...",
            )
        return tuple(sorted(map(str, found)))

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return a sentence with the tags of its tokens."""
        tokens, tags = parts["tokens"], parts["tags"]
        for role in ("tokens", "tags"):
            if not isinstance(parts[role], list) or not parts[role]:
                raise BadRow(f"{role} is {quoted(parts[role])}; it must be a list", hint=HINT)
        texts_of(tokens, "tokens")
        if len(tags) != len(tokens):
            raise BadRow(
                f"there are {len(tokens)} tokens and {len(tags)} tags",
                hint=HINT,
            )
        names = tuple(labels[label_number(tag, labels, "a tag")] for tag in tags)
        try:
            spans = spans_of_tags(names)
        except ConfigError as error:
            raise BadRow(error.message, hint=error.hint or "") from error
        lines = [f"{kind}: {' '.join(tokens[begin:end])}" for kind, begin, end in spans]
        text = " ".join(tokens)
        return ask(
            row,
            form,
            shown={"text": text, "tokens": tuple(tokens), "types": types_of(labels)},
            about=[text],
            target="\n".join(lines) or NONE,
            group=next((span.kind for span in spans), NONE),
            tags=names,
        )

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return the types, and how names are written."""
        return (
            "Find the names in each text. Write a line for each, as type: name, in the order of "
            f"the text. The types are {', '.join(types_of(labels))}. "
            f"Where there is no name, write {NONE}."
        )

    def columns(self, question: Question, outcome: Outcome) -> dict[str, float]:
        """Return the spans that the lines of an answer name, and those of the tags."""
        said = read_lines(generated(outcome), question.shown["tokens"], question.shown["types"])
        return span_columns(said, question.tags)


def types_of(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the types of entities in tags."""
    return tuple(sorted({tag.partition("-")[2] for tag in tags} - {""}))
