"""Texts and dialogues that a model goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask, generated
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, text_of, texts_of
from edgellm.bench.evaluation.tasks.rows.question import Outcome, Question
from edgellm.bench.metrics.texts import continuation_columns
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow
from edgellm.row_files.reading import Row

GOES_ON = ("reference", "completion", "continuation", "response", "story")

PROMPT = Form(
    needs={"prompt": ("prompt",)},
    may={"reference": GOES_ON},
    right=("reference",),
    lacks=("choices", "options", "endings", "label", "answers", "answer", "question"),
    template="{{ prompt }}",
)
DIALOGUE = Form(
    needs={"turns": ("dialogue", "dialog", "turns", "messages", "conversation")},
    may={"reference": GOES_ON},
    right=("reference", "turns"),
    lacks=("summary", "label", "question"),
    fits=lambda parts: isinstance(parts["turns"], list),
    template="{% for turn in turns %}{{ turn.speaker }}: {{ turn.text }}\n{% endfor %}{{ next }}:",
)
SPEAKERS = ("A", "B")


class Continue(Kind):
    """The rest of a text, or the next turn of a dialogue."""

    name = "continue"
    way: ClassVar[Way] = "generated"
    forms: ClassVar[tuple[Form, ...]] = (PROMPT, DIALOGUE)
    metrics: ClassVar[tuple[str, ...]] = (
        "distinct_2",
        "repetition",
        "reference_logprob",
        "rating",
        "length",
    )
    max_tokens = 128

    def stops_of(self, form: Form) -> tuple[str, ...]:
        """Return the end of a turn; a text has none."""
        if form is DIALOGUE:
            return ("\n",)
        return ()

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return a beginning, and how it goes on where the row says so."""
        references: tuple[str, ...] = ()
        if parts["reference"] is not None:
            references = texts_of(parts["reference"], "reference")
        if form is DIALOGUE:
            if not isinstance(parts["turns"], list):
                raise BadRow(
                    f"the dialogue is {quoted(parts['turns'])}; it must be a list of turns",
                    hint='write "dialogue": ["...", "..."]',
                )
            turns = [_turn(turn, number) for number, turn in enumerate(parts["turns"])]
            # without a reference the last turn is how it goes on
            if not references and len(turns) > 1:
                references = (turns.pop()["text"],)
            if not turns:
                raise BadRow("the dialogue has no turn", hint="give it one, or drop the row")
            shown = {"turns": turns, "next": _next_speaker(turns)}
            about = [turn["text"] for turn in turns]
        else:
            about = [text_of(parts, "prompt")]
            shown = {"prompt": about[0]}
        return ask(
            row,
            form,
            shown=shown,
            about=about,
            target=next(iter(references), ""),
            answers=references,
        )

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return for a chat that it is to go on, not to comment."""
        if not chat:
            return ""
        if form is DIALOGUE:
            return "Write the next turn of the dialogue, and nothing else."
        return "Continue the text. Do not repeat it, and do not comment on it."

    def columns(self, question: Question, outcome: Outcome) -> dict[str, float]:
        """Return how much of the text is new."""
        return continuation_columns(generated(outcome))


def _turn(turn: object, number: int) -> dict[str, str]:
    """Return a turn with its speaker; turns without one alternate."""
    speaker: object = SPEAKERS[number % 2]
    text = turn
    if isinstance(turn, Mapping):
        speaker = next((turn[key] for key in ("speaker", "role", "from") if key in turn), speaker)
        text = next((turn[key] for key in ("text", "content", "value") if key in turn), None)
    if not isinstance(text, str) or not text.strip() or not isinstance(speaker, str):
        raise BadRow(
            f"turn {number} is {quoted(turn)}; it must be a text, or a speaker and a text",
            hint='write {"speaker": "A", "text": "..."}',
        )
    return {"speaker": speaker.strip().capitalize(), "text": " ".join(text.split())}


def _next_speaker(turns: list[dict[str, str]]) -> str:
    """Return who spoke before the last turn, or the other of two."""
    if len(turns) > 1:
        return turns[-2]["speaker"]
    others = {"User": "Assistant", "Human": "Assistant", "A": "B"}
    return others.get(turns[-1]["speaker"], "B")
