"""Whether a text follows from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, text_of
from edgellm.bench.evaluation.tasks.rows.labels import NO_GOLD, label_number, named
from edgellm.bench.evaluation.tasks.rows.question import Question
from edgellm.errors import ConfigError
from edgellm.row_files.reading import Row

WORDS = {
    "entailment": "True",
    "neutral": "Neither",
    "contradiction": "False",
    "not_entailment": "False",
}
"""Labels, and the words that a model says for them."""

THREE = ("entailment", "neutral", "contradiction")
TWO = ("entailment", "not_entailment")

TEMPLATE = (
    "{{ premise }}\nQuestion: {{ hypothesis | trim('.') }}. "
    "{% if labels | length == 3 %}True, False or Neither?{% else %}True or False?{% endif %}"
    "\nAnswer:"
)


def is_relation(parts: Parts) -> bool:
    """Say whether a label can be one of how two texts relate."""
    label = parts["label"]
    return isinstance(label, int) or (isinstance(label, str) and label in WORDS)


PREMISE = Form(
    needs={
        "premise": ("premise",),
        "hypothesis": ("hypothesis",),
        "label": ("gold_label", "label_text", "label"),
    },
    right=("label",),
    template=TEMPLATE,
)
TWO_SENTENCES = Form(
    needs={
        "premise": ("sentence1",),
        "hypothesis": ("sentence2",),
        "label": ("gold_label", "label"),
    },
    right=("label",),
    fits=lambda parts: is_relation(parts) or parts["label"] == "-",
    template=TEMPLATE,
)


class Nli(Kind):
    """Natural language inference: true, false or neither."""

    name = "nli"
    way: ClassVar[Way] = "options"
    forms: ClassVar[tuple[Form, ...]] = (PREMISE, TWO_SENTENCES)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    takes_labels = True

    def labels(
        self, form: Form, rows: Sequence[Parts], given: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        """Return the names of labels 0, 1 and so on."""
        if given is not None:
            unknown = [label for label in given if label not in WORDS]
            if unknown:
                raise ConfigError(
                    f"{unknown[0]!r} is no label of two texts",
                    hint=f"the labels are {', '.join(WORDS)}",
                )
            return given
        found = {parts["label"] for parts in rows if isinstance(parts["label"], str | int)}
        found -= {-1, *NO_GOLD}
        if "not_entailment" in found:
            return TWO
        if found == {0, 1}:
            raise ConfigError(
                "the labels are 0 and 1: they may be two labels, or two of three",
                hint=f"name them: --labels {','.join(TWO)} or --labels {','.join(THREE)}",
            )
        return THREE

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return whether the hypothesis is true, given the premise."""
        number = label_number(parts["label"], labels)
        options = tuple(dict.fromkeys(word for name, word in WORDS.items() if name in labels))
        right = options.index(WORDS[labels[number]])
        premise, hypothesis = text_of(parts, "premise"), text_of(parts, "hypothesis")
        return ask(
            row,
            form,
            shown={"premise": premise, "hypothesis": hypothesis, "labels": options},
            about=(premise, hypothesis),
            shared=premise,
            target=options[right],
            group=options[right],
            options=options,
            right=right,
        )

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return for a chat what counts as an answer."""
        if not chat:
            return ""
        return f"Answer with one word: {named([WORDS[label] for label in labels])}."
