"""Answers before and after training, in a file beside what a run saves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from edgellm.errors import FormatError
from edgellm.files.atomic import write_file
from edgellm.files.strict_json import read_json
from edgellm.tokenizer import Tokenizer
from edgellm.training.answers.questions import Question, choose_questions
from edgellm.training.micro_batch import TrainingSequence
from edgellm.training.page.training_page import ShownAnswer

FILE = "answers.json"


class Ask(Protocol):
    """Asks a model, which is opened for that and closed again."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], *, model: str, adapter: Path | None
    ) -> list[str] | None:
        """Return the answers of a model; None where it cannot be asked."""


class KeptAnswers:
    """Questions, and what a model says to them before and after it learns.

    Args:
        folder: that the run writes to.
        ask: asks models; None: nothing is asked.
        count: questions.
        seed: of their choice.
        resume: whether answers of a run that goes on are taken as they are.

    Attributes:
        shown: the questions with their answers so far.
    """

    def __init__(
        self, folder: Path, ask: Ask | None, *, count: int, seed: int, resume: bool
    ) -> None:
        self._path = folder / FILE
        self._ask, self._count, self._seed, self._resume = ask, count, seed, resume
        self._questions: list[Question] = []
        self.shown: list[ShownAnswer] = []

    def before(
        self,
        sequences: Sequence[TrainingSequence],
        tokenizer: Tokenizer,
        model: str,
        adapter: Path | None = None,
    ) -> None:
        """Choose questions of sequences and let a model answer them, as the run begins with it."""
        if self._ask is None or not self._count:
            return
        self._questions = choose_questions(sequences, tokenizer, count=self._count, seed=self._seed)
        if not self._questions:
            return
        kept = _read(self._path) if self._resume else []
        if [one.prompt for one in kept] == [one.prompt for one in self._questions]:
            self.shown = kept
            return
        answers = self._answers(model, adapter)
        if answers is not None:
            self.shown = [
                ShownAnswer(one.prompt, one.expected, answer)
                for one, answer in zip(self._questions, answers, strict=True)
            ]

    def after(self, model: str, adapter: Path | None) -> None:
        """Let a model answer the same questions, which has learned."""
        if not self.shown:
            return
        answers = self._answers(model, adapter)
        if answers is not None:
            pairs = zip(self.shown, answers, strict=True)
            self.shown = [replace(one, after=answer) for one, answer in pairs]

    @property
    def complete(self) -> bool:
        """Whether all questions have both answers."""
        return all(one.after is not None for one in self.shown)

    def save(self) -> None:
        """Write them, whole or not at all. Raises ConversionError."""
        if self.shown:
            text = json.dumps({"answers": self.as_plain()}, indent=1, ensure_ascii=True)
            write_file(self._path, [text.encode()])

    def as_plain(self) -> list[dict[str, Any]]:
        """Return questions and answers as plain data."""
        return [asdict(one) for one in self.shown]

    def _answers(self, model: str, adapter: Path | None) -> list[str] | None:
        assert self._ask is not None
        return self._ask([one.tokens for one in self._questions], model=model, adapter=adapter)


def _read(path: Path) -> list[ShownAnswer]:
    """Return the answers of a file; none where it is absent or damaged: they can be had again."""
    if not path.exists():
        return []
    try:
        found = read_json(path).get("answers")
    except FormatError:
        return []
    if not isinstance(found, list) or not all(map(_is_answer, found)):
        return []
    return [
        ShownAnswer(one["prompt"], one["expected"], one["before"], one.get("after"))
        for one in found
    ]


def _is_answer(one: object) -> bool:
    if not isinstance(one, dict):
        return False
    after = one.get("after")
    texts = [one.get(name) for name in ("prompt", "expected", "before")]
    return all(isinstance(text, str) for text in texts) and (
        after is None or isinstance(after, str)
    )
