"""A question of a task, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Scored(Protocol):
    """A text that a model has scored, as ``LLM.score`` does."""

    @property
    def logprob(self) -> float:
        """The log-likelihood of all its tokens, in nats."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens that were scored."""


Outcome = str | Scored | Sequence[Scored]
"""A generated text; a text that was read; each option that was scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A row as a question.

    Attributes:
        id: of the row; ``row-`` and its line where it has none.
        line: of the file, from 1.
        document: shared by the questions that are about one text.
        fields: the row.
        shown: the variables of a prompt: fields of the row, and its parts under the names that
            they have in the kind; never the answer.
        same: the text that is asked about, folded; rows that share it ask the same.
        target: the answer of an example, as the model is to write it.
        group: examples are taken from each group in turn: the label, as a rule.
        options: texts that are scored.
        right: number of the right option.
        answers: accepted texts.
        tags: of tokens.
    """

    id: str
    line: int
    document: str
    fields: Mapping[str, Any]
    shown: Mapping[str, Any]
    same: str
    target: str
    group: str = ""
    options: tuple[str, ...] = ()
    right: int | None = None
    answers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def is_unnamed(self) -> bool:
        """Whether the row has no id of its own, so that its id means nothing in another file."""
        return self.id == f"row-{self.line}"
