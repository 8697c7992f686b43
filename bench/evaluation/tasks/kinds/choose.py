"""Questions with one right choice among several."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask, row_id
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, text_of
from edgellm.bench.evaluation.tasks.rows.labels import LeftOut
from edgellm.bench.evaluation.tasks.rows.question import Question
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow
from edgellm.row_files.reading import Row

BLANK = "_"
"""The place in a sentence that the choices fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceForm(Form):
    """A form of questions with choices.

    Attributes:
        listed: parts that are the choices, each a text; default: the part ``choices``.
        begins: number of the first choice.
    """

    listed: tuple[str, ...] = ()
    begins: int = 0


def _names(*fields: str) -> dict[str, tuple[str, ...]]:
    return {field: (field,) for field in fields}


QUESTION = "Question: {{ question }}\nAnswer:"
WITH_CONTEXT = "{% if context %}{{ context }}\n{% endif %}" + QUESTION

LIST = ChoiceForm(
    needs={
        "question": ("question", "question_stem", "query"),
        "choices": ("choices", "options"),
        "right": ("answerKey", "answer_index", "answer", "label", "gold", "correct"),
    },
    may={"context": ("context", "passage", "article", "support")},
    right=("right",),
    template=WITH_CONTEXT,
)
MARKED = ChoiceForm(  # TruthfulQA
    needs={"question": ("question",), "choices": ("mc1_targets",)},
    right=("choices",),
    template=QUESTION,
)
ENDINGS = ChoiceForm(  # HellaSwag
    needs={"question": ("ctx", "context", "prompt"), "choices": ("endings",), "right": ("label",)},
    right=("right",),
    template="{{ question }}",
)
SOLUTIONS = ChoiceForm(  # PIQA
    needs={"question": ("goal",), **_names("sol1", "sol2"), "right": ("label",)},
    right=("right",),
    listed=("sol1", "sol2"),
    template=QUESTION,
)
FILLED = ChoiceForm(  # WinoGrande
    needs={"question": ("sentence",), **_names("option1", "option2"), "right": ("answer", "label")},
    right=("right",),
    listed=("option1", "option2"),
    begins=1,
    template="{{ before }}",
)
CAUSES = ChoiceForm(  # COPA
    needs={
        "question": ("premise",),
        "asks": ("question",),
        **_names("choice1", "choice2"),
        "right": ("label",),
    },
    right=("right",),
    listed=("choice1", "choice2"),
    template="{{ question | trim('.') }} {% if asks == 'cause' %}because{% else %}so{% endif %}",
)
LETTERED = ChoiceForm(  # Social IQa
    needs={
        "question": ("question",),
        **_names("answerA", "answerB", "answerC"),
        "right": ("label",),
    },
    may={"context": ("context",)},
    right=("right",),
    listed=("answerA", "answerB", "answerC"),
    begins=1,
    template=WITH_CONTEXT,
)
MEDICAL = ChoiceForm(  # MedMCQA
    needs={"question": ("question",), **_names("opa", "opb", "opc", "opd"), "right": ("cop",)},
    right=("right",),
    listed=("opa", "opb", "opc", "opd"),
    template=QUESTION,
)
DISTRACTED = ChoiceForm(  # SciQ
    needs={
        "question": ("question",),
        **_names("distractor1", "distractor2", "distractor3", "correct_answer"),
    },
    may={"context": ("support",)},
    right=("correct_answer",),
    listed=("distractor1", "distractor2", "distractor3"),
    template=WITH_CONTEXT,
)


class Choose(Kind):
    """One right choice among the row's own."""

    name = "choose"
    way: ClassVar[Way] = "options"
    forms: ClassVar[tuple[Form, ...]] = (
        LIST,
        MARKED,
        ENDINGS,
        SOLUTIONS,
        FILLED,
        CAUSES,
        LETTERED,
        MEDICAL,
        DISTRACTED,
    )
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "acc_norm", "acc_bytes")

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return the question with the choices as options."""
        assert isinstance(form, ChoiceForm)
        question = text_of(parts, "question")
        context = None
        if parts.get("context") is not None:
            context = text_of(parts, "context")
        options, right = _options(row, form, parts)
        _check(options)
        shown = {"question": question, "context": context, "choices": options}
        if form is FILLED:
            before, found, after = question.partition(BLANK)
            if not found or not before.strip():
                raise BadRow(
                    f"the sentence has no {BLANK} for the options after its first word",
                    hint=f"write {BLANK} where the options go",
                )
            shown["before"] = before.rstrip()
            options = tuple(f"{option}{after}" for option in options)
        elif form is CAUSES:
            shown["asks"] = parts["asks"]
            options = tuple(_within_a_sentence(option) for option in options)
        about = [question]
        if context is not None:
            about.append(context)
        return ask(
            row,
            form,
            shown=shown,
            about=about,
            shared=context,
            target=options[right],
            group=str(right),
            options=options,
            right=right,
        )


def _options(row: Row, form: ChoiceForm, parts: Parts) -> tuple[tuple[str, ...], int]:
    """Return the choices of a row, and the number of the right one."""
    if form is DISTRACTED:
        options = [text_of(parts, role) for role in form.listed]
        # not always the last: between equals the first would win
        place = hashlib.blake2b(row_id(row).encode(), digest_size=2).digest()[0] % 4
        options.insert(place, text_of(parts, "correct_answer"))
        return tuple(options), place
    if form.listed:
        texts = tuple(text_of(parts, role) for role in form.listed)
        return texts, _right(parts["right"], texts, (), form.begins)
    texts, names = _listed(parts["choices"])
    if form is MARKED:
        marked = [number for number, name in enumerate(names) if name == "1"]
        if len(marked) != 1:
            raise BadRow(
                f"{len(marked)} choices are marked as right",
                hint='mark one: "labels": [1, 0, 0, 0]',
            )
        return texts, marked[0]
    return texts, _right(parts["right"], texts, names, form.begins)


def _within_a_sentence(option: str) -> str:
    """Return a sentence as it goes on after "because"."""
    if option.startswith(("I ", "I'")):
        return option
    return option[0].lower() + option[1:]


def _listed(choices: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the texts of a list of choices, and their names where they have such."""
    texts: Iterable[object] = ()
    names: Iterable[object] = ()
    if isinstance(choices, Mapping):
        names, texts = choices.keys(), choices.values()
        for text_key, name_key in (("text", "label"), ("choices", "labels")):
            if isinstance(choices.get(text_key), list) and isinstance(choices.get(name_key), list):
                texts, names = choices[text_key], choices[name_key]
    elif isinstance(choices, list) and all(isinstance(choice, Mapping) for choice in choices):
        texts = [choice.get("text") for choice in choices]
        names = [choice.get("label", number) for number, choice in enumerate(choices)]
    elif isinstance(choices, list):
        texts = choices
    found = tuple(texts)
    is_list = isinstance(choices, Mapping | list)
    if not is_list or any(
        isinstance(text, bool) or not isinstance(text, str | int | float) for text in found
    ):
        raise BadRow(
            f"the choices are {quoted(choices)}; they must be texts",
            hint='write "choices": ["...", "..."]',
        )
    return tuple(str(text).strip() for text in found), tuple(str(name) for name in names)


def _check(options: tuple[str, ...]) -> None:
    """Refuse choices that cannot be compared."""
    if len(options) < 2:
        raise BadRow(f"it has {len(options)} choices; nothing to choose from", hint="give two")
    for number, option in enumerate(options):
        if not option:
            raise BadRow(f"choice {number} is empty", hint="give each choice a text")
        if option in options[:number]:
            raise BadRow(
                f"choices {options.index(option)} and {number} are both {quoted(option)}",
                hint="give each choice a text of its own",
            )


def _right(value: object, texts: tuple[str, ...], names: tuple[str, ...], begins: int) -> int:
    """Return the number, from 0, of the choice that a value names."""
    text = str(value).strip()
    if text in names:
        return names.index(text)
    if text in {"-1", ""} and text not in texts:
        raise LeftOut
    found = set()
    if isinstance(value, str):
        if text in texts:
            found.add(texts.index(text))
        if len(text) == 1 and text.isascii() and text.isalpha():
            found.add(ord(text.upper()) - ord("A"))
    if not isinstance(value, bool) and text.isascii() and text.isdigit():
        found.add(int(text) - begins)
    found &= set(range(len(texts)))
    if len(found) == 1:
        return found.pop()
    if found:
        raise BadRow(
            f"the answer {quoted(value)} is one choice by its text and another by its place",
            hint=f"give the number of the right choice, from {begins}, without quotes",
        )
    raise BadRow(
        f"the answer {quoted(value)} is none of the {len(texts)} choices",
        hint=f"give the right one's text, its letter, or its number from {begins}",
    )
