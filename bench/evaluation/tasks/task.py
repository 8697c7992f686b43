"""A task: the questions of a file, and their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.bench.evaluation.tasks.kinds.kind import Kind
from edgellm.bench.evaluation.tasks.prompts import BETWEEN, Prompter, PromptSet
from edgellm.bench.evaluation.tasks.rows.forms import Form
from edgellm.bench.evaluation.tasks.rows.question import Question
from edgellm.bench.evaluation.tasks.shots import apart_from, choose_shots
from edgellm.bench.evaluation.tasks.templates import PromptTemplate
from edgellm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Task:
    """The rows of a file as questions.

    Attributes:
        name: the file's, without its ending.
        path: of the file.
        kind: of the task.
        form: of its rows.
        rows: all of them, as questions.
        labels: that all questions share, if they do.
        template: of the prompt.
        is_own_prompt: whether a person gave it; then it is all that is said.
        shots_from: the rows of another file that examples come from; None for the task's own.
        skipped: rows without a right answer.
        notes: what a reader should know about the file.
    """

    name: str
    path: Path
    kind: Kind
    form: Form
    rows: tuple[Question, ...]
    labels: tuple[str, ...]
    template: PromptTemplate
    is_own_prompt: bool
    shots_from: tuple[Question, ...] | None
    skipped: int
    notes: tuple[str, ...]

    def questions(
        self, limit: int | None = None, *, shots: int = 0, shot_seeds: int = 1
    ) -> list[Question]:
        """Return the rows under test, in the file's order.

        Where examples come from the same file its last rows are kept for them, and rows that
        share their id, text or document with such a row are not asked.

        Args:
            limit: the most questions; the first ones are taken.
            shots: the most examples that any run will show.
            shot_seeds: blocks of examples that there will be.

        Raises:
            ConfigError: there are not enough rows.
        """
        asked = list(self.rows)
        kept = shots * shot_seeds
        if kept and self.shots_from is None and self.kind.way != "read":
            asked = self._under_test(kept)
        return asked[:limit]

    def prompts(
        self,
        questions: Sequence[Question],
        shots: int = 0,
        shot_seed: int = 0,
        chat: bool | None = None,
    ) -> PromptSet:
        """Return the prompts of questions.

        Args:
            questions: of this task.
            shots: examples before each question.
            shot_seed: number of the block of examples; each number has other rows.
            chat: whether messages are wanted.

        Raises:
            ConfigError: there are not enough other rows, or the template fails on one.
        """
        is_chat = bool(chat) and self.kind.way != "read"
        examples = self._shots(questions, shots, shot_seed)
        instruction = ""
        if not self.is_own_prompt:
            instruction = self.kind.instruction(self.form, self.labels, chat=is_chat)
        prompter = Prompter(self.template, instruction, examples, way=self.kind.way, chat=is_chat)
        stops = self.kind.stops_of(self.form)
        if examples and self.kind.way == "generated" and not stops:
            stops = (BETWEEN,)
        if any("\n" in row.target for row in self.rows):
            stops = tuple(stop.replace("\n", BETWEEN) if stop == "\n" else stop for stop in stops)
        if is_chat:
            stops = ()  # the chat template's end of a turn is enough
        return PromptSet(
            prompts=tuple(prompter.prompt(question) for question in questions),
            shots=tuple(examples),
            block=prompter.block,
            template=self.template.source,
            chat=is_chat,
            stops=stops,
            max_tokens=self.kind.max_tokens,
        )

    def _under_test(self, kept: int) -> list[Question]:
        examples = choose_shots([row for row in self.rows[::-1] if row.target], kept)
        others = apart_from(self.rows, examples)
        if len(examples) < kept or not others:
            raise ConfigError(
                f"{self.path} has {len(self.rows)} rows: too few for {kept} examples and a "
                "question",
                hint="use fewer --shots or --shot-seeds, or name other rows with --shots-from",
            )
        shown = {example.document for example in examples}
        apart = [row for row in others if row.document not in shown]
        # a file about few texts would have nothing left to ask
        if 2 * len(apart) < len(others):
            return others
        return apart

    def _shots(self, questions: Sequence[Question], shots: int, shot_seed: int) -> list[Question]:
        if not shots or self.kind.way == "read":
            return []
        pool: Sequence[Question] = self.rows[::-1]
        if self.shots_from is not None:
            pool = self.shots_from
        pool = [row for row in apart_from(pool, questions) if row.target]
        documents = {question.document for question in questions}
        chosen = choose_shots(pool, shots * (shot_seed + 1), avoided=documents)[shots * shot_seed :]
        if len(chosen) < shots:
            raise ConfigError(
                f"too few rows can be examples: {len(pool)} for {shots * (shot_seed + 1)}; no row "
                "is shown that is asked, or whose id or text is that of one",
                hint="use fewer --shots or --shot-seeds, or name other rows with --shots-from",
            )
        return chosen
